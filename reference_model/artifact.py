"""The stored model: bytes in, bytes out.

    magic (4) | BLAKE2b-128 of what follows (16) | coded content

The magic names the coder; `payload` says what the content is, `codings` how it is coded, docs/packing.md both.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import zstandard
from torch import Tensor

from reference_model.coders import CoderError
from reference_model.codings import CODINGS, HeaderCheck, codings_of, decode_content
from reference_model.config import QuantConfig
from reference_model.payload import (
    FLOAT_TYPES,
    RAW_CAP_BYTES,
    Content,
    TensorEntry,
    checked_entry,
    decoded_tensors,
    integer_entries,
    integer_matrices,
    parse_header,
    planes,
)
from reference_model.quantize import QuantizedTensor, QuantizeError, check_finite, quantize_rows, tensor_kind

MAGIC_BYTES = 4
DIGEST_BYTES = 16


class ArtifactError(ValueError):
    """Bytes that are no artifact of ours, or weights that cannot become one."""


def pack(
    state: Mapping[str, Tensor],
    model_config_json: str,
    quant: QuantConfig,
    rounded: Mapping[str, QuantizedTensor] | None = None,
) -> bytes:
    """Quantize and compress weights; equal input gives equal bytes.

    Args:
        state: name -> weight, each stored once (a tied one under one name).
        model_config_json: a JSON object that rebuilds the model; unpacking gives it back.
        quant: bits, scales, threshold, coder.
        rounded: tensors that are in integers already; the others are rounded to nearest.

    Raises:
        ArtifactError: a weight is not floating point or not finite, a name is unusable, two are one tensor, a tensor
            was rounded to other bits or another shape, or a package of the coder is not installed.
    """
    return smallest(packed_content(state, model_config_json, quant, rounded), quant)


def packed_content(
    state: Mapping[str, Tensor],
    model_config_json: str,
    quant: QuantConfig,
    rounded: Mapping[str, QuantizedTensor] | None = None,
) -> Content:
    """What `pack` stores, before it is coded; raises ArtifactError as it does."""
    _refuse_other_types(state)
    _refuse_shared(state)
    weights = {name: weight.detach().cpu().float() for name, weight in state.items()}
    entries = sorted((_entry(name, weight, quant) for name, weight in weights.items()), key=_packing_order)
    quantized = {
        entry.name: _checked(entry, rounded[entry.name])
        if rounded and entry.name in rounded
        else _quantized(entry, weights[entry.name], quant)
        for entry in integer_entries(entries)
    }
    tensors = [[entry.name, list(entry.shape), entry.kind] for entry in entries]
    head = json.dumps({"config": json.loads(model_config_json), "tensors": tensors}, separators=(",", ":")).encode()
    sections = [planes((tensor.scale.numpy() for tensor in quantized.values()), "<f2")]
    for kind, code in FLOAT_TYPES.items():
        sections.append(planes((weights[entry.name].numpy() for entry in entries if entry.kind == kind), code))
    return Content(head, tuple(entries), integer_matrices(entries, quantized), b"".join(sections))


def smallest(content: Content, quant: QuantConfig) -> bytes:
    """The artifact of a content by the coder that is set, or by the best of all; raises ArtifactError."""
    try:
        artifacts = [encoded(content, name, quant.zstd_level) for name in codings_of(quant.coder)]
    except CoderError as error:
        raise ArtifactError(f"COMPRESSOR: {error}") from error
    return min(artifacts, key=len)


def encoded(content: Content, coding: str, zstd_level: int) -> bytes:
    """The artifact of a content by one coder; raises CoderError where its package is missing."""
    coded = CODINGS[coding].encode(content, zstd_level)
    return CODINGS[coding].magic + _digest(coded) + coded


def coding_of(blob: bytes) -> str:
    """The coder of an artifact; raises ArtifactError where it is none."""
    for name, coding in CODINGS.items():
        if len(blob) > MAGIC_BYTES + DIGEST_BYTES and blob.startswith(coding.magic):
            return name
    magics = ", ".join(str(coding.magic) for coding in CODINGS.values())
    raise ArtifactError(f"not an artifact: {len(blob)} bytes that begin with none of {magics}")


def accept_any(_header: Mapping[str, Any], _shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Expect nothing of an artifact."""


def unpack(
    blob: bytes, raw_cap_bytes: int = RAW_CAP_BYTES, expect: HeaderCheck = accept_any
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Check and decode an artifact.

    Args:
        blob: the whole artifact.
        raw_cap_bytes: limit of its decompressed size.
        expect: called with the header and the shapes by name before any weight is read; raises to refuse them.

    Returns:
        The header, and name -> float32 weight.

    Raises:
        ArtifactError: anything is wrong with it, or a package of its coder is not installed.
    """
    content = read_content(blob, raw_cap_bytes, expect)
    try:
        return parse_header(content.head)[0], dict(decoded_tensors(content))
    except (CoderError, QuantizeError) as error:
        raise ArtifactError(f"damaged artifact: {error}") from error


def read_content(blob: bytes, raw_cap_bytes: int = RAW_CAP_BYTES, expect: HeaderCheck = accept_any) -> Content:
    """What an artifact stores, as `unpack` reads it and with the same errors."""
    coding, coded = CODINGS[coding_of(blob)], blob[MAGIC_BYTES + DIGEST_BYTES :]
    if _digest(coded) != blob[MAGIC_BYTES : MAGIC_BYTES + DIGEST_BYTES]:
        raise ArtifactError("damaged artifact: the checksum does not match")
    try:
        return decode_content(coding, coded, raw_cap_bytes, expect)
    except (zstandard.ZstdError, CoderError) as error:
        raise ArtifactError(f"damaged artifact: {error}") from error


def _digest(coded: bytes) -> bytes:
    return hashlib.blake2b(coded, digest_size=DIGEST_BYTES).digest()


def _refuse_other_types(state: Mapping[str, Tensor]) -> None:
    """Raise ArtifactError where a weight would come back as something else than it was: integers, complex numbers."""
    for name, weight in state.items():
        if not weight.is_floating_point():
            raise ArtifactError(f"{name}: {weight.dtype} is not floating point")


def _refuse_shared(state: Mapping[str, Tensor]) -> None:
    owners: dict[tuple[object, ...], str] = {}
    for name, weight in state.items():
        key = (weight.device, weight.data_ptr(), weight.shape, weight.stride())
        if weight.numel() and owners.setdefault(key, name) != name:
            raise ArtifactError(f"{name} and {owners[key]} are one tensor: store it under one name")


def _entry(name: str, weight: Tensor, quant: QuantConfig) -> TensorEntry:
    try:
        check_finite(weight)
        return checked_entry(name, list(weight.shape), tensor_kind(name, weight, quant))
    except QuantizeError as error:
        raise ArtifactError(f"{name}: {error}") from error
    except CoderError as error:
        raise ArtifactError(str(error)) from error


def _packing_order(entry: TensorEntry) -> tuple[str, str, str]:
    """Tensors of one role in different layers become neighbours: their statistics are alike."""
    return entry.kind, re.sub(r"\d+", "", entry.name), entry.name


def _quantized(entry: TensorEntry, weight: Tensor, quant: QuantConfig) -> QuantizedTensor:
    try:
        return quantize_rows(weight, entry.bits, scale_floor=quant.scale_floor, clip_search=quant.clip_search)
    except QuantizeError as error:
        raise ArtifactError(f"{entry.name}: {error}") from error


def _checked(entry: TensorEntry, rounded: QuantizedTensor) -> QuantizedTensor:
    """A tensor that is rounded already, as the entry says."""
    if rounded.bits != entry.bits or rounded.values.shape != entry.shape or rounded.scale.shape != entry.shape[:-1]:
        shape = tuple(rounded.values.shape)
        raise ArtifactError(f"{entry.name}: rounded to int{rounded.bits} {shape}, to be {entry.kind} {entry.shape}")
    return rounded
