"""mamba-ssm's and causal-conv1d's CUDA kernels in this project's layouts; both packages are optional.

Not run on a GPU here: exercised against stand-ins that check what the kernels check (csrc/selective_scan.cpp of
mamba-ssm 2.3, csrc/causal_conv1d.cpp of causal-conv1d 1.7).

Shape letters: B batch, T time, D channels, N state, K taps.
"""

from __future__ import annotations

import functools
import importlib

import torch
from torch import Tensor

# Where the kernels run.
CUDA_DEVICES = ("cuda",)
CUDA_STATES = 256
CUDA_TAPS = (2, 3, 4)
# The convolution walks through channels that stand side by side in steps of so many.
CUDA_CHANNELS = 8


@functools.cache
def package_problem(module: str, package: str) -> str:
    """Why a package's module cannot be used, or an empty string."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        return f"{package} cannot be imported ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    return ""


def device_problem(device: torch.device) -> str:
    """Why a device cannot run the kernels, or an empty string."""
    return "" if device.type in CUDA_DEVICES else f"the tensors are on {device.type}, not on a GPU"


def cuda_scan_problem(device: torch.device) -> str:
    """Why mamba-ssm's kernel cannot be used there, or an empty string."""
    return device_problem(device) or package_problem("mamba_ssm.ops.selective_scan_interface", "mamba-ssm")


def cuda_conv_problem(x_BTD: Tensor, taps: int) -> str:
    """Why causal-conv1d's kernel cannot convolve these, or an empty string."""
    if problem := device_problem(x_BTD.device):
        return problem
    if taps not in CUDA_TAPS:
        return f"{taps} taps, it takes {CUDA_TAPS[0]} to {CUDA_TAPS[-1]}"
    if x_BTD.dtype == torch.float64 or x_BTD.shape[2] % CUDA_CHANNELS:
        channels = f"{x_BTD.shape[2]} channels, no multiple of {CUDA_CHANNELS}"
        return "float64" if x_BTD.dtype == torch.float64 else channels
    return package_problem("causal_conv1d", "causal-conv1d")


class NoGradient(torch.autograd.Function):
    """What a kernel returns but does not differentiate: asking for its gradient is an error, not zeros."""

    @staticmethod
    def forward(ctx: object, value: Tensor, what: str) -> Tensor:
        """Return the value."""
        ctx.what = what  # type: ignore[attr-defined]  # autograd's own way to remember
        return value.view_as(value)

    @staticmethod
    def backward(ctx: object, *_: Tensor) -> tuple[None, None]:
        """Refuse."""
        raise RuntimeError(f"{ctx.what} has no gradient")  # type: ignore[attr-defined]  # set above


def cuda_scan(
    inputs: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    skip_D: Tensor | None,
    gate_BTD: Tensor | None,
    *,
    softplus: bool,
) -> tuple[Tensor, Tensor]:
    """Scan with mamba-ssm's kernel from a state of zeros.

    Args:
        inputs: x_BTD, dt_BTD, A_DN, B_BTN, C_BTN of one type, float32 or lower; A is taken as float32.
        skip_D: Weight of x in the output.
        gate_BTD: Its SiLU multiplies the output.
        softplus: Whether step sizes are the softplus of what is given.

    Returns:
        y_BTD and the last state B, D, N; the kernel gives the state no gradient, and asking for one is an error.

    """
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    x_BTD, dt_BTD, A_DN, B_BTN, C_BTN = inputs
    # Its layout has time last and side by side; it copies what is not.
    x_BDT, dt_BDT, B_BNT, C_BNT = (tensor.transpose(1, 2) for tensor in (x_BTD, dt_BTD, B_BTN, C_BTN))
    y_BDT, state_BDN = selective_scan_fn(
        x_BDT,
        dt_BDT,
        A_DN.float().contiguous(),
        B_BNT,
        C_BNT,
        D=None if skip_D is None else skip_D.float(),
        z=None if gate_BTD is None else gate_BTD.transpose(1, 2),
        delta_softplus=softplus,
        return_last_state=True,
    )
    refusing: Tensor = NoGradient.apply(state_BDN, "the last state of mamba-ssm's scan")  # type: ignore[no-untyped-call]  # untyped in torch
    return y_BDT.transpose(1, 2), refusing


def cuda_conv(
    x_BTD: Tensor, weight_DK: Tensor, bias_D: Tensor, before_BKD: Tensor | None, *, silu: bool
) -> tuple[Tensor, Tensor | None]:
    """Convolve with causal-conv1d's kernel, which takes channels side by side as they are.

    Args:
        x_BTD: Input; weight and bias have one type.
        weight_DK: Taps, the last one the present step.
        bias_D: Bias.
        before_BKD: The K - 1 inputs before; zeros when absent.
        silu: Whether a SiLU follows.

    Returns:
        y_BTD, and the last K - 1 inputs where some were given before.

    """
    from causal_conv1d import causal_conv1d_fn

    x_BDT = spaced_for_conv(x_BTD).transpose(1, 2)
    activation = "silu" if silu else None
    if before_BKD is None:
        y_BDT: Tensor = causal_conv1d_fn(x_BDT, weight_DK, bias_D, activation=activation)
        return y_BDT.transpose(1, 2), None
    y_BDT, after_BDK = causal_conv1d_fn(
        x_BDT,
        weight_DK,
        bias_D,
        initial_states=before_BKD.contiguous().transpose(1, 2),
        return_final_states=True,
        activation=activation,
    )
    return y_BDT.transpose(1, 2), after_BDK.transpose(1, 2)


def spaced_for_conv(x_BTD: Tensor) -> Tensor:
    """The input with channels side by side and distances that the kernel takes: a copy where they are others."""
    fits = x_BTD.stride(2) == 1 and x_BTD.stride(0) % CUDA_CHANNELS == 0 and x_BTD.stride(1) % CUDA_CHANNELS == 0
    return x_BTD if fits else x_BTD.contiguous()
