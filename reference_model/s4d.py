"""S4D-Lin (arXiv:2206.11893) where the selective scan stands: a recurrence whose weights do not depend on the input.

    h[t] = exp(dt * A) * h[t-1] + (exp(dt * A) - 1) / A * x[t]        y[t] = 2 * Re(sum over the state of C * h[t])

The same as one filter as long as the text for each channel, which is applied by Fourier transforms.

Shape letters: B batch, T time, D channels, N pairs of conjugate states, of which one each is kept.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from reference_model.banks import MakeLinear
from reference_model.config import ModelConfig
from reference_model.conv import DepthwiseConv
from reference_model.memory import LayerMemory
from reference_model.mixer import HymbaMixer
from reference_model.scan import ScanFrame

# As published: A = -1/2 + i * pi * n, steps between these.
DECAY_INIT = 0.5
SMALLEST_STEP = 0.001
LARGEST_STEP_INIT = 0.1


class LongFilter(nn.Module):
    """One filter per channel, the impulse response of `pairs` damped oscillations."""

    def __init__(self, channels: int, pairs: int) -> None:
        super().__init__()
        self.log_dt = nn.Parameter(torch.zeros(channels))
        self.A_log = nn.Parameter(torch.full((channels, pairs), math.log(DECAY_INIT)))
        self.A_imag = nn.Parameter(math.pi * torch.arange(pairs).float().repeat(channels, 1))
        self.C = nn.Parameter(torch.zeros(channels, pairs, 2))

    def init_weights(self, generator: torch.Generator | None) -> None:
        """Draw steps and outputs."""
        bounds = math.log(SMALLEST_STEP), math.log(LARGEST_STEP_INIT)
        nn.init.uniform_(self.log_dt, *bounds, generator=generator)
        nn.init.normal_(self.C, std=math.sqrt(0.5), generator=generator)

    def forward(self, x_BTD: Tensor, memory: LayerMemory | None = None) -> Tensor:
        """Filter, in float32 (float64 when x is); goes on from a memory, and is remembered in turn.

        Returns:
            y_BTD in the computing type.

        """
        dtype, steps = torch.promote_types(x_BTD.dtype, torch.float32), x_BTD.shape[1]
        x_BDT = x_BTD.to(dtype).transpose(1, 2)
        A_DN = torch.complex(-self.A_log.exp(), self.A_imag)
        rate_DN, C_DN = self.log_dt.exp()[:, None] * A_DN, torch.view_as_complex(self.C)
        times_T = torch.arange(steps + 1, device=x_BTD.device, dtype=self.log_dt.dtype)
        # exp(rate * t) for t = 0 ... T; the input's weight is that of a step held constant.
        powers_DNT, B_DN = torch.exp(rate_DN[..., None] * times_T), torch.expm1(rate_DN) / A_DN
        filter_DT = 2 * torch.einsum("dn,dnt->dt", C_DN * B_DN, powers_DNT[..., :steps]).real.to(dtype)
        # Twice as long, so that the end does not wrap around onto the beginning.
        spectrum = torch.fft.rfft(x_BDT, 2 * steps) * torch.fft.rfft(filter_DT, 2 * steps)
        y_BDT: Tensor = torch.fft.irfft(spectrum, 2 * steps)[..., :steps]
        if memory is None:
            return y_BDT.transpose(1, 2)
        reversed_DNT = powers_DNT[..., :steps].flip(-1)
        last_BDN = B_DN * torch.einsum("bdt,dnt->bdn", x_BDT.to(reversed_DNT.dtype), reversed_DNT)
        if memory.scan is not None:
            echo_BDT = 2 * torch.einsum("bdn,dnt->bdt", C_DN * memory.scan, powers_DNT[..., 1:]).real
            y_BDT, last_BDN = y_BDT + echo_BDT.to(dtype), last_BDN + powers_DNT[..., -1] * memory.scan
        memory.scan = last_BDN.detach()
        return y_BDT.transpose(1, 2)


class FilterMixer(HymbaMixer):
    """Attention beside a long filter: convolution, skip, gate and projections are those of the scan."""

    def add_scan(self, config: ModelConfig, linear: MakeLinear) -> None:  # noqa: ARG002 - as in the hybrid
        """Create the convolution and the filter."""
        self.conv1d = DepthwiseConv(config.ssm_dim, config.conv_width, config.conv_backend)
        self.s4d = LongFilter(config.ssm_dim, config.ssm_state // 2)
        self.D = nn.Parameter(torch.ones(config.ssm_dim))

    def scan(self, x_BTD: Tensor, gate_BTD: Tensor, memory: LayerMemory | None = None) -> Tensor:
        """Causal convolution, filter with skip, gate, output projection."""
        x_BTD = self.conv1d(x_BTD, None if memory is None else memory.convolution, silu=True)
        framed_BTD = ScanFrame(self.D, gate_BTD).output(self.s4d(x_BTD, memory), x_BTD)
        output_BTD: Tensor = self.mamba_out_proj(framed_BTD)
        return output_BTD
