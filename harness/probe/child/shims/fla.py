"""Operators of fla (flash-linear-attention) in float32, and its layers with the parameters of the originals."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..events import refuse, replaced
from ..patch import module
from . import mamba, mamba_modules

Tensor = torch.Tensor
# Steps that are taken at once.
CHUNK = 64


def chunk_gated_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Any = None, beta: Any = None, scale: float | None = None,
    initial_state: Any = None, output_final_state: bool = False, use_qk_l2norm_in_kernel: bool = False, **keywords: Any,
) -> Any:  # fmt: skip
    """Fla's gated delta rule: q and k are (batch, time, heads, width), g is the logarithm of the decay."""
    replaced("fla.gated_delta_rule", "the same recurrence in float32")
    unlike = ("cu_seqlens", "head_first", "use_gate_in_kernel", "A_log", "dt_bias", "transpose_state_layout")
    mamba.without("gated_delta_rule", **{name: keywords.get(name) for name in unlike})
    dtype, heads = v.dtype, v.shape[2]
    q, k = (part.float().repeat_interleave(heads // part.shape[2], 2) for part in (q, k))
    if use_qk_l2norm_in_kernel:
        q, k = (part * torch.rsqrt(part.square().sum(-1, keepdim=True) + 1e-6) for part in (q, k))
    q = q * (scale or q.shape[-1] ** -0.5)
    rate = torch.ones_like(v[..., 0], dtype=torch.float32) if beta is None else beta.float()
    decay = torch.zeros_like(rate) if g is None else g.float()
    state = v.new_zeros(v.shape[0], heads, k.shape[-1], v.shape[-1], dtype=torch.float32)
    state = state if initial_state is None else initial_state.float()
    q, k, value, decay, rate = (part.transpose(1, 2) for part in (q, k, v.float(), decay, rate))
    outputs = []
    for start in range(0, v.shape[1], CHUNK):
        now = slice(start, start + CHUNK)
        done, state = _delta_chunk(q[:, :, now], k[:, :, now], value[:, :, now], decay[..., now], rate[..., now], state)
        outputs.append(done)
    return torch.cat(outputs, 2).transpose(1, 2).to(dtype), state if output_final_state else None


def _delta_chunk(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, rate: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs of some steps and the state after them; (batch, heads, time, width).

    What each step adds to the state depends on what the steps before it added: a triangular system.
    """
    total = decay.cumsum(-1)
    later = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(1)
    weight = (total[..., :, None] - total[..., None, :]).masked_fill(later, float("-inf")).exp()
    from_state = total.exp()[..., None]
    known = rate[..., None] * (v - from_state * (k @ state))
    system = (rate[..., None] * weight * (k @ k.transpose(-1, -2))).tril(-1)
    added = torch.linalg.solve_triangular(system, known, upper=False, unitriangular=True)
    out = from_state * (q @ state) + (weight * (q @ k.transpose(-1, -2))) @ added
    left = (total[..., -1:] - total).exp()[..., None]
    return out, total[..., -1, None, None].exp() * state + (k * left).transpose(-1, -2) @ added


def causal_conv1d(
    x: Tensor, weight: Any = None, bias: Any = None, residual: Any = None, initial_state: Any = None,
    output_final_state: bool = False, activation: str | None = None, **keywords: Any,
) -> Any:  # fmt: skip
    """Fla's convolution of (batch, time, channels); returns the output and the final state."""
    mamba.without("fla causal_conv1d", cu_seqlens=keywords.get("cu_seqlens"), initial_state=initial_state)
    out = mamba.causal_conv1d_fn(x.transpose(1, 2), weight, bias, activation=activation).transpose(1, 2)
    out = out if residual is None else out + residual
    width = weight.shape[-1]
    return out, F.pad(x.transpose(1, 2), (width, 0))[..., -width:] if output_final_state else None


class ShortConvolution(nn.Conv1d):
    """A causal convolution of each channel by itself; input and output (batch, time, channels)."""

    def __init__(
        self, hidden_size: int, kernel_size: int = 4, bias: bool = False, activation: str | None = "silu", **_: Any
    ) -> None:
        super().__init__(hidden_size, hidden_size, kernel_size, groups=hidden_size, bias=bias, padding=kernel_size - 1)
        self.activation = activation

    def forward(  # type: ignore[override]
        self, x: Tensor, cache: Any = None, output_final_state: bool = False, **keywords: Any
    ) -> Any:
        """The convolved input, and the final state where it is asked for."""
        return causal_conv1d(
            x, self.weight[:, 0], self.bias, initial_state=cache, output_final_state=output_final_state,
            activation=self.activation, **keywords,
        )  # fmt: skip


class RMSNorm(nn.Module):
    """RMS norm of the last axis; with a gate where one is given."""

    def __init__(self, hidden_size: int, eps: float = 1e-5, activation: str = "swish", **_: Any) -> None:
        super().__init__()
        self.eps, self.activation = eps, activation
        self.weight = nn.Parameter(torch.ones(hidden_size))

    def forward(self, x: Tensor, g: Any = None) -> Tensor:
        """Normalize; `g` gates."""
        y = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + self.eps) * self.weight.float()
        gate = torch.sigmoid if self.activation == "sigmoid" else F.silu
        return (y if g is None else y * gate(g.float())).to(x.dtype)


class GatedDeltaNet(nn.Module):
    """Gated DeltaNet (https://arxiv.org/abs/2412.06464), as trained: no cache, no padding."""

    def __init__(
        self, hidden_size: int = 2048, expand_v: float = 2, head_dim: int = 256, num_heads: int = 6,
        num_v_heads: int | None = None, mode: str = "chunk", use_gate: bool = True, use_short_conv: bool = True,
        allow_neg_eigval: bool = False, conv_size: int = 4, conv_bias: bool = False, layer_idx: int | None = None,
        norm_eps: float = 1e-5, output_gate_activation: str = "swish", **_: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.mode, self.layer_idx, self.allow_neg_eigval = mode, layer_idx, allow_neg_eigval
        self.num_heads, self.num_v_heads = num_heads, num_v_heads or num_heads
        self.head_k_dim, self.head_v_dim = head_dim, int(head_dim * expand_v)
        self.key_dim, self.value_dim = num_heads * head_dim, self.num_v_heads * self.head_v_dim
        for name, width in (("q", self.key_dim), ("k", self.key_dim), ("v", self.value_dim)):
            setattr(self, f"{name}_proj", nn.Linear(hidden_size, width, bias=False))
        self.a_proj = nn.Linear(hidden_size, self.num_v_heads, bias=False)
        self.b_proj = nn.Linear(hidden_size, self.num_v_heads, bias=False)
        self.A_log = nn.Parameter(torch.log(torch.empty(self.num_v_heads).uniform_(0, 16)))
        self.dt_bias = mamba_modules.step_bias(self.num_v_heads, 0.001, 0.1, 1e-4)
        self.use_gate, self.use_short_conv = use_gate, use_short_conv
        for name, width in (("q", self.key_dim), ("k", self.key_dim), ("v", self.value_dim)) if use_short_conv else ():
            setattr(self, f"{name}_conv1d", ShortConvolution(width, conv_size, conv_bias))
        if use_gate:
            self.g_proj = nn.Linear(hidden_size, self.value_dim, bias=False)
        self.o_norm = RMSNorm(self.head_v_dim, norm_eps, output_gate_activation)
        self.o_proj = nn.Linear(self.value_dim, hidden_size, bias=False)

    def forward(
        self, hidden_states: Tensor, attention_mask: Any = None, past_key_values: Any = None, use_cache: Any = False,
        *_: Any, **keywords: Any,
    ) -> tuple[Tensor, None, Any]:  # fmt: skip
        """(batch, time, width) to the same, with no attention weights and no cache."""
        _only_training(attention_mask, past_key_values, use_cache, keywords.get("cu_seqlens"))
        q, k, v = (self._mixed(name, hidden_states) for name in "qkv")
        q, k = (part.unflatten(-1, (-1, self.head_k_dim)) for part in (q, k))
        beta = self.b_proj(hidden_states).float().sigmoid() * (2.0 if self.allow_neg_eigval else 1.0)
        decay = -self.A_log.float().exp() * F.softplus(self.a_proj(hidden_states).float() + self.dt_bias)
        o, _ = chunk_gated_delta_rule(
            q, k, v.unflatten(-1, (-1, self.head_v_dim)), decay, beta, use_qk_l2norm_in_kernel=True
        )
        gate = self.g_proj(hidden_states).unflatten(-1, (-1, self.head_v_dim)) if self.use_gate else None
        return self.o_proj(self.o_norm(o, gate).flatten(-2)), None, past_key_values

    def _mixed(self, name: str, hidden_states: Tensor) -> Tensor:
        """A projection with its convolution, or with the activation alone."""
        projected = getattr(self, f"{name}_proj")(hidden_states)
        mixed: Tensor = getattr(self, f"{name}_conv1d")(projected)[0] if self.use_short_conv else F.silu(projected)
        return mixed


def _only_training(*unsupported: Any) -> None:
    if any(each is not None and each is not False for each in unsupported):
        raise refuse("fla.layers with masks, caches or cu_seqlens", "has no equivalent here")


class Mamba2(mamba_modules.Mamba2):
    """Mamba-2's block with fla's own names of the same parameters; returns a tuple."""

    def __init__(
        self, num_heads: int | None = None, head_dim: int = 64, hidden_size: int = 2048, state_size: int = 128,
        expand: int = 2, n_groups: int = 1, conv_kernel: int = 4, use_conv_bias: bool = True,
        use_bias: bool = False, **keywords: Any,
    ) -> None:  # fmt: skip
        if num_heads and num_heads * head_dim != expand * hidden_size:
            raise ValueError(f"num_heads * head_dim ({num_heads * head_dim}) must equal {expand * hidden_size}")
        super().__init__(
            hidden_size, state_size, conv_kernel, expand=expand, headdim=head_dim, ngroups=n_groups,
            conv_bias=use_conv_bias, bias=use_bias, **keywords,
        )  # fmt: skip

    def forward(self, hidden_states: Tensor, *unsupported: Any, **keywords: Any) -> Any:  # type: ignore[override]
        """(batch, time, width) to the same, with no attention weights and no cache."""
        _only_training(*unsupported, *keywords.values())
        return super().forward(hidden_states), None, None


class GatedDeltaProduct(nn.Module):
    """Imported beside GatedDeltaNet; its kernel has no equivalent here."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()
        raise refuse("fla.layers.GatedDeltaProduct", "has no equivalent here")


def install() -> None:
    """Register fla under the names that scripts import."""
    module("fla")
    rule = chunk_gated_delta_rule
    delta = {"chunk_gated_delta_rule": rule, "fused_recurrent_gated_delta_rule": rule}
    module("fla.ops", **delta)
    module("fla.ops.gated_delta_rule", **delta)
    module("fla.ops.gated_delta_rule.chunk", chunk_gated_delta_rule=rule)
    module("fla.ops.gated_delta_rule.naive", naive_chunk_gated_delta_rule=rule, naive_recurrent_gated_delta_rule=rule)
    # Imported to be replaced, whether they are used or not.
    module("fla.ops.gated_delta_product.chunk")
    module("fla.ops.gated_delta_product.naive")
    module("fla.modules", ShortConvolution=ShortConvolution, RMSNorm=RMSNorm, FusedRMSNormGated=RMSNorm)
    module("fla.modules.convolution", causal_conv1d=causal_conv1d, ShortConvolution=ShortConvolution)
    layers = {"GatedDeltaNet": GatedDeltaNet, "GatedDeltaProduct": GatedDeltaProduct, "Mamba2": Mamba2}
    module("fla.layers", **layers)
    module("fla.layers.gated_deltanet", GatedDeltaNet=GatedDeltaNet, **delta)
    module("fla.layers.gated_deltaproduct", GatedDeltaProduct=GatedDeltaProduct)
    module("fla.layers.mamba2", Mamba2=Mamba2)
