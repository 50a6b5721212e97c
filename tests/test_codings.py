"""The coders of an artifact: the same content comes out of each, damage is refused, and what they cost is measured."""

from __future__ import annotations

import base64
import json
import struct
import tracemalloc
from dataclasses import replace
from typing import Any

import brotli
import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reference_model import coders, codings
from reference_model.ans import Integers, RowTables, decode_rows, encode_rows, fit_tables, row_counts
from reference_model.artifact import (
    ArtifactError,
    _digest,
    coding_of,
    encoded,
    pack,
    packed_content,
    read_content,
    unpack,
)
from reference_model.coders import CoderError, brotli_encoded, brotli_source, zstd_encoded
from reference_model.codings import CODINGS, missing_packages
from reference_model.config import QuantConfig
from reference_model.main import read_config
from reference_model.payload import sized
from reference_model.quantize import dequantize_rows, quantize_rows
from reference_model.settings import ConfigError

QUANT = QuantConfig(bits=6, keep_float_max_numel=100, clip_search=False, zstd_level=3)
CONFIG = '{"vocab_size":32}'
NAMES = sorted(CODINGS)
# Written before there was a choice of coders.
OLD_ARTIFACT = (
    "NLfuWD-zLQS`~=o;(+8f+SYFlD77#BAgxUW0Q3oM0001cB4clEW@%?4I(s5^Z)0I%Uvp`CWg<E=GJPx}bY*UHZ*p@YI$K*JXd*0IF)T7&EFxxXZ("
    "(#XHX>atTOxKYFfM0dX>KAcTQf3uA}m`pEHN-$EFx)cbT%SgU47x><mTt;>g?_B;pFG)?eX;Y`uzX{2MP`m6&M^J5E2v>7Z@5G9Um$xrsypxC@cT~"
    "K)nC}0002MKR*HhK%nErJOc"
)


def small_state(seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "tok_emb.weight": torch.randn(32, 8, generator=generator) * torch.rand(32, 1, generator=generator),
        "blocks.0.proj.weight": torch.randn(2, 16, 8, generator=generator),
        "blocks.0.conv.weight": torch.randn(8, 1, 4, generator=generator),
        "blocks.0.q_gain": torch.randn(4, generator=generator),
    }


def quant(coder: str, bits: int = 6) -> QuantConfig:
    return replace(QUANT, coder=coder, bits=bits)


def sized_frame(side: bytes) -> bytes:
    return sized(zstd_encoded(side, 3))


def sealed(coder: str, coded: bytes) -> bytes:
    return CODINGS[coder].magic + _digest(coded) + coded


@pytest.mark.parametrize("coder", NAMES)
@pytest.mark.parametrize("bits", [4, 6, 8])
@given(data=st.data())
@settings(max_examples=20)
def test_every_coder_gives_back_what_every_other_does(coder: str, bits: int, data: st.DataObject) -> None:
    shapes = data.draw(st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=5))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    spread = data.draw(st.sampled_from([0.0, 1e-3, 1.0]))
    state = {f"t{place}.w": spread * torch.randn(shape, generator=generator) for place, shape in enumerate(shapes)}
    chosen = replace(quant(coder, bits), keep_float_max_numel=20)
    blob = pack(state, CONFIG, chosen)
    assert coding_of(blob) == coder
    header, result = unpack(blob)
    _, expected = unpack(pack(state, CONFIG, replace(chosen, coder="zstd")))
    assert header["config"] == json.loads(CONFIG)
    assert list(result) == list(expected)
    assert all(torch.equal(result[name], expected[name]) for name in expected)
    assert pack(result, CONFIG, chosen) == blob


def test_tensors_of_several_kinds_come_back_in_their_order() -> None:
    # No encoder of ours mixes kinds in the header's order, but the format allows it.
    content = packed_content(small_state(), CONFIG, QUANT)
    header = json.loads(content.head)
    assert [entry.kind for entry in content.entries] == ["float16", "float32", "int6", "int6"]
    header["tensors"] = [["a", [2, 3], "int8"], ["b", [1, 2], "int4"], ["c", [1, 3], "int8"]]
    rows = [np.array(values, np.int8) for values in ([[1, -127, 3], [4, 5, 6]], [[7, -7]], [[0, 9, 127]])]
    scales = np.ones(4, "<f2").view(np.uint8).reshape(-1, 2).T.tobytes()
    entries = tuple(replace(content.entries[2], name=n, shape=tuple(s), kind=k) for n, s, k in header["tensors"])
    mixed = replace(content, head=json.dumps(header).encode(), entries=entries, integers=tuple(rows), rest=scales)
    for coder in NAMES:
        _, state = unpack(encoded(mixed, coder, 3))
        assert {name: tensor.flatten().tolist() for name, tensor in state.items()} == {
            "a": [1, -127, 3, 4, 5, 6],
            "b": [7, -7],
            "c": [0, 9, 127],
        }


@pytest.mark.parametrize("coder", NAMES)
def test_roles_of_several_bits_come_back(coder: str) -> None:
    state = {f"{name}.weight": trained_like(40, 30, 1) for name in ("tok_emb", "blocks.0.proj", "blocks.0.mlp.fc")}
    chosen = QuantConfig(bits=6, mlp_bits=4, embed_bits=8, keep_float_max_numel=10, coder=coder)
    blob = pack(state, CONFIG, chosen)
    bits = {"tok_emb.weight": 8, "blocks.0.proj.weight": 6, "blocks.0.mlp.fc.weight": 4}
    assert {entry.name: entry.bits for entry in read_content(blob).entries} == bits
    _, result = unpack(blob)
    for name, weight in state.items():
        expected = dequantize_rows(quantize_rows(weight, bits[name], clip_search=True))
        assert torch.equal(result[name], expected)


def test_the_smallest_is_chosen_and_the_default_stays_zstd() -> None:
    state = small_state()
    blobs = {coder: pack(state, CONFIG, quant(coder)) for coder in NAMES}
    assert pack(state, CONFIG, quant("auto")) == min(blobs.values(), key=len)
    assert QuantConfig().coder == "zstd"
    assert pack(state, CONFIG, QUANT) == blobs["zstd"]


def test_artifacts_from_before_still_unpack() -> None:
    blob = base64.b85decode(OLD_ARTIFACT)
    header, state = unpack(blob)
    assert header["config"] == {"vocab_size": 32}
    assert state["h"].tolist() == [[2.0, -1.25]]
    assert state["v.0.gain"].tolist() == [0.5, 1.5]
    # Half of the first row's scale, 20 / 8 / 31.
    assert torch.allclose(state["w"], torch.arange(-20, 20).view(4, 10) / 8, atol=0.041)
    again = QuantConfig(bits=6, keep_float_max_numel=8, clip_search=False)
    assert pack(state, '{"vocab_size":32}', again) == blob


@pytest.mark.parametrize("coder", NAMES)
@given(data=st.data())
@settings(max_examples=40)
def test_damage_is_refused(coder: str, data: st.DataObject) -> None:
    blob = pack(small_state(), CONFIG, quant(coder))
    place = data.draw(st.integers(0, 8 * len(blob) - 1))
    flipped = bytearray(blob)
    flipped[place // 8] ^= 1 << place % 8
    for damaged in (bytes(flipped), blob[: place // 8], blob + b"\0"):
        with pytest.raises(ArtifactError):
            unpack(damaged)


@pytest.mark.parametrize("coder", NAMES)
@given(data=st.data())
@settings(max_examples=60)
def test_damage_under_a_right_checksum_is_refused_or_well_formed(coder: str, data: st.DataObject) -> None:
    coded = bytearray(pack(small_state(), CONFIG, quant(coder))[20:])
    for place in data.draw(st.lists(st.integers(0, len(coded) - 1), min_size=1, max_size=3)):
        coded[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.none() | st.integers(0, len(coded)))
    try:
        _, state = unpack(sealed(coder, bytes(coded[:end])))
    except ArtifactError:
        return
    assert all(bool(tensor.isfinite().all()) for tensor in state.values())


@pytest.mark.parametrize("coder", NAMES)
@given(junk=st.binary(max_size=200))
@settings(max_examples=40)
def test_arbitrary_bytes_are_refused(coder: str, junk: bytes) -> None:
    with pytest.raises(ArtifactError):
        unpack(sealed(coder, junk))


def test_another_magic_is_no_artifact() -> None:
    with pytest.raises(ArtifactError, match="begin with none of b'HYM1', b'HYB1', b'HYA1'"):
        unpack(b"HYX1" + bytes(30))


@pytest.mark.parametrize(
    ("behind", "stated", "message"),
    [
        (b"", -1, "holds more than the"),
        (b"", 1, "ends 1 bytes early"),
        (b"x", 0, "no brotli stream"),
        (brotli.compress(b"more"), 0, "no brotli stream"),
    ],
)
def test_a_brotli_stream_holds_what_it_states(behind: bytes, stated: int, message: str) -> None:
    text = b"abc" * 100_000
    coded = struct.pack("<I", len(text) + stated) + brotli.compress(text) + behind
    with pytest.raises(CoderError, match=message):
        _read_all(coded)
    assert _read_all(brotli_encoded(text)) == text
    assert _read_all(brotli_encoded(b"")) == b""


def _read_all(coded: bytes) -> bytes:
    source = brotli_source(coded)
    content = source.read(source.size)
    source.finish()
    return content


def test_a_brotli_stream_without_an_end_ends_early() -> None:
    text = np.random.default_rng(0).bytes(1000)
    with pytest.raises(CoderError, match="without an end"):
        _read_all(brotli_encoded(text)[:-100])


def peak_bytes(blob: bytes) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError):
            unpack(blob)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def with_tensors(*tensors: list[Any]) -> bytes:
    head = json.dumps({"config": {}, "tensors": list(tensors)}).encode()
    return struct.pack("<I", len(head)) + head


HUGE = ["a", [64, 1024, 1024], "int8"]


def test_lying_sizes_allocate_nothing_large() -> None:
    claim = with_tensors(HUGE)
    stated = struct.pack("<I", len(claim) + 64 * 2**20 + 2 * 64 * 1024)
    assert peak_bytes(sealed("brotli", stated + brotli.compress(claim))) < 8 * 2**20
    bomb = struct.pack("<I", 200 * 2**20) + brotli.compress(bytes(200 * 2**20), quality=1)
    assert len(bomb) < 200_000
    assert peak_bytes(sealed("brotli", bomb)) < 8 * 2**20
    assert peak_bytes(sealed("ans", sized_frame(claim))) < 8 * 2**20
    assert peak_bytes(sealed("ans", sized_frame(claim + _tables(64 * 1024) + bytes(2 * 64 * 1024)))) < 8 * 2**20


def _tables(rows: int, words: int = 0, tables: int = 1, frequency: int = 1, kind: int = 255) -> bytes:
    numbers = np.full((tables, kind), frequency, "<u2").view(np.uint8).reshape(-1, 2).T.tobytes()
    return struct.pack("<IB", words, tables) + numbers + bytes(rows)


ROWS = with_tensors(["a", [2, 3], "int4"])
SCALES = np.ones(2, "<f2").view(np.uint8).reshape(-1, 2).T.tobytes()


@pytest.mark.parametrize(
    ("side", "words", "message"),
    [
        (ROWS + _tables(2, tables=0, kind=15) + SCALES, b"", "0 tables of frequencies"),
        (ROWS + _tables(2, tables=33, kind=15) + SCALES, b"", "33 tables of frequencies"),
        (ROWS + _tables(2, frequency=0, kind=15) + SCALES, b"", "a table of frequencies without any"),
        (ROWS + _tables(0, kind=15) + b"\1\0" + SCALES, b"", "a row of table 1 of 1"),
        (ROWS + _tables(2, kind=15) + SCALES[:-1], b"", "3 and 0 bytes behind the integers, for tensors of 4"),
        (ROWS + _tables(2, kind=15) + SCALES, b"1234", "4 and 4 bytes behind the integers, for tensors of 4"),
        (ROWS + _tables(2, words=8, kind=15) + SCALES, b"12345678", "words are left behind the last integer"),
        (ROWS + _tables(2, words=8, kind=15) + SCALES, b"1234\0\0\0\0", "no words of the coder"),
        (ROWS + _tables(2, words=5, kind=15) + SCALES, b"12345", "5 bytes for integers of"),
        (with_tensors(["a", [2, 60], "int4"]) + _tables(2, kind=15) + SCALES, b"", "0 bytes for integers of 29"),
        (ROWS, b"", "ends 5 bytes early"),
        (with_tensors(["a", [2**19, 3], "int4"]) + _tables(9, kind=15), b"", "9 bytes for the tables of 524288 rows"),
    ],
)
def test_lies_about_tables_and_words_are_named(side: bytes, words: bytes, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        unpack(sealed("ans", sized_frame(side) + words))


def test_the_smallest_honest_ans_artifact_reads() -> None:
    matrix, tables = (
        np.array([[1, -7, 3], [0, 0, 0]], np.int8),
        RowTables(np.ones((1, 15), np.uint16), np.zeros(2, "u1")),
    )
    words = encode_rows([matrix], tables, 7)
    _, state = unpack(sealed("ans", sized_frame(ROWS + _tables(2, words=len(words), kind=15) + SCALES) + words))
    assert state["a"].tolist() == matrix.tolist()


def test_what_is_expected_is_asked_before_integers_are_read() -> None:
    def refuse(_header: object, shapes: object) -> None:
        raise ArtifactError(f"not these: {shapes}")

    with pytest.raises(ArtifactError, match=r"not these: .*'a': "):
        unpack(sealed("ans", sized_frame(with_tensors(HUGE))), expect=refuse)


def entropy_bytes(blob: bytes) -> float:
    """Order-0 entropy of the integers, each tensor by itself."""
    content, bits = read_content(blob), 0.0
    tensors = [entry for entry in content.entries if entry.is_integer]
    for entry, matrix in zip(tensors, content.integers, strict=True):
        counts = row_counts(matrix, entry.top).sum(0)
        counts = counts[counts > 0]
        bits -= float((counts * np.log2(counts / counts.sum())).sum())
    return bits / 8


def trained_like(rows: int, columns: int, seed: int) -> Tensor:
    """Gaussian weights whose spread differs between rows, as training leaves them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * torch.exp(0.4 * torch.randn(rows, 1, generator=generator))


@pytest.mark.parametrize("floor", ["none", "published"])
@pytest.mark.parametrize("bits", [4, 6, 8])
def test_ans_is_within_half_a_percent_of_the_entropy(bits: int, floor: str) -> None:
    state = {f"blocks.{layer}.fc.weight": 0.3 * trained_like(256, 512, layer) for layer in range(3)}
    state["tok_emb.weight"] = trained_like(1024, 128, 9)
    blob = pack(state, CONFIG, QuantConfig(bits=bits, scale_floor=floor, coder="ans"))
    content = read_content(blob)
    # What is stored beside the integers counts for the coder where it is tables, not where it is weights.
    beside = len(zstandard.ZstdCompressor(level=22).compress(content.head + content.rest))
    assert len(blob) - beside < 1.005 * entropy_bytes(blob)


def test_rows_of_one_spread_share_a_table_and_others_do_not() -> None:
    narrow = torch.randint(-2, 3, (64, 256), generator=torch.Generator().manual_seed(1)).to(torch.int8).numpy()
    wide = torch.randint(-31, 32, (64, 256), generator=torch.Generator().manual_seed(2)).to(torch.int8).numpy()
    alone, both = fit_tables([narrow], 31), fit_tables([narrow, np.concatenate([wide, narrow[:3]])], 31)
    assert len(alone.frequencies) == 1
    assert len(both.frequencies) == 2
    assert len(set(both.classes[:64].tolist())) == len(set(both.classes[64:128].tolist())) == 1
    assert both.classes[0] == both.classes[-1] != both.classes[64]
    words = encode_rows([narrow], alone, 31)
    assert np.array_equal(decode_rows(words, alone, [(64, 256)], 31), narrow.ravel())
    assert len(words) < 1.01 * narrow.size * np.log2(5) / 8


@pytest.mark.parametrize(
    "matrix",
    [
        # log2(63) is rounded up: half a step for each of a million integers is more than the coder's last words.
        np.tile(np.arange(-31, 32, dtype=np.int8), (16_384, 1)),
        # What is coded first, the end, costs nothing.
        np.repeat(np.array([[31, -31]], np.int8), 512, 1),
    ],
    ids=["uniform", "free end"],
)
def test_integers_of_the_cheapest_symbols_come_back(matrix: Integers) -> None:
    tables = fit_tables([matrix], 31)
    decoded = decode_rows(encode_rows([matrix], tables, 31), tables, [matrix.shape], 31)
    assert np.array_equal(decoded, matrix.ravel())


@pytest.mark.parametrize(("coder", "package"), [("brotli", "brotli"), ("ans", "constriction")])
def test_a_missing_package_is_named(coder: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    state = small_state()
    blob = pack(state, CONFIG, quant(coder))
    for module in (coders, codings):
        monkeypatch.setattr(module, "is_installed", lambda name: name != package)
    with pytest.raises(ArtifactError, match=f"COMPRESSOR: the package {package} is not installed"):
        pack(state, CONFIG, quant(coder))
    with pytest.raises(ArtifactError, match=f"the package {package} is not installed"):
        unpack(blob)
    assert missing_packages("zstd") == []
    assert missing_packages("auto") == missing_packages(coder) == [package]
    for chosen in (coder, "auto"):
        with pytest.raises(ConfigError, match=f"^COMPRESSOR: {chosen} needs packages not installed here: {package}$"):
            read_config({"COMPRESSOR": chosen}, "demo")
    # What is on disk has its coder already.
    assert read_config({"COMPRESSOR": "auto", "EVAL_ONLY": "1"}, "demo").quant.coder == "auto"


def test_an_old_brotli_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brotli, "Decompressor", object)
    with pytest.raises(CoderError, match=r"brotli 1\.2 or newer"):
        brotli_source(bytes(9))


def test_the_log_names_the_coder() -> None:
    assert {name: coding.label.format(level=22) for name, coding in CODINGS.items()} == {
        "zstd": "zstd-22",
        "brotli": "brotli-11",
        "ans": "ans",
    }
