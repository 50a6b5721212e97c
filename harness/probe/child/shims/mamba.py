"""State-space operators of mamba_ssm and causal_conv1d, in float32."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from ..events import refuse, replaced

Tensor = torch.Tensor


# So many numbers of all states are held at once.
STATES_LIMIT = 1 << 21
# Steps that Mamba-2 takes at once.
CHUNK = 64


def states(decay: Tensor, update: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """All states of `state = decay * state + update` along dimension 1, and the last one.

    Steps are joined in pairs, then fours, and so on; no state depends on a later step, not even by a rounding.
    """
    block = max(1, min(update.shape[1], STATES_LIMIT // max(update[:, :1].numel(), 1)))
    found = []
    for start in range(0, update.shape[1], block):
        a, b = decay[:, start : start + block], update[:, start : start + block]
        b = torch.cat([b[:, :1] + a[:, :1] * state[:, None], b[:, 1:]], 1)
        width = 1
        while width < b.shape[1]:
            b = torch.cat([b[:, :width], b[:, width:] + a[:, width:] * b[:, :-width]], 1)
            a = torch.cat([a[:, :width], a[:, width:] * a[:, :-width]], 1)
            width *= 2
        state = b[:, -1]
        found.append(b)
    return torch.cat(found, 1), state


def without(name: str, **values: Any) -> None:
    """Refuse arguments that are not done here."""
    for key, value in values.items():
        if value is not None and value is not False:
            raise refuse(f"{name}({key}=...)", "has no equivalent here")


def selective_scan_fn(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Any = None, z: Any = None, delta_bias: Any = None,
    delta_softplus: bool = False, return_last_state: bool = False,
) -> Any:  # fmt: skip
    """Mamba's selective scan: u, delta and z are (batch, channels, time), A is (channels, state)."""
    replaced("mamba_ssm.selective_scan_fn", "the same recurrence in float32")
    dt = delta.float() + (0 if delta_bias is None else delta_bias.float()[:, None])
    dt = F.softplus(dt) if delta_softplus else dt
    x = u.float()
    b, c = (_spread(part.float(), u.shape[1], u.shape[2]) for part in (B, C))
    decay = torch.exp(dt[..., None] * A.float()[:, None])
    update = (dt * x)[..., None] * b
    every, state = states(decay.transpose(1, 2), update.transpose(1, 2), torch.zeros_like(update[:, :, 0]))
    out = (every * c.transpose(1, 2)).sum(-1).transpose(1, 2)
    out = out if D is None else out + x * D.float()[:, None]
    out = out if z is None else out * F.silu(z.float())
    return (out.to(u.dtype), state) if return_last_state else out.to(u.dtype)


def _spread(part: Tensor, channels: int, time: int) -> Tensor:
    """B or C as (batch, channels, time, state): of all channels, of groups, or of every time."""
    if part.dim() == 2:
        return part[None, :, None].expand(-1, -1, time, -1)
    if part.dim() == 3:
        part = part[:, None]
    return part.repeat_interleave(channels // part.shape[1], 1).transpose(2, 3)


def causal_conv1d_fn(
    x: Tensor, weight: Tensor, bias: Any = None, seq_idx: Any = None, initial_states: Any = None,
    return_final_states: bool = False, final_states_out: Any = None, activation: str | None = None,
) -> Any:  # fmt: skip
    """Depthwise convolution of (batch, channels, time) that sees no later step."""
    replaced("causal_conv1d_fn", "conv1d")
    without("causal_conv1d_fn", seq_idx=seq_idx, final_states_out=final_states_out)
    width = weight.shape[-1]
    before = F.pad(x, (width - 1, 0)) if initial_states is None else torch.cat([initial_states, x], -1)
    out = F.conv1d(before.to(weight.dtype), weight[:, None], bias, groups=weight.shape[0])[..., -x.shape[-1] :]
    out = F.silu(out) if activation in {"silu", "swish"} else out
    out = out.to(x.dtype)
    return (out, before[..., -(width - 1) :]) if return_final_states else out


def causal_conv1d_update(x: Tensor, state: Tensor, weight: Tensor, bias: Any = None, activation: Any = None) -> Tensor:
    """One step of the convolution; the state changes in place."""
    state.copy_(torch.cat([state[..., 1:], x[..., None].to(state.dtype)], -1))
    out = (state * weight).sum(-1) + (0 if bias is None else bias)
    return (F.silu(out) if activation in {"silu", "swish"} else out).to(x.dtype)


def mamba_chunk_scan_combined(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk_size: int = 0, D: Any = None, z: Any = None,
    dt_bias: Any = None, initial_states: Any = None, seq_idx: Any = None, cu_seqlens: Any = None,
    dt_softplus: bool = False, dt_limit: tuple[float, float] = (0.0, math.inf), return_final_states: bool = False,
    return_varlen_states: bool = False,
) -> Any:  # fmt: skip
    """Mamba-2's scan: x is (batch, time, heads, width), B and C are (batch, time, groups, state)."""
    replaced("mamba_ssm.mamba_chunk_scan_combined", "the same recurrence in float32")
    without(
        "mamba_chunk_scan_combined", seq_idx=seq_idx, cu_seqlens=cu_seqlens, return_varlen_states=return_varlen_states
    )
    step = dt.float() + (0 if dt_bias is None else dt_bias.float())
    step = (F.softplus(step) if dt_softplus else step).clamp(*dt_limit)
    heads = x.shape[2]
    b, c = (part.float().repeat_interleave(heads // part.shape[2], 2) for part in (B, C))
    rate = step * A.float()
    scaled = x.float() * step[..., None]
    state = x.new_zeros(x.shape[0], heads, x.shape[3], b.shape[3], dtype=torch.float32)
    state = state if initial_states is None else initial_states.float()
    outputs = []
    for start in range(0, x.shape[1], CHUNK):
        part = slice(start, start + CHUNK)
        done, state = _chunk(rate[:, part], scaled[:, part], b[:, part], c[:, part], state)
        outputs.append(done)
    out = torch.cat(outputs, 1)
    if D is not None:
        out = out + x.float() * (D.float()[:, None] if D.dim() == 1 else D.float())
    out = out if z is None else out * F.silu(z.float())
    return (out.to(x.dtype), state) if return_final_states else out.to(x.dtype)


def _chunk(rate: Tensor, x: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs of some steps, each a weighted sum of the steps before it, and the state after them."""
    total = rate.cumsum(1).transpose(1, 2)
    later = torch.ones(rate.shape[1], rate.shape[1], dtype=torch.bool).triu(1)
    weight = (total[..., :, None] - total[..., None, :]).masked_fill(later, float("-inf")).exp()
    x, b, c = (part.transpose(1, 2) for part in (x, b, c))
    out = (weight * (c @ b.transpose(-1, -2))) @ x + total.exp()[..., None] * (c @ state.transpose(-1, -2))
    left = (total[..., -1:] - total).exp()[..., None]
    state = total[..., -1, None, None].exp() * state + (x * left).transpose(-1, -2) @ b
    return out.transpose(1, 2), state


def mamba3_siso_combined(
    Q: Tensor, K: Tensor, V: Tensor, ADT: Tensor, DT: Tensor, Trap: Tensor, Q_bias: Tensor, K_bias: Tensor,
    Angles: Tensor, D: Any = None, Z: Any = None, Input_States: Any = None, chunk_size: int = 64,
    return_final_states: bool = False, cu_seqlens: Any = None,
) -> Any:  # fmt: skip
    """Mamba-3's scan with a trapezoidal step and turning states; shapes as in mamba_ssm."""
    replaced("mamba_ssm.mamba3_siso_combined", "the same recurrence in float32")
    without("mamba3_siso_combined", cu_seqlens=cu_seqlens)
    heads = V.shape[2]
    q, k = (part.float().repeat_interleave(heads // part.shape[2], 2) for part in (Q, K))
    q, k = q + Q_bias.float(), k + K_bias.float()
    dt, trap = DT.float().transpose(1, 2), torch.sigmoid(Trap.float()).transpose(1, 2)
    turns = torch.cumsum(torch.tanh(Angles.float()) * math.pi * dt[..., None], 1)
    zero = V.new_zeros(V.shape[0], heads, V.shape[3], q.shape[3], dtype=torch.float32)
    start_angle, state, k_before, v_before = Input_States or (0.0, zero, torch.zeros_like(k[:, 0]), zero[..., 0])
    turns = turns + (start_angle[:, None] if isinstance(start_angle, Tensor) else start_angle)
    q, k, v = _turned(q, turns), _turned(k, turns), V.float()
    alpha = torch.exp(ADT.float()).transpose(1, 2)
    earlier = [torch.cat([first[:, None].to(x.dtype), x[:, :-1]], 1) for first, x in ((k_before, k), (v_before, v))]
    now = (trap * dt)[..., None, None] * v[..., None] * k[..., None, :]
    before = (alpha * dt * (1 - trap))[..., None, None] * earlier[1][..., None] * earlier[0][..., None, :]
    every, state = states(alpha[..., None, None], now + before, state.float())
    out = (every * q[..., None, :]).sum(-1)
    k_before, v_before = k[:, -1], v[:, -1]
    out = out if D is None else out + v * D.float()[:, None]
    out = (out if Z is None else out * F.silu(Z.float())).to(V.dtype)
    return (out, turns[:, -1] % (2 * math.pi), state, k_before, v_before) if return_final_states else out


def _turned(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate neighbouring pairs by angles; pairs without an angle stay."""
    cos, sin = torch.cos(turns), torch.sin(turns)
    pairs = x[..., : 2 * turns.shape[-1]].unflatten(-1, (-1, 2))
    first, second = pairs[..., 0], pairs[..., 1]
    turned = torch.stack([first * cos - second * sin, first * sin + second * cos], -1).flatten(-2)
    return torch.cat([turned, x[..., 2 * turns.shape[-1] :]], -1)
