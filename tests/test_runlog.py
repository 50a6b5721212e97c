"""The log grammar, line by line, and where the lines go."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.facts.phasekinds import ARTIFACT, SUM, phase_kind
from harness.sources.logevents import PhaseEvent
from harness.sources.loggrammar import parse_line
from reference_model.runlog import (
    RULE_LINE,
    Progress,
    RunLog,
    calibration_line,
    diagnostic_line,
    packing_line,
    reserve_line,
    score_lines,
    size_lines,
    stop_line,
    train_line,
    validation_line,
    version_lines,
)

HALF_WAY = Progress(step=40, steps=80, train_ms=10_004.4)


def test_lines_of_training() -> None:
    assert train_line(HALF_WAY, 3.25) == "step:40/80 train_loss:3.2500 train_time:10004ms step_avg:250.11ms"
    assert validation_line(HALF_WAY, 3.0, 1.75) == (
        "step:40/80 val_loss:3.0000 val_bpb:1.7500 train_time:10004ms step_avg:250.11ms"
    )
    assert stop_line(HALF_WAY) == "stopping_early: wallclock_cap train_time:10004ms step:40/80"


def test_no_step_divides_by_zero() -> None:
    assert validation_line(Progress(0, 80, 0.0), 7.0, 4.0).endswith("train_time:0ms step_avg:0.00ms")


def test_lines_of_the_score_keep_all_digits_in_the_exact_one() -> None:
    rounded, exact = score_lines("legal_ttt", (2.123456789, 1.700000049), "score_first_ttt", 4.2504)
    assert rounded == "legal_ttt val_loss:2.1235 val_bpb:1.7000 eval_mode:score_first_ttt eval_time:4250ms"
    assert exact == "legal_ttt_exact val_loss:2.12345679 val_bpb:1.70000005"


def test_lines_of_sizes_add_up() -> None:
    assert size_lines("int6+zstd-22", 60_000, 900_000) == (
        "Code size: 60000 bytes",
        "Serialized model int6+zstd-22: 900000 bytes",
        "Total submission size int6+zstd-22: 960000 bytes",
    )


def test_packing_and_calibration_state_their_seconds_as_published_logs_do() -> None:
    packed, checked = packing_line("int6+zstd-22", 0.5), calibration_line(586.066, 9.8231)
    assert packed == "Serialize: int6+zstd-22 done in 0.500s"
    assert checked == "gptq:budget_check train:586066ms + gptq:9823ms = 595889ms"
    assert reserve_line(12.0, 588.0) == "gptq:reserving 12s, effective=588000ms"
    phases = [event for line in (packed, checked) for event in parse_line(line, 1)]
    assert [(phase_kind(event.name), event.milliseconds) for event in phases if isinstance(event, PhaseEvent)] == [
        (ARTIFACT, 500.0),
        (SUM, 9823.0),
    ]


def test_diagnostics_are_marked() -> None:
    assert diagnostic_line("post_ema", (2.0, 1.5), 0.5) == (
        "DIAGNOSTIC post_ema val_loss:2.0000 val_bpb:1.5000 eval_time:500ms"
    )


def test_versions_name_what_numbers_depend_on() -> None:
    text = "\n".join(version_lines())
    for name in ("Python 3", "PyTorch ", "numpy ", "zstandard ", "threads:"):
        assert name in text


def test_source_goes_to_the_file_only_between_rules(tmp_path: Path) -> None:
    console: list[str] = []
    path = tmp_path / "logs" / "seed7.txt"
    log = RunLog(path, console.append)
    log.record_header({"SEED": "7", "MODEL_DIM": "64"}, "x = 1\n", ["Running Python 3"])
    log.say("seed:7")
    assert path.read_text().splitlines() == [
        *[RULE_LINE, "Hyperparameters:", "  MODEL_DIM: 64", "  SEED: 7", RULE_LINE],
        *["x = 1", RULE_LINE, "Running Python 3", RULE_LINE, "seed:7"],
    ]
    assert "x = 1" not in console
    assert console[-1] == "seed:7"


def test_a_new_log_replaces_the_old_one_and_then_appends(tmp_path: Path) -> None:
    path = tmp_path / "run.txt"
    path.write_text("old\n")
    log = RunLog(path, lambda _: None)
    log.say("a")
    log.say("b", "c")
    assert path.read_text() == "a\nb\nc\n"


def test_other_ranks_say_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunLog(tmp_path / "run.txt", enabled=False).say("a")
    assert not (tmp_path / "run.txt").exists()
    assert not capsys.readouterr().out


def test_last_score_of_a_log_is_the_headline() -> None:
    lines = [
        diagnostic_line("post_ema", (2.0, 1.5), 0.5),
        *score_lines("final_int6_roundtrip", (2.1, 1.6), "plain", 1.0),
        *score_lines("legal_ttt", (2.05, 1.55), "score_first_ttt", 1.0),
    ]
    scores = re.findall(r"val_bpb:([0-9.]+)", "\n".join(lines))
    assert float(scores[-1]) == 1.55
