"""The artifact: what goes in comes out, and nothing else comes out of anything."""

from __future__ import annotations

import copy
import json
import struct
import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from reference_model.artifact import ArtifactError, _digest, pack, unpack
from reference_model.coders import frame_end
from reference_model.config import QuantConfig
from reference_model.quantize import dequantize_rows, quantize_rows

QUANT = QuantConfig(bits=6, keep_float_max_numel=100, clip_search=False, zstd_level=3)
CONFIG = '{"vocab_size":32,"activation":"silu"}'


def small_state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "tok_emb.weight": torch.randn(32, 8, generator=generator),
        "blocks.0.proj.weight": torch.randn(16, 8, generator=generator),
        "blocks.0.conv.weight": torch.randn(8, 1, 4, generator=generator),
        "blocks.0.q_gain": torch.randn(4, generator=generator),
        "blocks.0.merge_alpha": torch.tensor(0.25),
        "blocks.0.resid_mix": torch.randn(2, 60, generator=generator),
        "skip_weights": torch.zeros(1, 0, 8),
    }


def sealed(raw: bytes, **options: Any) -> bytes:
    """An artifact with a right checksum around any content."""
    frame = zstandard.ZstdCompressor(**options).compress(raw)
    return b"HYM1" + _digest(frame) + frame


def resealed(frame: bytes) -> bytes:
    return b"HYM1" + _digest(frame) + frame


def content(blob: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(blob[20:])


def with_header(header: object, payload: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return sealed(struct.pack("<I", len(text) if length is None else length) + text + payload)


def with_tensors(*tensors: list[Any], payload: bytes = b"") -> bytes:
    return with_header({"config": {}, "tensors": list(tensors)}, payload)


def test_round_trip_gives_the_rounded_weights_and_the_config() -> None:
    state = small_state()
    header, result = unpack(pack(state, CONFIG, QUANT))
    assert header["config"] == json.loads(CONFIG)
    assert {name: tensor.shape for name, tensor in result.items()} == {n: t.shape for n, t in state.items()}
    assert all(tensor.dtype == torch.float32 for tensor in result.values())
    for name in ("tok_emb.weight", "blocks.0.proj.weight"):
        assert torch.equal(result[name], dequantize_rows(quantize_rows(state[name], 6)))
    assert torch.equal(result["blocks.0.conv.weight"], state["blocks.0.conv.weight"].half().float())
    for name in ("blocks.0.q_gain", "blocks.0.merge_alpha", "blocks.0.resid_mix"):
        assert torch.equal(result[name], state[name])


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=5),
    st.sampled_from([4, 6, 8]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_packing_what_was_unpacked_gives_the_same_bytes(
    shapes: list[list[int]],
    bits: int,
    search: bool,  # noqa: FBT001 - drawn
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    state = {f"t{index}.weight": torch.randn(shape, generator=generator) for index, shape in enumerate(shapes)}
    quant = QuantConfig(bits=bits, keep_float_max_numel=20, clip_search=search, zstd_level=3)
    blob = pack(state, CONFIG, quant)
    _, result = unpack(blob)
    assert result.keys() == state.keys()
    assert pack(result, CONFIG, quant) == blob


def test_the_order_of_the_state_does_not_matter_and_packing_repeats() -> None:
    state = small_state()
    reverse = dict(reversed(state.items()))
    assert pack(state, CONFIG, QUANT) == pack(reverse, CONFIG, QUANT) == pack(copy.deepcopy(state), CONFIG, QUANT)


@given(st.data())
def test_no_flipped_bit_and_no_missing_end_passes(data: st.DataObject) -> None:
    blob = pack(small_state(), CONFIG, QUANT)
    place = data.draw(st.integers(0, 8 * len(blob) - 1))
    flipped = bytearray(blob)
    flipped[place // 8] ^= 1 << place % 8
    for damaged in (bytes(flipped), blob[: place // 8], blob + blob[: place // 8 + 1]):
        with pytest.raises(ArtifactError):
            unpack(damaged)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(junk: bytes) -> None:
    for blob in (junk, b"HYM1" + junk, resealed(junk), sealed(junk), with_header(junk)):
        with pytest.raises(ArtifactError):
            unpack(blob)


@given(st.data())
def test_a_changed_content_under_a_right_checksum_is_refused_or_well_formed(data: st.DataObject) -> None:
    raw = bytearray(content(pack(small_state(), CONFIG, QUANT)))
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=3)):
        raw[place] = data.draw(st.integers(0, 255))
    try:
        _, state = unpack(sealed(bytes(raw)))
    except ArtifactError:
        return
    assert all(bool(tensor.isfinite().all()) for tensor in state.values())
    assert sum(tensor.numel() for tensor in state.values()) <= len(raw)


@given(st.data())
def test_a_changed_frame_under_a_right_checksum_is_refused_or_well_formed(data: st.DataObject) -> None:
    frame = bytearray(pack(small_state(), CONFIG, QUANT)[20:])
    frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        _, state = unpack(resealed(bytes(frame)))
    except ArtifactError:
        return
    assert all(bool(tensor.isfinite().all()) for tensor in state.values())


VALID = ["a", [2, 3], "float16"]


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (with_tensors(VALID, VALID, payload=bytes(24)), "a name stands twice"),
        (with_tensors(["a", [2, 3], "int5"], payload=bytes(12)), "unknown kind 'int5'"),
        (with_tensors(["a", [2, 3], ["int8"]], payload=bytes(12)), "unknown kind"),
        (with_tensors(["a b", [2, 3], "float16"], payload=bytes(12)), "tensor name 'a b'"),
        (with_tensors(["\ud800", [2, 3], "float16"], payload=bytes(12)), "tensor name"),
        (with_tensors([7, [2, 3], "float16"], payload=bytes(12)), "tensor name '7'"),
        (with_tensors(["a", [2, -3], "float16"], payload=bytes(12)), r"\[2, -3\] is no shape"),
        (with_tensors(["a", [True, 6], "float16"], payload=bytes(12)), "is no shape"),
        (with_tensors(["a", [2.0, 3], "float16"], payload=bytes(12)), "is no shape"),
        (with_tensors(["a", "23", "float16"], payload=bytes(12)), "is no shape"),
        (with_tensors(["a", [1] * 9, "float16"], payload=bytes(2)), "is no shape"),
        (with_tensors(["a", [0, 2**62, 2**62], "float16"]), "is too large"),
        (with_tensors(["a", [10**6, 10**6], "int4"], payload=bytes(12)), "is too large"),
        (with_tensors(["a", [6], "int8"], payload=bytes(8)), "has no rows"),
        (with_tensors(["a", [2, 0], "int8"], payload=bytes(4)), "has no rows"),
        (with_tensors(["a", [2, 3]]), "unreadable header"),
        (with_tensors(["a", [5_000, 10_000], "float32"], payload=bytes(12)), "12 bytes for tensors of 200000000"),
        (with_tensors(VALID, payload=bytes(13)), "13 bytes for tensors of 12"),
        (with_header({"config": {}, "tensors": [VALID], "more": 1}, bytes(12)), "not an object of config and tensors"),
        (with_header({"config": [], "tensors": []}), "not an object of config and tensors"),
        (with_header(b'{"config":{"x":NaN},"tensors":[]}'), "NaN is no number"),
        (with_header(b'{"config":{"x":1,"x":2},"tensors":[]}'), "a key stands twice"),
        (with_header(b"[" * 100_000), "unreadable header"),
        (with_header(b'{"config":{"x":' + b"9" * 10_000 + b'},"tensors":[]}'), "unreadable header"),
        (with_header(b"{}", length=2**32 - 1), "a header of 4294967295 bytes"),
        (with_header(b"{}", length=5), "ends 3 bytes early"),
        (sealed(b"\0"), "ends 3 bytes early"),
    ],
)
def test_lies_under_a_right_checksum_are_named(blob: bytes, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        unpack(blob)


def integers(values: list[int], scales: list[float], bits: int = 6) -> bytes:
    planes = np.array(scales, "<f2").view(np.uint8).reshape(-1, 2).T.tobytes()
    return with_tensors(
        ["w", [len(scales), len(values) // len(scales)], f"int{bits}"],
        payload=np.array(values, np.int8).tobytes() + planes,
    )


def test_integers_and_scales_are_checked() -> None:
    _, state = unpack(integers([31, -31, 0, 5], [0.5, 2.0]))
    assert state["w"].tolist() == [[15.5, -15.5], [0.0, 10.0]]
    for values, bits in (([32, 0], 6), ([-32, 0], 6), ([8, 0], 4), ([-128, 0], 8)):
        with pytest.raises(ArtifactError, match="w: integers beyond"):
            unpack(integers(values, [1.0], bits))
    for scale in (np.inf, np.nan, 0.0, -1.0):
        with pytest.raises(ArtifactError, match="w: a scale that is not finite and positive"):
            unpack(integers([1, 2], [scale]))


def test_floating_point_weights_must_be_finite() -> None:
    payload = np.array([np.nan], "<f4").tobytes()
    with pytest.raises(ArtifactError, match="1 of 1 weights are not finite"):
        unpack(with_tensors(["w", [], "float32"], payload=payload))


def test_a_frame_must_state_its_size_and_end_with_the_artifact() -> None:
    raw = content(pack(small_state(), CONFIG, QUANT))
    assert unpack(sealed(raw))[0]["config"] == json.loads(CONFIG)
    with pytest.raises(ArtifactError, match="oversized"):
        unpack(sealed(raw, write_content_size=False))
    frame = zstandard.ZstdCompressor().compress(raw)
    skippable = struct.pack("<II", 0x184D2A50, 3) + b"abc"
    empty = zstandard.ZstdCompressor().compress(b"")
    for garbage in (b"\0", b"garbage" * 100, frame, skippable, empty, frame[:1], frame[:4]):
        with pytest.raises(ArtifactError, match=f"hold a frame of {len(frame)}"):
            unpack(resealed(frame + garbage))


def restated(raw: bytes, size: int, head: bytes = b"\xe0") -> bytes:
    """A frame whose header states another size than its blocks hold; by default in a single segment."""
    frame = zstandard.ZstdCompressor().compress(raw)
    return b"\x28\xb5\x2f\xfd" + head + struct.pack("<Q", size) + frame[zstandard.frame_header_size(frame) :]


@pytest.mark.parametrize("hidden", [1, 300_000])
@pytest.mark.parametrize("head", [b"\xe0", b"\xc0\x50"], ids=["single segment", "window of 1 MiB"])
def test_a_frame_that_holds_more_than_it_states_is_refused(hidden: int, head: bytes) -> None:
    raw = content(pack(small_state(), CONFIG, QUANT))
    assert unpack(resealed(restated(raw, len(raw), head)))[0]["config"] == json.loads(CONFIG)
    with pytest.raises(ArtifactError, match="damaged artifact"):
        unpack(resealed(restated(raw + bytes(hidden), len(raw), head)))


@pytest.mark.parametrize("head", [b"\xe0", b"\xc0\x50"], ids=["single segment", "window of 1 MiB"])
def test_a_block_behind_the_stated_size_is_refused(head: bytes) -> None:
    raw = content(pack(small_state(), CONFIG, QUANT))

    def blocks(*texts: bytes) -> bytes:
        """A frame of uncompressed blocks that states the size of `raw`."""
        headers = [
            (len(text) << 3 | (number == len(texts))).to_bytes(3, "little") for number, text in enumerate(texts, 1)
        ]
        body = b"".join(block + text for block, text in zip(headers, texts, strict=True))
        return b"\x28\xb5\x2f\xfd" + head + struct.pack("<Q", len(raw)) + body

    assert unpack(resealed(blocks(raw[:99], raw[99:])))[0]["config"] == json.loads(CONFIG)
    with pytest.raises(ArtifactError, match="damaged artifact"):
        unpack(resealed(blocks(raw, b"hidden")))


@given(st.binary(max_size=100_000), st.integers(1, 5), st.booleans())
def test_frames_of_every_kind_of_block_are_measured(raw: bytes, level: int, checksum: bool) -> None:  # noqa: FBT001 - drawn
    for text in (raw, raw * 50, bytes(300_000) + raw):
        frame = zstandard.ZstdCompressor(level=level, write_checksum=checksum).compress(text)
        assert frame_end(frame) == len(frame) == frame_end(frame + b"more")


def test_the_cap_holds_before_decompression() -> None:
    blob = pack(small_state(), CONFIG, QUANT)
    size = len(content(blob))
    assert unpack(blob, raw_cap_bytes=size)
    with pytest.raises(ArtifactError, match=f"oversized: {size} bytes decompressed, the limit is {size - 1}"):
        unpack(blob, raw_cap_bytes=size - 1)


def peak_bytes(blob: bytes) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError):
            unpack(blob)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_lying_sizes_allocate_nothing_large() -> None:
    tensors = [["a", [64, 1024, 1024], "int8"]]
    header = json.dumps({"config": {}, "tensors": tensors}).encode()
    promised = 4 + len(header) + 64 * 2**20 + 2 * 64 * 1024
    lie = restated(struct.pack("<I", len(header)) + header + bytes(1000), promised)
    assert zstandard.get_frame_parameters(lie).content_size == promised > 64 * 2**20
    assert peak_bytes(resealed(lie)) < 8 * 2**20
    bomb = sealed(bytes(200 * 2**20))
    assert len(bomb) < 20_000
    assert peak_bytes(bomb) < 8 * 2**20


def test_weights_that_cannot_be_stored_are_named() -> None:
    bad = torch.ones(20, 20)
    bad[3, 4] = torch.nan
    with pytest.raises(ArtifactError, match=r"x\.weight: 1 of 400 weights are not finite"):
        pack({"x.weight": bad}, CONFIG, QUANT)
    with pytest.raises(ArtifactError, match=r"x\.weight: weights up to .* too large"):
        pack({"x.weight": torch.full((20, 20), 1e9)}, CONFIG, QUANT)
    with pytest.raises(ArtifactError, match="tensor name 'x y'"):
        pack({"x y": torch.ones(2, 2)}, CONFIG, QUANT)


@pytest.mark.parametrize(
    "weight",
    [torch.arange(5), torch.tensor([True]), torch.zeros(3, dtype=torch.complex64), torch.ones(2, 2, dtype=torch.uint8)],
)
@pytest.mark.parametrize("coder", ["zstd", "auto"])
def test_what_is_not_floating_point_is_refused_by_name(weight: Tensor, coder: str) -> None:
    quant = replace(QUANT, coder=coder)
    assert pack({"fine": torch.ones(2)}, CONFIG, quant)
    with pytest.raises(ArtifactError, match=rf"^x\.weight: {weight.dtype} is not floating point$"):
        pack({"fine": torch.ones(2), "x.weight": weight}, CONFIG, quant)


def test_a_tied_weight_must_stand_under_one_name() -> None:
    weight = torch.randn(20, 20)
    with pytest.raises(ArtifactError, match="one tensor"):
        pack({"tok_emb.weight": weight, "lm_head.weight": weight}, CONFIG, QUANT)
    assert pack({"tok_emb.weight": weight, "lm_head.weight": weight.clone()}, CONFIG, QUANT)


def test_integers_take_less_room_than_their_bits() -> None:
    weight = torch.randn(256, 256, generator=torch.Generator().manual_seed(2))
    sizes = {bits: len(pack({"w": weight}, "{}", QuantConfig(bits=bits, keep_float_max_numel=0))) for bits in (4, 6, 8)}
    assert sizes[4] < sizes[6] < sizes[8] < 256 * 256
    assert sizes[6] < 6 / 8 * 256 * 256


def test_what_is_expected_is_asked_before_weights_are_read() -> None:
    seen: list[tuple[dict[str, object], dict[str, tuple[int, ...]]]] = []

    def refuse(header: Mapping[str, object], shapes: Mapping[str, tuple[int, ...]]) -> None:
        seen.append((dict(header), dict(shapes)))
        raise ArtifactError("not the one")

    raw_without_payload_checks = pack({"w": torch.zeros(2, 3)}, CONFIG, QUANT)
    with pytest.raises(ArtifactError, match="not the one"):
        unpack(raw_without_payload_checks, expect=refuse)
    assert seen[0][1] == {"w": (2, 3)}
    assert seen[0][0]["config"] == json.loads(CONFIG)
