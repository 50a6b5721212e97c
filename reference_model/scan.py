"""Mamba's selective scan (arXiv:2312.00752, section 3): a float64 reference, and a fast one in plain PyTorch.

    h[t] = exp(dt[t] * A) * h[t-1] + dt[t] * x[t] * B[t]        y[t] = sum over the state of C[t] * h[t]

The skip `D * x` and the gate `SiLU(z)` are elementwise and belong to the caller.

Shape letters: B batch, T time, D channels, N state, L time inside one chunk.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from reference_model.scan_cpp import KERNEL_STATES, CppScan, ScanKernel, scan_kernel

# The float64 steps, PyTorch's operators, one compiled operator.
SCAN_BACKENDS = ("reference", "torch", "cpp")


class ScanInputs(NamedTuple):
    """What the scan reads.

    Attributes:
        x_BTD: Input, after convolution and SiLU.
        dt_BTD: Step sizes, positive.
        A_DN: Decay rates, negative.
        B_BTN: Input projection.
        C_BTN: Output projection.

    """

    x_BTD: Tensor
    dt_BTD: Tensor
    A_DN: Tensor
    B_BTN: Tensor
    C_BTN: Tensor


def selective_scan_reference(inputs: ScanInputs, state_BDN: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Step through time in float64, autograd recording every step: slow, and what the fast scan is tested against.

    Returns:
        y_BTD and the state after the last step, both float64.

    """
    x_BTD, dt_BTD, A_DN, B_BTN, C_BTN = (tensor.double() for tensor in inputs)
    h_BDN = x_BTD.new_zeros(len(x_BTD), *A_DN.shape) if state_BDN is None else state_BDN.double()
    outputs = []
    for step in range(x_BTD.shape[1]):
        dt_BD1 = dt_BTD[:, step, :, None]
        h_BDN = torch.exp(dt_BD1 * A_DN) * h_BDN + dt_BD1 * x_BTD[:, step, :, None] * B_BTN[:, step, None]
        outputs.append((h_BDN * C_BTN[:, step, None]).sum(-1))
    return torch.stack(outputs, 1), h_BDN


def selective_scan(
    inputs: ScanInputs, state_BDN: Tensor | None = None, *, chunk: int = 64, backend: str = "torch"
) -> tuple[Tensor, Tensor]:
    """Scan in chunks of `chunk` steps; differentiable in all inputs, the initial state among them.

    Computes in float32 (float64 when x is), whatever the surrounding autocast says. Only the states at the chunks'
    boundaries are kept for the backward pass, which recomputes the others.

    Args:
        inputs: See ScanInputs.
        state_BDN: State before the first step; zeros when absent.
        chunk: Steps per chunk of the torch backend; it changes speed and memory, not the result.
        backend: One of SCAN_BACKENDS. "cpp" falls back to "torch" where the kernel cannot be compiled, for float64,
            for state sizes without a kernel and off the CPU.

    Returns:
        y_BTD and the state after the last step, in the computing type.

    Raises:
        ValueError: There is no such backend.

    """
    if backend not in SCAN_BACKENDS:
        raise ValueError(f"scan backend {backend!r} is none of {', '.join(SCAN_BACKENDS)}")
    if backend == "reference":
        return selective_scan_reference(inputs, state_BDN)
    dtype = torch.promote_types(inputs.x_BTD.dtype, torch.float32)
    if state_BDN is None:
        state_BDN = inputs.x_BTD.new_zeros(len(inputs.x_BTD), *inputs.A_DN.shape)
    tensors = (inputs.x_BTD, inputs.dt_BTD, inputs.A_DN.t(), inputs.B_BTN, inputs.C_BTN, state_BDN.transpose(1, 2))
    if inputs.x_BTD.shape[1] == 1 and not any(tensor.requires_grad for tensor in tensors):
        return single_step(tuple(tensor.to(dtype) for tensor in tensors))
    ready = tuple(tensor.to(dtype).contiguous() for tensor in tensors)
    kernel = _kernel_for(ready) if backend == "cpp" else None
    if kernel is not None:
        y_BTD, state_BND = CppScan.apply(kernel, *ready)  # type: ignore[no-untyped-call]  # untyped in torch
    else:
        y_BTD, state_BND = SelectiveScan.apply(chunk, *ready)  # type: ignore[no-untyped-call]  # untyped in torch
    return y_BTD, state_BND.transpose(1, 2)


def single_step(tensors: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """One step without a derivative and without a chunk's work space; returns y_B1D and the next state B, D, N."""
    x_B1D, dt_B1D, A_ND, B_B1N, C_B1N, h_BND = tensors
    h_BND = torch.exp(dt_B1D * A_ND) * h_BND
    h_BND = torch.addcmul(h_BND, dt_B1D * x_B1D, B_B1N.transpose(1, 2))
    return (C_B1N.transpose(1, 2) * h_BND).sum(1, keepdim=True), h_BND.transpose(1, 2)


def _kernel_for(tensors: tuple[Tensor, ...]) -> ScanKernel | None:
    """The compiled kernel, where it can serve these tensors."""
    x_BTD, A_ND = tensors[0], tensors[2]
    fits = x_BTD.dtype == torch.float32 and x_BTD.device.type == "cpu" and len(A_ND) in KERNEL_STATES
    return scan_kernel() if fits and x_BTD.numel() else None


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
