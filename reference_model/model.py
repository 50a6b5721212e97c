"""The Hymba language model: attention and a selective scan side by side in every block (arXiv:2411.13676).

Shape letters: B batch, T time, D width, V vocabulary. Parameter counts are those of the published systems, module by
module (docs/presets.md).
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_model.attention import rotary_tables
from reference_model.banks import BankLinear, MakeLinear, MatrixRows, ParameterBanks, plain_linear
from reference_model.config import ModelConfig
from reference_model.conv import DepthwiseConv
from reference_model.elementwise import elementwise
from reference_model.heads import HeadsMixer, ScanHead
from reference_model.memory import KeyValues, LayerMemory, Memory, Tail, previous
from reference_model.meta import init_meta, meta_parameter, with_meta
from reference_model.mixer import AttentionMixer, HymbaMixer, LayerContext, ScanMixer, SharedMatrixMixer
from reference_model.rowtable import RowTable
from reference_model.s4d import FilterMixer, LongFilter

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
        self.table = RowTable(config.bigram_buckets, config.bigram_dim)
        self.proj = nn.Linear(config.bigram_dim, config.model_dim, bias=False)

    def forward(self, tokens_BT: Tensor, tail: Tail | None = None) -> Tensor:
        """Return B, T, D; the token before a text's first counts as 0."""
        buckets_BT = (previous(tokens_BT, tail) * BIGRAM_MULTIPLIER + tokens_BT) % self.table.num_embeddings
        output_BTD: Tensor = self.proj(self.table(buckets_BT))
        return output_BTD


class MLP(nn.Module):
    """Two matrices with a squared rectifier, a squared leaky rectifier or SiLU between them."""

    def __init__(self, config: ModelConfig, linear: MakeLinear = plain_linear) -> None:
        super().__init__()
        self.fc = linear("fc", config.hidden_dim, config.model_dim)
        self.proj = linear("mlp_proj", config.model_dim, config.hidden_dim)
        self.activation = config.activation
        self.slope = config.leaky_relu_slope if config.activation == "leaky_relu2" else 0.0
        self.elementwise = elementwise(config.elementwise_backend)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return B, T, D."""
        hidden = self.fc(x_BTD)
        silu = self.activation == "silu"
        output_BTD: Tensor = self.proj(
            F.silu(hidden) if silu else self.elementwise.squared_rectifier(hidden, self.slope)
        )
        return output_BTD


def make_mixer(config: ModelConfig, layer: int, linear: MakeLinear) -> AttentionMixer:
    """The token mixer that the settings give a layer."""
    if not config.is_hybrid(layer):
        return AttentionMixer(config, layer, linear)
    if config.fusion == "heads":
        return HeadsMixer(config, layer, linear)
    if not config.use_attention:
        return ScanMixer(config, layer, linear)
    if config.ssm_kind != "selective":
        return FilterMixer(config, layer, linear)
    mixer = SharedMatrixMixer if config.banks == "shared" else HymbaMixer
    return mixer(config, layer, linear)


class Block(nn.Module):
    """Token mixer and MLP, each scaled per channel, on a stream that may be refreshed from the embeddings x0."""

    def __init__(self, config: ModelConfig, layer: int, linear: MakeLinear = plain_linear) -> None:
        super().__init__()
        self.attn = make_mixer(config, layer, linear)
        self.mlp = MLP(config, linear)
        self.attn_scale = nn.Parameter(torch.ones(config.model_dim))
        self.mlp_scale = nn.Parameter(torch.ones(config.model_dim))
        self.resid_mix = nn.Parameter(torch.stack((torch.ones(config.model_dim), torch.zeros(config.model_dim))))
        self.elementwise = elementwise(config.elementwise_backend)

    def forward(self, x_BTD: Tensor, x0_BTD: Tensor, context: LayerContext) -> Tensor:
        """Return B, T, D."""
        mix_D, refresh_D = self.resid_mix.unbind()
        x_BTD, normed_BTD = self.elementwise.mix_norm(x_BTD, x0_BTD, refresh_D, mix_D)
        x_BTD, normed_BTD = self.elementwise.mix_norm(x_BTD, self.attn(normed_BTD, context), self.attn_scale)
        return self.elementwise.mix(x_BTD, self.mlp(normed_BTD), self.mlp_scale)


class HymbaLM(nn.Module):
    """Language model over tokens; blocks of the first half hand their output to those of the second half (U-Net).

    Args:
        config: Shape of the network.
        generator: Source of the initial weights; torch's default one when absent.

    """

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config, self.elementwise = config, elementwise(config.elementwise_backend)
        self.tok_emb = nn.Embedding(config.vocab_size, config.model_dim)
        # Heads that attend have meta tokens of their own in every layer.
        self.meta_tokens = meta_parameter(config.meta_tokens * (config.fusion != "heads"), config.model_dim)
        self.smeargate = SmearGate(config.model_dim) if config.use_smeargate else None
        self.bigram_hash = BigramHash(config) if config.use_bigram_hash else None
        self.banks = ParameterBanks(config) if config.banks != "none" else None
        layers, skips = config.num_layers, config.num_layers // 2 * config.use_unet_skips
        makers = [plain_linear if self.banks is None else self.banks.makes(layer) for layer in range(layers)]
        self.blocks = nn.ModuleList(Block(config, layer, linear) for layer, linear in enumerate(makers))
        self.skip_weights = nn.Parameter(torch.ones(1, skips, config.model_dim)) if skips else None
        head = nn.Linear(config.model_dim, config.vocab_size, bias=False)
        self.lm_head = None if config.tie_embeddings else head
        self.head = MatrixRows(self.tok_emb if self.lm_head is None else self.lm_head)
        self.lend_projections()
        self.init_weights(generator)

    def lend_projections(self) -> None:
        """Show mixers whose projections of keys and values are another layer's where those are."""
        mixers = [module for module in self.modules() if isinstance(module, AttentionMixer)]
        for mixer in mixers:
            if isinstance(mixer, HeadsMixer) and mixer.source != mixer.layer:
                mixer.lender = (mixers[mixer.source],)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None) -> None:
        """Draw the initial weights: see init_matrix, with zeros where a block's output begins."""
        shared = self.config.banks == "shared"
        for name, module in self.named_modules():
            is_linear = isinstance(module, (nn.Linear, BankLinear))
            # A matrix that makes the queries too cannot begin at zero.
            if is_linear and name.rsplit(".", 1)[-1] in ZERO_INIT_NAMES and not (shared and name.endswith("attn.proj")):
                nn.init.zeros_(module.weight)
            elif is_linear or isinstance(module, DepthwiseConv):
                init_matrix(module.weight, module.bias, generator)
        for module in self.modules():
            if isinstance(module, (HeadsMixer, LongFilter, ScanHead)):
                module.init_weights(generator)
        init_meta(self.meta_tokens, generator)
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
        return self.elementwise.norm(x_BTD)

    def run_blocks(self, x_BTD: Tensor, memory: Memory | None = None) -> Tensor:
        """Run all blocks on embeddings; returns the normalized last stream, B, T, D."""
        text = x_BTD.shape[1]
        if self.meta_tokens is not None and not (memory and memory.position):
            x_BTD = with_meta(F.rms_norm(self.meta_tokens, x_BTD.shape[-1:]), x_BTD)
        with self.banks.taken_apart() if self.banks else nullcontext():
            x_BTD = self.run_layers(x_BTD, x_BTD.shape[1] - text, memory)
        if memory is not None:
            memory.position += text
        return self.elementwise.norm(x_BTD[:, -text:])

    def run_layers(self, x_BTD: Tensor, meta: int, memory: Memory | None = None) -> Tensor:
        """Run all blocks on a stream whose first positions are meta tokens; returns the last stream."""
        config, x0_BTD, skips = self.config, x_BTD, list[Tensor]()
        first = memory.position if memory else 0
        # Meta tokens of the stream have positions of their own.
        if first and self.meta_tokens is not None:
            first += config.meta_tokens
        length = x_BTD.shape[1] - meta + config.meta_tokens
        rotary = rotary_tables(length, config.rotary_dims, config.rope_base, x_BTD.device, first=first)
        context, half = LayerContext(rotary, meta, memory), config.num_layers // 2
        for layer, block in enumerate(self.blocks):
            if self.skip_weights is not None and layer >= half and skips:
                x_BTD = self.elementwise.mix(x_BTD, skips.pop(), self.skip_weights[0, layer - half])
            x_BTD = block(x_BTD, x0_BTD, context)
            if self.skip_weights is not None and layer < half:
                skips.append(x_BTD)
        return x_BTD

    def forward(self, tokens_BT: Tensor, memory: Memory | None = None) -> Tensor:
        """Logits of the next token, B, T, V in float32, softly capped where there is a cap: cap * tanh(z / cap).

        With a memory the tokens go on where the last ones ended, and are remembered in turn: the logits are those
        that the whole text at once would give, up to rounding. Gradients end where these tokens begin.
        """
        z_BTV, cap = self.uncapped(self.run_blocks(self.embed(tokens_BT, memory), memory)), self.config.logit_softcap
        return cap * torch.tanh(z_BTV) if cap else z_BTV

    def uncapped(self, x_BTD: Tensor) -> Tensor:
        """What the logits are made of, z / cap where there is a cap: B, T, V in float32."""
        # Dividing the narrow side of the product spares a pass over the logits.
        z_BTV: Tensor = self.head(x_BTD / (self.config.logit_softcap or 1)).float()
        return z_BTV

    def token_losses(self, tokens_BT: Tensor, targets_BT: Tensor, memory: Memory | None = None) -> Tensor:
        """Cross-entropy of every target in nats, B, T in float32; with a memory as in `forward`."""
        z_BTV = self.uncapped(self.run_blocks(self.embed(tokens_BT, memory), memory))
        cap = self.config.logit_softcap
        return self.elementwise.capped_entropy(z_BTV.flatten(0, 1), targets_BT.flatten(), cap).view_as(targets_BT)


def init_matrix(weight: Tensor, bias: Tensor | None, generator: torch.Generator | None) -> None:
    """Orthogonal when both sides are at least 16; otherwise, and for biases, uniform within 1 / sqrt(fan in)."""
    bound = 1 / math.sqrt(weight[0].numel())
    if weight.ndim == 2 and min(weight.shape) >= ORTHOGONAL_MIN_SIDE:
        nn.init.orthogonal_(weight, generator=generator)
    else:
        nn.init.uniform_(weight, -bound, bound, generator=generator)
    if bias is not None:
        nn.init.uniform_(bias, -bound, bound, generator=generator)
