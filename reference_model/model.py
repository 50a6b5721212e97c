"""The Hymba language model: attention and a selective scan side by side in every block (arXiv:2411.13676).

Shape letters: B batch, T time, D width, V vocabulary, H query heads, G key/value heads, E width of a head, R rank of
the step sizes, N state of the scan. Parameter names and counts are those of pull requests 599, 914 and 1245.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_model.attention import causal_attention, continued_attention, normalized_heads, rotary_tables
from reference_model.config import ModelConfig
from reference_model.conv import DepthwiseConv
from reference_model.memory import KeyValues, LayerMemory, Memory, Tail, previous
from reference_model.scan import ScanInputs, selective_scan

BIGRAM_MULTIPLIER = 92_821
ORTHOGONAL_MIN_SIDE = 16
# Layers whose output starts at zero, so that a block begins as the identity.
ZERO_INIT_NAMES = ("proj", "lm_head")


class SmearGate(nn.Module):
    """Blend every embedding with the one before it: g * x[t] + (1 - g) * x[t-1], one learned g per channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.full((dim,), 3.0))

    def forward(self, x_BTD: Tensor, tail: Tail | None = None) -> Tensor:
        """Return the blended embeddings; nothing stands before a text's first."""
        previous_BTD = previous(x_BTD, tail)
        return torch.lerp(previous_BTD, x_BTD, torch.sigmoid(self.gate).to(x_BTD.dtype))


class BigramHash(nn.Module):
    """Embedding of the last two tokens, hashed into a table."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.table = nn.Embedding(config.bigram_buckets, config.bigram_dim)
        self.proj = nn.Linear(config.bigram_dim, config.model_dim, bias=False)

    def forward(self, tokens_BT: Tensor, tail: Tail | None = None) -> Tensor:
        """Return B, T, D; the token before a text's first counts as 0."""
        buckets_BT = (previous(tokens_BT, tail) * BIGRAM_MULTIPLIER + tokens_BT) % self.table.num_embeddings
        output_BTD: Tensor = self.proj(self.table(buckets_BT))
        return output_BTD


class AttentionMixer(nn.Module):
    """Causal attention alone: the plain transformer's token mixer."""

    def __init__(self, config: ModelConfig, window: int) -> None:
        super().__init__()
        self.head_dim, self.window = config.head_dim, window
        self.kv_dim = config.num_kv_heads * config.head_dim
        self.c_q = nn.Linear(config.model_dim, config.model_dim, bias=False)
        self.q_gain = nn.Parameter(torch.full((config.num_heads,), config.qk_gain_init))
        self.proj = nn.Linear(config.model_dim, config.model_dim, bias=False)
        self.add_projections(config)

    def add_projections(self, config: ModelConfig) -> None:
        """Create the projection of keys and values."""
        self.kv_proj = nn.Linear(config.model_dim, 2 * self.kv_dim, bias=False)

    def attend(
        self,
        x_BTD: Tensor,
        key_value: tuple[Tensor, Tensor],
        rotary: tuple[Tensor, Tensor],
        memory: LayerMemory | None = None,
    ) -> Tensor:
        """Queries of x against keys and values B, T, G * E. Returns B, T, D before the output projection."""
        k_BTC, v_BTC = key_value
        heads_BTXE = (*x_BTD.shape[:2], -1, self.head_dim)
        q_BTHE = self.c_q(x_BTD).view(heads_BTXE)
        q_BTHE = normalized_heads(q_BTHE, rotary) * self.q_gain[:, None].to(q_BTHE.dtype)
        k_BTGE, v_BTGE = normalized_heads(k_BTC.reshape(heads_BTXE), rotary), v_BTC.reshape(heads_BTXE)
        heads = (q_BTHE.transpose(1, 2), k_BTGE.transpose(1, 2), v_BTGE.transpose(1, 2))
        if memory is None:
            mixed_BHTE = causal_attention(*heads, self.window)
        else:
            mixed_BHTE = continued_attention(*heads, memory.attention)
        return mixed_BHTE.transpose(1, 2).flatten(2)

    def forward(self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], memory: LayerMemory | None = None) -> Tensor:
        """Mix over time; returns B, T, D."""
        output_BTD: Tensor = self.proj(self.attend(x_BTD, self.kv_proj(x_BTD).chunk(2, -1), rotary, memory))
        return output_BTD


class HymbaMixer(AttentionMixer):
    """Attention and Mamba read the same input; a learned scalar weighs them before the shared output projection."""

    def __init__(self, config: ModelConfig, window: int) -> None:
        super().__init__(config, window)
        channels, rank, state = config.ssm_dim, config.ssm_dt_rank, config.ssm_state
        self.sizes = (self.kv_dim, self.kv_dim, channels, channels)
        self.scan_sizes = (rank, state, state)
        self.scan_chunk, self.scan_backend = config.scan_chunk, config.scan_backend
        self.conv1d = DepthwiseConv(channels, config.conv_width)
        self.x_proj = nn.Linear(channels, sum(self.scan_sizes), bias=False)
        self.dt_proj = nn.Linear(rank, channels)
        self.A_log = nn.Parameter(torch.arange(1, state + 1).float().log().repeat(channels, 1))
        self.D = nn.Parameter(torch.ones(channels))
        self.mamba_out_proj = nn.Linear(channels, config.model_dim, bias=False)
        self.merge_alpha = nn.Parameter(torch.zeros(1))

    def add_projections(self, config: ModelConfig) -> None:
        """Create the projections of keys, values, scan input and gate: one matrix (#599) or two (#914)."""
        self.fused = config.fused_projection
        if self.fused:
            self.in_proj = nn.Linear(config.model_dim, 2 * self.kv_dim + 2 * config.ssm_dim, bias=False)
            return
        super().add_projections(config)
        self.mamba_proj = nn.Linear(config.model_dim, 2 * config.ssm_dim, bias=False)

    def scan(self, x_BTD: Tensor, gate_BTD: Tensor, memory: LayerMemory | None = None) -> Tensor:
        """Mamba's branch: causal convolution, selective scan with skip, gate, output projection."""
        tail, state_BDN = (None, None) if memory is None else (memory.convolution, memory.scan)
        x_BTD = F.silu(self.conv1d(x_BTD, tail))
        dt_BTR, B_BTN, C_BTN = self.x_proj(x_BTD).split(self.scan_sizes, -1)
        dt_BTD = F.softplus(self.dt_proj(dt_BTR))
        inputs = ScanInputs(x_BTD, dt_BTD, -self.A_log.float().exp(), B_BTN, C_BTN)
        y_BTD, state_BDN = selective_scan(inputs, state_BDN, chunk=self.scan_chunk, backend=self.scan_backend)
        if memory is not None:
            memory.scan = state_BDN
        output_BTD: Tensor = self.mamba_out_proj(torch.addcmul(y_BTD, self.D, x_BTD) * F.silu(gate_BTD))
        return output_BTD

    def forward(self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], memory: LayerMemory | None = None) -> Tensor:
        """Mix over time; returns B, T, D."""
        projected = self.in_proj(x_BTD) if self.fused else torch.cat((self.kv_proj(x_BTD), self.mamba_proj(x_BTD)), -1)
        k_BTC, v_BTC, scanned_BTD, gate_BTD = projected.split(self.sizes, -1)
        attention_BTD = self.attend(x_BTD, (k_BTC, v_BTC), rotary, memory)
        mamba_BTD = self.scan(scanned_BTD, gate_BTD, memory)
        weight = torch.sigmoid(self.merge_alpha).to(mamba_BTD.dtype)
        output_BTD: Tensor = self.proj(torch.lerp(mamba_BTD, attention_BTD.to(mamba_BTD.dtype), weight))
        return output_BTD


class MLP(nn.Module):
    """Two matrices with a squared rectifier, a squared leaky rectifier or SiLU between them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.fc = nn.Linear(config.model_dim, config.mlp_mult * config.model_dim, bias=False)
        self.proj = nn.Linear(config.mlp_mult * config.model_dim, config.model_dim, bias=False)
        self.activation, self.slope = config.activation, config.leaky_relu_slope

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return B, T, D."""
        hidden = self.fc(x_BTD)
        if self.activation == "silu":
            hidden = F.silu(hidden)
        else:
            hidden = F.leaky_relu(hidden, self.slope if self.activation == "leaky_relu2" else 0.0).square()
        output_BTD: Tensor = self.proj(hidden)
        return output_BTD


class Block(nn.Module):
    """Token mixer and MLP, each scaled per channel, on a stream that may be refreshed from the embeddings x0."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        mixer = HymbaMixer if config.use_hymba else AttentionMixer
        self.attn = mixer(config, config.layer_window(layer))
        self.mlp = MLP(config)
        self.attn_scale = nn.Parameter(torch.ones(config.model_dim))
        self.mlp_scale = nn.Parameter(torch.ones(config.model_dim))
        self.resid_mix = nn.Parameter(torch.stack((torch.ones(config.model_dim), torch.zeros(config.model_dim))))

    def forward(
        self, x_BTD: Tensor, x0_BTD: Tensor, rotary: tuple[Tensor, Tensor], memory: LayerMemory | None = None
    ) -> Tensor:
        """Return B, T, D."""
        width = x_BTD.shape[-1:]
        x_BTD = torch.addcmul(self.resid_mix[0] * x_BTD, self.resid_mix[1], x0_BTD)
        x_BTD = torch.addcmul(x_BTD, self.attn_scale, self.attn(F.rms_norm(x_BTD, width), rotary, memory))
        return torch.addcmul(x_BTD, self.mlp_scale, self.mlp(F.rms_norm(x_BTD, width)))


class HymbaLM(nn.Module):
    """Language model over tokens; blocks of the first half hand their output to those of the second half (U-Net).

    Args:
        config: Shape of the network.
        generator: Source of the initial weights; torch's default one when absent.

    """

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.tok_emb = nn.Embedding(config.vocab_size, config.model_dim)
        self.smeargate = SmearGate(config.model_dim) if config.use_smeargate else None
        self.bigram_hash = BigramHash(config) if config.use_bigram_hash else None
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.skip_weights = nn.Parameter(torch.ones(1, config.num_layers // 2, config.model_dim))
        head = nn.Linear(config.model_dim, config.vocab_size, bias=False)
        self.lm_head = None if config.tie_embeddings else head
        self.init_weights(generator)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None) -> None:
        """Draw the initial weights: see init_matrix, with zeros where a block's output begins."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and name.rsplit(".", 1)[-1] in ZERO_INIT_NAMES:
                nn.init.zeros_(module.weight)
            elif isinstance(module, (nn.Linear, DepthwiseConv)):
                init_matrix(module.weight, module.bias, generator)
        std = self.config.tied_embed_init_std if self.config.tie_embeddings else 1.0
        nn.init.normal_(self.tok_emb.weight, std=std, generator=generator)
        if self.bigram_hash is not None:
            nn.init.normal_(self.bigram_hash.table.weight, std=0.01, generator=generator)

    def new_memory(self) -> Memory:
        """A memory of nothing, for `forward`: the beginning of a text."""
        layers = range(self.config.num_layers)
        return Memory([LayerMemory(KeyValues(self.config.layer_window(layer))) for layer in layers])

    def embed(self, tokens_BT: Tensor, memory: Memory | None = None) -> Tensor:
        """Return the normalized embeddings, B, T, D."""
        x_BTD: Tensor = self.tok_emb(tokens_BT)
        if self.bigram_hash is not None:
            x_BTD = x_BTD + self.bigram_hash(tokens_BT, memory and memory.tokens)
        if self.smeargate is not None:
            x_BTD = self.smeargate(x_BTD, memory and memory.embedding)
        return F.rms_norm(x_BTD, x_BTD.shape[-1:])

    def run_blocks(self, x_BTD: Tensor, memory: Memory | None = None) -> Tensor:
        """Run all blocks on embeddings; returns the normalized last stream, B, T, D."""
        config, x0_BTD, skips = self.config, x_BTD, list[Tensor]()
        first = memory.position if memory else 0
        rotary = rotary_tables(x_BTD.shape[1], config.head_dim, config.rope_base, x_BTD.device, first=first)
        half = config.num_layers // 2
        for layer, block in enumerate(self.blocks):
            if layer >= half and skips:
                x_BTD = torch.addcmul(x_BTD, self.skip_weights[0, layer - half], skips.pop())
            x_BTD = block(x_BTD, x0_BTD, rotary, memory and memory.layers[layer])
            if layer < half:
                skips.append(x_BTD)
        if memory is not None:
            memory.position += x_BTD.shape[1]
        return F.rms_norm(x_BTD, x_BTD.shape[-1:])

    def forward(self, tokens_BT: Tensor, memory: Memory | None = None) -> Tensor:
        """Logits of the next token, B, T, V in float32, softly capped: cap * tanh(z / cap).

        With a memory the tokens go on where the last ones ended, and are remembered in turn: the logits are those
        that the whole text at once would give, up to rounding. Call it without gradients.
        """
        x_BTD = self.run_blocks(self.embed(tokens_BT, memory), memory)
        weight_VD = self.tok_emb.weight if self.lm_head is None else self.lm_head.weight
        cap = self.config.logit_softcap
        # Dividing the narrow side of the product spares a pass over the logits.
        return cap * torch.tanh(F.linear(x_BTD / cap, weight_VD).float())

    def token_losses(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Cross-entropy of every target in nats, B, T in float32."""
        logits_BTV = self(tokens_BT)
        return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="none").view_as(targets_BT)


def init_matrix(weight: Tensor, bias: Tensor | None, generator: torch.Generator | None) -> None:
    """Orthogonal when both sides are at least 16; otherwise, and for biases, uniform within 1 / sqrt(fan in)."""
    bound = 1 / math.sqrt(weight[0].numel())
    if weight.ndim == 2 and min(weight.shape) >= ORTHOGONAL_MIN_SIDE:
        nn.init.orthogonal_(weight, generator=generator)
    else:
        nn.init.uniform_(weight, -bound, bound, generator=generator)
    if bias is not None:
        nn.init.uniform_(bias, -bound, bound, generator=generator)
