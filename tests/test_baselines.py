"""The comparison table: coders by hand, and all rows on one tiny run."""

from __future__ import annotations

import json
import lzma
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reference_model.baselines import (
    Comparer,
    Comparison,
    DemoData,
    Row,
    coder_rows,
    decoded_text,
    score_all,
    scoring_jobs,
    unigram_bpb,
)
from reference_model.config import Config
from reference_model.main import build_model, main
from reference_model.miniature import (
    MINIATURE_VOCAB_SIZE,
    miniature_environment,
    miniature_text,
    write_miniature_corpus,
)
from reference_model.presets import PRESETS
from reference_model.storage import RunError, pack_model


def test_unigram_by_hand() -> None:
    # 252 + 4 counts of "a", one of every other byte: p(a) = 257 / 512 after adding one, p(b) = 1 / 512.
    expected = (-math.log2(257 / 512) * 3 + 9) / 4
    assert unigram_bpb(b"a" * 256, b"aaab") == pytest.approx(expected)


def test_coders_are_measured_on_the_text_itself() -> None:
    ticks = iter(range(100))
    rows = {row.name: row for row in coder_rows(b"ab" * 50, b"abcd" * 200, lambda: float(next(ticks)))}
    compressed = lzma.compress(b"abcd" * 200, preset=9 | lzma.PRESET_EXTREME)
    assert rows["xz -9e"].val_bpb == pytest.approx(8 * len(compressed) / 800)
    assert rows["xz -9e"].seconds == 1.0
    assert 0.0 < rows["zstd -22"].val_bpb < rows["byte unigram of the train text"].val_bpb


def test_decoded_text_is_the_validation_text(tmp_path: Path) -> None:
    import sentencepiece

    environ = miniature_environment(write_miniature_corpus(tmp_path / "corpus"))
    model = sentencepiece.SentencePieceProcessor(model_file=environ["TOKENIZER_PATH"])
    texts = miniature_text(2, 5)
    tokens = torch.tensor([token for text in texts for token in (model.bos_id(), *model.encode(text))])
    assert decoded_text(environ["TOKENIZER_PATH"], tokens) == "".join(texts).encode()


def test_table_has_every_row_and_both_forms() -> None:
    comparison = Comparison(100, 40, 60.0, (Row("xz -9e", 2.0, 0.5), Row("hybrid, int6", 1.5, 2.0, 1234)))
    assert comparison.as_text().splitlines() == [
        "100 validation bytes, 40 tokens; transformers trained for 60 s",
        f"{'':<34} {'BPB':>7} {'s':>7} {'bytes':>9}",
        f"{'xz -9e':<34}  2.0000     0.5         -",
        f"{'hybrid, int6':<34}  1.5000     2.0      1234",
    ]
    assert json.loads(json.dumps(comparison.as_json()))["rows"][1]["model_bytes"] == 1234


@pytest.fixture
def tiny_presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Config]:
    """The demo and its plain transformer at the size of the tiny corpus, run in its own folder."""
    root = write_miniature_corpus(tmp_path / "corpus")
    environ = {key: value for key, value in miniature_environment(root).items() if not key.endswith("_PATH")}
    hybrid = Config.from_environment(environ, PRESETS["demo"])
    plain = replace(hybrid, model=replace(hybrid.model, use_hymba=False))
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    deeper = replace(plain, model=replace(plain.model, num_layers=3))
    return {"demo": hybrid, "demo_attention": plain, "demo_baseline": deeper}


def test_all_rows_of_a_tiny_run(
    tiny_presets: dict[str, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text("pass\n")
    assert main(miniature_environment(tmp_path / "corpus"), script, "demo") == 0
    monkeypatch.setattr("reference_model.baselines.PRESETS", tiny_presets)
    said: list[str] = []
    comparer = Comparer(tmp_path / "corpus", tmp_path / "run", "demo", 0.2, say=said.append)
    comparison = comparer.compare()
    assert [row.name for row in comparison.rows] == [
        *["byte unigram of the train text", "zstd -22", "xz -9e"],
        *["baseline, 9 layers, int6", "baseline, 9 layers, int6 + TTT"],
        *["attention, same table, int6", "attention, same table, int6 + TTT"],
        *["hybrid, float", "hybrid, EMA", "hybrid, int6", "hybrid, int6 + TTT"],
    ]
    assert all(0.0 < row.val_bpb < 8.0 for row in comparison.rows)
    assert comparison.validation_bytes == sum(len(text) for text in miniature_text(2, 30))
    rows = {row.name: row for row in comparison.rows}
    assert rows["hybrid, int6"].model_bytes == Path("final_model.int6.ptz").stat().st_size
    assert rows["hybrid, int6"].val_bpb == pytest.approx(rows["hybrid, EMA"].val_bpb, abs=0.05)
    assert len({row.val_bpb for row in comparison.rows}) == len(comparison.rows)
    assert [line.split()[1] for line in said[:2]] == ["demo_baseline", "demo_attention"]


def test_missing_run_is_named(tiny_presets: dict[str, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reference_model.baselines.PRESETS", tiny_presets)
    comparer = Comparer(tmp_path / "corpus", tmp_path / "nothing", "demo", 0.05, say=lambda _: None)
    with pytest.raises(RunError, match=r"nothing/final_model\.raw\.pt: No such file"):
        comparer.compare()


def test_corpus_of_the_test_has_the_demo_layout(tmp_path: Path) -> None:
    root = write_miniature_corpus(tmp_path)
    assert (root / "datasets" / f"demo_sp{MINIATURE_VOCAB_SIZE}_fullval" / "fineweb_val_000000.bin").is_file()


@pytest.mark.slow
def test_rows_scored_side_by_side_are_the_same(tiny_presets: dict[str, Config], tmp_path: Path) -> None:
    write_miniature_corpus(tmp_path)
    config = DemoData(tmp_path, MINIATURE_VOCAB_SIZE).apply_full_validation(tiny_presets["demo"])
    model = build_model(config, "cpu")
    jobs = list(scoring_jobs("tiny", config, {"float": model.state_dict()}, pack_model(model.state_dict(), config)))
    alone, together = score_all(jobs, 1), score_all(jobs, 2)
    assert [row.name for row in together] == ["tiny, float", "tiny, int6", "tiny, int6 + TTT"]
    assert [row.val_bpb for row in together] == pytest.approx([row.val_bpb for row in alone], rel=1e-5)
