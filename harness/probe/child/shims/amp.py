"""Mixed precision: CUDA's autocast becomes the CPU's, inference mode becomes `no_grad`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..events import replaced
from ..patch import put

REAL_AUTOCAST = torch.amp.autocast_mode.autocast
# What CUDA's autocast runs in float32 and the CPU's as it comes; from torch's list of operators, torch.amp, "CUDA Ops
# that can autocast to float32".
FLOAT32 = """
    softmax.int log_softmax.int logsumexp cumsum cumprod sum sum.dim_IntList prod prod.dim_int
    exp expm1 log log10 log1p log2 reciprocal rsqrt pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar
    layer_norm group_norm softplus cosine_similarity
    kl_div l1_loss smooth_l1_loss mse_loss nll_loss nll_loss_nd
    """.split()  # noqa: SIM905 - one word, one operator
NARROW = frozenset({torch.float16, torch.bfloat16})


class autocast(REAL_AUTOCAST):  # noqa: N801 - the name it has in torch
    """`torch.autocast`; bfloat16 is kept, the list of operators in it is the CPU's."""

    def __init__(
        self, device_type: str = "cuda", dtype: Any = None, enabled: bool = True, cache_enabled: Any = None
    ) -> None:
        replaced("torch.autocast", "the CPU's autocast, with CUDA's operators in float32", exact=False)
        super().__init__("cpu", dtype=dtype, enabled=enabled, cache_enabled=cache_enabled)


class cuda_autocast(autocast):  # noqa: N801 - the name it has in torch
    """`torch.cuda.amp.autocast`, whose default is float16."""

    def __init__(self, enabled: bool = True, dtype: Any = torch.float16, cache_enabled: Any = None) -> None:
        super().__init__("cuda", dtype, enabled, cache_enabled)


class GradScaler:
    """A scaler that does not scale: bfloat16 and float32 need none."""

    def __init__(self, *_arguments: Any, **_keywords: Any) -> None:
        replaced("GradScaler", "does not scale", exact=False)

    def scale(self, value: Any) -> Any:
        """The value itself."""
        return value

    def unscale_(self, optimizer: Any) -> None:
        """Nothing was scaled."""

    def step(self, optimizer: Any, *arguments: Any, **keywords: Any) -> Any:
        """The optimizer's step."""
        return optimizer.step(*arguments, **keywords)

    def update(self, new_scale: Any = None) -> None:
        """There is no scale."""

    def get_scale(self) -> float:
        """One."""
        return 1.0

    def is_enabled(self) -> bool:
        """It is not."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """Nothing to save."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to load."""


def inference_mode(mode: bool | Callable[..., Any] = True) -> Any:
    """`no_grad`: tensors of inference mode may never be used in autograd, which some scripts do later."""
    replaced("torch.inference_mode", "torch.no_grad")
    if callable(mode):
        return torch.no_grad()(mode)
    return torch.no_grad() if mode else torch.enable_grad()


def widen() -> torch.library.Library:
    """Let the CPU's autocast run the operators in float32 that CUDA's does; the library undoes it when it is gone."""
    library = torch.library.Library("aten", "IMPL")
    for name in FLOAT32:
        packet, _, overload = name.partition(".")
        operator = getattr(getattr(torch.ops.aten, packet), overload or "default")
        if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "AutocastCPU"):
            library.impl(name, _wide(operator), "AutocastCPU")
    return library


def _wide(operator: Any) -> Callable[..., Any]:
    without = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)

    def call(*arguments: Any, **keywords: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(without):
            # A type that is asked for is given.
            if any(isinstance(each, torch.dtype) for each in [*arguments, *keywords.values()]):
                return operator(*arguments, **keywords)
            return operator(*map(_float, arguments), **{name: _float(each) for name, each in keywords.items()})

    return call


def _float(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.dtype in NARROW else value


_kept: list[torch.library.Library] = []


def install() -> None:
    """Replace autocast, scaler and inference mode."""
    _kept.append(widen())
    put(torch, autocast=autocast, inference_mode=inference_mode)
    put(torch.amp, autocast=autocast, GradScaler=GradScaler)
    put(torch.amp.autocast_mode, autocast=autocast)
    put(torch.cuda.amp, autocast=cuda_autocast, GradScaler=GradScaler)
    enabled, dtype = torch.is_autocast_enabled, torch.get_autocast_dtype
    put(
        torch,
        is_autocast_enabled=lambda _device="cuda": enabled("cpu"),
        get_autocast_dtype=lambda _device="cuda": dtype("cpu"),
        get_autocast_gpu_dtype=lambda: dtype("cpu"),
    )
