"""The modules of mamba_ssm, with the parameters of the originals."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..events import refuse
from ..patch import module
from .mamba import (
    causal_conv1d_fn,
    causal_conv1d_update,
    mamba3_siso_combined,
    mamba_chunk_scan_combined,
    selective_scan_fn,
)

Tensor = torch.Tensor


class RMSNormGated(nn.Module):
    """RMS norm of groups, with a gate before or after it."""

    def __init__(
        self, hidden_size: int, eps: float = 1e-5, group_size: Any = None, norm_before_gate: bool = True, **_: Any
    ) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.bias = None
        self.group_size = group_size
        self.norm_before_gate = norm_before_gate

    def forward(self, x: Tensor, z: Any = None) -> Tensor:
        """Normalize; `z` gates."""
        y = x.float()
        y = y * F.silu(z.float()) if z is not None and not self.norm_before_gate else y
        groups = y.unflatten(-1, (-1, self.group_size or y.shape[-1]))
        y = (groups * torch.rsqrt(groups.square().mean(-1, keepdim=True) + self.eps)).flatten(-2) * self.weight.float()
        y = y * F.silu(z.float()) if z is not None and self.norm_before_gate else y
        return y.to(x.dtype)


def step_bias(count: int, low: float, high: float, floor: float) -> nn.Parameter:
    """A bias whose softplus is log-uniform between two step sizes."""
    dt = torch.exp(torch.rand(count) * (math.log(high) - math.log(low)) + math.log(low)).clamp(min=floor)
    return nn.Parameter(dt + torch.log(-torch.expm1(-dt)))


class Mamba(nn.Module):
    """Mamba's block."""

    def __init__(
        self, d_model: int, d_state: int = 16, d_conv: int = 4, expand: float = 2, dt_rank: Any = "auto",
        dt_min: float = 0.001, dt_max: float = 0.1, dt_init: str = "random", dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4, conv_bias: bool = True, bias: bool = False, **_: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.d_model, self.d_state, self.d_conv, self.expand = d_model, d_state, d_conv, expand
        self.d_inner = int(expand * d_model)
        self.dt_rank = math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=bias)
        self.conv1d = nn.Conv1d(
            self.d_inner, self.d_inner, d_conv, groups=self.d_inner, padding=d_conv - 1, bias=conv_bias
        )
        self.x_proj = nn.Linear(self.d_inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, self.d_inner, bias=True)
        spread = self.dt_rank**-0.5 * dt_scale
        nn.init.uniform_(self.dt_proj.weight, -spread, spread)
        self.dt_proj.bias.data = step_bias(self.d_inner, dt_min, dt_max, dt_init_floor).data
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, d_state + 1)).repeat(self.d_inner, 1))
        self.D = nn.Parameter(torch.ones(self.d_inner))
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias)

    def forward(self, hidden_states: Tensor, inference_params: Any = None) -> Tensor:
        """(batch, time, width) to the same."""
        _only_training(inference_params)
        x, z = self.in_proj(hidden_states).transpose(1, 2).chunk(2, 1)
        x = causal_conv1d_fn(x, self.conv1d.weight[:, 0], self.conv1d.bias, activation="silu")
        dt, b, c = self.x_proj(x.transpose(1, 2)).split([self.dt_rank, self.d_state, self.d_state], -1)
        dt = (dt @ self.dt_proj.weight.to(dt.dtype).t()).transpose(1, 2)
        y = selective_scan_fn(
            x, dt, -torch.exp(self.A_log.float()), b.transpose(1, 2), c.transpose(1, 2), self.D, z,
            self.dt_proj.bias, delta_softplus=True,
        )  # fmt: skip
        return self.out_proj(y.transpose(1, 2))


class Mamba2(nn.Module):
    """Mamba-2's block."""

    def __init__(
        self, d_model: int, d_state: int = 128, d_conv: int = 4, conv_init: Any = None, expand: int = 2,
        headdim: int = 64, d_ssm: Any = None, ngroups: int = 1, A_init_range: tuple[float, float] = (1, 16),
        D_has_hdim: bool = False, rmsnorm: bool = True, norm_before_gate: bool = False, dt_min: float = 0.001,
        dt_max: float = 0.1, dt_init_floor: float = 1e-4, dt_limit: tuple[float, float] = (0.0, math.inf),
        bias: bool = False, conv_bias: bool = True, chunk_size: int = 256, **_: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.d_model, self.d_state, self.d_conv, self.headdim, self.ngroups = (
            d_model,
            d_state,
            d_conv,
            headdim,
            ngroups,
        )
        self.d_inner = expand * d_model
        self.d_ssm = self.d_inner if d_ssm is None else d_ssm
        if self.d_ssm != self.d_inner or D_has_hdim:
            raise refuse("Mamba2(d_ssm, D_has_hdim)", "has no equivalent here")
        self.nheads = self.d_ssm // headdim
        self.dt_limit, self.chunk_size = dt_limit, chunk_size
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner + 2 * ngroups * d_state + self.nheads, bias=bias)
        width = self.d_ssm + 2 * ngroups * d_state
        self.conv1d = nn.Conv1d(width, width, d_conv, groups=width, padding=d_conv - 1, bias=conv_bias)
        if conv_init is not None:
            nn.init.uniform_(self.conv1d.weight, -conv_init, conv_init)
        self.act = nn.SiLU()
        self.dt_bias = step_bias(self.nheads, dt_min, dt_max, dt_init_floor)
        self.A_log = nn.Parameter(torch.log(torch.empty(self.nheads).uniform_(*A_init_range)))
        self.D = nn.Parameter(torch.ones(self.nheads))
        self.norm = RMSNormGated(self.d_ssm, 1e-5, self.d_ssm // ngroups, norm_before_gate) if rmsnorm else None
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias)

    def forward(self, u: Tensor, seq_idx: Any = None, inference_params: Any = None, **_: Any) -> Tensor:
        """(batch, time, width) to the same."""
        _only_training(inference_params)
        groups = self.ngroups * self.d_state
        z, mixed, dt = self.in_proj(u).split([self.d_ssm, self.d_ssm + 2 * groups, self.nheads], -1)
        mixed = causal_conv1d_fn(mixed.transpose(1, 2), self.conv1d.weight[:, 0], self.conv1d.bias, activation="silu")
        x, b, c = mixed.transpose(1, 2).split([self.d_ssm, groups, groups], -1)
        y = mamba_chunk_scan_combined(
            x.unflatten(-1, (-1, self.headdim)), dt, -torch.exp(self.A_log.float()),
            b.unflatten(-1, (self.ngroups, -1)), c.unflatten(-1, (self.ngroups, -1)), self.chunk_size, D=self.D,
            z=None if self.norm is not None else z.unflatten(-1, (-1, self.headdim)), dt_bias=self.dt_bias,
            seq_idx=seq_idx, dt_softplus=True, dt_limit=self.dt_limit,
        ).flatten(-2)  # fmt: skip
        y = y if self.norm is None else self.norm(y, z)
        return self.out_proj(y.to(self.out_proj.weight.dtype) if not torch.is_autocast_enabled() else y)


class Mamba3(nn.Module):
    """Mamba-3's block with one input and one output."""

    def __init__(
        self, d_model: int, d_state: int = 128, expand: float = 2, headdim: int = 64, ngroups: int = 1,
        rope_fraction: float = 0.5, dt_min: float = 0.001, dt_max: float = 0.1, dt_init_floor: float = 1e-4,
        A_floor: float = 1e-4, is_outproj_norm: bool = False, is_mimo: bool = False, mimo_rank: int = 4,
        chunk_size: int = 64, **_: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        if is_mimo:
            raise refuse("Mamba3(is_mimo=True)", "has no equivalent here")
        self.d_model, self.d_state, self.expand, self.headdim = d_model, d_state, expand, headdim
        self.chunk_size, self.A_floor, self.is_outproj_norm = chunk_size, A_floor, is_outproj_norm
        self.is_mimo, self.mimo_rank, self.num_bc_heads = False, 1, ngroups
        self.d_inner = int(expand * d_model)
        self.nheads = self.d_inner // headdim
        self.rotary_dim_divisor = int(2 / rope_fraction)
        self.split_tensor_size = int(d_state * rope_fraction) // 2 * 2
        self.num_rope_angles = self.split_tensor_size // 2
        width = 2 * self.d_inner + 2 * d_state * ngroups + 3 * self.nheads + self.num_rope_angles
        self.in_proj = nn.Linear(d_model, width, bias=False)
        self.dt_bias = step_bias(self.nheads, dt_min, dt_max, dt_init_floor)
        self.B_bias = nn.Parameter(torch.ones(self.nheads, 1, d_state))
        self.C_bias = nn.Parameter(torch.ones(self.nheads, 1, d_state))
        self.B_norm, self.C_norm = RMSNormGated(d_state), RMSNormGated(d_state)
        self.D = nn.Parameter(torch.ones(self.nheads))
        self.norm = RMSNormGated(self.d_inner, 1e-5, headdim) if is_outproj_norm else None
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)

    def forward(self, u: Tensor, inference_params: Any = None, **_: Any) -> Tensor:
        """(batch, time, width) to the same."""
        _only_training(inference_params)
        bc = self.d_state * self.num_bc_heads
        sizes = [self.d_inner, self.d_inner, bc, bc, self.nheads, self.nheads, self.nheads, self.num_rope_angles]
        z, x, b, c, dt, a, trap, angles = self.in_proj(u).split(sizes, -1)
        z, x = (part.unflatten(-1, (-1, self.headdim)) for part in (z, x))
        b, c = (part.unflatten(-1, (self.num_bc_heads, -1)) for part in (b, c))
        step = F.softplus(dt + self.dt_bias)
        decay = (-F.softplus(a.float())).clamp(max=-self.A_floor) * step
        y = mamba3_siso_combined(
            self.C_norm(c), self.B_norm(b), x, decay.transpose(1, 2), step.transpose(1, 2), trap.transpose(1, 2),
            self.C_bias[:, 0], self.B_bias[:, 0], angles[..., None, :].expand(-1, -1, self.nheads, -1), self.D,
            None if self.norm is not None else z,
        ).flatten(-2)  # fmt: skip
        y = y if self.norm is None else self.norm(y, z.flatten(-2))
        return self.out_proj(y.to(x.dtype))


def _only_training(inference_params: Any) -> None:
    if inference_params is not None:
        raise refuse("mamba_ssm inference_params", "step-by-step inference has no equivalent here")


def install() -> None:
    """Register the packages under the names that scripts import."""
    scan = {"selective_scan_fn": selective_scan_fn, "selective_scan_ref": selective_scan_fn}
    conv = {"causal_conv1d_fn": causal_conv1d_fn, "causal_conv1d_update": causal_conv1d_update}
    module("causal_conv1d", **conv)
    module("causal_conv1d.causal_conv1d_interface", **conv)
    module("mamba_ssm", selective_scan_fn=selective_scan_fn, Mamba=Mamba, Mamba2=Mamba2, Mamba3=Mamba3)
    module("mamba_ssm.modules")
    module("mamba_ssm.modules.mamba_simple", Mamba=Mamba)
    module("mamba_ssm.modules.mamba2", Mamba2=Mamba2)
    module("mamba_ssm.modules.mamba3", Mamba3=Mamba3)
    module("mamba_ssm.ops.selective_scan_interface", **scan)
    module("mamba_ssm.ops.triton.ssd_combined", mamba_chunk_scan_combined=mamba_chunk_scan_combined)
    module("mamba_ssm.ops.triton.layernorm_gated", RMSNorm=RMSNormGated)
    module("mamba_ssm.ops.triton.mamba3.mamba3_siso_combined", mamba3_siso_combined=mamba3_siso_combined)
