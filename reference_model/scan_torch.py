"""The selective scan by PyTorch's operators, chunk by chunk, with a derivative written by hand.

Shape letters: B batch, T time, D channels, N state, L time inside one chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx


class ScanContext(FunctionCtx):
    """What the forward pass leaves to the backward pass."""

    saved_tensors: tuple[Tensor, ...]
    chunk: int


class SelectiveScan(torch.autograd.Function):
    """The chunked scan and its derivative, written by hand.

    Inside a chunk, everything that does not depend on earlier steps is computed for the whole chunk at once; what
    remains per step is one multiply-add on contiguous memory. Work space of one chunk has the order L, B, N, D: it
    stays in the processor's cache, and the small dimension N never becomes an inner loop.
    """

    @staticmethod
    def forward(ctx: ScanContext, chunk: int, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Return y_BTD and the last state_BND; tensors are x_BTD, dt_BTD, A_ND, B_BTN, C_BTN, state_BND."""
        x_BTD, dt_BTD, A_ND, B_BTN, C_BTN, h_BND = tensors
        steps = ChunkSteps(x_BTD, dt_BTD, A_ND, B_BTN, chunk)
        y_BTD = torch.empty_like(x_BTD)
        boundaries = []
        for span in steps.spans():
            boundaries.append(h_BND)
            h_LBND = steps.run(span, h_BND)
            y_BTD[:, span] = sum_over_state(C_BTN[:, span], h_LBND)
            h_BND = h_LBND[-1].clone()
        ctx.save_for_backward(x_BTD, dt_BTD, A_ND, B_BTN, C_BTN, *boundaries)
        ctx.chunk = chunk
        return y_BTD, h_BND

    @staticmethod
    def backward(ctx: ScanContext, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Walk the chunks backwards; the gradient of the state at each chunk's end is carried over."""
        x_BTD, dt_BTD, A_ND, B_BTN, C_BTN, *boundaries = ctx.saved_tensors
        dy_BTD, carry_BND = grads
        steps = ChunkSteps(x_BTD, dt_BTD, A_ND, B_BTN, ctx.chunk)
        grad = ScanGradients(steps)
        dx_BTD, ddt_BTD, dB_BTN, dC_BTN = (torch.empty_like(tensor) for tensor in (x_BTD, dt_BTD, B_BTN, C_BTN))
        for span, h_BND in reversed(list(zip(steps.spans(), boundaries, strict=True))):
            x_BLD, dt_BLD = x_BTD[:, span], dt_BTD[:, span]
            h_LBND = steps.run(span, h_BND)
            dC_BTN[:, span] = sum_over_channels(dy_BTD[:, span], h_LBND)
            dh_LBND = grad.of_states(C_BTN[:, span], dy_BTD[:, span], carry_BND)
            dB_BTN[:, span] = sum_over_channels(dt_BLD * x_BLD, dh_LBND)
            dinput_BLD = sum_over_state(B_BTN[:, span], dh_LBND)
            drate_BLD, carry_BND = grad.of_rates(dt_BLD, h_BND)
            dx_BTD[:, span] = dinput_BLD * dt_BLD
            ddt_BTD[:, span] = drate_BLD.addcmul(dinput_BLD, x_BLD)
        return None, dx_BTD, ddt_BTD, grad.dA_LBND.sum((0, 1)), dB_BTN, dC_BTN, carry_BND


class ChunkSteps:
    """Computes one chunk at a time into work space that is made once.

    Attributes:
        decay_LBND: exp(dt * A) of the current chunk.
        h_LBND: The states after each of its steps.
        length: How many steps it has; the last chunk may be shorter than the work space.

    """

    def __init__(self, x_BTD: Tensor, dt_BTD: Tensor, A_ND: Tensor, B_BTN: Tensor, chunk: int) -> None:
        self.x_BTD, self.dt_BTD, self.A_ND, self.B_BTN = x_BTD, dt_BTD, A_ND, B_BTN
        self.chunk = chunk
        self.length = min(chunk, x_BTD.shape[1])
        self.decay_LBND, self.h_LBND = x_BTD.new_empty(2, self.length, len(x_BTD), *A_ND.shape).unbind(0)
        # Views of every step: making them anew for each chunk costs as much as the arithmetic.
        self.decay_steps, self.h_steps = self.decay_LBND.unbind(0), self.h_LBND.unbind(0)

    def spans(self) -> list[slice]:
        """Return the chunks' stretches of time."""
        return [slice(start, start + self.chunk) for start in range(0, self.x_BTD.shape[1], self.chunk)]

    def run(self, span: slice, h_BND: Tensor) -> Tensor:
        """Compute a chunk from the state before it; the returned h_LBND is valid until the next call."""
        x_LBD, dt_LBD, B_LBN = (tensor[:, span].transpose(0, 1) for tensor in (self.x_BTD, self.dt_BTD, self.B_BTN))
        self.length = len(x_LBD)
        decay_LBND, h_LBND = self.decay_LBND[: self.length], self.h_LBND[: self.length]
        torch.mul(dt_LBD[:, :, None], self.A_ND, out=decay_LBND).exp_()
        torch.mul((dt_LBD * x_LBD)[:, :, None], B_LBN[..., None], out=h_LBND)
        for decay_BND, next_BND in zip(self.decay_steps[: self.length], self.h_steps, strict=False):
            h_BND = next_BND.addcmul_(decay_BND, h_BND)
        return h_LBND


class ScanGradients:
    """Gradients inside the chunk that `steps` computed last."""

    def __init__(self, steps: ChunkSteps) -> None:
        self.steps = steps
        self.dh_LBND, self.dA_LBND = torch.empty_like(steps.h_LBND), torch.zeros_like(steps.h_LBND)
        self.dh_steps = self.dh_LBND.unbind(0)

    def of_states(self, C_BLN: Tensor, dy_BLD: Tensor, carry_BND: Tensor) -> Tensor:
        """Gradient of every state: from its own output and, through the decays, from all later steps."""
        length = self.steps.length
        dh_LBND = self.dh_LBND[:length]
        torch.mul(C_BLN.transpose(0, 1)[..., None], dy_BLD.transpose(0, 1)[:, :, None], out=dh_LBND)
        later_BND = self.dh_steps[length - 1].add_(carry_BND)
        for step in range(length - 2, -1, -1):
            later_BND = self.dh_steps[step].addcmul_(self.steps.decay_steps[step + 1], later_BND)
        return dh_LBND

    def of_rates(self, dt_BLD: Tensor, h_BND: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of dt through the decays, and of the state before the chunk; adds up that of A.

        Overwrites the chunk's decays: they become the gradient of the exponent dt * A.
        """
        length = self.steps.length
        drate_LBND = self.steps.decay_LBND[:length].mul_(self.dh_LBND[:length])
        carry_BND = drate_LBND[0].clone()
        drate_LBND[1:].mul_(self.steps.h_LBND[: length - 1])
        drate_LBND[0].mul_(h_BND)
        self.dA_LBND[:length].addcmul_(drate_LBND, dt_BLD.transpose(0, 1)[:, :, None])
        return drate_LBND.mul_(self.steps.A_ND).sum(2).transpose(0, 1), carry_BND


def sum_over_state(weight_BLN: Tensor, h_LBND: Tensor) -> Tensor:
    """Weighted sum over N; returns B, L, D. The `out` form of the product keeps autocast away."""
    length, batch, state, channels = h_LBND.shape
    out = h_LBND.new_empty(length * batch, 1, channels)
    weight = weight_BLN.transpose(0, 1).reshape(-1, 1, state)
    return torch.bmm(weight, h_LBND.view(-1, state, channels), out=out).view(length, batch, channels).transpose(0, 1)


def sum_over_channels(weight_BLD: Tensor, h_LBND: Tensor) -> Tensor:
    """Weighted sum over D; returns B, L, N."""
    length, batch, state, channels = h_LBND.shape
    out = h_LBND.new_empty(length * batch, state, 1)
    weight = weight_BLD.transpose(0, 1).reshape(-1, channels, 1)
    return torch.bmm(h_LBND.view(-1, state, channels), weight, out=out).view(length, batch, state).transpose(0, 1)
