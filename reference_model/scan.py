"""Mamba's selective scan (arXiv:2312.00752, section 3) behind one function, by several backends.

    h[t] = exp(dt[t] * A) * h[t-1] + dt[t] * x[t] * B[t]        y[t] = sum over the state of C[t] * h[t]

with what stands around it in a Mamba layer where it is asked for: dt is the softplus of what is given, `D * x` is added
to y, and the whole is multiplied by `SiLU(z)`.

Shape letters: B batch, T time, D channels, N state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from reference_model.backends import SCAN_BACKENDS
from reference_model.cuda import CUDA_STATES, cuda_scan, cuda_scan_problem
from reference_model.native import native_or_warn
from reference_model.scan_cpp import KERNEL_STATES, SCAN_SOURCE, CppScanInputs, compiled_scan, cpp_scan_problem
from reference_model.scan_torch import SelectiveScan
from reference_model.settings import ConfigError


class ScanInputs(NamedTuple):
    """What the scan reads.

    Attributes:
        x_BTD: Input, after convolution and SiLU.
        dt_BTD: Step sizes, positive; with `softplus`, what gives them.
        A_DN: Decay rates, negative.
        B_BTN: Input projection.
        C_BTN: Output projection.

    """

    x_BTD: Tensor
    dt_BTD: Tensor
    A_DN: Tensor
    B_BTN: Tensor
    C_BTN: Tensor


@dataclass(frozen=True)
class ScanFrame:
    """What stands around a scan.

    Attributes:
        skip_D: Weight of x in the output; none adds nothing.
        gate_BTD: Its SiLU multiplies the output; none multiplies by nothing.
        softplus: Whether step sizes are the softplus of what is given.

    """

    skip_D: Tensor | None = None
    gate_BTD: Tensor | None = None
    softplus: bool = False

    def steps(self, dt_BTD: Tensor) -> Tensor:
        """Step sizes."""
        return F.softplus(dt_BTD) if self.softplus else dt_BTD

    def output(self, y_BTD: Tensor, x_BTD: Tensor) -> Tensor:
        """The output, with skip and gate."""
        if self.skip_D is not None:
            y_BTD = torch.addcmul(y_BTD, self.skip_D.to(y_BTD.dtype), x_BTD.to(y_BTD.dtype))
        return y_BTD if self.gate_BTD is None else y_BTD * F.silu(self.gate_BTD)


BARE_SCAN = ScanFrame()


def selective_scan_reference(
    inputs: ScanInputs, state_BDN: Tensor | None = None, frame: ScanFrame = BARE_SCAN
) -> tuple[Tensor, Tensor]:
    """Step through time in float64, autograd recording every step: slow, and what the fast scans are tested against.

    Returns:
        y_BTD and the state after the last step, both float64.

    """
    x_BTD, dt_BTD, A_DN, B_BTN, C_BTN = (tensor.double() for tensor in inputs)
    dt_BTD = frame.steps(dt_BTD)
    h_BDN = x_BTD.new_zeros(len(x_BTD), *A_DN.shape) if state_BDN is None else state_BDN.double()
    outputs = []
    for step in range(x_BTD.shape[1]):
        dt_BD1 = dt_BTD[:, step, :, None]
        h_BDN = torch.exp(dt_BD1 * A_DN) * h_BDN + dt_BD1 * x_BTD[:, step, :, None] * B_BTN[:, step, None]
        outputs.append((h_BDN * C_BTN[:, step, None]).sum(-1))
    gate_BTD = None if frame.gate_BTD is None else frame.gate_BTD.double()
    return ScanFrame(frame.skip_D, gate_BTD).output(torch.stack(outputs, 1), x_BTD), h_BDN


def selective_scan(
    inputs: ScanInputs,
    state_BDN: Tensor | None = None,
    frame: ScanFrame = BARE_SCAN,
    *,
    chunk: int = 64,
    backend: str = "torch",
) -> tuple[Tensor, Tensor]:
    """Scan; differentiable in all inputs, the initial state among them.

    Computes in float32 (float64 when x is), whatever the surrounding autocast says. `auto` takes mamba-ssm's kernel
    where the tensors are on a GPU and the package is there, else the compiled operator where it compiles, else
    PyTorch's operators. Any other choice is taken as it is. mamba-ssm's kernel takes no initial state: a scan that goes
    on from one is computed by PyTorch's operators, and its last state has no gradient. A single step without
    gradients needs no kernel.

    Args:
        inputs: See ScanInputs.
        state_BDN: State before the first step; zeros when absent.
        frame: Softplus, skip and gate, none of them by default.
        chunk: Steps per chunk of the torch backend; it changes speed and memory, not the result.
        backend: One of SCAN_BACKENDS.

    Returns:
        y_BTD and the state after the last step, in the computing type.

    Raises:
        ConfigError: There is no such backend, or it cannot serve these tensors; the message says why.

    """
    chosen = choose_scan(backend, inputs)
    dtype = torch.promote_types(inputs.x_BTD.dtype, torch.float32)
    if chosen == "reference":
        # Only the steps are in float64: what follows them has matrices of another type.
        y_BTD, last_BDN = selective_scan_reference(inputs, state_BDN, frame)
        return y_BTD.to(dtype), last_BDN.to(dtype)
    inputs = ScanInputs(*(tensor.to(dtype) for tensor in inputs))
    if chosen == "cuda" and state_BDN is None:
        gate_BTD = None if frame.gate_BTD is None else frame.gate_BTD.to(dtype)
        return cuda_scan(inputs, frame.skip_D, gate_BTD, softplus=frame.softplus)
    if state_BDN is None:
        state_BDN = inputs.x_BTD.new_zeros(len(inputs.x_BTD), *inputs.A_DN.shape)
    state_BDN = state_BDN.to(dtype)
    if inputs.x_BTD.shape[1] == 1 and not (torch.is_grad_enabled() and any_gradient(*inputs, state_BDN)):
        y_BTD, last_BDN = single_step(inputs._replace(dt_BTD=frame.steps(inputs.dt_BTD)), state_BDN)
        return frame.output(y_BTD, inputs.x_BTD), last_BDN
    x_BTD, dt_BTD, A_ND, B_BTN, C_BTN = inputs._replace(A_DN=inputs.A_DN.t())
    if chosen == "cpp":
        framed = (None if tensor is None else tensor.to(dtype) for tensor in (frame.skip_D, frame.gate_BTD))
        tensors = CppScanInputs(x_BTD, dt_BTD, A_ND, B_BTN, C_BTN, state_BDN.transpose(1, 2), *framed)
        y_BTD, last_BND = compiled_scan(tensors, softplus=frame.softplus)
        return y_BTD, last_BND.transpose(1, 2)
    ready = (x_BTD, frame.steps(dt_BTD), A_ND, B_BTN, C_BTN, state_BDN.transpose(1, 2))
    y_BTD, last_BND = SelectiveScan.apply(chunk, *(tensor.contiguous() for tensor in ready))  # type: ignore[no-untyped-call]  # untyped in torch
    return frame.output(y_BTD, x_BTD), last_BND.transpose(1, 2)


def choose_scan(backend: str, inputs: ScanInputs) -> str:
    """The backend that computes a scan.

    Raises:
        ConfigError: See `selective_scan`.
    """
    if backend not in SCAN_BACKENDS:
        raise ConfigError(f"HYMBA_SCAN_BACKEND: {backend!r} is not one of {', '.join(SCAN_BACKENDS)}")
    if backend == "auto":
        return next(name for name in ("cuda", "cpp", "torch") if not scan_problem(name, inputs, warn=True))
    if problem := scan_problem(backend, inputs):
        raise ConfigError(f"HYMBA_SCAN_BACKEND: {backend} cannot compute this scan: {problem}")
    return backend


def scan_problem(backend: str, inputs: ScanInputs, *, warn: bool = False) -> str:
    """Why a backend cannot compute a scan, or an empty string; on request warns that nothing could be compiled."""
    if backend not in {"cpp", "cuda"}:
        return ""
    x_BTD, states = inputs.x_BTD, inputs.A_DN.shape[1]
    most = KERNEL_STATES[-1] if backend == "cpp" else CUDA_STATES
    if states > most:
        return f"{states} states, at most {most}"
    if x_BTD.dtype == torch.float64 or not x_BTD.numel():
        return "float64" if x_BTD.numel() else "no elements"
    if backend == "cuda":
        return cuda_scan_problem(x_BTD.device)
    if x_BTD.device.type != "cpu":
        return f"the tensors are on {x_BTD.device.type}, not on a CPU"
    if warn:
        native_or_warn(SCAN_SOURCE)
    return cpp_scan_problem()


def any_gradient(*tensors: Tensor) -> bool:
    """Whether some tensor wants a gradient."""
    return any(tensor.requires_grad for tensor in tensors)


def single_step(inputs: ScanInputs, h_BDN: Tensor) -> tuple[Tensor, Tensor]:
    """One step without a derivative and without a chunk's work space; returns y_B1D and the next state B, D, N."""
    x_B1D, dt_B1D, A_DN, B_B1N, C_B1N = inputs
    h_BND = torch.exp(dt_B1D * A_DN.t()) * h_BDN.transpose(1, 2)
    h_BND = torch.addcmul(h_BND, dt_B1D * x_B1D, B_B1N.transpose(1, 2))
    return (C_B1N.transpose(1, 2) * h_BND).sum(1, keepdim=True), h_BND.transpose(1, 2)
