"""Meta tokens: learned vectors before the text that predict nothing and that every query sees (arXiv:2411.13676).

Shape letters: B batch, T time, M meta tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

META_INIT_STD = 0.02


def meta_parameter(count: int, dim: int) -> nn.Parameter | None:
    """The vectors, 1, M, D, or None when there are none."""
    return nn.Parameter(torch.zeros(1, count, dim)) if count else None


def init_meta(meta_1MD: nn.Parameter | None, generator: torch.Generator | None) -> None:
    """Draw the vectors."""
    if meta_1MD is not None:
        nn.init.normal_(meta_1MD, std=META_INIT_STD, generator=generator)


def with_meta(meta_1MD: Tensor | None, x_BTD: Tensor) -> Tensor:
    """The vectors, then the text: B, M + T, D."""
    if meta_1MD is None:
        return x_BTD
    return torch.cat((meta_1MD.to(x_BTD.dtype).expand(len(x_BTD), -1, -1), x_BTD), 1)
