"""The scan and the convolution against the reference functions that mamba-ssm and causal-conv1d ship, on a CPU.

    nox -s oracle

installs the two packages without building their CUDA code and runs this file. For each backend and shape it prints the
largest deviation of the outputs and of every gradient, as a share of the largest value or of 1. Sequences are
short: the backward pass of `selective_scan_ref` costs quadratically in time.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

import torch
from torch import Tensor

from reference_model.conv import causal_conv
from reference_model.memory import Tail
from reference_model.scan import ScanFrame, ScanInputs, selective_scan
from reference_model.scan_cpp import cpp_scan_problem

Reference: TypeAlias = Callable[..., tuple[Tensor, Tensor]]
# Batch, time, channels, state or taps.
SCAN_SHAPES = ((1, 1, 1, 1), (2, 7, 5, 3), (2, 64, 16, 4), (1, 65, 33, 8), (2, 128, 24, 16))
CONV_SHAPES = ((1, 1, 1, 2), (2, 7, 5, 3), (3, 64, 16, 4), (1, 128, 33, 4))
TOLERANCE = 1e-5
# Modules that only the GPU paths use.
CUDA_MODULES = ("selective_scan_cuda", "causal_conv1d_cuda", "mamba_ssm.ops.triton.layer_norm")


def scan_reference() -> Reference:
    """mamba-ssm's `selective_scan_ref`, without what the package imports for the GPU."""
    found = importlib.metadata.files("mamba-ssm") or []
    folder = Path(str(next(path for path in found if path.name == "__init__.py").locate())).parent
    for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton"):
        # Packages whose own __init__, which imports every model, is not run.
        package = ModuleType(name)
        package.__path__ = [str(folder.parent / name.replace(".", "/"))]
        sys.modules[name] = package
    _stand_in_for_cuda()
    function: Reference = importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_ref
    return function


def conv_reference() -> Reference:
    """causal-conv1d's `causal_conv1d_ref`."""
    _stand_in_for_cuda()
    function: Reference = importlib.import_module("causal_conv1d.causal_conv1d_interface").causal_conv1d_ref
    return function


def _stand_in_for_cuda() -> None:
    for name in CUDA_MODULES:
        module = sys.modules.setdefault(name, ModuleType(name))
        module.__spec__ = ModuleSpec(name, None)
        module.__dict__["_layer_norm_fwd"] = None


def draws(shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Random tensors that want gradients."""
    generator = torch.Generator().manual_seed(sum(map(sum, shapes)))
    return [torch.randn(*shape, generator=generator).requires_grad_() for shape in shapes]


def largest_deviation(ours: Sequence[Tensor], theirs: Sequence[Tensor], leaves: Sequence[Tensor]) -> float:
    """Of outputs and of the gradients of one loss over them, as a share of the largest value or of 1."""
    weights = [torch.randn(y.shape, generator=torch.Generator().manual_seed(3)) for y in theirs]
    both = []
    for found in (ours, theirs):
        loss = sum(((y * weight).sum() for y, weight in zip(found, weights, strict=True)), torch.zeros(()))
        both.append([*found, *torch.autograd.grad(loss, leaves)])
    pairs = zip(*both, strict=True)
    return max(float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=1)) for a, b in pairs)


def scan_deviation(reference: Reference, shape: tuple[int, int, int, int], backend: str) -> float:
    """Of our scan with softplus, skip and gate from theirs; last state included."""
    batch, time, channels, state = shape
    wide, narrow = (batch, time, channels), (batch, time, state)
    x, dt, b, c, skip, gate = leaves = draws((wide, wide, narrow, narrow, (channels,), wide))
    rates = -torch.arange(1.0, state + 1).repeat(channels, 1)
    frame = ScanFrame(skip, gate, softplus=True)
    ours = selective_scan(ScanInputs(x, dt, rates, b, c), None, frame, backend=backend)
    turned = (tensor.transpose(1, 2) for tensor in (x, dt))
    y, last = reference(
        *turned,
        rates,
        b.transpose(1, 2),
        c.transpose(1, 2),
        D=skip,
        z=gate.transpose(1, 2),
        delta_softplus=True,
        return_last_state=True,
    )
    return largest_deviation(ours, (y.transpose(1, 2), last), leaves)


def conv_deviation(reference: Reference, shape: tuple[int, int, int, int]) -> float:
    """Of our convolution with SiLU from theirs, after some inputs; what each leaves for the next included."""
    batch, time, channels, taps = shape
    shapes = ((batch, time, channels), (channels, 1, taps), (channels,), (batch, taps - 1, channels))
    x, weight, bias, before = leaves = draws(shapes)
    tail = Tail(before)
    y = causal_conv(x, weight, bias, tail, silu=True, backend="torch")
    theirs, after = reference(
        x.transpose(1, 2),
        weight[:, 0],
        bias,
        initial_states=before.transpose(1, 2),
        return_final_states=True,
        activation="silu",
    )
    if tail.items is None:
        raise AssertionError("nothing was left for the next inputs")
    # What is kept has no gradient here.
    return largest_deviation((y, tail.items), (theirs.transpose(1, 2), after.detach().transpose(1, 2)), leaves)


def deviations(scan: Reference, conv: Reference) -> dict[str, float]:
    """Every check by its name."""
    backends = ["reference", "torch", *([] if cpp_scan_problem() else ["cpp"])]
    found = {
        f"scan {backend:9} B, T, D, N = {shape}": scan_deviation(scan, shape, backend)
        for backend in backends
        for shape in SCAN_SHAPES
    }
    return found | {f"conv torch     B, T, D, K = {shape}": conv_deviation(conv, shape) for shape in CONV_SHAPES}


def report(found: dict[str, float]) -> int:
    """Print the deviations; returns 1 where one is too large."""
    for name, deviation in found.items():
        print(f"{name:45} {deviation:.1e}")  # noqa: T201 - what the session shows
    print(f"largest {max(found.values()):.1e}, allowed {TOLERANCE:.0e}")  # noqa: T201 - the same
    return int(not max(found.values()) <= TOLERANCE)


if __name__ == "__main__":
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("mamba-ssm", "causal-conv1d"))
    print(versions)  # noqa: T201 - what the session shows
    sys.exit(report(deviations(scan_reference(), conv_reference())))
