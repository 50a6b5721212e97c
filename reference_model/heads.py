"""Attention heads and small scan heads side by side, with meta tokens of their own (pull request 1961).

Shape letters: B batch, T time, D width, E width of a head, H heads of a kind, M meta tokens, N state of a scan head.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_model.attention import causal_attention, continued_attention
from reference_model.banks import MakeLinear, MatrixRows
from reference_model.config import ModelConfig
from reference_model.meta import init_meta, meta_parameter, with_meta
from reference_model.mixer import AttentionMixer, LayerContext
from reference_model.scan import ScanInputs, selective_scan

# As published: a step is at most 1, a rate at most 10, and one step forgets at most 1 - exp(-0.5) of the state.
LARGEST_STEP = 1.0
LARGEST_RATE = 10.0
LARGEST_DECAY = 0.5
STEP_BIAS_INIT = -4.0
RATE_INIT_STD = 0.5


def widened(x: Tensor) -> Tensor:
    """At least float32: what a recurrence adds up must not be rounded to half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class ScanHead(nn.Module):
    """Weights of one scan head: a diagonal recurrence whose N states each have an input and a step of their own."""

    def __init__(self, width: int, state: int) -> None:
        super().__init__()
        self.log_A = nn.Parameter(torch.zeros(state))
        self.B_proj = nn.Linear(width, state, bias=False)
        self.C_proj = nn.Linear(width, state, bias=False)
        self.dt_proj = nn.Linear(width, state)
        self.out_proj = nn.Linear(state, width, bias=False)

    def init_weights(self, generator: torch.Generator | None) -> None:
        """Draw the rates; the steps begin small."""
        nn.init.normal_(self.log_A, std=RATE_INIT_STD, generator=generator)
        nn.init.constant_(self.dt_proj.bias, STEP_BIAS_INIT)

    def recurrence(self, x_BTE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs and steps of the states (B, T, N) and their rates (N): h = exp(-dt * rate) * h + dt * input.

        A step that would decay by more than LARGEST_DECAY is cut, and its input raised so that their product stays.
        """
        wanted_BTN = F.softplus(widened(self.dt_proj(x_BTE))).clamp(max=LARGEST_STEP)
        rate_N = widened(self.log_A).exp().clamp(max=LARGEST_RATE)
        longest_N = LARGEST_DECAY / rate_N
        # Not divided by the step that is taken: softplus makes it zero, or too small to divide by.
        raised_BTN = (wanted_BTN / longest_N).clamp(min=1.0)
        return widened(self.B_proj(x_BTE)) * raised_BTN, torch.minimum(wanted_BTN, longest_N), rate_N

    def read(self, x_BTE: Tensor, state_BTN: Tensor) -> Tensor:
        """The head's output, B, T, E: the states projected, and their product with C on the head's first channel."""
        gain_BT1 = (widened(self.C_proj(x_BTE)) * state_BTN).sum(-1, keepdim=True)
        return torch.addcmul(self.out_proj(state_BTN.to(x_BTE.dtype)), gain_BT1.to(x_BTE.dtype), x_BTE[..., :1])


class HeadsMixer(AttentionMixer):
    """Half of the heads attend, half scan; their outputs stand side by side before the output projection.

    `c_q` has the rows of all heads, as published; only those of the attention heads are used. Meta tokens stand before
    the text for the attention alone; every query sees them.
    """

    def __init__(self, config: ModelConfig, layer: int, linear: MakeLinear) -> None:
        super().__init__(config, layer, linear)
        self.scan_chunk, self.scan_backend = config.scan_chunk, config.scan_backend
        heads = self.query_heads(config)
        self.c_q_rows = MatrixRows(self.c_q, slice(heads * self.head_dim))
        self.ssm_in = linear("ssm_in", heads * self.head_dim, config.model_dim)
        self.ssm_heads = nn.ModuleList(ScanHead(self.head_dim, config.ssm_state) for _ in range(heads))
        self.meta_tokens = meta_parameter(config.meta_tokens, config.model_dim)
        self.attn_scale = nn.Parameter(torch.ones(1))
        self.ssm_scale = nn.Parameter(torch.ones(1))
        # Projections are lent here, not what they give: meta tokens differ by layer.
        self.lends = False
        # The layer whose projections of keys and values this one uses; in a tuple, where torch does not look.
        self.lender: tuple[AttentionMixer, ...] = ()

    @staticmethod
    def query_heads(config: ModelConfig) -> int:
        """Half of the heads."""
        return config.num_heads // 2

    def init_weights(self, generator: torch.Generator | None) -> None:
        """Draw what is no matrix."""
        init_meta(self.meta_tokens, generator)

    def attend_meta(self, x_BTD: Tensor, context: LayerContext) -> Tensor:
        """Attention of the text over meta tokens and text; B, T, H * E."""
        memory = context.remembered(self.layer)
        begins = memory is None or not memory.attention.end
        extended = with_meta(self.meta_tokens if begins else None, x_BTD)
        if not begins and self.meta_tokens is not None:
            # The meta tokens have the first positions.
            cos, sin = (table[self.meta_tokens.shape[1] :] for table in context.rotary)
            context = replace(context, rotary=(cos, sin))
        keys_values = (self.lender or (self,))[0].keys_values(extended, context)
        meta = extended.shape[1] - x_BTD.shape[1]
        q_BHTE = self.queries(self.c_q_rows(x_BTD), context, start=meta)
        if memory is None:
            mixed_BHTE = causal_attention(q_BHTE, *keys_values, self.window, self.window_backend)
        else:
            mixed_BHTE = continued_attention(
                q_BHTE, *keys_values, memory.attention, meta=meta, backend=self.window_backend
            )
        return mixed_BHTE.transpose(1, 2).flatten(2)

    def scan(self, x_BTC: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """All scan heads in one scan, one channel for each state.

        Args:
            x_BTC: The heads' inputs side by side.
            state: B, H * N, 1; zeros when absent.

        Returns:
            Outputs side by side, B, T, H * E, and the last state.

        """
        heads = [head for head in self.ssm_heads if isinstance(head, ScanHead)]
        parts = torch.split(x_BTC, self.head_dim, -1)
        recurrences = [head.recurrence(part) for head, part in zip(heads, parts, strict=True)]
        inputs, steps, rates = zip(*recurrences, strict=True)
        x_BTS, dt_BTS, A_S1 = torch.cat(inputs, -1), torch.cat(steps, -1), -torch.cat(rates)[:, None]
        one_BT1 = torch.ones_like(x_BTS[..., :1])
        scanned = ScanInputs(x_BTS, dt_BTS, A_S1, one_BT1, one_BT1)
        states_BTS, state = selective_scan(scanned, state, chunk=self.scan_chunk, backend=self.scan_backend)
        split = torch.split(states_BTS, len(rates[0]), -1)
        read = [head.read(part, states) for head, part, states in zip(heads, parts, split, strict=True)]
        return torch.cat(read, -1), state

    def forward(self, x_BTD: Tensor, context: LayerContext) -> Tensor:
        """Mix over time; returns B, T, D."""
        attended = self.attend_meta(x_BTD, context) * self.attn_scale
        memory = context.remembered(self.layer)
        scanned, state = self.scan(self.ssm_in(x_BTD), None if memory is None else memory.scan)
        if memory is not None:
            memory.scan = state.detach()
        output_BTD: Tensor = self.proj(torch.cat((attended, scanned * self.ssm_scale), -1).to(x_BTD.dtype))
        return output_BTD
