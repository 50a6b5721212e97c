"""The network's elementwise chains behind one object: PyTorch's operators, or compiled kernels where they can serve.

Shape letters: B batch, T time, D channels, H heads, E width of a head, R rows, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from reference_model.attention import normalized_heads
from reference_model.fused import (
    CappedEntropy,
    MixNorm,
    RotatedHeads,
    SquaredRectifier,
    fused_kernels,
)

# Above it the sum of exponentials that the kernel takes could overflow.
LARGEST_CAP = 60.0


class Elementwise:
    """By PyTorch's operators."""

    def norm(self, x: Tensor) -> Tensor:
        """By the root mean square of the last dimension."""
        return F.rms_norm(x, x.shape[-1:])

    def mix(self, x: Tensor, u: Tensor, b_D: Tensor, a_D: Tensor | None = None) -> Tensor:
        """Sum of a * x and b * u, weights per channel; a is 1 where there is none."""
        return torch.addcmul(x if a_D is None else a_D * x, b_D, u)

    def mix_norm(self, x: Tensor, u: Tensor, b_D: Tensor, a_D: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The mixture, and its norm."""
        mixed = self.mix(x, u, b_D, a_D)
        return mixed, self.norm(mixed)

    def heads(
        self, x_BTHE: Tensor, rotary: tuple[Tensor, Tensor], start: int = 0, gain_H: Tensor | None = None
    ) -> Tensor:
        """Normalized heads (see `normalized_heads`), each by its gain."""
        y_BTHE = normalized_heads(x_BTHE, rotary, start)
        return y_BTHE if gain_H is None else y_BTHE * gain_H[:, None].to(y_BTHE.dtype)

    def squared_rectifier(self, x: Tensor, slope: float) -> Tensor:
        """Square of the leaky rectifier."""
        return F.leaky_relu(x, slope).square()

    def capped_entropy(self, z_RV: Tensor, targets_R: Tensor, cap: float) -> Tensor:
        """Cross-entropy of cap * tanh(z), or of z where there is no cap, for each row."""
        return F.cross_entropy(cap * torch.tanh(z_RV) if cap else z_RV, targets_R, reduction="none")


class FusedElementwise(Elementwise):
    """By compiled kernels where they can serve, else as the base class."""

    def norm(self, x: Tensor) -> Tensor:  # noqa: D102 - as the base class
        if fused_kernels(x) is None:
            return super().norm(x)
        found: tuple[Tensor, ...] = MixNorm.apply(x, None, None, None, True)  # type: ignore[no-untyped-call]  # noqa: FBT003 - autograd takes no names
        return found[0]

    def mix(self, x: Tensor, u: Tensor, b_D: Tensor, a_D: Tensor | None = None) -> Tensor:  # noqa: D102 - as the base class
        if fused_kernels(x, u, b_D, a_D) is None:
            return super().mix(x, u, b_D, a_D)
        found: tuple[Tensor, ...] = MixNorm.apply(x, u, a_D, b_D, False)  # type: ignore[no-untyped-call]  # noqa: FBT003 - autograd takes no names
        return found[0]

    def mix_norm(  # noqa: D102 - as the base class
        self, x: Tensor, u: Tensor, b_D: Tensor, a_D: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if fused_kernels(x, u, b_D, a_D) is None:
            return super().mix_norm(x, u, b_D, a_D)
        mixed, normed = MixNorm.apply(x, u, a_D, b_D, True)  # type: ignore[no-untyped-call]  # noqa: FBT003 - autograd takes no names
        return mixed, normed

    def heads(  # noqa: D102 - as the base class
        self, x_BTHE: Tensor, rotary: tuple[Tensor, Tensor], start: int = 0, gain_H: Tensor | None = None
    ) -> Tensor:
        cos, sin = (table[start : start + x_BTHE.shape[1]] for table in rotary)
        if fused_kernels(x_BTHE, cos, sin, gain_H) is None or 2 * cos.shape[-1] != x_BTHE.shape[-1]:
            return super().heads(x_BTHE, rotary, start, gain_H)
        y_BTHE: Tensor = RotatedHeads.apply(x_BTHE, cos, sin, gain_H)  # type: ignore[no-untyped-call]  # untyped in torch
        return y_BTHE

    def squared_rectifier(self, x: Tensor, slope: float) -> Tensor:  # noqa: D102 - as the base class
        if fused_kernels(x) is None:
            return super().squared_rectifier(x, slope)
        squared: Tensor = SquaredRectifier.apply(x, slope)  # type: ignore[no-untyped-call]  # untyped in torch
        return squared

    def capped_entropy(self, z_RV: Tensor, targets_R: Tensor, cap: float) -> Tensor:  # noqa: D102 - as the base class
        if not 0 < cap <= LARGEST_CAP or fused_kernels(z_RV) is None:
            return super().capped_entropy(z_RV, targets_R, cap)
        losses_R: Tensor = CappedEntropy.apply(z_RV, targets_R, cap)  # type: ignore[no-untyped-call]  # untyped in torch
        return losses_R


def elementwise(backend: str) -> Elementwise:
    """The operators of a backend, one of ELEMENTWISE_BACKENDS."""
    return FusedElementwise() if backend == "auto" else Elementwise()
