"""Mixed precision: CUDA's autocast becomes the CPU's, inference mode becomes `no_grad`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..events import replaced
from ..patch import put

REAL_AUTOCAST = torch.amp.autocast_mode.autocast


class autocast(REAL_AUTOCAST):  # noqa: N801 - the name it has in torch
    """`torch.autocast`; bfloat16 is kept, the list of operators is the CPU's."""

    def __init__(
        self, device_type: str = "cuda", dtype: Any = None, enabled: bool = True, cache_enabled: Any = None
    ) -> None:
        replaced("torch.autocast", "the CPU's autocast: other operators keep float32 than on CUDA", exact=False)
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


def install() -> None:
    """Replace autocast, scaler and inference mode."""
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
