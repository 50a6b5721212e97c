"""Hymba, attention beside a selective scan: preset demo, one file bundled from the package reference_model 0.1.0.

Configured by environment variables; start it with `python train_gpt.py` or
`torchrun --standalone --nproc_per_node=N train_gpt.py`.
"""

from __future__ import annotations

import os

# A thread that spins while it waits takes the core from the one that works. Torch reads this when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import bisect
import hashlib
import io
import itertools
import json
import math
import numpy as np
import numpy.typing as npt
import platform
import re
import struct
import sys
import time
import torch
import torch.distributed as dist
import torch.nn.functional as F
import zstandard
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple, NoReturn, Protocol, TypeAlias, TypeVar, get_type_hints


# --- settings ---

class ConfigError(ValueError):
    """A setting that cannot be used; the message begins with its environment name."""


@dataclass(frozen=True)
class Setting:
    """Environment name and allowed values of one field: a closed range, or a list of choices."""

    name: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[int | str, ...] = ()

    def check(self, value: object) -> None:
        """Raise ConfigError when a value is outside the range or not among the choices."""
        if self.choices and value not in self.choices:
            raise ConfigError(f"{self.name}: {value!r} is not one of {', '.join(map(str, self.choices))}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{self.name}: {value} is not a finite number")
        if isinstance(value, (int, float)) and not self.low <= value <= self.high:
            raise ConfigError(f"{self.name}: {value} is outside {self.low:g} .. {self.high:g}")


def parse_setting(setting: Setting, kind: object, text: str) -> object:
    """Turn an environment variable's text into the field's type; raises ConfigError with its name."""
    word = text.strip()
    try:
        if kind is bool:
            return {"0": False, "1": True}[word]
        if kind is int:
            return int(word)
        if kind is float:
            return float(word)
        if kind is str:
            return text
        return None if word == "auto" else tuple(int(part) for part in word.split(",") if word != "none")
    except (KeyError, ValueError):
        expected = {bool: "0 or 1", int: "an integer", float: "a number"}.get(
            kind if isinstance(kind, type) else object, "auto, none or integers separated by commas"
        )
        raise ConfigError(f"{setting.name}: {text!r} is not {expected}") from None


def format_setting(value: object) -> str:
    """Write a field's value the way `parse_setting` reads it."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return "auto" if value is None else str(value)


class Section:
    """Base of the sections: checks every field against its Setting when an instance is made."""

    def __post_init__(self) -> None:
        for name, (setting, _) in section_settings(type(self)).items():
            setting.check(getattr(self, name))
        self.check_together()

    def check_together(self) -> None:
        """Check what depends on several fields of the section; sections override it."""


def section_settings(section: type) -> dict[str, tuple[Setting, object]]:
    """Field name -> (Setting, type) of a section, in order of declaration."""
    hints = get_type_hints(section, include_extras=True)
    return {name: (hint.__metadata__[0], hint.__origin__) for name, hint in hints.items()}


# --- config ---

@dataclass(frozen=True)
class ModelConfig(Section):
    """Shape of the network; the defaults are those of pull request 599."""

    vocab_size: Annotated[int, Setting("VOCAB_SIZE", 2, 1 << 17)] = 1024
    num_layers: Annotated[int, Setting("NUM_LAYERS", 1, 256)] = 7
    model_dim: Annotated[int, Setting("MODEL_DIM", 8, 1 << 14)] = 512
    num_heads: Annotated[int, Setting("NUM_HEADS", 1, 256)] = 8
    num_kv_heads: Annotated[int, Setting("NUM_KV_HEADS", 1, 256)] = 4
    mlp_mult: Annotated[int, Setting("MLP_MULT", 1, 64)] = 4
    activation: Annotated[str, Setting("ACTIVATION", choices=("relu2", "leaky_relu2", "silu"))] = "relu2"
    leaky_relu_slope: Annotated[float, Setting("LEAKY_RELU_SLOPE", 0, 1)] = 0.9
    tie_embeddings: Annotated[bool, Setting("TIE_EMBEDDINGS")] = True
    tied_embed_init_std: Annotated[float, Setting("TIED_EMBED_INIT_STD", 1e-6, 10)] = 0.005
    use_smeargate: Annotated[bool, Setting("USE_SMEARGATE")] = True
    use_bigram_hash: Annotated[bool, Setting("USE_BIGRAM_HASH")] = True
    bigram_buckets: Annotated[int, Setting("BIGRAM_BUCKETS", 1, 1 << 24)] = 4096
    bigram_dim: Annotated[int, Setting("BIGRAM_HASH_DIM", 1, 1 << 14)] = 128
    use_hymba: Annotated[bool, Setting("USE_HYMBA")] = True
    fused_projection: Annotated[bool, Setting("FUSED_PROJECTION")] = True
    hymba_expand: Annotated[int, Setting("HYMBA_EXPAND", 1, 16)] = 1
    ssm_state: Annotated[int, Setting("HYMBA_SSM_STATE", 1, 256)] = 8
    conv_width: Annotated[int, Setting("HYMBA_CONV_KERNEL", 1, 64)] = 4
    dt_rank: Annotated[int, Setting("HYMBA_DT_RANK", 0, 1 << 14)] = 0
    scan_chunk: Annotated[int, Setting("HYMBA_SCAN_CHUNK", 1, 1 << 14)] = 64
    sliding_window: Annotated[int, Setting("SLIDING_WINDOW", 0, 1 << 24)] = 0
    global_layers: Annotated[tuple[int, ...] | None, Setting("SWA_GLOBAL_LAYERS")] = ()
    rope_base: Annotated[float, Setting("ROPE_BASE", 1, 1e9)] = 10_000.0
    logit_softcap: Annotated[float, Setting("LOGIT_SOFTCAP", 1e-3, 1e6)] = 30.0
    qk_gain_init: Annotated[float, Setting("QK_GAIN_INIT", 0, 1e3)] = 1.5

    def check_together(self) -> None:
        """Heads must divide the width, key/value heads the heads; rotary embedding needs an even head."""
        if self.model_dim % (2 * self.num_heads):
            raise ConfigError(f"MODEL_DIM: {self.model_dim} is not a multiple of 2 * NUM_HEADS ({self.num_heads})")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(f"NUM_KV_HEADS: {self.num_kv_heads} does not divide NUM_HEADS ({self.num_heads})")
        if any(not 0 <= layer < self.num_layers for layer in self.global_layers or ()):
            layers = format_setting(self.global_layers)
            raise ConfigError(f"SWA_GLOBAL_LAYERS: {layers} is outside the {self.num_layers} layers")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.model_dim // self.num_heads

    @property
    def ssm_dim(self) -> int:
        """Channels of the Mamba branch."""
        return self.hymba_expand * self.model_dim

    @property
    def ssm_dt_rank(self) -> int:
        """Rank of the step-size projection: dim / 16 unless given."""
        return self.dt_rank or max(self.model_dim // 16, 1)

    def layer_window(self, layer: int) -> int:
        """Attention window of a layer in tokens; 0 sees every earlier token (first, middle, last under `auto`)."""
        automatic = (0, self.num_layers // 2, self.num_layers - 1)
        return 0 if layer in (automatic if self.global_layers is None else self.global_layers) else self.sliding_window


@dataclass(frozen=True)
class OptimConfig(Section):
    """Learning rates and constants of Muon (matrices) and Adam (everything else)."""

    matrix_lr: Annotated[float, Setting("MATRIX_LR", 0, 100)] = 0.02
    scalar_lr: Annotated[float, Setting("SCALAR_LR", 0, 100)] = 0.02
    embed_lr: Annotated[float, Setting("EMBED_LR", 0, 100)] = 0.6
    tied_embed_lr: Annotated[float, Setting("TIED_EMBED_LR", 0, 100)] = 0.05
    head_lr: Annotated[float, Setting("HEAD_LR", 0, 100)] = 0.008
    muon_momentum: Annotated[float, Setting("MUON_MOMENTUM", 0, 0.9999)] = 0.95
    muon_backend_steps: Annotated[int, Setting("MUON_BACKEND_STEPS", 1, 100)] = 5
    muon_momentum_warmup_start: Annotated[float, Setting("MUON_MOMENTUM_WARMUP_START", 0, 0.9999)] = 0.85
    muon_momentum_warmup_steps: Annotated[int, Setting("MUON_MOMENTUM_WARMUP_STEPS", 0, 10**9)] = 500
    beta1: Annotated[float, Setting("BETA1", 0, 0.99999)] = 0.9
    beta2: Annotated[float, Setting("BETA2", 0, 0.99999)] = 0.95
    adam_eps: Annotated[float, Setting("ADAM_EPS", 1e-16, 1)] = 1e-8
    weight_decay: Annotated[float, Setting("WEIGHT_DECAY", 0, 10)] = 0.02
    grad_clip_norm: Annotated[float, Setting("GRAD_CLIP_NORM", 0, 1e9)] = 0.0


@dataclass(frozen=True)
class TrainConfig(Section):
    """Length, batch and schedule of training. Without a wallclock limit (0) the run has exactly `iterations` steps."""

    seed: Annotated[int, Setting("SEED", 0, (1 << 63) - 1)] = 1337
    iterations: Annotated[int, Setting("ITERATIONS", 0, 10**9)] = 20_000
    warmup_steps: Annotated[int, Setting("WARMUP_STEPS", 0, 10**6)] = 20
    warmdown_iters: Annotated[int, Setting("WARMDOWN_ITERS", 0, 10**9)] = 3_000
    # Above 0: the warmdown is this share of the run, instead of a number of steps.
    warmdown_frac: Annotated[float, Setting("WARMDOWN_FRAC", 0, 1)] = 0.0
    warmdown_shape: Annotated[str, Setting("WARMDOWN_SHAPE", choices=("linear", "cosine"))] = "cosine"
    train_batch_tokens: Annotated[int, Setting("TRAIN_BATCH_TOKENS", 1, 1 << 32)] = 524_288
    train_seq_len: Annotated[int, Setting("TRAIN_SEQ_LEN", 1, 1 << 24)] = 2_048
    max_wallclock_seconds: Annotated[float, Setting("MAX_WALLCLOCK_SECONDS", 0, 1e9)] = 600.0
    train_log_every: Annotated[int, Setting("TRAIN_LOG_EVERY", 0, 10**9)] = 200
    val_loss_every: Annotated[int, Setting("VAL_LOSS_EVERY", 0, 10**9)] = 1_000
    ema_decay: Annotated[float, Setting("EMA_DECAY", 0, 0.999999)] = 0.997
    ema_every: Annotated[int, Setting("EMA_EVERY", 1, 10**6)] = 1
    # 0: eight micro-batches shared by the processes, as in the competition's baseline.
    grad_accum_steps: Annotated[int, Setting("GRAD_ACCUM_STEPS", 0, 10**6)] = 0

    def check_together(self) -> None:
        """A batch holds whole sequences."""
        if self.train_batch_tokens % self.train_seq_len:
            tokens, length = self.train_batch_tokens, self.train_seq_len
            raise ConfigError(f"TRAIN_BATCH_TOKENS: {tokens} is not a multiple of TRAIN_SEQ_LEN ({length})")


@dataclass(frozen=True)
class QuantConfig(Section):
    """How weights are stored."""

    bits: Annotated[int, Setting("QUANT_BITS", choices=(4, 6, 8))] = 6
    clip_search: Annotated[bool, Setting("GPTQ_LITE")] = True
    scale_floor: Annotated[str, Setting("QUANT_SCALE_FLOOR", choices=("none", "published"))] = "none"
    keep_float_max_numel: Annotated[int, Setting("QUANT_KEEP_FLOAT_MAX_NUMEL", 0, 1 << 32)] = 65_536
    zstd_level: Annotated[int, Setting("ZSTD_LEVEL", 1, 22)] = 22


@dataclass(frozen=True)
class EvalConfig(Section):
    """Scoring: plain (stride 0), sliding window (stride above 0), or score-first test-time training."""

    eval_stride: Annotated[int, Setting("EVAL_STRIDE", 0, 1 << 24)] = 64
    eval_batch_seqs: Annotated[int, Setting("EVAL_BATCH_SEQS", 1, 1 << 20)] = 32
    # 0: as long as the training sequences.
    eval_seq_len: Annotated[int, Setting("EVAL_SEQ_LEN", 0, 1 << 24)] = 0
    val_batch_size: Annotated[int, Setting("VAL_BATCH_SIZE", 1, 1 << 32)] = 524_288
    ttt_enabled: Annotated[bool, Setting("TTT_ENABLED")] = False
    ttt_lr: Annotated[float, Setting("TTT_LR", 0, 100)] = 0.002
    ttt_epochs: Annotated[int, Setting("TTT_EPOCHS", 0, 10_000)] = 3
    ttt_chunk_tokens: Annotated[int, Setting("TTT_CHUNK_TOKENS", 1, 1 << 40)] = 524_288
    ttt_freeze_blocks: Annotated[int, Setting("TTT_FREEZE_BLOCKS", 0, 256)] = 0
    ttt_batch_seqs: Annotated[int, Setting("TTT_BATCH_SEQS", 1, 1 << 20)] = 4
    ttt_momentum: Annotated[float, Setting("TTT_MOMENTUM", 0, 0.9999)] = 0.9
    ttt_grad_clip: Annotated[float, Setting("TTT_GRAD_CLIP", 0, 1e9)] = 1.0
    eval_only: Annotated[bool, Setting("EVAL_ONLY")] = False
    repack_only: Annotated[bool, Setting("REPACK_ONLY")] = False
    # Score the float, averaged and quantized weights too, before the scored evaluation.
    diagnostics: Annotated[bool, Setting("DIAGNOSTICS")] = False


@dataclass(frozen=True)
class DataConfig(Section):
    """Where data is read and results are written."""

    data_path: Annotated[str, Setting("DATA_PATH")] = "./data/datasets/fineweb10B_sp1024"
    tokenizer_path: Annotated[str, Setting("TOKENIZER_PATH")] = "./data/tokenizers/fineweb_1024_bpe.model"
    run_id: Annotated[str, Setting("RUN_ID")] = "run"
    # Empty: final_model.int{bits}.ptz.
    artifact_path: Annotated[str, Setting("ARTIFACT_PATH")] = ""
    weights_path: Annotated[str, Setting("WEIGHTS_PATH")] = "final_model.pt"


@dataclass(frozen=True)
class Config:
    """Everything that determines a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    quant: QuantConfig = field(default_factory=QuantConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        frozen, layers = self.evaluation.ttt_freeze_blocks, self.model.num_layers
        if frozen > layers:
            raise ConfigError(f"TTT_FREEZE_BLOCKS: {frozen} is more than NUM_LAYERS ({layers})")
        if self.evaluation.eval_stride > self.eval_seq_len:
            raise ConfigError(
                f"EVAL_STRIDE: {self.evaluation.eval_stride} is longer than the {self.eval_seq_len} scored"
            )

    @property
    def eval_seq_len(self) -> int:
        """Length of evaluated sequences in tokens."""
        return self.evaluation.eval_seq_len or self.train.train_seq_len

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], base: Config) -> Config:
        """Apply the environment variables that are set to a preset.

        `LEAKY_RELU_SLOPE` alone selects the leaky activation, as in the published run commands.

        Raises:
            ConfigError: a value does not parse or is out of range; the message begins with its name.

        """
        changes: dict[str, dict[str, Any]] = {}
        for section, name, setting, kind in config_settings():
            if setting.name in environ:
                changes.setdefault(section, {})[name] = parse_setting(setting, kind, environ[setting.name])
        if "LEAKY_RELU_SLOPE" in environ and "ACTIVATION" not in environ:
            changes["model"]["activation"] = "leaky_relu2"
        return replace(base, **{section: replace(getattr(base, section), **new) for section, new in changes.items()})

    def to_environment(self) -> dict[str, str]:
        """Environment that reproduces this configuration, in a fixed order: what a log prints."""
        return {
            setting.name: format_setting(getattr(getattr(self, section), name))
            for section, name, setting, _ in config_settings()
        }


def config_settings() -> Iterator[tuple[str, str, Setting, object]]:
    """Yield (section, field, Setting, type) of every setting."""
    for section, section_type in get_type_hints(Config).items():
        for name, (setting, kind) in section_settings(section_type).items():
            yield section, name, setting, kind


# Chosen in docs/demo-tuning.md: within a minute on two cores, speed and cheap bigrams count for more than depth.
DEMO_MODEL = ModelConfig(
    num_layers=2,
    model_dim=128,
    num_heads=4,
    num_kv_heads=2,
    mlp_mult=3,
    ssm_state=4,
    bigram_buckets=65_536,
    bigram_dim=32,
    # As long as the training sequences: plain causal attention in training, a window that binds in longer evaluation.
    sliding_window=128,
)
DEMO_OPTIM = OptimConfig(tied_embed_lr=0.02)
DEMO_TRAIN = TrainConfig(
    warmup_steps=2,
    warmdown_frac=0.7,
    train_batch_tokens=1_024,
    train_seq_len=128,
    max_wallclock_seconds=60.0,
    train_log_every=20,
    val_loss_every=0,
    ema_decay=0.8,
    grad_accum_steps=1,
)
# Its matrices are small: all of them are stored as integers, not only those above 65,536 elements.
DEMO_QUANT = QuantConfig(keep_float_max_numel=4_096)
DEMO_EVALUATION = EvalConfig(
    eval_stride=0,
    # Small enough that the logits stay in a processor's cache.
    eval_batch_seqs=8,
    eval_seq_len=512,
    val_batch_size=16_384,
    ttt_enabled=True,
    ttt_lr=0.4,
    ttt_momentum=0.8,
    ttt_epochs=1,
    ttt_chunk_tokens=2_048,
    ttt_batch_seqs=4,
)

PRESETS: Mapping[str, Config] = MappingProxyType(
    {
        # A laptop's CPU, a minute, the demo corpus.
        "demo": Config(
            model=DEMO_MODEL,
            optim=DEMO_OPTIM,
            train=DEMO_TRAIN,
            quant=DEMO_QUANT,
            evaluation=DEMO_EVALUATION,
        ),
        # The plain transformer to compare it with: attention only, no bigrams, no smearing, its usual batch.
        "demo_attention": Config(
            model=ModelConfig(
                num_layers=4,
                model_dim=128,
                num_heads=4,
                use_hymba=False,
                use_bigram_hash=False,
                use_smeargate=False,
                sliding_window=256,
            ),
            optim=DEMO_OPTIM,
            train=replace(DEMO_TRAIN, train_batch_tokens=2_048, train_seq_len=256),
            quant=DEMO_QUANT,
            evaluation=DEMO_EVALUATION,
        ),
        "pr599": Config(),
        "pr914": Config(
            model=ModelConfig(activation="leaky_relu2", fused_projection=False, sliding_window=512),
            train=TrainConfig(train_seq_len=32_768),
            evaluation=EvalConfig(eval_stride=0, eval_batch_seqs=4, ttt_enabled=True, ttt_freeze_blocks=2),
        ),
        "pr1245": Config(
            model=ModelConfig(
                num_layers=8,
                activation="leaky_relu2",
                fused_projection=False,
                sliding_window=1_024,
                ssm_state=4,
                tie_embeddings=False,
            ),
            optim=OptimConfig(weight_decay=0.15),
            train=TrainConfig(train_seq_len=32_768, warmdown_iters=7_000, ema_every=10, grad_accum_steps=1),
            quant=QuantConfig(bits=8, clip_search=False),
            evaluation=EvalConfig(eval_stride=0, eval_batch_seqs=4, ttt_enabled=True, ttt_epochs=25),
        ),
    }
)


# --- quantize ---

# Scales are stored as float16 and never below its smallest normal number: all of them have 11 significant bits.
SMALLEST_SCALE = 2.0**-14
CLIP_QUANTILES = (0.999999, 0.99999, 0.99995, 0.9999, 0.9995, 0.999)
# Parameters of more than one dimension that steer the network; like all vectors they stay in float32.
CONTROL_NAMES = ("resid_mix", "skip_weights", "A_log")


class QuantizeError(ValueError):
    """A tensor that cannot be stored; the message names it where a name is known."""


@dataclass(frozen=True)
class QuantizedTensor:
    """A tensor in integers.

    Attributes:
        values: int8, of the tensor's shape.
        scale: float16, of the shape without its last dimension.
        bits: 4, 6 or 8.
        dtype: of the original.
    """

    values: Tensor
    scale: Tensor
    bits: int
    dtype: torch.dtype


def largest_level(bits: int) -> int:
    """The largest integer of a symmetric code: 7, 31 or 127."""
    return (1 << (bits - 1)) - 1


def quantize_rows(
    weight_RC: Tensor, bits: int, *, scale_floor: str = "none", clip_search: bool = False
) -> QuantizedTensor:
    """Round every row to integers times one scale.

    The scale is rounded up to float16 before it is used, so the largest weight still fits and, without clipping, no
    weight is off by more than half of the stored scale. Quantizing the result again gives the same integers.

    Args:
        weight_RC: floating point, finite, at least two dimensions; the last one is the row.
        bits: 4, 6 or 8.
        scale_floor: "published" keeps every scale at least 1 / largest level, as the original scripts do.
        clip_search: per row, choose among cutting at several quantiles and not at all, by squared error.

    Raises:
        QuantizeError: NaN, infinity, fewer than two dimensions, not floating point, or too large for a float16 scale.
    """
    if weight_RC.ndim < 2 or not weight_RC.is_floating_point() or not weight_RC.shape[-1]:
        raise QuantizeError(f"cannot quantize {weight_RC.dtype} of shape {tuple(weight_RC.shape)} by rows")
    check_finite(weight_RC)
    wide_RC = weight_RC.detach().double()
    least = 1.0 / largest_level(bits) if scale_floor == "published" else SMALLEST_SCALE
    limits = _clip_limits(wide_RC, clip_search=clip_search)
    scale_R, error_R = _scale_and_error(wide_RC, next(limits), bits, least)
    for limit_R in limits:
        other_R, other_error_R = _scale_and_error(wide_RC, limit_R, bits, least)
        scale_R = torch.where(other_error_R < error_R, other_R, scale_R)
        error_R = torch.minimum(other_error_R, error_R)
    if not bool(scale_R.isfinite().all()):
        raise QuantizeError(f"weights up to {wide_RC.abs().max():g} are too large for a float16 scale")
    return QuantizedTensor(_levels(wide_RC, scale_R, bits).to(torch.int8), scale_R.half(), bits, weight_RC.dtype)


def dequantize_rows(quantized: QuantizedTensor) -> Tensor:
    """The rounded tensor in its original shape and dtype; exact in float32."""
    return (quantized.values.float() * quantized.scale.float()[..., None]).to(quantized.dtype)


def check_finite(tensor: Tensor) -> None:
    """Raise QuantizeError when a tensor holds NaN or infinity."""
    if not bool(tensor.isfinite().all()):
        raise QuantizeError(f"{int((~tensor.isfinite()).sum())} of {tensor.numel()} weights are not finite")


def tensor_kind(name: str, tensor: Tensor, config: QuantConfig) -> str:
    """How a weight is stored: "int4", "int6", "int8", "float16" or "float32".

    Vectors, scalars and control parameters stay float32; matrices above `keep_float_max_numel` elements become
    integers; the rest is float16, or float32 where a value would overflow it.
    """
    if tensor.ndim < 2 or name.rsplit(".", 1)[-1] in CONTROL_NAMES:
        return "float32"
    if tensor.numel() > config.keep_float_max_numel:
        return f"int{config.bits}"
    return "float16" if bool(tensor.half().isfinite().all()) else "float32"


def _clip_limits(wide_RC: Tensor, *, clip_search: bool) -> Iterator[Tensor]:
    """Candidates for each row's largest magnitude; the row's own maximum comes first and wins ties."""
    sorted_RC = wide_RC.abs().sort(dim=-1).values
    yield sorted_RC[..., -1]
    last = sorted_RC.shape[-1] - 1
    for quantile in CLIP_QUANTILES if clip_search else ():
        low = int(quantile * last)
        yield torch.lerp(sorted_RC[..., low], sorted_RC[..., min(low + 1, last)], quantile * last - low)


def _scale_and_error(wide_RC: Tensor, limit_R: Tensor, bits: int, least: float) -> tuple[Tensor, Tensor]:
    """Stored scale of each row cut at a limit, as float64, and the squared error with it."""
    scale_R = _round_up_to_half((limit_R / largest_level(bits)).clamp_min(least))
    return scale_R, (_levels(wide_RC, scale_R, bits) * scale_R[..., None] - wide_RC).square().sum(-1)


def _round_up_to_half(scale_R: Tensor) -> Tensor:
    """The next float16 number at or above each, as float64; infinity above the largest."""
    half_R = scale_R.half()
    above_R = (half_R.view(torch.int16) + 1).view(torch.float16)
    return torch.where(half_R.double() < scale_R, above_R, half_R).double()


def _levels(wide_RC: Tensor, scale_R: Tensor, bits: int) -> Tensor:
    """Integers nearest to each weight over its scale, as float64."""
    top = largest_level(bits)
    return (wide_RC / scale_R[..., None]).round().clamp(-top, top)


# --- artifact ---

ARTIFACT_MAGIC = b"HYM1"
DIGEST_BYTES = 16
# Bounds on what a file may ask for; the largest preset has 36 million weights.
RAW_CAP_BYTES = 1 << 28
ARTIFACT_HEADER_CAP_BYTES = 1 << 20
READ_BYTES = 1 << 20
INTEGER_BITS = {"int8": 8, "int6": 6, "int4": 4}
FLOAT_TYPES = {"float16": "<f2", "float32": "<f4"}
TENSOR_NAME = re.compile(r"[A-Za-z0-9_.]{1,200}")


# Takes the header and the shapes by name.
HeaderCheck: TypeAlias = Callable[[Mapping[str, Any], Mapping[str, tuple[int, ...]]], None]


class ArtifactError(ValueError):
    """Bytes that are no artifact of ours, or weights that cannot become one."""


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of the header: where it stands in the payload follows from the entries before it."""

    name: str
    shape: tuple[int, ...]
    kind: str

    @property
    def numel(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def scales(self) -> int:
        """Row scales; none for floating point."""
        return math.prod(self.shape[:-1]) if self.kind in INTEGER_BITS else 0


def pack(state: Mapping[str, Tensor], model_config_json: str, quant: QuantConfig) -> bytes:
    """Quantize and compress weights; equal input gives equal bytes.

    Args:
        state: name -> weight, each stored once (a tied one under one name).
        model_config_json: a JSON object that rebuilds the model; unpacking gives it back.
        quant: bits, scales, threshold, compression level.

    Raises:
        ArtifactError: a weight is not floating point or not finite, a name is unusable, or two are one tensor.
    """
    _refuse_shared(state)
    weights = {name: weight.detach().cpu().float() for name, weight in state.items()}
    entries = sorted((_entry(name, weight, quant) for name, weight in weights.items()), key=_packing_order)
    quantized: list[QuantizedTensor] = []
    floats: dict[str, list[Tensor]] = {kind: [] for kind in FLOAT_TYPES}
    for entry in entries:
        if entry.kind in INTEGER_BITS:
            quantized.append(_quantized(entry, weights[entry.name], quant))
        else:
            floats[entry.kind].append(weights[entry.name])
    tensors = [[entry.name, list(entry.shape), entry.kind] for entry in entries]
    header = json.dumps({"config": json.loads(model_config_json), "tensors": tensors}, separators=(",", ":")).encode()
    parts = [struct.pack("<I", len(header)), header]
    parts.extend(tensor.values.numpy().tobytes() for tensor in quantized)
    parts.append(_planes([tensor.scale for tensor in quantized], "<f2"))
    parts.extend(_planes(floats[kind], code) for kind, code in FLOAT_TYPES.items())
    frame = zstandard.ZstdCompressor(level=quant.zstd_level).compress(b"".join(parts))
    return ARTIFACT_MAGIC + _digest(frame) + frame


def accept_any(_header: Mapping[str, Any], _shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Expect nothing of an artifact."""


def unpack(
    blob: bytes, raw_cap_bytes: int = RAW_CAP_BYTES, expect: HeaderCheck = accept_any
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Check and decode an artifact.

    Nothing is allocated for sizes that the file only claims: each is checked against the others and the cap first,
    and decompression stops where they end.

    Args:
        blob: the whole artifact.
        raw_cap_bytes: limit of its decompressed size.
        expect: called with the header and the shapes by name before any weight is read; raises to refuse them.

    Returns:
        The header, and name -> float32 weight.

    Raises:
        ArtifactError: anything is wrong with it.
    """
    start = len(ARTIFACT_MAGIC) + DIGEST_BYTES
    if len(blob) <= start or blob[: len(ARTIFACT_MAGIC)] != ARTIFACT_MAGIC:
        raise ArtifactError(f"not an artifact: {len(blob)} bytes that do not begin with {ARTIFACT_MAGIC!r}")
    frame = blob[start:]
    if _digest(frame) != blob[len(ARTIFACT_MAGIC) : start]:
        raise ArtifactError("damaged artifact: the checksum does not match")
    try:
        header, entries, payload = _read_frame(frame, raw_cap_bytes, expect)
        return header, dict(_decode(entries, payload))
    except (zstandard.ZstdError, QuantizeError) as error:
        raise ArtifactError(f"damaged artifact: {error}") from error


def _digest(frame: bytes) -> bytes:
    return hashlib.blake2b(frame, digest_size=DIGEST_BYTES).digest()


def _refuse_shared(state: Mapping[str, Tensor]) -> None:
    owners: dict[tuple[object, ...], str] = {}
    for name, weight in state.items():
        key = (weight.device, weight.data_ptr(), weight.shape, weight.stride())
        if weight.numel() and owners.setdefault(key, name) != name:
            raise ArtifactError(f"{name} and {owners[key]} are one tensor: store it under one name")


def _entry(name: str, weight: Tensor, quant: QuantConfig) -> TensorEntry:
    try:
        check_finite(weight)
    except QuantizeError as error:
        raise ArtifactError(f"{name}: {error}") from error
    return _checked_entry(name, list(weight.shape), tensor_kind(name, weight, quant))


def _packing_order(entry: TensorEntry) -> tuple[str, str, str]:
    """Tensors of one role in different layers become neighbours: their statistics are alike."""
    return entry.kind, re.sub(r"\d+", "", entry.name), entry.name


def _quantized(entry: TensorEntry, weight: Tensor, quant: QuantConfig) -> QuantizedTensor:
    try:
        return quantize_rows(weight, quant.bits, scale_floor=quant.scale_floor, clip_search=quant.clip_search)
    except QuantizeError as error:
        raise ArtifactError(f"{entry.name}: {error}") from error


def _planes(tensors: Iterable[Tensor], code: str) -> bytes:
    """Numbers of several tensors, first bytes of all, then second bytes of all, ..."""
    numbers = b"".join(tensor.numpy().astype(code).tobytes() for tensor in tensors)
    return np.frombuffer(numbers, np.uint8).reshape(-1, np.dtype(code).itemsize).T.tobytes()


def _numbers(planes: memoryview, code: str) -> npt.NDArray[np.floating[Any]]:
    """The inverse of `_planes`."""
    rows = np.frombuffer(planes, np.uint8).reshape(np.dtype(code).itemsize, -1)
    return np.frombuffer(rows.T.tobytes(), code)


def _read_frame(
    frame: bytes, raw_cap_bytes: int, expect: HeaderCheck
) -> tuple[dict[str, Any], list[TensorEntry], memoryview]:
    raw_bytes = zstandard.get_frame_parameters(frame).content_size
    if raw_bytes > raw_cap_bytes:  # a frame that does not state its size gives 2^64 - 1
        raise ArtifactError(f"oversized artifact: {raw_bytes} bytes decompressed, the limit is {raw_cap_bytes}")
    if (end := _frame_end(frame)) != len(frame):
        raise ArtifactError(f"damaged artifact: {len(frame)} bytes hold a frame of {end}")
    # A frame of known size has no window beyond it, but the format's own smallest limit is 1 KiB.
    decompressor = zstandard.ZstdDecompressor(max_window_size=max(raw_cap_bytes, 1024))
    with decompressor.stream_reader(frame) as reader:
        (header_bytes,) = struct.unpack("<I", _read_exactly(reader, 4))
        if header_bytes > min(ARTIFACT_HEADER_CAP_BYTES, raw_bytes):
            raise ArtifactError(f"damaged artifact: a header of {header_bytes} bytes")
        header, entries = _parse_header(_read_exactly(reader, header_bytes))
        expect(header, {entry.name: entry.shape for entry in entries})
        payload_bytes = raw_bytes - 4 - header_bytes
        if (expected := sum(_section_bytes(entries))) != payload_bytes:
            raise ArtifactError(f"damaged artifact: {payload_bytes} bytes for tensors of {expected}")
        payload = _read_exactly(reader, payload_bytes)
        reader.read(1)  # on to the frame's end, where zstd itself refuses blocks that hold more than it states
    return header, entries, memoryview(payload)


def _frame_end(frame: bytes) -> int:
    """Length of the first zstd frame (RFC 8878, 3.1.1), from its block headers: the library reads over what follows."""
    place, last = zstandard.frame_header_size(frame), False
    while not last and place < len(frame):
        block = int.from_bytes(frame[place : place + 3], "little")
        last, is_run = bool(block & 1), block >> 1 & 3 == 1
        place += 3 + (1 if is_run else block >> 3)
    return place + 4 * zstandard.get_frame_parameters(frame).has_checksum


def _read_exactly(reader: zstandard.ZstdDecompressionReader, size: int) -> bytes:
    """Read in steps, so that a stream that ends early costs no more than it holds."""
    parts: list[bytes] = []
    while size:
        part = reader.read(min(size, READ_BYTES))
        if not part:
            raise ArtifactError(f"damaged artifact: ends {size} bytes early")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _parse_header(text: bytes) -> tuple[dict[str, Any], list[TensorEntry]]:
    try:
        header = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
        entries = [_checked_entry(*tensor) for tensor in header["tensors"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ArtifactError(f"damaged artifact: unreadable header ({error})") from error
    if set(header) != {"config", "tensors"} or not isinstance(header["config"], dict):
        raise ArtifactError("damaged artifact: the header is not an object of config and tensors")
    if len({entry.name for entry in entries}) < len(entries):
        raise ArtifactError("damaged artifact: a name stands twice")
    return header, entries


def _refuse_constant(text: str) -> NoReturn:
    raise ArtifactError(f"{text} is no number")


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ArtifactError("a key stands twice")
    return dict(pairs)


def _checked_entry(name: object, shape: object, kind: object) -> TensorEntry:
    """Refuse names, kinds and shapes that no model of ours has."""
    if not isinstance(name, str) or not TENSOR_NAME.fullmatch(name):
        raise ArtifactError(f"tensor name {str(name)[:200]!r} is not made of letters, digits, _ and dots")
    if not isinstance(kind, str) or kind not in (*INTEGER_BITS, *FLOAT_TYPES):
        raise ArtifactError(f"{name}: unknown kind {str(kind)[:200]!r}")
    if not isinstance(shape, list) or len(shape) > 8 or any(type(size) is not int or size < 0 for size in shape):
        raise ArtifactError(f"{name}: {str(shape)[:200]} is no shape")
    entry = TensorEntry(name, tuple(shape), kind)
    if math.prod(size or 1 for size in shape) > RAW_CAP_BYTES:
        raise ArtifactError(f"{name}: {str(shape)[:200]} is too large")
    if kind in INTEGER_BITS and (len(shape) < 2 or not entry.numel):
        raise ArtifactError(f"{name}: {kind} of shape {shape} has no rows")
    return entry


def _section_bytes(entries: Sequence[TensorEntry]) -> tuple[int, int, int, int]:
    """Bytes of the payload's sections: integers, scales, float16, float32."""
    integers = sum(entry.numel for entry in entries if entry.kind in INTEGER_BITS)
    half, single = (sum(entry.numel for entry in entries if entry.kind == kind) for kind in FLOAT_TYPES)
    return integers, 2 * sum(entry.scales for entry in entries), 2 * half, 4 * single


def _decode(entries: Sequence[TensorEntry], payload: memoryview) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in float32, in the header's order."""
    ends = list(itertools.accumulate(_section_bytes(entries)))
    integers = np.frombuffer(payload[: ends[0]], np.int8)
    scales = _numbers(payload[ends[0] : ends[1]], "<f2")
    floats = {"float16": _numbers(payload[ends[1] : ends[2]], "<f2"), "float32": _numbers(payload[ends[2] :], "<f4")}
    for entry in entries:
        if entry.kind in INTEGER_BITS:
            values, integers = integers[: entry.numel], integers[entry.numel :]
            scale, scales = scales[: entry.scales], scales[entry.scales :]
            yield entry.name, _decode_rows(entry, values, scale)
        else:
            section = floats[entry.kind]
            numbers, floats[entry.kind] = section[: entry.numel], section[entry.numel :]
            tensor = torch.from_numpy(numbers.astype(np.float32)).view(entry.shape)
            check_finite(tensor)
            yield entry.name, tensor


def _decode_rows(entry: TensorEntry, values: npt.NDArray[np.int8], scale: npt.NDArray[np.floating[Any]]) -> Tensor:
    top = largest_level(INTEGER_BITS[entry.kind])
    if int(values.min()) < -top or int(values.max()) > top:
        raise ArtifactError(f"{entry.name}: integers beyond {top}")
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise ArtifactError(f"{entry.name}: a scale that is not finite and positive")
    rows = torch.from_numpy(values.copy()).view(entry.shape)
    scale_R = torch.from_numpy(scale.astype(np.float16)).view(entry.shape[:-1])
    return dequantize_rows(QuantizedTensor(rows, scale_R, INTEGER_BITS[entry.kind], torch.float32))


# --- worker ---

@dataclass(frozen=True)
class Worker:
    """Place of one process.

    Attributes:
        rank: its number, from 0.
        world_size: how many there are; above 1 the default process group must be initialized.
        device: where it computes.
        autocast: dtype of matrix products under autocast; None computes in the weights' own dtype.
    """

    rank: int = 0
    world_size: int = 1
    device: str = "cpu"
    autocast: torch.dtype | None = None

    def share(self, items: int) -> range:
        """The contiguous part of `range(items)` that is this process's own; the parts cover it exactly once."""
        return range(items * self.rank // self.world_size, items * (self.rank + 1) // self.world_size)

    def all_sum(self, tensor: Tensor) -> Tensor:
        """Sum over all processes, in place; every process must call it."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def precision(self) -> torch.autocast:
        """Context in which the model runs."""
        kind = torch.device(self.device).type
        return torch.autocast(kind, dtype=self.autocast, enabled=self.autocast is not None)


# --- data ---

SHARD_MAGIC = 20240520
SHARD_VERSION = 1
SHARD_HEADER_BYTES = 1024


class ShardError(ValueError):
    """Token files that cannot be used; the message names the file."""


def find_shards(pattern: str | Path) -> tuple[Path, ...]:
    """Files matching a pattern in their sorted order; only the last path component may hold wildcards.

    Raises:
        ShardError: nothing matches.
    """
    paths = tuple(sorted(Path(pattern).parent.glob(Path(pattern).name)))
    if not paths:
        raise ShardError(f"{pattern}: no such shards")
    return paths


def shard_length(path: Path) -> int:
    """Number of tokens of a shard, after checking its header against its size.

    Raises:
        ShardError: unreadable, wrong magic or version, empty, truncated or too long.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header = file.read(SHARD_HEADER_BYTES)
    except OSError as error:
        raise ShardError(f"{path}: {error.strerror}") from error
    if len(header) < SHARD_HEADER_BYTES:
        raise ShardError(f"{path}: {size} bytes, shorter than the {SHARD_HEADER_BYTES} bytes of a shard's header")
    magic, version, count = (int(word) for word in np.frombuffer(header, dtype="<i4", count=3))
    if (magic, version) != (SHARD_MAGIC, SHARD_VERSION):
        raise ShardError(f"{path}: magic {magic} version {version}, not {SHARD_MAGIC} version {SHARD_VERSION}")
    if count <= 0 or size != SHARD_HEADER_BYTES + 2 * count:
        raise ShardError(f"{path}: {size} bytes, but its header says {count} tokens")
    return count


def map_shard(path: Path) -> npt.NDArray[np.uint16]:
    """A shard's tokens, memory-mapped; raises ShardError as `shard_length` does."""
    return np.memmap(path, dtype="<u2", mode="r", offset=SHARD_HEADER_BYTES, shape=(shard_length(path),))


def load_validation(pattern: str | Path, vocab_size: int) -> Tensor:
    """All tokens of the validation shards, in sorted order, as one int32 vector.

    Raises:
        ShardError: no shards, a damaged shard, or a token outside the vocabulary.
    """
    parts = []
    for path in find_shards(pattern):
        shard = map_shard(path)
        _check_token_range(path, shard, vocab_size)
        parts.append(shard.astype(np.int32))
    return torch.from_numpy(np.concatenate(parts))


def _check_token_range(place: Path, tokens: npt.NDArray[np.uint16], vocab_size: int) -> None:
    if (largest := int(tokens.max())) >= vocab_size:
        raise ShardError(f"{place}: token {largest} is outside the vocabulary of {vocab_size}")


class TokenStream:
    """An endless stream of tokens: the shards one after another, and again from the first.

    Any place of it can be read, so that order depends on nothing but the shards.
    """

    def __init__(self, paths: Sequence[Path], vocab_size: int) -> None:
        if not paths:
            raise ShardError("no shards to read")
        self._paths = tuple(paths)
        self._ends = tuple(itertools.accumulate(shard_length(path) for path in paths))
        self._vocab_size = vocab_size
        self._open: tuple[int, npt.NDArray[np.uint16]] | None = None

    @property
    def total(self) -> int:
        """Tokens before the stream repeats."""
        return self._ends[-1]

    def read(self, start: int, count: int) -> npt.NDArray[np.uint16]:
        """Tokens [start, start + count) of the endless stream."""
        tokens = np.empty(count, dtype=np.uint16)
        done = 0
        while done < count:
            piece = self._piece((start + done) % self.total, count - done)
            tokens[done : done + len(piece)] = piece
            done += len(piece)
        return tokens

    def _piece(self, place: int, count: int) -> npt.NDArray[np.uint16]:
        """Up to `count` tokens from one shard."""
        index = bisect.bisect_right(self._ends, place)
        if self._open is None or self._open[0] != index:
            self._open = (index, map_shard(self._paths[index]))
        offset = place - (self._ends[index - 1] if index else 0)
        piece = self._open[1][offset : offset + count]
        _check_token_range(self._paths[index], piece, self._vocab_size)
        return piece


class BatchLoader:
    """Deals the stream out: global batch `step` is its next `batch_tokens` tokens, cut into sequences.

    Each process gets a contiguous part of each global batch, in `accumulation` micro-batches: together they are the
    same batch for every number of processes. Reading has no state, so any step can be read again.

    Raises:
        ShardError: a batch cannot be cut evenly.
    """

    def __init__(
        self, stream: TokenStream, batch_tokens: int, seq_len: int, worker: Worker, accumulation: int = 1
    ) -> None:
        parts = worker.world_size * accumulation
        if batch_tokens % (seq_len * parts):
            raise ShardError(
                f"a batch of {batch_tokens} tokens is not a multiple of {seq_len} tokens per sequence"
                f" x {worker.world_size} processes x {accumulation} micro-batches"
            )
        self._stream = stream
        self._batch_tokens = batch_tokens
        self._seq_len = seq_len
        self._worker = worker
        self._accumulation = accumulation
        self._micro_tokens = batch_tokens // parts

    def batch(self, step: int, micro: int = 0) -> tuple[Tensor, Tensor]:
        """Inputs and targets (B, T) int64 of one micro-batch of this process; targets are one token ahead."""
        part = self._worker.rank * self._accumulation + micro
        tokens = self._stream.read(step * self._batch_tokens + part * self._micro_tokens, self._micro_tokens + 1)
        row = torch.from_numpy(tokens.astype(np.int64)).to(self._worker.device)
        return row[:-1].view(-1, self._seq_len), row[1:].view(-1, self._seq_len)


# --- metric ---

@dataclass(frozen=True)
class ByteTable:
    """Bytes of text per token, from the tokenizer (rule R10); three vectors over the vocabulary.

    Attributes:
        base_bytes: UTF-8 bytes of the piece without its leading space; 1 for a byte token, 0 for control, unknown and
            unused ones.
        leading_space: whether the piece begins with a space.
        boundary: control, unknown or unused: a space after such a token is not text.
    """

    base_bytes: Tensor
    leading_space: Tensor
    boundary: Tensor

    @property
    def vocab_size(self) -> int:
        """Tokens that the table knows."""
        return self.base_bytes.numel()

    def to(self, device: str) -> ByteTable:
        """The same table on a device."""
        return ByteTable(self.base_bytes.to(device), self.leading_space.to(device), self.boundary.to(device))

    def count(self, previous: Tensor, targets: Tensor) -> Tensor:
        """Bytes of each target, given the token before it; all three of one shape, the result int64."""
        return self.base_bytes[targets] + (self.leading_space[targets] & ~self.boundary[previous])


def load_byte_table(path: str | Path, vocab_size: int) -> ByteTable:
    """Byte table of a SentencePiece model; tokens beyond the model's are unused.

    Raises:
        ValueError: no model can be read there, or it has more tokens than the vocabulary.
    """
    import sentencepiece

    try:
        model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path}: not a readable SentencePiece model ({error})") from error
    if (size := model.vocab_size()) > vocab_size:
        raise ValueError(f"{path}: {size} tokens do not fit the vocabulary of {vocab_size}")
    base = torch.zeros(vocab_size, dtype=torch.int64)
    space, boundary = torch.zeros(vocab_size, dtype=torch.bool), torch.ones(vocab_size, dtype=torch.bool)
    for token in range(size):
        boundary[token] = model.is_control(token) or model.is_unknown(token) or model.is_unused(token)
        if not boundary[token]:
            base[token], space[token] = (1, False) if model.is_byte(token) else piece_bytes(model.id_to_piece(token))
    return ByteTable(base, space, boundary)


def piece_bytes(piece: str) -> tuple[int, bool]:
    """UTF-8 bytes of a piece without its leading space mark, and whether it has one; inner marks are one space each.

    Example:
        >>> piece_bytes("▁über")
        (5, True)
    """
    leading = piece.startswith("▁")
    return len(piece[leading:].replace("▁", " ").encode()), leading


def bits_per_byte(loss_sum_nats: float, byte_count: int) -> float:
    """Nats summed over all targets, as bits per byte of their text.

    Raises:
        ValueError: there are no bytes to divide by.
    """
    if byte_count <= 0:
        raise ValueError(f"bits per byte of {byte_count} bytes of text")
    return loss_sum_nats / math.log(2) / byte_count


# --- scoring ---

# Called with the positions just scored and their losses in nats, both one-dimensional.
ScoreHook: TypeAlias = Callable[[Tensor, Tensor], None]


class LanguageModel(Protocol):
    """What scoring needs of a model."""

    training: bool

    @property
    def blocks(self) -> Iterable[nn.Module]:
        """The layers, first to last."""

    def token_losses(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Nats of each target given its own token and those before it (B, T)."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All weights."""

    def train(self, mode: bool = True) -> object:  # noqa: FBT001, FBT002 - torch's own signature
        """Set the training mode."""


@dataclass(frozen=True)
class EvalTask:
    """One model to be scored on one token vector.

    Attributes:
        model: in evaluation mode while it is scored; its mode is restored.
        tokens: the text (one-dimensional, integer); every token but the first is a target.
        table: bytes of each target.
        config: stride, batch size, test-time training.
        seq_len: longest window in tokens.
        worker: this process.
        on_score: told every scored position once, by the process that scored it.

    Raises:
        ValueError: there is no target, or a token is outside the table's vocabulary.
    """

    model: LanguageModel
    tokens: Tensor
    table: ByteTable
    config: EvalConfig
    seq_len: int
    worker: Worker = field(default_factory=Worker)
    on_score: ScoreHook | None = None

    def __post_init__(self) -> None:
        if self.tokens.ndim != 1 or self.targets < 1:
            raise ValueError(f"nothing to score in tokens of shape {tuple(self.tokens.shape)}")
        if (largest := int(self.tokens.max())) >= self.table.vocab_size:
            raise ValueError(f"token {largest} is outside the vocabulary of {self.table.vocab_size}")

    @property
    def targets(self) -> int:
        """Tokens to be scored."""
        return self.tokens.numel() - 1


@dataclass(frozen=True)
class EvalResult:
    """Sums over every target: nats, tokens, bytes of text."""

    loss_sum_nats: float
    tokens: int
    bytes: int

    @classmethod
    def from_sums(cls, sums_3: Tensor) -> EvalResult:
        """From the float64 vector of the three sums; counts are exact below 2^53."""
        loss_sum_nats, tokens, size = sums_3.tolist()
        return cls(loss_sum_nats, int(tokens), int(size))

    @property
    def val_loss(self) -> float:
        """Nats per token."""
        return self.loss_sum_nats / self.tokens

    @property
    def val_bpb(self) -> float:
        """Bits per byte."""
        return bits_per_byte(self.loss_sum_nats, self.bytes)


@dataclass(frozen=True)
class Windows:
    """Windows over the inputs [first, end) that score each of them once.

    Attributes:
        first: first input whose target is scored.
        end: end of the inputs.
        seq_len: longest window.
        stride: 0 cuts side by side, the last window short; above 0 each window scores the next `stride` targets and
            reaches back over `seq_len` inputs, before `first` too.

    Raises:
        ValueError: the stride is longer than a window, which would leave gaps.
    """

    first: int
    end: int
    seq_len: int
    stride: int

    def __post_init__(self) -> None:
        if not 0 <= self.stride <= self.seq_len:
            raise ValueError(f"stride {self.stride} is outside 0 .. {self.seq_len}, the window's length")

    @property
    def _head(self) -> int:
        """End of the first window under a stride; at the text's beginning it scores all that it reads."""
        return min(self.end, max(self.first + self.stride, self.seq_len))

    def __len__(self) -> int:
        if self.stride:
            return 1 + (self.end - self._head + self.stride - 1) // self.stride
        return (self.end - self.first + self.seq_len - 1) // self.seq_len

    def bounds(self, index: int) -> tuple[int, int, int]:
        """Start, first scored input and end of one window."""
        if not self.stride:
            start = self.first + index * self.seq_len
            return start, start, min(start + self.seq_len, self.end)
        scored = self._head + (index - 1) * self.stride if index else self.first
        end = min(self._head + index * self.stride, self.end)
        return max(end - self.seq_len, 0), scored, end

    def batches(self, batch_seqs: int) -> list[range]:
        """Runs of up to `batch_seqs` windows of one length."""
        return self.batches_of(range(len(self)), batch_seqs)

    def batches_of(self, run: range, batch_seqs: int) -> list[range]:
        """The same for some consecutive windows only; a short last window stands by itself."""
        whole = len(self) if self.stride else (self.end - self.first) // self.seq_len
        full, short = range(run.start, min(run.stop, whole)), range(max(run.start, whole), run.stop)
        return [full[low : low + batch_seqs] for low in range(0, len(full), batch_seqs)] + ([short] if short else [])


def window_batch(tokens: Tensor, windows: Windows, run: range) -> tuple[Tensor, Tensor, Tensor]:
    """Cut out windows of one length.

    Returns:
        tokens (B, T + 1) int64; positions (B, T) of the targets; whether each is scored (B, T).
    """
    start_B, scored_B, end_B = torch.tensor([windows.bounds(index) for index in run]).unbind(1)
    inputs_BT = start_B[:, None] + torch.arange(int(end_B[0] - start_B[0]))
    index = torch.cat([inputs_BT, end_B[:, None]], dim=1).to(tokens.device)
    return tokens[index].long(), inputs_BT + 1, inputs_BT >= scored_B[:, None]


def score_windows(task: EvalTask, windows: Windows, batch_seqs: int) -> Tensor:
    """Score this process's share of the windows' batches, without gradients.

    The cut into batches does not depend on the number of processes, so neither does any loss.

    Returns:
        float64 vector: nats, targets, bytes of this process alone.
    """
    table = task.table.to(task.worker.device)
    batches = windows.batches(batch_seqs)
    sums_3 = torch.zeros(3, dtype=torch.float64, device=task.worker.device)
    # no_grad, not inference_mode: a cache filled in inference mode could not be used by a later backward pass.
    with torch.no_grad(), evaluation_mode(task.model):
        for index in task.worker.share(len(batches)):
            sums_3 += _score_batch(task, table, window_batch(task.tokens, windows, batches[index]))
    return sums_3


def score_for_training(task: EvalTask, windows: Windows, batch_seqs: int) -> tuple[Tensor, Tensor]:
    """Score all windows and keep what a backward pass needs: the caller trains on exactly what was scored.

    Returns:
        float64 vector: nats, targets, bytes; and the sum of the losses in nats, which gradients flow through.
    """
    table = task.table.to(task.worker.device)
    sums_3 = torch.zeros(3, dtype=torch.float64, device=task.worker.device)
    kept = []
    with evaluation_mode(task.model):
        for run in windows.batches(batch_seqs):
            batch = window_batch(task.tokens, windows, run)
            losses_BT = _batch_losses(task, batch[0])
            sums_3 += _batch_sums(task, table, batch, losses_BT.detach())
            kept.append(losses_BT.sum())
    return sums_3, torch.stack(kept).sum()


def _score_batch(task: EvalTask, table: ByteTable, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    return _batch_sums(task, table, batch, _batch_losses(task, batch[0]))


def _batch_losses(task: EvalTask, tokens: Tensor) -> Tensor:
    tokens = tokens.to(task.worker.device)
    with task.worker.precision():
        return task.model.token_losses(tokens[:, :-1], tokens[:, 1:])


def _batch_sums(task: EvalTask, table: ByteTable, batch: tuple[Tensor, Tensor, Tensor], losses_BT: Tensor) -> Tensor:
    tokens, positions_BT, scored_BT = batch
    tokens = tokens.to(task.worker.device)
    if task.on_score is not None:
        task.on_score(positions_BT[scored_BT], losses_BT.cpu()[scored_BT])
    values_3BT = torch.stack(
        [losses_BT.double(), torch.ones_like(losses_BT).double(), table.count(tokens[:, :-1], tokens[:, 1:]).double()]
    )
    return values_3BT.where(scored_BT.to(task.worker.device), 0.0).sum((1, 2))


@contextmanager
def evaluation_mode(model: LanguageModel) -> Iterator[None]:
    """Put a model into evaluation mode; afterwards it has the mode it had."""
    mode = model.training
    model.train(mode=False)
    try:
        yield
    finally:
        model.train(mode=mode)


# --- ttt ---

# Called after each chunk: chunks scored, chunks in all, and the result so far over all processes.
ChunkHook: TypeAlias = Callable[[int, int, EvalResult], None]


def evaluate_ttt(task: EvalTask, on_chunk: ChunkHook | None = None) -> EvalResult:
    """Score chunk after chunk, and train on each once it is scored; the last one is only scored.

    A chunk's losses are added up before the first update that sees it. Windows may reach back over the tokens before
    their chunk when the configuration has a stride. Training is SGD with momentum on the chunk's sequences side by
    side, in order; a step takes `ttt_batch_seqs` of every process's contiguous share. Where the first step takes the
    whole chunk as it was scored, it goes back through the very pass that scored it, instead of repeating that pass.

    The model's weights are changed in place, and restored before this returns or raises.
    """
    config, targets = task.config, task.targets
    chunks = [
        (first, min(first + config.ttt_chunk_tokens, targets)) for first in range(0, targets, config.ttt_chunk_tokens)
    ]
    total_3 = torch.zeros(3, dtype=torch.float64, device=task.worker.device)
    with adapted_weights(task.model, config.ttt_freeze_blocks) as weights:
        optimizer = torch.optim.SGD(weights, lr=config.ttt_lr, momentum=config.ttt_momentum)
        for number, (first, end) in enumerate(chunks):
            last = number + 1 == len(chunks)
            sums_3, scored = _score_chunk(task, Windows(first, end, task.seq_len, config.eval_stride), trained=not last)
            total_3 += sums_3
            if on_chunk is not None:
                on_chunk(number + 1, len(chunks), EvalResult.from_sums(total_3))
            if not last:
                optimizer.param_groups[0]["lr"] = ttt_rate(config.ttt_lr, number, len(chunks))
                _train_on_chunk(Lesson(task, Windows(first, end, task.seq_len, 0), weights, scored), optimizer)
    return EvalResult.from_sums(total_3)


def ttt_rate(base: float, chunk: int, chunks: int) -> float:
    """Learning rate after scoring a chunk: a cosine from `base` at the first to zero at the last."""
    return base * 0.5 * (1.0 + math.cos(math.pi * chunk / max(chunks - 1, 1)))


@contextmanager
def adapted_weights(model: LanguageModel, freeze_blocks: int) -> Iterator[list[nn.Parameter]]:
    """Lend out the weights that are trained: all but those of the first blocks, which take no gradient meanwhile.

    Afterwards every weight has the value and the `requires_grad` it had, and no gradient.
    """
    blocks = list(model.blocks)[:freeze_blocks]
    frozen = {id(weight) for block in blocks for weight in block.parameters()}
    before = [(weight, weight.requires_grad, weight.detach().clone()) for weight in model.parameters()]
    try:
        for weight, _, _ in before:
            weight.requires_grad_(id(weight) not in frozen)
        yield [weight for weight, _, _ in before if weight.requires_grad]
    finally:
        for weight, trainable, value in before:
            weight.data.copy_(value)
            weight.grad = None
            weight.requires_grad_(trainable)


@dataclass(frozen=True)
class Lesson:
    """A scored chunk to train on.

    Attributes:
        task: what is evaluated.
        windows: the chunk's sequences side by side.
        weights: those that are trained.
        scored: sum of the chunk's losses in nats with what a backward pass needs, where scoring kept it.
    """

    task: EvalTask
    windows: Windows
    weights: Sequence[nn.Parameter]
    scored: Tensor | None


def _score_chunk(task: EvalTask, windows: Windows, *, trained: bool) -> tuple[Tensor, Tensor | None]:
    """Sums of one chunk over all processes, and its loss for the first step where that step takes the whole chunk."""
    config, worker = task.config, task.worker
    one_step = windows.stride == 0 and worker.world_size == 1 and len(windows) <= config.ttt_batch_seqs
    if trained and one_step and config.ttt_epochs > 0:
        return score_for_training(task, windows, config.ttt_batch_seqs)
    # A batch is small enough that every process has work.
    fair = -(-len(windows) // worker.world_size)
    return worker.all_sum(score_windows(task, windows, min(config.eval_batch_seqs, fair))), None


def _train_on_chunk(lesson: Lesson, optimizer: torch.optim.Optimizer) -> None:
    """All epochs over one scored chunk; every process takes the same steps, even when it has no sequences left."""
    task, weights = lesson.task, lesson.weights
    longest = -(-len(lesson.windows) // task.worker.world_size)
    steps = list(range(0, longest, task.config.ttt_batch_seqs)) * task.config.ttt_epochs
    with evaluation_mode(task.model):
        for number, low in enumerate(steps):
            _compute_gradients(lesson, low, None if number else lesson.scored)
            if task.config.ttt_grad_clip > 0:
                nn.utils.clip_grad_norm_(weights, task.config.ttt_grad_clip)
            optimizer.step()


def _compute_gradients(lesson: Lesson, low: int, scored: Tensor | None) -> None:
    """Gradient of the mean loss over one step's targets of all processes; a short window goes by itself."""
    task, windows, weights = lesson.task, lesson.windows, lesson.weights
    worker, size = task.worker, task.config.ttt_batch_seqs
    runs = [replace(worker, rank=rank).share(len(windows))[low : low + size] for rank in range(worker.world_size)]
    targets = sum(end - start for run in runs for start, _, end in map(windows.bounds, run))
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    if scored is not None:
        (scored / targets).backward()  # type: ignore[no-untyped-call]
        return
    for part in windows.batches_of(runs[worker.rank], size):
        batch = window_batch(task.tokens, windows, part)[0].to(worker.device)
        with worker.precision():
            losses_BT = task.model.token_losses(batch[:, :-1], batch[:, 1:])
        (losses_BT.sum() / targets).backward()  # type: ignore[no-untyped-call]
    _sum_gradients(worker, [weight.grad for weight in weights if weight.grad is not None])


def _sum_gradients(worker: Worker, gradients: Sequence[Tensor]) -> None:
    """Sum over all processes, in one message."""
    if worker.world_size > 1:
        flat = worker.all_sum(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


# --- evaluate ---

def evaluate_plain(task: EvalTask) -> EvalResult:
    """Score windows side by side, the short one at the end too.

    Processes share the batches and add their sums in float64; no loss depends on their number.
    """
    return _evaluate_windows(task, 0)


def evaluate_sliding(task: EvalTask, stride: int) -> EvalResult:
    """Score with overlap: each window scores its last `stride` targets with the full context before them.

    Raises:
        ValueError: the stride is not in 1 .. seq_len.
    """
    if stride < 1:
        raise ValueError(f"stride {stride} is not positive")
    return _evaluate_windows(task, stride)


def _evaluate_windows(task: EvalTask, stride: int) -> EvalResult:
    windows = Windows(0, task.targets, task.seq_len, stride)
    return EvalResult.from_sums(task.worker.all_sum(score_windows(task, windows, task.config.eval_batch_seqs)))


def evaluation_name(task: EvalTask) -> str:
    """How the configuration says that tokens are scored."""
    context = f"stride {task.config.eval_stride}" if task.config.eval_stride else "plain"
    return f"score-first TTT, {context}" if task.config.ttt_enabled else context


def evaluate(task: EvalTask, on_chunk: ChunkHook | None = None) -> EvalResult:
    """Score as the configuration says; `on_chunk` hears the progress of test-time training."""
    if task.config.ttt_enabled:
        return evaluate_ttt(task, on_chunk)
    return evaluate_sliding(task, task.config.eval_stride) if task.config.eval_stride else evaluate_plain(task)


# --- launch ---

@contextmanager
def started_worker(environ: Mapping[str, str]) -> Iterator[Worker]:
    """Take this process's place among those that torchrun started; by itself it is the only one.

    Raises:
        ConfigError: RANK, WORLD_SIZE or LOCAL_RANK is no place.
    """
    rank, size, local = (
        process_number(environ, name, default) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    if rank >= size:
        raise ConfigError(f"RANK: {rank} is not below WORLD_SIZE ({size})")
    if not torch.cuda.is_available():
        worker = Worker(rank, size)
    else:
        worker = Worker(rank, size, f"cuda:{local}", torch.bfloat16)
        torch.cuda.set_device(local)
        torch.set_float32_matmul_precision("high")
    if size > 1:
        dist.init_process_group("gloo" if worker.device == "cpu" else "nccl")
    try:
        yield worker
        if size > 1:
            # gloo aborts a process whose peers are still talking to it when it leaves.
            dist.barrier()
    finally:
        if size > 1:
            dist.destroy_process_group()


def process_number(environ: Mapping[str, str], name: str, default: int) -> int:
    """A number that torchrun sets; raises ConfigError that names it."""
    text = environ.get(name, str(default))
    if not text.isdecimal():
        raise ConfigError(f"{name}: {text!r} is not a number from 0")
    return int(text)


# --- window ---

BLOCK_TOKENS = 128
# Blocks of one call: enough to keep the threads busy, few enough for their intermediate results to stay in a cache.
CALL_BLOCKS = 8


class WindowContext(FunctionCtx):
    """What the forward pass leaves to the backward pass."""

    saved_tensors: tuple[Tensor, ...]
    window: int


@dataclass(frozen=True)
class Call:
    """Consecutive blocks of queries that see equally many blocks of keys.

    Attributes:
        first: First query block.
        blocks: How many.
        reach: Key blocks that each of them sees, its own included.
    """

    first: int
    blocks: int
    reach: int

    @property
    def queries(self) -> slice:
        """Positions of the queries."""
        return slice(self.first * BLOCK_TOKENS, (self.first + self.blocks) * BLOCK_TOKENS)

    @property
    def keys(self) -> slice:
        """Positions of all keys that some query sees."""
        return slice((self.first + 1 - self.reach) * BLOCK_TOKENS, self.queries.stop)

    def key_part(self, number: int) -> slice:
        """Positions of the `number`-th key block of every query block."""
        start = self.keys.start + number * BLOCK_TOKENS
        return slice(start, start + self.blocks * BLOCK_TOKENS)


def calls(length: int, window: int) -> Iterator[Call]:
    """Cover a length (a multiple of the block) with calls; the first blocks see fewer keys and go alone."""
    blocks, reach = length // BLOCK_TOKENS, key_blocks(window)
    for first in range(min(reach - 1, blocks)):
        yield Call(first, 1, first + 1)
    for first in range(reach - 1, blocks, CALL_BLOCKS):
        yield Call(first, min(CALL_BLOCKS, blocks - first), reach)


def window_attention(q_BHTE: Tensor, k_BGTE: Tensor, v_BGTE: Tensor, window: int) -> Tensor:
    """Attend to oneself and the `window` - 1 tokens before.

    Args:
        q_BHTE: Queries; H is a multiple of G.
        k_BGTE: Keys.
        v_BGTE: Values.
        window: Visible tokens, oneself included.

    Returns:
        Mixed values, B, H, T, E; side by side in memory by token, then head.

    """
    length = q_BHTE.shape[2]
    # Padding stands after the text, where no query of the text sees it.
    padding = (0, 0, 0, -length % BLOCK_TOKENS)
    padded = [F.pad(x, padding) if padding[-1] else x for x in (q_BHTE, k_BGTE, v_BGTE)]
    mixed: Tensor = WindowAttention.apply(*padded, window)  # type: ignore[no-untyped-call]  # untyped in torch
    return mixed[:, :, :length]


class WindowAttention(torch.autograd.Function):
    """Window attention with its backward pass; the length is a multiple of the block."""

    @staticmethod
    def forward(ctx: WindowContext, q_BHTE: Tensor, k_BGTE: Tensor, v_BGTE: Tensor, window: int) -> Tensor:
        """Return B, H, T, E."""
        out_BTHE = torch.empty_like(q_BHTE.transpose(1, 2), memory_format=torch.contiguous_format)
        out_BHTE = out_BTHE.transpose(1, 2)
        sums = []
        for call in calls(q_BHTE.shape[2], window):
            mask = _mask(window, call, q_BHTE, k_BGTE.shape[1])
            for item in range(q_BHTE.shape[0]):
                operands = _operands(call, q_BHTE[item], k_BGTE[item], v_BGTE[item])
                mixed, log_sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*operands, attn_mask=mask)  # noqa: SLF001 - the operator behind torch's own attention
                _put_back(out_BHTE[item], call, mixed)
                sums.append(log_sums)
        ctx.save_for_backward(q_BHTE, k_BGTE, v_BGTE, out_BHTE, *sums)
        ctx.window = window
        return out_BHTE

    @staticmethod
    @once_differentiable
    def backward(ctx: WindowContext, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of queries, keys and values."""
        q_BHTE, k_BGTE, v_BGTE, out_BHTE, *sums = ctx.saved_tensors
        dq_BHTE = torch.empty_like(q_BHTE)
        dk_BGTE, dv_BGTE = torch.zeros_like(k_BGTE), torch.zeros_like(v_BGTE)
        waiting = iter(sums)
        for call in calls(q_BHTE.shape[2], ctx.window):
            mask = _mask(ctx.window, call, q_BHTE, k_BGTE.shape[1])
            for item in range(q_BHTE.shape[0]):
                grad, mixed = (_stacked(x[item], call, k_BGTE.shape[1]) for x in (grads[0], out_BHTE))
                operands = _operands(call, q_BHTE[item], k_BGTE[item], v_BGTE[item])
                flags = (0.0, False)  # no dropout; the mask says what is causal
                dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(  # noqa: SLF001 - as above
                    grad, *operands, mixed, next(waiting), *flags, attn_mask=mask
                )
                _put_back(dq_BHTE[item], call, dq)
                _add_back(dk_BGTE[item], call, dk)
                _add_back(dv_BGTE[item], call, dv)
        return dq_BHTE, dk_BGTE, dv_BGTE, None


def _operands(call: Call, q_HTE: Tensor, k_GTE: Tensor, v_GTE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries S, G, R*Q, E, and views of keys and values S, G, K, E."""
    keys = call.reach * BLOCK_TOKENS
    k_SGKE, v_SGKE = (x[:, call.keys].unfold(1, keys, BLOCK_TOKENS).permute(1, 0, 3, 2) for x in (k_GTE, v_GTE))
    return _stacked(q_HTE, call, k_GTE.shape[0]), k_SGKE, v_SGKE


def _stacked(x_HTE: Tensor, call: Call, groups: int) -> Tensor:
    """One call's queries, those of the heads that share keys one after the other: S, G, R*Q, E."""
    heads, _, width = x_HTE.shape
    x_GRSQE = x_HTE[:, call.queries].reshape(groups, heads // groups, call.blocks, BLOCK_TOKENS, width)
    return x_GRSQE.permute(2, 0, 1, 3, 4).reshape(call.blocks, groups, -1, width)


def _put_back(target_HTE: Tensor, call: Call, x_SGXE: Tensor) -> None:
    """Undo the stacking into the call's queries."""
    blocks, groups, _, width = x_SGXE.shape
    x_GRSQE = x_SGXE.view(blocks, groups, -1, BLOCK_TOKENS, width).permute(1, 2, 0, 3, 4)
    grouped = torch.unflatten(target_HTE[:, call.queries], 0, (groups, -1))
    torch.unflatten(grouped, 2, (blocks, BLOCK_TOKENS)).copy_(x_GRSQE)


def _add_back(target_GTE: Tensor, call: Call, x_SGKE: Tensor) -> None:
    """Add what each block says of the keys it sees."""
    for number, x_SGQE in enumerate(torch.split(x_SGKE, BLOCK_TOKENS, 2)):
        part_GSQE = torch.unflatten(target_GTE[:, call.key_part(number)], 1, (call.blocks, BLOCK_TOKENS))
        part_GSQE.add_(x_SGQE.transpose(0, 1))


def _mask(window: int, call: Call, q_BHTE: Tensor, groups: int) -> Tensor:
    """What to add to the products: 0 where a query sees a key, else minus infinity; R*Q, K."""
    visible_QK = window_mask(window, call.reach, q_BHTE.device)
    mask_QK = torch.zeros(visible_QK.shape, dtype=q_BHTE.dtype, device=q_BHTE.device)
    return mask_QK.masked_fill_(~visible_QK, float("-inf")).repeat(q_BHTE.shape[1] // groups, 1)


def window_mask(window: int, reach: int, device: torch.device) -> Tensor:
    """Whether a query of one block sees a key of the `reach` blocks that end with its own (Q, K)."""
    own = (reach - 1) * BLOCK_TOKENS
    queries_Q1 = torch.arange(own, own + BLOCK_TOKENS, device=device)[:, None]
    distance_QK = queries_Q1 - torch.arange(own + BLOCK_TOKENS, device=device)
    return (distance_QK >= 0) & (distance_QK < window)


def key_blocks(window: int) -> int:
    """Blocks of keys that some query of one block sees, its own included."""
    return -(-(window - 1) // BLOCK_TOKENS) + 1


# --- attention ---

def rotary_tables(length: int, head_dim: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles (arXiv:2104.09864), each T, 1, E/2 in float32."""
    frequencies = base ** -(torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim)
    angles = torch.arange(length, dtype=torch.float32, device=device)[:, None, None] * frequencies
    return angles.cos(), angles.sin()


def normalized_heads(x_BTHE: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Root-mean-square norm per head, then rotation of the first half of each head against the second."""
    return rotate(F.rms_norm(x_BTHE, x_BTHE.shape[-1:]).to(x_BTHE.dtype), *rotary)


class RotationContext(FunctionCtx):
    """What the forward pass leaves to the backward pass."""

    saved_tensors: tuple[Tensor, ...]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first half of the last dimension against the second: (a cos - b sin, b cos + a sin)."""
    rotated: Tensor = Rotation.apply(x, cos, sin)  # type: ignore[no-untyped-call]  # untyped in torch
    return rotated


class Rotation(torch.autograd.Function):
    """A rotation; its derivative is the rotation back. Angles get no gradient."""

    @staticmethod
    def forward(ctx: RotationContext, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return the rotated tensor, contiguous, in the type of x."""
        ctx.save_for_backward(cos, sin)
        return rotated_halves(x, cos, sin)

    @staticmethod
    def backward(ctx: RotationContext, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Rotate the gradient back."""
        cos, sin = ctx.saved_tensors
        return rotated_halves(grads[0], cos, -sin), None, None


def rotated_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Compute the rotation without temporaries."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    (first, second), (out_first, out_second) = torch.chunk(x, 2, -1), torch.chunk(out, 2, -1)
    torch.mul(first, cos, out=out_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=out_second).addcmul_(first, sin)
    return out


def causal_attention(q_BHTE: Tensor, k_BGTE: Tensor, v_BGTE: Tensor, window: int = 0) -> Tensor:
    """Attend to oneself and what came before; under a window W, query q sees key k when 0 <= q - k < W.

    Where the window binds, queries are taken in blocks, each against the keys that some query of it sees, so that the
    cost per token does not grow with the length: several blocks in one call on a CPU, one after the other elsewhere.

    Args:
        q_BHTE: Queries; H is a multiple of G.
        k_BGTE: Keys.
        v_BGTE: Values.
        window: Visible tokens, oneself included; 0 for all.

    Returns:
        Mixed values, B, H, T, E.

    """
    grouped = q_BHTE.shape[1] != k_BGTE.shape[1]
    if window == 0 or q_BHTE.shape[2] <= window:
        return F.scaled_dot_product_attention(q_BHTE, k_BGTE, v_BGTE, is_causal=True, enable_gqa=grouped)
    if q_BHTE.device.type == "cpu":
        return window_attention(q_BHTE, k_BGTE, v_BGTE, window)
    return blockwise_attention(q_BHTE, k_BGTE, v_BGTE, window)


def blockwise_attention(q_BHTE: Tensor, k_BGTE: Tensor, v_BGTE: Tensor, window: int) -> Tensor:
    """Window attention block by block with the library's operators, on any device; arguments as `causal_attention`.

    Keys and values are split once and joined per block: slicing them per block would make the backward pass fill one
    full-length gradient for each.
    """
    grouped = q_BHTE.shape[1] != k_BGTE.shape[1]
    reach = key_blocks(window)
    mask_QK = window_mask(window, reach, q_BHTE.device)
    k_blocks, v_blocks = torch.split(k_BGTE, BLOCK_TOKENS, 2), torch.split(v_BGTE, BLOCK_TOKENS, 2)
    mixed = []
    for last, q_BHQE in enumerate(torch.split(q_BHTE, BLOCK_TOKENS, 2), 1):
        first = max(0, last - reach)
        k_BGKE, v_BGKE = (torch.cat(blocks[first:last], 2) for blocks in (k_blocks, v_blocks))
        visible = mask_QK[: q_BHQE.shape[2], (reach - last + first) * BLOCK_TOKENS :][:, : k_BGKE.shape[2]]
        mixed.append(F.scaled_dot_product_attention(q_BHQE, k_BGKE, v_BGKE, attn_mask=visible, enable_gqa=grouped))
    return torch.cat(mixed, 2)


# --- conv ---

class ConvContext(FunctionCtx):
    """What the forward pass leaves to the backward pass."""

    saved_tensors: tuple[Tensor, ...]


class DepthwiseConv(nn.Module):
    """One filter per channel over this and the K - 1 earlier steps, zeros before the first.

    Same parameters as `torch.nn.Conv1d` with one group per channel; the last tap is the present step.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 1, width))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return y_BTD in the type of the weights, whatever the surrounding autocast says."""
        return causal_conv(x_BTD.to(self.weight.dtype), self.weight, self.bias)


def causal_conv(x_BTD: Tensor, weight_D1K: Tensor, bias_D: Tensor) -> Tensor:
    """Convolve causally; all three of one type."""
    y_BTD: Tensor = CausalConv.apply(x_BTD, weight_D1K, bias_D)  # type: ignore[no-untyped-call]  # untyped in torch
    return y_BTD


class CausalConv(torch.autograd.Function):
    """One multiply-add per tap on contiguous channels; no transposition to the layout of the library's convolution."""

    @staticmethod
    def forward(ctx: ConvContext, x_BTD: Tensor, weight_D1K: Tensor, bias_D: Tensor) -> Tensor:
        """Return y_BTD."""
        ctx.save_for_backward(x_BTD, weight_D1K)
        now, *earlier = reversed(weight_D1K[:, 0].unbind(1))
        y_BTD = torch.addcmul(bias_D, x_BTD, now)
        for delay, tap_D in enumerate(earlier, 1):
            y_BTD[:, delay:].addcmul_(x_BTD[:, :-delay], tap_D)
        return y_BTD

    @staticmethod
    def backward(ctx: ConvContext, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Correlate: every tap with its own shift."""
        dy_BTD, (x_BTD, weight_D1K) = grads[0], ctx.saved_tensors
        now, *earlier = reversed(weight_D1K[:, 0].unbind(1))
        dx_BTD, dtaps = dy_BTD * now, [(dy_BTD * x_BTD).sum((0, 1))]
        for delay, tap_D in enumerate(earlier, 1):
            dx_BTD[:, :-delay].addcmul_(dy_BTD[:, delay:], tap_D)
            dtaps.append((dy_BTD[:, delay:] * x_BTD[:, :-delay]).sum((0, 1)))
        return dx_BTD, torch.stack(dtaps[::-1], 1)[:, None], dy_BTD.sum((0, 1))


# --- scan ---

class ScanInputs(NamedTuple):
    """What the scan reads.

    Attributes:
        x_BTD: Input, after convolution and SiLU.
        dt_BTD: Step sizes, positive.
        A_DN: Decay rates, negative.
        B_BTN: Input projection.
        C_BTN: Output projection.

    """

    x_BTD: Tensor
    dt_BTD: Tensor
    A_DN: Tensor
    B_BTN: Tensor
    C_BTN: Tensor


def selective_scan_reference(inputs: ScanInputs, state_BDN: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Step through time in float64, autograd recording every step: slow, and what the fast scan is tested against.

    Returns:
        y_BTD and the state after the last step, both float64.

    """
    x_BTD, dt_BTD, A_DN, B_BTN, C_BTN = (tensor.double() for tensor in inputs)
    h_BDN = x_BTD.new_zeros(len(x_BTD), *A_DN.shape) if state_BDN is None else state_BDN.double()
    outputs = []
    for step in range(x_BTD.shape[1]):
        dt_BD1 = dt_BTD[:, step, :, None]
        h_BDN = torch.exp(dt_BD1 * A_DN) * h_BDN + dt_BD1 * x_BTD[:, step, :, None] * B_BTN[:, step, None]
        outputs.append((h_BDN * C_BTN[:, step, None]).sum(-1))
    return torch.stack(outputs, 1), h_BDN


def selective_scan(inputs: ScanInputs, state_BDN: Tensor | None = None, *, chunk: int = 64) -> tuple[Tensor, Tensor]:
    """Scan in chunks of `chunk` steps; differentiable in all inputs, the initial state among them.

    Computes in float32 (float64 when x is), whatever the surrounding autocast says. Only the states at the chunks'
    boundaries are kept for the backward pass, which recomputes the others.

    Args:
        inputs: See ScanInputs.
        state_BDN: State before the first step; zeros when absent.
        chunk: Steps per chunk; it changes speed and memory, not the result.

    Returns:
        y_BTD and the state after the last step, in the computing type.

    """
    dtype = torch.promote_types(inputs.x_BTD.dtype, torch.float32)
    if state_BDN is None:
        state_BDN = inputs.x_BTD.new_zeros(len(inputs.x_BTD), *inputs.A_DN.shape)
    tensors = (inputs.x_BTD, inputs.dt_BTD, inputs.A_DN.t(), inputs.B_BTN, inputs.C_BTN, state_BDN.transpose(1, 2))
    y_BTD, state_BND = SelectiveScan.apply(chunk, *(tensor.to(dtype).contiguous() for tensor in tensors))  # type: ignore[no-untyped-call]  # untyped in torch
    return y_BTD, state_BND.transpose(1, 2)


class ScanContext(FunctionCtx):
    """What the forward pass leaves to the backward pass."""

    saved_tensors: tuple[Tensor, ...]
    chunk: int


class SelectiveScan(torch.autograd.Function):
    """The chunked scan and its derivative, written by hand.

    Inside a chunk, everything that does not depend on earlier steps is computed for the whole chunk at once; what
    remains per step is one multiply-add on contiguous memory. Work space of one chunk has the order L, B, N, D: it
    stays in the processor's cache, and the small dimension N never becomes an inner loop.
    """

    @staticmethod
    def forward(ctx: ScanContext, chunk: int, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Return y_BTD and the last state_BND; tensors are x_BTD, dt_BTD, A_ND, B_BTN, C_BTN, state_BND."""
        x_BTD, dt_BTD, A_ND, B_BTN, C_BTN, h_BND = tensors
        steps = ChunkSteps(x_BTD, dt_BTD, A_ND, B_BTN, chunk)
        y_BTD = torch.empty_like(x_BTD)
        boundaries = []
        for span in steps.spans():
            boundaries.append(h_BND)
            h_LBND = steps.run(span, h_BND)
            y_BTD[:, span] = sum_over_state(C_BTN[:, span], h_LBND)
            h_BND = h_LBND[-1].clone()
        ctx.save_for_backward(x_BTD, dt_BTD, A_ND, B_BTN, C_BTN, *boundaries)
        ctx.chunk = chunk
        return y_BTD, h_BND

    @staticmethod
    def backward(ctx: ScanContext, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Walk the chunks backwards; the gradient of the state at each chunk's end is carried over."""
        x_BTD, dt_BTD, A_ND, B_BTN, C_BTN, *boundaries = ctx.saved_tensors
        dy_BTD, carry_BND = grads
        steps = ChunkSteps(x_BTD, dt_BTD, A_ND, B_BTN, ctx.chunk)
        grad = ScanGradients(steps)
        dx_BTD, ddt_BTD, dB_BTN, dC_BTN = (torch.empty_like(tensor) for tensor in (x_BTD, dt_BTD, B_BTN, C_BTN))
        for span, h_BND in reversed(list(zip(steps.spans(), boundaries, strict=True))):
            x_BLD, dt_BLD = x_BTD[:, span], dt_BTD[:, span]
            h_LBND = steps.run(span, h_BND)
            dC_BTN[:, span] = sum_over_channels(dy_BTD[:, span], h_LBND)
            dh_LBND = grad.of_states(C_BTN[:, span], dy_BTD[:, span], carry_BND)
            dB_BTN[:, span] = sum_over_channels(dt_BLD * x_BLD, dh_LBND)
            dinput_BLD = sum_over_state(B_BTN[:, span], dh_LBND)
            drate_BLD, carry_BND = grad.of_rates(dt_BLD, h_BND)
            dx_BTD[:, span] = dinput_BLD * dt_BLD
            ddt_BTD[:, span] = drate_BLD.addcmul(dinput_BLD, x_BLD)
        return None, dx_BTD, ddt_BTD, grad.dA_LBND.sum((0, 1)), dB_BTN, dC_BTN, carry_BND


class ChunkSteps:
    """Computes one chunk at a time into work space that is made once.

    Attributes:
        decay_LBND: exp(dt * A) of the current chunk.
        h_LBND: The states after each of its steps.
        length: How many steps it has; the last chunk may be shorter than the work space.

    """

    def __init__(self, x_BTD: Tensor, dt_BTD: Tensor, A_ND: Tensor, B_BTN: Tensor, chunk: int) -> None:
        self.x_BTD, self.dt_BTD, self.A_ND, self.B_BTN = x_BTD, dt_BTD, A_ND, B_BTN
        self.chunk = chunk
        self.length = min(chunk, x_BTD.shape[1])
        self.decay_LBND, self.h_LBND = x_BTD.new_empty(2, self.length, len(x_BTD), *A_ND.shape).unbind(0)
        # Views of every step: making them anew for each chunk costs as much as the arithmetic.
        self.decay_steps, self.h_steps = self.decay_LBND.unbind(0), self.h_LBND.unbind(0)

    def spans(self) -> list[slice]:
        """Return the chunks' stretches of time."""
        return [slice(start, start + self.chunk) for start in range(0, self.x_BTD.shape[1], self.chunk)]

    def run(self, span: slice, h_BND: Tensor) -> Tensor:
        """Compute a chunk from the state before it; the returned h_LBND is valid until the next call."""
        x_LBD, dt_LBD, B_LBN = (tensor[:, span].transpose(0, 1) for tensor in (self.x_BTD, self.dt_BTD, self.B_BTN))
        self.length = len(x_LBD)
        decay_LBND, h_LBND = self.decay_LBND[: self.length], self.h_LBND[: self.length]
        torch.mul(dt_LBD[:, :, None], self.A_ND, out=decay_LBND).exp_()
        torch.mul((dt_LBD * x_LBD)[:, :, None], B_LBN[..., None], out=h_LBND)
        for decay_BND, next_BND in zip(self.decay_steps[: self.length], self.h_steps, strict=False):
            h_BND = next_BND.addcmul_(decay_BND, h_BND)
        return h_LBND


class ScanGradients:
    """Gradients inside the chunk that `steps` computed last."""

    def __init__(self, steps: ChunkSteps) -> None:
        self.steps = steps
        self.dh_LBND, self.dA_LBND = torch.empty_like(steps.h_LBND), torch.zeros_like(steps.h_LBND)
        self.dh_steps = self.dh_LBND.unbind(0)

    def of_states(self, C_BLN: Tensor, dy_BLD: Tensor, carry_BND: Tensor) -> Tensor:
        """Gradient of every state: from its own output and, through the decays, from all later steps."""
        length = self.steps.length
        dh_LBND = self.dh_LBND[:length]
        torch.mul(C_BLN.transpose(0, 1)[..., None], dy_BLD.transpose(0, 1)[:, :, None], out=dh_LBND)
        later_BND = self.dh_steps[length - 1].add_(carry_BND)
        for step in range(length - 2, -1, -1):
            later_BND = self.dh_steps[step].addcmul_(self.steps.decay_steps[step + 1], later_BND)
        return dh_LBND

    def of_rates(self, dt_BLD: Tensor, h_BND: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of dt through the decays, and of the state before the chunk; adds up that of A.

        Overwrites the chunk's decays: they become the gradient of the exponent dt * A.
        """
        length = self.steps.length
        drate_LBND = self.steps.decay_LBND[:length].mul_(self.dh_LBND[:length])
        carry_BND = drate_LBND[0].clone()
        drate_LBND[1:].mul_(self.steps.h_LBND[: length - 1])
        drate_LBND[0].mul_(h_BND)
        self.dA_LBND[:length].addcmul_(drate_LBND, dt_BLD.transpose(0, 1)[:, :, None])
        return drate_LBND.mul_(self.steps.A_ND).sum(2).transpose(0, 1), carry_BND


def sum_over_state(weight_BLN: Tensor, h_LBND: Tensor) -> Tensor:
    """Weighted sum over N; returns B, L, D. The `out` form of the product keeps autocast away."""
    length, batch, state, channels = h_LBND.shape
    out = h_LBND.new_empty(length * batch, 1, channels)
    weight = weight_BLN.transpose(0, 1).reshape(-1, 1, state)
    return torch.bmm(weight, h_LBND.view(-1, state, channels), out=out).view(length, batch, channels).transpose(0, 1)


def sum_over_channels(weight_BLD: Tensor, h_LBND: Tensor) -> Tensor:
    """Weighted sum over D; returns B, L, N."""
    length, batch, state, channels = h_LBND.shape
    out = h_LBND.new_empty(length * batch, state, 1)
    weight = weight_BLD.transpose(0, 1).reshape(-1, channels, 1)
    return torch.bmm(h_LBND.view(-1, state, channels), weight, out=out).view(length, batch, state).transpose(0, 1)


# --- model ---

BIGRAM_MULTIPLIER = 92_821
ORTHOGONAL_MIN_SIDE = 16
# Layers whose output starts at zero, so that a block begins as the identity.
ZERO_INIT_NAMES = ("proj", "lm_head")


class SmearGate(nn.Module):
    """Blend every embedding with the one before it: g * x[t] + (1 - g) * x[t-1], one learned g per channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.full((dim,), 3.0))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return the blended embeddings; nothing stands before the first."""
        previous_BTD = F.pad(x_BTD[:, :-1], (0, 0, 1, 0))
        return torch.lerp(previous_BTD, x_BTD, torch.sigmoid(self.gate).to(x_BTD.dtype))


class BigramHash(nn.Module):
    """Embedding of the last two tokens, hashed into a table."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.table = nn.Embedding(config.bigram_buckets, config.bigram_dim)
        self.proj = nn.Linear(config.bigram_dim, config.model_dim, bias=False)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Return B, T, D; the token before the first counts as 0."""
        previous_BT = F.pad(tokens_BT[:, :-1], (1, 0))
        buckets_BT = (previous_BT * BIGRAM_MULTIPLIER + tokens_BT) % self.table.num_embeddings
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

    def attend(self, x_BTD: Tensor, k_BTC: Tensor, v_BTC: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Queries of x against keys and values; C is G times E. Returns B, T, D before the output projection."""
        heads_BTXE = (*x_BTD.shape[:2], -1, self.head_dim)
        q_BTHE = self.c_q(x_BTD).view(heads_BTXE)
        q_BTHE = normalized_heads(q_BTHE, rotary) * self.q_gain[:, None].to(q_BTHE.dtype)
        k_BTGE, v_BTGE = normalized_heads(k_BTC.reshape(heads_BTXE), rotary), v_BTC.reshape(heads_BTXE)
        mixed_BHTE = causal_attention(
            q_BTHE.transpose(1, 2), k_BTGE.transpose(1, 2), v_BTGE.transpose(1, 2), self.window
        )
        return mixed_BHTE.transpose(1, 2).flatten(2)

    def forward(self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Mix over time; returns B, T, D."""
        k_BTC, v_BTC = self.kv_proj(x_BTD).chunk(2, -1)
        output_BTD: Tensor = self.proj(self.attend(x_BTD, k_BTC, v_BTC, rotary))
        return output_BTD


class HymbaMixer(AttentionMixer):
    """Attention and Mamba read the same input; a learned scalar weighs them before the shared output projection."""

    def __init__(self, config: ModelConfig, window: int) -> None:
        super().__init__(config, window)
        channels, rank, state = config.ssm_dim, config.ssm_dt_rank, config.ssm_state
        self.sizes = (self.kv_dim, self.kv_dim, channels, channels)
        self.scan_sizes = (rank, state, state)
        self.scan_chunk = config.scan_chunk
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

    def scan(self, x_BTD: Tensor, gate_BTD: Tensor) -> Tensor:
        """Mamba's branch: causal convolution, selective scan with skip, gate, output projection."""
        x_BTD = F.silu(self.conv1d(x_BTD))
        dt_BTR, B_BTN, C_BTN = self.x_proj(x_BTD).split(self.scan_sizes, -1)
        dt_BTD = F.softplus(self.dt_proj(dt_BTR))
        inputs = ScanInputs(x_BTD, dt_BTD, -self.A_log.float().exp(), B_BTN, C_BTN)
        y_BTD, _ = selective_scan(inputs, chunk=self.scan_chunk)
        output_BTD: Tensor = self.mamba_out_proj(torch.addcmul(y_BTD, self.D, x_BTD) * F.silu(gate_BTD))
        return output_BTD

    def forward(self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Mix over time; returns B, T, D."""
        projected = self.in_proj(x_BTD) if self.fused else torch.cat((self.kv_proj(x_BTD), self.mamba_proj(x_BTD)), -1)
        k_BTC, v_BTC, scanned_BTD, gate_BTD = projected.split(self.sizes, -1)
        attention_BTD = self.attend(x_BTD, k_BTC, v_BTC, rotary)
        mamba_BTD = self.scan(scanned_BTD, gate_BTD)
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

    def forward(self, x_BTD: Tensor, x0_BTD: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Return B, T, D."""
        width = x_BTD.shape[-1:]
        x_BTD = torch.addcmul(self.resid_mix[0] * x_BTD, self.resid_mix[1], x0_BTD)
        x_BTD = torch.addcmul(x_BTD, self.attn_scale, self.attn(F.rms_norm(x_BTD, width), rotary))
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

    def embed(self, tokens_BT: Tensor) -> Tensor:
        """Return the normalized embeddings, B, T, D."""
        x_BTD: Tensor = self.tok_emb(tokens_BT)
        if self.bigram_hash is not None:
            x_BTD = x_BTD + self.bigram_hash(tokens_BT)
        if self.smeargate is not None:
            x_BTD = self.smeargate(x_BTD)
        return F.rms_norm(x_BTD, x_BTD.shape[-1:])

    def run_blocks(self, x_BTD: Tensor) -> Tensor:
        """Run all blocks on embeddings; returns the normalized last stream, B, T, D."""
        config, x0_BTD, skips = self.config, x_BTD, list[Tensor]()
        rotary = rotary_tables(x_BTD.shape[1], config.head_dim, config.rope_base, x_BTD.device)
        half = config.num_layers // 2
        for layer, block in enumerate(self.blocks):
            if layer >= half and skips:
                x_BTD = torch.addcmul(x_BTD, self.skip_weights[0, layer - half], skips.pop())
            x_BTD = block(x_BTD, x0_BTD, rotary)
            if layer < half:
                skips.append(x_BTD)
        return F.rms_norm(x_BTD, x_BTD.shape[-1:])

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits of the next token, B, T, V in float32, softly capped: cap * tanh(z / cap)."""
        x_BTD = self.run_blocks(self.embed(tokens_BT))
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


# --- runlog ---

RULE_LINE = "=" * 100


@dataclass(frozen=True)
class Progress:
    """How far training is: finished steps of the planned ones, and the training time they took in milliseconds."""

    step: int
    steps: int
    train_ms: float

    def timing(self) -> str:
        """Training time and its mean per step."""
        return f"train_time:{self.train_ms:.0f}ms step_avg:{self.train_ms / max(self.step, 1):.2f}ms"


def train_line(progress: Progress, loss: float) -> str:
    """One training step: loss in nats per token."""
    return f"step:{progress.step}/{progress.steps} train_loss:{loss:.4f} {progress.timing()}"


def validation_line(progress: Progress, val_loss: float, val_bpb: float) -> str:
    """One validation during training: nats per token and bits per byte."""
    head = f"step:{progress.step}/{progress.steps}"
    return f"{head} val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f} {progress.timing()}"


def stop_line(progress: Progress) -> str:
    """The wallclock limit ended training."""
    time_and_step = f"train_time:{progress.train_ms:.0f}ms step:{progress.step}/{progress.steps}"
    return f"stopping_early: wallclock_cap {time_and_step}"


def score_lines(label: str, scores: tuple[float, float], mode: str, seconds: float) -> tuple[str, str]:
    """A scored evaluation, rounded with its mode and time, then exact.

    Args:
        label: For instance "legal_ttt"; the exact line's label ends in "_exact".
        scores: Nats per token, bits per byte.
        mode: How the tokens were scored.
        seconds: What it took.
    """
    val_loss, val_bpb = scores
    rounded = f"val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f} eval_mode:{mode} eval_time:{1000.0 * seconds:.0f}ms"
    return f"{label} {rounded}", f"{label}_exact val_loss:{val_loss:.8f} val_bpb:{val_bpb:.8f}"


def diagnostic_line(name: str, scores: tuple[float, float], seconds: float) -> str:
    """A score that is not the headline, of weights that are not in the artifact."""
    val_loss, val_bpb = scores
    return f"DIAGNOSTIC {name} val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f} eval_time:{1000.0 * seconds:.0f}ms"


def size_lines(quantizer: str, code_bytes: int, model_bytes: int) -> tuple[str, str, str]:
    """The bytes that count: code, compressed model, both; `quantizer` is for instance "int6+zstd-22"."""
    return (
        f"Code size: {code_bytes} bytes",
        f"Serialized model {quantizer}: {model_bytes} bytes",
        f"Total submission size {quantizer}: {code_bytes + model_bytes} bytes",
    )


def version_lines() -> tuple[str, ...]:
    """The versions that a run's numbers depend on."""
    return (
        f"Running Python {sys.version.split()[0]} on {platform.system()} {platform.machine()}",
        f"Running PyTorch {torch.__version__} numpy {np.__version__} zstandard {zstandard.__version__}",
        f"threads:{torch.get_num_threads()}",
    )


@dataclass
class RunLog:
    """Where a run's lines go: console and file on the first rank, nowhere on the others.

    Attributes:
        path: The log file, made new with its folders; None keeps the log on the console.
        console: Writes one line where a person sees it.
        enabled: False on every rank but the first.
    """

    path: Path | None
    console: Callable[[str], object] = print
    enabled: bool = True
    _started: bool = field(default=False, init=False)

    def say(self, *lines: str) -> None:
        """Write lines to the console and to the file."""
        if self.enabled:
            for line in lines:
                self.console(line)
            self.record(*lines)

    def record(self, *lines: str) -> None:
        """Write lines to the file only; each call appends and closes, so that a killed run keeps its lines."""
        if not self.enabled or self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a" if self._started else "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        self._started = True

    def record_header(self, hyperparameters: Mapping[str, object], code: str, versions: Sequence[str]) -> None:
        """Open the log: settings for everybody, the script's own source and the versions in the file only.

        Each part ends with a line of "=", so that readers can strip the source before they search the log.
        """
        settings = (f"  {name}: {value}" for name, value in sorted(hyperparameters.items()))
        self.say(RULE_LINE, "Hyperparameters:", *settings, RULE_LINE)
        self.record(code.rstrip("\n"), RULE_LINE, *versions, RULE_LINE)


# --- storage ---

class RunError(RuntimeError):
    """The run cannot go on, or cannot give a valid submission."""


def pack_model(state: Mapping[str, Tensor], config: Config) -> bytes:
    """The artifact of a model's weights, with the settings that rebuild it; raises ArtifactError."""
    return pack(state, json.dumps(asdict(config.model), sort_keys=True), config.quant)


def unpack_model(blob: bytes, config: ModelConfig) -> dict[str, Tensor]:
    """The weights of an artifact.

    Raises:
        ArtifactError: It is damaged, or was packed under other settings of the model.
    """
    return unpack(blob, expect=partial(refuse_other_model, config))[1]


def refuse_other_model(config: ModelConfig, header: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse settings or tensors that are not those of the model; raises ArtifactError that names them."""
    expected = json.loads(json.dumps(asdict(config)))
    differing = sorted(key for key in expected | header["config"] if expected.get(key) != header["config"].get(key))
    if differing:
        raise ArtifactError(f"the artifact was packed under other settings of {', '.join(differing)}")
    with torch.device("meta"):  # shapes only
        model = {name: tuple(tensor.shape) for name, tensor in HymbaLM(config).state_dict().items()}
    if odd := sorted(name for name in {*model, *shapes} if model.get(name) != shapes.get(name)):
        raise ArtifactError(f"the artifact's tensors are not those of the model: {', '.join(odd[:5])}")


def cpu_state(model: HymbaLM) -> dict[str, Tensor]:
    """A copy of the weights by name."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def artifact_path(config: Config) -> Path:
    """Where the artifact stands, from the working directory."""
    return Path(config.data.artifact_path or f"final_model.int{config.quant.bits}.ptz")


def raw_path(weights: Path) -> Path:
    """Where the last weights stand beside the averaged ones: final_model.raw.pt beside final_model.pt."""
    return weights.with_suffix(f".raw{weights.suffix}")


def state_bytes(state: Mapping[str, Tensor]) -> bytes:
    """Weights as torch saves them."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def load_state(path: Path) -> dict[str, Tensor]:
    """Weights that `state_bytes` made; raises RunError when there are none."""
    content = io.BytesIO(read_whole(path))
    try:
        state: Any = torch.load(content, map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError, KeyError, ValueError) as error:
        raise RunError(f"{path}: not saved weights ({error})") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise RunError(f"{path}: not saved weights (no tensors by name)")
    return dict(state)


def read_whole(path: Path) -> bytes:
    """A file's bytes; raises RunError that names it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}") from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename it: nobody ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.partial")
    temporary.write_bytes(content)
    temporary.replace(path)


# --- optim ---

NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_EPSILON = 1e-7

# Small tensors that steer the network rather than carry its content: Adam, no decay, full precision.
ADAM_NAMES = ("attn_scale", "mlp_scale", "resid_mix", "q_gain", "skip_weights", "smear", "merge_alpha", "A_log")


class OptimizerError(ValueError):
    """The parameters cannot be divided into optimizer groups."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share an update rule and a base learning rate.

    Attributes:
        name: "matrix" (Muon), or "embedding", "head", "scalar" (Adam).
        names: The parameters' names in the model, in its order.
        parameters: The parameters themselves, in the same order.
        learning_rate: Before the schedule's factor.
    """

    name: str
    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]
    learning_rate: float


def build_groups(model: nn.Module, config: Config) -> tuple[ParameterGroup, ...]:
    """Divide the model's parameters into optimizer groups.

    Raises:
        OptimizerError: A parameter belongs to no group or to two, or is reached by two names (it would be updated
            twice).
    """
    rates = {
        "matrix": config.optim.matrix_lr,
        "embedding": config.optim.tied_embed_lr if config.model.tie_embeddings else config.optim.embed_lr,
        "head": config.optim.head_lr,
        "scalar": config.optim.scalar_lr,
    }
    members: dict[str, list[tuple[str, nn.Parameter]]] = {name: [] for name in rates}
    first_name: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in first_name:
            raise OptimizerError(f"parameter {name} is the same tensor as {first_name[id(parameter)]}")
        first_name[id(parameter)] = name
        members[_group_of(name, parameter)].append((name, parameter))
    return tuple(
        ParameterGroup(group, tuple(n for n, _ in found), tuple(p for _, p in found), rates[group])
        for group, found in members.items()
        if found
    )


def _group_of(name: str, parameter: Tensor) -> str:
    is_table = name.endswith(("bigram_hash.table.weight", "meta_tokens"))
    is_control = any(part.startswith(ADAM_NAMES) for part in name.split("."))
    is_content = not (is_table or is_control or name in {"tok_emb.weight", "lm_head.weight"})
    inside = name.startswith(("blocks.", "bigram_hash.")) or "bank" in name
    belongs = {
        "matrix": is_content and inside and parameter.ndim == 2,
        "embedding": name == "tok_emb.weight",
        "head": name == "lm_head.weight",
        # A depthwise convolution's weight has three axes but is one short filter per channel, not a matrix.
        "scalar": is_table or is_control or (is_content and (parameter.ndim < 2 or "conv" in name)),
    }
    groups = [group for group, member in belongs.items() if member]
    if len(groups) != 1:
        shape = tuple(parameter.shape)
        raise OptimizerError(f"parameter {name} {shape} is in {len(groups)} optimizer groups: {groups or 'none'}")
    return groups[0]


def orthogonalize(matrices_NRC: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Push every singular value of each matrix towards 1 with a quintic Newton-Schulz iteration.

    Args:
        matrices_NRC: (N, R, C), any float dtype.
        steps: Iterations; five bring the singular values of a typical gradient into about 0.7 to 1.2.
        dtype: Of the products.

    Returns:
        (N, R, C) in `dtype`.
    """
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    X_NRC = matrices_NRC.to(dtype)
    X_NRC = X_NRC / (X_NRC.norm(dim=(-2, -1), keepdim=True) + NEWTON_SCHULZ_EPSILON)
    tall = X_NRC.size(-2) > X_NRC.size(-1)
    if tall:
        X_NRC = X_NRC.mT
    for _ in range(steps):
        gram_NRR = X_NRC @ X_NRC.mT
        polynomial_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c)
        X_NRC = torch.baddbmm(X_NRC, polynomial_NRR, X_NRC, beta=a)
    return X_NRC.mT if tall else X_NRC


class Muon:
    """Nesterov momentum, orthogonalized, with decoupled weight decay; one batched iteration per matrix shape."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], *, weight_decay: float, steps: int, dtype: torch.dtype
    ) -> None:
        self.weight_decay = weight_decay
        self.steps = steps
        self.dtype = dtype
        by_shape: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for parameter in parameters:
            by_shape.setdefault(tuple(parameter.shape), []).append(parameter)
        self.stacks = tuple(tuple(stack) for stack in by_shape.values())
        self.momentum_buffers = [
            torch.zeros(len(stack), *stack[0].shape, device=stack[0].device) for stack in self.stacks
        ]

    @torch.no_grad()
    def step(self, learning_rate: float, momentum: float) -> None:
        """Apply one update from the parameters' gradients; a missing gradient counts as zero."""
        for stack, buffer_NRC in zip(self.stacks, self.momentum_buffers, strict=True):
            gradient_NRC = torch.stack([torch.zeros_like(p) if p.grad is None else p.grad for p in stack]).float()
            buffer_NRC.mul_(momentum).add_(gradient_NRC)
            nesterov_NRC = gradient_NRC.add_(buffer_NRC, alpha=momentum)
            update_NRC = orthogonalize(nesterov_NRC, self.steps, self.dtype)
            rows, columns = update_NRC.shape[-2:]
            scale = max(1.0, rows / columns) ** 0.5
            for parameter, update_RC in zip(stack, update_NRC, strict=True):
                parameter.mul_(1.0 - learning_rate * self.weight_decay)
                parameter.add_(update_RC.to(parameter.dtype), alpha=-learning_rate * scale)


class Optimizers:
    """Muon and Adam behind one `step`: the schedule's factor and the momentum come in, nothing else varies."""

    def __init__(self, groups: Sequence[ParameterGroup], config: OptimConfig, dtype: torch.dtype) -> None:
        self.groups = tuple(groups)
        self.matrix_groups = [
            (Muon(g.parameters, weight_decay=config.weight_decay, steps=config.muon_backend_steps, dtype=dtype), g)
            for g in groups
            if g.name == "matrix"
        ]
        self.adam_groups = [g for g in groups if g.name != "matrix"]
        self.adam = torch.optim.Adam(
            [{"params": list(g.parameters), "lr": g.learning_rate} for g in self.adam_groups],
            betas=(config.beta1, config.beta2),
            eps=config.adam_eps,
            fused=True,
        )
        self.clip_norm = config.grad_clip_norm

    def parameters(self) -> Iterator[nn.Parameter]:
        """Every parameter once, in group order: the same on every rank."""
        for group in self.groups:
            yield from group.parameters

    def step(self, scale: float, momentum: float) -> None:
        """Update every parameter, then drop the gradients.

        Args:
            scale: The schedule's factor on every learning rate.
            momentum: Muon's, of this step.
        """
        if self.clip_norm > 0.0:
            nn.utils.clip_grad_norm_(self.parameters(), self.clip_norm)
        for muon, group in self.matrix_groups:
            muon.step(group.learning_rate * scale, momentum)
        for options, group in zip(self.adam.param_groups, self.adam_groups, strict=True):
            options["lr"] = group.learning_rate * scale
        self.adam.step()
        for parameter in self.parameters():
            parameter.grad = None


def build_optimizers(model: nn.Module, config: Config, dtype: torch.dtype = torch.float32) -> Optimizers:
    """Make fresh optimizers for the model (raises `OptimizerError`, see `build_groups`)."""
    return Optimizers(build_groups(model, config), config.optim, dtype)


# --- schedule ---

@dataclass(frozen=True)
class Schedule:
    """Learning-rate factor, momentum and end of a run.

    Attributes:
        iterations: Steps at most.
        max_wallclock_seconds: Training time at most; 0 means fixed-step mode.
        warmdown_iters: Steps over which the factor falls from 1 to 0 at the end; 0 means never.
        warmdown_shape: "linear" or "cosine".
        warmdown_frac: When above 0, the warmdown is this share of the run (of its time, or of its steps without a
            limit) whatever `warmdown_iters` says: the same on a fast and on a slow machine.
    """

    iterations: int
    max_wallclock_seconds: float
    warmdown_iters: int
    warmdown_shape: str
    warmdown_frac: float = 0.0

    @staticmethod
    def from_config(config: TrainConfig) -> Schedule:
        """Take the schedule's part of a configuration."""
        return Schedule(
            iterations=config.iterations,
            max_wallclock_seconds=config.max_wallclock_seconds,
            warmdown_iters=config.warmdown_iters,
            warmdown_shape=config.warmdown_shape,
            warmdown_frac=config.warmdown_frac,
        )

    @property
    def is_timed(self) -> bool:
        """Whether a wallclock limit ends the run."""
        return self.max_wallclock_seconds > 0.0

    def is_over(self, step: int, elapsed_s: float) -> bool:
        """Whether no further step may start after `step` finished steps and `elapsed_s` seconds of training."""
        return step >= self.iterations or (self.is_timed and elapsed_s >= self.max_wallclock_seconds)

    def factor(self, step: int, elapsed_s: float) -> float:
        """The learning-rate factor for the step that starts now: in (0, 1] as long as the run is not over."""
        remaining = self._remaining(step, elapsed_s)
        return remaining if self.warmdown_shape == "linear" else math.sin(0.5 * math.pi * remaining) ** 2

    def _remaining(self, step: int, elapsed_s: float) -> float:
        """What is left of the warmdown, 1 before it begins.

        A step limit counts in timed runs too: whichever end comes first is the end.
        """
        if self.warmdown_frac > 0.0:
            left = 1.0 - step / max(self.iterations, 1)
            if self.is_timed:
                left = min(left, 1.0 - elapsed_s / self.max_wallclock_seconds)
            return min(max(left / self.warmdown_frac, 0.0), 1.0)
        if self.warmdown_iters <= 0:
            return 1.0
        steps_left = float(self.iterations - step)
        if self.is_timed and step > 0 and elapsed_s > 0.0:
            steps_left = min(steps_left, (self.max_wallclock_seconds - elapsed_s) * step / elapsed_s)
        return min(max(steps_left / self.warmdown_iters, 0.0), 1.0)


def muon_momentum(config: OptimConfig, step: int) -> float:
    """Muon's momentum at a step: rises linearly over the warm-up, then stays."""
    if config.muon_momentum_warmup_steps <= 0:
        return config.muon_momentum
    done = min(step / config.muon_momentum_warmup_steps, 1.0)
    return (1.0 - done) * config.muon_momentum_warmup_start + done * config.muon_momentum


class ExponentialAverage:
    """Exponential moving average of named tensors, corrected for its start as Adam's moments are.

    Without the correction an average with decay 0.997 still holds 40% of the random initial weights after 300 steps.
    After n updates the weight of the update made k updates ago is d^k (1 - d) / (1 - d^n): they sum to one.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.names: tuple[str, ...] = ()
        self.averages: list[Tensor] = []

    @torch.no_grad()
    def update(self, named_tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Take in the present values; the first call decides the names."""
        pairs = list(named_tensors)
        self.updates += 1
        if self.updates == 1:
            self.names = tuple(name for name, _ in pairs)
            self.averages = [tensor.detach().float().clone() for _, tensor in pairs]
            return
        share = (1.0 - self.decay) / (1.0 - self.decay**self.updates)
        for average, (_, tensor) in zip(self.averages, pairs, strict=True):
            average.lerp_(tensor.detach().float(), share)

    def values(self) -> dict[str, Tensor]:
        """The corrected averages by name; empty before the first update."""
        return dict(zip(self.names, self.averages, strict=True))


# --- train ---

Clock: TypeAlias = Callable[[], float]
# Scores the model as it is: nats per token and bits per byte.
Validation: TypeAlias = Callable[[], tuple[float, float]]

MICRO_BATCHES_BY_DEFAULT = 8
FIRST_STEPS_LOGGED = 10
TRAIN_FILES = "fineweb_train_*.bin"


class TrainingError(RuntimeError):
    """Training cannot go on."""


@dataclass
class Stopwatch:
    """Seconds of training on an injected clock; validation does not count.

    Attributes:
        clock: Seconds that only grow.
        device: Its queued work is finished before the clock is read.
    """

    clock: Clock
    device: str
    _before_s: float = field(default=0.0, init=False)
    _since_s: float = field(default=0.0, init=False)

    def start(self) -> None:
        """Begin, or go on, counting."""
        self._since_s = self._now()

    def elapsed_s(self) -> float:
        """Seconds counted so far."""
        return self._before_s + self._now() - self._since_s

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count what happens inside."""
        self._before_s = self.elapsed_s()
        yield
        self.start()

    def _now(self) -> float:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)
        return self.clock()


@dataclass(frozen=True)
class TrainingResult:
    """What a run leaves beside the model's own weights.

    Attributes:
        steps: Finished steps.
        train_s: Training time in seconds.
        average: Averaged parameters by name; empty when no step was averaged.
    """

    steps: int
    train_s: float
    average: dict[str, Tensor]


def accumulation_steps(config: Config, world_size: int) -> int:
    """Micro-batches per process and step: as configured, or eight shared by the processes.

    Raises:
        ConfigError: Eight cannot be shared evenly.
    """
    if config.train.grad_accum_steps:
        return config.train.grad_accum_steps
    if MICRO_BATCHES_BY_DEFAULT % world_size:
        raise ConfigError(f"GRAD_ACCUM_STEPS: must be given, {MICRO_BATCHES_BY_DEFAULT} / {world_size} is not whole")
    return MICRO_BATCHES_BY_DEFAULT // world_size


def training_loader(config: Config, worker: Worker) -> BatchLoader:
    """Open the train shards.

    Raises:
        ConfigError: The batch cannot be shared evenly.
        ShardError: No shards, or a damaged one.
    """
    parts = accumulation_steps(config, worker.world_size) * worker.world_size
    if config.train.train_batch_tokens % (config.train.train_seq_len * parts):
        size, length = config.train.train_batch_tokens, config.train.train_seq_len
        raise ConfigError(f"TRAIN_BATCH_TOKENS: {size} is not a multiple of {length} tokens x {parts} micro-batches")
    stream = TokenStream(find_shards(f"{config.data.data_path}/{TRAIN_FILES}"), config.model.vocab_size)
    return BatchLoader(
        stream, config.train.train_batch_tokens, config.train.train_seq_len, worker, parts // worker.world_size
    )


@dataclass
class Trainer:
    """One run over one model, which it changes in place.

    Attributes:
        model: Gives `token_losses(tokens_BT, targets_BT)` in nats.
        config: Length, batch, rates.
        loader: Deals the train shards out.
        worker: This process.
        log: Where lines go.
        clock: Injected; monotonic seconds.
        validate: Scores the model during training; None never does.
    """

    model: HymbaLM
    config: Config
    loader: BatchLoader
    worker: Worker
    log: RunLog
    clock: Clock = time.perf_counter
    validate: Validation | None = None

    def run(self) -> TrainingResult:
        """Train to the schedule's end.

        Raises:
            OptimizerError: A parameter is in no group or in two.
            TrainingError: The loss is not finite.
        """
        self.model.train()
        self._warm_up()
        schedule, settings = Schedule.from_config(self.config.train), self.config.train
        optimizers = build_optimizers(self.model, self.config, self.worker.autocast or torch.float32)
        average = ExponentialAverage(settings.ema_decay**settings.ema_every)
        watch, step = Stopwatch(self.clock, self.worker.device), 0
        watch.start()
        while not schedule.is_over(step, elapsed_s := self._agree(watch.elapsed_s())):
            loss = self._step(optimizers, step, schedule.factor(step, elapsed_s))
            step += 1
            if step % settings.ema_every == 0:
                average.update(self.model.named_parameters())
            self._report(step, loss, watch)
        self._report_end(step, elapsed_s, schedule)
        return TrainingResult(step, elapsed_s, average.values())

    def _step(self, optimizers: Optimizers, step: int, factor: float) -> Tensor:
        """One update; returns the mean loss of this process's micro-batches."""
        accumulation = accumulation_steps(self.config, self.worker.world_size)
        total = torch.zeros((), device=self.worker.device)
        for micro in range(accumulation):
            inputs_BT, targets_BT = self.loader.batch(step, micro)
            with self.worker.precision():
                loss = self.model.token_losses(inputs_BT, targets_BT).mean() / accumulation
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        average_gradients(list(optimizers.parameters()), self.worker)
        optimizers.step(factor, muon_momentum(self.config.optim, step))
        return total

    def _warm_up(self) -> None:
        """Take steps for the machine's sake (caches, allocators, kernels), then put every weight back."""
        settings = self.config.train
        before = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        optimizers = build_optimizers(self.model, self.config, self.worker.autocast or torch.float32)
        for step in range(settings.warmup_steps):
            self._step(optimizers, step, 1.0)
            self.log.say(f"warmup_step:{step + 1}/{settings.warmup_steps}")
        self.model.load_state_dict(before)

    def _agree(self, elapsed_s: float) -> float:
        """The longest time of any process: all use the same rate and stop after the same step."""
        if self.worker.world_size == 1:
            return elapsed_s
        longest = torch.tensor(elapsed_s, dtype=torch.float64, device=self.worker.device)
        dist.all_reduce(longest, op=dist.ReduceOp.MAX)
        return float(longest.item())

    def _report(self, step: int, loss: Tensor, watch: Stopwatch) -> None:
        settings = self.config.train
        shown = step <= FIRST_STEPS_LOGGED or step % max(settings.train_log_every, 1) == 0
        # The last step always: readers take the number of steps and the training time from its line.
        if step == settings.iterations or (settings.train_log_every and shown):
            value = loss.item()
            if not math.isfinite(value):
                raise TrainingError(f"training loss {value} at step {step}")
            self.log.say(train_line(Progress(step, settings.iterations, 1000.0 * watch.elapsed_s()), value))
        if self.validate is not None and settings.val_loss_every and step % settings.val_loss_every == 0:
            progress = Progress(step, settings.iterations, 1000.0 * watch.elapsed_s())
            with watch.paused():
                self.log.say(validation_line(progress, *self.validate()))

    def _report_end(self, step: int, elapsed_s: float, schedule: Schedule) -> None:
        progress = Progress(step, self.config.train.iterations, 1000.0 * elapsed_s)
        if self.validate is not None:
            self.log.say(validation_line(progress, *self.validate()))
        if schedule.is_timed and step < self.config.train.iterations:
            self.log.say(stop_line(progress))


def average_gradients(parameters: Sequence[nn.Parameter], worker: Worker) -> None:
    """Replace every gradient by its mean over the processes, in one message; a missing one counts as zero."""
    if worker.world_size == 1:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = worker.all_sum(torch.cat([gradient.flatten() for gradient in gradients])) / worker.world_size
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    for parameter, mean in zip(parameters, parts, strict=True):
        parameter.grad = mean.view_as(parameter)


# --- main ---

VALIDATION_FILES = "fineweb_val_*.bin"
TOTAL_CAP_BYTES = 16_000_000
EXIT_FAILED = 1
EXIT_USAGE = 2
RUN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")

Read = TypeVar("Read")


@dataclass(frozen=True)
class Inputs:
    """What scoring needs from disk: the validation tokens and the bytes they stand for."""

    tokens: Tensor
    table: ByteTable

    @classmethod
    def load(cls, config: Config) -> Inputs:
        """Read the validation shards and the tokenizer.

        Raises:
            ConfigError: They cannot be read or do not fit VOCAB_SIZE; the message begins with the variable's name.
        """
        data, vocab_size = config.data, config.model.vocab_size
        table = blaming("TOKENIZER_PATH", lambda: load_byte_table(data.tokenizer_path, vocab_size))
        if (size := tokenizer_size(data.tokenizer_path)) != vocab_size:
            raise ConfigError(f"VOCAB_SIZE: {vocab_size}, but the tokenizer has {size} tokens")
        tokens = blaming("DATA_PATH", lambda: load_validation(f"{data.data_path}/{VALIDATION_FILES}", vocab_size))
        return cls(tokens, table)


def tokenizer_size(path: str) -> int:
    """Tokens of a SentencePiece model."""
    import sentencepiece

    size: int = sentencepiece.SentencePieceProcessor(model_file=path).vocab_size()
    return size


def blaming(variable: str, read: Callable[[], Read]) -> Read:
    """Call `read`; a value it refuses becomes a ConfigError that begins with the variable's name."""
    try:
        return read()
    except ValueError as error:
        raise ConfigError(f"{variable}: {error}") from error


@dataclass(frozen=True)
class Run:
    """One start of the script: its settings, its place among the processes, its log and clock."""

    config: Config
    worker: Worker
    log: RunLog
    script: Path
    clock: Clock

    def train_and_score(self) -> None:
        """Train, save, pack and score.

        Raises:
            ConfigError: A setting does not fit the data or the number of processes.
            RunError: The submission would be above the cap.
        """
        inputs = Inputs.load(self.config)
        loader = blaming("DATA_PATH", lambda: training_loader(self.config, self.worker))
        model = build_model(self.config, self.worker.device)
        shards = len(find_shards(f"{self.config.data.data_path}/{TRAIN_FILES}"))
        self.log.say(f"train_loader:dataset:{Path(self.config.data.data_path).name} train_shards:{shards}")
        self._describe(inputs, model)
        validate = partial(self.score_plain, model, inputs, stride=0) if self._validates else None
        result = Trainer(model, self.config, loader, self.worker, self.log, self.clock, validate).run()
        self._save(model, result)
        if self.config.evaluation.diagnostics:
            began_s = self.clock()
            scores = self.score_plain(model, inputs, stride=self.config.evaluation.eval_stride)
            self.log.say(diagnostic_line("post_ema", scores, self.clock() - began_s))
        self.repack()
        self._score_artifact(model, inputs)

    def repack(self) -> None:
        """Pack the saved weights into the artifact.

        Raises:
            RunError: No saved weights, or the submission would be above the cap.
        """
        if self.worker.rank == 0:
            blob = pack_model(load_state(Path(self.config.data.weights_path)), self.config)
            self._report_size(len(blob))
            write_whole(artifact_path(self.config), blob)
        self._wait_for_all()

    def score_only(self) -> None:
        """Score the artifact on disk; training data is never opened."""
        inputs, model = Inputs.load(self.config), build_model(self.config, self.worker.device)
        self._describe(inputs, model)
        self._report_size(len(read_whole(artifact_path(self.config))))
        self._score_artifact(model, inputs)

    def score_plain(self, model: HymbaLM, inputs: Inputs, *, stride: int) -> tuple[float, float]:
        """Nats per token and bits per byte without test-time training; stride 0 cuts windows side by side."""
        evaluation = replace(self.config.evaluation, ttt_enabled=False, eval_stride=stride)
        plain = replace(self.config, evaluation=evaluation)
        result = evaluate(evaluation_task(model, inputs, plain, self.worker))
        return result.val_loss, result.val_bpb

    @property
    def _validates(self) -> bool:
        return self.config.evaluation.diagnostics or self.config.train.val_loss_every > 0

    def _save(self, model: HymbaLM, result: TrainingResult) -> None:
        """Save the last weights and the averaged ones; the model is left with the averaged ones."""
        last = cpu_state(model)
        model.load_state_dict(result.average, strict=False)
        if self.worker.rank == 0:
            weights = Path(self.config.data.weights_path)
            write_whole(raw_path(weights), state_bytes(last))
            write_whole(weights, state_bytes(cpu_state(model)))
        self._wait_for_all()

    def _wait_for_all(self) -> None:
        self.worker.all_sum(torch.zeros(1, device=self.worker.device))

    def _describe(self, inputs: Inputs, model: HymbaLM) -> None:
        train, data = self.config.train, self.config.data
        # Scoring alone has no steps to divide.
        scoring = self.config.evaluation.eval_only
        accumulation = 1 if scoring else accumulation_steps(self.config, self.worker.world_size)
        self.log.say(
            f"val_bpb:enabled tokenizer_kind=sentencepiece tokenizer_path={data.tokenizer_path}",
            f"val_loader:shards pattern={data.data_path}/{VALIDATION_FILES} tokens:{inputs.tokens.numel() - 1}",
            f"model_params:{sum(parameter.numel() for parameter in model.parameters())}",
            f"world_size:{self.worker.world_size} grad_accum_steps:{accumulation}",
            f"train_batch_tokens:{train.train_batch_tokens} train_seq_len:{train.train_seq_len} "
            f"iterations:{train.iterations} warmup_steps:{train.warmup_steps} "
            f"max_wallclock_seconds:{train.max_wallclock_seconds:.3f}",
            f"seed:{train.seed}",
        )

    def _report_size(self, model_bytes: int) -> None:
        code_bytes, quant = self.script.stat().st_size, self.config.quant
        self.log.say(*size_lines(f"int{quant.bits}+zstd-{quant.zstd_level}", code_bytes, model_bytes))
        if code_bytes + model_bytes > TOTAL_CAP_BYTES:
            raise RunError(f"{code_bytes + model_bytes} bytes of code and model, the cap is {TOTAL_CAP_BYTES}")

    def _score_artifact(self, model: HymbaLM, inputs: Inputs) -> None:
        """Load what is on disk and score it; the last line is the headline."""
        model.load_state_dict(unpack_model(read_whole(artifact_path(self.config)), self.config.model))
        evaluation = self.config.evaluation
        plain = replace(evaluation, ttt_enabled=False)
        # A run shows what adapting gains; an artifact scored again needs the headline only.
        if not (evaluation.ttt_enabled and evaluation.eval_only):
            self._score(f"final_int{self.config.quant.bits}_roundtrip", model, inputs, plain)
        if evaluation.ttt_enabled:
            self._score("legal_ttt", model, inputs, evaluation)

    def _score(self, label: str, model: HymbaLM, inputs: Inputs, evaluation: EvalConfig) -> None:
        task = evaluation_task(model, inputs, replace(self.config, evaluation=evaluation), self.worker)
        began_s = self.clock()
        result = evaluate(task, partial(self._report_chunk, began_s))
        seconds = self.clock() - began_s
        mode = evaluation_name(task).replace(", ", "+").replace(" ", "_")
        self.log.say(*score_lines(label, (result.val_loss, result.val_bpb), mode, seconds))

    def _report_chunk(self, began_s: float, chunk: int, chunks: int, result: EvalResult) -> None:
        self.log.say(f"  ttt_chunk [{chunk}/{chunks}] bpb={result.val_bpb:.6f} time={self.clock() - began_s:.1f}s")


def evaluation_task(model: HymbaLM, inputs: Inputs, config: Config, worker: Worker) -> EvalTask:
    """The model on the validation tokens, scored as the settings say."""
    return EvalTask(model, inputs.tokens, inputs.table, config.evaluation, config.eval_seq_len, worker)


def build_model(config: Config, device: str) -> HymbaLM:
    """A fresh model whose weights depend on the seed and the settings alone."""
    torch.manual_seed(config.train.seed)
    return HymbaLM(config.model).to(device)


def read_config(environ: Mapping[str, str], preset: str) -> Config:
    """The preset as the environment changes it.

    Raises:
        ConfigError: A value is out of range, or two exclude each other; the message begins with the variable's name.
    """
    config = Config.from_environment(environ, PRESETS[preset])
    if config.evaluation.eval_only and config.evaluation.repack_only:
        raise ConfigError("EVAL_ONLY: excludes REPACK_ONLY")
    if not RUN_NAME.fullmatch(config.data.run_id):
        raise ConfigError(f"RUN_ID: {config.data.run_id!r} is not a file name of letters, digits, _ . and -")
    return config


def main(environ: Mapping[str, str], script: Path, preset: str, *, clock: Clock = time.perf_counter) -> int:
    """Run the script; returns its exit status: 0, 1 when the run failed, 2 when a setting cannot be used.

    Args:
        environ: Settings (see `Config.from_environment`) and torchrun's variables.
        script: The file whose bytes count as code.
        preset: The settings to start from.
        clock: Monotonic seconds.
    """
    try:
        config = read_config(environ, preset)
        with started_worker(environ) as worker:
            start_run(config, worker, script, clock)
    except ConfigError as error:
        sys.stderr.write(f"{script.name}: {error}\n")
        return EXIT_USAGE
    except (RunError, ArtifactError, ShardError, TrainingError) as error:
        sys.stderr.write(f"{script.name}: {error}\n")
        return EXIT_FAILED
    return 0


def start_run(config: Config, worker: Worker, script: Path, clock: Clock) -> None:
    """Open the log and run in the mode that the settings ask for."""
    evaluation = config.evaluation
    mode = ".eval" if evaluation.eval_only else ".repack" if evaluation.repack_only else ""
    log = RunLog(Path("logs") / f"{config.data.run_id}{mode}.txt", enabled=worker.rank == 0)
    settings = {name.lower(): value for name, value in config.to_environment().items()}
    log.record_header(settings, script.read_text(encoding="utf-8"), version_lines())
    run = Run(config, worker, log, script, clock)
    if evaluation.eval_only:
        run.score_only()
    elif evaluation.repack_only:
        run.repack()
    else:
        run.train_and_score()


if __name__ == "__main__":
    sys.exit(main(os.environ, Path(__file__), preset="demo"))
