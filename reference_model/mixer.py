"""Token mixers: attention alone, and attention beside a selective scan on the same input (arXiv:2411.13676).

Shape letters: B batch, T time, D width, H query heads, G key/value heads, E width of a head, C heads side by side,
R rank of the step sizes, N state of the scan.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_model.attention import attention_after_meta, continued_attention
from reference_model.banks import MakeLinear, MatrixRows, plain_linear
from reference_model.config import ModelConfig
from reference_model.conv import DepthwiseConv
from reference_model.elementwise import elementwise
from reference_model.memory import LayerMemory, Memory
from reference_model.scan import ScanFrame, ScanInputs, selective_scan

# Keys and values, both B, G, T, E, ready to be attended to.
KeysValues: TypeAlias = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class LayerContext:
    """What the layers of one forward pass have in common.

    Attributes:
        rotary: Tables of `rotary_tables`, at least as long as the sequence.
        meta: Leading positions that hold meta tokens.
        memory: What is kept of the text before, or None where the text begins here and nothing is kept.
        kept: Keys and values of the layers that share theirs, by layer.
    """

    rotary: tuple[Tensor, Tensor]
    meta: int = 0
    memory: Memory | None = None
    kept: dict[int, KeysValues] = field(default_factory=dict)

    def remembered(self, layer: int) -> LayerMemory | None:
        """A layer's share of the memory."""
        return None if self.memory is None else self.memory.layers[layer]


class AttentionMixer(nn.Module):
    """Causal attention alone: the plain transformer's token mixer."""

    def __init__(self, config: ModelConfig, layer: int, linear: MakeLinear = plain_linear) -> None:
        super().__init__()
        self.layer, self.source, self.window = layer, config.kv_source(layer), config.layer_window(layer)
        self.window_backend, self.elementwise = config.window_backend, elementwise(config.elementwise_backend)
        self.lends = any(config.kv_source(later) == layer for later in range(layer + 1, config.num_layers))
        self.head_dim, self.kv_dim = config.head_dim, config.num_kv_heads * config.head_dim
        self.add_queries(config, linear)
        self.proj = linear("proj", config.model_dim, config.model_dim)
        self.separate_kv = config.separate_kv
        self.add_projections(config, linear)

    @staticmethod
    def query_heads(config: ModelConfig) -> int:
        """How many heads attend."""
        return config.num_heads

    def add_queries(self, config: ModelConfig, linear: MakeLinear) -> None:
        """Create the projection of the queries and their gains."""
        self.c_q = linear("c_q", config.model_dim, config.model_dim)
        self.q_gain = nn.Parameter(torch.full((self.query_heads(config),), config.qk_gain_init))

    def add_projections(self, config: ModelConfig, linear: MakeLinear) -> None:
        """Create the projections of keys and values, unless another layer's serve."""
        if self.source != self.layer:
            return
        if self.separate_kv:
            self.c_k = linear("c_k", self.kv_dim, config.model_dim)
            self.c_v = linear("c_v", self.kv_dim, config.model_dim)
        else:
            self.kv_proj = linear("kv_proj", 2 * self.kv_dim, config.model_dim)

    def queries(self, q_BTC: Tensor, context: LayerContext, start: int = 0) -> Tensor:
        """Split, normalize, rotate by position from `start`, and scale; B, H, T, E."""
        q_BTHE = torch.unflatten(q_BTC, -1, (-1, self.head_dim))
        return self.elementwise.heads(q_BTHE, context.rotary, start, self.q_gain).transpose(1, 2)

    def keys_values(self, x_BTD: Tensor, context: LayerContext) -> KeysValues:
        """Keys and values of x, or those that an earlier layer kept."""
        if self.source != self.layer:
            return context.kept[self.source]
        if self.separate_kv:
            return self.key_value_heads(self.c_k(x_BTD), self.c_v(x_BTD), context)
        k_BTC, v_BTC = self.kv_proj(x_BTD).chunk(2, -1)
        return self.key_value_heads(k_BTC, v_BTC, context)

    def key_value_heads(self, k_BTC: Tensor, v_BTC: Tensor, context: LayerContext) -> KeysValues:
        """Split into heads, normalize and rotate the keys; keep both where a later layer uses them."""
        k_BTGE, v_BTGE = (torch.unflatten(part_BTC, -1, (-1, self.head_dim)) for part_BTC in (k_BTC, v_BTC))
        found = self.elementwise.heads(k_BTGE, context.rotary).transpose(1, 2), v_BTGE.transpose(1, 2)
        if self.lends:
            context.kept[self.layer] = found
        return found

    def attend(self, x_BTD: Tensor, keys_values: KeysValues, context: LayerContext) -> Tensor:
        """Queries of x against keys and values; B, T, D before the output projection."""
        q_BHTE, memory = self.queries(self.c_q(x_BTD), context), context.remembered(self.layer)
        if memory is None:
            k_BGTE, v_BGTE = keys_values
            mixed_BHTE = attention_after_meta(
                q_BHTE, k_BGTE, v_BGTE, window=self.window, meta=context.meta, backend=self.window_backend
            )
        else:
            mixed_BHTE = continued_attention(
                q_BHTE, *keys_values, memory.attention, meta=context.meta, backend=self.window_backend
            )
        return mixed_BHTE.transpose(1, 2).flatten(2)

    def forward(self, x_BTD: Tensor, context: LayerContext) -> Tensor:
        """Mix over time; returns B, T, D."""
        output_BTD: Tensor = self.proj(self.attend(x_BTD, self.keys_values(x_BTD, context), context))
        return output_BTD


class HymbaMixer(AttentionMixer):
    """Attention and Mamba read the same input and are merged before the shared output projection.

    Merged by a learned scalar weight (#599), or as the mean of their norms with learned scales per channel (the paper).
    """

    def __init__(self, config: ModelConfig, layer: int, linear: MakeLinear = plain_linear) -> None:
        super().__init__(config, layer, linear)
        self.add_scan(config, linear)
        self.add_merge(config, linear)

    def add_scan(self, config: ModelConfig, linear: MakeLinear) -> None:
        """Create the convolution and the scan."""
        channels, rank, state = config.ssm_dim, config.ssm_dt_rank, config.ssm_state
        self.scan_sizes = (rank, state, state)
        self.scan_chunk, self.scan_backend = config.scan_chunk, config.scan_backend
        self.conv1d = DepthwiseConv(channels, config.conv_width, config.conv_backend)
        self.x_proj = linear("x_proj", sum(self.scan_sizes), channels)
        self.add_step_projection(rank, channels, linear)
        self.A_log = nn.Parameter(torch.arange(1, state + 1).float().log().repeat(channels, 1))
        self.D = nn.Parameter(torch.ones(channels))

    def add_merge(self, config: ModelConfig, linear: MakeLinear) -> None:
        """Create what joins the branches."""
        self.averages = config.fusion == "norms"
        if self.averages:
            # The published model has one output projection, behind the mean.
            self.mamba_out_proj: nn.Module = nn.Identity()
            self.attention_norm = nn.Parameter(torch.ones(config.model_dim))
            self.mamba_norm = nn.Parameter(torch.ones(config.model_dim))
        else:
            self.mamba_out_proj = linear("mamba_out_proj", config.model_dim, config.ssm_dim)
            self.merge_alpha = nn.Parameter(torch.zeros(1))

    def add_projections(self, config: ModelConfig, linear: MakeLinear) -> None:
        """Create the projections of keys, values, scan input and gate: one matrix (#599) or several (#914)."""
        self.sizes = (self.kv_dim, self.kv_dim, config.ssm_dim, config.ssm_dim)
        self.fused = config.fused_projection and self.source == self.layer
        if self.fused:
            self.in_proj = linear("in_proj", sum(self.sizes), config.model_dim)
            return
        super().add_projections(config, linear)
        self.mamba_proj = linear("mamba_proj", 2 * config.ssm_dim, config.model_dim)

    def add_step_projection(self, rank: int, channels: int, linear: MakeLinear) -> None:
        """Create what widens the step sizes from their rank to all channels."""
        self.dt_proj = linear("dt_proj", channels, rank, bias=True)

    def step_sizes(self, dt_BTR: Tensor) -> Tensor:
        """What gives the steps of all channels, by a softplus; B, T, D."""
        steps_BTD: Tensor = self.dt_proj(dt_BTR)
        return steps_BTD

    def project(self, x_BTD: Tensor, context: LayerContext) -> tuple[KeysValues, Tensor, Tensor]:
        """Keys and values, the scan's input, its gate."""
        if not self.fused:
            scanned_BTD, gate_BTD = self.mamba_proj(x_BTD).chunk(2, -1)
            return self.keys_values(x_BTD, context), scanned_BTD, gate_BTD
        k_BTC, v_BTC, scanned_BTD, gate_BTD = self.in_proj(x_BTD).split(self.sizes, -1)
        return self.key_value_heads(k_BTC, v_BTC, context), scanned_BTD, gate_BTD

    def scan(self, x_BTD: Tensor, gate_BTD: Tensor, memory: LayerMemory | None = None) -> Tensor:
        """Mamba's branch: causal convolution, selective scan with skip, gate, output projection."""
        tail, state_BDN = (None, None) if memory is None else (memory.convolution, memory.scan)
        x_BTD = self.conv1d(x_BTD, tail, silu=True)
        dt_BTR, B_BTN, C_BTN = self.x_proj(x_BTD).split(self.scan_sizes, -1)
        inputs = ScanInputs(x_BTD, self.step_sizes(dt_BTR), -self.A_log.float().exp(), B_BTN, C_BTN)
        frame = ScanFrame(self.D, gate_BTD, softplus=True)
        y_BTD, state_BDN = selective_scan(inputs, state_BDN, frame, chunk=self.scan_chunk, backend=self.scan_backend)
        if memory is not None:
            memory.scan = state_BDN.detach()
        output_BTD: Tensor = self.mamba_out_proj(y_BTD)
        return output_BTD

    def merge(self, attention_BTD: Tensor, mamba_BTD: Tensor) -> Tensor:
        """Join the branches, B, T, D."""
        attention_BTD = attention_BTD.to(mamba_BTD.dtype)
        if not self.averages:
            return torch.lerp(mamba_BTD, attention_BTD, torch.sigmoid(self.merge_alpha).to(mamba_BTD.dtype))
        width = mamba_BTD.shape[-1:]
        normed_BTD = F.rms_norm(attention_BTD, width) * self.attention_norm
        return torch.addcmul(normed_BTD, self.mamba_norm, F.rms_norm(mamba_BTD, width)) / 2

    def forward(self, x_BTD: Tensor, context: LayerContext) -> Tensor:
        """Mix over time; returns B, T, D."""
        keys_values, scanned_BTD, gate_BTD = self.project(x_BTD, context)
        attention_BTD = self.attend(x_BTD, keys_values, context)
        mamba_BTD = self.scan(scanned_BTD, gate_BTD, context.remembered(self.layer))
        output_BTD: Tensor = self.proj(self.merge(attention_BTD, mamba_BTD))
        return output_BTD


class ScanMixer(HymbaMixer):
    """Mamba alone: the hybrid without its attention, for comparisons."""

    def add_queries(self, config: ModelConfig, linear: MakeLinear) -> None:
        """Nothing asks."""

    def add_projections(self, config: ModelConfig, linear: MakeLinear) -> None:
        """Create the projection of scan input and gate."""
        self.mamba_proj = linear("mamba_proj", 2 * config.ssm_dim, config.model_dim)

    def add_merge(self, config: ModelConfig, linear: MakeLinear) -> None:  # noqa: ARG002 - as in the hybrid
        """Nothing to merge: one output projection is enough."""
        self.mamba_out_proj = nn.Identity()

    def forward(self, x_BTD: Tensor, context: LayerContext) -> Tensor:
        """Mix over time; returns B, T, D."""
        scanned_BTD, gate_BTD = self.mamba_proj(x_BTD).chunk(2, -1)
        output_BTD: Tensor = self.proj(self.scan(scanned_BTD, gate_BTD, context.remembered(self.layer)))
        return output_BTD


class SharedMatrixMixer(HymbaMixer):
    """The mixer of #852's records script: one matrix for query and output, one for key and value, gated values.

    As published, `in_proj` has rows for keys and values that nothing uses, and the step sizes have no projection: the
    first R channels take theirs from `x_proj`, the others from a bias alone.
    """

    def add_projections(self, config: ModelConfig, linear: MakeLinear) -> None:
        """Create the projections of keys (and values), their gate, scan input and its gate."""
        unused_rows = 2 * self.kv_dim
        self.c_k = linear("c_k", self.kv_dim, config.model_dim)
        self.value_gate = linear("value_gate", self.kv_dim, config.model_dim)
        self.in_proj = linear("in_proj", unused_rows + 2 * config.ssm_dim, config.model_dim)
        self.in_proj_rows = MatrixRows(self.in_proj, slice(unused_rows, None))

    def add_step_projection(self, rank: int, channels: int, linear: MakeLinear) -> None:  # noqa: ARG002 - no matrix
        """Create the bias of the steps."""
        self.missing_channels = channels - rank
        self.dt_bias = nn.Parameter(torch.zeros(channels))

    def step_sizes(self, dt_BTR: Tensor) -> Tensor:
        """What gives the steps of all channels, by a softplus; B, T, D."""
        return F.pad(dt_BTR, (0, self.missing_channels)) + self.dt_bias

    def project(self, x_BTD: Tensor, context: LayerContext) -> tuple[KeysValues, Tensor, Tensor]:
        """Keys and values of one product, the scan's input, its gate."""
        k_BTC = self.c_k(x_BTD)
        keys_values = self.key_value_heads(k_BTC, k_BTC * torch.sigmoid(self.value_gate(x_BTD)), context)
        scanned_BTD, gate_BTD = self.in_proj_rows(x_BTD).chunk(2, -1)
        return keys_values, scanned_BTD, gate_BTD
