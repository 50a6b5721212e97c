"""The account of bytes: every sum is exact, whatever the coder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import reference_model
from reference_model.artifact import encoded, pack, read_content
from reference_model.bundle import bundle, compact, package_texts
from reference_model.byteaccount import (
    ByteLine,
    account_text,
    artifact_account,
    coder_sizes,
    script_account,
    shared_out,
)
from reference_model.cli import command_line
from reference_model.codings import CODINGS
from reference_model.config import QuantConfig

QUANT = QuantConfig(bits=6, mlp_bits=4, keep_float_max_numel=100)
NAMES = sorted(CODINGS)
TEXTS = package_texts(Path(reference_model.__file__).parent)


def artifact(coder: str) -> bytes:
    generator = torch.Generator().manual_seed(1)
    state = {
        "tok_emb.weight": torch.randn(64, 32, generator=generator),
        "blocks.0.mlp.fc.weight": torch.randn(64, 32, generator=generator),
        "blocks.0.attn.proj.weight": 0.1 * torch.randn(2, 32, 32, generator=generator),
        "blocks.0.conv.weight": torch.randn(8, 1, 4, generator=generator),
        "blocks.0.q_gain": torch.randn(4, generator=generator),
        "empty": torch.zeros(1, 0, 4),
    }
    return pack(state, '{"vocab_size":64}', replace(QUANT, coder=coder))


@pytest.mark.parametrize("coder", NAMES)
def test_the_lines_of_an_artifact_add_up_to_it(coder: str) -> None:
    blob = artifact(coder)
    lines = {line.name: line for line in artifact_account(blob)}
    assert sum(line.size for line in lines.values()) == len(blob)
    tensors = {entry.name: (entry.kind, entry.numel) for entry in read_content(blob).entries}
    assert {name: (line.kind, line.numel) for name, line in lines.items() if line.kind} == tensors
    # Six bits and four, and two bytes or less for a scale.
    assert 4.5 < 8 * lines["tok_emb.weight"].size / 2048 < 6.5
    assert 3.0 < 8 * lines["blocks.0.mlp.fc.weight"].size / 2048 < 5.0
    assert 64 <= lines["tok_emb.weight"].scales <= 150
    assert lines["blocks.0.q_gain"].scales == 0
    assert lines["empty"].size == 0


def test_words_of_ans_are_those_of_the_tensors() -> None:
    lines = artifact_account(artifact("ans"))
    # Nothing but small streams is left to be coded together.
    assert abs(next(line.size for line in lines if line.name == "coded together")) < 60
    assert {"tables of int4", "row tables of int4", "tables of int6", "row tables of int6"} < {x.name for x in lines}


@given(st.integers(0, 10**6), st.lists(st.floats(0, 1e6), min_size=1, max_size=9))
def test_shares_are_whole_and_add_up(total: int, shares: list[float]) -> None:
    parts = shared_out(total, shares)
    assert sum(parts) == total
    assert all(part >= 0 for part in parts)
    if whole := sum(shares):
        assert all(abs(part - total * share / whole) < 1 for part, share in zip(parts, shares, strict=True))


@pytest.mark.parametrize("small", [False, True])
def test_the_lines_of_a_script_add_up_to_it(small: bool) -> None:  # noqa: FBT001 - a parameter
    lines = script_account(TEXTS, "demo", "1.2", small=small)
    script = bundle(TEXTS, "demo", "1.2")
    assert sum(line.size for line in lines) == len((compact(script) if small else script).encode())
    names = [line.name for line in lines]
    assert {"header", "imports", "model", "scan", "artifact", "main", "footer"} < set(names)
    assert "byteaccount" not in names
    assert all(line.size > 0 for line in lines if line.name != "between modules")


def test_the_sizes_of_the_coders_are_those_of_their_artifacts() -> None:
    content = read_content(artifact("zstd"))
    assert coder_sizes(content) == {name: len(encoded(content, name, 22)) for name in CODINGS}


def test_the_text_says_what_is_left() -> None:
    text = account_text(
        [ByteLine("w", 1000, "int6", 1200, 100), ByteLine("coded together", -10)],
        [ByteLine("main", 500)],
        {"zstd": 990, "ans": 900},
        "zstd",
    )
    lines = text.splitlines()
    assert lines[1].split() == ["w", "int6", "1,200", "1,000", "100", "6.667"]
    assert lines[2].split() == ["coded", "together", "-10"]
    assert lines[3].split() == ["artifact", "1,200", "990"]
    assert lines[-4].split() == ["zstd", "990", "(used)"]
    assert lines[-3].split() == ["ans", "900", "(smallest)"]
    assert lines[-1] == "total 1,490: artifact 990, code 500; 15,998,510 below the cap of 16,000,000"
    over = account_text([ByteLine("w", 16_000_000)], [ByteLine("main", 7)], {}, "zstd").splitlines()[-1]
    assert over.endswith("7 above the cap of 16,000,000")


def test_the_command_reads_an_artifact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.ptz"
    path.write_bytes(artifact("brotli"))
    assert command_line(["bytes", str(path), "--preset", "pr599", "--compact"]) == 0
    text = capsys.readouterr().out
    assert "blocks.0.mlp.fc.weight" in text
    assert f"artifact {path.stat().st_size:,}, code " in text
    path.write_bytes(b"nothing")
    assert command_line(["bytes", str(path)]) == 1
    assert command_line(["bytes", str(tmp_path / "gone")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith("reference_model bytes: not an artifact: 7 bytes")
    assert "gone: No such file" in errors[1]


@pytest.mark.slow
def test_the_command_makes_weights_for_a_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["bytes", "demo"]) == 0
    assert "bigram_hash.table.weight" in capsys.readouterr().out
