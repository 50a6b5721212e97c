"""Stand-ins for mamba-ssm and causal-conv1d: same signatures, what their kernels check, computed step by step.

The checks are those of `selective_scan_fwd` (mamba-ssm 2.3, csrc/selective_scan/selective_scan.cpp) and
`causal_conv1d_fwd` (causal-conv1d 1.7, csrc/causal_conv1d.cpp), but for the one that tensors are on a GPU.
"""

# ruff: noqa: N803, N806, FBT001, FBT002 - the names and signatures of the packages

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reference_model.cuda import package_problem

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Any:
    # The Python function before the kernel copies what is not side by side.
    u, delta, B, C = (x if x.stride(-1) == 1 else x.contiguous() for x in (u, delta, B, C))
    batch, dim, length = u.shape
    states = A.shape[1]
    assert u.dtype in FLOATS
    assert A.dtype == torch.float32
    assert delta.dtype == B.dtype == C.dtype == u.dtype
    assert states <= 256
    assert delta.shape == (batch, dim, length)
    assert A.shape == (dim, states)
    assert B.shape == C.shape == (batch, states, length)
    assert D is None or (D.dtype == torch.float32 and D.shape == (dim,) and D.stride(-1) == 1)
    assert z is None or (z.dtype == u.dtype and z.shape == u.shape)
    assert delta_bias is None
    steps = F.softplus(delta.float()) if delta_softplus else delta.float()
    state, outputs = u.new_zeros(batch, dim, states, dtype=torch.float32), []
    for t in range(length):
        entering = (steps[:, :, t] * u[:, :, t].float())[..., None] * B[:, None, :, t].float()
        state = torch.exp(steps[:, :, t, None] * A) * state + entering
        outputs.append((state * C[:, None, :, t].float()).sum(-1))
    y = torch.stack(outputs, 2)
    y = y if D is None else y + D[:, None] * u.float()
    y = (y if z is None else y * F.silu(z.float())).to(u.dtype)
    # "Note that the gradient of the last state is not considered in the backward pass."
    return (y, state.detach() + 0 * y.sum()) if return_last_state else y


def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
) -> Any:
    assert activation in {None, "silu", "swish"}
    assert seq_idx is None
    assert final_states_out is None
    if x.stride(2) != 1 and x.stride(1) != 1:
        x = x.contiguous()
    batch, dim, _ = x.shape
    width = weight.shape[1]
    assert x.dtype in FLOATS
    assert weight.shape == (dim, width)
    assert 2 <= width <= 4
    channel_last = x.stride(1) == 1 and x.stride(2) > 1
    if channel_last:
        assert dim % 8 == 0
        assert x.stride(2) % 8 == 0
        assert x.stride(0) % 8 == 0
    assert bias is None or (bias.dtype == weight.dtype and bias.shape == (dim,) and bias.stride(-1) == 1)
    if initial_states is None:
        joined = F.pad(x, (width - 1, 0))
    else:
        assert channel_last
        assert initial_states.dtype == x.dtype
        assert initial_states.shape == (batch, dim, width - 1)
        assert initial_states.stride(1) == 1
        joined = torch.cat((initial_states, x), 2)
    assert channel_last or not return_final_states
    y = F.conv1d(joined.to(weight.dtype), weight[:, None], bias, groups=dim)
    y = (y if activation is None else F.silu(y)).to(x.dtype)
    return (y, joined[:, :, joined.shape[2] - width + 1 :]) if return_final_states else y


def install(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make the stand-ins importable and a CPU count as a GPU; returns a list that names each call from now on."""
    called: list[str] = []

    def counting(function: Any) -> Any:
        def counted(*arguments: Any, **named: Any) -> Any:
            called.append(function.__name__)
            return function(*arguments, **named)

        return counted

    modules = {name: ModuleType(name) for name in ("mamba_ssm", "mamba_ssm.ops", "causal_conv1d")}
    interface = ModuleType("mamba_ssm.ops.selective_scan_interface")
    interface.__dict__["selective_scan_fn"] = counting(selective_scan_fn)
    modules["causal_conv1d"].__dict__["causal_conv1d_fn"] = counting(causal_conv1d_fn)
    for name, module in {**modules, interface.__name__: interface}.items():
        monkeypatch.setitem(sys.modules, name, module)
    package_problem.cache_clear()
    monkeypatch.setattr("reference_model.cuda.CUDA_DEVICES", ("cuda", "cpu"))
    return called
