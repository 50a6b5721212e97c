"""Rounding that knows the inputs (GPTQ, arXiv:2210.17323): what one column loses, the columns after it make up for.

Pure functions on tensors. Shape letters: R rows, C columns of a matrix, which maps C inputs to R outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reference_model.quantize import QuantizedTensor, QuantizeError, largest_level

COLUMNS_AT_ONCE = 128
# A damping of which even this multiple leaves no positive definite matrix means that it is none.
LARGEST_DAMPING_FACTOR = 1e6


@dataclass(frozen=True)
class Rounding:
    """How matrices are rounded.

    Attributes:
        damping: Added to the diagonal of the Hessian, as a share of its mean.
        activity_order: Round the columns with the largest inputs first.
    """

    damping: float = 0.01
    activity_order: bool = True


def round_with_hessian(
    weight_RC: Tensor, nearest: QuantizedTensor, hessian_CC: Tensor, how: Rounding
) -> QuantizedTensor:
    """Integers of a matrix that change its outputs less than the nearest ones do.

    The scales stay those of `nearest`. A row for which the nearest integers are better keeps them: for no row is the
    squared error of the outputs on the inputs behind the Hessian larger than theirs.

    Args:
        weight_RC: The matrix.
        nearest: The same, rounded to nearest.
        hessian_CC: X^T X of inputs X, one of them per row.
        how: Damping and order.

    Raises:
        QuantizeError: The Hessian is not finite, or not positive semidefinite.
    """
    if not bool(hessian_CC.isfinite().all()):
        raise QuantizeError("inputs that are not finite")
    hessian_CC, wide_RC, scale_R1 = hessian_CC.double(), weight_RC.double(), nearest.scale.double()[:, None]
    activity_C = hessian_CC.diagonal()
    if how.activity_order:
        order_C = activity_C.argsort(descending=True, stable=True)
    else:
        order_C = torch.arange(len(activity_C), device=activity_C.device)
    factor_CC = inverse_factor(hessian_CC[order_C][:, order_C], how.damping)
    levels_RC = torch.empty_like(wide_RC)
    levels_RC[:, order_C] = _round_columns(wide_RC[:, order_C], scale_R1, factor_CC, largest_level(nearest.bits))
    nearest_RC = nearest.values.double()
    losses_2R = [output_error(wide_RC, rounded_RC * scale_R1, hessian_CC) for rounded_RC in (levels_RC, nearest_RC)]
    better_R1 = (losses_2R[0] < losses_2R[1])[:, None]
    values = torch.where(better_R1, levels_RC, nearest_RC).to(torch.int8)
    return QuantizedTensor(values, nearest.scale, nearest.bits, nearest.dtype)


def output_error(weight_RC: Tensor, rounded_RC: Tensor, hessian_CC: Tensor) -> Tensor:
    """Squared error of every output, summed over the inputs behind the Hessian, R."""
    change_RC = rounded_RC - weight_RC
    return ((change_RC @ hessian_CC) * change_RC).sum(1)


def inverse_factor(hessian_CC: Tensor, damping: float) -> Tensor:
    """Upper triangular U with U^T U = (H + damping * mean * I)^-1, in float64.

    An input that is always zero leaves its column alone. Damping grows tenfold until the sum is positive definite.

    Raises:
        QuantizeError: It never is.
    """
    activity_C = hessian_CC.diagonal()
    lives_C = activity_C > 0
    mean = activity_C[lives_C].mean() if bool(lives_C.any()) else torch.ones_like(activity_C[0])
    filled_CC = hessian_CC + torch.diag(torch.where(lives_C, 0.0, mean))
    share = damping
    while share <= LARGEST_DAMPING_FACTOR * damping:
        damped_CC = filled_CC + share * mean * torch.eye(len(filled_CC), dtype=filled_CC.dtype, device=filled_CC.device)
        lower_CC, failed = torch.linalg.cholesky_ex(damped_CC)
        if not int(failed):
            upper_CC: Tensor
            upper_CC, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower_CC), upper=True)
            if not int(failed):
                return upper_CC
        share *= 10.0
    raise QuantizeError("inputs whose products are no positive semidefinite matrix")


def _round_columns(wide_RC: Tensor, scale_R1: Tensor, factor_CC: Tensor, top: int) -> Tensor:
    """Integers of the columns in turn, as float64; later columns take up the errors of earlier ones."""
    wide_RC, levels_RC, columns = wide_RC.clone(), torch.empty_like(wide_RC), wide_RC.shape[1]
    for start in range(0, columns, COLUMNS_AT_ONCE):
        end = min(start + COLUMNS_AT_ONCE, columns)
        block, errors = wide_RC[:, start:end], torch.empty_like(wide_RC[:, start:end])
        for place, column in enumerate(range(start, end)):
            level_R1 = (block[:, place : place + 1] / scale_R1).round().clamp(-top, top)
            levels_RC[:, column : column + 1] = level_R1
            error_R1 = (block[:, place : place + 1] - level_R1 * scale_R1) / factor_CC[column, column]
            block[:, place:].addmm_(error_R1, factor_CC[column : column + 1, column:end], alpha=-1.0)
            errors[:, place : place + 1] = error_R1
        wide_RC[:, end:].addmm_(errors, factor_CC[start:end, end:], alpha=-1.0)
    return levels_RC
