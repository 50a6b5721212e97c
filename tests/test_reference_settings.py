"""Settings that a run would stumble over late: they work, or are refused before anything is trained."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from reference_model.data import map_shard
from reference_model.evalconfig import EvalConfig
from reference_model.main import Run, main, read_config
from reference_model.miniature import miniature_environment, write_miniature_corpus, write_shard
from reference_model.runlog import RunLog
from reference_model.scoring import EvalResult
from reference_model.settings import ConfigError
from reference_model.worker import Worker

# Every layer sees the whole document; its adapters and its memory end with it.
CARRIED_ADAPTERS = {"TTT_ENABLED": "1", "EVAL_CARRY_STATE": "1", "EVAL_STRIDE": "0", "SLIDING_WINDOW": "0"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_miniature_corpus(tmp_path_factory.mktemp("corpus"))


def run(folder: Path, corpus: Path, changes: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Exit status of a miniature of the demo in this process."""
    monkeypatch.chdir(folder)
    script = folder / "train_gpt.py"
    script.write_text("# the program\n", encoding="utf-8")
    return main({**miniature_environment(corpus, "demo"), "ITERATIONS": "2", **changes}, script, "demo")


@pytest.mark.parametrize("kind", ["lora", "phased_lora"])
def test_what_is_scored_without_adapters_keeps_documents_apart(kind: str) -> None:
    config = read_config({**CARRIED_ADAPTERS, "TTT_KIND": kind}, "pr599")
    plain = replace(config, evaluation=config.evaluation.untrained()).evaluation
    assert (plain.ttt_enabled, plain.isolates, plain.eval_carry) == (False, True, True)


@pytest.mark.parametrize("evaluation", [EvalConfig(), EvalConfig(ttt_enabled=True, ttt_kind="phased")])
def test_without_adapters_only_training_is_left_out(evaluation: EvalConfig) -> None:
    assert evaluation.untrained() == replace(evaluation, ttt_enabled=False)


def test_a_run_with_adapters_that_carry_their_document_ends_well(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {**CARRIED_ADAPTERS, "TTT_KIND": "lora", "VAL_LOSS_EVERY": "1", "DIAGNOSTICS": "1"}
    assert run(tmp_path, corpus, changes, monkeypatch) == 0
    said = capsys.readouterr().out
    assert "DIAGNOSTIC post_ema" in said
    assert re.search(r"final_int6_roundtrip .*carried\+documents", said)
    assert re.search(r"legal_ttt .*LoRA_TTT\+carried\+documents", said)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"TTT_LORA_PARTS": "mamba", "USE_HYMBA": "0"}, "mamba"),
        ({"TTT_LORA_PARTS": "attention,mlp", "TTT_FREEZE_BLOCKS": "2"}, "attention, mlp beyond its first 2 blocks"),
    ],
)
@pytest.mark.parametrize("kind", ["lora", "phased_lora"])
def test_adapters_of_nothing_are_refused_before_training(
    kind: str, changes: Mapping[str, str], reason: str, corpus: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run(tmp_path, corpus, {**changes, "TTT_ENABLED": "1", "TTT_KIND": kind}, monkeypatch) == 2
    told = capsys.readouterr()
    assert told.err == f"train_gpt.py: TTT_LORA_PARTS: the model has no layer for adapters on {reason}\n"
    assert told.out == ""
    assert not (tmp_path / "logs").exists()
    # Other kinds of training have no adapters.
    assert not read_config({**miniature_environment(corpus, "demo"), **changes}, "demo").evaluation.has_adapters


def test_adapters_where_the_model_has_a_layer_are_accepted() -> None:
    changes = {"TTT_ENABLED": "1", "TTT_KIND": "lora", "TTT_LORA_PARTS": "mamba,head", "USE_HYMBA": "0"}
    config = read_config({**changes, "TTT_FREEZE_BLOCKS": "7"}, "pr599")
    assert (config.evaluation.ttt_freeze_blocks, config.model.num_layers) == (7, 7)


def test_a_first_part_without_text_is_reported_and_scored(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path(miniature_environment(corpus, "demo")["DATA_PATH"])
    folder = tmp_path / before.name
    shutil.copytree(before, folder)
    (shard,) = folder.glob("fineweb_val_*.bin")
    # A document of its mark alone: its one target is the next mark, which is no text.
    write_shard(shard, [1, *map_shard(shard)[:20].tolist()])
    changes = {"DATA_PATH": str(folder), "TTT_ENABLED": "1", "TTT_CHUNK_TOKENS": "1"}
    assert run(tmp_path, corpus, changes, monkeypatch) == 0
    said = re.findall(r"ttt_chunk \[(\d+)/20\] bpb=(\S+) ", capsys.readouterr().out)
    assert said[0] == ("1", "nan")
    assert [float(bpb) > 0 for _, bpb in said[1:]] == [True] * 19


def test_a_process_without_a_log_computes_no_progress(corpus: Path) -> None:
    config = read_config(miniature_environment(corpus, "demo"), "demo")
    unread = RunLog(None, enabled=False)
    running = Run(config, Worker(1, 2), unread, Path("train_gpt.py"), lambda: pytest.fail("the clock was read"))
    running._report_chunk(0.0, 1, 2, EvalResult(1.0, 1, 0))


def test_a_memory_without_end_is_refused_before_training() -> None:
    with pytest.raises(ConfigError, match=r"^EVAL_CARRY_STATE: a layer without SLIDING_WINDOW"):
        read_config({**CARRIED_ADAPTERS, "TTT_KIND": "phased"}, "pr599")
