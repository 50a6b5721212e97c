"""Hymba, attention beside a selective scan: preset paper, one file bundled from the package reference_model 0.1.0.

Configured by environment variables; start it with `python train_gpt.py` or
`torchrun --standalone --nproc_per_node=N train_gpt.py`.
"""
from __future__ import annotations
import os
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
import bisect
import functools
import hashlib
import io
import itertools
import json
import math
import numpy as np
import numpy.typing as npt
import platform
import re
import shutil
import struct
import sys
import time
import torch
import torch.distributed as dist
import torch.nn.functional as F
import warnings
import zstandard
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple, NoReturn, Protocol, TypeAlias, TypeVar, cast, get_type_hints

class ConfigError(ValueError):
    pass

@dataclass(frozen=True)
class Setting:
    name: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[int | str, ...] = ()

    def check(self, value: object) -> None:
        if self.choices and value not in self.choices:
            raise ConfigError(f"{self.name}: {value!r} is not one of {', '.join(map(str, self.choices))}")
        if isinstance(value, float) and (not math.isfinite(value)):
            raise ConfigError(f'{self.name}: {value} is not a finite number')
        if isinstance(value, (int, float)) and (not self.low <= value <= self.high):
            raise ConfigError(f'{self.name}: {value} is outside {self.low:g} .. {self.high:g}')

def parse_setting(setting: Setting, kind: object, text: str) -> object:
    word = text.strip()
    try:
        if kind is bool:
            return {'0': False, '1': True}[word]
        if kind is int:
            return int(word)
        if kind is float:
            return float(word)
        if kind is str:
            return text
        return None if word == 'auto' else tuple((int(part) for part in word.split(',') if word != 'none'))
    except (KeyError, ValueError):
        expected = {bool: '0 or 1', int: 'an integer', float: 'a number'}.get(kind if isinstance(kind, type) else object, 'auto, none or integers separated by commas')
        raise ConfigError(f'{setting.name}: {text!r} is not {expected}') from None

def format_setting(value: object) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, tuple):
        return ','.join(map(str, value)) or 'none'
    return 'auto' if value is None else str(value)

class Section:

    def __post_init__(self) -> None:
        for name, (setting, _) in section_settings(type(self)).items():
            setting.check(getattr(self, name))
        self.check_together()

    def check_together(self) -> None:
        pass

def section_settings(section: type) -> dict[str, tuple[Setting, object]]:
    hints = get_type_hints(section, include_extras=True)
    return {name: (hint.__metadata__[0], hint.__origin__) for name, hint in hints.items()}

@dataclass(frozen=True)
class ModelConfig(Section):
    vocab_size: Annotated[int, Setting('VOCAB_SIZE', 2, 1 << 17)] = 1024
    num_layers: Annotated[int, Setting('NUM_LAYERS', 1, 256)] = 7
    model_dim: Annotated[int, Setting('MODEL_DIM', 8, 1 << 14)] = 512
    num_heads: Annotated[int, Setting('NUM_HEADS', 1, 256)] = 8
    num_kv_heads: Annotated[int, Setting('NUM_KV_HEADS', 1, 256)] = 4
    mlp_mult: Annotated[int, Setting('MLP_MULT', 1, 64)] = 4
    activation: Annotated[str, Setting('ACTIVATION', choices=('relu2', 'leaky_relu2', 'silu'))] = 'relu2'
    leaky_relu_slope: Annotated[float, Setting('LEAKY_RELU_SLOPE', 0, 1)] = 0.9
    tie_embeddings: Annotated[bool, Setting('TIE_EMBEDDINGS')] = True
    tied_embed_init_std: Annotated[float, Setting('TIED_EMBED_INIT_STD', 1e-06, 10)] = 0.005
    use_smeargate: Annotated[bool, Setting('USE_SMEARGATE')] = True
    use_bigram_hash: Annotated[bool, Setting('USE_BIGRAM_HASH')] = True
    bigram_buckets: Annotated[int, Setting('BIGRAM_BUCKETS', 1, 1 << 24)] = 4096
    bigram_dim: Annotated[int, Setting('BIGRAM_HASH_DIM', 1, 1 << 14)] = 128
    use_unet_skips: Annotated[bool, Setting('USE_UNET_SKIPS')] = True
    use_hymba: Annotated[bool, Setting('USE_HYMBA')] = True
    hybrid_layers: Annotated[tuple[int, ...] | None, Setting('HYMBA_LAYERS')] = None
    fusion: Annotated[str, Setting('HYMBA_FUSION', choices=('weight', 'heads', 'norms'))] = 'weight'
    meta_tokens: Annotated[int, Setting('HYMBA_META_TOK', 0, 4096)] = 0
    kv_share: Annotated[bool, Setting('HYMBA_KV_SHARE')] = False
    banks: Annotated[str, Setting('PARAMETER_BANKS', choices=('none', 'separate', 'shared'))] = 'none'
    fused_projection: Annotated[bool, Setting('FUSED_PROJECTION')] = True
    separate_kv: Annotated[bool, Setting('SEPARATE_KV')] = False
    hymba_expand: Annotated[int, Setting('HYMBA_EXPAND', 1, 16)] = 1
    ssm_state: Annotated[int, Setting('HYMBA_SSM_STATE', 1, 256)] = 8
    conv_width: Annotated[int, Setting('HYMBA_CONV_KERNEL', 1, 64)] = 4
    dt_rank: Annotated[int, Setting('HYMBA_DT_RANK', 0, 1 << 14)] = 0
    scan_chunk: Annotated[int, Setting('HYMBA_SCAN_CHUNK', 1, 1 << 14)] = 64
    scan_backend: Annotated[str, Setting('HYMBA_SCAN_BACKEND', choices=('reference', 'torch', 'cpp'))] = 'torch'
    sliding_window: Annotated[int, Setting('SLIDING_WINDOW', 0, 1 << 24)] = 0
    global_layers: Annotated[tuple[int, ...] | None, Setting('SWA_GLOBAL_LAYERS')] = ()
    rope_base: Annotated[float, Setting('ROPE_BASE', 1, 1000000000.0)] = 10000.0
    rope_dims: Annotated[int, Setting('ROPE_DIMS', 0, 1 << 14)] = 0
    logit_softcap: Annotated[float, Setting('LOGIT_SOFTCAP', 0, 1000000.0)] = 30.0
    qk_gain_init: Annotated[float, Setting('QK_GAIN_INIT', 0, 1000.0)] = 1.5

    def check_together(self) -> None:
        if self.model_dim % (2 * self.num_heads):
            raise ConfigError(f'MODEL_DIM: {self.model_dim} is not a multiple of 2 * NUM_HEADS ({self.num_heads})')
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(f'NUM_KV_HEADS: {self.num_kv_heads} does not divide NUM_HEADS ({self.num_heads})')
        if any((not 0 <= layer < self.num_layers for layer in self.global_layers or ())):
            layers = format_setting(self.global_layers)
            raise ConfigError(f'SWA_GLOBAL_LAYERS: {layers} is outside the {self.num_layers} layers')
        if self.rope_dims % 2 or self.rope_dims > self.head_dim:
            raise ConfigError(f'ROPE_DIMS: {self.rope_dims} is no even part of a head of {self.head_dim}')
        self.check_hybrid()

    def check_hybrid(self) -> None:
        if self.fusion == 'heads' and self.num_heads % (2 * self.num_kv_heads):
            heads = f'half of NUM_HEADS ({self.num_heads})'
            raise ConfigError(f'HYMBA_FUSION: {heads} is no multiple of NUM_KV_HEADS ({self.num_kv_heads})')
        if self.fusion == 'norms' and self.hymba_expand != 1:
            raise ConfigError(f'HYMBA_FUSION: norms need branches of one width, HYMBA_EXPAND is {self.hymba_expand}')
        if self.banks != 'none' and (self.fusion == 'heads' or self.kv_share):
            raise ConfigError(f'PARAMETER_BANKS: {self.banks} excludes HYMBA_FUSION=heads and HYMBA_KV_SHARE=1')

    @property
    def head_dim(self) -> int:
        return self.model_dim // self.num_heads

    @property
    def ssm_dim(self) -> int:
        return self.hymba_expand * self.model_dim

    @property
    def ssm_dt_rank(self) -> int:
        return self.dt_rank or max(self.model_dim // 16, 1)

    @property
    def rotary_dims(self) -> int:
        return self.rope_dims or self.head_dim

    def is_global(self, layer: int) -> bool:
        automatic = (0, self.num_layers // 2, self.num_layers - 1)
        return layer in (automatic if self.global_layers is None else self.global_layers)

    def layer_window(self, layer: int) -> int:
        return 0 if self.is_global(layer) else self.sliding_window

    def is_hybrid(self, layer: int) -> bool:
        return self.use_hymba and (self.hybrid_layers is None or layer in self.hybrid_layers)

    def kv_source(self, layer: int) -> int:
        before = layer - 1
        if not (self.kv_share and before >= 0 and self.is_hybrid(layer) and self.is_hybrid(before)):
            return layer
        source = self.kv_source(before)
        if self.fusion == 'heads':
            return source
        return before if source == before and (not (self.is_global(before) or self.is_global(layer))) else layer

@dataclass(frozen=True)
class OptimConfig(Section):
    matrix_lr: Annotated[float, Setting('MATRIX_LR', 0, 100)] = 0.02
    scalar_lr: Annotated[float, Setting('SCALAR_LR', 0, 100)] = 0.02
    embed_lr: Annotated[float, Setting('EMBED_LR', 0, 100)] = 0.6
    tied_embed_lr: Annotated[float, Setting('TIED_EMBED_LR', 0, 100)] = 0.05
    head_lr: Annotated[float, Setting('HEAD_LR', 0, 100)] = 0.008
    muon_momentum: Annotated[float, Setting('MUON_MOMENTUM', 0, 0.9999)] = 0.95
    muon_backend_steps: Annotated[int, Setting('MUON_BACKEND_STEPS', 1, 100)] = 5
    muon_momentum_warmup_start: Annotated[float, Setting('MUON_MOMENTUM_WARMUP_START', 0, 0.9999)] = 0.85
    muon_momentum_warmup_steps: Annotated[int, Setting('MUON_MOMENTUM_WARMUP_STEPS', 0, 10 ** 9)] = 500
    beta1: Annotated[float, Setting('BETA1', 0, 0.99999)] = 0.9
    beta2: Annotated[float, Setting('BETA2', 0, 0.99999)] = 0.95
    adam_eps: Annotated[float, Setting('ADAM_EPS', 1e-16, 1)] = 1e-08
    weight_decay: Annotated[float, Setting('WEIGHT_DECAY', 0, 10)] = 0.02
    grad_clip_norm: Annotated[float, Setting('GRAD_CLIP_NORM', 0, 1000000000.0)] = 0.0

@dataclass(frozen=True)
class TrainConfig(Section):
    seed: Annotated[int, Setting('SEED', 0, (1 << 63) - 1)] = 1337
    iterations: Annotated[int, Setting('ITERATIONS', 0, 10 ** 9)] = 20000
    warmup_steps: Annotated[int, Setting('WARMUP_STEPS', 0, 10 ** 6)] = 20
    warmdown_iters: Annotated[int, Setting('WARMDOWN_ITERS', 0, 10 ** 9)] = 3000
    warmdown_frac: Annotated[float, Setting('WARMDOWN_FRAC', 0, 1)] = 0.0
    warmdown_shape: Annotated[str, Setting('WARMDOWN_SHAPE', choices=('linear', 'cosine'))] = 'cosine'
    train_batch_tokens: Annotated[int, Setting('TRAIN_BATCH_TOKENS', 1, 1 << 32)] = 524288
    train_seq_len: Annotated[int, Setting('TRAIN_SEQ_LEN', 1, 1 << 24)] = 2048
    max_wallclock_seconds: Annotated[float, Setting('MAX_WALLCLOCK_SECONDS', 0, 1000000000.0)] = 600.0
    train_log_every: Annotated[int, Setting('TRAIN_LOG_EVERY', 0, 10 ** 9)] = 200
    val_loss_every: Annotated[int, Setting('VAL_LOSS_EVERY', 0, 10 ** 9)] = 1000
    ema_decay: Annotated[float, Setting('EMA_DECAY', 0, 0.999999)] = 0.997
    ema_every: Annotated[int, Setting('EMA_EVERY', 1, 10 ** 6)] = 1
    grad_accum_steps: Annotated[int, Setting('GRAD_ACCUM_STEPS', 0, 10 ** 6)] = 0

    def check_together(self) -> None:
        if self.train_batch_tokens % self.train_seq_len:
            tokens, length = (self.train_batch_tokens, self.train_seq_len)
            raise ConfigError(f'TRAIN_BATCH_TOKENS: {tokens} is not a multiple of TRAIN_SEQ_LEN ({length})')

@dataclass(frozen=True)
class QuantConfig(Section):
    bits: Annotated[int, Setting('QUANT_BITS', choices=(4, 6, 8))] = 6
    clip_search: Annotated[bool, Setting('GPTQ_LITE')] = True
    scale_floor: Annotated[str, Setting('QUANT_SCALE_FLOOR', choices=('none', 'published'))] = 'none'
    keep_float_max_numel: Annotated[int, Setting('QUANT_KEEP_FLOAT_MAX_NUMEL', 0, 1 << 32)] = 65536
    zstd_level: Annotated[int, Setting('ZSTD_LEVEL', 1, 22)] = 22

@dataclass(frozen=True)
class EvalConfig(Section):
    eval_stride: Annotated[int, Setting('EVAL_STRIDE', 0, 1 << 24)] = 64
    eval_batch_seqs: Annotated[int, Setting('EVAL_BATCH_SEQS', 1, 1 << 20)] = 32
    eval_seq_len: Annotated[int, Setting('EVAL_SEQ_LEN', 0, 1 << 24)] = 0
    val_batch_size: Annotated[int, Setting('VAL_BATCH_SIZE', 1, 1 << 32)] = 524288
    ttt_enabled: Annotated[bool, Setting('TTT_ENABLED')] = False
    ttt_lr: Annotated[float, Setting('TTT_LR', 0, 100)] = 0.002
    ttt_epochs: Annotated[int, Setting('TTT_EPOCHS', 0, 10000)] = 3
    ttt_chunk_tokens: Annotated[int, Setting('TTT_CHUNK_TOKENS', 1, 1 << 40)] = 524288
    ttt_freeze_blocks: Annotated[int, Setting('TTT_FREEZE_BLOCKS', 0, 256)] = 0
    ttt_batch_seqs: Annotated[int, Setting('TTT_BATCH_SEQS', 1, 1 << 20)] = 4
    ttt_momentum: Annotated[float, Setting('TTT_MOMENTUM', 0, 0.9999)] = 0.9
    ttt_grad_clip: Annotated[float, Setting('TTT_GRAD_CLIP', 0, 1000000000.0)] = 1.0
    eval_only: Annotated[bool, Setting('EVAL_ONLY')] = False
    repack_only: Annotated[bool, Setting('REPACK_ONLY')] = False
    diagnostics: Annotated[bool, Setting('DIAGNOSTICS')] = False

@dataclass(frozen=True)
class DataConfig(Section):
    data_path: Annotated[str, Setting('DATA_PATH')] = './data/datasets/fineweb10B_sp1024'
    tokenizer_path: Annotated[str, Setting('TOKENIZER_PATH')] = './data/tokenizers/fineweb_1024_bpe.model'
    run_id: Annotated[str, Setting('RUN_ID')] = 'run'
    artifact_path: Annotated[str, Setting('ARTIFACT_PATH')] = ''
    weights_path: Annotated[str, Setting('WEIGHTS_PATH')] = 'final_model.pt'

@dataclass(frozen=True)
class Config:
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    quant: QuantConfig = field(default_factory=QuantConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        frozen, layers = (self.evaluation.ttt_freeze_blocks, self.model.num_layers)
        if frozen > layers:
            raise ConfigError(f'TTT_FREEZE_BLOCKS: {frozen} is more than NUM_LAYERS ({layers})')
        if self.evaluation.eval_stride > self.eval_seq_len:
            raise ConfigError(f'EVAL_STRIDE: {self.evaluation.eval_stride} is longer than the {self.eval_seq_len} scored')

    @property
    def eval_seq_len(self) -> int:
        return self.evaluation.eval_seq_len or self.train.train_seq_len

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], base: Config) -> Config:
        changes: dict[str, dict[str, Any]] = {}
        for section, name, setting, kind in config_settings():
            if setting.name in environ:
                changes.setdefault(section, {})[name] = parse_setting(setting, kind, environ[setting.name])
        if 'LEAKY_RELU_SLOPE' in environ and 'ACTIVATION' not in environ:
            changes['model']['activation'] = 'leaky_relu2'
        if 'HYMBA_ENABLED' in environ:
            enabled = parse_setting(Setting('HYMBA_ENABLED'), bool, environ['HYMBA_ENABLED'])
            changes.setdefault('model', {}).setdefault('use_hymba', enabled)
        return replace(base, **{section: replace(getattr(base, section), **new) for section, new in changes.items()})

    def to_environment(self) -> dict[str, str]:
        return {setting.name: format_setting(getattr(getattr(self, section), name)) for section, name, setting, _ in config_settings()}

def config_settings() -> Iterator[tuple[str, str, Setting, object]]:
    for section, section_type in get_type_hints(Config).items():
        for name, (setting, kind) in section_settings(section_type).items():
            yield (section, name, setting, kind)
SMALLEST_SCALE = 2.0 ** (-14)
CLIP_QUANTILES = (0.999999, 0.99999, 0.99995, 0.9999, 0.9995, 0.999)
CONTROL_NAMES = ('resid_mix', 'skip_weights', 'A_log')

class QuantizeError(ValueError):
    pass

@dataclass(frozen=True)
class QuantizedTensor:
    values: Tensor
    scale: Tensor
    bits: int
    dtype: torch.dtype

def largest_level(bits: int) -> int:
    return (1 << bits - 1) - 1

def quantize_rows(weight_RC: Tensor, bits: int, *, scale_floor: str='none', clip_search: bool=False) -> QuantizedTensor:
    if weight_RC.ndim < 2 or not weight_RC.is_floating_point() or (not weight_RC.shape[-1]):
        raise QuantizeError(f'cannot quantize {weight_RC.dtype} of shape {tuple(weight_RC.shape)} by rows')
    check_finite(weight_RC)
    wide_RC = weight_RC.detach().double()
    least = 1.0 / largest_level(bits) if scale_floor == 'published' else SMALLEST_SCALE
    limits = _clip_limits(wide_RC, clip_search=clip_search)
    scale_R, error_R = _scale_and_error(wide_RC, next(limits), bits, least)
    for limit_R in limits:
        other_R, other_error_R = _scale_and_error(wide_RC, limit_R, bits, least)
        scale_R = torch.where(other_error_R < error_R, other_R, scale_R)
        error_R = torch.minimum(other_error_R, error_R)
    if not bool(scale_R.isfinite().all()):
        raise QuantizeError(f'weights up to {wide_RC.abs().max():g} are too large for a float16 scale')
    return QuantizedTensor(_levels(wide_RC, scale_R, bits).to(torch.int8), scale_R.half(), bits, weight_RC.dtype)

def dequantize_rows(quantized: QuantizedTensor) -> Tensor:
    return (quantized.values.float() * quantized.scale.float()[..., None]).to(quantized.dtype)

def check_finite(tensor: Tensor) -> None:
    if not bool(tensor.isfinite().all()):
        raise QuantizeError(f'{int((~tensor.isfinite()).sum())} of {tensor.numel()} weights are not finite')

def tensor_kind(name: str, tensor: Tensor, config: QuantConfig) -> str:
    if tensor.ndim < 2 or name.rsplit('.', 1)[-1] in CONTROL_NAMES:
        return 'float32'
    if tensor.numel() > config.keep_float_max_numel:
        return f'int{config.bits}'
    return 'float16' if bool(tensor.half().isfinite().all()) else 'float32'

def _clip_limits(wide_RC: Tensor, *, clip_search: bool) -> Iterator[Tensor]:
    sorted_RC = wide_RC.abs().sort(dim=-1).values
    yield sorted_RC[..., -1]
    last = sorted_RC.shape[-1] - 1
    for quantile in CLIP_QUANTILES if clip_search else ():
        low = int(quantile * last)
        yield torch.lerp(sorted_RC[..., low], sorted_RC[..., min(low + 1, last)], quantile * last - low)

def _scale_and_error(wide_RC: Tensor, limit_R: Tensor, bits: int, least: float) -> tuple[Tensor, Tensor]:
    scale_R = _round_up_to_half((limit_R / largest_level(bits)).clamp_min(least))
    return (scale_R, (_levels(wide_RC, scale_R, bits) * scale_R[..., None] - wide_RC).square().sum(-1))

def _round_up_to_half(scale_R: Tensor) -> Tensor:
    half_R = scale_R.half()
    above_R = (half_R.view(torch.int16) + 1).view(torch.float16)
    return torch.where(half_R.double() < scale_R, above_R, half_R).double()

def _levels(wide_RC: Tensor, scale_R: Tensor, bits: int) -> Tensor:
    top = largest_level(bits)
    return (wide_RC / scale_R[..., None]).round().clamp(-top, top)
ARTIFACT_MAGIC = b'HYM1'
DIGEST_BYTES = 16
RAW_CAP_BYTES = 1 << 28
ARTIFACT_HEADER_CAP_BYTES = 1 << 20
READ_BYTES = 1 << 20
INTEGER_BITS = {'int8': 8, 'int6': 6, 'int4': 4}
FLOAT_TYPES = {'float16': '<f2', 'float32': '<f4'}
TENSOR_NAME = re.compile('[A-Za-z0-9_.]{1,200}')
HeaderCheck: TypeAlias = Callable[[Mapping[str, Any], Mapping[str, tuple[int, ...]]], None]

class ArtifactError(ValueError):
    pass

@dataclass(frozen=True)
class TensorEntry:
    name: str
    shape: tuple[int, ...]
    kind: str

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def scales(self) -> int:
        return math.prod(self.shape[:-1]) if self.kind in INTEGER_BITS else 0

def pack(state: Mapping[str, Tensor], model_config_json: str, quant: QuantConfig) -> bytes:
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
    header = json.dumps({'config': json.loads(model_config_json), 'tensors': tensors}, separators=(',', ':')).encode()
    parts = [struct.pack('<I', len(header)), header]
    parts.extend((tensor.values.numpy().tobytes() for tensor in quantized))
    parts.append(_planes([tensor.scale for tensor in quantized], '<f2'))
    parts.extend((_planes(floats[kind], code) for kind, code in FLOAT_TYPES.items()))
    frame = zstandard.ZstdCompressor(level=quant.zstd_level).compress(b''.join(parts))
    return ARTIFACT_MAGIC + _digest(frame) + frame

def accept_any(_header: Mapping[str, Any], _shapes: Mapping[str, tuple[int, ...]]) -> None:
    pass

def unpack(blob: bytes, raw_cap_bytes: int=RAW_CAP_BYTES, expect: HeaderCheck=accept_any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    start = len(ARTIFACT_MAGIC) + DIGEST_BYTES
    if len(blob) <= start or blob[:len(ARTIFACT_MAGIC)] != ARTIFACT_MAGIC:
        raise ArtifactError(f'not an artifact: {len(blob)} bytes that do not begin with {ARTIFACT_MAGIC!r}')
    frame = blob[start:]
    if _digest(frame) != blob[len(ARTIFACT_MAGIC):start]:
        raise ArtifactError('damaged artifact: the checksum does not match')
    try:
        header, entries, payload = _read_frame(frame, raw_cap_bytes, expect)
        return (header, dict(_decode(entries, payload)))
    except (zstandard.ZstdError, QuantizeError) as error:
        raise ArtifactError(f'damaged artifact: {error}') from error

def _digest(frame: bytes) -> bytes:
    return hashlib.blake2b(frame, digest_size=DIGEST_BYTES).digest()

def _refuse_shared(state: Mapping[str, Tensor]) -> None:
    owners: dict[tuple[object, ...], str] = {}
    for name, weight in state.items():
        key = (weight.device, weight.data_ptr(), weight.shape, weight.stride())
        if weight.numel() and owners.setdefault(key, name) != name:
            raise ArtifactError(f'{name} and {owners[key]} are one tensor: store it under one name')

def _entry(name: str, weight: Tensor, quant: QuantConfig) -> TensorEntry:
    try:
        check_finite(weight)
    except QuantizeError as error:
        raise ArtifactError(f'{name}: {error}') from error
    return _checked_entry(name, list(weight.shape), tensor_kind(name, weight, quant))

def _packing_order(entry: TensorEntry) -> tuple[str, str, str]:
    return (entry.kind, re.sub('\\d+', '', entry.name), entry.name)

def _quantized(entry: TensorEntry, weight: Tensor, quant: QuantConfig) -> QuantizedTensor:
    try:
        return quantize_rows(weight, quant.bits, scale_floor=quant.scale_floor, clip_search=quant.clip_search)
    except QuantizeError as error:
        raise ArtifactError(f'{entry.name}: {error}') from error

def _planes(tensors: Iterable[Tensor], code: str) -> bytes:
    numbers = b''.join((tensor.numpy().astype(code).tobytes() for tensor in tensors))
    return np.frombuffer(numbers, np.uint8).reshape(-1, np.dtype(code).itemsize).T.tobytes()

def _numbers(planes: memoryview, code: str) -> npt.NDArray[np.floating[Any]]:
    rows = np.frombuffer(planes, np.uint8).reshape(np.dtype(code).itemsize, -1)
    return np.frombuffer(rows.T.tobytes(), code)

def _read_frame(frame: bytes, raw_cap_bytes: int, expect: HeaderCheck) -> tuple[dict[str, Any], list[TensorEntry], memoryview]:
    raw_bytes = zstandard.get_frame_parameters(frame).content_size
    if raw_bytes > raw_cap_bytes:
        raise ArtifactError(f'oversized artifact: {raw_bytes} bytes decompressed, the limit is {raw_cap_bytes}')
    if (end := _frame_end(frame)) != len(frame):
        raise ArtifactError(f'damaged artifact: {len(frame)} bytes hold a frame of {end}')
    decompressor = zstandard.ZstdDecompressor(max_window_size=max(raw_cap_bytes, 1024))
    with decompressor.stream_reader(frame) as reader:
        header_bytes, = struct.unpack('<I', _read_exactly(reader, 4))
        if header_bytes > min(ARTIFACT_HEADER_CAP_BYTES, raw_bytes):
            raise ArtifactError(f'damaged artifact: a header of {header_bytes} bytes')
        header, entries = _parse_header(_read_exactly(reader, header_bytes))
        expect(header, {entry.name: entry.shape for entry in entries})
        payload_bytes = raw_bytes - 4 - header_bytes
        if (expected := sum(_section_bytes(entries))) != payload_bytes:
            raise ArtifactError(f'damaged artifact: {payload_bytes} bytes for tensors of {expected}')
        payload = _read_exactly(reader, payload_bytes)
        reader.read(1)
    return (header, entries, memoryview(payload))

def _frame_end(frame: bytes) -> int:
    place, last = (zstandard.frame_header_size(frame), False)
    while not last and place < len(frame):
        block = int.from_bytes(frame[place:place + 3], 'little')
        last, is_run = (bool(block & 1), block >> 1 & 3 == 1)
        place += 3 + (1 if is_run else block >> 3)
    return place + 4 * zstandard.get_frame_parameters(frame).has_checksum

def _read_exactly(reader: zstandard.ZstdDecompressionReader, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = reader.read(min(size, READ_BYTES))
        if not part:
            raise ArtifactError(f'damaged artifact: ends {size} bytes early')
        parts.append(part)
        size -= len(part)
    return b''.join(parts)

def _parse_header(text: bytes) -> tuple[dict[str, Any], list[TensorEntry]]:
    try:
        header = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
        entries = [_checked_entry(*tensor) for tensor in header['tensors']]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ArtifactError(f'damaged artifact: unreadable header ({error})') from error
    if set(header) != {'config', 'tensors'} or not isinstance(header['config'], dict):
        raise ArtifactError('damaged artifact: the header is not an object of config and tensors')
    if len({entry.name for entry in entries}) < len(entries):
        raise ArtifactError('damaged artifact: a name stands twice')
    return (header, entries)

def _refuse_constant(text: str) -> NoReturn:
    raise ArtifactError(f'{text} is no number')

def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ArtifactError('a key stands twice')
    return dict(pairs)

def _checked_entry(name: object, shape: object, kind: object) -> TensorEntry:
    if not isinstance(name, str) or not TENSOR_NAME.fullmatch(name):
        raise ArtifactError(f'tensor name {str(name)[:200]!r} is not made of letters, digits, _ and dots')
    if not isinstance(kind, str) or kind not in (*INTEGER_BITS, *FLOAT_TYPES):
        raise ArtifactError(f'{name}: unknown kind {str(kind)[:200]!r}')
    if not isinstance(shape, list) or len(shape) > 8 or any((type(size) is not int or size < 0 for size in shape)):
        raise ArtifactError(f'{name}: {str(shape)[:200]} is no shape')
    entry = TensorEntry(name, tuple(shape), kind)
    if math.prod((size or 1 for size in shape)) > RAW_CAP_BYTES:
        raise ArtifactError(f'{name}: {str(shape)[:200]} is too large')
    if kind in INTEGER_BITS and (len(shape) < 2 or not entry.numel):
        raise ArtifactError(f'{name}: {kind} of shape {shape} has no rows')
    return entry

def _section_bytes(entries: Sequence[TensorEntry]) -> tuple[int, int, int, int]:
    integers = sum((entry.numel for entry in entries if entry.kind in INTEGER_BITS))
    half, single = (sum((entry.numel for entry in entries if entry.kind == kind)) for kind in FLOAT_TYPES)
    return (integers, 2 * sum((entry.scales for entry in entries)), 2 * half, 4 * single)

def _decode(entries: Sequence[TensorEntry], payload: memoryview) -> Iterator[tuple[str, Tensor]]:
    ends = list(itertools.accumulate(_section_bytes(entries)))
    integers = np.frombuffer(payload[:ends[0]], np.int8)
    scales = _numbers(payload[ends[0]:ends[1]], '<f2')
    floats = {'float16': _numbers(payload[ends[1]:ends[2]], '<f2'), 'float32': _numbers(payload[ends[2]:], '<f4')}
    for entry in entries:
        if entry.kind in INTEGER_BITS:
            values, integers = (integers[:entry.numel], integers[entry.numel:])
            scale, scales = (scales[:entry.scales], scales[entry.scales:])
            yield (entry.name, _decode_rows(entry, values, scale))
        else:
            section = floats[entry.kind]
            numbers, floats[entry.kind] = (section[:entry.numel], section[entry.numel:])
            tensor = torch.from_numpy(numbers.astype(np.float32)).view(entry.shape)
            check_finite(tensor)
            yield (entry.name, tensor)

def _decode_rows(entry: TensorEntry, values: npt.NDArray[np.int8], scale: npt.NDArray[np.floating[Any]]) -> Tensor:
    top = largest_level(INTEGER_BITS[entry.kind])
    if int(values.min()) < -top or int(values.max()) > top:
        raise ArtifactError(f'{entry.name}: integers beyond {top}')
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise ArtifactError(f'{entry.name}: a scale that is not finite and positive')
    rows = torch.from_numpy(values.copy()).view(entry.shape)
    scale_R = torch.from_numpy(scale.astype(np.float16)).view(entry.shape[:-1])
    return dequantize_rows(QuantizedTensor(rows, scale_R, INTEGER_BITS[entry.kind], torch.float32))

@dataclass(frozen=True)
class Worker:
    rank: int = 0
    world_size: int = 1
    device: str = 'cpu'
    autocast: torch.dtype | None = None

    def share(self, items: int) -> range:
        return range(items * self.rank // self.world_size, items * (self.rank + 1) // self.world_size)

    def all_sum(self, tensor: Tensor) -> Tensor:
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def precision(self) -> torch.autocast:
        kind = torch.device(self.device).type
        return torch.autocast(kind, dtype=self.autocast, enabled=self.autocast is not None)
SHARD_MAGIC = 20240520
SHARD_VERSION = 1
SHARD_HEADER_BYTES = 1024

class ShardError(ValueError):
    pass

def find_shards(pattern: str | Path) -> tuple[Path, ...]:
    paths = tuple(sorted(Path(pattern).parent.glob(Path(pattern).name)))
    if not paths:
        raise ShardError(f'{pattern}: no such shards')
    return paths

def shard_length(path: Path) -> int:
    try:
        size = path.stat().st_size
        with path.open('rb') as file:
            header = file.read(SHARD_HEADER_BYTES)
    except OSError as error:
        raise ShardError(f'{path}: {error.strerror}') from error
    if len(header) < SHARD_HEADER_BYTES:
        raise ShardError(f"{path}: {size} bytes, shorter than the {SHARD_HEADER_BYTES} bytes of a shard's header")
    magic, version, count = (int(word) for word in np.frombuffer(header, dtype='<i4', count=3))
    if (magic, version) != (SHARD_MAGIC, SHARD_VERSION):
        raise ShardError(f'{path}: magic {magic} version {version}, not {SHARD_MAGIC} version {SHARD_VERSION}')
    if count <= 0 or size != SHARD_HEADER_BYTES + 2 * count:
        raise ShardError(f'{path}: {size} bytes, but its header says {count} tokens')
    return count

def map_shard(path: Path) -> npt.NDArray[np.uint16]:
    return np.memmap(path, dtype='<u2', mode='r', offset=SHARD_HEADER_BYTES, shape=(shard_length(path),))

def load_validation(pattern: str | Path, vocab_size: int) -> Tensor:
    parts = []
    for path in find_shards(pattern):
        shard = map_shard(path)
        _check_token_range(path, shard, vocab_size)
        parts.append(shard.astype(np.int32))
    return torch.from_numpy(np.concatenate(parts))

def _check_token_range(place: Path, tokens: npt.NDArray[np.uint16], vocab_size: int) -> None:
    if (largest := int(tokens.max())) >= vocab_size:
        raise ShardError(f'{place}: token {largest} is outside the vocabulary of {vocab_size}')

class TokenStream:

    def __init__(self, paths: Sequence[Path], vocab_size: int) -> None:
        if not paths:
            raise ShardError('no shards to read')
        self._paths = tuple(paths)
        self._ends = tuple(itertools.accumulate((shard_length(path) for path in paths)))
        self._vocab_size = vocab_size
        self._open: tuple[int, npt.NDArray[np.uint16]] | None = None

    @property
    def total(self) -> int:
        return self._ends[-1]

    def read(self, start: int, count: int) -> npt.NDArray[np.uint16]:
        tokens = np.empty(count, dtype=np.uint16)
        done = 0
        while done < count:
            piece = self._piece((start + done) % self.total, count - done)
            tokens[done:done + len(piece)] = piece
            done += len(piece)
        return tokens

    def _piece(self, place: int, count: int) -> npt.NDArray[np.uint16]:
        index = bisect.bisect_right(self._ends, place)
        if self._open is None or self._open[0] != index:
            self._open = (index, map_shard(self._paths[index]))
        offset = place - (self._ends[index - 1] if index else 0)
        piece = self._open[1][offset:offset + count]
        _check_token_range(self._paths[index], piece, self._vocab_size)
        return piece

class BatchLoader:

    def __init__(self, stream: TokenStream, batch_tokens: int, seq_len: int, worker: Worker, accumulation: int=1) -> None:
        parts = worker.world_size * accumulation
        if batch_tokens % (seq_len * parts):
            raise ShardError(f'a batch of {batch_tokens} tokens is not a multiple of {seq_len} tokens per sequence x {worker.world_size} processes x {accumulation} micro-batches')
        self._stream = stream
        self._batch_tokens = batch_tokens
        self._seq_len = seq_len
        self._worker = worker
        self._accumulation = accumulation
        self._micro_tokens = batch_tokens // parts

    def batch(self, step: int, micro: int=0) -> tuple[Tensor, Tensor]:
        part = self._worker.rank * self._accumulation + micro
        tokens = self._stream.read(step * self._batch_tokens + part * self._micro_tokens, self._micro_tokens + 1)
        row = torch.from_numpy(tokens.astype(np.int64)).to(self._worker.device)
        return (row[:-1].view(-1, self._seq_len), row[1:].view(-1, self._seq_len))

@dataclass(frozen=True)
class ByteTable:
    base_bytes: Tensor
    leading_space: Tensor
    boundary: Tensor

    @property
    def vocab_size(self) -> int:
        return self.base_bytes.numel()

    def to(self, device: str) -> ByteTable:
        return ByteTable(self.base_bytes.to(device), self.leading_space.to(device), self.boundary.to(device))

    def count(self, previous: Tensor, targets: Tensor) -> Tensor:
        return self.base_bytes[targets] + (self.leading_space[targets] & ~self.boundary[previous])

def load_byte_table(path: str | Path, vocab_size: int) -> ByteTable:
    import sentencepiece
    try:
        model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise ValueError(f'{path}: not a readable SentencePiece model ({error})') from error
    if (size := model.vocab_size()) > vocab_size:
        raise ValueError(f'{path}: {size} tokens do not fit the vocabulary of {vocab_size}')
    base = torch.zeros(vocab_size, dtype=torch.int64)
    space, boundary = (torch.zeros(vocab_size, dtype=torch.bool), torch.ones(vocab_size, dtype=torch.bool))
    for token in range(size):
        boundary[token] = model.is_control(token) or model.is_unknown(token) or model.is_unused(token)
        if not boundary[token]:
            base[token], space[token] = (1, False) if model.is_byte(token) else piece_bytes(model.id_to_piece(token))
    return ByteTable(base, space, boundary)

def piece_bytes(piece: str) -> tuple[int, bool]:
    leading = piece.startswith('▁')
    return (len(piece[leading:].replace('▁', ' ').encode()), leading)

def bits_per_byte(loss_sum_nats: float, byte_count: int) -> float:
    if byte_count <= 0:
        raise ValueError(f'bits per byte of {byte_count} bytes of text')
    return loss_sum_nats / math.log(2) / byte_count
ScoreHook: TypeAlias = Callable[[Tensor, Tensor], None]

class LanguageModel(Protocol):
    training: bool

    @property
    def blocks(self) -> Iterable[nn.Module]:
        pass

    def token_losses(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        pass

    def parameters(self) -> Iterator[nn.Parameter]:
        pass

    def train(self, mode: bool=True) -> object:
        pass

@dataclass(frozen=True)
class EvalTask:
    model: LanguageModel
    tokens: Tensor
    table: ByteTable
    config: EvalConfig
    seq_len: int
    worker: Worker = field(default_factory=Worker)
    on_score: ScoreHook | None = None

    def __post_init__(self) -> None:
        if self.tokens.ndim != 1 or self.targets < 1:
            raise ValueError(f'nothing to score in tokens of shape {tuple(self.tokens.shape)}')
        if (largest := int(self.tokens.max())) >= self.table.vocab_size:
            raise ValueError(f'token {largest} is outside the vocabulary of {self.table.vocab_size}')

    @property
    def targets(self) -> int:
        return self.tokens.numel() - 1

@dataclass(frozen=True)
class EvalResult:
    loss_sum_nats: float
    tokens: int
    bytes: int

    @classmethod
    def from_sums(cls, sums_3: Tensor) -> EvalResult:
        loss_sum_nats, tokens, size = sums_3.tolist()
        return cls(loss_sum_nats, int(tokens), int(size))

    @property
    def val_loss(self) -> float:
        return self.loss_sum_nats / self.tokens

    @property
    def val_bpb(self) -> float:
        return bits_per_byte(self.loss_sum_nats, self.bytes)

@dataclass(frozen=True)
class Windows:
    first: int
    end: int
    seq_len: int
    stride: int

    def __post_init__(self) -> None:
        if not 0 <= self.stride <= self.seq_len:
            raise ValueError(f"stride {self.stride} is outside 0 .. {self.seq_len}, the window's length")

    @property
    def _head(self) -> int:
        return min(self.end, max(self.first + self.stride, self.seq_len))

    def __len__(self) -> int:
        if self.stride:
            return 1 + (self.end - self._head + self.stride - 1) // self.stride
        return (self.end - self.first + self.seq_len - 1) // self.seq_len

    def bounds(self, index: int) -> tuple[int, int, int]:
        if not self.stride:
            start = self.first + index * self.seq_len
            return (start, start, min(start + self.seq_len, self.end))
        scored = self._head + (index - 1) * self.stride if index else self.first
        end = min(self._head + index * self.stride, self.end)
        return (max(end - self.seq_len, 0), scored, end)

    def batches(self, batch_seqs: int) -> list[range]:
        return self.batches_of(range(len(self)), batch_seqs)

    def batches_of(self, run: range, batch_seqs: int) -> list[range]:
        whole = len(self) if self.stride else (self.end - self.first) // self.seq_len
        full, short = (range(run.start, min(run.stop, whole)), range(max(run.start, whole), run.stop))
        return [full[low:low + batch_seqs] for low in range(0, len(full), batch_seqs)] + ([short] if short else [])

def window_batch(tokens: Tensor, windows: Windows, run: range) -> tuple[Tensor, Tensor, Tensor]:
    start_B, scored_B, end_B = torch.tensor([windows.bounds(index) for index in run]).unbind(1)
    inputs_BT = start_B[:, None] + torch.arange(int(end_B[0] - start_B[0]))
    index = torch.cat([inputs_BT, end_B[:, None]], dim=1).to(tokens.device)
    return (tokens[index].long(), inputs_BT + 1, inputs_BT >= scored_B[:, None])

def score_windows(task: EvalTask, windows: Windows, batch_seqs: int) -> Tensor:
    table = task.table.to(task.worker.device)
    batches = windows.batches(batch_seqs)
    sums_3 = torch.zeros(3, dtype=torch.float64, device=task.worker.device)
    with torch.no_grad(), evaluation_mode(task.model):
        for index in task.worker.share(len(batches)):
            sums_3 += _score_batch(task, table, window_batch(task.tokens, windows, batches[index]))
    return sums_3

def score_for_training(task: EvalTask, windows: Windows, batch_seqs: int) -> tuple[Tensor, Tensor]:
    table = task.table.to(task.worker.device)
    sums_3 = torch.zeros(3, dtype=torch.float64, device=task.worker.device)
    kept = []
    with evaluation_mode(task.model):
        for run in windows.batches(batch_seqs):
            batch = window_batch(task.tokens, windows, run)
            losses_BT = _batch_losses(task, batch[0])
            sums_3 += _batch_sums(task, table, batch, losses_BT.detach())
            kept.append(losses_BT.sum())
    return (sums_3, torch.stack(kept).sum())

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
    values_3BT = torch.stack([losses_BT.double(), torch.ones_like(losses_BT).double(), table.count(tokens[:, :-1], tokens[:, 1:]).double()])
    return values_3BT.where(scored_BT.to(task.worker.device), 0.0).sum((1, 2))

@contextmanager
def evaluation_mode(model: LanguageModel) -> Iterator[None]:
    mode = model.training
    model.train(mode=False)
    try:
        yield
    finally:
        model.train(mode=mode)
ChunkHook: TypeAlias = Callable[[int, int, EvalResult], None]

def evaluate_ttt(task: EvalTask, on_chunk: ChunkHook | None=None) -> EvalResult:
    config, targets = (task.config, task.targets)
    chunks = [(first, min(first + config.ttt_chunk_tokens, targets)) for first in range(0, targets, config.ttt_chunk_tokens)]
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
                optimizer.param_groups[0]['lr'] = ttt_rate(config.ttt_lr, number, len(chunks))
                _train_on_chunk(Lesson(task, Windows(first, end, task.seq_len, 0), weights, scored), optimizer)
    return EvalResult.from_sums(total_3)

def ttt_rate(base: float, chunk: int, chunks: int) -> float:
    return base * 0.5 * (1.0 + math.cos(math.pi * chunk / max(chunks - 1, 1)))

@contextmanager
def adapted_weights(model: LanguageModel, freeze_blocks: int) -> Iterator[list[nn.Parameter]]:
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
    task: EvalTask
    windows: Windows
    weights: Sequence[nn.Parameter]
    scored: Tensor | None

def _score_chunk(task: EvalTask, windows: Windows, *, trained: bool) -> tuple[Tensor, Tensor | None]:
    config, worker = (task.config, task.worker)
    one_step = windows.stride == 0 and worker.world_size == 1 and (len(windows) <= config.ttt_batch_seqs)
    if trained and one_step and (config.ttt_epochs > 0):
        return score_for_training(task, windows, config.ttt_batch_seqs)
    fair = -(-len(windows) // worker.world_size)
    return (worker.all_sum(score_windows(task, windows, min(config.eval_batch_seqs, fair))), None)

def _train_on_chunk(lesson: Lesson, optimizer: torch.optim.Optimizer) -> None:
    task, weights = (lesson.task, lesson.weights)
    longest = -(-len(lesson.windows) // task.worker.world_size)
    steps = list(range(0, longest, task.config.ttt_batch_seqs)) * task.config.ttt_epochs
    with evaluation_mode(task.model):
        for number, low in enumerate(steps):
            _compute_gradients(lesson, low, None if number else lesson.scored)
            if task.config.ttt_grad_clip > 0:
                nn.utils.clip_grad_norm_(weights, task.config.ttt_grad_clip)
            optimizer.step()

def _compute_gradients(lesson: Lesson, low: int, scored: Tensor | None) -> None:
    task, windows, weights = (lesson.task, lesson.windows, lesson.weights)
    worker, size = (task.worker, task.config.ttt_batch_seqs)
    runs = [replace(worker, rank=rank).share(len(windows))[low:low + size] for rank in range(worker.world_size)]
    targets = sum((end - start for run in runs for start, _, end in map(windows.bounds, run)))
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    if scored is not None:
        (scored / targets).backward()
        return
    for part in windows.batches_of(runs[worker.rank], size):
        batch = window_batch(task.tokens, windows, part)[0].to(worker.device)
        with worker.precision():
            losses_BT = task.model.token_losses(batch[:, :-1], batch[:, 1:])
        (losses_BT.sum() / targets).backward()
    _sum_gradients(worker, [weight.grad for weight in weights if weight.grad is not None])

def _sum_gradients(worker: Worker, gradients: Sequence[Tensor]) -> None:
    if worker.world_size > 1:
        flat = worker.all_sum(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

def evaluate_plain(task: EvalTask) -> EvalResult:
    return _evaluate_windows(task, 0)

def evaluate_sliding(task: EvalTask, stride: int) -> EvalResult:
    if stride < 1:
        raise ValueError(f'stride {stride} is not positive')
    return _evaluate_windows(task, stride)

def _evaluate_windows(task: EvalTask, stride: int) -> EvalResult:
    windows = Windows(0, task.targets, task.seq_len, stride)
    return EvalResult.from_sums(task.worker.all_sum(score_windows(task, windows, task.config.eval_batch_seqs)))

def evaluation_name(task: EvalTask) -> str:
    context = f'stride {task.config.eval_stride}' if task.config.eval_stride else 'plain'
    return f'score-first TTT, {context}' if task.config.ttt_enabled else context

def evaluate(task: EvalTask, on_chunk: ChunkHook | None=None) -> EvalResult:
    if task.config.ttt_enabled:
        return evaluate_ttt(task, on_chunk)
    return evaluate_sliding(task, task.config.eval_stride) if task.config.eval_stride else evaluate_plain(task)

@contextmanager
def started_worker(environ: Mapping[str, str]) -> Iterator[Worker]:
    rank, size, local = (process_number(environ, name, default) for name, default in (('RANK', 0), ('WORLD_SIZE', 1), ('LOCAL_RANK', 0)))
    if rank >= size:
        raise ConfigError(f'RANK: {rank} is not below WORLD_SIZE ({size})')
    if not torch.cuda.is_available():
        worker = Worker(rank, size)
    else:
        worker = Worker(rank, size, f'cuda:{local}', torch.bfloat16)
        torch.cuda.set_device(local)
        torch.set_float32_matmul_precision('high')
    if size > 1:
        dist.init_process_group('gloo' if worker.device == 'cpu' else 'nccl')
    try:
        yield worker
        if size > 1:
            dist.barrier()
    finally:
        if size > 1:
            dist.destroy_process_group()

def process_number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, str(default))
    if not text.isdecimal():
        raise ConfigError(f'{name}: {text!r} is not a number from 0')
    return int(text)
BLOCK_TOKENS = 128
CALL_BLOCKS = 8

class WindowContext(FunctionCtx):
    saved_tensors: tuple[Tensor, ...]
    window: int

@dataclass(frozen=True)
class Call:
    first: int
    blocks: int
    reach: int

    @property
    def queries(self) -> slice:
        return slice(self.first * BLOCK_TOKENS, (self.first + self.blocks) * BLOCK_TOKENS)

    @property
    def keys(self) -> slice:
        return slice((self.first + 1 - self.reach) * BLOCK_TOKENS, self.queries.stop)

    def key_part(self, number: int) -> slice:
        start = self.keys.start + number * BLOCK_TOKENS
        return slice(start, start + self.blocks * BLOCK_TOKENS)

def calls(length: int, window: int) -> Iterator[Call]:
    blocks, reach = (length // BLOCK_TOKENS, key_blocks(window))
    for first in range(min(reach - 1, blocks)):
        yield Call(first, 1, first + 1)
    for first in range(reach - 1, blocks, CALL_BLOCKS):
        yield Call(first, min(CALL_BLOCKS, blocks - first), reach)

def window_attention(q_BHTE: Tensor, k_BGLE: Tensor, v_BGLE: Tensor, window: int) -> Tensor:
    length = q_BHTE.shape[2]
    padding = (0, 0, 0, -length % BLOCK_TOKENS)
    padded = [F.pad(x, padding) if padding[-1] else x for x in (q_BHTE, k_BGLE, v_BGLE)]
    mixed: Tensor = WindowAttention.apply(*padded, window)
    return mixed[:, :, :length]

class WindowAttention(torch.autograd.Function):

    @staticmethod
    def forward(ctx: WindowContext, q_BHTE: Tensor, k_BGLE: Tensor, v_BGLE: Tensor, window: int) -> Tensor:
        out_BTHE = torch.empty_like(q_BHTE.transpose(1, 2), memory_format=torch.contiguous_format)
        out_BHTE = out_BTHE.transpose(1, 2)
        sums = []
        for call in calls(q_BHTE.shape[2], window):
            mask = _mask(window, call, q_BHTE, k_BGLE)
            for item in range(q_BHTE.shape[0]):
                operands = _operands(call, q_BHTE[item], k_BGLE[item], v_BGLE[item])
                mixed, log_sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*operands, attn_mask=mask)
                _put_back(out_BHTE[item], call, mixed)
                sums.append(log_sums)
        ctx.save_for_backward(q_BHTE, k_BGLE, v_BGLE, out_BHTE, *sums)
        ctx.window = window
        return out_BHTE

    @staticmethod
    @once_differentiable
    def backward(ctx: WindowContext, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q_BHTE, k_BGLE, v_BGLE, out_BHTE, *sums = ctx.saved_tensors
        dq_BHTE = torch.empty_like(q_BHTE)
        dk_BGLE, dv_BGLE = (torch.zeros_like(k_BGLE), torch.zeros_like(v_BGLE))
        waiting = iter(sums)
        for call in calls(q_BHTE.shape[2], ctx.window):
            mask = _mask(ctx.window, call, q_BHTE, k_BGLE)
            for item in range(q_BHTE.shape[0]):
                grad, mixed = (_stacked(x[item], call, k_BGLE.shape[1]) for x in (grads[0], out_BHTE))
                operands = _operands(call, q_BHTE[item], k_BGLE[item], v_BGLE[item])
                flags = (0.0, False)
                dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(grad, *operands, mixed, next(waiting), *flags, attn_mask=mask)
                _put_back(dq_BHTE[item], call, dq)
                _add_back(dk_BGLE[item], call, dk)
                _add_back(dv_BGLE[item], call, dv)
        return (dq_BHTE, dk_BGLE, dv_BGLE, None)

def _operands(call: Call, q_HTE: Tensor, k_GLE: Tensor, v_GLE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    keys, before = (call.reach * BLOCK_TOKENS, k_GLE.shape[1] - q_HTE.shape[1])
    seen = [x[:, before:][:, call.keys].unfold(1, keys, BLOCK_TOKENS).permute(1, 0, 3, 2) for x in (k_GLE, v_GLE)]
    if before:
        always = (x[:, :before].expand(call.blocks, -1, -1, -1) for x in (k_GLE, v_GLE))
        seen = [torch.cat(parts, 2) for parts in zip(always, seen, strict=True)]
    return (_stacked(q_HTE, call, k_GLE.shape[0]), seen[0], seen[1])

def _stacked(x_HTE: Tensor, call: Call, groups: int) -> Tensor:
    heads, _, width = x_HTE.shape
    x_GRSQE = x_HTE[:, call.queries].reshape(groups, heads // groups, call.blocks, BLOCK_TOKENS, width)
    return x_GRSQE.permute(2, 0, 1, 3, 4).reshape(call.blocks, groups, -1, width)

def _put_back(target_HTE: Tensor, call: Call, x_SGXE: Tensor) -> None:
    blocks, groups, _, width = x_SGXE.shape
    x_GRSQE = x_SGXE.view(blocks, groups, -1, BLOCK_TOKENS, width).permute(1, 2, 0, 3, 4)
    grouped = torch.unflatten(target_HTE[:, call.queries], 0, (groups, -1))
    torch.unflatten(grouped, 2, (blocks, BLOCK_TOKENS)).copy_(x_GRSQE)

def _add_back(target_GLE: Tensor, call: Call, x_SGKE: Tensor) -> None:
    before = x_SGKE.shape[2] - call.reach * BLOCK_TOKENS
    target_GLE[:, :before].add_(x_SGKE[:, :, :before].sum(0))
    target_GTE = target_GLE[:, before:]
    for number, x_SGQE in enumerate(torch.split(x_SGKE[:, :, before:], BLOCK_TOKENS, 2)):
        part_GSQE = torch.unflatten(target_GTE[:, call.key_part(number)], 1, (call.blocks, BLOCK_TOKENS))
        part_GSQE.add_(x_SGQE.transpose(0, 1))

def _mask(window: int, call: Call, q_BHTE: Tensor, k_BGLE: Tensor) -> Tensor:
    visible_QK = F.pad(window_mask(window, call.reach, q_BHTE.device), (k_BGLE.shape[2] - q_BHTE.shape[2], 0), value=True)
    mask_QK = torch.zeros(visible_QK.shape, dtype=q_BHTE.dtype, device=q_BHTE.device)
    return mask_QK.masked_fill_(~visible_QK, float('-inf')).repeat(q_BHTE.shape[1] // k_BGLE.shape[1], 1)

def window_mask(window: int, reach: int, device: torch.device) -> Tensor:
    own = (reach - 1) * BLOCK_TOKENS
    queries_Q1 = torch.arange(own, own + BLOCK_TOKENS, device=device)[:, None]
    distance_QK = queries_Q1 - torch.arange(own + BLOCK_TOKENS, device=device)
    return (distance_QK >= 0) & (distance_QK < window)

def key_blocks(window: int) -> int:
    return -(-(window - 1) // BLOCK_TOKENS) + 1

def rotary_tables(length: int, head_dim: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    frequencies = base ** (-(torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim))
    angles = torch.arange(length, dtype=torch.float32, device=device)[:, None, None] * frequencies
    return (angles.cos(), angles.sin())

def normalized_heads(x_BTHE: Tensor, rotary: tuple[Tensor, Tensor], start: int=0) -> Tensor:
    cos, sin = (table[start:start + x_BTHE.shape[1]] for table in rotary)
    normed_BTHE = F.rms_norm(x_BTHE, x_BTHE.shape[-1:]).to(x_BTHE.dtype)
    rotated = 2 * cos.shape[-1]
    if rotated == x_BTHE.shape[-1]:
        return rotate(normed_BTHE, cos, sin)
    return torch.cat((rotate(normed_BTHE[..., :rotated], cos, sin), normed_BTHE[..., rotated:]), -1)

class RotationContext(FunctionCtx):
    saved_tensors: tuple[Tensor, ...]

def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    rotated: Tensor = Rotation.apply(x, cos, sin)
    return rotated

class Rotation(torch.autograd.Function):

    @staticmethod
    def forward(ctx: RotationContext, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return rotated_halves(x, cos, sin)

    @staticmethod
    def backward(ctx: RotationContext, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return (rotated_halves(grads[0], cos, -sin), None, None)

def rotated_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    cos, sin = (cos.to(x.dtype), sin.to(x.dtype))
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    (first, second), (out_first, out_second) = (torch.chunk(x, 2, -1), torch.chunk(out, 2, -1))
    torch.mul(first, cos, out=out_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=out_second).addcmul_(first, sin)
    return out

def causal_attention(q_BHTE: Tensor, k_BGLE: Tensor, v_BGLE: Tensor, window: int=0) -> Tensor:
    grouped, before = (q_BHTE.shape[1] != k_BGLE.shape[1], k_BGLE.shape[2] - q_BHTE.shape[2])
    if window == 0 or q_BHTE.shape[2] <= window:
        q_BHLE = F.pad(q_BHTE, (0, 0, before, 0)) if before else q_BHTE
        mixed = F.scaled_dot_product_attention(q_BHLE, k_BGLE, v_BGLE, is_causal=True, enable_gqa=grouped)
        return mixed[:, :, before:]
    if q_BHTE.device.type == 'cpu':
        return window_attention(q_BHTE, k_BGLE, v_BGLE, window)
    return blockwise_attention(q_BHTE, k_BGLE, v_BGLE, window)

def attention_after_meta(q_BHLE: Tensor, k_BGLE: Tensor, v_BGLE: Tensor, *, window: int, meta: int) -> Tensor:
    if not meta or window == 0 or q_BHLE.shape[2] - meta <= window:
        return causal_attention(q_BHLE, k_BGLE, v_BGLE, window if not meta else 0)
    first = causal_attention(q_BHLE[:, :, :meta], k_BGLE[:, :, :meta], v_BGLE[:, :, :meta])
    return torch.cat((first, causal_attention(q_BHLE[:, :, meta:], k_BGLE, v_BGLE, window)), 2)

def blockwise_attention(q_BHTE: Tensor, k_BGLE: Tensor, v_BGLE: Tensor, window: int) -> Tensor:
    grouped, before = (q_BHTE.shape[1] != k_BGLE.shape[1], k_BGLE.shape[2] - q_BHTE.shape[2])
    reach = key_blocks(window)
    mask_QK = window_mask(window, reach, q_BHTE.device)
    (k_always, k_text), (v_always, v_text) = (torch.split(x, [before, q_BHTE.shape[2]], 2) for x in (k_BGLE, v_BGLE))
    k_blocks, v_blocks = (torch.split(k_text, BLOCK_TOKENS, 2), torch.split(v_text, BLOCK_TOKENS, 2))
    mixed = []
    for last, q_BHQE in enumerate(torch.split(q_BHTE, BLOCK_TOKENS, 2), 1):
        first = max(0, last - reach)
        keys, values = (torch.cat((k_always, *k_blocks[first:last]), 2), torch.cat((v_always, *v_blocks[first:last]), 2))
        seen = keys.shape[2] - before
        visible = mask_QK[:q_BHQE.shape[2], (reach - last + first) * BLOCK_TOKENS:][:, :seen]
        visible = F.pad(visible, (before, 0), value=True)
        mixed.append(F.scaled_dot_product_attention(q_BHQE, keys, values, attn_mask=visible, enable_gqa=grouped))
    return torch.cat(mixed, 2)
SEPARATE_ROLES = {'c_q': ('qo', 0), 'proj': ('qo', 1), 'c_k': ('kv', 0), 'c_v': ('kv', 1), 'fc': ('mlp_up', 0), 'mlp_proj': ('mlp_down', 0), 'mamba_proj': ('ssm_in', 0), 'x_proj': ('ssm_x', 0), 'dt_proj': ('ssm_dt', 0), 'mamba_out_proj': ('ssm_out', 0)}
SHARED_ROLES = {'c_q': ('qo', 0), 'proj': ('qo', 0), 'c_k': ('kv', 0), 'c_v': ('kv', 0), 'fc': ('mlp_up', 0), 'mlp_proj': ('mlp_down', 0), 'in_proj': ('ssm_in', 0), 'value_gate': ('ssm_gate', 0), 'x_proj': ('ssm_x', 0), 'mamba_out_proj': ('ssm_out', 0)}
Linear: TypeAlias = 'nn.Linear | BankLinear'

class MakeLinear(Protocol):

    def __call__(self, role: str, rows: int, columns: int, *, bias: bool=False) -> Linear:
        pass

def plain_linear(role: str, rows: int, columns: int, *, bias: bool=False) -> Linear:
    return nn.Linear(columns, rows, bias=bias)

def bank_shapes(config: ModelConfig) -> dict[str, tuple[int, int, int]]:
    dim, channels, layers = (config.model_dim, config.ssm_dim, config.num_layers)
    kv_dim, hidden = (config.num_kv_heads * config.head_dim, config.mlp_mult * dim)
    attention, projected = ({'qo': (dim, dim), 'kv': (kv_dim, dim)}, config.ssm_dt_rank + 2 * config.ssm_state)
    mlp = {'mlp_up': (hidden, dim), 'mlp_down': (dim, hidden)}
    scan = {'ssm_x': (projected, channels), 'ssm_out': (dim, channels)}
    if config.banks == 'shared':
        scan |= {'ssm_in': (2 * (kv_dim + channels), dim), 'ssm_gate': (kv_dim, dim)}
        return {name: (layers, *shape) for name, shape in (attention | mlp | scan).items()}
    scan |= {'ssm_in': (2 * channels, dim), 'ssm_dt': (channels, config.ssm_dt_rank)}
    counts = ((attention, 2 * layers), (mlp, layers), (scan, sum(map(config.is_hybrid, range(layers)))))
    return {name: (count, *shape) for shapes, count in counts if count for name, shape in shapes.items()}

class ParameterBanks(nn.Module):

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.roles = SHARED_ROLES if config.banks == 'shared' else SEPARATE_ROLES
        for name, shape in bank_shapes(config).items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        self.apart: Mapping[str, Sequence[Tensor]] = {}

    def makes(self, layer: int) -> MakeLinear:

        def linear(role: str, rows: int, columns: int, *, bias: bool=False) -> Linear:
            made = BankLinear(self, *self.place(role, layer), bias=rows if bias else 0)
            if tuple(made.weight.shape) != (rows, columns):
                raise ValueError(f"{role}: the bank's matrices are {tuple(made.weight.shape)}, not {(rows, columns)}")
            return made
        return linear

    def place(self, role: str, layer: int) -> tuple[str, int]:
        name, part = self.roles[role]
        skipped = 0
        if name.startswith('ssm_') and self.config.banks == 'separate':
            skipped = sum((not self.config.is_hybrid(before) for before in range(layer)))
        return (name, part * self.config.num_layers + layer - skipped)

    def matrix(self, name: str, index: int) -> Tensor:
        return self.apart[name][index] if self.apart else self.get_parameter(name)[index]

    @contextmanager
    def taken_apart(self) -> Iterator[None]:
        self.apart = {name: bank.unbind() for name, bank in self.named_parameters()}
        try:
            yield
        finally:
            self.apart = {}

class BankLinear(nn.Module):

    def __init__(self, banks: ParameterBanks, name: str, index: int, *, bias: int=0) -> None:
        super().__init__()
        self.owner = (banks,)
        self.name, self.index = (name, index)
        self.bias = nn.Parameter(torch.zeros(bias)) if bias else None

    @property
    def weight(self) -> Tensor:
        return self.owner[0].matrix(self.name, self.index)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

class ConvContext(FunctionCtx):
    saved_tensors: tuple[Tensor, ...]

class DepthwiseConv(nn.Module):

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 1, width))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x_BTD: Tensor) -> Tensor:
        return causal_conv(x_BTD.to(self.weight.dtype), self.weight, self.bias)

def causal_conv(x_BTD: Tensor, weight_D1K: Tensor, bias_D: Tensor) -> Tensor:
    y_BTD: Tensor = CausalConv.apply(x_BTD, weight_D1K, bias_D)
    return y_BTD

class CausalConv(torch.autograd.Function):

    @staticmethod
    def forward(ctx: ConvContext, x_BTD: Tensor, weight_D1K: Tensor, bias_D: Tensor) -> Tensor:
        ctx.save_for_backward(x_BTD, weight_D1K)
        now, *earlier = reversed(weight_D1K[:, 0].unbind(1))
        y_BTD = torch.addcmul(bias_D, x_BTD, now)
        for delay, tap_D in enumerate(earlier, 1):
            y_BTD[:, delay:].addcmul_(x_BTD[:, :-delay], tap_D)
        return y_BTD

    @staticmethod
    def backward(ctx: ConvContext, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dy_BTD, (x_BTD, weight_D1K) = (grads[0], ctx.saved_tensors)
        now, *earlier = reversed(weight_D1K[:, 0].unbind(1))
        dx_BTD, dtaps = (dy_BTD * now, [(dy_BTD * x_BTD).sum((0, 1))])
        for delay, tap_D in enumerate(earlier, 1):
            dx_BTD[:, :-delay].addcmul_(dy_BTD[:, delay:], tap_D)
            dtaps.append((dy_BTD[:, delay:] * x_BTD[:, :-delay]).sum((0, 1)))
        return (dx_BTD, torch.stack(dtaps[::-1], 1)[:, None], dy_BTD.sum((0, 1)))
META_INIT_STD = 0.02

def meta_parameter(count: int, dim: int) -> nn.Parameter | None:
    return nn.Parameter(torch.zeros(1, count, dim)) if count else None

def init_meta(meta_1MD: nn.Parameter | None, generator: torch.Generator | None) -> None:
    if meta_1MD is not None:
        nn.init.normal_(meta_1MD, std=META_INIT_STD, generator=generator)

def with_meta(meta_1MD: Tensor | None, x_BTD: Tensor) -> Tensor:
    if meta_1MD is None:
        return x_BTD
    return torch.cat((meta_1MD.to(x_BTD.dtype).expand(len(x_BTD), -1, -1), x_BTD), 1)
KERNEL_STATES = (1, 2, 4, 8, 16)
CPP_FLAGS = ('-O3', '-march=native', '-fno-math-errno')
CPP_SOURCE = '\n#include <torch/extension.h>\n#include <ATen/Parallel.h>\n#include <vector>\n\n// W channels side by side: the compiler maps them to whatever vectors the processor has.\nconstexpr int W = 16;\nconstexpr int L = 64;\ntypedef float V __attribute__((vector_size(4 * W), aligned(4)));\ntypedef int32_t I __attribute__((vector_size(4 * W), aligned(4)));\n\nstatic inline V all(float x) { return x - V{}; }\n\n// exp for arguments at or below 0, relative error about 1e-7 (Cephes\' expf); below -87 it gives about 1e-38.\nstatic inline V vexp(V x) {\n  const V low = all(-87.0f);\n  x = x < low ? low : x;\n  const V shift = all(12582912.0f);\n  V n = x * 1.44269504088896341f + shift;\n  I bits = (I)n;\n  n -= shift;\n  x -= n * 0.693359375f;\n  x -= n * -2.12194440e-4f;\n  V p = all(1.9875691500e-4f);\n  p = p * x + 1.3981999507e-3f;\n  p = p * x + 8.3334519073e-3f;\n  p = p * x + 4.1665795894e-2f;\n  p = p * x + 1.6666665459e-1f;\n  p = p * x + 5.0000001201e-1f;\n  p = p * x * x + x + 1.0f;\n  return (V)((I)p + (bits << 23));\n}\n\nstatic inline V load(const float* at, int lanes) {\n  if (lanes == W) { V v; __builtin_memcpy(&v, at, sizeof v); return v; }\n  V v{};\n  for (int i = 0; i < lanes; ++i) v[i] = at[i];\n  return v;\n}\nstatic inline void store(float* at, V v, int lanes) {\n  if (lanes == W) { __builtin_memcpy(at, &v, sizeof v); return; }\n  for (int i = 0; i < lanes; ++i) at[i] = v[i];\n}\nstatic inline float sum(V v) {\n  float s = 0;\n  for (int i = 0; i < W; ++i) s += v[i];\n  return s;\n}\n\nstruct Shape { int64_t B, T, D, N, blocks, chunks; };\nstatic Shape shape_of(const at::Tensor& x, const at::Tensor& A) {\n  int64_t B = x.size(0), T = x.size(1), D = x.size(2), N = A.size(0);\n  return {B, T, D, N, (D + W - 1) / W, (T + L - 1) / L};\n}\n\ntemplate <int N>\nstatic void forward_block(const Shape& s, const float* x, const float* dt, const float* A, const float* Bm,\n                          const float* C, const float* h0, float* y, float* hT, float* saved, int64_t b, int64_t k) {\n  const int64_t d = k * W, D = s.D;\n  const int lanes = (int)std::min<int64_t>(W, D - d);\n  V a[N], h[N];\n  for (int n = 0; n < N; ++n) { a[n] = load(A + n * D + d, lanes); h[n] = load(h0 + (b * N + n) * D + d, lanes); }\n  for (int64_t t = 0; t < s.T; ++t) {\n    if (saved && t % L == 0) {\n      float* at = saved + (((b * s.blocks + k) * s.chunks + t / L) * N) * W;\n      for (int n = 0; n < N; ++n) __builtin_memcpy(at + n * W, &h[n], sizeof(V));\n    }\n    const int64_t row = (b * s.T + t) * D + d, col = (b * s.T + t) * N;\n    const V step = load(dt + row, lanes), in = step * load(x + row, lanes);\n    V out{};\n    for (int n = 0; n < N; ++n) {\n      h[n] = vexp(step * a[n]) * h[n] + in * Bm[col + n];\n      out += h[n] * C[col + n];\n    }\n    store(y + row, out, lanes);\n  }\n  for (int n = 0; n < N; ++n) store(hT + (b * N + n) * D + d, h[n], lanes);\n}\n\n// One batch row, blocks [first, last): adds up over its blocks what belongs to (t, n).\ntemplate <int N>\nstatic void backward_blocks(const Shape& s, const float* x, const float* dt, const float* A, const float* Bm,\n                            const float* C, const float* saved, const float* dy, const float* dhT, float* dx,\n                            float* ddt, float* dA, float* dB, float* dC, float* dh0, int64_t b, int64_t first,\n                            int64_t last) {\n  const int64_t D = s.D, count = last - first;\n  std::vector<V> work((2 * L + 2 * L) * N + L + count * 2 * N);\n  V* hs = work.data();            // states before each step\n  V* decays = hs + L * N;\n  V* sumB = decays + L * N;\n  V* sumC = sumB + L * N;\n  V* carry = sumC + L * N + L;    // gradient of the state, per block\n  V* sumA = carry + count * N;\n  for (int64_t k = 0; k < count; ++k)\n    for (int n = 0; n < N; ++n) {\n      const int64_t d = (first + k) * W;\n      carry[k * N + n] = load(dhT + (b * N + n) * D + d, (int)std::min<int64_t>(W, D - d));\n      sumA[k * N + n] = V{};\n    }\n  for (int64_t chunk = s.chunks - 1; chunk >= 0; --chunk) {\n    const int64_t begin = chunk * L;\n    const int len = (int)std::min<int64_t>(L, s.T - begin);\n    for (int i = 0; i < len * N; ++i) { sumB[i] = V{}; sumC[i] = V{}; }\n    for (int64_t k = 0; k < count; ++k) {\n      const int64_t block = first + k, d = block * W;\n      const int lanes = (int)std::min<int64_t>(W, D - d);\n      V a[N], h[N], g[N], ga[N];\n      const float* at = saved + (((b * s.blocks + block) * s.chunks + chunk) * N) * W;\n      for (int n = 0; n < N; ++n) {\n        a[n] = load(A + n * D + d, lanes);\n        __builtin_memcpy(&h[n], at + n * W, sizeof(V));\n        g[n] = carry[k * N + n];\n        ga[n] = sumA[k * N + n];\n      }\n      for (int i = 0; i < len; ++i) {\n        const int64_t row = (b * s.T + begin + i) * D + d, col = (b * s.T + begin + i) * N;\n        const V step = load(dt + row, lanes), in = step * load(x + row, lanes), slope = load(dy + row, lanes);\n        for (int n = 0; n < N; ++n) {\n          const V decay = vexp(step * a[n]);\n          hs[i * N + n] = h[n];\n          decays[i * N + n] = decay;\n          h[n] = decay * h[n] + in * Bm[col + n];\n          sumC[i * N + n] += slope * h[n];\n        }\n      }\n      for (int i = len - 1; i >= 0; --i) {\n        const int64_t row = (b * s.T + begin + i) * D + d, col = (b * s.T + begin + i) * N;\n        const V step = load(dt + row, lanes), value = load(x + row, lanes), slope = load(dy + row, lanes);\n        const V in = step * value;\n        V din{}, dstep{};\n        for (int n = 0; n < N; ++n) {\n          g[n] += slope * C[col + n];\n          sumB[i * N + n] += g[n] * in;\n          din += g[n] * Bm[col + n];\n          g[n] *= decays[i * N + n];\n          const V rate = g[n] * hs[i * N + n];  // gradient of the exponent dt * A\n          dstep += rate * a[n];\n          ga[n] += rate * step;\n        }\n        store(dx + row, din * step, lanes);\n        store(ddt + row, dstep + din * value, lanes);\n      }\n      for (int n = 0; n < N; ++n) { carry[k * N + n] = g[n]; sumA[k * N + n] = ga[n]; }\n    }\n    for (int i = 0; i < len; ++i)\n      for (int n = 0; n < N; ++n) {\n        dB[(b * s.T + begin + i) * N + n] = sum(sumB[i * N + n]);\n        dC[(b * s.T + begin + i) * N + n] = sum(sumC[i * N + n]);\n      }\n  }\n  for (int64_t k = 0; k < count; ++k)\n    for (int n = 0; n < N; ++n) {\n      const int64_t d = (first + k) * W;\n      const int lanes = (int)std::min<int64_t>(W, D - d);\n      store(dh0 + (b * N + n) * D + d, carry[k * N + n], lanes);\n      store(dA + (b * N + n) * D + d, sumA[k * N + n], lanes);\n    }\n}\n\nstatic const float* in(const at::Tensor& t) { return t.data_ptr<float>(); }\nstatic float* out(at::Tensor& t) { return t.data_ptr<float>(); }\n\ntemplate <int N>\nstatic std::vector<at::Tensor> forward_n(const std::vector<at::Tensor>& v, bool keep) {\n  const Shape s = shape_of(v[0], v[2]);\n  auto y = at::empty_like(v[0]), hT = at::empty_like(v[5]);\n  auto saved = at::empty({keep ? s.B * s.blocks * s.chunks * N * W : 0}, v[0].options());\n  const float *x = in(v[0]), *dt = in(v[1]), *A = in(v[2]), *Bm = in(v[3]), *C = in(v[4]), *h0 = in(v[5]);\n  float *py = out(y), *phT = out(hT), *ps = keep ? out(saved) : nullptr;\n  at::parallel_for(0, s.B * s.blocks, 1, [&](int64_t from, int64_t to) {\n    for (int64_t i = from; i < to; ++i)\n      forward_block<N>(s, x, dt, A, Bm, C, h0, py, phT, ps, i / s.blocks, i % s.blocks);\n  });\n  return {y, hT, saved};\n}\n\ntemplate <int N>\nstatic std::vector<at::Tensor> backward_n(const std::vector<at::Tensor>& v, const at::Tensor& dy,\n                                          const at::Tensor& dhT) {\n  const Shape s = shape_of(v[0], v[2]);\n  const int64_t threads = at::get_num_threads();\n  const int64_t groups = std::min<int64_t>(s.blocks, std::max<int64_t>(1, (threads + s.B - 1) / s.B));\n  auto dx = at::empty_like(v[0]), ddt = at::empty_like(v[1]);\n  auto dB = at::empty({groups, s.B, s.T, N}, v[0].options()), dC = at::empty_like(dB);\n  auto dh0 = at::empty({s.B, N, s.D}, v[0].options()), dA = at::empty_like(dh0);\n  const float *x = in(v[0]), *dt = in(v[1]), *A = in(v[2]), *Bm = in(v[3]), *C = in(v[4]), *saved = in(v[5]);\n  const float *pdy = in(dy), *pdhT = in(dhT);\n  float *pdx = out(dx), *pddt = out(ddt), *pdA = out(dA), *pdB = out(dB), *pdC = out(dC), *pdh0 = out(dh0);\n  const int64_t plane = s.B * s.T * N;\n  at::parallel_for(0, s.B * groups, 1, [&](int64_t from, int64_t to) {\n    for (int64_t i = from; i < to; ++i) {\n      const int64_t b = i / groups, g = i % groups;\n      backward_blocks<N>(s, x, dt, A, Bm, C, saved, pdy, pdhT, pdx, pddt, pdA, pdB + g * plane, pdC + g * plane, pdh0,\n                         b, g * s.blocks / groups, (g + 1) * s.blocks / groups);\n    }\n  });\n  return {dx, ddt, dA.sum(0), dB.sum(0), dC.sum(0), dh0};\n}\n\n#define FOR_EACH_STATE(CASE) CASE(1) CASE(2) CASE(4) CASE(8) CASE(16)\nstd::vector<at::Tensor> forward(const std::vector<at::Tensor>& v, bool keep) {\n  switch (v[2].size(0)) {\n#define CASE(N) case N: return forward_n<N>(v, keep);\n    FOR_EACH_STATE(CASE)\n#undef CASE\n  }\n  TORCH_CHECK(false, "state size ", v[2].size(0), " has no kernel");\n}\nstd::vector<at::Tensor> backward(const std::vector<at::Tensor>& v, const at::Tensor& dy, const at::Tensor& dhT) {\n  switch (v[2].size(0)) {\n#define CASE(N) case N: return backward_n<N>(v, dy, dhT);\n    FOR_EACH_STATE(CASE)\n#undef CASE\n  }\n  TORCH_CHECK(false, "state size ", v[2].size(0), " has no kernel");\n}\nPYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {\n  m.def("forward", &forward, pybind11::arg("tensors"), pybind11::arg("keep"));\n  m.def("backward", &backward, pybind11::arg("tensors"), pybind11::arg("dy_BTD"), pybind11::arg("dstate_BND"));\n}\n'

class ScanKernel(Protocol):

    def forward(self, tensors: list[Tensor], keep: bool) -> list[Tensor]:
        pass

    def backward(self, tensors: list[Tensor], dy_BTD: Tensor, dstate_BND: Tensor) -> list[Tensor]:
        pass

@functools.cache
def scan_kernel() -> ScanKernel | None:
    missing = [program for program in ('g++', 'ninja') if shutil.which(program) is None]
    if missing:
        warnings.warn(f"no compiled scan: {' and '.join(missing)} not found; using PyTorch's operators", stacklevel=2)
        return None
    from torch.utils.cpp_extension import load_inline
    try:
        loaded = load_inline(f'hymba_scan_{_build_key()}', CPP_SOURCE, extra_cflags=list(CPP_FLAGS))
    except (OSError, RuntimeError, ImportError) as error:
        reason = (str(error).strip().splitlines() or ['no reason given'])[0]
        warnings.warn(f"no compiled scan: {reason}; using PyTorch's operators", stacklevel=2)
        return None
    return cast('ScanKernel', loaded)

def _build_key() -> str:
    flags = Path('/proc/cpuinfo')
    lines = flags.read_text(encoding='utf-8', errors='replace').splitlines() if flags.is_file() else []
    processor = next((line for line in lines if line.startswith('flags')), platform.processor())
    text = '\n'.join((CPP_SOURCE, *CPP_FLAGS, torch.__version__, platform.machine(), processor))
    return hashlib.sha256(text.encode()).hexdigest()[:16]

class CppScanContext(FunctionCtx):
    saved_tensors: tuple[Tensor, ...]
    kernel: ScanKernel

class CppScan(torch.autograd.Function):

    @staticmethod
    def forward(ctx: CppScanContext, kernel: ScanKernel, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        y_BTD, state_BND, saved = kernel.forward(list(tensors), any(ctx.needs_input_grad))
        ctx.save_for_backward(*tensors[:5], saved)
        ctx.kernel = kernel
        return (y_BTD, state_BND)

    @staticmethod
    def backward(ctx: CppScanContext, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dy_BTD, dstate_BND = (grad.contiguous() for grad in grads)
        return (None, *ctx.kernel.backward(list(ctx.saved_tensors), dy_BTD, dstate_BND))
SCAN_BACKENDS = ('reference', 'torch', 'cpp')

class ScanInputs(NamedTuple):
    x_BTD: Tensor
    dt_BTD: Tensor
    A_DN: Tensor
    B_BTN: Tensor
    C_BTN: Tensor

def selective_scan_reference(inputs: ScanInputs, state_BDN: Tensor | None=None) -> tuple[Tensor, Tensor]:
    x_BTD, dt_BTD, A_DN, B_BTN, C_BTN = (tensor.double() for tensor in inputs)
    h_BDN = x_BTD.new_zeros(len(x_BTD), *A_DN.shape) if state_BDN is None else state_BDN.double()
    outputs = []
    for step in range(x_BTD.shape[1]):
        dt_BD1 = dt_BTD[:, step, :, None]
        h_BDN = torch.exp(dt_BD1 * A_DN) * h_BDN + dt_BD1 * x_BTD[:, step, :, None] * B_BTN[:, step, None]
        outputs.append((h_BDN * C_BTN[:, step, None]).sum(-1))
    return (torch.stack(outputs, 1), h_BDN)

def selective_scan(inputs: ScanInputs, state_BDN: Tensor | None=None, *, chunk: int=64, backend: str='torch') -> tuple[Tensor, Tensor]:
    if backend not in SCAN_BACKENDS:
        raise ValueError(f"scan backend {backend!r} is none of {', '.join(SCAN_BACKENDS)}")
    if backend == 'reference':
        return selective_scan_reference(inputs, state_BDN)
    dtype = torch.promote_types(inputs.x_BTD.dtype, torch.float32)
    if state_BDN is None:
        state_BDN = inputs.x_BTD.new_zeros(len(inputs.x_BTD), *inputs.A_DN.shape)
    tensors = (inputs.x_BTD, inputs.dt_BTD, inputs.A_DN.t(), inputs.B_BTN, inputs.C_BTN, state_BDN.transpose(1, 2))
    ready = tuple((tensor.to(dtype).contiguous() for tensor in tensors))
    kernel = _kernel_for(ready) if backend == 'cpp' else None
    if kernel is not None:
        y_BTD, state_BND = CppScan.apply(kernel, *ready)
    else:
        y_BTD, state_BND = SelectiveScan.apply(chunk, *ready)
    return (y_BTD, state_BND.transpose(1, 2))

def _kernel_for(tensors: tuple[Tensor, ...]) -> ScanKernel | None:
    x_BTD, A_ND = (tensors[0], tensors[2])
    fits = x_BTD.dtype == torch.float32 and x_BTD.device.type == 'cpu' and (len(A_ND) in KERNEL_STATES)
    return scan_kernel() if fits and x_BTD.numel() else None

class ScanContext(FunctionCtx):
    saved_tensors: tuple[Tensor, ...]
    chunk: int

class SelectiveScan(torch.autograd.Function):

    @staticmethod
    def forward(ctx: ScanContext, chunk: int, *tensors: Tensor) -> tuple[Tensor, Tensor]:
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
        return (y_BTD, h_BND)

    @staticmethod
    def backward(ctx: ScanContext, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_BTD, dt_BTD, A_ND, B_BTN, C_BTN, *boundaries = ctx.saved_tensors
        dy_BTD, carry_BND = grads
        steps = ChunkSteps(x_BTD, dt_BTD, A_ND, B_BTN, ctx.chunk)
        grad = ScanGradients(steps)
        dx_BTD, ddt_BTD, dB_BTN, dC_BTN = (torch.empty_like(tensor) for tensor in (x_BTD, dt_BTD, B_BTN, C_BTN))
        for span, h_BND in reversed(list(zip(steps.spans(), boundaries, strict=True))):
            x_BLD, dt_BLD = (x_BTD[:, span], dt_BTD[:, span])
            h_LBND = steps.run(span, h_BND)
            dC_BTN[:, span] = sum_over_channels(dy_BTD[:, span], h_LBND)
            dh_LBND = grad.of_states(C_BTN[:, span], dy_BTD[:, span], carry_BND)
            dB_BTN[:, span] = sum_over_channels(dt_BLD * x_BLD, dh_LBND)
            dinput_BLD = sum_over_state(B_BTN[:, span], dh_LBND)
            drate_BLD, carry_BND = grad.of_rates(dt_BLD, h_BND)
            dx_BTD[:, span] = dinput_BLD * dt_BLD
            ddt_BTD[:, span] = drate_BLD.addcmul(dinput_BLD, x_BLD)
        return (None, dx_BTD, ddt_BTD, grad.dA_LBND.sum((0, 1)), dB_BTN, dC_BTN, carry_BND)

class ChunkSteps:

    def __init__(self, x_BTD: Tensor, dt_BTD: Tensor, A_ND: Tensor, B_BTN: Tensor, chunk: int) -> None:
        self.x_BTD, self.dt_BTD, self.A_ND, self.B_BTN = (x_BTD, dt_BTD, A_ND, B_BTN)
        self.chunk = chunk
        self.length = min(chunk, x_BTD.shape[1])
        self.decay_LBND, self.h_LBND = x_BTD.new_empty(2, self.length, len(x_BTD), *A_ND.shape).unbind(0)
        self.decay_steps, self.h_steps = (self.decay_LBND.unbind(0), self.h_LBND.unbind(0))

    def spans(self) -> list[slice]:
        return [slice(start, start + self.chunk) for start in range(0, self.x_BTD.shape[1], self.chunk)]

    def run(self, span: slice, h_BND: Tensor) -> Tensor:
        x_LBD, dt_LBD, B_LBN = (tensor[:, span].transpose(0, 1) for tensor in (self.x_BTD, self.dt_BTD, self.B_BTN))
        self.length = len(x_LBD)
        decay_LBND, h_LBND = (self.decay_LBND[:self.length], self.h_LBND[:self.length])
        torch.mul(dt_LBD[:, :, None], self.A_ND, out=decay_LBND).exp_()
        torch.mul((dt_LBD * x_LBD)[:, :, None], B_LBN[..., None], out=h_LBND)
        for decay_BND, next_BND in zip(self.decay_steps[:self.length], self.h_steps, strict=False):
            h_BND = next_BND.addcmul_(decay_BND, h_BND)
        return h_LBND

class ScanGradients:

    def __init__(self, steps: ChunkSteps) -> None:
        self.steps = steps
        self.dh_LBND, self.dA_LBND = (torch.empty_like(steps.h_LBND), torch.zeros_like(steps.h_LBND))
        self.dh_steps = self.dh_LBND.unbind(0)

    def of_states(self, C_BLN: Tensor, dy_BLD: Tensor, carry_BND: Tensor) -> Tensor:
        length = self.steps.length
        dh_LBND = self.dh_LBND[:length]
        torch.mul(C_BLN.transpose(0, 1)[..., None], dy_BLD.transpose(0, 1)[:, :, None], out=dh_LBND)
        later_BND = self.dh_steps[length - 1].add_(carry_BND)
        for step in range(length - 2, -1, -1):
            later_BND = self.dh_steps[step].addcmul_(self.steps.decay_steps[step + 1], later_BND)
        return dh_LBND

    def of_rates(self, dt_BLD: Tensor, h_BND: Tensor) -> tuple[Tensor, Tensor]:
        length = self.steps.length
        drate_LBND = self.steps.decay_LBND[:length].mul_(self.dh_LBND[:length])
        carry_BND = drate_LBND[0].clone()
        drate_LBND[1:].mul_(self.steps.h_LBND[:length - 1])
        drate_LBND[0].mul_(h_BND)
        self.dA_LBND[:length].addcmul_(drate_LBND, dt_BLD.transpose(0, 1)[:, :, None])
        return (drate_LBND.mul_(self.steps.A_ND).sum(2).transpose(0, 1), carry_BND)

def sum_over_state(weight_BLN: Tensor, h_LBND: Tensor) -> Tensor:
    length, batch, state, channels = h_LBND.shape
    out = h_LBND.new_empty(length * batch, 1, channels)
    weight = weight_BLN.transpose(0, 1).reshape(-1, 1, state)
    return torch.bmm(weight, h_LBND.view(-1, state, channels), out=out).view(length, batch, channels).transpose(0, 1)

def sum_over_channels(weight_BLD: Tensor, h_LBND: Tensor) -> Tensor:
    length, batch, state, channels = h_LBND.shape
    out = h_LBND.new_empty(length * batch, state, 1)
    weight = weight_BLD.transpose(0, 1).reshape(-1, channels, 1)
    return torch.bmm(h_LBND.view(-1, state, channels), weight, out=out).view(length, batch, state).transpose(0, 1)
KeysValues: TypeAlias = tuple[Tensor, Tensor]

@dataclass(frozen=True)
class LayerContext:
    rotary: tuple[Tensor, Tensor]
    meta: int = 0
    kept: dict[int, KeysValues] = field(default_factory=dict)

class AttentionMixer(nn.Module):

    def __init__(self, config: ModelConfig, layer: int, linear: MakeLinear=plain_linear) -> None:
        super().__init__()
        self.layer, self.source, self.window = (layer, config.kv_source(layer), config.layer_window(layer))
        self.lends = any((config.kv_source(later) == layer for later in range(layer + 1, config.num_layers)))
        self.head_dim, self.kv_dim = (config.head_dim, config.num_kv_heads * config.head_dim)
        self.c_q = linear('c_q', config.model_dim, config.model_dim)
        self.q_gain = nn.Parameter(torch.full((self.query_heads(config),), config.qk_gain_init))
        self.proj = linear('proj', config.model_dim, config.model_dim)
        self.separate_kv = config.separate_kv
        self.add_projections(config, linear)

    @staticmethod
    def query_heads(config: ModelConfig) -> int:
        return config.num_heads

    def add_projections(self, config: ModelConfig, linear: MakeLinear) -> None:
        if self.source != self.layer:
            return
        if self.separate_kv:
            self.c_k = linear('c_k', self.kv_dim, config.model_dim)
            self.c_v = linear('c_v', self.kv_dim, config.model_dim)
        else:
            self.kv_proj = linear('kv_proj', 2 * self.kv_dim, config.model_dim)

    def queries(self, q_BTC: Tensor, context: LayerContext, start: int=0) -> Tensor:
        q_BTHE = normalized_heads(torch.unflatten(q_BTC, -1, (-1, self.head_dim)), context.rotary, start)
        return (q_BTHE * self.q_gain[:, None].to(q_BTHE.dtype)).transpose(1, 2)

    def keys_values(self, x_BTD: Tensor, context: LayerContext) -> KeysValues:
        if self.source != self.layer:
            return context.kept[self.source]
        if self.separate_kv:
            return self.key_value_heads(self.c_k(x_BTD), self.c_v(x_BTD), context)
        k_BTC, v_BTC = self.kv_proj(x_BTD).chunk(2, -1)
        return self.key_value_heads(k_BTC, v_BTC, context)

    def key_value_heads(self, k_BTC: Tensor, v_BTC: Tensor, context: LayerContext) -> KeysValues:
        k_BTGE, v_BTGE = (torch.unflatten(part_BTC, -1, (-1, self.head_dim)) for part_BTC in (k_BTC, v_BTC))
        found = (normalized_heads(k_BTGE, context.rotary).transpose(1, 2), v_BTGE.transpose(1, 2))
        if self.lends:
            context.kept[self.layer] = found
        return found

    def attend(self, x_BTD: Tensor, keys_values: KeysValues, context: LayerContext) -> Tensor:
        mixed_BHTE = attention_after_meta(self.queries(self.c_q(x_BTD), context), *keys_values, window=self.window, meta=context.meta)
        return mixed_BHTE.transpose(1, 2).flatten(2)

    def forward(self, x_BTD: Tensor, context: LayerContext) -> Tensor:
        output_BTD: Tensor = self.proj(self.attend(x_BTD, self.keys_values(x_BTD, context), context))
        return output_BTD

class HymbaMixer(AttentionMixer):

    def __init__(self, config: ModelConfig, layer: int, linear: MakeLinear=plain_linear) -> None:
        super().__init__(config, layer, linear)
        channels, rank, state = (config.ssm_dim, config.ssm_dt_rank, config.ssm_state)
        self.scan_sizes = (rank, state, state)
        self.scan_chunk, self.scan_backend = (config.scan_chunk, config.scan_backend)
        self.conv1d = DepthwiseConv(channels, config.conv_width)
        self.x_proj = linear('x_proj', sum(self.scan_sizes), channels)
        self.add_step_projection(rank, channels, linear)
        self.A_log = nn.Parameter(torch.arange(1, state + 1).float().log().repeat(channels, 1))
        self.D = nn.Parameter(torch.ones(channels))
        self.averages = config.fusion == 'norms'
        if self.averages:
            self.mamba_out_proj: nn.Module = nn.Identity()
            self.attention_norm = nn.Parameter(torch.ones(config.model_dim))
            self.mamba_norm = nn.Parameter(torch.ones(config.model_dim))
        else:
            self.mamba_out_proj = linear('mamba_out_proj', config.model_dim, channels)
            self.merge_alpha = nn.Parameter(torch.zeros(1))

    def add_projections(self, config: ModelConfig, linear: MakeLinear) -> None:
        self.sizes = (self.kv_dim, self.kv_dim, config.ssm_dim, config.ssm_dim)
        self.fused = config.fused_projection and self.source == self.layer
        if self.fused:
            self.in_proj = linear('in_proj', sum(self.sizes), config.model_dim)
            return
        super().add_projections(config, linear)
        self.mamba_proj = linear('mamba_proj', 2 * config.ssm_dim, config.model_dim)

    def add_step_projection(self, rank: int, channels: int, linear: MakeLinear) -> None:
        self.dt_proj = linear('dt_proj', channels, rank, bias=True)

    def step_sizes(self, dt_BTR: Tensor) -> Tensor:
        return F.softplus(self.dt_proj(dt_BTR))

    def project(self, x_BTD: Tensor, context: LayerContext) -> tuple[KeysValues, Tensor, Tensor]:
        if not self.fused:
            scanned_BTD, gate_BTD = self.mamba_proj(x_BTD).chunk(2, -1)
            return (self.keys_values(x_BTD, context), scanned_BTD, gate_BTD)
        k_BTC, v_BTC, scanned_BTD, gate_BTD = self.in_proj(x_BTD).split(self.sizes, -1)
        return (self.key_value_heads(k_BTC, v_BTC, context), scanned_BTD, gate_BTD)

    def scan(self, x_BTD: Tensor, gate_BTD: Tensor) -> Tensor:
        x_BTD = F.silu(self.conv1d(x_BTD))
        dt_BTR, B_BTN, C_BTN = self.x_proj(x_BTD).split(self.scan_sizes, -1)
        inputs = ScanInputs(x_BTD, self.step_sizes(dt_BTR), -self.A_log.float().exp(), B_BTN, C_BTN)
        y_BTD, _ = selective_scan(inputs, chunk=self.scan_chunk, backend=self.scan_backend)
        output_BTD: Tensor = self.mamba_out_proj(torch.addcmul(y_BTD, self.D, x_BTD) * F.silu(gate_BTD))
        return output_BTD

    def merge(self, attention_BTD: Tensor, mamba_BTD: Tensor) -> Tensor:
        attention_BTD = attention_BTD.to(mamba_BTD.dtype)
        if not self.averages:
            return torch.lerp(mamba_BTD, attention_BTD, torch.sigmoid(self.merge_alpha).to(mamba_BTD.dtype))
        width = mamba_BTD.shape[-1:]
        normed_BTD = F.rms_norm(attention_BTD, width) * self.attention_norm
        return torch.addcmul(normed_BTD, self.mamba_norm, F.rms_norm(mamba_BTD, width)) / 2

    def forward(self, x_BTD: Tensor, context: LayerContext) -> Tensor:
        keys_values, scanned_BTD, gate_BTD = self.project(x_BTD, context)
        attention_BTD = self.attend(x_BTD, keys_values, context)
        output_BTD: Tensor = self.proj(self.merge(attention_BTD, self.scan(scanned_BTD, gate_BTD)))
        return output_BTD

class SharedMatrixMixer(HymbaMixer):

    def add_projections(self, config: ModelConfig, linear: MakeLinear) -> None:
        self.unused_rows = 2 * self.kv_dim
        self.c_k = linear('c_k', self.kv_dim, config.model_dim)
        self.value_gate = linear('value_gate', self.kv_dim, config.model_dim)
        self.in_proj = linear('in_proj', self.unused_rows + 2 * config.ssm_dim, config.model_dim)

    def add_step_projection(self, rank: int, channels: int, linear: MakeLinear) -> None:
        self.missing_channels = channels - rank
        self.dt_bias = nn.Parameter(torch.zeros(channels))

    def step_sizes(self, dt_BTR: Tensor) -> Tensor:
        return F.softplus(F.pad(dt_BTR, (0, self.missing_channels)) + self.dt_bias)

    def project(self, x_BTD: Tensor, context: LayerContext) -> tuple[KeysValues, Tensor, Tensor]:
        k_BTC = self.c_k(x_BTD)
        keys_values = self.key_value_heads(k_BTC, k_BTC * torch.sigmoid(self.value_gate(x_BTD)), context)
        scanned_BTD, gate_BTD = F.linear(x_BTD, self.in_proj.weight[self.unused_rows:]).chunk(2, -1)
        return (keys_values, scanned_BTD, gate_BTD)
LARGEST_STEP = 1.0
LARGEST_RATE = 10.0
LARGEST_DECAY = 0.5
STEP_BIAS_INIT = -4.0
RATE_INIT_STD = 0.5

class ScanHead(nn.Module):

    def __init__(self, width: int, state: int) -> None:
        super().__init__()
        self.log_A = nn.Parameter(torch.zeros(state))
        self.B_proj = nn.Linear(width, state, bias=False)
        self.C_proj = nn.Linear(width, state, bias=False)
        self.dt_proj = nn.Linear(width, state)
        self.out_proj = nn.Linear(state, width, bias=False)

    def init_weights(self, generator: torch.Generator | None) -> None:
        nn.init.normal_(self.log_A, std=RATE_INIT_STD, generator=generator)
        nn.init.constant_(self.dt_proj.bias, STEP_BIAS_INIT)

    def recurrence(self, x_BTE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        wanted_BTN = F.softplus(self.dt_proj(x_BTE).float()).clamp(max=LARGEST_STEP)
        rate_N = self.log_A.float().exp().clamp(max=LARGEST_RATE)
        dt_BTN = torch.minimum(wanted_BTN, LARGEST_DECAY / rate_N)
        return (self.B_proj(x_BTE).float() * (wanted_BTN / dt_BTN), dt_BTN, rate_N)

    def read(self, x_BTE: Tensor, state_BTN: Tensor) -> Tensor:
        gain_BT1 = (self.C_proj(x_BTE).float() * state_BTN).sum(-1, keepdim=True)
        return torch.addcmul(self.out_proj(state_BTN.to(x_BTE.dtype)), gain_BT1.to(x_BTE.dtype), x_BTE[..., :1])

class HeadsMixer(AttentionMixer):

    def __init__(self, config: ModelConfig, layer: int, linear: MakeLinear) -> None:
        super().__init__(config, layer, linear)
        self.scan_chunk, self.scan_backend = (config.scan_chunk, config.scan_backend)
        heads = self.query_heads(config)
        self.ssm_in = linear('ssm_in', heads * self.head_dim, config.model_dim)
        self.ssm_heads = nn.ModuleList((ScanHead(self.head_dim, config.ssm_state) for _ in range(heads)))
        self.meta_tokens = meta_parameter(config.meta_tokens, config.model_dim)
        self.attn_scale = nn.Parameter(torch.ones(1))
        self.ssm_scale = nn.Parameter(torch.ones(1))
        self.lends = False
        self.lender: tuple[AttentionMixer, ...] = ()

    @staticmethod
    def query_heads(config: ModelConfig) -> int:
        return config.num_heads // 2

    def init_weights(self, generator: torch.Generator | None) -> None:
        init_meta(self.meta_tokens, generator)

    def attend_meta(self, x_BTD: Tensor, context: LayerContext) -> Tensor:
        extended = with_meta(self.meta_tokens, x_BTD)
        keys_values = (self.lender or (self,))[0].keys_values(extended, context)
        q_BTC = F.linear(x_BTD, self.c_q.weight[:len(self.q_gain) * self.head_dim])
        q_BHTE = self.queries(q_BTC, context, start=extended.shape[1] - x_BTD.shape[1])
        return causal_attention(q_BHTE, *keys_values, self.window).transpose(1, 2).flatten(2)

    def scan(self, x_BTC: Tensor, state: Tensor | None=None) -> tuple[Tensor, Tensor]:
        heads = [head for head in self.ssm_heads if isinstance(head, ScanHead)]
        parts = torch.split(x_BTC, self.head_dim, -1)
        recurrences = [head.recurrence(part) for head, part in zip(heads, parts, strict=True)]
        inputs, steps, rates = zip(*recurrences, strict=True)
        x_BTS, dt_BTS, A_S1 = (torch.cat(inputs, -1), torch.cat(steps, -1), -torch.cat(rates)[:, None])
        one_BT1 = torch.ones_like(x_BTS[..., :1])
        scanned = ScanInputs(x_BTS, dt_BTS, A_S1, one_BT1, one_BT1)
        states_BTS, state = selective_scan(scanned, state, chunk=self.scan_chunk, backend=self.scan_backend)
        split = torch.split(states_BTS, len(rates[0]), -1)
        read = [head.read(part, states) for head, part, states in zip(heads, parts, split, strict=True)]
        return (torch.cat(read, -1), state)

    def forward(self, x_BTD: Tensor, context: LayerContext) -> Tensor:
        attended = self.attend_meta(x_BTD, context) * self.attn_scale
        scanned, _ = self.scan(self.ssm_in(x_BTD))
        output_BTD: Tensor = self.proj(torch.cat((attended, scanned * self.ssm_scale), -1).to(x_BTD.dtype))
        return output_BTD
BIGRAM_MULTIPLIER = 92821
ORTHOGONAL_MIN_SIDE = 16
ZERO_INIT_NAMES = ('proj', 'lm_head')

class SmearGate(nn.Module):

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.full((dim,), 3.0))

    def forward(self, x_BTD: Tensor) -> Tensor:
        previous_BTD = F.pad(x_BTD[:, :-1], (0, 0, 1, 0))
        return torch.lerp(previous_BTD, x_BTD, torch.sigmoid(self.gate).to(x_BTD.dtype))

class BigramHash(nn.Module):

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.table = nn.Embedding(config.bigram_buckets, config.bigram_dim)
        self.proj = nn.Linear(config.bigram_dim, config.model_dim, bias=False)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        previous_BT = F.pad(tokens_BT[:, :-1], (1, 0))
        buckets_BT = (previous_BT * BIGRAM_MULTIPLIER + tokens_BT) % self.table.num_embeddings
        output_BTD: Tensor = self.proj(self.table(buckets_BT))
        return output_BTD

class MLP(nn.Module):

    def __init__(self, config: ModelConfig, linear: MakeLinear=plain_linear) -> None:
        super().__init__()
        self.fc = linear('fc', config.mlp_mult * config.model_dim, config.model_dim)
        self.proj = linear('mlp_proj', config.model_dim, config.mlp_mult * config.model_dim)
        self.activation, self.slope = (config.activation, config.leaky_relu_slope)

    def forward(self, x_BTD: Tensor) -> Tensor:
        hidden = self.fc(x_BTD)
        if self.activation == 'silu':
            hidden = F.silu(hidden)
        else:
            hidden = F.leaky_relu(hidden, self.slope if self.activation == 'leaky_relu2' else 0.0).square()
        output_BTD: Tensor = self.proj(hidden)
        return output_BTD

def make_mixer(config: ModelConfig, layer: int, linear: MakeLinear) -> AttentionMixer:
    if not config.is_hybrid(layer):
        return AttentionMixer(config, layer, linear)
    if config.fusion == 'heads':
        return HeadsMixer(config, layer, linear)
    mixer = SharedMatrixMixer if config.banks == 'shared' else HymbaMixer
    return mixer(config, layer, linear)

class Block(nn.Module):

    def __init__(self, config: ModelConfig, layer: int, linear: MakeLinear=plain_linear) -> None:
        super().__init__()
        self.attn = make_mixer(config, layer, linear)
        self.mlp = MLP(config, linear)
        self.attn_scale = nn.Parameter(torch.ones(config.model_dim))
        self.mlp_scale = nn.Parameter(torch.ones(config.model_dim))
        self.resid_mix = nn.Parameter(torch.stack((torch.ones(config.model_dim), torch.zeros(config.model_dim))))

    def forward(self, x_BTD: Tensor, x0_BTD: Tensor, context: LayerContext) -> Tensor:
        width = x_BTD.shape[-1:]
        x_BTD = torch.addcmul(self.resid_mix[0] * x_BTD, self.resid_mix[1], x0_BTD)
        x_BTD = torch.addcmul(x_BTD, self.attn_scale, self.attn(F.rms_norm(x_BTD, width), context))
        return torch.addcmul(x_BTD, self.mlp_scale, self.mlp(F.rms_norm(x_BTD, width)))

class HymbaLM(nn.Module):

    def __init__(self, config: ModelConfig, generator: torch.Generator | None=None) -> None:
        super().__init__()
        self.config = config
        self.tok_emb = nn.Embedding(config.vocab_size, config.model_dim)
        self.meta_tokens = meta_parameter(config.meta_tokens * (config.fusion != 'heads'), config.model_dim)
        self.smeargate = SmearGate(config.model_dim) if config.use_smeargate else None
        self.bigram_hash = BigramHash(config) if config.use_bigram_hash else None
        self.banks = ParameterBanks(config) if config.banks != 'none' else None
        layers, skips = (config.num_layers, config.num_layers // 2 * config.use_unet_skips)
        makers = [plain_linear if self.banks is None else self.banks.makes(layer) for layer in range(layers)]
        self.blocks = nn.ModuleList((Block(config, layer, linear) for layer, linear in enumerate(makers)))
        self.skip_weights = nn.Parameter(torch.ones(1, skips, config.model_dim)) if skips else None
        head = nn.Linear(config.model_dim, config.vocab_size, bias=False)
        self.lm_head = None if config.tie_embeddings else head
        self.lend_projections()
        self.init_weights(generator)

    def lend_projections(self) -> None:
        mixers = [module for module in self.modules() if isinstance(module, AttentionMixer)]
        for mixer in mixers:
            if isinstance(mixer, HeadsMixer) and mixer.source != mixer.layer:
                mixer.lender = (mixers[mixer.source],)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None) -> None:
        shared = self.config.banks == 'shared'
        for name, module in self.named_modules():
            is_linear = isinstance(module, (nn.Linear, BankLinear))
            if is_linear and name.rsplit('.', 1)[-1] in ZERO_INIT_NAMES and (not (shared and name.endswith('attn.proj'))):
                nn.init.zeros_(module.weight)
            elif is_linear or isinstance(module, DepthwiseConv):
                init_matrix(module.weight, module.bias, generator)
        for module in self.modules():
            if isinstance(module, (HeadsMixer, ScanHead)):
                module.init_weights(generator)
        init_meta(self.meta_tokens, generator)
        std = self.config.tied_embed_init_std if self.config.tie_embeddings else 1.0
        nn.init.normal_(self.tok_emb.weight, std=std, generator=generator)
        if self.bigram_hash is not None:
            nn.init.normal_(self.bigram_hash.table.weight, std=0.01, generator=generator)

    def embed(self, tokens_BT: Tensor) -> Tensor:
        x_BTD: Tensor = self.tok_emb(tokens_BT)
        if self.bigram_hash is not None:
            x_BTD = x_BTD + self.bigram_hash(tokens_BT)
        if self.smeargate is not None:
            x_BTD = self.smeargate(x_BTD)
        return F.rms_norm(x_BTD, x_BTD.shape[-1:])

    def run_blocks(self, x_BTD: Tensor) -> Tensor:
        text = x_BTD.shape[1]
        if self.meta_tokens is not None:
            x_BTD = with_meta(F.rms_norm(self.meta_tokens, x_BTD.shape[-1:]), x_BTD)
        with self.banks.taken_apart() if self.banks else nullcontext():
            x_BTD = self.run_layers(x_BTD, meta=x_BTD.shape[1] - text)
        return F.rms_norm(x_BTD[:, -text:], x_BTD.shape[-1:])

    def run_layers(self, x_BTD: Tensor, meta: int) -> Tensor:
        config, x0_BTD, skips = (self.config, x_BTD, list[Tensor]())
        length = x_BTD.shape[1] - meta + config.meta_tokens
        rotary = rotary_tables(length, config.rotary_dims, config.rope_base, x_BTD.device)
        context, half = (LayerContext(rotary, meta), config.num_layers // 2)
        for layer, block in enumerate(self.blocks):
            if self.skip_weights is not None and layer >= half and skips:
                x_BTD = torch.addcmul(x_BTD, self.skip_weights[0, layer - half], skips.pop())
            x_BTD = block(x_BTD, x0_BTD, context)
            if self.skip_weights is not None and layer < half:
                skips.append(x_BTD)
        return x_BTD

    def forward(self, tokens_BT: Tensor) -> Tensor:
        x_BTD = self.run_blocks(self.embed(tokens_BT))
        weight_VD = self.tok_emb.weight if self.lm_head is None else self.lm_head.weight
        cap = self.config.logit_softcap
        if not cap:
            return F.linear(x_BTD, weight_VD).float()
        return cap * torch.tanh(F.linear(x_BTD / cap, weight_VD).float())

    def token_losses(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        logits_BTV = self(tokens_BT)
        return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction='none').view_as(targets_BT)

def init_matrix(weight: Tensor, bias: Tensor | None, generator: torch.Generator | None) -> None:
    bound = 1 / math.sqrt(weight[0].numel())
    if weight.ndim == 2 and min(weight.shape) >= ORTHOGONAL_MIN_SIDE:
        nn.init.orthogonal_(weight, generator=generator)
    else:
        nn.init.uniform_(weight, -bound, bound, generator=generator)
    if bias is not None:
        nn.init.uniform_(bias, -bound, bound, generator=generator)
DEMO_MODEL = ModelConfig(num_layers=2, model_dim=128, num_heads=4, num_kv_heads=2, mlp_mult=3, ssm_state=4, bigram_buckets=65536, bigram_dim=32, sliding_window=128)
DEMO_OPTIM = OptimConfig(tied_embed_lr=0.02)
DEMO_TRAIN = TrainConfig(warmup_steps=2, warmdown_frac=0.7, train_batch_tokens=1024, train_seq_len=128, max_wallclock_seconds=60.0, train_log_every=20, val_loss_every=0, ema_decay=0.8, grad_accum_steps=1)
DEMO_QUANT = QuantConfig(keep_float_max_numel=4096)
DEMO_EVALUATION = EvalConfig(eval_stride=0, eval_batch_seqs=8, eval_seq_len=512, val_batch_size=16384, ttt_enabled=True, ttt_lr=0.4, ttt_momentum=0.8, ttt_epochs=1, ttt_chunk_tokens=2048, ttt_batch_seqs=4)
MINI_MODEL = ModelConfig(num_layers=9, mlp_mult=2, use_smeargate=False, use_bigram_hash=False, hybrid_layers=(4,), fusion='heads', meta_tokens=4, kv_share=True, ssm_state=16, separate_kv=True)
MINI = Config(model=MINI_MODEL, optim=OptimConfig(matrix_lr=0.004, scalar_lr=0.004, embed_lr=0.005, tied_embed_lr=0.005, weight_decay=0.0), train=TrainConfig(iterations=800, warmup_steps=100, warmdown_iters=1200, warmdown_shape='linear', train_seq_len=1024, max_wallclock_seconds=1800.0, train_log_every=50, val_loss_every=200, ema_decay=0.0), quant=QuantConfig(bits=8, clip_search=False, scale_floor='published'), evaluation=EvalConfig(eval_stride=0))
BANKED_MODEL = ModelConfig(num_layers=11, mlp_mult=3, use_unet_skips=False, use_smeargate=False, use_bigram_hash=False, hybrid_layers=tuple(range(10)), banks='shared', conv_width=3, fused_projection=False, separate_kv=True)
BANKED = Config(model=replace(BANKED_MODEL, activation='silu', rope_dims=16, logit_softcap=0.0), optim=OptimConfig(scalar_lr=0.01, muon_momentum=0.99, muon_backend_steps=3, weight_decay=0.04), train=TrainConfig(warmdown_iters=3500, train_seq_len=1024), quant=QuantConfig(bits=4), evaluation=EvalConfig(eval_stride=0))
PRESETS: Mapping[str, Config] = MappingProxyType({'demo': Config(model=DEMO_MODEL, optim=DEMO_OPTIM, train=DEMO_TRAIN, quant=DEMO_QUANT, evaluation=DEMO_EVALUATION), 'demo_attention': Config(model=ModelConfig(num_layers=4, model_dim=128, num_heads=4, use_hymba=False, use_bigram_hash=False, use_smeargate=False, sliding_window=256), optim=DEMO_OPTIM, train=replace(DEMO_TRAIN, train_batch_tokens=2048, train_seq_len=256), quant=DEMO_QUANT, evaluation=DEMO_EVALUATION), 'pr599': Config(quant=QuantConfig(scale_floor='published')), 'pr914': Config(model=ModelConfig(activation='leaky_relu2', fused_projection=False, sliding_window=512), train=TrainConfig(train_seq_len=32768), quant=QuantConfig(scale_floor='published'), evaluation=EvalConfig(eval_stride=0, eval_batch_seqs=4, ttt_enabled=True, ttt_freeze_blocks=2)), 'pr1245': Config(model=ModelConfig(num_layers=8, activation='leaky_relu2', fused_projection=False, sliding_window=1024, ssm_state=4, tie_embeddings=False), optim=OptimConfig(weight_decay=0.15), train=TrainConfig(train_seq_len=32768, warmdown_iters=7000, ema_every=10, grad_accum_steps=1), quant=QuantConfig(bits=8, clip_search=False, scale_floor='published'), evaluation=EvalConfig(eval_stride=0, eval_batch_seqs=4, ttt_enabled=True, ttt_epochs=25)), 'mini1961': MINI, 'mini1961_3': replace(MINI, model=replace(MINI_MODEL, hybrid_layers=(3, 4, 5)), train=replace(MINI.train, iterations=200, max_wallclock_seconds=900.0)), 'pr852_records': BANKED, 'pr852': replace(BANKED, model=replace(BANKED_MODEL, banks='separate', activation='leaky_relu2', leaky_relu_slope=0.5, use_bigram_hash=True, bigram_buckets=2048), evaluation=EvalConfig(eval_stride=0, eval_batch_seqs=4, ttt_enabled=True)), 'paper': Config(model=ModelConfig(mlp_mult=3, activation='silu', use_unet_skips=False, use_smeargate=False, use_bigram_hash=False, fusion='norms', meta_tokens=256, kv_share=True, ssm_state=16, sliding_window=1024, global_layers=None), evaluation=EvalConfig(eval_stride=0, eval_batch_seqs=4))})
RULE_LINE = '=' * 100

@dataclass(frozen=True)
class Progress:
    step: int
    steps: int
    train_ms: float

    def timing(self) -> str:
        return f'train_time:{self.train_ms:.0f}ms step_avg:{self.train_ms / max(self.step, 1):.2f}ms'

def train_line(progress: Progress, loss: float) -> str:
    return f'step:{progress.step}/{progress.steps} train_loss:{loss:.4f} {progress.timing()}'

def validation_line(progress: Progress, val_loss: float, val_bpb: float) -> str:
    head = f'step:{progress.step}/{progress.steps}'
    return f'{head} val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f} {progress.timing()}'

def stop_line(progress: Progress) -> str:
    time_and_step = f'train_time:{progress.train_ms:.0f}ms step:{progress.step}/{progress.steps}'
    return f'stopping_early: wallclock_cap {time_and_step}'

def score_lines(label: str, scores: tuple[float, float], mode: str, seconds: float) -> tuple[str, str]:
    val_loss, val_bpb = scores
    rounded = f'val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f} eval_mode:{mode} eval_time:{1000.0 * seconds:.0f}ms'
    return (f'{label} {rounded}', f'{label}_exact val_loss:{val_loss:.8f} val_bpb:{val_bpb:.8f}')

def diagnostic_line(name: str, scores: tuple[float, float], seconds: float) -> str:
    val_loss, val_bpb = scores
    return f'DIAGNOSTIC {name} val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f} eval_time:{1000.0 * seconds:.0f}ms'

def size_lines(quantizer: str, code_bytes: int, model_bytes: int) -> tuple[str, str, str]:
    return (f'Code size: {code_bytes} bytes', f'Serialized model {quantizer}: {model_bytes} bytes', f'Total submission size {quantizer}: {code_bytes + model_bytes} bytes')

def version_lines() -> tuple[str, ...]:
    return (f'Running Python {sys.version.split()[0]} on {platform.system()} {platform.machine()}', f'Running PyTorch {torch.__version__} numpy {np.__version__} zstandard {zstandard.__version__}', f'threads:{torch.get_num_threads()}')

@dataclass
class RunLog:
    path: Path | None
    console: Callable[[str], object] = print
    enabled: bool = True
    _started: bool = field(default=False, init=False)

    def say(self, *lines: str) -> None:
        if self.enabled:
            for line in lines:
                self.console(line)
            self.record(*lines)

    def record(self, *lines: str) -> None:
        if not self.enabled or self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open('a' if self._started else 'w', encoding='utf-8') as file:
            file.writelines((f'{line}\n' for line in lines))
        self._started = True

    def record_header(self, hyperparameters: Mapping[str, object], code: str, versions: Sequence[str]) -> None:
        settings = (f'  {name}: {value}' for name, value in sorted(hyperparameters.items()))
        self.say(RULE_LINE, 'Hyperparameters:', *settings, RULE_LINE)
        self.record(code.rstrip('\n'), RULE_LINE, *versions, RULE_LINE)

class RunError(RuntimeError):
    pass

def pack_model(state: Mapping[str, Tensor], config: Config) -> bytes:
    return pack(state, json.dumps(asdict(config.model), sort_keys=True), config.quant)

def unpack_model(blob: bytes, config: ModelConfig) -> dict[str, Tensor]:
    return unpack(blob, expect=partial(refuse_other_model, config))[1]

def refuse_other_model(config: ModelConfig, header: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    expected = json.loads(json.dumps(asdict(config)))
    differing = sorted((key for key in expected | header['config'] if expected.get(key) != header['config'].get(key)))
    if differing:
        raise ArtifactError(f"the artifact was packed under other settings of {', '.join(differing)}")
    with torch.device('meta'):
        model = {name: tuple(tensor.shape) for name, tensor in HymbaLM(config).state_dict().items()}
    if (odd := sorted((name for name in {*model, *shapes} if model.get(name) != shapes.get(name)))):
        raise ArtifactError(f"the artifact's tensors are not those of the model: {', '.join(odd[:5])}")

def cpu_state(model: HymbaLM) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}

def artifact_path(config: Config) -> Path:
    return Path(config.data.artifact_path or f'final_model.int{config.quant.bits}.ptz')

def raw_path(weights: Path) -> Path:
    return weights.with_suffix(f'.raw{weights.suffix}')

def state_bytes(state: Mapping[str, Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()

def load_state(path: Path) -> dict[str, Tensor]:
    content = io.BytesIO(read_whole(path))
    try:
        state: Any = torch.load(content, map_location='cpu', weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError, KeyError, ValueError) as error:
        raise RunError(f'{path}: not saved weights ({error})') from error
    if not isinstance(state, dict) or not all((isinstance(value, Tensor) for value in state.values())):
        raise RunError(f'{path}: not saved weights (no tensors by name)')
    return dict(state)

def read_whole(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f'{path}: {error.strerror}') from error

def write_whole(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'{path.name}.partial')
    temporary.write_bytes(content)
    temporary.replace(path)
NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.775, 2.0315)
NEWTON_SCHULZ_EPSILON = 1e-07
ADAM_NAMES = ('attn_scale', 'mlp_scale', 'resid_mix', 'q_gain', 'skip_weights', 'smear', 'merge_alpha', 'A_log')

class OptimizerError(ValueError):
    pass

@dataclass(frozen=True)
class ParameterGroup:
    name: str
    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]
    learning_rate: float

def build_groups(model: nn.Module, config: Config) -> tuple[ParameterGroup, ...]:
    rates = {'matrix': config.optim.matrix_lr, 'embedding': config.optim.tied_embed_lr if config.model.tie_embeddings else config.optim.embed_lr, 'head': config.optim.head_lr, 'scalar': config.optim.scalar_lr}
    members: dict[str, list[tuple[str, nn.Parameter]]] = {name: [] for name in rates}
    first_name: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in first_name:
            raise OptimizerError(f'parameter {name} is the same tensor as {first_name[id(parameter)]}')
        first_name[id(parameter)] = name
        members[_group_of(name, parameter)].append((name, parameter))
    return tuple((ParameterGroup(group, tuple((n for n, _ in found)), tuple((p for _, p in found)), rates[group]) for group, found in members.items() if found))

def _group_of(name: str, parameter: Tensor) -> str:
    is_table = name.endswith(('bigram_hash.table.weight', 'meta_tokens'))
    is_control = any((part.startswith(ADAM_NAMES) for part in name.split('.')))
    is_content = not (is_table or is_control or name in {'tok_emb.weight', 'lm_head.weight'})
    in_bank = name.startswith('banks.') and parameter.ndim == 3
    inside = name.startswith(('blocks.', 'bigram_hash.'))
    belongs = {'matrix': is_content and (in_bank or (inside and parameter.ndim == 2)), 'embedding': name == 'tok_emb.weight', 'head': name == 'lm_head.weight', 'scalar': is_table or is_control or (is_content and (parameter.ndim < 2 or 'conv' in name))}
    groups = [group for group, member in belongs.items() if member]
    if len(groups) != 1:
        shape = tuple(parameter.shape)
        raise OptimizerError(f"parameter {name} {shape} is in {len(groups)} optimizer groups: {groups or 'none'}")
    return groups[0]

def orthogonalize(matrices_NRC: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
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

    def __init__(self, parameters: Sequence[nn.Parameter], *, weight_decay: float, steps: int, dtype: torch.dtype) -> None:
        self.weight_decay = weight_decay
        self.steps = steps
        self.dtype = dtype
        by_shape: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for parameter in parameters:
            by_shape.setdefault(tuple(parameter.shape[-2:]), []).append(parameter)
        self.stacks = tuple((tuple(stack) for stack in by_shape.values()))
        self.momentum_buffers = [torch.zeros_like(_matrices(stack), dtype=torch.float32) for stack in self.stacks]

    @torch.no_grad()
    def step(self, learning_rate: float, momentum: float) -> None:
        for stack, buffer_NRC in zip(self.stacks, self.momentum_buffers, strict=True):
            gradient_NRC = _matrices([torch.zeros_like(p) if p.grad is None else p.grad for p in stack]).float()
            buffer_NRC.mul_(momentum).add_(gradient_NRC)
            nesterov_NRC = gradient_NRC.add_(buffer_NRC, alpha=momentum)
            update_NRC = orthogonalize(nesterov_NRC, self.steps, self.dtype)
            rows, columns = update_NRC.shape[-2:]
            scale = max(1.0, rows / columns) ** 0.5
            counts = [parameter.numel() // (rows * columns) for parameter in stack]
            for parameter, update in zip(stack, torch.split(update_NRC, counts), strict=True):
                parameter.mul_(1.0 - learning_rate * self.weight_decay)
                parameter.add_(update.view_as(parameter).to(parameter.dtype), alpha=-learning_rate * scale)

def _matrices(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1, *tensor.shape[-2:]) for tensor in tensors])

class Optimizers:

    def __init__(self, groups: Sequence[ParameterGroup], config: OptimConfig, dtype: torch.dtype) -> None:
        self.groups = tuple(groups)
        self.matrix_groups = [(Muon(g.parameters, weight_decay=config.weight_decay, steps=config.muon_backend_steps, dtype=dtype), g) for g in groups if g.name == 'matrix']
        self.adam_groups = [g for g in groups if g.name != 'matrix']
        self.adam = torch.optim.Adam([{'params': list(g.parameters), 'lr': g.learning_rate} for g in self.adam_groups], betas=(config.beta1, config.beta2), eps=config.adam_eps, fused=True)
        self.clip_norm = config.grad_clip_norm

    def parameters(self) -> Iterator[nn.Parameter]:
        for group in self.groups:
            yield from group.parameters

    def step(self, scale: float, momentum: float) -> None:
        if self.clip_norm > 0.0:
            nn.utils.clip_grad_norm_(self.parameters(), self.clip_norm)
        for muon, group in self.matrix_groups:
            muon.step(group.learning_rate * scale, momentum)
        for options, group in zip(self.adam.param_groups, self.adam_groups, strict=True):
            options['lr'] = group.learning_rate * scale
        self.adam.step()
        for parameter in self.parameters():
            parameter.grad = None

def build_optimizers(model: nn.Module, config: Config, dtype: torch.dtype=torch.float32) -> Optimizers:
    return Optimizers(build_groups(model, config), config.optim, dtype)

@dataclass(frozen=True)
class Schedule:
    iterations: int
    max_wallclock_seconds: float
    warmdown_iters: int
    warmdown_shape: str
    warmdown_frac: float = 0.0

    @staticmethod
    def from_config(config: TrainConfig) -> Schedule:
        return Schedule(iterations=config.iterations, max_wallclock_seconds=config.max_wallclock_seconds, warmdown_iters=config.warmdown_iters, warmdown_shape=config.warmdown_shape, warmdown_frac=config.warmdown_frac)

    @property
    def is_timed(self) -> bool:
        return self.max_wallclock_seconds > 0.0

    def is_over(self, step: int, elapsed_s: float) -> bool:
        return step >= self.iterations or (self.is_timed and elapsed_s >= self.max_wallclock_seconds)

    def factor(self, step: int, elapsed_s: float) -> float:
        remaining = self._remaining(step, elapsed_s)
        return remaining if self.warmdown_shape == 'linear' else math.sin(0.5 * math.pi * remaining) ** 2

    def _remaining(self, step: int, elapsed_s: float) -> float:
        if self.warmdown_frac > 0.0:
            left = 1.0 - step / max(self.iterations, 1)
            if self.is_timed:
                left = min(left, 1.0 - elapsed_s / self.max_wallclock_seconds)
            return min(max(left / self.warmdown_frac, 0.0), 1.0)
        if self.warmdown_iters <= 0:
            return 1.0
        steps_left = float(self.iterations - step)
        if self.is_timed and step > 0 and (elapsed_s > 0.0):
            steps_left = min(steps_left, (self.max_wallclock_seconds - elapsed_s) * step / elapsed_s)
        return min(max(steps_left / self.warmdown_iters, 0.0), 1.0)

def muon_momentum(config: OptimConfig, step: int) -> float:
    if config.muon_momentum_warmup_steps <= 0:
        return config.muon_momentum
    done = min(step / config.muon_momentum_warmup_steps, 1.0)
    return (1.0 - done) * config.muon_momentum_warmup_start + done * config.muon_momentum

class ExponentialAverage:

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.names: tuple[str, ...] = ()
        self.averages: list[Tensor] = []

    @torch.no_grad()
    def update(self, named_tensors: Iterable[tuple[str, Tensor]]) -> None:
        pairs = list(named_tensors)
        self.updates += 1
        if self.updates == 1:
            self.names = tuple((name for name, _ in pairs))
            self.averages = [tensor.detach().float().clone() for _, tensor in pairs]
            return
        share = (1.0 - self.decay) / (1.0 - self.decay ** self.updates)
        for average, (_, tensor) in zip(self.averages, pairs, strict=True):
            average.lerp_(tensor.detach().float(), share)

    def values(self) -> dict[str, Tensor]:
        return dict(zip(self.names, self.averages, strict=True))
Clock: TypeAlias = Callable[[], float]
Validation: TypeAlias = Callable[[], tuple[float, float]]
MICRO_BATCHES_BY_DEFAULT = 8
FIRST_STEPS_LOGGED = 10
TRAIN_FILES = 'fineweb_train_*.bin'

class TrainingError(RuntimeError):
    pass

@dataclass
class Stopwatch:
    clock: Clock
    device: str
    _before_s: float = field(default=0.0, init=False)
    _since_s: float = field(default=0.0, init=False)

    def start(self) -> None:
        self._since_s = self._now()

    def elapsed_s(self) -> float:
        return self._before_s + self._now() - self._since_s

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._before_s = self.elapsed_s()
        yield
        self.start()

    def _now(self) -> float:
        if self.device.startswith('cuda'):
            torch.cuda.synchronize(self.device)
        return self.clock()

@dataclass(frozen=True)
class TrainingResult:
    steps: int
    train_s: float
    average: dict[str, Tensor]

def accumulation_steps(config: Config, world_size: int) -> int:
    if config.train.grad_accum_steps:
        return config.train.grad_accum_steps
    if MICRO_BATCHES_BY_DEFAULT % world_size:
        raise ConfigError(f'GRAD_ACCUM_STEPS: must be given, {MICRO_BATCHES_BY_DEFAULT} / {world_size} is not whole')
    return MICRO_BATCHES_BY_DEFAULT // world_size

def training_loader(config: Config, worker: Worker) -> BatchLoader:
    parts = accumulation_steps(config, worker.world_size) * worker.world_size
    if config.train.train_batch_tokens % (config.train.train_seq_len * parts):
        size, length = (config.train.train_batch_tokens, config.train.train_seq_len)
        raise ConfigError(f'TRAIN_BATCH_TOKENS: {size} is not a multiple of {length} tokens x {parts} micro-batches')
    stream = TokenStream(find_shards(f'{config.data.data_path}/{TRAIN_FILES}'), config.model.vocab_size)
    return BatchLoader(stream, config.train.train_batch_tokens, config.train.train_seq_len, worker, parts // worker.world_size)

@dataclass
class Trainer:
    model: HymbaLM
    config: Config
    loader: BatchLoader
    worker: Worker
    log: RunLog
    clock: Clock = time.perf_counter
    validate: Validation | None = None

    def run(self) -> TrainingResult:
        self.model.train()
        self._warm_up()
        schedule, settings = (Schedule.from_config(self.config.train), self.config.train)
        optimizers = build_optimizers(self.model, self.config, self.worker.autocast or torch.float32)
        average = ExponentialAverage(settings.ema_decay ** settings.ema_every)
        watch, step = (Stopwatch(self.clock, self.worker.device), 0)
        watch.start()
        while not schedule.is_over(step, (elapsed_s := self._agree(watch.elapsed_s()))):
            loss = self._step(optimizers, step, schedule.factor(step, elapsed_s))
            step += 1
            if step % settings.ema_every == 0:
                average.update(self.model.named_parameters())
            self._report(step, loss, watch)
        self._report_end(step, elapsed_s, schedule)
        return TrainingResult(step, elapsed_s, average.values())

    def _step(self, optimizers: Optimizers, step: int, factor: float) -> Tensor:
        accumulation = accumulation_steps(self.config, self.worker.world_size)
        total = torch.zeros((), device=self.worker.device)
        for micro in range(accumulation):
            inputs_BT, targets_BT = self.loader.batch(step, micro)
            with self.worker.precision():
                loss = self.model.token_losses(inputs_BT, targets_BT).mean() / accumulation
            loss.backward()
            total += loss.detach()
        average_gradients(list(optimizers.parameters()), self.worker)
        optimizers.step(factor, muon_momentum(self.config.optim, step))
        return total

    def _warm_up(self) -> None:
        settings = self.config.train
        before = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        optimizers = build_optimizers(self.model, self.config, self.worker.autocast or torch.float32)
        for step in range(settings.warmup_steps):
            self._step(optimizers, step, 1.0)
            self.log.say(f'warmup_step:{step + 1}/{settings.warmup_steps}')
        self.model.load_state_dict(before)

    def _agree(self, elapsed_s: float) -> float:
        if self.worker.world_size == 1:
            return elapsed_s
        longest = torch.tensor(elapsed_s, dtype=torch.float64, device=self.worker.device)
        dist.all_reduce(longest, op=dist.ReduceOp.MAX)
        return float(longest.item())

    def _report(self, step: int, loss: Tensor, watch: Stopwatch) -> None:
        settings = self.config.train
        shown = step <= FIRST_STEPS_LOGGED or step % max(settings.train_log_every, 1) == 0
        if step == settings.iterations or (settings.train_log_every and shown):
            value = loss.item()
            if not math.isfinite(value):
                raise TrainingError(f'training loss {value} at step {step}')
            self.log.say(train_line(Progress(step, settings.iterations, 1000.0 * watch.elapsed_s()), value))
        if self.validate is not None and settings.val_loss_every and (step % settings.val_loss_every == 0):
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
    if worker.world_size == 1:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = worker.all_sum(torch.cat([gradient.flatten() for gradient in gradients])) / worker.world_size
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    for parameter, mean in zip(parameters, parts, strict=True):
        parameter.grad = mean.view_as(parameter)
VALIDATION_FILES = 'fineweb_val_*.bin'
TOTAL_CAP_BYTES = 16000000
EXIT_FAILED = 1
EXIT_USAGE = 2
RUN_NAME = re.compile('[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}')
Read = TypeVar('Read')

@dataclass(frozen=True)
class Inputs:
    tokens: Tensor
    table: ByteTable

    @classmethod
    def load(cls, config: Config) -> Inputs:
        data, vocab_size = (config.data, config.model.vocab_size)
        table = blaming('TOKENIZER_PATH', lambda: load_byte_table(data.tokenizer_path, vocab_size))
        if (size := tokenizer_size(data.tokenizer_path)) != vocab_size:
            raise ConfigError(f'VOCAB_SIZE: {vocab_size}, but the tokenizer has {size} tokens')
        tokens = blaming('DATA_PATH', lambda: load_validation(f'{data.data_path}/{VALIDATION_FILES}', vocab_size))
        return cls(tokens, table)

def tokenizer_size(path: str) -> int:
    import sentencepiece
    size: int = sentencepiece.SentencePieceProcessor(model_file=path).vocab_size()
    return size

def blaming(variable: str, read: Callable[[], Read]) -> Read:
    try:
        return read()
    except ValueError as error:
        raise ConfigError(f'{variable}: {error}') from error

@dataclass(frozen=True)
class Run:
    config: Config
    worker: Worker
    log: RunLog
    script: Path
    clock: Clock

    def train_and_score(self) -> None:
        inputs = Inputs.load(self.config)
        loader = blaming('DATA_PATH', lambda: training_loader(self.config, self.worker))
        model = build_model(self.config, self.worker.device)
        shards = len(find_shards(f'{self.config.data.data_path}/{TRAIN_FILES}'))
        self.log.say(f'train_loader:dataset:{Path(self.config.data.data_path).name} train_shards:{shards}')
        self._describe(inputs, model)
        validate = partial(self.score_plain, model, inputs, stride=0) if self._validates else None
        result = Trainer(model, self.config, loader, self.worker, self.log, self.clock, validate).run()
        self._save(model, result)
        if self.config.evaluation.diagnostics:
            began_s = self.clock()
            scores = self.score_plain(model, inputs, stride=self.config.evaluation.eval_stride)
            self.log.say(diagnostic_line('post_ema', scores, self.clock() - began_s))
        self.repack()
        self._score_artifact(model, inputs)

    def repack(self) -> None:
        if self.worker.rank == 0:
            blob = pack_model(load_state(Path(self.config.data.weights_path)), self.config)
            self._report_size(len(blob))
            write_whole(artifact_path(self.config), blob)
        self._wait_for_all()

    def score_only(self) -> None:
        inputs, model = (Inputs.load(self.config), build_model(self.config, self.worker.device))
        self._describe(inputs, model)
        self._report_size(len(read_whole(artifact_path(self.config))))
        self._score_artifact(model, inputs)

    def score_plain(self, model: HymbaLM, inputs: Inputs, *, stride: int) -> tuple[float, float]:
        evaluation = replace(self.config.evaluation, ttt_enabled=False, eval_stride=stride)
        plain = replace(self.config, evaluation=evaluation)
        result = evaluate(evaluation_task(model, inputs, plain, self.worker))
        return (result.val_loss, result.val_bpb)

    @property
    def _validates(self) -> bool:
        return self.config.evaluation.diagnostics or self.config.train.val_loss_every > 0

    def _save(self, model: HymbaLM, result: TrainingResult) -> None:
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
        train, data = (self.config.train, self.config.data)
        scoring = self.config.evaluation.eval_only
        accumulation = 1 if scoring else accumulation_steps(self.config, self.worker.world_size)
        self.log.say(f'val_bpb:enabled tokenizer_kind=sentencepiece tokenizer_path={data.tokenizer_path}', f'val_loader:shards pattern={data.data_path}/{VALIDATION_FILES} tokens:{inputs.tokens.numel() - 1}', f'model_params:{sum((parameter.numel() for parameter in model.parameters()))}', f'world_size:{self.worker.world_size} grad_accum_steps:{accumulation}', f'train_batch_tokens:{train.train_batch_tokens} train_seq_len:{train.train_seq_len} iterations:{train.iterations} warmup_steps:{train.warmup_steps} max_wallclock_seconds:{train.max_wallclock_seconds:.3f}', f'seed:{train.seed}')

    def _report_size(self, model_bytes: int) -> None:
        code_bytes, quant = (self.script.stat().st_size, self.config.quant)
        self.log.say(*size_lines(f'int{quant.bits}+zstd-{quant.zstd_level}', code_bytes, model_bytes))
        if code_bytes + model_bytes > TOTAL_CAP_BYTES:
            raise RunError(f'{code_bytes + model_bytes} bytes of code and model, the cap is {TOTAL_CAP_BYTES}')

    def _score_artifact(self, model: HymbaLM, inputs: Inputs) -> None:
        model.load_state_dict(unpack_model(read_whole(artifact_path(self.config)), self.config.model))
        evaluation = self.config.evaluation
        plain = replace(evaluation, ttt_enabled=False)
        if not (evaluation.ttt_enabled and evaluation.eval_only):
            self._score(f'final_int{self.config.quant.bits}_roundtrip', model, inputs, plain)
        if evaluation.ttt_enabled:
            self._score('legal_ttt', model, inputs, evaluation)

    def _score(self, label: str, model: HymbaLM, inputs: Inputs, evaluation: EvalConfig) -> None:
        task = evaluation_task(model, inputs, replace(self.config, evaluation=evaluation), self.worker)
        began_s = self.clock()
        result = evaluate(task, partial(self._report_chunk, began_s))
        seconds = self.clock() - began_s
        mode = evaluation_name(task).replace(', ', '+').replace(' ', '_')
        self.log.say(*score_lines(label, (result.val_loss, result.val_bpb), mode, seconds))

    def _report_chunk(self, began_s: float, chunk: int, chunks: int, result: EvalResult) -> None:
        self.log.say(f'  ttt_chunk [{chunk}/{chunks}] bpb={result.val_bpb:.6f} time={self.clock() - began_s:.1f}s')

def evaluation_task(model: HymbaLM, inputs: Inputs, config: Config, worker: Worker) -> EvalTask:
    return EvalTask(model, inputs.tokens, inputs.table, config.evaluation, config.eval_seq_len, worker)

def build_model(config: Config, device: str) -> HymbaLM:
    torch.manual_seed(config.train.seed)
    return HymbaLM(config.model).to(device)

def read_config(environ: Mapping[str, str], preset: str) -> Config:
    config = Config.from_environment(environ, PRESETS[preset])
    if config.evaluation.eval_only and config.evaluation.repack_only:
        raise ConfigError('EVAL_ONLY: excludes REPACK_ONLY')
    if not RUN_NAME.fullmatch(config.data.run_id):
        raise ConfigError(f'RUN_ID: {config.data.run_id!r} is not a file name of letters, digits, _ . and -')
    return config

def main(environ: Mapping[str, str], script: Path, preset: str, *, clock: Clock=time.perf_counter) -> int:
    try:
        config = read_config(environ, preset)
        with started_worker(environ) as worker:
            start_run(config, worker, script, clock)
    except ConfigError as error:
        sys.stderr.write(f'{script.name}: {error}\n')
        return EXIT_USAGE
    except (RunError, ArtifactError, ShardError, TrainingError) as error:
        sys.stderr.write(f'{script.name}: {error}\n')
        return EXIT_FAILED
    return 0

def start_run(config: Config, worker: Worker, script: Path, clock: Clock) -> None:
    evaluation = config.evaluation
    mode = '.eval' if evaluation.eval_only else '.repack' if evaluation.repack_only else ''
    log = RunLog(Path('logs') / f'{config.data.run_id}{mode}.txt', enabled=worker.rank == 0)
    settings = {name.lower(): value for name, value in config.to_environment().items()}
    log.record_header(settings, script.read_text(encoding='utf-8'), version_lines())
    run = Run(config, worker, log, script, clock)
    if evaluation.eval_only:
        run.score_only()
    elif evaluation.repack_only:
        run.repack()
    else:
        run.train_and_score()
if __name__ == '__main__':
    sys.exit(main(os.environ, Path(__file__), preset='paper'))
