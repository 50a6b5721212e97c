"""Hymba, attention beside a selective scan: preset mini1961, one file bundled from the package reference_model 0.1.0.

Configured by environment variables; start it with `python train_gpt.py` or
`torchrun --standalone --nproc_per_node=N train_gpt.py`.
"""
from __future__ import annotations
import os
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
import bisect
import ctypes
import fcntl
import functools
import hashlib
import importlib
import importlib.util
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
import subprocess
import sys
import time
import torch
import torch.distributed as dist
import torch.nn.functional as F
import warnings
import zstandard
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError
from tempfile import TemporaryDirectory
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.overrides import TorchFunctionMode
from types import MappingProxyType, ModuleType
from typing import Annotated, Any, IO, NamedTuple, NoReturn, Protocol, TypeAlias, TypeVar, get_type_hints
READ_BYTES = 1 << 20
BROTLI_QUALITY = 11
BROTLI_WINDOW_BITS = 24
SIZE_FORMAT = '<I'
SIZE_BYTES = 4

class CoderError(ValueError):
    pass

@dataclass
class ByteSource:
    size: int
    step: Callable[[int], bytes]
    place: int = field(default=0, init=False)

    @property
    def left(self) -> int:
        return self.size - self.place

    def read(self, size: int) -> bytes:
        parts: list[bytes] = []
        missing = size
        while missing:
            part = self.step(min(missing, READ_BYTES))
            if not part:
                raise CoderError(f'ends {missing} bytes early')
            parts.append(part)
            missing -= len(part)
        self.place += size
        return b''.join(parts)

    def finish(self) -> None:
        if self.step(1):
            raise CoderError(f'holds more than the {self.size} bytes that it states')

def zstd_encoded(content: bytes, level: int) -> bytes:
    return zstandard.ZstdCompressor(level=level).compress(content)

def zstd_source(frame: bytes, window_bytes: int) -> ByteSource:
    if (end := frame_end(frame)) != len(frame):
        raise CoderError(f'{len(frame)} bytes hold a frame of {end}')
    decompressor = zstandard.ZstdDecompressor(max_window_size=max(window_bytes, 1024))
    return ByteSource(zstandard.get_frame_parameters(frame).content_size, decompressor.stream_reader(frame).read)

def frame_end(frame: bytes) -> int:
    place, last = (zstandard.frame_header_size(frame), False)
    while not last and place < len(frame):
        block = int.from_bytes(frame[place:place + 3], 'little')
        last, is_run = (bool(block & 1), block >> 1 & 3 == 1)
        place += 3 + (1 if is_run else block >> 3)
    return place + 4 * zstandard.get_frame_parameters(frame).has_checksum

def brotli_encoded(content: bytes) -> bytes:
    brotli = package('brotli')
    stream: bytes = brotli.compress(content, quality=BROTLI_QUALITY, lgwin=BROTLI_WINDOW_BITS)
    return struct.pack(SIZE_FORMAT, len(content)) + stream

def brotli_source(coded: bytes) -> ByteSource:
    if len(coded) < SIZE_BYTES:
        raise CoderError(f'{len(coded)} bytes state no size')
    return ByteSource(struct.unpack_from(SIZE_FORMAT, coded)[0], BrotliSteps(coded[SIZE_BYTES:]).read)

class BrotliSteps:

    def __init__(self, stream: bytes) -> None:
        brotli = package('brotli')
        self._error: type[Exception] = brotli.error
        self._decompressor: Any = brotli.Decompressor()
        if not hasattr(self._decompressor, 'can_accept_more_data'):
            raise CoderError('brotli 1.2 or newer is needed: older ones cannot decompress in steps')
        self._stream, self._ready = (stream, b'')

    def read(self, size: int) -> bytes:
        try:
            while not self._ready and (not self._decompressor.is_finished()):
                given, self._stream = (self._stream, b'')
                self._ready = self._decompressor.process(given, output_buffer_limit=READ_BYTES)
                if not (given or self._ready or self._decompressor.is_finished()):
                    raise CoderError('a brotli stream without an end')
        except self._error as error:
            raise CoderError(f'no brotli stream ({error})') from error
        part, self._ready = (self._ready[:size], self._ready[size:])
        return part

def package(name: str) -> ModuleType:
    if not is_installed(name):
        raise CoderError(f'the package {name} is not installed (pip install {name})')
    return importlib.import_module(name)

def is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
Integers: TypeAlias = npt.NDArray[np.int8]
Numbers: TypeAlias = npt.NDArray[np.float64]
Classes: TypeAlias = npt.NDArray[np.intp]
TABLE_COUNTS = (1, 2, 4, 8, 16, 32)
LARGEST_TABLE_COUNT = TABLE_COUNTS[-1]
REASSIGNMENTS = 12
FREQUENCY_SUM = 1 << 14
PRECISION_BITS = 24
LENGTH_STEPS = 1 << 10
STORED_BITS_PER_FREQUENCY = 9
DECODED_AT_ONCE = 1 << 20

@dataclass(frozen=True)
class RowTables:
    frequencies: npt.NDArray[np.uint16]
    classes: npt.NDArray[np.uint8]

    def symbol_bits(self) -> Numbers:
        return _code_lengths(self.frequencies)

    def check(self) -> None:
        if not self.frequencies.any(axis=1).all():
            raise CoderError('a table of frequencies without any')
        if self.classes.size and int(self.classes.max()) >= len(self.frequencies):
            raise CoderError(f'a row of table {int(self.classes.max())} of {len(self.frequencies)}')

    def models(self) -> list[Any]:
        categorical = package('constriction').stream.model.Categorical
        return [categorical(row / row.sum(), perfect=False) for row in self.frequencies.astype(np.float64)]

def row_counts(matrix_RC: Integers, top: int) -> npt.NDArray[np.int64]:
    rows, symbols = (len(matrix_RC), 2 * top + 1)
    places_RC = matrix_RC.astype(np.int64) + (top + symbols * np.arange(rows)[:, None])
    return np.bincount(places_RC.ravel(), minlength=rows * symbols).reshape(rows, symbols)

def fit_tables(matrices: Sequence[Integers], top: int) -> RowTables:
    counts_RS = np.concatenate([row_counts(matrix, top) for matrix in matrices]).astype(np.float64)
    spread_R = counts_RS @ np.abs(np.arange(-top, top + 1)) / counts_RS.sum(1)
    order_R = np.argsort(spread_R, kind='stable')
    fits = [_fit(counts_RS, order_R, count) for count in TABLE_COUNTS if count <= max(len(counts_RS), 1)]
    return min(fits, key=lambda fit: fit[0])[1]

def _fit(counts_RS: Numbers, order_R: Classes, count: int) -> tuple[float, RowTables]:
    rows = len(counts_RS)
    classes_R = np.empty(rows, np.intp)
    classes_R[order_R] = np.arange(rows) * count // rows
    for _ in range(REASSIGNMENTS):
        nearest_R = (counts_RS @ _code_lengths(_frequencies(counts_RS, classes_R)).T).argmin(1)
        nearest_R = np.unique(nearest_R, return_inverse=True)[1]
        if np.array_equal(nearest_R, classes_R):
            break
        classes_R = nearest_R
    frequencies_KS = _frequencies(counts_RS, classes_R)
    coded = (counts_RS * _code_lengths(frequencies_KS)[classes_R]).sum()
    sizes_K = np.bincount(classes_R).astype(np.float64)
    stored = (sizes_K * np.log2(rows / sizes_K)).sum() + STORED_BITS_PER_FREQUENCY * np.count_nonzero(frequencies_KS)
    return (float(coded + stored), RowTables(frequencies_KS, classes_R.astype(np.uint8)))

def _frequencies(counts_RS: Numbers, classes_R: Classes) -> npt.NDArray[np.uint16]:
    sums_KS = np.stack([counts_RS[classes_R == k].sum(0) for k in range(int(classes_R.max()) + 1)])
    shares_KS = np.rint(sums_KS * (FREQUENCY_SUM / sums_KS.sum(1, keepdims=True)))
    return np.where(sums_KS > 0, np.maximum(shares_KS, 1), 0).astype(np.uint16)

def _code_lengths(frequencies_KS: npt.NDArray[np.uint16]) -> Numbers:
    wide_KS = frequencies_KS.astype(np.float64)
    shares_KS = np.maximum(wide_KS / wide_KS.sum(1, keepdims=True), 2.0 ** (-PRECISION_BITS))
    lengths_KS: Numbers = np.rint(-np.log2(shares_KS) * LENGTH_STEPS) / LENGTH_STEPS
    return lengths_KS

def encode_rows(matrices: Sequence[Integers], tables: RowTables, top: int) -> bytes:
    coder, models = (package('constriction').stream.stack.AnsCoder(), tables.models())
    parts = [(matrix_RC[classes_R == k].ravel(), model) for matrix_RC, classes_R in zip(matrices, _split(tables.classes, [len(m) for m in matrices]), strict=True) for k, model in enumerate(models)]
    for integers, model in reversed(parts):
        coder.encode_reverse(integers.astype(np.int32) + top, model)
    words: bytes = coder.get_compressed().astype('<u4').tobytes()
    return words

def decode_rows(words: bytes, tables: RowTables, shapes: Sequence[tuple[int, int]], top: int) -> Integers:
    columns_R = np.repeat([columns for _, columns in shapes], [rows for rows, _ in shapes])
    least = float((columns_R * tables.symbol_bits().min(1)[tables.classes]).sum()) / 2
    if least > 8 * len(words) + 2 * PRECISION_BITS or len(words) % 4:
        raise CoderError(f'{len(words)} bytes for integers of {least / 8:.0f} at least')
    stack = package('constriction').stream.stack
    try:
        coder = stack.AnsCoder(np.frombuffer(words, '<u4').astype(np.uint32))
    except ValueError as error:
        raise CoderError(f'no words of the coder ({error})') from error
    models, integers = (tables.models(), np.empty(int(columns_R.sum()), np.int8))
    place = 0
    for (rows, columns), classes_R in zip(shapes, _split(tables.classes, [r for r, _ in shapes]), strict=True):
        matrix_RC = integers[place:place + rows * columns].reshape(rows, columns)
        place += rows * columns
        for k, model in enumerate(models):
            if (chosen := int((classes_R == k).sum())):
                matrix_RC[classes_R == k] = _decoded(coder, model, chosen * columns, top).reshape(chosen, columns)
    if not coder.is_empty():
        raise CoderError('words are left behind the last integer')
    return integers

def _decoded(coder: Any, model: Any, count: int, top: int) -> Integers:
    integers = np.empty(count, np.int8)
    for start in range(0, count, DECODED_AT_ONCE):
        piece = integers[start:start + DECODED_AT_ONCE]
        piece[:] = coder.decode(model, len(piece)) - top
    return integers

def _split(classes_R: npt.NDArray[np.uint8], rows: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
    place = 0
    for count in rows:
        yield classes_R[place:place + count]
        place += count
SCAN_BACKENDS = ('auto', 'reference', 'torch', 'cpp', 'cuda')
CONV_BACKENDS = ('auto', 'torch', 'cpp', 'cuda')
WINDOW_BACKENDS = ('auto', 'flex', 'blocked', 'sdpa')
ELEMENTWISE_BACKENDS = ('auto', 'torch')

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
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, (int, float)) and (not self.low <= number <= self.high):
                raise ConfigError(f'{self.name}: {number} is outside {self.low:g} .. {self.high:g}')

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
LORA_PARTS = ('attention', 'mamba', 'mlp', 'head')

@dataclass(frozen=True)
class EvalConfig(Section):
    eval_stride: Annotated[int, Setting('EVAL_STRIDE', 0, 1 << 24)] = 64
    eval_batch_seqs: Annotated[int, Setting('EVAL_BATCH_SEQS', 1, 1 << 20)] = 32
    eval_seq_len: Annotated[int, Setting('EVAL_SEQ_LEN', 0, 1 << 24)] = 0
    eval_carry: Annotated[bool, Setting('EVAL_CARRY_STATE')] = False
    eval_lanes: Annotated[int, Setting('EVAL_LANES', 1, 1 << 20)] = 1
    eval_isolate_docs: Annotated[bool, Setting('EVAL_ISOLATE_DOCS')] = False
    val_batch_size: Annotated[int, Setting('VAL_BATCH_SIZE', 1, 1 << 32)] = 524288
    ttt_enabled: Annotated[bool, Setting('TTT_ENABLED')] = False
    ttt_lr: Annotated[float, Setting('TTT_LR', 0, 100)] = 0.002
    ttt_epochs: Annotated[int, Setting('TTT_EPOCHS', 0, 10000)] = 3
    ttt_chunk_tokens: Annotated[int, Setting('TTT_CHUNK_TOKENS', 1, 1 << 40)] = 524288
    ttt_freeze_blocks: Annotated[int, Setting('TTT_FREEZE_BLOCKS', 0, 256)] = 0
    ttt_batch_seqs: Annotated[int, Setting('TTT_BATCH_SEQS', 1, 1 << 20)] = 4
    ttt_momentum: Annotated[float, Setting('TTT_MOMENTUM', 0, 0.9999)] = 0.9
    ttt_grad_clip: Annotated[float, Setting('TTT_GRAD_CLIP', 0, 1000000000.0)] = 1.0
    ttt_kind: Annotated[str, Setting('TTT_KIND', choices=('sgd', 'lora', 'phased', 'phased_lora'))] = 'sgd'
    ttt_lora_rank: Annotated[int, Setting('TTT_LORA_RANK', 1, 1024)] = 8
    ttt_lora_parts: Annotated[str, Setting('TTT_LORA_PARTS')] = 'attention,mamba,head'
    ttt_lora_lr: Annotated[float, Setting('TTT_LORA_LR', 0, 100)] = 0.01
    ttt_beta1: Annotated[float, Setting('TTT_BETA1', 0, 0.99999)] = 0.9
    ttt_beta2: Annotated[float, Setting('TTT_BETA2', 0, 0.99999)] = 0.95
    ttt_grad_steps: Annotated[int, Setting('TTT_GRAD_STEPS', 1, 10000)] = 1
    ttt_chunk_size: Annotated[int, Setting('TTT_CHUNK_SIZE', 1, 1 << 24)] = 256
    ttt_batch_size: Annotated[int, Setting('TTT_BATCH_SIZE', 1, 1 << 20)] = 64
    phased_prefix_docs: Annotated[int, Setting('PHASED_TTT_PREFIX_DOCS', 1, 10 ** 9)] = 2000
    phased_num_phases: Annotated[int, Setting('PHASED_TTT_NUM_PHASES', 1, 10 ** 6)] = 3
    bos_id: Annotated[int, Setting('BOS_ID', 0, (1 << 17) - 1)] = 1
    eval_only: Annotated[bool, Setting('EVAL_ONLY')] = False
    repack_only: Annotated[bool, Setting('REPACK_ONLY')] = False
    serve_only: Annotated[bool, Setting('SERVE_ONLY')] = False
    diagnostics: Annotated[bool, Setting('DIAGNOSTICS')] = False

    def check_together(self) -> None:
        if self.eval_carry and self.eval_stride:
            raise ConfigError(f'EVAL_CARRY_STATE: needs EVAL_STRIDE=0, not {self.eval_stride}')
        if self.eval_isolate_docs and self.ttt_enabled and (not (self.eval_carry or self.has_adapters)):
            raise ConfigError(f'EVAL_ISOLATE_DOCS: TTT_KIND={self.ttt_kind} needs EVAL_CARRY_STATE=1 for it')
        if self.eval_lanes > 1 and (self.ttt_enabled or self.eval_isolate_docs or (not self.eval_carry)):
            raise ConfigError('EVAL_LANES: is for EVAL_CARRY_STATE=1 without TTT_ENABLED and EVAL_ISOLATE_DOCS')
        if (unknown := [part for part in self.lora_parts if part not in LORA_PARTS]):
            raise ConfigError(f"TTT_LORA_PARTS: {unknown[0]!r} is not one of {', '.join(LORA_PARTS)}")
        if self.phased_num_phases > self.phased_prefix_docs:
            phases, documents = (self.phased_num_phases, self.phased_prefix_docs)
            raise ConfigError(f'PHASED_TTT_NUM_PHASES: {phases} of {documents} documents, PHASED_TTT_PREFIX_DOCS')

    @property
    def lora_parts(self) -> tuple[str, ...]:
        return tuple((part.strip() for part in self.ttt_lora_parts.split(',')))

    @property
    def by_document(self) -> bool:
        return self.eval_isolate_docs or (self.ttt_enabled and self.ttt_kind != 'sgd')

    @property
    def has_adapters(self) -> bool:
        return self.ttt_enabled and self.ttt_kind in {'lora', 'phased_lora'}

    @property
    def isolates(self) -> bool:
        return self.eval_isolate_docs or self.has_adapters

@dataclass(frozen=True)
class ModelConfig(Section):
    vocab_size: Annotated[int, Setting('VOCAB_SIZE', 2, 1 << 17)] = 1024
    num_layers: Annotated[int, Setting('NUM_LAYERS', 1, 256)] = 7
    model_dim: Annotated[int, Setting('MODEL_DIM', 8, 1 << 14)] = 512
    num_heads: Annotated[int, Setting('NUM_HEADS', 1, 256)] = 8
    num_kv_heads: Annotated[int, Setting('NUM_KV_HEADS', 1, 256)] = 4
    mlp_mult: Annotated[int, Setting('MLP_MULT', 1, 64)] = 4
    mlp_hidden: Annotated[int, Setting('MLP_HIDDEN', 0, 1 << 20)] = 0
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
    use_attention: Annotated[bool, Setting('USE_ATTENTION')] = True
    hybrid_layers: Annotated[tuple[int, ...] | None, Setting('HYMBA_LAYERS', 0, 255)] = None
    fusion: Annotated[str, Setting('HYMBA_FUSION', choices=('weight', 'heads', 'norms'))] = 'weight'
    meta_tokens: Annotated[int, Setting('HYMBA_META_TOK', 0, 4096)] = 0
    kv_share: Annotated[bool, Setting('HYMBA_KV_SHARE')] = False
    banks: Annotated[str, Setting('PARAMETER_BANKS', choices=('none', 'separate', 'shared'))] = 'none'
    fused_projection: Annotated[bool, Setting('FUSED_PROJECTION')] = True
    separate_kv: Annotated[bool, Setting('SEPARATE_KV')] = False
    hymba_expand: Annotated[int, Setting('HYMBA_EXPAND', 1, 16)] = 1
    ssm_kind: Annotated[str, Setting('HYMBA_SSM_KIND', choices=('selective', 's4d_lin'))] = 'selective'
    ssm_state: Annotated[int, Setting('HYMBA_SSM_STATE', 1, 256)] = 8
    conv_width: Annotated[int, Setting('HYMBA_CONV_KERNEL', 1, 64)] = 4
    dt_rank: Annotated[int, Setting('HYMBA_DT_RANK', 0, 1 << 14)] = 0
    scan_chunk: Annotated[int, Setting('HYMBA_SCAN_CHUNK', 1, 1 << 14)] = 64
    scan_backend: Annotated[str, Setting('HYMBA_SCAN_BACKEND', choices=SCAN_BACKENDS)] = 'torch'
    conv_backend: Annotated[str, Setting('HYMBA_CONV_BACKEND', choices=CONV_BACKENDS)] = 'torch'
    window_backend: Annotated[str, Setting('SLIDING_WINDOW_BACKEND', choices=WINDOW_BACKENDS)] = 'auto'
    elementwise_backend: Annotated[str, Setting('ELEMENTWISE_BACKEND', choices=ELEMENTWISE_BACKENDS)] = 'torch'
    sliding_window: Annotated[int, Setting('SLIDING_WINDOW', 0, 1 << 24)] = 0
    global_layers: Annotated[tuple[int, ...] | None, Setting('SWA_GLOBAL_LAYERS', 0, 255)] = ()
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
        self.check_kinds()

    def check_kinds(self) -> None:
        plain = self.fusion == 'weight' and self.banks == 'none'
        if not self.use_attention and (not (plain and self.use_hymba and (self.hymba_expand == 1) and (not self.kv_share))):
            needed = 'HYMBA_FUSION=weight, HYMBA_EXPAND=1, no PARAMETER_BANKS and no HYMBA_KV_SHARE'
            raise ConfigError(f'USE_ATTENTION: 0 needs USE_HYMBA=1, {needed}')
        if self.ssm_kind != 'selective' and (not (plain and self.use_attention)):
            raise ConfigError(f'HYMBA_SSM_KIND: {self.ssm_kind} needs HYMBA_FUSION=weight and no PARAMETER_BANKS')
        if self.ssm_kind != 'selective' and self.ssm_state % 2:
            raise ConfigError(f'HYMBA_SSM_STATE: {self.ssm_state} is odd, the states of s4d_lin come in pairs')

    @property
    def head_dim(self) -> int:
        return self.model_dim // self.num_heads

    @property
    def hidden_dim(self) -> int:
        return self.mlp_hidden or self.mlp_mult * self.model_dim

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

    def attends(self, layer: int) -> bool:
        return self.use_attention or not self.is_hybrid(layer)

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
    muon_sharded: Annotated[bool, Setting('MUON_SHARDED')] = False
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
    qat_start: Annotated[float, Setting('QAT_START', 0, 1)] = 1.0
    checkpoint_every: Annotated[int, Setting('CHECKPOINT_EVERY', 0, 10 ** 9)] = 0
    resume: Annotated[bool, Setting('RESUME')] = False

    def check_together(self) -> None:
        if self.train_batch_tokens % self.train_seq_len:
            tokens, length = (self.train_batch_tokens, self.train_seq_len)
            raise ConfigError(f'TRAIN_BATCH_TOKENS: {tokens} is not a multiple of TRAIN_SEQ_LEN ({length})')

@dataclass(frozen=True)
class QuantConfig(Section):
    bits: Annotated[int, Setting('QUANT_BITS', choices=(4, 6, 8))] = 6
    mlp_bits: Annotated[int, Setting('QUANT_BITS_MLP', choices=(0, 4, 6, 8))] = 0
    embed_bits: Annotated[int, Setting('QUANT_BITS_EMBED', choices=(0, 4, 6, 8))] = 0
    fp16_embed: Annotated[bool, Setting('FP16_EMBED')] = False
    clip_search: Annotated[bool, Setting('GPTQ_LITE')] = True
    scale_floor: Annotated[str, Setting('QUANT_SCALE_FLOOR', choices=('none', 'published'))] = 'none'
    keep_float_max_numel: Annotated[int, Setting('QUANT_KEEP_FLOAT_MAX_NUMEL', 0, 1 << 32)] = 65536
    method: Annotated[str, Setting('QUANT_METHOD', choices=('nearest', 'gptq'))] = 'nearest'
    gptq_calibration: Annotated[str, Setting('GPTQ_CALIBRATION', choices=('train', 'self'))] = 'train'
    gptq_tokens: Annotated[int, Setting('GPTQ_TOKENS', 1, 1 << 32)] = 131072
    gptq_reserve_seconds: Annotated[float, Setting('GPTQ_RESERVE_SECONDS', 0, 1000000000.0)] = 10.0
    gptq_damping: Annotated[float, Setting('GPTQ_DAMPING', 1e-09, 1000.0)] = 0.01
    gptq_activity_order: Annotated[bool, Setting('GPTQ_ACT_ORDER')] = True
    coder: Annotated[str, Setting('COMPRESSOR', choices=('zstd', 'brotli', 'ans', 'auto'))] = 'zstd'
    zstd_level: Annotated[int, Setting('ZSTD_LEVEL', 1, 22)] = 22

@dataclass(frozen=True)
class DataConfig(Section):
    data_path: Annotated[str, Setting('DATA_PATH')] = './data/datasets/fineweb10B_sp1024'
    tokenizer_path: Annotated[str, Setting('TOKENIZER_PATH')] = './data/tokenizers/fineweb_1024_bpe.model'
    run_id: Annotated[str, Setting('RUN_ID')] = 'run'
    artifact_path: Annotated[str, Setting('ARTIFACT_PATH')] = ''
    weights_path: Annotated[str, Setting('WEIGHTS_PATH')] = 'final_model.pt'
    checkpoint_path: Annotated[str, Setting('CHECKPOINT_PATH')] = 'checkpoint.pt'

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
        if self.evaluation.has_adapters and self.evaluation.ttt_chunk_size > self.eval_seq_len:
            size = self.evaluation.ttt_chunk_size
            raise ConfigError(f'TTT_CHUNK_SIZE: {size} is longer than the {self.eval_seq_len} of a window')
        attending = (layer for layer in range(layers) if self.model.attends(layer))
        unbounded = any((self.model.layer_window(layer) == 0 for layer in attending))
        if self.evaluation.eval_carry and (not self.evaluation.isolates) and unbounded:
            raise ConfigError('EVAL_CARRY_STATE: a layer without SLIDING_WINDOW would keep the whole text')
        if self.evaluation.eval_stride > self.eval_seq_len:
            raise ConfigError(f'EVAL_STRIDE: {self.evaluation.eval_stride} is longer than the {self.eval_seq_len} scored')
        limit_s, reserved_s = (self.train.max_wallclock_seconds, self.quant.gptq_reserve_seconds)
        if self.quant.method == 'gptq' and 0 < limit_s <= reserved_s:
            raise ConfigError(f'GPTQ_RESERVE_SECONDS: {reserved_s:g} leaves none of {limit_s:g} s for training')

    @property
    def schedule(self) -> TrainConfig:
        limit_s = self.train.max_wallclock_seconds
        if self.quant.method != 'gptq' or not limit_s:
            return self.train
        return replace(self.train, max_wallclock_seconds=limit_s - self.quant.gptq_reserve_seconds)

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
TOKEN_TABLE_NAMES = ('tok_emb.weight', 'lm_head.weight', 'table.weight')

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
    is_kept = config.fp16_embed and name.endswith('tok_emb.weight')
    if tensor.numel() > config.keep_float_max_numel and (not is_kept):
        return f'int{role_bits(name, config)}'
    return 'float16' if bool(tensor.half().isfinite().all()) else 'float32'

def role_bits(name: str, config: QuantConfig) -> int:
    if name.endswith(TOKEN_TABLE_NAMES):
        return config.embed_bits or config.bits
    return (config.mlp_bits if 'mlp' in name else 0) or config.bits

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
RAW_CAP_BYTES = 1 << 28
ARTIFACT_HEADER_CAP_BYTES = 1 << 20
INTEGER_BITS = {'int8': 8, 'int6': 6, 'int4': 4}
FLOAT_TYPES = {'float16': '<f2', 'float32': '<f4'}
TENSOR_NAME = re.compile('[A-Za-z0-9_.]{1,200}')

@dataclass(frozen=True)
class TensorEntry:
    name: str
    shape: tuple[int, ...]
    kind: str

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def is_integer(self) -> bool:
        return self.kind in INTEGER_BITS

    @property
    def scales(self) -> int:
        return math.prod(self.shape[:-1]) if self.is_integer else 0

    @property
    def bits(self) -> int:
        return INTEGER_BITS[self.kind]

    @property
    def top(self) -> int:
        return largest_level(self.bits)

@dataclass(frozen=True)
class Content:
    head: bytes
    entries: tuple[TensorEntry, ...]
    integers: tuple[Integers, ...]
    rest: bytes

    def plain(self) -> bytes:
        return b''.join((sized(self.head), *(matrix.tobytes() for matrix in self.integers), self.rest))

def sized(content: bytes) -> bytes:
    return struct.pack(SIZE_FORMAT, len(content)) + content

def integer_entries(entries: Iterable[TensorEntry]) -> list[TensorEntry]:
    return [entry for entry in entries if entry.is_integer]

def by_kind(entries: Iterable[TensorEntry]) -> dict[str, list[int]]:
    kinds: dict[str, list[int]] = {}
    for place, entry in enumerate(integer_entries(entries)):
        kinds.setdefault(entry.kind, []).append(place)
    return kinds

def checked_entry(name: object, shape: object, kind: object) -> TensorEntry:
    if not isinstance(name, str) or not TENSOR_NAME.fullmatch(name):
        raise CoderError(f'tensor name {str(name)[:200]!r} is not made of letters, digits, _ and dots')
    if not isinstance(kind, str) or kind not in (*INTEGER_BITS, *FLOAT_TYPES):
        raise CoderError(f'{name}: unknown kind {str(kind)[:200]!r}')
    if not isinstance(shape, list) or len(shape) > 8 or any((type(size) is not int or size < 0 for size in shape)):
        raise CoderError(f'{name}: {str(shape)[:200]} is no shape')
    entry = TensorEntry(name, tuple(shape), kind)
    if math.prod((size or 1 for size in shape)) > RAW_CAP_BYTES:
        raise CoderError(f'{name}: {str(shape)[:200]} is too large')
    if entry.is_integer and (len(shape) < 2 or not entry.numel):
        raise CoderError(f'{name}: {kind} of shape {shape} has no rows')
    return entry

def parse_header(text: bytes) -> tuple[dict[str, Any], tuple[TensorEntry, ...]]:
    try:
        header = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
        entries = tuple((checked_entry(*tensor) for tensor in header['tensors']))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CoderError(f'unreadable header ({error})') from error
    if set(header) != {'config', 'tensors'} or not isinstance(header['config'], dict):
        raise CoderError('the header is not an object of config and tensors')
    if len({entry.name for entry in entries}) < len(entries):
        raise CoderError('a name stands twice')
    return (header, entries)

def _refuse_constant(text: str) -> NoReturn:
    raise CoderError(f'{text} is no number')

def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise CoderError('a key stands twice')
    return dict(pairs)

def planes(arrays: Iterable[npt.NDArray[Any]], code: str) -> bytes:
    numbers = b''.join((array.astype(code).tobytes() for array in arrays))
    return np.frombuffer(numbers, np.uint8).reshape(-1, np.dtype(code).itemsize).T.tobytes()

def from_planes(content: bytes | memoryview, code: str) -> npt.NDArray[Any]:
    rows = np.frombuffer(content, np.uint8).reshape(np.dtype(code).itemsize, -1)
    return np.frombuffer(rows.T.tobytes(), code)

def section_bytes(entries: Sequence[TensorEntry]) -> tuple[int, int, int, int]:
    integers = sum((entry.numel for entry in entries if entry.is_integer))
    half, single = (sum((entry.numel for entry in entries if entry.kind == kind)) for kind in FLOAT_TYPES)
    return (integers, 2 * sum((entry.scales for entry in entries)), 2 * half, 4 * single)

def split_integers(content: bytes, entries: Iterable[TensorEntry]) -> tuple[Integers, ...]:
    numbers, place, matrices = (np.frombuffer(content, np.int8), 0, list[Integers]())
    for entry in integer_entries(entries):
        matrices.append(numbers[place:place + entry.numel].reshape(entry.scales, -1))
        place += entry.numel
    return tuple(matrices)

def decoded_tensors(content: Content) -> Iterator[tuple[str, Tensor]]:
    ends = list(itertools.accumulate(section_bytes(content.entries)[1:]))
    rest, matrices = (memoryview(content.rest), iter(content.integers))
    scales = from_planes(rest[:ends[0]], '<f2')
    floats = {'float16': from_planes(rest[ends[0]:ends[1]], '<f2'), 'float32': from_planes(rest[ends[1]:], '<f4')}
    for entry in content.entries:
        if entry.is_integer:
            scale, scales = (scales[:entry.scales], scales[entry.scales:])
            yield (entry.name, _decoded_rows(entry, next(matrices), scale))
        else:
            section = floats[entry.kind]
            numbers, floats[entry.kind] = (section[:entry.numel], section[entry.numel:])
            tensor = torch.from_numpy(numbers.astype(np.float32)).view(entry.shape)
            check_finite(tensor)
            yield (entry.name, tensor)

def _decoded_rows(entry: TensorEntry, values_RC: Integers, scale: npt.NDArray[np.floating[Any]]) -> Tensor:
    if int(values_RC.min()) < -entry.top or int(values_RC.max()) > entry.top:
        raise CoderError(f'{entry.name}: integers beyond {entry.top}')
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise CoderError(f'{entry.name}: a scale that is not finite and positive')
    rows = torch.from_numpy(values_RC.copy()).view(entry.shape)
    scale_R = torch.from_numpy(scale.astype(np.float16)).view(entry.shape[:-1])
    return dequantize_rows(QuantizedTensor(rows, scale_R, entry.bits, torch.float32))

def integer_matrices(entries: Sequence[TensorEntry], tensors: Mapping[str, QuantizedTensor]) -> tuple[Integers, ...]:
    return tuple((tensors[entry.name].values.numpy().reshape(entry.scales, -1) for entry in integer_entries(entries)))
HeaderCheck: TypeAlias = Callable[[Mapping[str, Any], Mapping[str, tuple[int, ...]]], None]

@dataclass(frozen=True)
class Coding:
    magic: bytes
    package: str
    label: str
    encode: Callable[[Content, int], bytes]
    open: Callable[[bytes, int], tuple[ByteSource, bytes]]
    integers: Callable[[ByteSource, bytes, Sequence[TensorEntry]], tuple[Integers, ...]]

def decode_content(coding: Coding, coded: bytes, raw_cap_bytes: int, expect: HeaderCheck) -> Content:
    source, behind = coding.open(coded, raw_cap_bytes)
    if source.size > raw_cap_bytes:
        raise CoderError(f'oversized: {source.size} bytes decompressed, the limit is {raw_cap_bytes}')
    head_bytes, = struct.unpack(SIZE_FORMAT, source.read(SIZE_BYTES))
    if head_bytes > min(ARTIFACT_HEADER_CAP_BYTES, source.size):
        raise CoderError(f'a header of {head_bytes} bytes')
    head = source.read(head_bytes)
    header, entries = parse_header(head)
    expect(header, {entry.name: entry.shape for entry in entries})
    if (raw_bytes := (source.place + sum(section_bytes(entries)))) > raw_cap_bytes:
        raise CoderError(f'oversized: {raw_bytes} bytes decompressed, the limit is {raw_cap_bytes}')
    integers = coding.integers(source, behind, entries)
    rest = source.read(source.left)
    source.finish()
    return Content(head, entries, integers, rest)

def _plain_integers(source: ByteSource, _behind: bytes, entries: Sequence[TensorEntry]) -> tuple[Integers, ...]:
    if (expected := sum(section_bytes(entries))) != source.left:
        raise CoderError(f'{source.left} bytes for tensors of {expected}')
    return split_integers(source.read(section_bytes(entries)[0]), entries)

def _encode_zstd(content: Content, level: int) -> bytes:
    return zstd_encoded(content.plain(), level)

def _open_zstd(coded: bytes, raw_cap_bytes: int) -> tuple[ByteSource, bytes]:
    return (zstd_source(coded, raw_cap_bytes), b'')

def _encode_brotli(content: Content, _level: int) -> bytes:
    return brotli_encoded(content.plain())

def _open_brotli(coded: bytes, _raw_cap_bytes: int) -> tuple[ByteSource, bytes]:
    return (brotli_source(coded), b'')

def _encode_ans(content: Content, level: int) -> bytes:
    parts, words = ([sized(content.head)], list[bytes]())
    for kind, places in by_kind(content.entries).items():
        matrices, top = ([content.integers[place] for place in places], largest_level(INTEGER_BITS[kind]))
        tables = fit_tables(matrices, top)
        words.append(encode_rows(matrices, tables, top))
        parts.append(struct.pack('<IB', len(words[-1]), len(tables.frequencies)))
        parts.extend((planes([tables.frequencies], '<u2'), tables.classes.tobytes()))
    return b''.join((sized(zstd_encoded(b''.join((*parts, content.rest)), level)), *words))

def _open_ans(coded: bytes, raw_cap_bytes: int) -> tuple[ByteSource, bytes]:
    size = int.from_bytes(coded[:SIZE_BYTES], 'little')
    if len(coded) < SIZE_BYTES + size:
        raise CoderError(f'{len(coded)} bytes for a frame of {size}')
    return (zstd_source(coded[SIZE_BYTES:SIZE_BYTES + size], raw_cap_bytes), coded[SIZE_BYTES + size:])

def _ans_integers(source: ByteSource, behind: bytes, entries: Sequence[TensorEntry]) -> tuple[Integers, ...]:
    tensors, read = (integer_entries(entries), list[tuple[list[int], RowTables, bytes]]())
    for kind, places in by_kind(entries).items():
        words, tables = struct.unpack('<IB', source.read(5))
        if not 0 < tables <= LARGEST_TABLE_COUNT:
            raise CoderError(f'{tables} tables of frequencies')
        symbols = 2 * largest_level(INTEGER_BITS[kind]) + 1
        frequencies = from_planes(source.read(2 * tables * symbols), '<u2').reshape(tables, symbols)
        rows = sum((tensors[place].scales for place in places))
        if rows > source.left:
            raise CoderError(f'{source.left} bytes for the tables of {rows} rows')
        classes = np.frombuffer(source.read(rows), np.uint8)
        row_tables = RowTables(frequencies, classes)
        row_tables.check()
        read.append((places, row_tables, behind[:words]))
        behind = behind[words:]
    if (expected := sum(section_bytes(entries)[1:])) != source.left or behind:
        raise CoderError(f'{source.left} and {len(behind)} bytes behind the integers, for tensors of {expected}')
    matrices: dict[int, Integers] = {}
    for places, row_tables, words in read:
        chosen = [tensors[place] for place in places]
        shapes = [(entry.scales, entry.shape[-1]) for entry in chosen]
        integers = decode_rows(words, row_tables, shapes, chosen[0].top)
        matrices |= zip(places, split_integers(integers.tobytes(), chosen), strict=True)
    return tuple((matrices[place] for place in range(len(tensors))))
CODINGS: Mapping[str, Coding] = MappingProxyType({'zstd': Coding(b'HYM1', '', 'zstd-{level}', _encode_zstd, _open_zstd, _plain_integers), 'brotli': Coding(b'HYB1', 'brotli', 'brotli-11', _encode_brotli, _open_brotli, _plain_integers), 'ans': Coding(b'HYA1', 'constriction', 'ans', _encode_ans, _open_ans, _ans_integers)})
AUTOMATIC = 'auto'

def codings_of(setting: str) -> tuple[str, ...]:
    return tuple(CODINGS) if setting == AUTOMATIC else (setting,)

def missing_packages(setting: str) -> list[str]:
    return [need for name in codings_of(setting) if (need := CODINGS[name].package) and (not is_installed(need))]
MAGIC_BYTES = 4
DIGEST_BYTES = 16

class ArtifactError(ValueError):
    pass

def pack(state: Mapping[str, Tensor], model_config_json: str, quant: QuantConfig, rounded: Mapping[str, QuantizedTensor] | None=None) -> bytes:
    return smallest(packed_content(state, model_config_json, quant, rounded), quant)

def packed_content(state: Mapping[str, Tensor], model_config_json: str, quant: QuantConfig, rounded: Mapping[str, QuantizedTensor] | None=None) -> Content:
    _refuse_shared(state)
    weights = {name: weight.detach().cpu().float() for name, weight in state.items()}
    entries = sorted((_entry(name, weight, quant) for name, weight in weights.items()), key=_packing_order)
    quantized = {entry.name: _checked(entry, rounded[entry.name]) if rounded and entry.name in rounded else _quantized(entry, weights[entry.name], quant) for entry in integer_entries(entries)}
    tensors = [[entry.name, list(entry.shape), entry.kind] for entry in entries]
    head = json.dumps({'config': json.loads(model_config_json), 'tensors': tensors}, separators=(',', ':')).encode()
    sections = [planes((tensor.scale.numpy() for tensor in quantized.values()), '<f2')]
    for kind, code in FLOAT_TYPES.items():
        sections.append(planes((weights[entry.name].numpy() for entry in entries if entry.kind == kind), code))
    return Content(head, tuple(entries), integer_matrices(entries, quantized), b''.join(sections))

def smallest(content: Content, quant: QuantConfig) -> bytes:
    try:
        artifacts = [encoded(content, name, quant.zstd_level) for name in codings_of(quant.coder)]
    except CoderError as error:
        raise ArtifactError(f'COMPRESSOR: {error}') from error
    return min(artifacts, key=len)

def encoded(content: Content, coding: str, zstd_level: int) -> bytes:
    coded = CODINGS[coding].encode(content, zstd_level)
    return CODINGS[coding].magic + _digest(coded) + coded

def coding_of(blob: bytes) -> str:
    for name, coding in CODINGS.items():
        if len(blob) > MAGIC_BYTES + DIGEST_BYTES and blob.startswith(coding.magic):
            return name
    magics = ', '.join((str(coding.magic) for coding in CODINGS.values()))
    raise ArtifactError(f'not an artifact: {len(blob)} bytes that begin with none of {magics}')

def accept_any(_header: Mapping[str, Any], _shapes: Mapping[str, tuple[int, ...]]) -> None:
    pass

def unpack(blob: bytes, raw_cap_bytes: int=RAW_CAP_BYTES, expect: HeaderCheck=accept_any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    content = read_content(blob, raw_cap_bytes, expect)
    try:
        return (parse_header(content.head)[0], dict(decoded_tensors(content)))
    except (CoderError, QuantizeError) as error:
        raise ArtifactError(f'damaged artifact: {error}') from error

def read_content(blob: bytes, raw_cap_bytes: int=RAW_CAP_BYTES, expect: HeaderCheck=accept_any) -> Content:
    coding, coded = (CODINGS[coding_of(blob)], blob[MAGIC_BYTES + DIGEST_BYTES:])
    if _digest(coded) != blob[MAGIC_BYTES:MAGIC_BYTES + DIGEST_BYTES]:
        raise ArtifactError('damaged artifact: the checksum does not match')
    try:
        return decode_content(coding, coded, raw_cap_bytes, expect)
    except (zstandard.ZstdError, CoderError) as error:
        raise ArtifactError(f'damaged artifact: {error}') from error

def _digest(coded: bytes) -> bytes:
    return hashlib.blake2b(coded, digest_size=DIGEST_BYTES).digest()

def _refuse_shared(state: Mapping[str, Tensor]) -> None:
    owners: dict[tuple[object, ...], str] = {}
    for name, weight in state.items():
        key = (weight.device, weight.data_ptr(), weight.shape, weight.stride())
        if weight.numel() and owners.setdefault(key, name) != name:
            raise ArtifactError(f'{name} and {owners[key]} are one tensor: store it under one name')

def _entry(name: str, weight: Tensor, quant: QuantConfig) -> TensorEntry:
    try:
        check_finite(weight)
        return checked_entry(name, list(weight.shape), tensor_kind(name, weight, quant))
    except QuantizeError as error:
        raise ArtifactError(f'{name}: {error}') from error
    except CoderError as error:
        raise ArtifactError(str(error)) from error

def _packing_order(entry: TensorEntry) -> tuple[str, str, str]:
    return (entry.kind, re.sub('\\d+', '', entry.name), entry.name)

def _quantized(entry: TensorEntry, weight: Tensor, quant: QuantConfig) -> QuantizedTensor:
    try:
        return quantize_rows(weight, entry.bits, scale_floor=quant.scale_floor, clip_search=quant.clip_search)
    except QuantizeError as error:
        raise ArtifactError(f'{entry.name}: {error}') from error

def _checked(entry: TensorEntry, rounded: QuantizedTensor) -> QuantizedTensor:
    if rounded.bits != entry.bits or rounded.values.shape != entry.shape or rounded.scale.shape != entry.shape[:-1]:
        shape = tuple(rounded.values.shape)
        raise ArtifactError(f'{entry.name}: rounded to int{rounded.bits} {shape}, to be {entry.kind} {entry.shape}')
    return rounded

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
        self.accumulation = accumulation
        self.micro_tokens = batch_tokens // parts

    def batch(self, step: int, micro: int=0) -> tuple[Tensor, Tensor]:
        part = self._worker.rank * self.accumulation + micro
        tokens = self._stream.read(step * self._batch_tokens + part * self.micro_tokens, self.micro_tokens + 1)
        row = torch.from_numpy(tokens.astype(np.int64)).to(self._worker.device)
        return (row[:-1].view(-1, self._seq_len), row[1:].view(-1, self._seq_len))
COLUMNS_AT_ONCE = 128
LARGEST_DAMPING_FACTOR = 1000000.0

@dataclass(frozen=True)
class Rounding:
    damping: float = 0.01
    activity_order: bool = True

def round_with_hessian(weight_RC: Tensor, nearest: QuantizedTensor, hessian_CC: Tensor, how: Rounding) -> QuantizedTensor:
    if not bool(hessian_CC.isfinite().all()):
        raise QuantizeError('inputs that are not finite')
    hessian_CC, wide_RC, scale_R1 = (hessian_CC.double(), weight_RC.double(), nearest.scale.double()[:, None])
    activity_C = hessian_CC.diagonal()
    if how.activity_order:
        order_C = activity_C.argsort(descending=True, stable=True)
    else:
        order_C = torch.arange(len(activity_C), device=activity_C.device)
    factor_CC = inverse_factor(hessian_CC[order_C][:, order_C], how.damping)
    levels_RC = torch.empty_like(wide_RC)
    levels_RC[:, order_C] = _round_columns(wide_RC[:, order_C], scale_R1, factor_CC, largest_level(nearest.bits))
    nearest_RC = nearest.values.double()
    losses_2R = [output_error(wide_RC, rounded_RC * scale_R1, hessian_CC) for rounded_RC in (levels_RC, nearest_RC)]
    better_R1 = (losses_2R[0] < losses_2R[1])[:, None]
    values = torch.where(better_R1, levels_RC, nearest_RC).to(torch.int8)
    return QuantizedTensor(values, nearest.scale, nearest.bits, nearest.dtype)

def output_error(weight_RC: Tensor, rounded_RC: Tensor, hessian_CC: Tensor) -> Tensor:
    change_RC = rounded_RC - weight_RC
    return (change_RC @ hessian_CC * change_RC).sum(1)

def inverse_factor(hessian_CC: Tensor, damping: float) -> Tensor:
    activity_C = hessian_CC.diagonal()
    lives_C = activity_C > 0
    mean = activity_C[lives_C].mean() if bool(lives_C.any()) else torch.ones_like(activity_C[0])
    filled_CC = hessian_CC + torch.diag(torch.where(lives_C, 0.0, mean))
    share = damping
    while share <= LARGEST_DAMPING_FACTOR * damping:
        damped_CC = filled_CC + share * mean * torch.eye(len(filled_CC), dtype=filled_CC.dtype, device=filled_CC.device)
        lower_CC, failed = torch.linalg.cholesky_ex(damped_CC)
        if not int(failed):
            upper_CC: Tensor
            upper_CC, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower_CC), upper=True)
            if not int(failed):
                return upper_CC
        share *= 10.0
    raise QuantizeError('inputs whose products are no positive semidefinite matrix')

def _round_columns(wide_RC: Tensor, scale_R1: Tensor, factor_CC: Tensor, top: int) -> Tensor:
    wide_RC, levels_RC, columns = (wide_RC.clone(), torch.empty_like(wide_RC), wide_RC.shape[1])
    for start in range(0, columns, COLUMNS_AT_ONCE):
        end = min(start + COLUMNS_AT_ONCE, columns)
        block, errors = (wide_RC[:, start:end], torch.empty_like(wide_RC[:, start:end]))
        for place, column in enumerate(range(start, end)):
            level_R1 = (block[:, place:place + 1] / scale_R1).round().clamp(-top, top)
            levels_RC[:, column:column + 1] = level_R1
            error_R1 = (block[:, place:place + 1] - level_R1 * scale_R1) / factor_CC[column, column]
            block[:, place:].addmm_(error_R1, factor_CC[column:column + 1, column:end], alpha=-1.0)
            errors[:, place:place + 1] = error_R1
        wide_RC[:, end:].addmm_(errors, factor_CC[start:end, end:], alpha=-1.0)
    return levels_RC

def flex_problem(*tensors: Tensor) -> str:
    wanted = torch.is_grad_enabled() and any((tensor.requires_grad for tensor in tensors))
    if tensors[0].device.type == 'cpu' and wanted:
        return 'it has no backward pass on a CPU'
    return ''

def flex_window_attention(q_BHTE: Tensor, k_BGLE: Tensor, v_BGLE: Tensor, window: int) -> Tensor:
    mask = window_block_mask(window, q_BHTE.shape[2], k_BGLE.shape[2], str(q_BHTE.device))
    attention = flex_operator(compiled=q_BHTE.device.type != 'cpu')
    grouped = q_BHTE.shape[1] != k_BGLE.shape[1]
    if not torch.is_grad_enabled():
        q_BHTE, k_BGLE, v_BGLE = (q_BHTE.detach(), k_BGLE.detach(), v_BGLE.detach())
    mixed: Tensor = attention(q_BHTE, k_BGLE, v_BGLE, block_mask=mask, enable_gqa=grouped)
    return mixed

@functools.lru_cache(maxsize=32)
def window_block_mask(window: int, queries: int, keys: int, device: str) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask
    before = keys - queries

    def visible(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        distance = query + before - key
        return (key < before) | (distance >= 0) & (distance < window)
    return create_block_mask(visible, None, None, queries, keys, device=device)

@functools.cache
def flex_operator(*, compiled: bool) -> Any:
    from torch.nn.attention.flex_attention import flex_attention
    return torch.compile(flex_attention) if compiled else flex_attention
FIRST_KEYS = 64
Change: TypeAlias = Callable[[Tensor], Tensor]

@dataclass
class Tail:
    items: Tensor | None = None

    def before(self, x_BTX: Tensor, count: int) -> Tensor:
        return x_BTX.new_zeros(len(x_BTX), count, *x_BTX.shape[2:]) if self.items is None else self.items

    def join(self, x_BTX: Tensor, count: int) -> Tensor:
        joined = torch.cat((self.before(x_BTX, count), x_BTX), 1)
        self.items = joined[:, joined.shape[1] - count:].detach().clone()
        return joined

    def mapped(self, change: Change) -> Tail:
        return Tail(self.items if self.items is None else change(self.items))

def previous(x_BTX: Tensor, tail: Tail | None=None) -> Tensor:
    if tail is not None:
        return tail.join(x_BTX, 1)[:, :-1]
    return F.pad(x_BTX[:, :-1], (*(0, 0) * (x_BTX.ndim - 2), 1, 0))

@dataclass
class KeyValues:
    window: int
    keys: Tensor | None = None
    values: Tensor | None = None
    start: int = 0
    end: int = 0
    always: tuple[Tensor, Tensor] | None = None

    @property
    def pinned(self) -> int:
        return 0 if self.always is None else self.always[0].shape[2]

    @property
    def held(self) -> int:
        return self.end - self.start

    def extend(self, k_BGTE: Tensor, v_BGTE: Tensor, meta: int=0) -> tuple[Tensor, Tensor]:
        if meta:
            self.always = (k_BGTE[:, :, :meta].detach(), v_BGTE[:, :, :meta].detach())
            k_BGTE, v_BGTE = (k_BGTE[:, :, meta:], v_BGTE[:, :, meta:])
        if self.window:
            self.start = max(self.start, self.end - self.window + 1)
        keys, values = (self._with_room(k_BGTE), self._with_room(v_BGTE, values=True))
        if keys is not self.keys:
            self.start, self.end, self.keys, self.values = (0, self.held, keys, values)
        before, after = (slice(self.start, self.end), self.end + k_BGTE.shape[2])
        keys[:, :, self.end:after], values[:, :, self.end:after] = (k_BGTE.detach(), v_BGTE.detach())
        self.end = after
        seen = (keys[:, :, self.start:after], values[:, :, self.start:after])
        if k_BGTE.requires_grad or v_BGTE.requires_grad:
            seen = (torch.cat((keys[:, :, before], k_BGTE), 2), torch.cat((values[:, :, before], v_BGTE), 2))
        if self.always is None:
            return seen
        return (torch.cat((self.always[0], seen[0]), 2), torch.cat((self.always[1], seen[1]), 2))

    def mapped(self, change: Change) -> KeyValues:
        if self.keys is None or self.values is None:
            return KeyValues(self.window)
        kept = slice(self.start, self.end)
        always = self.always and (change(self.always[0]), change(self.always[1]))
        keys, values = (change(self.keys[:, :, kept]), change(self.values[:, :, kept]))
        return KeyValues(self.window, keys, values, 0, self.held, always)

    def _with_room(self, x_BGTE: Tensor, *, values: bool=False) -> Tensor:
        store = self.values if values else self.keys
        needed = self.held + x_BGTE.shape[2]
        if store is not None and self.end + x_BGTE.shape[2] <= store.shape[2]:
            return store
        batch, heads, _, width = x_BGTE.shape
        larger = x_BGTE.new_empty(batch, heads, max(2 * needed, FIRST_KEYS), width)
        if store is not None:
            larger[:, :, :self.held] = store[:, :, self.start:self.end]
        return larger

@dataclass
class LayerMemory:
    attention: KeyValues
    convolution: Tail = field(default_factory=Tail)
    scan: Tensor | None = None

    def mapped(self, change: Change) -> LayerMemory:
        scan = self.scan if self.scan is None else change(self.scan)
        return LayerMemory(self.attention.mapped(change), self.convolution.mapped(change), scan)

@dataclass
class Memory:
    layers: list[LayerMemory]
    tokens: Tail = field(default_factory=Tail)
    embedding: Tail = field(default_factory=Tail)
    position: int = 0

    def first_rows(self, count: int) -> Memory:

        def first(tensor: Tensor) -> Tensor:
            return tensor[:count]
        layers = [layer.mapped(first) for layer in self.layers]
        return Memory(layers, self.tokens.mapped(first), self.embedding.mapped(first), self.position)
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
FAR_POSITION = 1 << 17

def rotary_tables(length: int, head_dim: int, base: float, device: torch.device, *, first: int=0) -> tuple[Tensor, Tensor]:
    frequencies = base ** (-(torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim))
    positions = torch.arange(first, first + length, dtype=torch.float32, device=device)
    angles = positions[:, None, None] * frequencies
    if (near := max(FAR_POSITION - first, 0)) < length:
        far = torch.arange(first + near, first + length, dtype=torch.float64, device=device)
        angles[near:] = (far[:, None, None] * frequencies.double()).remainder(2 * math.pi).float()
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
    if not torch.is_grad_enabled():
        return rotated_halves(x, cos, sin)
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

def causal_attention(q_BHTE: Tensor, k_BGLE: Tensor, v_BGLE: Tensor, window: int=0, backend: str='auto') -> Tensor:
    chosen = choose_window(backend, q_BHTE, k_BGLE, v_BGLE)
    grouped, before = (q_BHTE.shape[1] != k_BGLE.shape[1], k_BGLE.shape[2] - q_BHTE.shape[2])
    if window == 0 or q_BHTE.shape[2] <= window:
        q_BHLE = F.pad(q_BHTE, (0, 0, before, 0)) if before else q_BHTE
        mixed = F.scaled_dot_product_attention(q_BHLE, k_BGLE, v_BGLE, is_causal=True, enable_gqa=grouped)
        return mixed[:, :, before:]
    if chosen == 'flex':
        return flex_window_attention(q_BHTE, k_BGLE, v_BGLE, window)
    if chosen == 'sdpa':
        visible_TL = visible_keys(window, q_BHTE.shape[2], k_BGLE.shape[2], q_BHTE.device)
        return F.scaled_dot_product_attention(q_BHTE, k_BGLE, v_BGLE, attn_mask=visible_TL, enable_gqa=grouped)
    if q_BHTE.device.type == 'cpu':
        return window_attention(q_BHTE, k_BGLE, v_BGLE, window)
    return blockwise_attention(q_BHTE, k_BGLE, v_BGLE, window)

def choose_window(backend: str, *tensors: Tensor) -> str:
    if backend not in WINDOW_BACKENDS:
        raise ConfigError(f"SLIDING_WINDOW_BACKEND: {backend!r} is not one of {', '.join(WINDOW_BACKENDS)}")
    if backend == 'auto':
        return 'flex' if tensors[0].device.type == 'cuda' else 'blocked'
    if backend == 'flex' and (problem := flex_problem(*tensors)):
        raise ConfigError(f'SLIDING_WINDOW_BACKEND: flex cannot compute this attention: {problem}')
    return backend

def visible_keys(window: int, queries: int, keys: int, device: torch.device) -> Tensor:
    before = keys - queries
    own_T1 = torch.arange(queries, device=device)[:, None]
    distance_TL = own_T1 - torch.arange(-before, queries, device=device)
    visible_TL = (distance_TL >= 0) & (distance_TL < window)
    visible_TL[:, :before] = True
    return visible_TL

def attention_after_meta(q_BHLE: Tensor, k_BGLE: Tensor, v_BGLE: Tensor, *, window: int, meta: int, backend: str='auto') -> Tensor:
    if not meta or window == 0 or q_BHLE.shape[2] - meta <= window:
        return causal_attention(q_BHLE, k_BGLE, v_BGLE, window if not meta else 0, backend)
    first = causal_attention(q_BHLE[:, :, :meta], k_BGLE[:, :, :meta], v_BGLE[:, :, :meta])
    return torch.cat((first, causal_attention(q_BHLE[:, :, meta:], k_BGLE, v_BGLE, window, backend)), 2)

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

def continued_attention(q_BHTE: Tensor, k_BGLE: Tensor, v_BGLE: Tensor, kept: KeyValues, *, meta: int=0, backend: str='auto') -> Tensor:
    choose_window(backend, q_BHTE, k_BGLE, v_BGLE)
    begins, queries = (not kept.end, q_BHTE.shape[2])
    k_BGKE, v_BGKE = kept.extend(k_BGLE, v_BGLE, meta)
    if begins and queries == k_BGLE.shape[2]:
        return attention_after_meta(q_BHTE, k_BGLE, v_BGLE, window=kept.window, meta=meta, backend=backend)
    if begins:
        return causal_attention(q_BHTE, k_BGLE, v_BGLE, kept.window, backend)
    held = k_BGKE.shape[2] - queries - kept.pinned
    if queries >= (kept.window or held):
        q_BHLE = F.pad(q_BHTE, (0, 0, held, 0))
        return causal_attention(q_BHLE, k_BGKE, v_BGKE, kept.window, backend)[:, :, held:]
    visible_TK = None
    if queries > 1:
        keys = k_BGKE.shape[2]
        own_T1 = torch.arange(keys - queries, keys, device=q_BHTE.device)[:, None]
        distance_TK = own_T1 - torch.arange(keys, device=q_BHTE.device)
        visible_TK = (distance_TK >= 0) & (distance_TK < (kept.window or keys))
        visible_TK[:, :kept.pinned] = True
    grouped = q_BHTE.shape[1] != k_BGLE.shape[1]
    return F.scaled_dot_product_attention(q_BHTE, k_BGKE, v_BGKE, attn_mask=visible_TK, enable_gqa=grouped)
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
    kv_dim, hidden = (config.num_kv_heads * config.head_dim, config.hidden_dim)
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

class MatrixRows(nn.Module):

    def __init__(self, owner: Linear | nn.Embedding, rows: slice | None=None) -> None:
        super().__init__()
        self.owner = (owner,)
        self.rows = rows

    @property
    def weight(self) -> Tensor:
        weight_RC = self.owner[0].weight
        return weight_RC if self.rows is None else weight_RC[self.rows]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)

@contextmanager
def frozen_matrices(blocks: Iterable[nn.Module]) -> Iterator[None]:
    held: dict[nn.Parameter, list[int]] = {}
    for module in (module for block in blocks for module in block.modules() if isinstance(module, BankLinear)):
        held.setdefault(module.owner[0].get_parameter(module.name), []).append(module.index)
    handles = []
    for bank, rows in held.items():
        keep_out = partial(_without_rows, torch.tensor(rows, device=bank.device))
        handles.append(bank.register_hook(keep_out))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

def _without_rows(rows: Tensor, gradient_NRC: Tensor) -> Tensor:
    return gradient_NRC.index_fill(0, rows, 0.0)
CUDA_DEVICES = ('cuda',)
CUDA_STATES = 256
CUDA_TAPS = (2, 3, 4)
CUDA_CHANNELS = 8

@functools.cache
def package_problem(module: str, package: str) -> str:
    try:
        importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        return f'{package} cannot be imported ({(str(error).splitlines()[0] if str(error) else type(error).__name__)})'
    return ''

def device_problem(device: torch.device) -> str:
    return '' if device.type in CUDA_DEVICES else f'the tensors are on {device.type}, not on a GPU'

def cuda_scan_problem(device: torch.device) -> str:
    return device_problem(device) or package_problem('mamba_ssm.ops.selective_scan_interface', 'mamba-ssm')

def cuda_conv_problem(x_BTD: Tensor, taps: int) -> str:
    if (problem := device_problem(x_BTD.device)):
        return problem
    if taps not in CUDA_TAPS:
        return f'{taps} taps, it takes {CUDA_TAPS[0]} to {CUDA_TAPS[-1]}'
    if x_BTD.dtype == torch.float64 or x_BTD.shape[2] % CUDA_CHANNELS:
        channels = f'{x_BTD.shape[2]} channels, no multiple of {CUDA_CHANNELS}'
        return 'float64' if x_BTD.dtype == torch.float64 else channels
    return package_problem('causal_conv1d', 'causal-conv1d')

class NoGradient(torch.autograd.Function):

    @staticmethod
    def forward(ctx: object, value: Tensor, what: str) -> Tensor:
        ctx.what = what
        return value.view_as(value)

    @staticmethod
    def backward(ctx: object, *_: Tensor) -> tuple[None, None]:
        raise RuntimeError(f'{ctx.what} has no gradient')

def cuda_scan(inputs: tuple[Tensor, Tensor, Tensor, Tensor, Tensor], skip_D: Tensor | None, gate_BTD: Tensor | None, *, softplus: bool) -> tuple[Tensor, Tensor]:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    x_BTD, dt_BTD, A_DN, B_BTN, C_BTN = inputs
    x_BDT, dt_BDT, B_BNT, C_BNT = (tensor.transpose(1, 2) for tensor in (x_BTD, dt_BTD, B_BTN, C_BTN))
    y_BDT, state_BDN = selective_scan_fn(x_BDT, dt_BDT, A_DN.float().contiguous(), B_BNT, C_BNT, D=None if skip_D is None else skip_D.float(), z=None if gate_BTD is None else gate_BTD.transpose(1, 2), delta_softplus=softplus, return_last_state=True)
    refusing: Tensor = NoGradient.apply(state_BDN, "the last state of mamba-ssm's scan")
    return (y_BDT.transpose(1, 2), refusing)

def cuda_conv(x_BTD: Tensor, weight_DK: Tensor, bias_D: Tensor, before_BKD: Tensor | None, *, silu: bool) -> tuple[Tensor, Tensor | None]:
    from causal_conv1d import causal_conv1d_fn
    x_BDT = spaced_for_conv(x_BTD).transpose(1, 2)
    activation = 'silu' if silu else None
    if before_BKD is None:
        y_BDT: Tensor = causal_conv1d_fn(x_BDT, weight_DK, bias_D, activation=activation)
        return (y_BDT.transpose(1, 2), None)
    y_BDT, after_BDK = causal_conv1d_fn(x_BDT, weight_DK, bias_D, initial_states=before_BKD.contiguous().transpose(1, 2), return_final_states=True, activation=activation)
    return (y_BDT.transpose(1, 2), after_BDK.transpose(1, 2))

def spaced_for_conv(x_BTD: Tensor) -> Tensor:
    fits = x_BTD.stride(2) == 1 and x_BTD.stride(0) % CUDA_CHANNELS == 0 and (x_BTD.stride(1) % CUDA_CHANNELS == 0)
    return x_BTD if fits else x_BTD.contiguous()
FUSED_ROWS = 64
FUSED_TAPS = (1, 2, 3, 4)
FUSED_SOURCE = '\n#include <cmath>\n\nconstexpr int64_t ROWS = 64;\n// What torch adds to the mean square of float32.\nconstexpr float EPSILON = 1.1920928955078125e-07f;\n\ntemplate <typename F>\nstatic void each_group(int64_t rows, const F& f) {\n  at::parallel_for(0, (rows + ROWS - 1) / ROWS, 1, [&](int64_t from, int64_t to) {\n    for (int64_t g = from; g < to; ++g) f(g, g * ROWS, std::min(rows, (g + 1) * ROWS));\n  });\n}\n\nstatic inline V plus(V v, const float* u, const float* b, int64_t d, auto lanes) {\n  const V w = load(u + d, lanes);\n  return v + (b ? w * load(b + d, lanes) : w);\n}\nstatic void mix_row(const float* x, const float* u, const float* a, const float* b, float* y, float* n, float* r,\n                    int64_t D) {\n  V squares{};\n  each_vector(D, [&](int64_t d, auto lanes) {\n    V v = load(x + d, lanes);\n    if (a) v *= load(a + d, lanes);\n    if (u) v = plus(v, u, b, d, lanes);\n    if (y) store(y + d, v, lanes);\n    squares += v * v;\n  });\n  if (!n) return;\n  const float scale = 1.0f / std::sqrt(sum(squares) / D + EPSILON);\n  const float* from = y ? y : x;\n  *r = scale;\n  each_vector(D, [&](int64_t d, auto lanes) { store(n + d, load(from + d, lanes) * scale, lanes); });\n}\nstatic inline float* at_row(float* from, int64_t offset) { return from ? from + offset : nullptr; }\nstatic inline const float* at_row(const float* from, int64_t offset) { return from ? from + offset : nullptr; }\n\n// y = a * x + b * u, each part but x may be missing; n = y / rms(y).\n// in: x u a b; out: y n r; sizes: rows D x_row u_row y_row.\nextern "C" void mix_norm_forward(const float* const* in, float* const* out, const int64_t* s) {\n  const int64_t D = s[1];\n  each_group(s[0], [&](int64_t, int64_t first, int64_t last) {\n    for (int64_t i = first; i < last; ++i)\n      mix_row(in[0] + i * s[2], at_row(in[1], i * s[3]), in[2], in[3], at_row(out[0], i * D), at_row(out[1], i * D),\n              at_row(out[2], i), D);\n  });\n}\n\nstatic void mix_row_back(const float* x, const float* u, const float* a, const float* b, const float* y, float r,\n                         const float* dy, const float* dn, float* dx, float* du, float* da, float* db, int64_t D) {\n  float common = 0;\n  if (dn) {\n    V dot{};\n    each_vector(D, [&](int64_t d, auto lanes) { dot += load(dn + d, lanes) * load(y + d, lanes); });\n    common = r * r * r * sum(dot) / D;\n  }\n  each_vector(D, [&](int64_t d, auto lanes) {\n    V g = dy ? load(dy + d, lanes) : V{};\n    if (dn) g += load(dn + d, lanes) * r - load(y + d, lanes) * common;\n    store(dx + d, a ? g * load(a + d, lanes) : g, lanes);\n    if (da) store(da + d, load(da + d, lanes) + g * load(x + d, lanes), lanes);\n    if (!u) return;\n    store(du + d, b ? g * load(b + d, lanes) : g, lanes);\n    if (db) store(db + d, load(db + d, lanes) + g * load(u + d, lanes), lanes);\n  });\n}\n\n// in: x u a b y r dy dn; out: dx du da db, sums by group; sizes: as above.\nextern "C" void mix_norm_backward(const float* const* in, float* const* out, const int64_t* s) {\n  const int64_t D = s[1];\n  each_group(s[0], [&](int64_t group, int64_t first, int64_t last) {\n    float *da = at_row(out[2], group * D), *db = at_row(out[3], group * D);\n    if (da) std::fill(da, da + D, 0.0f);\n    if (db) std::fill(db, db + D, 0.0f);\n    for (int64_t i = first; i < last; ++i)\n      mix_row_back(in[0] + i * s[2], at_row(in[1], i * s[3]), in[2], in[3], in[4] + i * s[4], in[5] ? in[5][i] : 0,\n                   at_row(in[6], i * D), at_row(in[7], i * D), out[0] + i * D, at_row(out[1], i * D), da, db, D);\n  });\n}\n\nstatic float head_forward(const float* x, const float* c, const float* w, float gain, float* y, int64_t half) {\n  V squares{};\n  each_vector(2 * half, [&](int64_t e, auto lanes) { const V v = load(x + e, lanes); squares += v * v; });\n  const float r = 1.0f / std::sqrt(sum(squares) / (2 * half) + EPSILON), scale = r * gain;\n  each_vector(half, [&](int64_t e, auto lanes) {\n    const V cos = load(c + e, lanes) * scale, sin = load(w + e, lanes) * scale;\n    const V a = load(x + e, lanes), b = load(x + half + e, lanes);\n    store(y + e, a * cos - b * sin, lanes);\n    store(y + half + e, b * cos + a * sin, lanes);\n  });\n  return r;\n}\n// Returns the gradient of the gain.\nstatic float head_backward(const float* x, const float* c, const float* w, float gain, float r, const float* dy,\n                           float* dx, int64_t half) {\n  V dot{};  // of the gradient turned back with x\n  each_vector(half, [&](int64_t e, auto lanes) {\n    const V cos = load(c + e, lanes), sin = load(w + e, lanes);\n    const V p = load(dy + e, lanes), q = load(dy + half + e, lanes);\n    const V a = p * cos + q * sin, b = q * cos - p * sin;\n    dot += a * load(x + e, lanes) + b * load(x + half + e, lanes);\n    store(dx + e, a, lanes);\n    store(dx + half + e, b, lanes);\n  });\n  const float total = sum(dot), scale = gain * r, common = gain * r * r * r * total / (2 * half);\n  each_vector(2 * half, [&](int64_t e, auto lanes) {\n    store(dx + e, load(dx + e, lanes) * scale - load(x + e, lanes) * common, lanes);\n  });\n  return total * r;\n}\n\n// Norm of each head, rotation of its first half against the second, gain. in: x cos sin gain; out: y r;\n// sizes: B T H E, distances of x along B T H.\nextern "C" void heads_forward(const float* const* in, float* const* out, const int64_t* s) {\n  const int64_t T = s[1], H = s[2], E = s[3], half = E / 2;\n  each_group(s[0] * T, [&](int64_t, int64_t first, int64_t last) {\n    for (int64_t row = first; row < last; ++row)\n      for (int64_t h = 0; h < H; ++h)\n        out[1][row * H + h] =\n            head_forward(in[0] + row / T * s[4] + row % T * s[5] + h * s[6], in[1] + row % T * half,\n                         in[2] + row % T * half, in[3] ? in[3][h] : 1.0f, out[0] + (row * H + h) * E, half);\n  });\n}\n\n// in: x cos sin gain r dy; out: dx, dgain by group; sizes: as above, then distances of dy along B T H.\nextern "C" void heads_backward(const float* const* in, float* const* out, const int64_t* s) {\n  const int64_t T = s[1], H = s[2], E = s[3], half = E / 2;\n  each_group(s[0] * T, [&](int64_t group, int64_t first, int64_t last) {\n    float* dgain = at_row(out[1], group * H);\n    if (dgain) std::fill(dgain, dgain + H, 0.0f);\n    for (int64_t row = first; row < last; ++row)\n      for (int64_t h = 0; h < H; ++h) {\n        const float d = head_backward(in[0] + row / T * s[4] + row % T * s[5] + h * s[6], in[1] + row % T * half,\n                                      in[2] + row % T * half, in[3] ? in[3][h] : 1.0f, in[4][row * H + h],\n                                      in[5] + row / T * s[7] + row % T * s[8] + h * s[9], out[0] + (row * H + h) * E,\n                                      half);\n        if (dgain) dgain[h] += d;\n      }\n  });\n}\n\n// Causal convolution along time, then SiLU. K taps, K x D.\ntemplate <int K>\nstatic inline V convolved(const float* x, int64_t row, int64_t t, const V* taps, V bias, auto lanes) {\n  for (int k = 0; k < K; ++k)\n    if (t - (K - 1) + k >= 0) bias += taps[k] * load(x + (k - (K - 1)) * row, lanes);\n  return bias;\n}\nstruct Conv {\n  int64_t T, D, row, b, d;\n  const float *x, *taps, *bias, *dy;\n};\ntemplate <int K>\nstatic void conv_block(const Conv s, float* y, auto lanes) {\n  V taps[K];\n  for (int k = 0; k < K; ++k) taps[k] = load(s.taps + k * s.D + s.d, lanes);\n  const V bias = load(s.bias + s.d, lanes);\n  for (int64_t t = 0; t < s.T; ++t) {\n    const V v = convolved<K>(s.x + (s.b * s.T + t) * s.row + s.d, s.row, t, taps, bias, lanes);\n    store(y + (s.b * s.T + t) * s.D + s.d, v * vsigmoid(v), lanes);\n  }\n}\ntemplate <int K>\nstatic void conv_block_back(const Conv s, float* dx, float* dw, float* db, auto lanes) {\n  V taps[K], dtaps[K], later[K], dbias{};  // later[j]: gradient before the SiLU, j steps later\n  for (int k = 0; k < K; ++k) { taps[k] = load(s.taps + k * s.D + s.d, lanes); dtaps[k] = later[k] = V{}; }\n  const V bias = load(s.bias + s.d, lanes);\n  for (int64_t t = s.T - 1; t >= 0; --t) {\n    const float* x = s.x + (s.b * s.T + t) * s.row + s.d;\n    const V v = convolved<K>(x, s.row, t, taps, bias, lanes), lit = vsigmoid(v);\n    const V g = load(s.dy + (s.b * s.T + t) * s.D + s.d, lanes) * lit * (1.0f + v * (1.0f - lit));\n    for (int j = K - 1; j > 0; --j) later[j] = later[j - 1];\n    later[0] = g;\n    dbias += g;\n    V found{};\n    for (int k = 0; k < K; ++k) {\n      found += taps[k] * later[K - 1 - k];\n      if (t - (K - 1) + k >= 0) dtaps[k] += g * load(x + (k - (K - 1)) * s.row, lanes);\n    }\n    store(dx + (s.b * s.T + t) * s.D + s.d, found, lanes);\n  }\n  for (int k = 0; k < K; ++k) store(dw + (s.b * K + k) * s.D + s.d, dtaps[k], lanes);\n  store(db + s.b * s.D + s.d, dbias, lanes);\n}\ntemplate <typename F>\nstatic void each_block(const float* const* in, const int64_t* s, const F& f) {\n  const int64_t D = s[2], blocks = (D + W - 1) / W;\n  at::parallel_for(0, s[0] * blocks, 1, [&](int64_t from, int64_t to) {\n    for (int64_t i = from; i < to; ++i) {\n      const Conv conv{s[1], D, s[3], i / blocks, i % blocks * W, in[0], in[1], in[2], in[3]};\n      with_lanes(D - conv.d, [&](auto lanes) { f(conv, lanes); });\n    }\n  });\n}\ntemplate <int K>\nstatic void conv_forward_k(const float* const* in, float* const* out, const int64_t* s) {\n  const float* given[] = {in[0], in[1], in[2], nullptr};\n  each_block(given, s, [&](const Conv& conv, auto lanes) { conv_block<K>(conv, out[0], lanes); });\n}\ntemplate <int K>\nstatic void conv_backward_k(const float* const* in, float* const* out, const int64_t* s) {\n  each_block(in, s, [&](const Conv& conv, auto lanes) { conv_block_back<K>(conv, out[0], out[1], out[2], lanes); });\n}\n#define FOR_EACH_TAPS(CASE) CASE(1) CASE(2) CASE(3) CASE(4)\n// in: x taps bias; out: y; sizes: B T D x_row K.\nextern "C" void conv_forward(const float* const* in, float* const* out, const int64_t* s) {\n  switch (s[4]) {\n#define CASE(K) case K: return conv_forward_k<K>(in, out, s);\n    FOR_EACH_TAPS(CASE)\n#undef CASE\n  }\n}\n// in: x taps bias dy; out: dx, dtaps and dbias by batch row.\nextern "C" void conv_backward(const float* const* in, float* const* out, const int64_t* s) {\n  switch (s[4]) {\n#define CASE(K) case K: return conv_backward_k<K>(in, out, s);\n    FOR_EACH_TAPS(CASE)\n#undef CASE\n  }\n}\n\n// tanh: a polynomial near 0 (Cephes\' tanhf), elsewhere by exp.\nstatic inline V vtanh(V x) {\n  const V size = vabs(x), q = x * x, e = vexp(-2.0f * size);\n  V p = all(-5.70498872745e-3f);\n  p = p * q + 2.06390887954e-2f;\n  p = p * q - 5.37397155531e-2f;\n  p = p * q + 1.33314422036e-1f;\n  p = p * q - 3.33332819422e-1f;\n  const V near = p * q * x + x, far = (1.0f - e) / (1.0f + e);\n  return size < 0.625f ? near : (x < 0.0f ? -far : far);\n}\n\nstatic float entropy_row(const float* z, float cap, int64_t D) {\n  V sums{};\n  int64_t d = 0;\n  for (; d + W <= D; d += W) sums += vexp(cap * vtanh(load(z + d, Full{})));\n  float total = sum(sums);\n  for (; d < D; ++d) total += std::exp(cap * std::tanh(z[d]));\n  return std::log(total);\n}\n// The same, and what the gradient is made of while the row is at hand. The gradient of the loss is `gradient` / cap.\nstatic float entropy_row_both(const float* z, float cap, float gradient, int64_t target, float* dz, int64_t D) {\n  V sums{};\n  int64_t d = 0;\n  for (; d + W <= D; d += W) {\n    const V t = vtanh(load(z + d, Full{})), e = vexp(cap * t);\n    sums += e;\n    store(dz + d, e * (1.0f - t * t), Full{});\n  }\n  float total = sum(sums);\n  for (; d < D; ++d) {\n    const float t = std::tanh(z[d]), e = std::exp(cap * t);\n    total += e;\n    dz[d] = e * (1.0f - t * t);\n  }\n  const float scale = gradient / total, t = std::tanh(z[target]);\n  each_vector(D, [&](int64_t at, auto lanes) { store(dz + at, load(dz + at, lanes) * scale, lanes); });\n  dz[target] -= gradient * (1.0f - t * t);\n  return std::log(total);\n}\n\n// Cross-entropy of cap * tanh(z); the cap bounds the sum, so that no largest value need be found first.\n// in: z cap; out: losses, and their gradient by z over the number of rows where it is wanted; sizes: rows D.\nextern "C" void entropy(const float* const* in, float* const* out, const int64_t* s, const int64_t* targets) {\n  const int64_t D = s[1];\n  const float cap = in[1][0];\n  each_group(s[0], [&](int64_t, int64_t first, int64_t last) {\n    for (int64_t row = first; row < last; ++row) {\n      const float* z = in[0] + row * D;\n      const float total = out[1] ? entropy_row_both(z, cap, cap / s[0], targets[row], out[1] + row * D, D)\n                                 : entropy_row(z, cap, D);\n      out[0][row] = total - cap * std::tanh(z[targets[row]]);\n    }\n  });\n}\n\nstatic void squared(const float* x, float slope, float* y, int64_t size) {\n  each_vector(size, [&](int64_t i, auto lanes) {\n    const V v = load(x + i, lanes), l = v > 0.0f ? v : slope * v;\n    store(y + i, l * l, lanes);\n  });\n}\nstatic void squared_back(const float* x, float slope, const float* dy, float* dx, int64_t size) {\n  each_vector(size, [&](int64_t i, auto lanes) {\n    const V v = load(x + i, lanes);\n    store(dx + i, 2.0f * load(dy + i, lanes) * (v > 0.0f ? v : slope * slope * v), lanes);\n  });\n}\n// Square of the leaky rectifier. in: x slope; out: y; sizes: elements.\nextern "C" void squared_forward(const float* const* in, float* const* out, const int64_t* s) {\n  at::parallel_for(0, s[0], 1 << 14, [&](int64_t from, int64_t to) {\n    squared(in[0] + from, in[1][0], out[0] + from, to - from);\n  });\n}\n// in: x slope dy; out: dx.\nextern "C" void squared_backward(const float* const* in, float* const* out, const int64_t* s) {\n  at::parallel_for(0, s[0], 1 << 14, [&](int64_t from, int64_t to) {\n    squared_back(in[0] + from, in[1][0], in[2] + from, out[0] + from, to - from);\n  });\n}\n'
COMPILER = 'g++'
COMPILE_FLAGS = ('-std=c++20', '-O3', '-march=native', '-fno-math-errno', '-fopenmp', '-fPIC')
COMPILE_LIMIT_S = 300
NATIVE_HEADER = "\n#include <ATen/Parallel.h>\n#include <algorithm>\n#include <cstdint>\n#include <vector>\n\nconstexpr int W = 16;\ntypedef float V __attribute__((vector_size(4 * W)));\ntypedef int32_t I __attribute__((vector_size(4 * W)));\n// As it stands in memory. A copy by memcpy would go through the stack in halves, which costs more than the arithmetic.\ntypedef float U __attribute__((vector_size(4 * W), aligned(4), may_alias));\n\nstatic inline V all(float x) { return x - V{}; }\nstatic inline V vabs(V x) { return (V)((I)x & 0x7fffffff); }\n\n// exp for arguments at or below 0, relative error about 1e-7 (Cephes' expf); below -87 it gives about 1e-38.\nstatic inline V vexp(V x) {\n  const V low = all(-87.0f);\n  x = x < low ? low : x;\n  const V shift = all(12582912.0f);\n  V n = x * 1.44269504088896341f + shift;\n  I bits = (I)n;\n  n -= shift;\n  x -= n * 0.693359375f;\n  x -= n * -2.12194440e-4f;\n  V p = all(1.9875691500e-4f);\n  p = p * x + 1.3981999507e-3f;\n  p = p * x + 8.3334519073e-3f;\n  p = p * x + 4.1665795894e-2f;\n  p = p * x + 1.6666665459e-1f;\n  p = p * x + 5.0000001201e-1f;\n  p = p * x * x + x + 1.0f;\n  return (V)((I)p + (bits << 23));\n}\n\nstatic inline V vsigmoid(V x) {\n  const V u = vexp(-vabs(x));\n  return (x < 0.0f ? u : all(1.0f)) / (1.0f + u);\n}\n\n// All lanes, or the first few: two types, so that the usual case has no branch and stays in registers.\nstruct Full {};\nstatic inline V load(const float* at, Full) { return *(const U*)at; }\nstatic inline V load(const float* at, int lanes) {\n  V v{};\n  for (int i = 0; i < lanes; ++i) v[i] = at[i];\n  return v;\n}\nstatic inline void store(float* at, V v, Full) { *(U*)at = v; }\nstatic inline void store(float* at, V v, int lanes) {\n  for (int i = 0; i < lanes; ++i) at[i] = v[i];\n}\ntemplate <typename F>\nstatic inline void with_lanes(int64_t left, const F& f) {\n  if (left >= W) f(Full{});\n  else f((int)left);\n}\ntemplate <typename F>\nstatic inline void each_vector(int64_t size, const F& f) {\n  int64_t d = 0;\n  for (; d + W <= size; d += W) f(d, Full{});\n  if (d < size) f(d, (int)(size - d));\n}\nstatic inline float sum(V v) {\n  float part[W];\n  __builtin_memcpy(part, &v, sizeof v);\n  for (int half = W / 2; half; half /= 2)\n    for (int i = 0; i < half; ++i) part[i] += part[i + half];\n  return part[0];\n}\n"

@functools.cache
def native_library(source: str) -> tuple[ctypes.CDLL | None, str]:
    if shutil.which(COMPILER) is None:
        return (None, f'{COMPILER} not found')
    text = NATIVE_HEADER + source
    path = cache_folder() / f'{_build_key(text)}.so'
    try:
        if not path.is_file():
            _compile(text, path)
        return (ctypes.CDLL(str(path)), '')
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, 'stderr', None) or str(error)
        output = output.decode(errors='replace') if isinstance(output, bytes) else output
        lines = [line for line in output.splitlines() if 'error' in line] or [output.strip() or 'no reason given']
        return (None, lines[0].strip())

def native_or_warn(source: str) -> ctypes.CDLL | None:
    library, problem = native_library(source)
    if library is None:
        warnings.warn(f"no compiled kernels: {problem}; using PyTorch's operators", stacklevel=2)
    return library

def cache_folder() -> Path:
    home = os.environ.get('XDG_CACHE_HOME') or str(Path.home() / '.cache')
    return Path(home) / 'hymba-kernels'

def _compile(text: str, path: Path) -> None:
    torch_home = Path(torch.__file__).parent
    path.parent.mkdir(mode=448, parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as temporary:
        source, binary = (Path(temporary, 'kernels.cpp'), Path(temporary, 'kernels.so'))
        source.write_text(text, encoding='utf-8')
        include = f"-I{torch_home / 'include'}"
        libraries = (f"-L{torch_home / 'lib'}", '-ltorch_cpu', '-lc10')
        for step in ((*COMPILE_FLAGS, include, '-c', str(source), '-o', f'{source}.o'), ('-shared', f'{source}.o', *libraries, '-o', str(binary))):
            command = [COMPILER, *step]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMPILE_LIMIT_S)
        binary.replace(path)

def _build_key(text: str) -> str:
    flags = Path('/proc/cpuinfo')
    lines = flags.read_text(encoding='utf-8', errors='replace').splitlines() if flags.is_file() else []
    processor = next((line for line in lines if line.startswith('flags')), platform.processor())
    parts = (text, *COMPILE_FLAGS, torch.__version__, torch.__file__, platform.machine(), processor)
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:16]

def addresses(tensors: Sequence[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*(None if tensor is None else tensor.data_ptr() for tensor in tensors))

def integers(*values: int) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(values))(*values)

def rows(x: Tensor) -> tuple[Tensor, int]:
    even = x.stride(-1) == 1 and all((x.stride(axis) == x.shape[axis + 1] * x.stride(axis + 1) for axis in range(x.ndim - 2)))
    if even and (not x.is_contiguous()) and (x.stride(-2) >= x.shape[-1]):
        return (x, x.stride(-2))
    return (x.contiguous(), x.shape[-1])

class FusedContext(FunctionCtx):
    saved_tensors: tuple[Any, ...]
    needs_input_grad: tuple[bool, ...]
    sizes: ctypes.Array[ctypes.c_int64]
    shape: torch.Size
    scalar: Tensor
    outputs: tuple[bool, bool]

def fused_kernels(*tensors: Tensor | None) -> ctypes.CDLL | None:
    fit = all((t is None or (t.dtype == torch.float32 and t.device.type == 'cpu' and t.numel()) for t in tensors))
    return native_or_warn(FUSED_SOURCE) if fit else None

def call_fused(name: str, given: tuple[Tensor | None, ...], found: tuple[Tensor | None, ...], *more: Any) -> None:
    library = native_or_warn(FUSED_SOURCE)
    if library is None:
        raise RuntimeError('the kernels that the forward pass used are gone')
    library[name](addresses(given), addresses(found), *more)

def groups_of(count: int) -> int:
    return -(-count // FUSED_ROWS)

class MixNorm(torch.autograd.Function):

    @staticmethod
    def forward(ctx: FusedContext, x: Tensor, u: Tensor | None, a_D: Tensor | None, b_D: Tensor | None, norm: bool) -> tuple[Tensor, ...]:
        (x, x_row), (u, u_row) = (rows(x), (None, 0) if u is None else rows(u))
        a_D, b_D = (None if weight is None else weight.contiguous() for weight in (a_D, b_D))
        count, width = (x.numel() // x.shape[-1], x.shape[-1])
        mixed = None if u is None and a_D is None else x.new_empty(x.shape)
        normed = x.new_empty(x.shape) if norm else None
        scale_R = x.new_empty(count) if norm else None
        y_row = x_row if mixed is None else width
        ctx.sizes, ctx.outputs = (integers(count, width, x_row, u_row, y_row), (mixed is not None, norm))
        call_fused('mix_norm_forward', (x, u, a_D, b_D), (mixed, normed, scale_R), ctx.sizes)
        ctx.save_for_backward(x, u, a_D, b_D, x if mixed is None else mixed, scale_R)
        ctx.set_materialize_grads(False)
        return tuple((out for out in (mixed, normed) if out is not None))

    @staticmethod
    @once_differentiable
    def backward(ctx: FusedContext, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        x, u, a_D, b_D, y, scale_R = ctx.saved_tensors
        given = iter((None if grad is None else grad.contiguous() for grad in grads))
        dy, dn = (next(given) if there else None for there in ctx.outputs)
        count, width = (ctx.sizes[0], ctx.sizes[1])
        dx = x.new_empty(x.shape)
        du = None if u is None else x.new_empty(x.shape)
        da_GD, db_GD = (None if w is None else x.new_empty(groups_of(count), width) for w in (a_D, b_D))
        call_fused('mix_norm_backward', (x, u, a_D, b_D, y, scale_R, dy, dn), (dx, du, da_GD, db_GD), ctx.sizes)
        sums = (None if part is None else part.sum(0) for part in (da_GD, db_GD))
        return (dx, du, *sums, None)

class RotatedHeads(torch.autograd.Function):

    @staticmethod
    def forward(ctx: FusedContext, x_BTHE: Tensor, cos: Tensor, sin: Tensor, gain_H: Tensor | None) -> Tensor:
        x_BTHE = x_BTHE if x_BTHE.stride(-1) == 1 else x_BTHE.contiguous()
        out, scale = (x_BTHE.new_empty(x_BTHE.shape), x_BTHE.new_empty(x_BTHE.shape[:3]))
        sizes = integers(*x_BTHE.shape, *x_BTHE.stride()[:3])
        call_fused('heads_forward', (x_BTHE, cos, sin, gain_H), (out, scale), sizes)
        ctx.save_for_backward(x_BTHE, cos, sin, gain_H, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FusedContext, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_BTHE, cos, sin, gain_H, scale = ctx.saved_tensors
        dy = grads[0] if grads[0].stride(-1) == 1 else grads[0].contiguous()
        batch, length, heads, _ = x_BTHE.shape
        dx = x_BTHE.new_empty(x_BTHE.shape)
        dgain_GH = None if gain_H is None else x_BTHE.new_empty(groups_of(batch * length), heads)
        sizes = integers(*x_BTHE.shape, *x_BTHE.stride()[:3], *dy.stride()[:3])
        call_fused('heads_backward', (x_BTHE, cos, sin, gain_H, scale, dy), (dx, dgain_GH), sizes)
        return (dx, None, None, None if dgain_GH is None else dgain_GH.sum(0))

class ConvSilu(torch.autograd.Function):

    @staticmethod
    def forward(ctx: FusedContext, x_BTD: Tensor, taps_KD: Tensor, bias_D: Tensor) -> Tensor:
        x_BTD, row = rows(x_BTD)
        taps_KD, y_BTD = (taps_KD.contiguous(), x_BTD.new_empty(x_BTD.shape))
        ctx.sizes = integers(*x_BTD.shape, row, len(taps_KD))
        call_fused('conv_forward', (x_BTD, taps_KD, bias_D), (y_BTD,), ctx.sizes)
        ctx.save_for_backward(x_BTD, taps_KD, bias_D)
        return y_BTD

    @staticmethod
    @once_differentiable
    def backward(ctx: FusedContext, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x_BTD, taps_KD, bias_D = ctx.saved_tensors
        batch, _, channels = x_BTD.shape
        dx_BTD, dtaps_BKD = (x_BTD.new_empty(x_BTD.shape), x_BTD.new_empty(batch, *taps_KD.shape))
        dbias_BD = x_BTD.new_empty(batch, channels)
        given = (x_BTD, taps_KD, bias_D, grads[0].contiguous())
        call_fused('conv_backward', given, (dx_BTD, dtaps_BKD, dbias_BD), ctx.sizes)
        return (dx_BTD, dtaps_BKD.sum(0), dbias_BD.sum(0))

class CappedEntropy(torch.autograd.Function):

    @staticmethod
    def forward(ctx: FusedContext, z_RV: Tensor, targets_R: Tensor, cap: float) -> Tensor:
        z_RV, targets_R = (z_RV.contiguous(), targets_R.contiguous())
        losses_R = z_RV.new_empty(len(z_RV))
        dz_RV = torch.empty_like(z_RV) if ctx.needs_input_grad[0] else None
        more = (integers(*z_RV.shape), ctypes.c_void_p(targets_R.data_ptr()))
        call_fused('entropy', (z_RV, torch.tensor(cap)), (losses_R, dz_RV), *more)
        ctx.save_for_backward(dz_RV)
        return losses_R

    @staticmethod
    @once_differentiable
    def backward(ctx: FusedContext, *grads: Tensor) -> tuple[Tensor, None, None]:
        dz_RV, = ctx.saved_tensors
        count = len(dz_RV)
        of_mean = bool((grads[0] == 1 / count).all())
        return (dz_RV if of_mean else dz_RV * (grads[0] * count)[:, None], None, None)

class SquaredRectifier(torch.autograd.Function):

    @staticmethod
    def forward(ctx: FusedContext, x: Tensor, slope: float) -> Tensor:
        x, ctx.scalar = (x.contiguous(), torch.tensor(slope))
        y = torch.empty_like(x)
        call_fused('squared_forward', (x, ctx.scalar), (y,), integers(x.numel()))
        ctx.save_for_backward(x)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: FusedContext, *grads: Tensor) -> tuple[Tensor, None]:
        x, = ctx.saved_tensors
        dx = torch.empty_like(x)
        call_fused('squared_backward', (x, ctx.scalar, grads[0].contiguous()), (dx,), integers(x.numel()))
        return (dx, None)

class ConvContext(FunctionCtx):
    saved_tensors: tuple[Tensor, ...]

class DepthwiseConv(nn.Module):

    def __init__(self, channels: int, width: int, backend: str='torch') -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 1, width))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.backend = backend

    def forward(self, x_BTD: Tensor, tail: Tail | None=None, *, silu: bool=False) -> Tensor:
        x_BTD = x_BTD.to(self.weight.dtype)
        return causal_conv(x_BTD, self.weight, self.bias, tail, silu=silu, backend=self.backend)

def causal_conv(x_BTD: Tensor, weight_D1K: Tensor, bias_D: Tensor, tail: Tail | None=None, *, silu: bool=False, backend: str='torch') -> Tensor:
    chosen = choose_conv(backend, x_BTD, weight_D1K, silu=silu)
    if chosen == 'cuda':
        before_BKD = None if tail is None else tail.before(x_BTD, weight_D1K.shape[2] - 1)
        y_BTD, after_BKD = cuda_conv(x_BTD, weight_D1K[:, 0], bias_D, before_BKD, silu=silu)
        if tail is not None:
            tail.items = after_BKD if after_BKD is None else after_BKD.detach()
        return y_BTD
    reach = 0 if tail is None else weight_D1K.shape[2] - 1
    joined_BTD = x_BTD if tail is None else tail.join(x_BTD, reach)
    if chosen == 'cpp':
        lit_BTD: Tensor = ConvSilu.apply(joined_BTD, weight_D1K[:, 0].t(), bias_D)
        return lit_BTD[:, reach:]
    if not torch.is_grad_enabled():
        y_BTD = convolved(joined_BTD, weight_D1K, bias_D)
    else:
        y_BTD = CausalConv.apply(joined_BTD, weight_D1K, bias_D)
    return F.silu(y_BTD[:, reach:]) if silu else y_BTD[:, reach:]

def choose_conv(backend: str, x_BTD: Tensor, weight_D1K: Tensor, *, silu: bool) -> str:
    if backend not in CONV_BACKENDS:
        raise ConfigError(f"HYMBA_CONV_BACKEND: {backend!r} is not one of {', '.join(CONV_BACKENDS)}")
    taps = weight_D1K.shape[2]
    if backend == 'auto':
        if not cuda_conv_problem(x_BTD, taps):
            return 'cuda'
        fits = fused_kernels(x_BTD, weight_D1K) is not None
        return 'torch' if not fits or cpp_conv_problem(x_BTD, taps, silu=silu) else 'cpp'
    problem = ''
    if backend != 'torch':
        problem = cpp_conv_problem(x_BTD, taps, silu=silu) if backend == 'cpp' else cuda_conv_problem(x_BTD, taps)
    if problem:
        raise ConfigError(f'HYMBA_CONV_BACKEND: {backend} cannot compute this convolution: {problem}')
    return backend

def cpp_conv_problem(x_BTD: Tensor, taps: int, *, silu: bool) -> str:
    if x_BTD.device.type != 'cpu':
        return f'the tensors are on {x_BTD.device.type}, not on a CPU'
    if x_BTD.dtype != torch.float32 or not x_BTD.numel():
        return str(x_BTD.dtype).removeprefix('torch.') if x_BTD.numel() else 'no elements'
    if taps not in FUSED_TAPS or not silu:
        return f'{taps} taps, it takes {FUSED_TAPS[0]} to {FUSED_TAPS[-1]}' if silu else 'no SiLU follows'
    return native_library(FUSED_SOURCE)[1]

class CausalConv(torch.autograd.Function):

    @staticmethod
    def forward(ctx: ConvContext, x_BTD: Tensor, weight_D1K: Tensor, bias_D: Tensor) -> Tensor:
        ctx.save_for_backward(x_BTD, weight_D1K)
        return convolved(x_BTD, weight_D1K, bias_D)

    @staticmethod
    def backward(ctx: ConvContext, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dy_BTD, (x_BTD, weight_D1K) = (grads[0], ctx.saved_tensors)
        now, *earlier = reversed(weight_D1K[:, 0].unbind(1))
        dx_BTD, dtaps = (dy_BTD * now, [(dy_BTD * x_BTD).sum((0, 1))])
        for delay, tap_D in enumerate(earlier, 1):
            dx_BTD[:, :-delay].addcmul_(dy_BTD[:, delay:], tap_D)
            dtaps.append((dy_BTD[:, delay:] * x_BTD[:, :-delay]).sum((0, 1)))
        return (dx_BTD, torch.stack(dtaps[::-1], 1)[:, None], dy_BTD.sum((0, 1)))

def convolved(x_BTD: Tensor, weight_D1K: Tensor, bias_D: Tensor) -> Tensor:
    now, *earlier = reversed(weight_D1K[:, 0].unbind(1))
    y_BTD = torch.addcmul(bias_D, x_BTD, now)
    for delay, tap_D in enumerate(earlier, 1):
        y_BTD[:, delay:].addcmul_(x_BTD[:, :-delay], tap_D)
    return y_BTD
LARGEST_CAP = 60.0

class Elementwise:

    def norm(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:])

    def mix(self, x: Tensor, u: Tensor, b_D: Tensor, a_D: Tensor | None=None) -> Tensor:
        return torch.addcmul(x if a_D is None else a_D * x, b_D, u)

    def mix_norm(self, x: Tensor, u: Tensor, b_D: Tensor, a_D: Tensor | None=None) -> tuple[Tensor, Tensor]:
        mixed = self.mix(x, u, b_D, a_D)
        return (mixed, self.norm(mixed))

    def heads(self, x_BTHE: Tensor, rotary: tuple[Tensor, Tensor], start: int=0, gain_H: Tensor | None=None) -> Tensor:
        y_BTHE = normalized_heads(x_BTHE, rotary, start)
        return y_BTHE if gain_H is None else y_BTHE * gain_H[:, None].to(y_BTHE.dtype)

    def squared_rectifier(self, x: Tensor, slope: float) -> Tensor:
        return F.leaky_relu(x, slope).square()

    def capped_entropy(self, z_RV: Tensor, targets_R: Tensor, cap: float) -> Tensor:
        return F.cross_entropy(cap * torch.tanh(z_RV) if cap else z_RV, targets_R, reduction='none')

class FusedElementwise(Elementwise):

    def norm(self, x: Tensor) -> Tensor:
        if fused_kernels(x) is None:
            return super().norm(x)
        found: tuple[Tensor, ...] = MixNorm.apply(x, None, None, None, True)
        return found[0]

    def mix(self, x: Tensor, u: Tensor, b_D: Tensor, a_D: Tensor | None=None) -> Tensor:
        if fused_kernels(x, u, b_D, a_D) is None:
            return super().mix(x, u, b_D, a_D)
        found: tuple[Tensor, ...] = MixNorm.apply(x, u, a_D, b_D, False)
        return found[0]

    def mix_norm(self, x: Tensor, u: Tensor, b_D: Tensor, a_D: Tensor | None=None) -> tuple[Tensor, Tensor]:
        if fused_kernels(x, u, b_D, a_D) is None:
            return super().mix_norm(x, u, b_D, a_D)
        mixed, normed = MixNorm.apply(x, u, a_D, b_D, True)
        return (mixed, normed)

    def heads(self, x_BTHE: Tensor, rotary: tuple[Tensor, Tensor], start: int=0, gain_H: Tensor | None=None) -> Tensor:
        cos, sin = (table[start:start + x_BTHE.shape[1]] for table in rotary)
        if fused_kernels(x_BTHE, cos, sin, gain_H) is None or 2 * cos.shape[-1] != x_BTHE.shape[-1]:
            return super().heads(x_BTHE, rotary, start, gain_H)
        y_BTHE: Tensor = RotatedHeads.apply(x_BTHE, cos, sin, gain_H)
        return y_BTHE

    def squared_rectifier(self, x: Tensor, slope: float) -> Tensor:
        if fused_kernels(x) is None:
            return super().squared_rectifier(x, slope)
        squared: Tensor = SquaredRectifier.apply(x, slope)
        return squared

    def capped_entropy(self, z_RV: Tensor, targets_R: Tensor, cap: float) -> Tensor:
        if not 0 < cap <= LARGEST_CAP or fused_kernels(z_RV) is None:
            return super().capped_entropy(z_RV, targets_R, cap)
        losses_R: Tensor = CappedEntropy.apply(z_RV, targets_R, cap)
        return losses_R

def elementwise(backend: str) -> Elementwise:
    return FusedElementwise() if backend == 'auto' else Elementwise()
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
SCAN_LANES = 16
SCAN_CHUNK = 64
SCAN_GROUPS = 4
SCAN_SOURCE = '\nconstexpr int L = 64;\n\n// log(1 + u) for u in [0, 1], by the series of 2 artanh(u / (2 + u)).\nstatic inline V vlog1p(V u) {\n  const V s = u / (2.0f + u), q = s * s;\n  V p = all(1.0f / 15);\n  p = p * q + 1.0f / 13;\n  p = p * q + 1.0f / 11;\n  p = p * q + 1.0f / 9;\n  p = p * q + 1.0f / 7;\n  p = p * q + 1.0f / 5;\n  p = p * q + 1.0f / 3;\n  return 2.0f * s * (p * q + 1.0f);\n}\nstatic inline V vsoftplus(V x) { return (x > 0.0f ? x : V{}) + vlog1p(vexp(-vabs(x))); }\n\nstruct Scan {\n  int64_t B, T, D, x_row, dt_row, B_row, C_row, z_row, softplus, G, blocks, chunks;\n  const float *x, *dt, *A, *Bm, *C, *h0, *skip, *z;\n};\nstatic Scan scan_of(const float* const* in, const int64_t* s) {\n  return {s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9], (s[2] + W - 1) / W, (s[1] + L - 1) / L,\n          in[0], in[1], in[2], in[3], in[4], in[5], in[6], in[7]};\n}\n\ntemplate <int N, typename Lanes>\nstatic void forward_block(const Scan s, float* y, float* hT, float* saved, int64_t b, int64_t k, Lanes lanes) {\n  const int64_t d = k * W, D = s.D;\n  const V skip = s.skip ? load(s.skip + d, lanes) : V{};\n  V a[N], h[N];\n  for (int n = 0; n < N; ++n) { a[n] = load(s.A + n * D + d, lanes); h[n] = load(s.h0 + (b * N + n) * D + d, lanes); }\n  for (int64_t t = 0; t < s.T; ++t) {\n    if (saved && t % L == 0) {\n      float* at = saved + (((b * s.blocks + k) * s.chunks + t / L) * N) * W;\n      for (int n = 0; n < N; ++n) store(at + n * W, h[n], Full{});\n    }\n    const int64_t row = b * s.T + t;\n    const float *Bt = s.Bm + row * s.B_row, *Ct = s.C + row * s.C_row;\n    const V value = load(s.x + row * s.x_row + d, lanes);\n    V step = load(s.dt + row * s.dt_row + d, lanes);\n    if (s.softplus) step = vsoftplus(step);\n    const V in = step * value;\n    V out = skip * value;\n    for (int n = 0; n < N; ++n) {\n      h[n] = vexp(step * a[n]) * h[n] + in * Bt[n];\n      out += h[n] * Ct[n];\n    }\n    if (s.z) { const V z = load(s.z + row * s.z_row + d, lanes); out *= z * vsigmoid(z); }\n    store(y + row * D + d, out, lanes);\n  }\n  for (int n = 0; n < N; ++n) store(hT + (b * N + n) * D + d, h[n], lanes);\n}\n\nstruct Grads {\n  const float *saved, *dy, *dhT;\n  float *dx, *ddt, *dA, *dB, *dC, *dh0, *dskip, *dz;\n};\n\n// One chunk of one block of channels: its steps again from the state at its beginning, then their gradients.\ntemplate <int N, typename Lanes>\nstatic void backward_chunk(const Scan s, const Grads o, V* work, int64_t count, int64_t b, int64_t chunk, int64_t first,\n                           int64_t k, Lanes lanes) {\n  const int64_t D = s.D, begin = b * s.T + chunk * L;\n  const int len = (int)std::min<int64_t>(L, s.T - chunk * L);\n  V* hs = work;                   // states before each step\n  V* decays = hs + L * N;\n  V* sumB = decays + L * N;\n  V* sumC = sumB + L * N;\n  V* steps = sumC + L * N;\n  V* bends = steps + L;           // derivatives of the softplus\n  V* slopes = bends + L;          // gradient of the output before its gate\n  V* carry = slopes + L;          // gradient of the state, per block\n  V* sumA = carry + count * N;\n  V* sumD = sumA + count * N;\n  const int64_t block = first + k, d = block * W;\n  const V skip = s.skip ? load(s.skip + d, lanes) : V{};\n  V a[N], h[N], g[N], ga[N], gd = sumD[k];\n  const float* at = o.saved + (((b * s.blocks + block) * s.chunks + chunk) * N) * W;\n  for (int n = 0; n < N; ++n) {\n    a[n] = load(s.A + n * D + d, lanes);\n    h[n] = load(at + n * W, Full{});\n    g[n] = carry[k * N + n];\n    ga[n] = sumA[k * N + n];\n  }\n  for (int i = 0; i < len; ++i) {\n    const int64_t row = begin + i;\n    const float *Bt = s.Bm + row * s.B_row, *Ct = s.C + row * s.C_row;\n    const V value = load(s.x + row * s.x_row + d, lanes);\n    V step = load(s.dt + row * s.dt_row + d, lanes), slope = load(o.dy + row * D + d, lanes), z{}, lit{};\n    if (s.softplus) { bends[i] = vsigmoid(step); step = vsoftplus(step); }\n    const V in = step * value, wanted = slope;\n    if (s.z) { z = load(s.z + row * s.z_row + d, lanes); lit = vsigmoid(z); slope *= z * lit; }\n    V out = skip * value;\n    for (int n = 0; n < N; ++n) {\n      const V decay = vexp(step * a[n]);\n      hs[i * N + n] = h[n];\n      decays[i * N + n] = decay;\n      h[n] = decay * h[n] + in * Bt[n];\n      out += h[n] * Ct[n];\n      sumC[i * N + n] += slope * h[n];\n    }\n    if (s.z) store(o.dz + row * D + d, wanted * out * lit * (1.0f + z * (1.0f - lit)), lanes);\n    steps[i] = step;\n    slopes[i] = slope;\n    gd += slope * value;\n  }\n  for (int i = len - 1; i >= 0; --i) {\n    const int64_t row = begin + i;\n    const float *Bt = s.Bm + row * s.B_row, *Ct = s.C + row * s.C_row;\n    const V value = load(s.x + row * s.x_row + d, lanes), step = steps[i], slope = slopes[i], in = step * value;\n    V din{}, dstep{};\n    for (int n = 0; n < N; ++n) {\n      g[n] += slope * Ct[n];\n      sumB[i * N + n] += g[n] * in;\n      din += g[n] * Bt[n];\n      g[n] *= decays[i * N + n];\n      const V rate = g[n] * hs[i * N + n];  // gradient of the exponent dt * A\n      dstep += rate * a[n];\n      ga[n] += rate * step;\n    }\n    dstep += din * value;\n    store(o.dx + row * D + d, din * step + slope * skip, lanes);\n    store(o.ddt + row * D + d, s.softplus ? dstep * bends[i] : dstep, lanes);\n  }\n  for (int n = 0; n < N; ++n) { carry[k * N + n] = g[n]; sumA[k * N + n] = ga[n]; }\n  sumD[k] = gd;\n}\n\n// One batch row, blocks [first, last): adds up over its blocks what belongs to (t, n).\ntemplate <int N>\nstatic void backward_blocks(const Scan& s, const Grads& o, float* dB, float* dC, int64_t b, int64_t first,\n                            int64_t last) {\n  const int64_t D = s.D, count = last - first;\n  std::vector<V> work(4 * L * N + 3 * L + count * (2 * N + 1));\n  V *sumB = work.data() + 2 * L * N, *sumC = sumB + L * N;\n  V *carry = sumC + L * N + 3 * L, *sumA = carry + count * N, *sumD = sumA + count * N;\n  for (int64_t k = 0; k < count; ++k) {\n    const int64_t d = (first + k) * W;\n    with_lanes(D - d, [&](auto lanes) {\n      for (int n = 0; n < N; ++n) carry[k * N + n] = load(o.dhT + (b * N + n) * D + d, lanes);\n    });\n    for (int n = 0; n < N; ++n) sumA[k * N + n] = V{};\n    sumD[k] = V{};\n  }\n  for (int64_t chunk = s.chunks - 1; chunk >= 0; --chunk) {\n    const int64_t begin = b * s.T + chunk * L;\n    const int len = (int)std::min<int64_t>(L, s.T - chunk * L);\n    for (int i = 0; i < len * N; ++i) { sumB[i] = V{}; sumC[i] = V{}; }\n    for (int64_t k = 0; k < count; ++k)\n      with_lanes(D - (first + k) * W, [&](auto lanes) {\n        backward_chunk<N>(s, o, work.data(), count, b, chunk, first, k, lanes);\n      });\n    for (int i = 0; i < len; ++i)\n      for (int n = 0; n < N; ++n) {\n        dB[(begin + i) * N + n] = sum(sumB[i * N + n]);\n        dC[(begin + i) * N + n] = sum(sumC[i * N + n]);\n      }\n  }\n  for (int64_t k = 0; k < count; ++k) {\n    const int64_t d = (first + k) * W;\n    with_lanes(D - d, [&](auto lanes) {\n      for (int n = 0; n < N; ++n) {\n        store(o.dh0 + (b * N + n) * D + d, carry[k * N + n], lanes);\n        store(o.dA + (b * N + n) * D + d, sumA[k * N + n], lanes);\n      }\n      if (s.skip) store(o.dskip + b * D + d, sumD[k], lanes);\n    });\n  }\n}\n\ntemplate <int N>\nstatic void forward_n(const Scan& s, float* const* out) {\n  at::parallel_for(0, s.B * s.blocks, 1, [&](int64_t from, int64_t to) {\n    for (int64_t i = from; i < to; ++i)\n      with_lanes(s.D - i % s.blocks * W, [&](auto lanes) {\n        forward_block<N>(s, out[0], out[1], out[2], i / s.blocks, i % s.blocks, lanes);\n      });\n  });\n}\ntemplate <int N>\nstatic void backward_n(const Scan& s, const Grads& o) {\n  const int64_t plane = s.B * s.T * N;\n  at::parallel_for(0, s.B * s.G, 1, [&](int64_t from, int64_t to) {\n    for (int64_t i = from; i < to; ++i) {\n      const int64_t g = i % s.G;\n      backward_blocks<N>(s, o, o.dB + g * plane, o.dC + g * plane, i / s.G, g * s.blocks / s.G,\n                         (g + 1) * s.blocks / s.G);\n    }\n  });\n}\n\n#define FOR_EACH_STATE(CASE) CASE(1) CASE(2) CASE(4) CASE(8) CASE(16)\nextern "C" void scan_forward(const float* const* in, float* const* out, const int64_t* sizes, int64_t states) {\n  const Scan s = scan_of(in, sizes);\n  switch (states) {\n#define CASE(N) case N: return forward_n<N>(s, out);\n    FOR_EACH_STATE(CASE)\n#undef CASE\n  }\n}\nextern "C" void scan_backward(const float* const* in, float* const* out, const int64_t* sizes, int64_t states) {\n  const Scan s = scan_of(in, sizes);\n  const Grads o{in[8], in[9], in[10], out[0], out[1], out[2], out[3], out[4], out[5], out[6], out[7]};\n  switch (states) {\n#define CASE(N) case N: return backward_n<N>(s, o);\n    FOR_EACH_STATE(CASE)\n#undef CASE\n  }\n}\n'

class CppScanInputs(NamedTuple):
    x_BTD: Tensor
    dt_BTD: Tensor
    A_ND: Tensor
    B_BTN: Tensor
    C_BTN: Tensor
    state_BND: Tensor
    skip_D: Tensor | None = None
    gate_BTD: Tensor | None = None

    def evenly_spaced(self) -> CppScanInputs:
        ready = [None if tensor is None else rows(tensor)[0] for tensor in self]
        for index in (2, 5, 6):
            tensor = self[index]
            ready[index] = None if tensor is None else tensor.contiguous()
        return CppScanInputs(*ready)

    def sizes(self, *, softplus: bool) -> ctypes.Array[ctypes.c_int64]:
        walked = (self.x_BTD, self.dt_BTD, self.B_BTN, self.C_BTN, self.gate_BTD)
        distances = (0 if tensor is None else rows(tensor)[1] for tensor in walked)
        return integers(*self.x_BTD.shape, *distances, int(softplus), self.groups)

    @property
    def groups(self) -> int:
        return min(SCAN_GROUPS, -(-self.x_BTD.shape[2] // SCAN_LANES))

class CppScanContext(FunctionCtx):
    saved_tensors: tuple[Tensor, ...]
    softplus: bool

def cpp_scan_problem() -> str:
    return native_library(SCAN_SOURCE)[1]

def compiled_scan(inputs: CppScanInputs, *, softplus: bool) -> tuple[Tensor, Tensor]:
    states = len(inputs.A_ND)
    missing = next((size for size in KERNEL_STATES if size >= states)) - states
    if missing:
        inputs = inputs._replace(A_ND=F.pad(inputs.A_ND, (0, 0, 0, missing)), B_BTN=F.pad(inputs.B_BTN, (0, missing)), C_BTN=F.pad(inputs.C_BTN, (0, missing)), state_BND=F.pad(inputs.state_BND, (0, 0, 0, missing)))
    y_BTD, state_BND = CppScan.apply(softplus, *inputs)
    return (y_BTD, state_BND[:, :states])

class CppScan(torch.autograd.Function):

    @staticmethod
    def forward(ctx: CppScanContext, softplus: bool, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        inputs = CppScanInputs(*tensors).evenly_spaced()
        x_BTD, state_BND = (inputs.x_BTD, inputs.state_BND)
        y_BTD, last_BND = (x_BTD.new_empty(x_BTD.shape), torch.empty_like(state_BND))
        saved = scan_states(inputs) if any(ctx.needs_input_grad) else None
        call_kernel('scan_forward', inputs, (y_BTD, last_BND, saved), inputs.sizes(softplus=softplus))
        ctx.save_for_backward(*inputs, saved)
        ctx.softplus = softplus
        return (y_BTD, last_BND)

    @staticmethod
    @once_differentiable
    def backward(ctx: CppScanContext, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, saved = ctx.saved_tensors
        inputs = CppScanInputs(*tensors)
        batch, length, channels = inputs.x_BTD.shape
        states, groups = (len(inputs.A_ND), inputs.groups)
        new = inputs.x_BTD.new_empty
        dx_BTD, ddt_BTD = (new(inputs.x_BTD.shape), new(inputs.x_BTD.shape))
        dA_BND, dstate_BND = (torch.empty_like(inputs.state_BND), torch.empty_like(inputs.state_BND))
        dB_GBTN, dC_GBTN = new(2, groups, batch, length, states)
        dskip_BD = None if inputs.skip_D is None else new(batch, channels)
        dgate_BTD = None if inputs.gate_BTD is None else new(inputs.x_BTD.shape)
        found = (dx_BTD, ddt_BTD, dA_BND, dB_GBTN, dC_GBTN, dstate_BND, dskip_BD, dgate_BTD)
        given = (*inputs, saved, *(grad.contiguous() for grad in grads))
        call_kernel('scan_backward', given, found, inputs.sizes(softplus=ctx.softplus))
        dskip_D = None if dskip_BD is None else dskip_BD.sum(0)
        sums = (dA_BND.sum(0), dB_GBTN.sum(0), dC_GBTN.sum(0), dstate_BND)
        return (None, dx_BTD, ddt_BTD, *sums, dskip_D, dgate_BTD)

def scan_states(inputs: CppScanInputs) -> Tensor:
    batch, length, channels = inputs.x_BTD.shape
    blocks, chunks = (-(-channels // SCAN_LANES), -(-length // SCAN_CHUNK))
    return inputs.x_BTD.new_empty(batch, blocks, chunks, len(inputs.A_ND), SCAN_LANES)

def call_kernel(name: str, given: tuple[Tensor | None, ...], found: tuple[Tensor | None, ...], sizes: ctypes.Array[ctypes.c_int64]) -> None:
    library, problem = native_library(SCAN_SOURCE)
    if library is None or given[2] is None:
        raise RuntimeError(f'no compiled scan: {problem}')
    library[name](addresses(given), addresses(found), sizes, ctypes.c_int64(len(given[2])))

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

class ScanInputs(NamedTuple):
    x_BTD: Tensor
    dt_BTD: Tensor
    A_DN: Tensor
    B_BTN: Tensor
    C_BTN: Tensor

@dataclass(frozen=True)
class ScanFrame:
    skip_D: Tensor | None = None
    gate_BTD: Tensor | None = None
    softplus: bool = False

    def steps(self, dt_BTD: Tensor) -> Tensor:
        return F.softplus(dt_BTD) if self.softplus else dt_BTD

    def output(self, y_BTD: Tensor, x_BTD: Tensor) -> Tensor:
        if self.skip_D is not None:
            y_BTD = torch.addcmul(y_BTD, self.skip_D.to(y_BTD.dtype), x_BTD.to(y_BTD.dtype))
        return y_BTD if self.gate_BTD is None else y_BTD * F.silu(self.gate_BTD)
BARE_SCAN = ScanFrame()

def selective_scan_reference(inputs: ScanInputs, state_BDN: Tensor | None=None, frame: ScanFrame=BARE_SCAN) -> tuple[Tensor, Tensor]:
    x_BTD, dt_BTD, A_DN, B_BTN, C_BTN = (tensor.double() for tensor in inputs)
    dt_BTD = frame.steps(dt_BTD)
    h_BDN = x_BTD.new_zeros(len(x_BTD), *A_DN.shape) if state_BDN is None else state_BDN.double()
    outputs = []
    for step in range(x_BTD.shape[1]):
        dt_BD1 = dt_BTD[:, step, :, None]
        h_BDN = torch.exp(dt_BD1 * A_DN) * h_BDN + dt_BD1 * x_BTD[:, step, :, None] * B_BTN[:, step, None]
        outputs.append((h_BDN * C_BTN[:, step, None]).sum(-1))
    gate_BTD = None if frame.gate_BTD is None else frame.gate_BTD.double()
    return (ScanFrame(frame.skip_D, gate_BTD).output(torch.stack(outputs, 1), x_BTD), h_BDN)

def selective_scan(inputs: ScanInputs, state_BDN: Tensor | None=None, frame: ScanFrame=BARE_SCAN, *, chunk: int=64, backend: str='torch') -> tuple[Tensor, Tensor]:
    chosen = choose_scan(backend, inputs)
    if chosen == 'reference':
        return selective_scan_reference(inputs, state_BDN, frame)
    dtype = torch.promote_types(inputs.x_BTD.dtype, torch.float32)
    inputs = ScanInputs(*(tensor.to(dtype) for tensor in inputs))
    if chosen == 'cuda' and state_BDN is None:
        gate_BTD = None if frame.gate_BTD is None else frame.gate_BTD.to(dtype)
        return cuda_scan(inputs, frame.skip_D, gate_BTD, softplus=frame.softplus)
    if state_BDN is None:
        state_BDN = inputs.x_BTD.new_zeros(len(inputs.x_BTD), *inputs.A_DN.shape)
    state_BDN = state_BDN.to(dtype)
    if inputs.x_BTD.shape[1] == 1 and (not (torch.is_grad_enabled() and any_gradient(*inputs, state_BDN))):
        y_BTD, last_BDN = single_step(inputs._replace(dt_BTD=frame.steps(inputs.dt_BTD)), state_BDN)
        return (frame.output(y_BTD, inputs.x_BTD), last_BDN)
    x_BTD, dt_BTD, A_ND, B_BTN, C_BTN = inputs._replace(A_DN=inputs.A_DN.t())
    if chosen == 'cpp':
        framed = (None if tensor is None else tensor.to(dtype) for tensor in (frame.skip_D, frame.gate_BTD))
        tensors = CppScanInputs(x_BTD, dt_BTD, A_ND, B_BTN, C_BTN, state_BDN.transpose(1, 2), *framed)
        y_BTD, last_BND = compiled_scan(tensors, softplus=frame.softplus)
        return (y_BTD, last_BND.transpose(1, 2))
    ready = (x_BTD, frame.steps(dt_BTD), A_ND, B_BTN, C_BTN, state_BDN.transpose(1, 2))
    y_BTD, last_BND = SelectiveScan.apply(chunk, *(tensor.contiguous() for tensor in ready))
    return (frame.output(y_BTD, x_BTD), last_BND.transpose(1, 2))

def choose_scan(backend: str, inputs: ScanInputs) -> str:
    if backend not in SCAN_BACKENDS:
        raise ConfigError(f"HYMBA_SCAN_BACKEND: {backend!r} is not one of {', '.join(SCAN_BACKENDS)}")
    if backend == 'auto':
        return next((name for name in ('cuda', 'cpp', 'torch') if not scan_problem(name, inputs, warn=True)))
    if (problem := scan_problem(backend, inputs)):
        raise ConfigError(f'HYMBA_SCAN_BACKEND: {backend} cannot compute this scan: {problem}')
    return backend

def scan_problem(backend: str, inputs: ScanInputs, *, warn: bool=False) -> str:
    if backend not in {'cpp', 'cuda'}:
        return ''
    x_BTD, states = (inputs.x_BTD, inputs.A_DN.shape[1])
    most = KERNEL_STATES[-1] if backend == 'cpp' else CUDA_STATES
    if states > most:
        return f'{states} states, at most {most}'
    if x_BTD.dtype == torch.float64 or not x_BTD.numel():
        return 'float64' if x_BTD.numel() else 'no elements'
    if backend == 'cuda':
        return cuda_scan_problem(x_BTD.device)
    if x_BTD.device.type != 'cpu':
        return f'the tensors are on {x_BTD.device.type}, not on a CPU'
    if warn:
        native_or_warn(SCAN_SOURCE)
    return cpp_scan_problem()

def any_gradient(*tensors: Tensor) -> bool:
    return any((tensor.requires_grad for tensor in tensors))

def single_step(inputs: ScanInputs, h_BDN: Tensor) -> tuple[Tensor, Tensor]:
    x_B1D, dt_B1D, A_DN, B_B1N, C_B1N = inputs
    h_BND = torch.exp(dt_B1D * A_DN.t()) * h_BDN.transpose(1, 2)
    h_BND = torch.addcmul(h_BND, dt_B1D * x_B1D, B_B1N.transpose(1, 2))
    return ((C_B1N.transpose(1, 2) * h_BND).sum(1, keepdim=True), h_BND.transpose(1, 2))
KeysValues: TypeAlias = tuple[Tensor, Tensor]

@dataclass(frozen=True)
class LayerContext:
    rotary: tuple[Tensor, Tensor]
    meta: int = 0
    memory: Memory | None = None
    kept: dict[int, KeysValues] = field(default_factory=dict)

    def remembered(self, layer: int) -> LayerMemory | None:
        return None if self.memory is None else self.memory.layers[layer]

class AttentionMixer(nn.Module):

    def __init__(self, config: ModelConfig, layer: int, linear: MakeLinear=plain_linear) -> None:
        super().__init__()
        self.layer, self.source, self.window = (layer, config.kv_source(layer), config.layer_window(layer))
        self.window_backend, self.elementwise = (config.window_backend, elementwise(config.elementwise_backend))
        self.lends = any((config.kv_source(later) == layer for later in range(layer + 1, config.num_layers)))
        self.head_dim, self.kv_dim = (config.head_dim, config.num_kv_heads * config.head_dim)
        self.add_queries(config, linear)
        self.proj = linear('proj', config.model_dim, config.model_dim)
        self.separate_kv = config.separate_kv
        self.add_projections(config, linear)

    @staticmethod
    def query_heads(config: ModelConfig) -> int:
        return config.num_heads

    def add_queries(self, config: ModelConfig, linear: MakeLinear) -> None:
        self.c_q = linear('c_q', config.model_dim, config.model_dim)
        self.q_gain = nn.Parameter(torch.full((self.query_heads(config),), config.qk_gain_init))

    def add_projections(self, config: ModelConfig, linear: MakeLinear) -> None:
        if self.source != self.layer:
            return
        if self.separate_kv:
            self.c_k = linear('c_k', self.kv_dim, config.model_dim)
            self.c_v = linear('c_v', self.kv_dim, config.model_dim)
        else:
            self.kv_proj = linear('kv_proj', 2 * self.kv_dim, config.model_dim)

    def queries(self, q_BTC: Tensor, context: LayerContext, start: int=0) -> Tensor:
        q_BTHE = torch.unflatten(q_BTC, -1, (-1, self.head_dim))
        return self.elementwise.heads(q_BTHE, context.rotary, start, self.q_gain).transpose(1, 2)

    def keys_values(self, x_BTD: Tensor, context: LayerContext) -> KeysValues:
        if self.source != self.layer:
            return context.kept[self.source]
        if self.separate_kv:
            return self.key_value_heads(self.c_k(x_BTD), self.c_v(x_BTD), context)
        k_BTC, v_BTC = self.kv_proj(x_BTD).chunk(2, -1)
        return self.key_value_heads(k_BTC, v_BTC, context)

    def key_value_heads(self, k_BTC: Tensor, v_BTC: Tensor, context: LayerContext) -> KeysValues:
        k_BTGE, v_BTGE = (torch.unflatten(part_BTC, -1, (-1, self.head_dim)) for part_BTC in (k_BTC, v_BTC))
        found = (self.elementwise.heads(k_BTGE, context.rotary).transpose(1, 2), v_BTGE.transpose(1, 2))
        if self.lends:
            context.kept[self.layer] = found
        return found

    def attend(self, x_BTD: Tensor, keys_values: KeysValues, context: LayerContext) -> Tensor:
        q_BHTE, memory = (self.queries(self.c_q(x_BTD), context), context.remembered(self.layer))
        if memory is None:
            k_BGTE, v_BGTE = keys_values
            mixed_BHTE = attention_after_meta(q_BHTE, k_BGTE, v_BGTE, window=self.window, meta=context.meta, backend=self.window_backend)
        else:
            mixed_BHTE = continued_attention(q_BHTE, *keys_values, memory.attention, meta=context.meta, backend=self.window_backend)
        return mixed_BHTE.transpose(1, 2).flatten(2)

    def forward(self, x_BTD: Tensor, context: LayerContext) -> Tensor:
        output_BTD: Tensor = self.proj(self.attend(x_BTD, self.keys_values(x_BTD, context), context))
        return output_BTD

class HymbaMixer(AttentionMixer):

    def __init__(self, config: ModelConfig, layer: int, linear: MakeLinear=plain_linear) -> None:
        super().__init__(config, layer, linear)
        self.add_scan(config, linear)
        self.add_merge(config, linear)

    def add_scan(self, config: ModelConfig, linear: MakeLinear) -> None:
        channels, rank, state = (config.ssm_dim, config.ssm_dt_rank, config.ssm_state)
        self.scan_sizes = (rank, state, state)
        self.scan_chunk, self.scan_backend = (config.scan_chunk, config.scan_backend)
        self.conv1d = DepthwiseConv(channels, config.conv_width, config.conv_backend)
        self.x_proj = linear('x_proj', sum(self.scan_sizes), channels)
        self.add_step_projection(rank, channels, linear)
        self.A_log = nn.Parameter(torch.arange(1, state + 1).float().log().repeat(channels, 1))
        self.D = nn.Parameter(torch.ones(channels))

    def add_merge(self, config: ModelConfig, linear: MakeLinear) -> None:
        self.averages = config.fusion == 'norms'
        if self.averages:
            self.mamba_out_proj: nn.Module = nn.Identity()
            self.attention_norm = nn.Parameter(torch.ones(config.model_dim))
            self.mamba_norm = nn.Parameter(torch.ones(config.model_dim))
        else:
            self.mamba_out_proj = linear('mamba_out_proj', config.model_dim, config.ssm_dim)
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
        steps_BTD: Tensor = self.dt_proj(dt_BTR)
        return steps_BTD

    def project(self, x_BTD: Tensor, context: LayerContext) -> tuple[KeysValues, Tensor, Tensor]:
        if not self.fused:
            scanned_BTD, gate_BTD = self.mamba_proj(x_BTD).chunk(2, -1)
            return (self.keys_values(x_BTD, context), scanned_BTD, gate_BTD)
        k_BTC, v_BTC, scanned_BTD, gate_BTD = self.in_proj(x_BTD).split(self.sizes, -1)
        return (self.key_value_heads(k_BTC, v_BTC, context), scanned_BTD, gate_BTD)

    def scan(self, x_BTD: Tensor, gate_BTD: Tensor, memory: LayerMemory | None=None) -> Tensor:
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
        attention_BTD = attention_BTD.to(mamba_BTD.dtype)
        if not self.averages:
            return torch.lerp(mamba_BTD, attention_BTD, torch.sigmoid(self.merge_alpha).to(mamba_BTD.dtype))
        width = mamba_BTD.shape[-1:]
        normed_BTD = F.rms_norm(attention_BTD, width) * self.attention_norm
        return torch.addcmul(normed_BTD, self.mamba_norm, F.rms_norm(mamba_BTD, width)) / 2

    def forward(self, x_BTD: Tensor, context: LayerContext) -> Tensor:
        keys_values, scanned_BTD, gate_BTD = self.project(x_BTD, context)
        attention_BTD = self.attend(x_BTD, keys_values, context)
        mamba_BTD = self.scan(scanned_BTD, gate_BTD, context.remembered(self.layer))
        output_BTD: Tensor = self.proj(self.merge(attention_BTD, mamba_BTD))
        return output_BTD

class ScanMixer(HymbaMixer):

    def add_queries(self, config: ModelConfig, linear: MakeLinear) -> None:
        pass

    def add_projections(self, config: ModelConfig, linear: MakeLinear) -> None:
        self.mamba_proj = linear('mamba_proj', 2 * config.ssm_dim, config.model_dim)

    def add_merge(self, config: ModelConfig, linear: MakeLinear) -> None:
        self.mamba_out_proj = nn.Identity()

    def forward(self, x_BTD: Tensor, context: LayerContext) -> Tensor:
        scanned_BTD, gate_BTD = self.mamba_proj(x_BTD).chunk(2, -1)
        output_BTD: Tensor = self.proj(self.scan(scanned_BTD, gate_BTD, context.remembered(self.layer)))
        return output_BTD

class SharedMatrixMixer(HymbaMixer):

    def add_projections(self, config: ModelConfig, linear: MakeLinear) -> None:
        unused_rows = 2 * self.kv_dim
        self.c_k = linear('c_k', self.kv_dim, config.model_dim)
        self.value_gate = linear('value_gate', self.kv_dim, config.model_dim)
        self.in_proj = linear('in_proj', unused_rows + 2 * config.ssm_dim, config.model_dim)
        self.in_proj_rows = MatrixRows(self.in_proj, slice(unused_rows, None))

    def add_step_projection(self, rank: int, channels: int, linear: MakeLinear) -> None:
        self.missing_channels = channels - rank
        self.dt_bias = nn.Parameter(torch.zeros(channels))

    def step_sizes(self, dt_BTR: Tensor) -> Tensor:
        return F.pad(dt_BTR, (0, self.missing_channels)) + self.dt_bias

    def project(self, x_BTD: Tensor, context: LayerContext) -> tuple[KeysValues, Tensor, Tensor]:
        k_BTC = self.c_k(x_BTD)
        keys_values = self.key_value_heads(k_BTC, k_BTC * torch.sigmoid(self.value_gate(x_BTD)), context)
        scanned_BTD, gate_BTD = self.in_proj_rows(x_BTD).chunk(2, -1)
        return (keys_values, scanned_BTD, gate_BTD)
LARGEST_STEP = 1.0
LARGEST_RATE = 10.0
LARGEST_DECAY = 0.5
STEP_BIAS_INIT = -4.0
RATE_INIT_STD = 0.5

def widened(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))

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
        wanted_BTN = F.softplus(widened(self.dt_proj(x_BTE))).clamp(max=LARGEST_STEP)
        rate_N = widened(self.log_A).exp().clamp(max=LARGEST_RATE)
        dt_BTN = torch.minimum(wanted_BTN, LARGEST_DECAY / rate_N)
        return (widened(self.B_proj(x_BTE)) * (wanted_BTN / dt_BTN), dt_BTN, rate_N)

    def read(self, x_BTE: Tensor, state_BTN: Tensor) -> Tensor:
        gain_BT1 = (widened(self.C_proj(x_BTE)) * state_BTN).sum(-1, keepdim=True)
        return torch.addcmul(self.out_proj(state_BTN.to(x_BTE.dtype)), gain_BT1.to(x_BTE.dtype), x_BTE[..., :1])

class HeadsMixer(AttentionMixer):

    def __init__(self, config: ModelConfig, layer: int, linear: MakeLinear) -> None:
        super().__init__(config, layer, linear)
        self.scan_chunk, self.scan_backend = (config.scan_chunk, config.scan_backend)
        heads = self.query_heads(config)
        self.c_q_rows = MatrixRows(self.c_q, slice(heads * self.head_dim))
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
        memory = context.remembered(self.layer)
        begins = memory is None or not memory.attention.end
        extended = with_meta(self.meta_tokens if begins else None, x_BTD)
        if not begins and self.meta_tokens is not None:
            cos, sin = (table[self.meta_tokens.shape[1]:] for table in context.rotary)
            context = replace(context, rotary=(cos, sin))
        keys_values = (self.lender or (self,))[0].keys_values(extended, context)
        meta = extended.shape[1] - x_BTD.shape[1]
        q_BHTE = self.queries(self.c_q_rows(x_BTD), context, start=meta)
        if memory is None:
            mixed_BHTE = causal_attention(q_BHTE, *keys_values, self.window, self.window_backend)
        else:
            mixed_BHTE = continued_attention(q_BHTE, *keys_values, memory.attention, meta=meta, backend=self.window_backend)
        return mixed_BHTE.transpose(1, 2).flatten(2)

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
        memory = context.remembered(self.layer)
        scanned, state = self.scan(self.ssm_in(x_BTD), None if memory is None else memory.scan)
        if memory is not None:
            memory.scan = state.detach()
        output_BTD: Tensor = self.proj(torch.cat((attended, scanned * self.ssm_scale), -1).to(x_BTD.dtype))
        return output_BTD

class RowTable(nn.Embedding):

    def __init__(self, rows: int, width: int) -> None:
        super().__init__(rows, width)
        self.looked_up: list[Tensor] = []

    def forward(self, ids: Tensor) -> Tensor:
        adds = self.weight.grad is not None and torch.is_grad_enabled() and (not torch.compiler.is_compiling())
        if adds:
            self.looked_up.append(ids.flatten())
        return F.embedding(ids, self.weight, sparse=adds)

    def clear(self, *, keep: bool) -> None:
        gradient = self.weight.grad
        if not keep or self.weight.device.type != 'cpu':
            self.weight.grad = None
        elif gradient is None:
            self.weight.grad = torch.zeros_like(self.weight)
        elif self.looked_up:
            gradient.index_fill_(0, torch.cat(self.looked_up), 0.0)
        else:
            gradient.zero_()
        self.looked_up.clear()
DECAY_INIT = 0.5
SMALLEST_STEP = 0.001
LARGEST_STEP_INIT = 0.1

class LongFilter(nn.Module):

    def __init__(self, channels: int, pairs: int) -> None:
        super().__init__()
        self.log_dt = nn.Parameter(torch.zeros(channels))
        self.A_log = nn.Parameter(torch.full((channels, pairs), math.log(DECAY_INIT)))
        self.A_imag = nn.Parameter(math.pi * torch.arange(pairs).float().repeat(channels, 1))
        self.C = nn.Parameter(torch.zeros(channels, pairs, 2))

    def init_weights(self, generator: torch.Generator | None) -> None:
        bounds = (math.log(SMALLEST_STEP), math.log(LARGEST_STEP_INIT))
        nn.init.uniform_(self.log_dt, *bounds, generator=generator)
        nn.init.normal_(self.C, std=math.sqrt(0.5), generator=generator)

    def forward(self, x_BTD: Tensor, memory: LayerMemory | None=None) -> Tensor:
        dtype, steps = (torch.promote_types(x_BTD.dtype, torch.float32), x_BTD.shape[1])
        x_BDT = x_BTD.to(dtype).transpose(1, 2)
        A_DN = torch.complex(-self.A_log.exp(), self.A_imag)
        rate_DN, C_DN = (self.log_dt.exp()[:, None] * A_DN, torch.view_as_complex(self.C))
        times_T = torch.arange(steps + 1, device=x_BTD.device, dtype=self.log_dt.dtype)
        powers_DNT, B_DN = (torch.exp(rate_DN[..., None] * times_T), torch.expm1(rate_DN) / A_DN)
        filter_DT = 2 * torch.einsum('dn,dnt->dt', C_DN * B_DN, powers_DNT[..., :steps]).real.to(dtype)
        spectrum = torch.fft.rfft(x_BDT, 2 * steps) * torch.fft.rfft(filter_DT, 2 * steps)
        y_BDT: Tensor = torch.fft.irfft(spectrum, 2 * steps)[..., :steps]
        if memory is None:
            return y_BDT.transpose(1, 2)
        reversed_DNT = powers_DNT[..., :steps].flip(-1)
        last_BDN = B_DN * torch.einsum('bdt,dnt->bdn', x_BDT.to(reversed_DNT.dtype), reversed_DNT)
        if memory.scan is not None:
            echo_BDT = 2 * torch.einsum('bdn,dnt->bdt', C_DN * memory.scan, powers_DNT[..., 1:]).real
            y_BDT, last_BDN = (y_BDT + echo_BDT.to(dtype), last_BDN + powers_DNT[..., -1] * memory.scan)
        memory.scan = last_BDN.detach()
        return y_BDT.transpose(1, 2)

class FilterMixer(HymbaMixer):

    def add_scan(self, config: ModelConfig, linear: MakeLinear) -> None:
        self.conv1d = DepthwiseConv(config.ssm_dim, config.conv_width, config.conv_backend)
        self.s4d = LongFilter(config.ssm_dim, config.ssm_state // 2)
        self.D = nn.Parameter(torch.ones(config.ssm_dim))

    def scan(self, x_BTD: Tensor, gate_BTD: Tensor, memory: LayerMemory | None=None) -> Tensor:
        x_BTD = self.conv1d(x_BTD, None if memory is None else memory.convolution, silu=True)
        framed_BTD = ScanFrame(self.D, gate_BTD).output(self.s4d(x_BTD, memory), x_BTD)
        output_BTD: Tensor = self.mamba_out_proj(framed_BTD)
        return output_BTD
BIGRAM_MULTIPLIER = 92821
ORTHOGONAL_MIN_SIDE = 16
ZERO_INIT_NAMES = ('proj', 'lm_head')

class SmearGate(nn.Module):

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.full((dim,), 3.0))

    def forward(self, x_BTD: Tensor, tail: Tail | None=None) -> Tensor:
        previous_BTD = previous(x_BTD, tail)
        return torch.lerp(previous_BTD, x_BTD, torch.sigmoid(self.gate).to(x_BTD.dtype))

class BigramHash(nn.Module):

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.table = RowTable(config.bigram_buckets, config.bigram_dim)
        self.proj = nn.Linear(config.bigram_dim, config.model_dim, bias=False)

    def forward(self, tokens_BT: Tensor, tail: Tail | None=None) -> Tensor:
        buckets_BT = (previous(tokens_BT, tail) * BIGRAM_MULTIPLIER + tokens_BT) % self.table.num_embeddings
        output_BTD: Tensor = self.proj(self.table(buckets_BT))
        return output_BTD

class MLP(nn.Module):

    def __init__(self, config: ModelConfig, linear: MakeLinear=plain_linear) -> None:
        super().__init__()
        self.fc = linear('fc', config.hidden_dim, config.model_dim)
        self.proj = linear('mlp_proj', config.model_dim, config.hidden_dim)
        self.activation = config.activation
        self.slope = config.leaky_relu_slope if config.activation == 'leaky_relu2' else 0.0
        self.elementwise = elementwise(config.elementwise_backend)

    def forward(self, x_BTD: Tensor) -> Tensor:
        hidden = self.fc(x_BTD)
        silu = self.activation == 'silu'
        output_BTD: Tensor = self.proj(F.silu(hidden) if silu else self.elementwise.squared_rectifier(hidden, self.slope))
        return output_BTD

def make_mixer(config: ModelConfig, layer: int, linear: MakeLinear) -> AttentionMixer:
    if not config.is_hybrid(layer):
        return AttentionMixer(config, layer, linear)
    if config.fusion == 'heads':
        return HeadsMixer(config, layer, linear)
    if not config.use_attention:
        return ScanMixer(config, layer, linear)
    if config.ssm_kind != 'selective':
        return FilterMixer(config, layer, linear)
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
        self.elementwise = elementwise(config.elementwise_backend)

    def forward(self, x_BTD: Tensor, x0_BTD: Tensor, context: LayerContext) -> Tensor:
        mix_D, refresh_D = self.resid_mix.unbind()
        x_BTD, normed_BTD = self.elementwise.mix_norm(x_BTD, x0_BTD, refresh_D, mix_D)
        x_BTD, normed_BTD = self.elementwise.mix_norm(x_BTD, self.attn(normed_BTD, context), self.attn_scale)
        return self.elementwise.mix(x_BTD, self.mlp(normed_BTD), self.mlp_scale)

class HymbaLM(nn.Module):

    def __init__(self, config: ModelConfig, generator: torch.Generator | None=None) -> None:
        super().__init__()
        self.config, self.elementwise = (config, elementwise(config.elementwise_backend))
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
        self.head = MatrixRows(self.tok_emb if self.lm_head is None else self.lm_head)
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
            if isinstance(module, (HeadsMixer, LongFilter, ScanHead)):
                module.init_weights(generator)
        init_meta(self.meta_tokens, generator)
        std = self.config.tied_embed_init_std if self.config.tie_embeddings else 1.0
        nn.init.normal_(self.tok_emb.weight, std=std, generator=generator)
        if self.bigram_hash is not None:
            nn.init.normal_(self.bigram_hash.table.weight, std=0.01, generator=generator)

    def new_memory(self) -> Memory:
        layers = range(self.config.num_layers)
        return Memory([LayerMemory(KeyValues(self.config.layer_window(layer))) for layer in layers])

    def embed(self, tokens_BT: Tensor, memory: Memory | None=None) -> Tensor:
        x_BTD: Tensor = self.tok_emb(tokens_BT)
        if self.bigram_hash is not None:
            x_BTD = x_BTD + self.bigram_hash(tokens_BT, memory and memory.tokens)
        if self.smeargate is not None:
            x_BTD = self.smeargate(x_BTD, memory and memory.embedding)
        return self.elementwise.norm(x_BTD)

    def run_blocks(self, x_BTD: Tensor, memory: Memory | None=None) -> Tensor:
        text = x_BTD.shape[1]
        if self.meta_tokens is not None and (not (memory and memory.position)):
            x_BTD = with_meta(F.rms_norm(self.meta_tokens, x_BTD.shape[-1:]), x_BTD)
        with self.banks.taken_apart() if self.banks else nullcontext():
            x_BTD = self.run_layers(x_BTD, x_BTD.shape[1] - text, memory)
        if memory is not None:
            memory.position += text
        return self.elementwise.norm(x_BTD[:, -text:])

    def run_layers(self, x_BTD: Tensor, meta: int, memory: Memory | None=None) -> Tensor:
        config, x0_BTD, skips = (self.config, x_BTD, list[Tensor]())
        first = memory.position if memory else 0
        if first and self.meta_tokens is not None:
            first += config.meta_tokens
        length = x_BTD.shape[1] - meta + config.meta_tokens
        rotary = rotary_tables(length, config.rotary_dims, config.rope_base, x_BTD.device, first=first)
        context, half = (LayerContext(rotary, meta, memory), config.num_layers // 2)
        for layer, block in enumerate(self.blocks):
            if self.skip_weights is not None and layer >= half and skips:
                x_BTD = self.elementwise.mix(x_BTD, skips.pop(), self.skip_weights[0, layer - half])
            x_BTD = block(x_BTD, x0_BTD, context)
            if self.skip_weights is not None and layer < half:
                skips.append(x_BTD)
        return x_BTD

    def forward(self, tokens_BT: Tensor, memory: Memory | None=None) -> Tensor:
        z_BTV, cap = (self.uncapped(self.run_blocks(self.embed(tokens_BT, memory), memory)), self.config.logit_softcap)
        return cap * torch.tanh(z_BTV) if cap else z_BTV

    def uncapped(self, x_BTD: Tensor) -> Tensor:
        z_BTV: Tensor = self.head(x_BTD / (self.config.logit_softcap or 1)).float()
        return z_BTV

    def token_losses(self, tokens_BT: Tensor, targets_BT: Tensor, memory: Memory | None=None) -> Tensor:
        z_BTV = self.uncapped(self.run_blocks(self.embed(tokens_BT, memory), memory))
        cap = self.config.logit_softcap
        return self.elementwise.capped_entropy(z_BTV.flatten(0, 1), targets_BT.flatten(), cap).view_as(targets_BT)

def init_matrix(weight: Tensor, bias: Tensor | None, generator: torch.Generator | None) -> None:
    bound = 1 / math.sqrt(weight[0].numel())
    if weight.ndim == 2 and min(weight.shape) >= ORTHOGONAL_MIN_SIDE:
        nn.init.orthogonal_(weight, generator=generator)
    else:
        nn.init.uniform_(weight, -bound, bound, generator=generator)
    if bias is not None:
        nn.init.uniform_(bias, -bound, bound, generator=generator)
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

def resume_line(name: str, progress: Progress) -> str:
    return f'resumed:{name} step:{progress.step}/{progress.steps} {progress.timing()}'

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

def packing_line(quantizer: str, seconds: float) -> str:
    return f'Serialize: {quantizer} done in {seconds:.3f}s'

def reserve_line(reserved_s: float, left_s: float) -> str:
    return f'gptq:reserving {reserved_s:g}s, effective={1000.0 * left_s:.0f}ms'

def calibration_line(train_s: float, spent_s: float) -> str:
    train_ms, spent_ms = (round(1000.0 * train_s), round(1000.0 * spent_s))
    return f'gptq:budget_check train:{train_ms}ms + gptq:{spent_ms}ms = {train_ms + spent_ms}ms'

def version_lines() -> tuple[str, ...]:
    return (f'Running Python {sys.version.split()[0]} on {platform.system()} {platform.machine()}', f'Running PyTorch {torch.__version__} numpy {np.__version__} zstandard {zstandard.__version__}', f'threads:{torch.get_num_threads()}')

@dataclass
class RunLog:
    path: Path | None
    console: Callable[[str], object] = print
    enabled: bool = True
    goes_on: bool = False
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
        with self.path.open('a' if self._started or self.goes_on else 'w', encoding='utf-8') as file:
            file.writelines((f'{line}\n' for line in lines))
        self._started = True

    def record_header(self, hyperparameters: Mapping[str, object], code: str, versions: Sequence[str]) -> None:
        settings = (f'  {name}: {value}' for name, value in sorted(hyperparameters.items()))
        self.say(RULE_LINE, 'Hyperparameters:', *settings, RULE_LINE)
        self.record(code.rstrip('\n'), RULE_LINE, *versions, RULE_LINE)
AUDIT_PROTOCOL = 'audit/1'
ScoreHook: TypeAlias = Callable[[Tensor, Tensor], None]
UpdateHook: TypeAlias = Callable[[Tensor], None]

@dataclass(frozen=True)
class Hooks:
    on_score: ScoreHook | None = None
    on_update: UpdateHook | None = None

def audit_hooks() -> Hooks:
    try:
        import audit
    except ImportError:
        return Hooks()
    if getattr(audit, 'PROTOCOL', '') != AUDIT_PROTOCOL:
        return Hooks()
    return Hooks(audit.score, audit.update)

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
Batch: TypeAlias = tuple[Tensor, Tensor, Tensor]

class LanguageModel(Protocol):
    training: bool

    @property
    def blocks(self) -> Iterable[nn.Module]:
        pass

    @property
    def token_losses(self) -> Callable[..., Tensor]:
        pass

    def parameters(self) -> Iterator[nn.Parameter]:
        pass

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
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
    hooks: Hooks = field(default_factory=Hooks)

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
    blind: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.stride <= self.seq_len:
            raise ValueError(f"stride {self.stride} is outside 0 .. {self.seq_len}, the window's length")

    @property
    def _head(self) -> int:
        head = max(self.first + self.stride, self.seq_len)
        return head if self.blind else min(self.end, head)

    @property
    def _whole(self) -> int:
        if not self.stride:
            return (self.end - self.first) // self.seq_len
        return max(1 + (self.end - self._head) // self.stride, 0) if self.blind else len(self)

    def __len__(self) -> int:
        if self.stride:
            return 1 + (max(self.end - self._head, 0) + self.stride - 1) // self.stride
        return (self.end - self.first + self.seq_len - 1) // self.seq_len

    def bounds(self, index: int) -> tuple[int, int, int]:
        if not self.stride:
            start = self.first + index * self.seq_len
            return (start, start, min(start + self.seq_len, self.end))
        scored = self._head + (index - 1) * self.stride if index else self.first
        whole = self._head + index * self.stride
        end = min(whole, self.end)
        return (max((whole if self.blind else end) - self.seq_len, 0), scored, end)

    def batches(self, batch_seqs: int) -> list[range]:
        return self.batches_of(range(len(self)), batch_seqs)

    def batches_of(self, run: range, batch_seqs: int) -> list[range]:
        full = range(run.start, min(run.stop, self._whole))
        short = range(max(run.start, self._whole), run.stop)
        return [full[low:low + batch_seqs] for low in range(0, len(full), batch_seqs)] + ([short] if short else [])

def window_batch(tokens: Tensor, windows: Windows, run: range) -> Batch:
    start_B, scored_B, end_B = torch.tensor([windows.bounds(index) for index in run]).unbind(1)
    inputs_BT = start_B[:, None] + torch.arange(int(end_B[0] - start_B[0]))
    index = torch.cat([inputs_BT, end_B[:, None]], dim=1).to(tokens.device)
    return (tokens[index].long(), inputs_BT + 1, inputs_BT >= scored_B[:, None])

def score_windows(task: EvalTask, windows: Windows, batch_seqs: int) -> Tensor:
    table = task.table.to(task.worker.device)
    batches = windows.batches(batch_seqs)
    sums_N3 = torch.zeros(len(batches), 3, dtype=torch.float64, device=task.worker.device)
    with torch.no_grad(), evaluation_mode(task.model):
        for index in task.worker.share(len(batches)):
            sums_N3[index] = _score_batch(task, table, window_batch(task.tokens, windows, batches[index]))
    return sums_N3

def sums_of_all(worker: Worker, sums_N3: Tensor) -> Tensor:
    total_3 = torch.zeros(3, dtype=torch.float64, device=sums_N3.device)
    for row_3 in worker.all_sum(sums_N3).unbind():
        total_3 += row_3
    return total_3

def score_for_training(task: EvalTask, windows: Windows, batch_seqs: int) -> tuple[Tensor, Tensor]:
    table = task.table.to(task.worker.device)
    sums_3 = torch.zeros(3, dtype=torch.float64, device=task.worker.device)
    kept = []
    with evaluation_mode(task.model):
        for run in windows.batches(batch_seqs):
            batch = window_batch(task.tokens, windows, run)
            losses_BT = batch_losses(task, batch[0])
            sums_3 += batch_sums(task, table, batch, losses_BT.detach())
            kept.append(losses_BT.sum())
    return (sums_3, torch.stack(kept).sum())

def _score_batch(task: EvalTask, table: ByteTable, batch: Batch) -> Tensor:
    return batch_sums(task, table, batch, batch_losses(task, batch[0]))

def batch_losses(task: EvalTask, tokens: Tensor, memory: Memory | None=None) -> Tensor:
    tokens = tokens.to(task.worker.device)
    with task.worker.precision():
        if memory is None:
            return task.model.token_losses(tokens[:, :-1], tokens[:, 1:])
        return task.model.token_losses(tokens[:, :-1], tokens[:, 1:], memory)

def batch_sums(task: EvalTask, table: ByteTable, batch: Batch, losses_BT: Tensor) -> Tensor:
    tokens, positions_BT, scored_BT = batch
    tokens = tokens.to(task.worker.device)
    if task.hooks.on_score is not None:
        task.hooks.on_score(positions_BT[scored_BT], losses_BT.cpu()[scored_BT])
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
Place: TypeAlias = tuple[str, int]
IsOver: TypeAlias = Callable[[], bool]
LONGEST_SAMPLE = 1024
SAMPLED_AT_ONCE = 64
COLLECTING_SHARE = 0.5

@dataclass(frozen=True)
class Budget:
    clock: Callable[[], float]
    began_s: float
    seconds: float

    def spent_s(self) -> float:
        return self.clock() - self.began_s

    def is_over(self, share: float=1.0) -> bool:
        return math.isfinite(self.seconds) and self.spent_s() >= share * self.seconds

@dataclass
class InputStatistics(TorchFunctionMode):
    parameters: Mapping[str, Tensor]
    sums: dict[Place, Tensor] = field(default_factory=dict)
    tokens: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, func: Callable[..., Any], types: object, args: Sequence[Any]=(), kwargs: Mapping[str, Any] | None=None) -> Any:
        if func is F.linear:
            self.add(args[0], args[1])
        return func(*args, **kwargs or {})

    def add(self, x: Tensor, weight: Tensor) -> None:
        place = self.place(weight)
        if place is None:
            return
        x_TC = x.detach().reshape(-1, x.shape[-1]).float()
        product_CC = x_TC.T @ x_TC
        if place in self.sums:
            self.sums[place] += product_CC
        else:
            self.sums[place] = product_CC
        if place == next(iter(self.sums)):
            self.tokens += len(x_TC)

    def place(self, weight: Tensor) -> Place | None:
        for name, parameter in self.parameters.items():
            offset = weight.data_ptr() - parameter.data_ptr()
            if weight.dtype == parameter.dtype and 0 <= offset < parameter.numel() * parameter.element_size():
                return (name, offset // (parameter.element_size() * parameter.shape[-1] * parameter.shape[-2]))
        return None

@dataclass(frozen=True)
class Calibrator:
    model: HymbaLM
    config: Config
    loader: BatchLoader
    worker: Worker
    log: RunLog
    clock: Callable[[], float]

    def rounded(self, steps: int, train_s: float) -> dict[str, QuantizedTensor]:
        limit_s, quant = (self.config.train.max_wallclock_seconds, self.config.quant)
        budget = Budget(self.clock, self.clock(), limit_s - train_s if limit_s else math.inf)
        weights = {name: tensor.detach() for name, tensor in self.model.state_dict().items()}
        stored = {n: w for n, w in weights.items() if tensor_kind(n, w, quant).startswith('int')}
        statistics = InputStatistics({name: w for name, w in stored.items() if not name.endswith('tok_emb.weight')})
        for batch_BT in self.batches(steps, budget):
            with statistics, torch.no_grad(), evaluation_mode(self.model), self.worker.precision():
                self.model(batch_BT)
        self.drop_unless_all_saw(statistics)
        for place in sorted(statistics.sums):
            self.worker.all_sum(statistics.sums[place])
        self.log.say(f"gptq:collected {len(statistics.sums)} hessians over {statistics.tokens * self.worker.world_size} tokens of {('the train shards' if quant.gptq_calibration == 'train' else 'its own')} in {budget.spent_s():.3f}s")
        rounded = self.round_all(stored, statistics, budget) if self.worker.rank == 0 else {}
        if limit_s:
            self.log.say(calibration_line(train_s, budget.spent_s()))
        return rounded

    def drop_unless_all_saw(self, statistics: InputStatistics) -> None:
        saw = self.worker.all_sum(torch.tensor(float(bool(statistics.sums)), device=self.worker.device))
        if int(saw.item()) < self.worker.world_size:
            statistics.sums.clear()
            statistics.tokens = 0

    def round_all(self, stored: Mapping[str, Tensor], statistics: InputStatistics, budget: Budget) -> dict[str, QuantizedTensor]:
        began_s, done, rounded = (budget.spent_s(), 0, dict[str, QuantizedTensor]())
        for name, weight in stored.items():
            clip_search = self.config.quant.clip_search and (not budget.is_over())
            nearest = nearest_of(name, weight, replace(self.config.quant, clip_search=clip_search))
            matrices = weight.view(-1, *weight.shape[-2:])
            for index, matrix_RC in enumerate(matrices):
                hessian_CC = statistics.sums.get((name, index))
                if hessian_CC is None or budget.is_over():
                    continue
                one = QuantizedTensor(nearest.values.view_as(matrices)[index], nearest.scale.view(matrices.shape[:2])[index], nearest.bits, nearest.dtype)
                one.values.copy_(round_with_hessian(matrix_RC, one, hessian_CC, rounding_of(self.config.quant)).values)
                done += 1
            rounded[name] = QuantizedTensor(nearest.values.cpu(), nearest.scale.cpu(), nearest.bits, nearest.dtype)
        rest = f'the rest of {len(stored)} tensors to nearest'
        self.log.say(f'gptq:quantized {done} matrices by their inputs, {rest}, in {budget.spent_s() - began_s:.3f}s')
        return rounded

    def batches(self, steps: int, budget: Budget) -> Iterator[Tensor]:
        tokens = -(-self.config.quant.gptq_tokens // self.worker.world_size)
        if self.config.quant.gptq_calibration == 'self':
            yield from self.samples(tokens, budget)
            return
        accumulation = self.loader.accumulation
        for place in range(-(-tokens // self.loader.micro_tokens)):
            if budget.is_over(COLLECTING_SHARE):
                return
            yield self.loader.batch(steps + place // accumulation, place % accumulation)[0]

    def samples(self, tokens: int, budget: Budget) -> Iterator[Tensor]:
        length = min(self.config.train.train_seq_len, LONGEST_SAMPLE)
        generator = torch.Generator(self.worker.device).manual_seed(self.config.train.seed + self.worker.rank)
        sequences = -(-tokens // length)
        for first in range(0, sequences, SAMPLED_AT_ONCE):
            if budget.is_over(COLLECTING_SHARE):
                return
            count, began_s = (min(SAMPLED_AT_ONCE, sequences - first), budget.spent_s())
            with torch.no_grad(), evaluation_mode(self.model), self.worker.precision():
                drawn_BT = sampled(self.model, (count, length), generator, lambda: budget.is_over(COLLECTING_SHARE))
            self.log.say(f'gptq:generated {drawn_BT.numel()} tokens in {budget.spent_s() - began_s:.3f}s')
            yield drawn_BT

def sampled(model: HymbaLM, shape: tuple[int, int], generator: torch.Generator, is_over: IsOver) -> Tensor:
    sequences, length = shape
    drawn = [torch.randint(model.config.vocab_size, (sequences, 1), generator=generator, device=generator.device)]
    memory = model.new_memory()
    while len(drawn) < length and (not is_over()):
        probabilities_BV = model(drawn[-1], memory)[:, -1].float().softmax(-1)
        drawn.append(torch.multinomial(probabilities_BV, 1, generator=generator))
    return torch.cat(drawn, 1)

def nearest_of(name: str, weight: Tensor, quant: QuantConfig) -> QuantizedTensor:
    bits = int(tensor_kind(name, weight, quant).removeprefix('int'))
    return quantize_rows(weight, bits, scale_floor=quant.scale_floor, clip_search=quant.clip_search)

def rounding_of(quant: QuantConfig) -> Rounding:
    return Rounding(quant.gptq_damping, quant.gptq_activity_order)
NO_REDUCE_SCATTER = 'does not support reduce_scatter'
Pending: TypeAlias = Callable[[], Tensor]

def ready(tensor: Tensor) -> Pending:
    return lambda: tensor

@dataclass(frozen=True)
class Exchange:
    worker: Worker = field(default_factory=Worker)
    overlapped: bool = True

    def total(self, tensor: Tensor) -> Pending:
        if self.worker.world_size == 1:
            return ready(tensor)
        return self._pending(dist.all_reduce(tensor, async_op=True), tensor)

    def share_of_total(self, parts_N: Tensor) -> Pending:
        if self.worker.world_size == 1:
            return ready(parts_N)
        shares = parts_N.chunk(self.worker.world_size)
        mine_S = torch.empty_like(shares[0])
        try:
            work = dist.reduce_scatter(mine_S, list(shares), async_op=True)
        except RuntimeError as error:
            if dist.get_backend() != 'gloo' or NO_REDUCE_SCATTER not in str(error):
                raise
            return self._pending(dist.all_reduce(parts_N, async_op=True), shares[self.worker.rank])
        return self._pending(work, mine_S)

    def all_shares(self, mine_S: Tensor) -> Pending:
        if self.worker.world_size == 1:
            return ready(mine_S)
        all_N = mine_S.new_empty((self.worker.world_size * len(mine_S), *mine_S.shape[1:]))
        shares = list(all_N.chunk(self.worker.world_size))
        return self._pending(dist.all_gather(shares, mine_S.contiguous(), async_op=True), all_N)

    def _pending(self, work: dist.Work, result: Tensor) -> Pending:

        def wait() -> Tensor:
            work.wait()
            return result
        if not self.overlapped:
            work.wait()
        return wait

def average_gradients(parameters: Sequence[nn.Parameter], exchange: Exchange) -> Callable[[], None]:
    size = exchange.worker.world_size
    if size == 1 or not parameters:
        return lambda: None
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    pending = exchange.total(torch.cat([gradient.flatten() for gradient in gradients]))

    def place() -> None:
        parts = torch.split(pending() / size, [gradient.numel() for gradient in gradients])
        for parameter, mean in zip(parameters, parts, strict=True):
            parameter.grad = mean.view_as(parameter)
    return place
NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.775, 2.0315)
NEWTON_SCHULZ_EPSILON = 1e-07

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

    def __init__(self, parameters: Sequence[nn.Parameter], *, weight_decay: float, steps: int, dtype: torch.dtype, exchange: Exchange | None=None) -> None:
        self.weight_decay = weight_decay
        self.steps = steps
        self.dtype = dtype
        self.exchange = exchange or Exchange()
        by_shape: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for parameter in parameters:
            by_shape.setdefault(tuple(parameter.shape[-2:]), []).append(parameter)
        self.stacks = tuple((tuple(stack) for stack in by_shape.values()))
        self.momentum_buffers = [self._new_buffer(stack) for stack in self.stacks]

    def _new_buffer(self, stack: Sequence[nn.Parameter]) -> Tensor:
        share = -(-_count(stack) // self.exchange.worker.world_size)
        return stack[0].new_zeros((share, *stack[0].shape[-2:]), dtype=torch.float32)

    def momentum(self) -> list[Tensor]:
        whole = [self.exchange.all_shares(buffer_SRC)() for buffer_SRC in self.momentum_buffers]
        return [buffer_NRC[:_count(stack)] for stack, buffer_NRC in zip(self.stacks, whole, strict=True)]

    def load_momentum(self, momentum: Sequence[Tensor]) -> None:
        for buffer_SRC, whole_NRC in zip(self.momentum_buffers, momentum, strict=True):
            first = self.exchange.worker.rank * len(buffer_SRC)
            mine = whole_NRC[first:first + len(buffer_SRC)]
            buffer_SRC.zero_()[:len(mine)].copy_(mine)

    @torch.no_grad()
    def sent_gradients(self) -> Iterator[Pending]:
        for stack, buffer_SRC in zip(self.stacks, self.momentum_buffers, strict=True):
            gradient_NRC = _matrices([torch.zeros_like(p) if p.grad is None else p.grad for p in stack]).float()
            missing = len(buffer_SRC) * self.exchange.worker.world_size - len(gradient_NRC)
            if missing:
                filling = gradient_NRC.new_zeros((missing, *gradient_NRC.shape[1:]))
                gradient_NRC = torch.cat([gradient_NRC, filling])
            yield self.exchange.share_of_total(gradient_NRC)

    @torch.no_grad()
    def step(self, learning_rate: float, momentum: float, sent: Iterable[Pending] | None=None) -> None:
        size = self.exchange.worker.world_size
        shares = self.sent_gradients() if sent is None else sent
        last: tuple[Sequence[nn.Parameter], Pending] | None = None
        for stack, buffer_SRC, pending in zip(self.stacks, self.momentum_buffers, shares, strict=True):
            gradient_SRC = pending().div_(size)
            buffer_SRC.mul_(momentum).add_(gradient_SRC)
            nesterov_SRC = gradient_SRC.add_(buffer_SRC, alpha=momentum)
            update = self.exchange.all_shares(orthogonalize(nesterov_SRC, self.steps, self.dtype))
            if last is not None:
                self._apply(*last, learning_rate)
            last = (stack, update)
        if last is not None:
            self._apply(*last, learning_rate)

    def _apply(self, stack: Sequence[nn.Parameter], update: Pending, learning_rate: float) -> None:
        update_NRC = update()[:_count(stack)]
        rows, columns = update_NRC.shape[-2:]
        scale = max(1.0, rows / columns) ** 0.5
        counts = [_count([parameter]) for parameter in stack]
        for parameter, part in zip(stack, torch.split(update_NRC, counts), strict=True):
            parameter.mul_(1.0 - learning_rate * self.weight_decay)
            parameter.add_(part.view_as(parameter).to(parameter.dtype), alpha=-learning_rate * scale)

def _matrices(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1, *tensor.shape[-2:]) for tensor in tensors])

def _count(stack: Sequence[Tensor]) -> int:
    return sum((tensor.shape[:-2].numel() for tensor in stack))
ADAM_NAMES = ('attn_scale', 'mlp_scale', 'resid_mix', 'q_gain', 'skip_weights', 'smear', 'merge_alpha', 'A_log', 's4d')
CLIP_EPSILON = 1e-06

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

class Optimizers:

    def __init__(self, groups: Sequence[ParameterGroup], config: OptimConfig, dtype: torch.dtype, exchange: Exchange | None=None, tables: Sequence[RowTable]=()) -> None:
        self.groups, self.tables = (tuple(groups), tuple(tables))
        self.exchange = exchange or Exchange()
        self._clear_tables()
        self.sharded = config.muon_sharded and self.exchange.worker.world_size > 1
        among = self.exchange if self.sharded else Exchange()
        decay, steps = (config.weight_decay, config.muon_backend_steps)
        self.matrix_groups = [(Muon(g.parameters, weight_decay=decay, steps=steps, dtype=dtype, exchange=among), g) for g in groups if g.name == 'matrix']
        self.adam_groups = [g for g in groups if g.name != 'matrix']
        self.adam = torch.optim.Adam([{'params': list(g.parameters), 'lr': g.learning_rate} for g in self.adam_groups], betas=(config.beta1, config.beta2), eps=config.adam_eps, fused=True)
        self.common = [p for g in (self.adam_groups if self.sharded else self.groups) for p in g.parameters]
        self.clip_norm = config.grad_clip_norm

    def parameters(self) -> Iterator[nn.Parameter]:
        for group in self.groups:
            yield from group.parameters

    def step(self, scale: float, momentum: float) -> None:
        place_means = average_gradients(self.common, self.exchange)
        sent = [list(muon.sent_gradients()) if self.sharded else None for muon, _ in self.matrix_groups]
        place_means()
        if self.clip_norm > 0.0:
            sent = self._clipped(sent)
        for options, group in zip(self.adam.param_groups, self.adam_groups, strict=True):
            options['lr'] = group.learning_rate * scale
        self.adam.step()
        for (muon, group), begun in zip(self.matrix_groups, sent, strict=True):
            muon.step(group.learning_rate * scale, momentum, begun)
        self._clear_tables()
        kept = {id(table.weight) for table in self.tables}
        for parameter in self.parameters():
            parameter.grad = parameter.grad if id(parameter) in kept else None

    def _clear_tables(self) -> None:
        for table in self.tables:
            table.clear(keep=self.exchange.worker.world_size == 1)

    def state(self) -> dict[str, Any]:
        return {'adam': self.adam.state_dict(), 'muon': [muon.momentum() for muon, _ in self.matrix_groups]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.adam.load_state_dict(state['adam'])
        for (muon, _), momentum in zip(self.matrix_groups, state['muon'], strict=True):
            muon.load_momentum(momentum)

    def _clipped(self, sent: Sequence[list[Pending] | None]) -> list[list[Pending] | None]:
        if not self.sharded:
            nn.utils.clip_grad_norm_(self.parameters(), self.clip_norm)
            return list(sent)
        shares = [[pending() for pending in begun or ()] for begun in sent]
        held, size = ([share for stack in shares for share in stack], self.exchange.worker.world_size)
        whole = [parameter.grad for parameter in self.common if parameter.grad is not None]
        squares = self.exchange.total(_squares(held) / size ** 2)() + _squares(whole)
        for tensor in (*held, *whole):
            tensor.mul_((self.clip_norm / (squares.sqrt() + CLIP_EPSILON)).clamp(max=1.0))
        return [[ready(share) for share in stack] for stack in shares]

def _squares(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([tensor.square().sum() for tensor in tensors]).sum()

def build_optimizers(model: nn.Module, config: Config, dtype: torch.dtype=torch.float32, exchange: Exchange | None=None) -> Optimizers:
    tables = [module for module in model.modules() if isinstance(module, RowTable)]
    return Optimizers(build_groups(model, config), config.optim, dtype, exchange, tables)

@dataclass(frozen=True)
class Schedule:
    iterations: int
    max_wallclock_seconds: float
    warmdown_iters: int
    warmdown_shape: str
    warmdown_frac: float = 0.0
    qat_start: float = 1.0

    @staticmethod
    def from_config(config: TrainConfig) -> Schedule:
        return Schedule(iterations=config.iterations, max_wallclock_seconds=config.max_wallclock_seconds, warmdown_iters=config.warmdown_iters, warmdown_shape=config.warmdown_shape, warmdown_frac=config.warmdown_frac, qat_start=config.qat_start)

    @property
    def is_timed(self) -> bool:
        return self.max_wallclock_seconds > 0.0

    def is_over(self, step: int, elapsed_s: float) -> bool:
        return step >= self.iterations or (self.is_timed and elapsed_s >= self.max_wallclock_seconds)

    def done(self, step: int, elapsed_s: float) -> float:
        share = step / max(self.iterations, 1)
        return max(share, elapsed_s / self.max_wallclock_seconds) if self.is_timed else share

    def rounds_weights(self, step: int, elapsed_s: float) -> bool:
        return self.qat_start < 1.0 and self.done(step, elapsed_s) >= self.qat_start

    def factor(self, step: int, elapsed_s: float) -> float:
        remaining = self._remaining(step, elapsed_s)
        return remaining if self.warmdown_shape == 'linear' else math.sin(0.5 * math.pi * remaining) ** 2

    def _remaining(self, step: int, elapsed_s: float) -> float:
        if self.warmdown_frac > 0.0:
            left = 1.0 - self.done(step, elapsed_s)
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
ROUNDED_MARK = ':'
COMPUTING_SETTINGS = frozenset({'scan_backend', 'scan_chunk', 'conv_backend', 'window_backend', 'elementwise_backend'})

class RunError(RuntimeError):
    pass

def pack_model(state: Mapping[str, Tensor], config: Config, rounded: Mapping[str, QuantizedTensor] | None=None) -> bytes:
    return pack(state, json.dumps(asdict(config.model), sort_keys=True), config.quant, rounded)

def unpack_model(blob: bytes, config: ModelConfig) -> dict[str, Tensor]:
    return unpack(blob, expect=partial(refuse_other_model, config))[1]

def refuse_other_model(config: ModelConfig, header: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    expected, default = (json.loads(json.dumps(asdict(one))) for one in (config, ModelConfig()))
    held = default | header['config']
    keys = (expected | held).keys() - COMPUTING_SETTINGS
    differing = sorted((key for key in keys if expected.get(key) != held.get(key)))
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

def state_bytes(state: Mapping[str, Tensor], rounded: Mapping[str, QuantizedTensor] | None=None) -> bytes:
    beside = {f'{name}{ROUNDED_MARK}{part}': tensor for name, one in (rounded or {}).items() for part, tensor in ((f'int{one.bits}', one.values), ('scale', one.scale))}
    buffer = io.BytesIO()
    torch.save({**state, **beside}, buffer)
    return buffer.getvalue()

def load_state(path: Path) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in _load(path).items() if ROUNDED_MARK not in name}

def load_rounded(path: Path) -> dict[str, QuantizedTensor]:
    saved, rounded = (_load(path), dict[str, QuantizedTensor]())
    for key, values in saved.items():
        name, _, kind = key.partition(f'{ROUNDED_MARK}int')
        if kind:
            scale = saved[f'{name}{ROUNDED_MARK}scale']
            rounded[name] = QuantizedTensor(values, scale, int(kind), torch.float32)
    if not rounded:
        raise RunError(f'{path}: holds no rounded weights, as QUANT_METHOD=gptq leaves them after training')
    return rounded

def _load(path: Path) -> dict[str, Tensor]:
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
    with temporary.open('wb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
CHECKPOINT_MAGIC = b'HYMC1\n'
CHECKPOINT_DIGEST_BYTES = 16
DECIDING_SECTIONS = ('model', 'optim', 'train', 'quant')
REPORTING_SETTINGS = ('TRAIN_LOG_EVERY', 'VAL_LOSS_EVERY', 'CHECKPOINT_EVERY', 'RESUME')

@dataclass
class RunState:
    model: HymbaLM
    optimizers: Optimizers
    average: ExponentialAverage
    step: int = 0
    train_s: float = 0.0

    def content(self) -> dict[str, Any]:
        average = self.average
        return {'step': self.step, 'train_s': self.train_s, 'weights': cpu_state(self.model), 'optimizers': self.optimizers.state(), 'average': {'updates': average.updates, 'names': list(average.names), 'values': average.averages}, 'random': torch.get_rng_state(), 'random_cuda': torch.cuda.get_rng_state() if torch.cuda.is_available() else None}

    def restore(self, content: Mapping[str, Any]) -> None:
        self.step, self.train_s = (int(content['step']), float(content['train_s']))
        self.model.load_state_dict(content['weights'])
        self.optimizers.load_state(content['optimizers'])
        average, device = (content['average'], next(self.model.parameters()).device)
        self.average.updates, self.average.names = (int(average['updates']), tuple(average['names']))
        self.average.averages = [value.to(device) for value in average['values']]
        torch.set_rng_state(content['random'])
        if content['random_cuda'] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(content['random_cuda'])

@dataclass(frozen=True)
class Checkpoints:
    path: Path = Path('checkpoint.pt')
    every: int = 0
    resume: bool = False
    identity: Mapping[str, str] = field(default_factory=dict)

    def is_due(self, step: int) -> bool:
        return self.every > 0 and step % self.every == 0

    def save(self, content: Mapping[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save({'identity': dict(self.identity), **content}, buffer)
        body = buffer.getvalue()
        write_whole(self.path, CHECKPOINT_MAGIC + _checksum(body) + body)

    def load(self) -> dict[str, Any]:
        blob, start = (read_whole(self.path), len(CHECKPOINT_MAGIC) + CHECKPOINT_DIGEST_BYTES)
        body = blob[start:]
        if blob[:len(CHECKPOINT_MAGIC)] != CHECKPOINT_MAGIC:
            raise RunError(f'{self.path}: not a checkpoint of this version')
        if blob[len(CHECKPOINT_MAGIC):start] != _checksum(body):
            raise RunError(f'{self.path}: damaged checkpoint, the checksum does not match')
        try:
            content: dict[str, Any] = torch.load(io.BytesIO(body), map_location='cpu', weights_only=True)
            held = content['identity']
        except (RuntimeError, UnpicklingError, EOFError, KeyError, ValueError, TypeError) as error:
            raise RunError(f'{self.path}: unreadable checkpoint ({error})') from error
        differing = sorted((k for k in {*held, *self.identity} if held.get(k) != self.identity.get(k)))
        if differing:
            raise RunError(f"{self.path}: checkpoint of a run with another {', '.join(differing)}")
        return content

    def restore(self, state: RunState, content: Mapping[str, Any]) -> None:
        try:
            state.restore(content)
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            raise RunError(f'{self.path}: does not fit this run ({error})') from error

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

def run_identity(config: Config, train_files: str) -> dict[str, str]:
    values = config.to_environment()
    deciding = [setting.name for section, _, setting, _ in config_settings() if section in DECIDING_SECTIONS]
    shards = ' '.join((f'{path.name}:{shard_length(path)}' for path in find_shards(train_files)))
    return {**{name: values[name] for name in deciding if name not in REPORTING_SETTINGS}, 'DATA_PATH': shards}

def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=CHECKPOINT_DIGEST_BYTES).digest()
PART_LAYERS = {'attention': ('attn.c_q', 'attn.c_q_rows', 'attn.c_k', 'attn.c_v', 'attn.kv_proj', 'attn.value_gate', 'attn.proj'), 'mamba': ('attn.in_proj', 'attn.in_proj_rows', 'attn.mamba_proj', 'attn.mamba_out_proj', 'attn.ssm_in'), 'mlp': ('mlp.fc', 'mlp.proj'), 'head': ('head',)}
START_SEED = 0

def adapted_layers(model: LanguageModel, parts: Sequence[str], frozen_blocks: int=0) -> list[nn.Module]:
    frozen = {id(module) for block in list(model.blocks)[:frozen_blocks] for module in block.modules()}
    lenders = {id(module.owner[0]) for _, module in model.named_modules() if isinstance(module, MatrixRows)}
    names = tuple((name for part in parts for name in PART_LAYERS[part]))
    found: list[nn.Module] = [module for name, module in model.named_modules() if isinstance(module, nn.Linear | BankLinear | MatrixRows) and id(module) not in lenders | frozen if any((f'.{name}'.endswith(f'.{wanted}') for wanted in names))]
    if not found:
        beyond = f' beyond its first {frozen_blocks} blocks' if frozen_blocks else ''
        raise ValueError(f"the model has no layer for adapters on {', '.join(parts)}{beyond}")
    return found

@dataclass(frozen=True)
class AdapterStart:
    layers: tuple[nn.Module, ...]
    down: tuple[Tensor, ...]
    rows: tuple[int, ...]

    @classmethod
    def drawn(cls, layers: Sequence[nn.Module], rank: int) -> AdapterStart:
        generator = torch.Generator().manual_seed(START_SEED)
        weights = [layer.weight for layer in layers if isinstance(layer.weight, Tensor)]
        down = (torch.empty(rank, weight.shape[1]).uniform_(-1, 1, generator=generator).to(weight.device) * weight.shape[1] ** (-0.5) for weight in weights)
        return cls(tuple(layers), tuple(down), tuple((len(weight) for weight in weights)))

    def fresh(self, documents: int) -> Adapters:
        down = [A_KC.expand(documents, -1, -1).clone().requires_grad_() for A_KC in self.down]
        up = [A_KC.new_zeros(documents, rows, len(A_KC)).requires_grad_() for A_KC, rows in zip(self.down, self.rows, strict=True)]
        return Adapters(self.layers, down, up)

@dataclass(frozen=True)
class Adapters:
    layers: tuple[nn.Module, ...]
    down: list[Tensor]
    up: list[Tensor]

    @property
    def weights(self) -> list[Tensor]:
        return [*self.down, *self.up]

    @contextmanager
    def attached(self) -> Iterator[None]:
        with ExitStack() as stack:
            for layer, A_SKC, B_SRK in zip(self.layers, self.down, self.up, strict=True):
                handle = layer.register_forward_hook(partial(_add, A_SKC, B_SRK))
                stack.callback(handle.remove)
            yield

def _add(A_SKC: Tensor, B_SRK: Tensor, _layer: nn.Module, inputs: tuple[Tensor], output_STR: Tensor) -> Tensor:
    x_STC, = inputs
    return output_STR + torch.bmm(torch.bmm(x_STC, A_SKC[:len(x_STC)].mT), B_SRK[:len(x_STC)].mT)
Span: TypeAlias = tuple[int, int]

def document_spans(tokens: Tensor, bos_id: int) -> list[Span]:
    marks = (tokens[:-1] == bos_id).nonzero().flatten().tolist()
    return list(pairwise([*([] if marks[:1] == [0] else [0]), *marks, tokens.numel() - 1]))

@dataclass(frozen=True)
class DocumentGroup:
    spans: tuple[Span, ...]
    chunk: int
    reach: int

    @property
    def chunks(self) -> int:
        return self._chunks_of(self.spans[0])

    def _chunks_of(self, span: Span) -> int:
        return -(-(span[1] - span[0]) // self.chunk)

    def active(self, number: int) -> int:
        return sum((self._chunks_of(span) > number for span in self.spans))

    def batch(self, tokens: Tensor, number: int) -> Batch:
        first_S1, end_S1 = torch.tensor(self.spans[:self.active(number)])[..., None].unbind(1)
        begin = max((number + 1) * self.chunk - self.reach, 0)
        last = min((number + 1) * self.chunk, int((end_S1 - first_S1).max()))
        inputs_ST = first_S1 + torch.arange(begin, last + 1)
        known = inputs_ST <= end_S1
        found = tokens[inputs_ST.clamp(max=tokens.numel() - 1).to(tokens.device)].long()
        scored_ST = (inputs_ST >= first_S1 + number * self.chunk) & (inputs_ST < end_S1)
        return (found.where(known.to(tokens.device), 0), inputs_ST[:, :-1] + 1, scored_ST[:, :-1])

def document_groups(spans: Sequence[Span], size: int, chunk: int, reach: int) -> Iterator[DocumentGroup]:
    for low in range(0, len(spans), size):
        ordered = sorted(spans[low:low + size], key=lambda span: span[0] - span[1])
        yield DocumentGroup(tuple(ordered), chunk, reach)

class GroupLearner(Protocol):

    def learn(self, batch: Batch, losses_ST: Tensor | None, documents: int, memory: Memory | None) -> None:
        pass
ScoreGroup: TypeAlias = Callable[[DocumentGroup], Tensor]
GroupHook: TypeAlias = Callable[[int, int, EvalResult], None]

def evaluate_streams(task: EvalTask) -> EvalResult:
    config = task.config
    spans = document_spans(task.tokens, config.bos_id) if config.isolates else lanes(task.targets, config.eval_lanes)
    groups = list(document_groups(spans, config.eval_batch_seqs, config.eval_stride or task.seq_len, task.seq_len))
    return EvalResult.from_sums(sums_of_all(task.worker, score_groups(task, groups, lambda g: score_group(task, g))))

def lanes(targets: int, count: int) -> list[Span]:
    ends = [targets * lane // count for lane in range(count + 1)]
    return [(first, end) for first, end in pairwise(ends) if first < end]

def new_memory(task: EvalTask) -> Memory:
    if not isinstance(task.model, HymbaLM):
        raise TypeError(f'{type(task.model).__name__} has no memory that could be carried on')
    return task.model.new_memory()

def score_groups(task: EvalTask, groups: Sequence[DocumentGroup], score: ScoreGroup, on_group: GroupHook | None=None) -> Tensor:
    sums_N3 = torch.zeros(len(groups), 3, dtype=torch.float64, device=task.worker.device)
    with evaluation_mode(task.model):
        for index in task.worker.share(len(groups)):
            sums_N3[index] = score(groups[index])
            if on_group is not None:
                on_group(index + 1, len(groups), EvalResult.from_sums(sums_N3.sum(0)))
    return sums_N3

def score_group(task: EvalTask, group: DocumentGroup, learner: GroupLearner | None=None) -> Tensor:
    table = task.table.to(task.worker.device)
    sums_3 = torch.zeros(3, dtype=torch.float64, device=task.worker.device)
    memory = new_memory(task) if task.config.eval_carry else None
    for number in range(group.chunks):
        batch, going_on = (group.batch(task.tokens, number), group.active(number + 1))
        before = memory and memory.first_rows(len(batch[0]))
        memory = before and before.first_rows(len(batch[0]))
        learns = learner is not None and going_on > 0
        with torch.set_grad_enabled(learns):
            losses_ST = batch_losses(task, batch[0], memory)
        sums_3 += batch_sums(task, table, batch, losses_ST.detach())
        if learner is not None and learns:
            learner.learn(batch, losses_ST, going_on, before)
    return sums_3

class CarriedText:

    def __init__(self, task: EvalTask) -> None:
        first = task.worker.rank == 0
        self.task = task if first else replace(task, hooks=Hooks(on_update=task.hooks.on_update))
        self._memory: Memory | None = None

    def score(self, first: int, end: int) -> Tensor:
        task = self.task
        sums_3 = torch.zeros(3, dtype=torch.float64, device=task.worker.device)
        if task.worker.rank == 0:
            table = task.table.to(task.worker.device)
            with torch.no_grad(), evaluation_mode(task.model):
                for window in self._windows(first, end):
                    batch = self._batch(window)
                    sums_3 += batch_sums(task, table, batch, batch_losses(task, batch[0], self._memory))
        return task.worker.all_sum(sums_3)

    def _windows(self, first: int, end: int) -> Iterator[Span]:
        marks = []
        if self.task.config.eval_isolate_docs:
            marks = (first + (self.task.tokens[first:end] == self.task.config.bos_id).nonzero().flatten()).tolist()
        starts = sorted({first, *marks})
        for low, high in zip(starts, [*starts[1:], end], strict=True):
            if self._memory is None or low in marks:
                self._memory = new_memory(self.task)
            yield from ((start, min(start + self.task.seq_len, high)) for start in range(low, high, self.task.seq_len))

    def _batch(self, window: Span) -> Batch:
        start, end = window
        positions_1T = torch.arange(start + 1, end + 1)[None]
        return (self.task.tokens[None, start:end + 1].long(), positions_1T, torch.ones_like(positions_1T).bool())
ChunkHook: TypeAlias = Callable[[int, int, EvalResult], None]

def evaluate_ttt(task: EvalTask, on_chunk: ChunkHook | None=None) -> EvalResult:
    config = task.config
    total_3 = torch.zeros(3, dtype=torch.float64, device=task.worker.device)
    with adapted_weights(task.model, config.ttt_freeze_blocks) as weights:
        adaptation = Adaptation(task, weights)
        chunks, carried = (adaptation.chunks, CarriedText(task) if config.eval_carry else None)
        for number, (first, end) in enumerate(chunks):
            last = number + 1 == len(chunks)
            if carried is not None:
                sums_3, scored = (carried.score(first, end), None)
            else:
                windows = Windows(first, end, task.seq_len, config.eval_stride)
                sums_3, scored = _score_chunk(task, windows, trained=not last)
            total_3 += sums_3
            if on_chunk is not None:
                on_chunk(number + 1, len(chunks), EvalResult.from_sums(total_3))
            if not last:
                adaptation.learn(number, scored)
    return EvalResult.from_sums(total_3)

class Adaptation:

    def __init__(self, task: EvalTask, weights: Sequence[nn.Parameter]) -> None:
        config, targets = (task.config, task.targets)
        self.task, self.weights = (task, weights)
        starts = range(0, targets, config.ttt_chunk_tokens)
        self.chunks = [(first, min(first + config.ttt_chunk_tokens, targets)) for first in starts]
        self.optimizer = torch.optim.SGD(weights, lr=config.ttt_lr, momentum=config.ttt_momentum)

    def learn(self, number: int, scored: Tensor | None=None) -> None:
        first, end = self.chunks[number]
        self.optimizer.param_groups[0]['lr'] = ttt_rate(self.task.config.ttt_lr, number, len(self.chunks))
        lesson = Lesson(self.task, Windows(first, end, self.task.seq_len, 0), self.weights, scored)
        train_on(lesson, self.optimizer)

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
        with frozen_matrices(blocks):
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
    return (sums_of_all(worker, score_windows(task, windows, min(config.eval_batch_seqs, fair))), None)

def train_on(lesson: Lesson, optimizer: torch.optim.Optimizer, falling_from: float | None=None) -> None:
    task, weights = (lesson.task, lesson.weights)
    longest = -(-len(lesson.windows) // task.worker.world_size)
    steps = list(range(0, longest, task.config.ttt_batch_seqs)) * task.config.ttt_epochs
    with evaluation_mode(task.model):
        for number, low in enumerate(steps):
            if falling_from is not None:
                optimizer.param_groups[0]['lr'] = ttt_rate(falling_from, number, len(steps) + 1)
            _compute_gradients(lesson, low, None if number else lesson.scored)
            if task.config.ttt_grad_clip > 0:
                nn.utils.clip_grad_norm_(weights, task.config.ttt_grad_clip)
            optimizer.step()
    if task.hooks.on_update is not None:
        task.hooks.on_update(torch.arange(lesson.windows.first + 1, lesson.windows.end + 1))

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
ADAM_EPS = 1e-10

def evaluate_lora(task: EvalTask, on_chunk: ChunkHook | None=None) -> EvalResult:
    spans = document_spans(task.tokens, task.config.bos_id)
    return EvalResult.from_sums(sums_of_all(task.worker, score_documents(task, spans, on_chunk)))

def score_documents(task: EvalTask, spans: Sequence[Span], on_chunk: ChunkHook | None=None) -> Tensor:
    config, start = (task.config, adapter_start(task))
    groups = list(document_groups(spans, config.ttt_batch_size, config.ttt_chunk_size, reach_of(task)))

    def score(group: DocumentGroup) -> Tensor:
        learner = Learner(task, group, start)
        with learner.adapters.attached():
            return score_group(task, group, learner)
    with frozen_weights(task.model):
        return score_groups(task, groups, score, on_chunk)

def reach_of(task: EvalTask) -> int:
    return task.config.ttt_chunk_size if task.config.eval_carry else task.seq_len

def adapter_start(task: EvalTask) -> AdapterStart:
    config = task.config
    return AdapterStart.drawn(adapted_layers(task.model, config.lora_parts, config.ttt_freeze_blocks), config.ttt_lora_rank)

@contextmanager
def frozen_weights(model: LanguageModel) -> Iterator[None]:
    before = [(weight, weight.requires_grad) for weight in model.parameters()]
    try:
        for weight, _ in before:
            weight.requires_grad = False
        yield
    finally:
        for weight, trainable in before:
            weight.requires_grad_(trainable)

class Learner:

    def __init__(self, task: EvalTask, group: DocumentGroup, start: AdapterStart) -> None:
        config = task.config
        self.task, self.group = (task, group)
        self.adapters = start.fresh(len(group.spans))
        betas = (config.ttt_beta1, config.ttt_beta2)
        self.optimizer = torch.optim.Adam(self.adapters.weights, config.ttt_lora_lr, betas, ADAM_EPS)

    def learn(self, batch: Batch, losses_ST: Tensor | None, documents: int, memory: Memory | None) -> None:
        tokens, positions_ST = (batch[0][:documents], batch[1][:documents, -self.group.chunk:])
        for _ in range(self.task.config.ttt_grad_steps):
            if losses_ST is None:
                losses_ST = batch_losses(self.task, tokens, memory and memory.first_rows(documents))
            self.optimizer.zero_grad()
            losses_ST[:documents, -self.group.chunk:].mean(1).sum().backward()
            self.optimizer.step()
            losses_ST = None
        if self.task.hooks.on_update is not None:
            self.task.hooks.on_update(positions_ST.flatten())

def evaluate_phased(task: EvalTask, on_chunk: ChunkHook | None=None) -> EvalResult:
    spans = document_spans(task.tokens, task.config.bos_id)
    phases = phase_spans(spans, task.config)
    carried = CarriedText(task) if task.config.eval_carry and (not task.config.has_adapters) else None
    total_3 = torch.zeros(3, dtype=torch.float64, device=task.worker.device)
    with adapted_weights(task.model, task.config.ttt_freeze_blocks) as weights:
        for number, (first, end) in enumerate(phases, 1):
            if carried is not None:
                total_3 += carried.score(first, end)
            else:
                total_3 += sums_of_all(task.worker, _score_phase(task, (first, end), spans))
            if on_chunk is not None:
                on_chunk(number, len(phases), EvalResult.from_sums(total_3))
            if number < len(phases):
                learn_from_beginning(task, weights, end)
    return EvalResult.from_sums(total_3)

def phase_ends(config: EvalConfig) -> list[int]:
    phases = range(1, config.phased_num_phases + 1)
    return [config.phased_prefix_docs * phase // config.phased_num_phases for phase in phases]

def phase_spans(spans: Sequence[Span], config: EvalConfig) -> list[Span]:
    ends = [spans[count][0] for count in phase_ends(config) if count < len(spans)]
    return list(zip([0, *ends], [*ends, spans[-1][1]], strict=True))

def phase_windows(task: EvalTask, first: int, end: int) -> Windows:
    return Windows(first, end, task.seq_len, task.config.eval_stride, blind=True)

def learn_from_beginning(task: EvalTask, weights: Sequence[nn.Parameter], end: int) -> None:
    config = task.config
    optimizer = torch.optim.SGD(weights, lr=config.ttt_lr, momentum=config.ttt_momentum)
    train_on(Lesson(task, Windows(0, end, task.seq_len, 0), weights, None), optimizer, config.ttt_lr)

def _score_phase(task: EvalTask, phase: Span, spans: Sequence[Span]) -> Tensor:
    first, end = phase
    if task.config.has_adapters:
        return score_documents(task, [span for span in spans if first <= span[0] < end])
    return score_windows(task, phase_windows(task, first, end), task.config.eval_batch_seqs)

def evaluate_plain(task: EvalTask) -> EvalResult:
    return _evaluate_windows(task, 0)

def evaluate_sliding(task: EvalTask, stride: int) -> EvalResult:
    if stride < 1:
        raise ValueError(f'stride {stride} is not positive')
    return _evaluate_windows(task, stride)

def _evaluate_windows(task: EvalTask, stride: int) -> EvalResult:
    windows = Windows(0, task.targets, task.seq_len, stride)
    return EvalResult.from_sums(sums_of_all(task.worker, score_windows(task, windows, task.config.eval_batch_seqs)))

def evaluation_name(task: EvalTask) -> str:
    config = task.config
    context = f'stride {config.eval_stride}' if config.eval_stride and (not config.has_adapters) else 'plain'
    parts = ['carried' if config.eval_carry else context] + ['documents'] * config.isolates
    if config.ttt_enabled:
        kinds = {'sgd': 'TTT', 'lora': 'LoRA TTT', 'phased': 'phased TTT', 'phased_lora': 'phased LoRA TTT'}
        parts.insert(0, f'score-first {kinds[config.ttt_kind]}')
    return ', '.join(parts)

def evaluate(task: EvalTask, on_chunk: ChunkHook | None=None) -> EvalResult:
    config = task.config
    if config.ttt_enabled:
        adapting = {'sgd': evaluate_ttt, 'lora': evaluate_lora}.get(config.ttt_kind, evaluate_phased)
        return adapting(task, on_chunk)
    if config.eval_carry or config.isolates:
        return evaluate_streams(task)
    return evaluate_sliding(task, config.eval_stride) if config.eval_stride else evaluate_plain(task)
PORTS = 1 << 16

@contextmanager
def started_worker(environ: Mapping[str, str]) -> Iterator[Worker]:
    rank, size, local = (process_number(environ, name, default) for name, default in (('RANK', 0), ('WORLD_SIZE', 1), ('LOCAL_RANK', 0)))
    if rank >= size:
        raise ConfigError(f'RANK: {rank} is not below WORLD_SIZE ({size})')
    if size > 1:
        check_meeting(environ, size)
    if not torch.cuda.is_available():
        worker = Worker(rank, size)
    elif local >= torch.cuda.device_count():
        raise ConfigError(f'LOCAL_RANK: {local} is not below the number of GPUs ({torch.cuda.device_count()})')
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

def check_meeting(environ: Mapping[str, str], size: int) -> None:
    for name in ('MASTER_ADDR', 'MASTER_PORT'):
        if not environ.get(name):
            raise ConfigError(f'{name}: missing, but WORLD_SIZE is {size}; torchrun sets it')
    if (port := process_number(environ, 'MASTER_PORT', 0)) >= PORTS:
        raise ConfigError(f'MASTER_PORT: {port} is not below {PORTS}')

def process_number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, str(default))
    if not text.isdecimal():
        raise ConfigError(f'{name}: {text!r} is not a number from 0')
    return int(text)
DEMO_MODEL = ModelConfig(num_layers=2, model_dim=128, num_heads=4, num_kv_heads=2, mlp_mult=3, ssm_state=4, bigram_buckets=65536, bigram_dim=32, sliding_window=128)
DEMO_OPTIM = OptimConfig(tied_embed_lr=0.02)
DEMO_TRAIN = TrainConfig(warmup_steps=2, warmdown_frac=0.7, train_batch_tokens=1024, train_seq_len=128, max_wallclock_seconds=60.0, train_log_every=20, val_loss_every=0, ema_decay=0.8, grad_accum_steps=1)
DEMO_QUANT = QuantConfig(keep_float_max_numel=4096)
DEMO_EVALUATION = EvalConfig(eval_stride=0, eval_batch_seqs=8, eval_seq_len=512, val_batch_size=16384, ttt_enabled=True, ttt_lr=0.4, ttt_momentum=0.8, ttt_epochs=1, ttt_chunk_tokens=2048, ttt_batch_seqs=4)
PUBLISHED_QUANT = QuantConfig(scale_floor='published', fp16_embed=True)
MINI_MODEL = ModelConfig(num_layers=9, mlp_mult=2, use_smeargate=False, use_bigram_hash=False, hybrid_layers=(4,), fusion='heads', meta_tokens=4, kv_share=True, ssm_state=16, separate_kv=True)
MINI = Config(model=MINI_MODEL, optim=OptimConfig(matrix_lr=0.004, scalar_lr=0.004, embed_lr=0.005, tied_embed_lr=0.005, weight_decay=0.0), train=TrainConfig(iterations=800, warmup_steps=100, warmdown_iters=1200, warmdown_shape='linear', train_seq_len=1024, max_wallclock_seconds=1800.0, train_log_every=50, val_loss_every=200, ema_decay=0.0), quant=QuantConfig(bits=8, clip_search=False, scale_floor='published'), evaluation=EvalConfig(eval_stride=0))
BANKED_MODEL = ModelConfig(num_layers=11, mlp_mult=3, use_unet_skips=False, use_smeargate=False, use_bigram_hash=False, hybrid_layers=tuple(range(10)), banks='shared', conv_width=3, fused_projection=False, separate_kv=True)
BANKED = Config(model=replace(BANKED_MODEL, activation='silu', rope_dims=16, logit_softcap=0.0), optim=OptimConfig(scalar_lr=0.01, muon_momentum=0.99, muon_backend_steps=3, muon_sharded=True, weight_decay=0.04), train=TrainConfig(warmdown_iters=3500, train_seq_len=1024), quant=QuantConfig(bits=4), evaluation=EvalConfig(eval_stride=0))
PRESETS: Mapping[str, Config] = MappingProxyType({'demo': Config(model=DEMO_MODEL, optim=DEMO_OPTIM, train=DEMO_TRAIN, quant=DEMO_QUANT, evaluation=DEMO_EVALUATION), 'demo_attention': Config(model=replace(DEMO_MODEL, use_hymba=False, mlp_hidden=592), optim=DEMO_OPTIM, train=DEMO_TRAIN, quant=DEMO_QUANT, evaluation=DEMO_EVALUATION), 'demo_baseline': Config(model=ModelConfig(num_layers=9, model_dim=192, num_heads=4, num_kv_heads=2, mlp_hidden=416, use_hymba=False, use_bigram_hash=False, use_smeargate=False, sliding_window=128), optim=DEMO_OPTIM, train=DEMO_TRAIN, quant=DEMO_QUANT, evaluation=DEMO_EVALUATION), 'pr599': Config(quant=PUBLISHED_QUANT), 'pr914': Config(model=ModelConfig(activation='leaky_relu2', fused_projection=False, sliding_window=512), train=TrainConfig(train_seq_len=32768), quant=PUBLISHED_QUANT, evaluation=EvalConfig(eval_stride=0, eval_batch_seqs=4, ttt_enabled=True, ttt_freeze_blocks=2)), 'pr1245': Config(model=ModelConfig(num_layers=8, activation='leaky_relu2', fused_projection=False, sliding_window=1024, ssm_state=4, tie_embeddings=False), optim=OptimConfig(weight_decay=0.15), train=TrainConfig(train_seq_len=32768, warmdown_iters=7000, ema_every=10, grad_accum_steps=1), quant=replace(PUBLISHED_QUANT, bits=8, clip_search=False), evaluation=EvalConfig(eval_stride=0, eval_batch_seqs=4, ttt_enabled=True, ttt_epochs=25)), 'mini1961': MINI, 'mini1961_3': replace(MINI, model=replace(MINI_MODEL, hybrid_layers=(3, 4, 5)), train=replace(MINI.train, iterations=200, max_wallclock_seconds=900.0)), 'pr852_records': BANKED, 'pr852': replace(BANKED, model=replace(BANKED_MODEL, banks='separate', activation='leaky_relu2', leaky_relu_slope=0.5, use_bigram_hash=True, bigram_buckets=2048), train=replace(BANKED.train, qat_start=0.85), evaluation=EvalConfig(eval_stride=0, eval_batch_seqs=4, ttt_enabled=True)), 'paper': Config(model=ModelConfig(mlp_mult=3, activation='silu', use_unet_skips=False, use_smeargate=False, use_bigram_hash=False, fusion='norms', meta_tokens=256, kv_share=True, ssm_state=16, sliding_window=1024, global_layers=None), evaluation=EvalConfig(eval_stride=0, eval_batch_seqs=4))})

class Course(Protocol):

    def window(self, place: int, memory: Memory) -> int | None:
        pass

class WindowCourse:

    def __init__(self, windows: Windows) -> None:
        self._windows, self._index, self._end = (windows, 0, windows.first)

    def window(self, place: int, memory: Memory) -> int | None:
        if place != self._end:
            return None
        start, _, self._end = self._windows.bounds(self._index)
        self._index += 1
        return start

class StreamCourse:

    def __init__(self, task: EvalTask, chunk: int) -> None:
        self.task, self.chunk = (task, chunk)
        self.first, self.number = (0, 0)
        self._lanes = {first for first, _ in lanes(task.targets, task.config.eval_lanes)}

    def begins(self, place: int) -> bool:
        config = self.task.config
        return place in self._lanes or (config.isolates and int(self.task.tokens[place]) == config.bos_id)

    def ends_chunk(self, place: int) -> bool:
        return not self.begins(place) and place == self.first + (self.number + 1) * self.chunk

    def window(self, place: int, memory: Memory) -> int | None:
        if self.begins(place):
            self.first, self.number = (place, 0)
            return place
        if not self.ends_chunk(place):
            return None
        self.number += 1
        if self.task.config.eval_carry:
            return None
        return self.first + max((self.number + 1) * self.chunk - self.task.seq_len, 0)

class ChunkCourse:

    def __init__(self, task: EvalTask, adaptation: Adaptation) -> None:
        self._task, self._adaptation, self._threads = (task, adaptation, torch.get_num_threads())
        self._chunk = -1
        self._inner: Course = StreamCourse(task, task.seq_len)

    def window(self, place: int, memory: Memory) -> int | None:
        chunks = self._adaptation.chunks
        if place == (chunks[self._chunk][1] if self._chunk >= 0 else 0):
            self._chunk += 1
            if self._chunk:
                with computing_threads(self._threads):
                    self._adaptation.learn(self._chunk - 1)
            if not self._task.config.eval_carry:
                stride = self._task.config.eval_stride
                self._inner = WindowCourse(Windows(*chunks[self._chunk], self._task.seq_len, stride))
        return self._inner.window(place, memory)

class DocumentCourse:

    def __init__(self, task: EvalTask) -> None:
        self._task, self._start, self._threads = (task, adapter_start(task), torch.get_num_threads())
        self._stream = StreamCourse(task, task.config.ttt_chunk_size)
        self._before: Memory | None = None
        self._learner: Learner | None = None
        self._attached = ExitStack()

    def window(self, place: int, memory: Memory) -> int | None:
        if self._stream.begins(place):
            self.detach()
        elif self._stream.ends_chunk(place):
            with computing_threads(self._threads), frozen_weights(self._task.model):
                self._learn(DocumentGroup(((self._stream.first, place),), self._stream.chunk, reach_of(self._task)))
            self._before = memory.first_rows(1) if self._task.config.eval_carry else None
        return self._stream.window(place, memory)

    def _learn(self, document: DocumentGroup) -> None:
        if self._learner is None:
            self._learner = Learner(self._task, document, self._start)
            self._attached.enter_context(self._learner.adapters.attached())
        before = self._before
        if before is None and self._task.config.eval_carry:
            before = new_memory(self._task)
        self._learner.learn(document.batch(self._task.tokens, self._stream.number), None, 1, before)

    def detach(self) -> None:
        self._attached.close()
        self._learner = self._before = None

class PhasedCourse:

    def __init__(self, task: EvalTask, weights: Sequence[nn.Parameter], documents: DocumentCourse | None) -> None:
        self._task, self._weights, self._documents = (task, weights, documents)
        self._threads, self._finished = (torch.get_num_threads(), 0)
        self._windows: Course = StreamCourse(task, task.seq_len)
        if not task.config.eval_carry:
            self._windows = WindowCourse(phase_windows(task, 0, task.targets))

    def window(self, place: int, memory: Memory) -> int | None:
        if place and int(self._task.tokens[place]) == self._task.config.bos_id:
            self._finished += 1
            if self._finished in phase_ends(self._task.config):
                self._end_phase(place)
        return (self._documents or self._windows).window(place, memory)

    def _end_phase(self, place: int) -> None:
        if self._documents is not None:
            self._documents.detach()
        with computing_threads(self._threads):
            learn_from_beginning(self._task, self._weights, place)
        if not self._task.config.eval_carry:
            self._windows = WindowCourse(phase_windows(self._task, place, self._task.targets))

@contextmanager
def open_course(task: EvalTask) -> Iterator[Course]:
    config = task.config
    if not config.ttt_enabled:
        yield fixed_course(task)
        return
    documents = DocumentCourse(task) if config.has_adapters else None
    with ExitStack() as stack:
        if documents is not None:
            stack.callback(documents.detach)
        if config.ttt_kind == 'lora' and documents is not None:
            yield documents
            return
        weights = stack.enter_context(adapted_weights(task.model, config.ttt_freeze_blocks))
        if config.ttt_kind == 'sgd':
            yield ChunkCourse(task, Adaptation(task, weights))
        else:
            yield PhasedCourse(task, weights, documents)

def fixed_course(task: EvalTask) -> Course:
    config = task.config
    if config.eval_carry or config.isolates:
        return StreamCourse(task, config.eval_stride or task.seq_len)
    return WindowCourse(Windows(0, task.targets, task.seq_len, config.eval_stride))

@contextmanager
def computing_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

class Predictor:

    def __init__(self, task: EvalTask, model: HymbaLM, course: Course) -> None:
        self._task, self._model, self._course = (task, model, course)
        self._observed = 0
        self._memory: Memory = model.new_memory()
        self._logprobs_V: Tensor | None = None

    def observe(self, token: int) -> None:
        tokens, vocab_size = (self._task.tokens, self._model.config.vocab_size)
        if not 0 <= token < vocab_size:
            raise ValueError(f'token {token} is outside the vocabulary of {vocab_size}')
        if self._observed == tokens.numel():
            raise ValueError(f'token {token} after the end of a text of {tokens.numel()}')
        if self._observed and self._logprobs_V is None:
            self.predict()
        tokens[self._observed] = token
        self._observed += 1
        self._logprobs_V = None

    def predict(self) -> Tensor:
        if not 0 < self._observed < self._task.tokens.numel():
            raise ValueError(f'no token to predict after {self._observed} of {self._task.tokens.numel()}')
        if self._logprobs_V is None:
            self._logprobs_V = self._next(self._observed - 1).log_softmax(-1).cpu()
        return self._logprobs_V

    def _next(self, place: int) -> Tensor:
        start = self._course.window(place, self._memory)
        if start is not None:
            self._memory = self._model.new_memory()
        worker = self._task.worker
        inputs_1T = self._task.tokens[None, place if start is None else start:place + 1].long().to(worker.device)
        with torch.no_grad(), worker.precision():
            logits_1TV: Tensor = self._model(inputs_1T, self._memory)
        return logits_1TV[0, -1]

@contextmanager
def predicting(model: HymbaLM, tokens: int, config: EvalConfig, seq_len: int, worker: Worker | None=None) -> Iterator[Predictor]:
    nothing_V = torch.zeros(model.config.vocab_size, dtype=torch.int64)
    table = ByteTable(nothing_V, nothing_V.bool(), nothing_V.bool())
    text = torch.zeros(tokens, dtype=torch.int32)
    task = EvalTask(model, text, table, config, seq_len, worker or Worker())
    with open_course(task) as course, evaluation_mode(model), computing_threads(1):
        yield Predictor(task, model, course)
PREDICT_PROTOCOL = 'predict/1'
CHANNEL_VARIABLE = 'PROBE_CHANNEL_FD'
START_LINE_BYTES = 4096
WIRE_FORMAT = '<I'
OpenPredictor: TypeAlias = Callable[[int], AbstractContextManager[Predictor]]

def serve_artifact(config: Config, worker: Worker, environ: Mapping[str, str]) -> None:
    if worker.world_size > 1:
        raise ConfigError(f'SERVE_ONLY: is for one process, not for {worker.world_size}')
    model = HymbaLM(config.model).to(worker.device)
    model.load_state_dict(unpack_model(read_whole(artifact_path(config)), config.model))
    open_predictor = partial(predicting, model, config=config.evaluation, seq_len=config.eval_seq_len, worker=worker)
    with protocol_streams(environ) as (source, sink):
        serve(open_predictor, config.model.vocab_size, source, sink)

@contextmanager
def protocol_streams(environ: Mapping[str, str]) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    number = environ.get(CHANNEL_VARIABLE, '')
    answers = _channel(number) if number else os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(os.dup(0), 'rb') as source, os.fdopen(answers, 'wb') as sink:
        yield (source, sink)

def _channel(number: str) -> int:
    try:
        mode = fcntl.fcntl(int(number), fcntl.F_GETFL) & os.O_ACCMODE
    except (ValueError, OverflowError, OSError):
        raise ConfigError(f'{CHANNEL_VARIABLE}: {number!r} is not the number of an open file') from None
    if mode == os.O_RDONLY:
        raise ConfigError(f'{CHANNEL_VARIABLE}: {number} is a file that cannot be written to')
    return int(number)

def serve(open_predictor: OpenPredictor, vocab_size: int, source: IO[bytes], sink: IO[bytes]) -> int:
    count = _read_start(source)
    reply = {'protocol': PREDICT_PROTOCOL, 'vocab_size': vocab_size, 'dtype': 'float32'}
    sink.write(json.dumps(reply).encode() + b'\n')
    sink.flush()
    with open_predictor(count) as predictor:
        _observe(predictor, source)
        for _ in range(count - 1):
            sink.write(predictor.predict().numpy().astype('<f4').tobytes())
            sink.flush()
            _observe(predictor, source)
    return count

def _read_start(source: IO[bytes]) -> int:
    line = source.readline(START_LINE_BYTES)
    try:
        start = json.loads(line)
        protocol, count = (start['protocol'], start['tokens'])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise RunError(f'{line[:80]!r}: not a line that begins {PREDICT_PROTOCOL}') from None
    if protocol != PREDICT_PROTOCOL:
        raise RunError(f'{str(protocol)[:80]!r}: only {PREDICT_PROTOCOL} is spoken here')
    if not isinstance(count, int) or not 2 <= count < 1 << 40:
        raise RunError(f'{str(count)[:80]}: no number of tokens with anything to predict')
    return count

def _observe(predictor: Predictor, source: IO[bytes]) -> None:
    data = source.read(struct.calcsize(WIRE_FORMAT))
    if len(data) < struct.calcsize(WIRE_FORMAT):
        raise RunError('the tokens ended early')
    try:
        predictor.observe(*struct.unpack(WIRE_FORMAT, data))
    except ValueError as error:
        raise RunError(str(error)) from error

@contextmanager
def rounded_weights(model: nn.Module, config: QuantConfig) -> Iterator[None]:
    own = [(parameter, parameter.data) for parameter in model.parameters()]
    try:
        for name, parameter in model.named_parameters():
            if tensor_kind(name, parameter, config).startswith('int'):
                parameter.data = _rounded(name, parameter.data, config)
        yield
    finally:
        for parameter, value in own:
            parameter.data = value

def _rounded(name: str, weight: torch.Tensor, config: QuantConfig) -> torch.Tensor:
    bits = role_bits(name, config)
    try:
        stored = quantize_rows(weight, bits, scale_floor=config.scale_floor, clip_search=config.clip_search)
    except QuantizeError as error:
        raise QuantizeError(f'{name}: {error}') from error
    return dequantize_rows(stored)
Clock: TypeAlias = Callable[[], float]
Validation: TypeAlias = Callable[[], tuple[float, float]]
MICRO_BATCHES_BY_DEFAULT = 8
FIRST_STEPS_LOGGED = 10
ODD_WEIGHTS = 5
TRAIN_FILES = 'fineweb_train_*.bin'

class TrainingError(RuntimeError):
    pass

@dataclass
class Stopwatch:
    clock: Clock
    device: str
    before_s: float = 0.0
    _since_s: float = field(default=0.0, init=False)

    def start(self) -> None:
        self._since_s = self._now()

    def elapsed_s(self) -> float:
        return self.before_s + self._now() - self._since_s

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.before_s = self.elapsed_s()
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
    checkpoints: Checkpoints = field(default_factory=Checkpoints)

    def run(self) -> TrainingResult:
        saved = self.checkpoints.load() if self.checkpoints.resume else None
        self.model.train()
        self._warm_up()
        schedule, settings = (Schedule.from_config(self.config.train), self.config.train)
        average = ExponentialAverage(settings.ema_decay ** settings.ema_every)
        state = RunState(self.model, self._optimizers(), average)
        if saved is not None:
            self.checkpoints.restore(state, saved)
            self._report_resumed(state)
        watch = Stopwatch(self.clock, self.worker.device, state.train_s)
        rounding, loss = (False, torch.zeros((), device=self.worker.device))
        watch.start()
        while not schedule.is_over(state.step, (elapsed_s := self._agree(watch.elapsed_s(), state.step, loss))):
            if not rounding and (rounding := schedule.rounds_weights(state.step, elapsed_s)):
                self.log.say(f'qat:on after_step:{state.step}/{settings.iterations}')
            loss = self._step(state.optimizers, state.step, schedule.factor(state.step, elapsed_s), rounding=rounding)
            state.step += 1
            if state.step % settings.ema_every == 0:
                average.update(self.model.named_parameters())
            self._report(state.step, loss, watch)
            if self.checkpoints.is_due(state.step):
                self._save(state, watch, loss)
        self._report_end(state.step, elapsed_s, schedule)
        return TrainingResult(state.step, elapsed_s, average.values())

    def _save(self, state: RunState, watch: Stopwatch, loss: Tensor) -> None:
        state.train_s = self._agree(watch.elapsed_s(), state.step, loss)
        content = state.content()
        if (odd := sorted((name for name, weight in content['weights'].items() if not bool(weight.isfinite().all())))):
            raise TrainingError(f"weights that are not finite after step {state.step}: {', '.join(odd[:ODD_WEIGHTS])}")
        if self.worker.rank == 0:
            self.checkpoints.save(content)

    def _optimizers(self) -> Optimizers:
        dtype = self.worker.autocast or torch.float32
        return build_optimizers(self.model, self.config, dtype, Exchange(self.worker))

    def _step(self, optimizers: Optimizers, step: int, factor: float, *, rounding: bool=False) -> Tensor:
        with rounded_weights(self.model, self.config.quant) if rounding else nullcontext():
            total = self._backward(step)
        optimizers.step(factor, muon_momentum(self.config.optim, step))
        return total

    def _backward(self, step: int) -> Tensor:
        accumulation = accumulation_steps(self.config, self.worker.world_size)
        total = torch.zeros((), device=self.worker.device)
        for micro in range(accumulation):
            inputs_BT, targets_BT = self.loader.batch(step, micro)
            with self.worker.precision():
                loss = self.model.token_losses(inputs_BT, targets_BT).mean() / accumulation
            loss.backward()
            total += loss.detach()
        return total

    def _warm_up(self) -> None:
        settings = self.config.train
        before = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        optimizers = self._optimizers()
        for step in range(settings.warmup_steps):
            self._step(optimizers, step, 1.0)
            self.log.say(f'warmup_step:{step + 1}/{settings.warmup_steps}')
        self.model.load_state_dict(before)

    def _agree(self, elapsed_s: float, step: int, loss: Tensor) -> float:
        own = torch.tensor(elapsed_s, dtype=torch.float64, device=self.worker.device)
        longest = torch.where(loss.isfinite(), own, math.inf)
        if self.worker.world_size > 1:
            dist.all_reduce(longest, op=dist.ReduceOp.MAX)
        if not math.isfinite((longest_s := longest.item())):
            raise TrainingError(f'training loss that is not finite at step {step}')
        return float(longest_s)

    def _report(self, step: int, loss: Tensor, watch: Stopwatch) -> None:
        settings = self.config.train
        shown = step <= FIRST_STEPS_LOGGED or step % max(settings.train_log_every, 1) == 0
        if step == settings.iterations or (settings.train_log_every and shown):
            value = self.worker.all_sum(loss.clone()).item() / self.worker.world_size
            self.log.say(train_line(Progress(step, settings.iterations, 1000.0 * watch.elapsed_s()), value))
        if self.validate is not None and settings.val_loss_every and (step % settings.val_loss_every == 0):
            progress = Progress(step, settings.iterations, 1000.0 * watch.elapsed_s())
            with watch.paused():
                self.log.say(validation_line(progress, *self.validate()))

    def _report_resumed(self, state: RunState) -> None:
        progress = Progress(state.step, self.config.train.iterations, 1000.0 * state.train_s)
        self.log.say(resume_line(self.checkpoints.path.name, progress))

    def _report_end(self, step: int, elapsed_s: float, schedule: Schedule) -> None:
        progress = Progress(step, self.config.train.iterations, 1000.0 * elapsed_s)
        if self.validate is not None:
            self.log.say(validation_line(progress, *self.validate()))
        if schedule.is_timed and step < self.config.train.iterations:
            self.log.say(stop_line(progress))
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
        size, mark = tokenizer_numbers(data.tokenizer_path)
        if size != vocab_size:
            raise ConfigError(f'VOCAB_SIZE: {vocab_size}, but the tokenizer has {size} tokens')
        if config.evaluation.by_document and mark != config.evaluation.bos_id:
            raise ConfigError(f'BOS_ID: {config.evaluation.bos_id}, but the tokenizer begins documents with {mark}')
        tokens = blaming('DATA_PATH', lambda: load_validation(f'{data.data_path}/{VALIDATION_FILES}', vocab_size))
        return cls(tokens, table)

def tokenizer_numbers(path: str) -> tuple[int, int]:
    import sentencepiece
    model = sentencepiece.SentencePieceProcessor(model_file=path)
    return (model.vocab_size(), model.bos_id())

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
        config = replace(self.config, train=self.config.schedule)
        if (reserved_s := (self.config.train.max_wallclock_seconds - config.train.max_wallclock_seconds)):
            self.log.say(reserve_line(reserved_s, config.train.max_wallclock_seconds))
        checkpoints = self._checkpoints()
        trainer = Trainer(model, config, loader, self.worker, self.log, self.clock, validate, checkpoints)
        self._save(model, loader, trainer.run())
        if self.config.evaluation.diagnostics:
            began_s = self.clock()
            scores = self.score_plain(model, inputs, stride=self.config.evaluation.eval_stride)
            self.log.say(diagnostic_line('post_ema', scores, self.clock() - began_s))
        self.repack()
        self._score_artifact(model, inputs)
        if self.worker.rank == 0 and (checkpoints.every or checkpoints.resume):
            checkpoints.remove()

    def _checkpoints(self) -> Checkpoints:
        train, path = (self.config.train, Path(self.config.data.checkpoint_path))
        identity = run_identity(self.config, f'{self.config.data.data_path}/{TRAIN_FILES}')
        return Checkpoints(path, train.checkpoint_every, train.resume, identity)

    def repack(self) -> None:
        if self.worker.rank == 0:
            weights = Path(self.config.data.weights_path)
            rounded = load_rounded(weights) if self.config.quant.method == 'gptq' else {}
            began_s = self.clock()
            blob = pack_model(load_state(weights), self.config, rounded)
            self._report_size(blob)
            self.log.say(packing_line(self._quantizer(blob), self.clock() - began_s))
            write_whole(artifact_path(self.config), blob)
        self._wait_for_all()

    def score_only(self) -> None:
        inputs, model = (Inputs.load(self.config), build_model(self.config, self.worker.device))
        self._describe(inputs, model)
        self._report_size(read_whole(artifact_path(self.config)))
        self._score_artifact(model, inputs)

    def score_plain(self, model: HymbaLM, inputs: Inputs, *, stride: int) -> tuple[float, float]:
        evaluation = replace(self.config.evaluation, ttt_enabled=False, eval_stride=stride)
        plain = replace(self.config, evaluation=evaluation)
        result = evaluate(evaluation_task(model, inputs, plain, self.worker))
        return (result.val_loss, result.val_bpb)

    @property
    def _validates(self) -> bool:
        return self.config.evaluation.diagnostics or self.config.train.val_loss_every > 0

    def _save(self, model: HymbaLM, loader: BatchLoader, result: TrainingResult) -> None:
        last, rounded = (cpu_state(model), dict[str, QuantizedTensor]())
        model.load_state_dict(result.average, strict=False)
        if self.config.quant.method == 'gptq':
            calibrator = Calibrator(model, self.config, loader, self.worker, self.log, self.clock)
            rounded = calibrator.rounded(result.steps, result.train_s)
        if self.worker.rank == 0:
            weights = Path(self.config.data.weights_path)
            write_whole(raw_path(weights), state_bytes(last))
            write_whole(weights, state_bytes(cpu_state(model), rounded))
        self._wait_for_all()

    def _wait_for_all(self) -> None:
        self.worker.all_sum(torch.zeros(1, device=self.worker.device))

    def _describe(self, inputs: Inputs, model: HymbaLM) -> None:
        train, data = (self.config.train, self.config.data)
        scoring = self.config.evaluation.eval_only
        accumulation = 1 if scoring else accumulation_steps(self.config, self.worker.world_size)
        self.log.say(f'val_bpb:enabled tokenizer_kind=sentencepiece tokenizer_path={data.tokenizer_path}', f'val_loader:shards pattern={data.data_path}/{VALIDATION_FILES} tokens:{inputs.tokens.numel() - 1}', f'model_params:{sum((parameter.numel() for parameter in model.parameters()))}', f'world_size:{self.worker.world_size} grad_accum_steps:{accumulation}', f'train_batch_tokens:{train.train_batch_tokens} train_seq_len:{train.train_seq_len} iterations:{train.iterations} warmup_steps:{train.warmup_steps} max_wallclock_seconds:{train.max_wallclock_seconds:.3f}', f'seed:{train.seed}')

    def _report_size(self, artifact: bytes) -> None:
        code_bytes = self.script.stat().st_size
        self.log.say(*size_lines(self._quantizer(artifact), code_bytes, len(artifact)))
        if (total := (code_bytes + len(artifact))) > TOTAL_CAP_BYTES:
            raise RunError(f'{total} bytes of code and model, the cap is {TOTAL_CAP_BYTES}')

    def _quantizer(self, artifact: bytes) -> str:
        quant = self.config.quant
        return f'int{quant.bits}+{CODINGS[coding_of(artifact)].label.format(level=quant.zstd_level)}'

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
    hooks = audit_hooks()
    return EvalTask(model, inputs.tokens, inputs.table, config.evaluation, config.eval_seq_len, worker, hooks)

def build_model(config: Config, device: str) -> HymbaLM:
    torch.manual_seed(config.train.seed)
    return HymbaLM(config.model).to(device)

def read_config(environ: Mapping[str, str], preset: str) -> Config:
    config = Config.from_environment(environ, PRESETS[preset])
    evaluation = config.evaluation
    modes = {'EVAL_ONLY': evaluation.eval_only, 'REPACK_ONLY': evaluation.repack_only, 'SERVE_ONLY': evaluation.serve_only, 'RESUME': config.train.resume}
    if len((chosen := [name for name, wanted in modes.items() if wanted])) > 1:
        raise ConfigError(f'{chosen[0]}: excludes {chosen[1]}')
    if not (evaluation.eval_only or evaluation.serve_only) and (missing := missing_packages(config.quant.coder)):
        raise ConfigError(f"COMPRESSOR: {config.quant.coder} needs packages not installed here: {', '.join(missing)}")
    if not RUN_NAME.fullmatch(config.data.run_id):
        raise ConfigError(f'RUN_ID: {config.data.run_id!r} is not a file name of letters, digits, _ . and -')
    return config

def main(environ: Mapping[str, str], script: Path, preset: str, *, clock: Clock=time.perf_counter) -> int:
    try:
        config = read_config(environ, preset)
        with started_worker(environ) as worker:
            if config.evaluation.serve_only:
                serve_artifact(config, worker, environ)
            else:
                start_run(config, worker, script, clock)
    except ConfigError as error:
        sys.stderr.write(f'{script.name}: {error}\n')
        return EXIT_USAGE
    except (RunError, ArtifactError, QuantizeError, ShardError, TrainingError) as error:
        sys.stderr.write(f'{script.name}: {error}\n')
        return EXIT_FAILED
    return 0

def refuse_to_lose_checkpoint(config: Config) -> None:
    train, path = (config.train, Path(config.data.checkpoint_path))
    if train.checkpoint_every and (not train.resume) and path.exists():
        raise ConfigError(f'CHECKPOINT_PATH: {path} is there already; RESUME=1 goes on from it')

def start_run(config: Config, worker: Worker, script: Path, clock: Clock) -> None:
    evaluation = config.evaluation
    mode = '.eval' if evaluation.eval_only else '.repack' if evaluation.repack_only else ''
    if not mode:
        refuse_to_lose_checkpoint(config)
    path = Path('logs') / f'{config.data.run_id}{mode}.txt'
    log = RunLog(path, enabled=worker.rank == 0, goes_on=config.train.resume)
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
    sys.exit(main(os.environ, Path(__file__), preset='mini1961'))
