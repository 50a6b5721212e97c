"""Whole runs of a tiny script: each way to fail is one clear row."""

from __future__ import annotations

import ast
import json
import os
import shutil
from pathlib import Path

import psutil
import pytest

from harness.facts import reproduction
from harness.model import HarnessError, Located, Missing
from harness.reproduce import run
from harness.sources.folder import walk
from tests import fakescript
from tests.fakescript import machine, make_data, make_folder, make_plan, read_run


def test_ordinary_run(tmp_path: Path) -> None:
    folder, out = make_folder(tmp_path), tmp_path / "evidence"
    fakescript.reproduce(make_plan(folder, seeds=(1, 2), data=make_data(tmp_path)), out)
    facts = reproduction.read(out, walk(folder))
    assert [(seed.seed, seed.outcome, seed.detail) for seed in facts.seeds] == [(1, "ok", ""), (2, "ok", "")]
    first = facts.seeds[0]
    assert first.steps.value == 3  # type: ignore[union-attr]
    assert isinstance(first.val_bpb, Located)
    assert isinstance(first.rescored_val_bpb, Located)
    assert first.rescored_val_bpb.value == first.val_bpb.value
    assert first.val_bpb.location.path == "seed-1/train.log"
    log = (out / "seed-1" / "train.log").read_text(encoding="utf-8").splitlines()
    assert f"val_bpb:{first.val_bpb.value:.8f}" in log[(first.val_bpb.location.line or 0) - 1]
    assert isinstance(first.repacked, Located)
    assert first.repacked.value
    code = (folder / "train_gpt.py").stat().st_size
    assert (first.model_bytes.value, first.artifact_bytes.value) == (320, 320 + code)  # type: ignore[union-attr]
    assert first.logged_bytes.value == 320 + code  # type: ignore[union-attr]
    # Two differences of consecutive steps lie between the first and the last step line.
    assert 0.04 <= first.train_seconds.value < 5  # type: ignore[union-attr]
    assert 0.05 <= first.eval_seconds.value < 5  # type: ignore[union-attr]
    assert first.peak_memory_bytes.value > 2**20  # type: ignore[union-attr]
    assert facts.isolation == "L1 (not isolated)"
    assert not facts.stale
    mean = next(aggregate for aggregate in facts.summary if aggregate.column == "val_bpb")
    values = [seed.val_bpb.value for seed in facts.seeds]  # type: ignore[union-attr]
    assert mean.mean == pytest.approx(sum(values) / 2)
    assert mean.std == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert not (folder / "final_model.ptz").exists()


@pytest.mark.parametrize(
    ("behaviour", "outcome", "detail", "lacks"),
    [
        ("crash", "crash", "RuntimeError: something broke", ""),
        ("cuda", "crash", "RuntimeError: CUDA is required", "a CUDA device"),
        ("nan", "nan", "the final val_bpb is nan", ""),
        ("no artifact", "no_artifact", "no file final_model.ptz was left", ""),
        ("no metric", "no_metric", "the log holds no final val_bpb", ""),
    ],
)
def test_failures_are_rows(tmp_path: Path, behaviour: str, outcome: str, detail: str, lacks: str) -> None:
    out = tmp_path / "evidence"
    fakescript.reproduce(make_plan(make_folder(tmp_path, behaviour), seeds=(1, 2)), out)
    rows = [read_run(out, seed) for seed in (1, 2)]
    assert [(row["outcome"], row["detail"], row["machine_lacks"]) for row in rows] == [(outcome, detail, lacks)] * 2
    assert rows[0]["repack"]["outcome"] == "skipped"


def test_hang_is_a_timeout(tmp_path: Path) -> None:
    out = tmp_path / "evidence"
    limits = {"startup_seconds": 0.3, "wallclock_seconds": 0.2, "eval_seconds": 0.2, "grace_seconds": 0.1}
    fakescript.reproduce(make_plan(make_folder(tmp_path, "hang"), **limits), out)
    row = read_run(out)
    assert (row["outcome"], row["detail"]) == ("timeout", "no training step in 1 s")
    assert row["seconds"] < 10
    assert row["exit_code"] == -9


def test_flood_is_ended(tmp_path: Path) -> None:
    out = tmp_path / "evidence"
    fakescript.reproduce(make_plan(make_folder(tmp_path, "flood")), out, machine(output_bytes=100_000))
    row = read_run(out)
    assert (row["outcome"], row["detail"]) == ("killed", "printed more than 100,000 bytes")
    assert (out / "seed-1" / "train.log").stat().st_size < 300_000


def test_daemon_does_not_survive(tmp_path: Path) -> None:
    out = tmp_path / "evidence"
    fakescript.reproduce(make_plan(make_folder(tmp_path, "daemon")), out)
    row = read_run(out)
    assert (row["outcome"], row["survivors"]) == ("ok", 1)
    pid = int((out / "seed-1" / "train" / "daemon.pid").read_text(encoding="utf-8"))
    assert not psutil.pid_exists(pid)


def test_nothing_of_the_caller_leaks(tmp_path: Path) -> None:
    out = tmp_path / "evidence"
    caller = {"PATH": os.environ["PATH"], "SECRET_TOKEN": "leak", "PYTHONPATH": "/leak", "LD_PRELOAD": ""}
    fakescript.reproduce(make_plan(make_folder(tmp_path, "environment")), out, machine(caller))
    seen = ast.literal_eval((out / "seed-1" / "train" / "environment.txt").read_text(encoding="utf-8"))
    assert "leak" not in " ".join(seen.values())
    assert seen["HOME"] == str(out / "seed-1" / "home")
    assert (seen["SEED"], seen["RUN_ID"], seen["MAX_WALLCLOCK_SECONDS"]) == ("1", "seed1", "20")
    known = {
        "PATH",
        "HOME",
        "TMPDIR",
        "LANG",
        "OMP_WAIT_POLICY",
        "SEED",
        "RUN_ID",
        "MAX_WALLCLOCK_SECONDS",
        "BEHAVIOUR",
    }
    assert set(seen) - {"LC_CTYPE"} == known | {"PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "PYTHONUNBUFFERED"}


def test_repacking_that_differs(tmp_path: Path) -> None:
    out, folder = tmp_path / "evidence", make_folder(tmp_path, "repack differs")
    fakescript.reproduce(make_plan(folder), out)
    row = read_run(out)
    assert row["repack"]["outcome"] == "different"
    assert row["repack"]["sha256"] != row["artifact"]["sha256"]
    facts = reproduction.read(out, walk(folder))
    assert isinstance(facts.seeds[0].repacked, Located)
    assert not facts.seeds[0].repacked.value


def test_rescoring_that_differs(tmp_path: Path) -> None:
    out = tmp_path / "evidence"
    fakescript.reproduce(make_plan(make_folder(tmp_path, "rescore differs")), out)
    row = read_run(out)
    assert row["rescore"]["val_bpb"] == pytest.approx(row["val_bpb"] + 0.01)


def test_rescoring_sees_no_training_data(tmp_path: Path) -> None:
    out = tmp_path / "evidence"
    made = make_plan(make_folder(tmp_path, "evaluation needs training data"), data=make_data(tmp_path))
    fakescript.reproduce(made, out)
    row = read_run(out)
    assert row["outcome"] == "ok"
    assert row["rescore"]["outcome"] == "failed"
    assert row["rescore"]["detail"] == "crash, FileNotFoundError: no training shards"
    assert not (out / "seed-1" / "data").exists()


def test_undeclared_rebuild_is_said(tmp_path: Path) -> None:
    out, folder = tmp_path / "evidence", make_folder(tmp_path, declared={})
    fakescript.reproduce(make_plan(folder), out)
    row = read_run(out)
    assert (row["outcome"], row["artifact"]["path"]) == ("ok", "final_model.ptz")
    assert row["repack"]["outcome"] == row["rescore"]["outcome"] == "not_declared"
    facts = reproduction.read(out, walk(folder))
    assert isinstance(facts.seeds[0].repacked, Missing)


def test_finished_seeds_are_kept_and_unfinished_ones_repeated(tmp_path: Path) -> None:
    out, folder = tmp_path / "evidence", make_folder(tmp_path)
    fakescript.reproduce(make_plan(folder), out)
    before = (out / "seed-1" / "run.json").stat().st_mtime_ns
    # A run that was killed leaves everything but the last document.
    shutil.copytree(out / "seed-1", out / "seed-2")
    (out / "seed-2" / "run.json").unlink()
    (out / "seed-2" / "train" / "leftover").touch()
    assert [seed.seed for seed in reproduction.read(out, walk(folder)).seeds] == [1]
    fakescript.reproduce(make_plan(folder, seeds=(1, 2)), out)
    assert (out / "seed-1" / "run.json").stat().st_mtime_ns == before
    assert read_run(out, 2)["seed"] == 2
    assert not (out / "seed-2" / "train" / "leftover").exists()


def test_another_plan_is_refused_by_name(tmp_path: Path) -> None:
    out, folder = tmp_path / "evidence", make_folder(tmp_path)
    fakescript.reproduce(make_plan(folder), out)
    with pytest.raises(HarnessError, match=r"another plan \(environment, train_limit_seconds differ\)"):
        fakescript.reproduce(make_plan(folder, wallclock_seconds=7.0), out)
    (folder / "train_gpt.py").write_text("print()", encoding="utf-8")
    assert reproduction.read(out, walk(folder)).stale
    with pytest.raises(HarnessError, match=r"another plan \(code differ"):
        fakescript.reproduce(make_plan(folder), out)


def test_evidence_may_not_lie_inside_the_submission(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    with pytest.raises(HarnessError, match="inside the submission"):
        fakescript.reproduce(make_plan(folder), folder / "evidence")
    assert not (folder / "evidence").exists()


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").touch()
    with pytest.raises(HarnessError, match="neither empty nor an evidence directory"):
        fakescript.reproduce(make_plan(make_folder(tmp_path)), other)
    with pytest.raises(HarnessError, match="not removed"):
        run.remove(other)
    assert (other / "thesis.txt").exists()


def test_foreign_code_is_refused_without_isolation(tmp_path: Path) -> None:
    made = make_plan(make_folder(tmp_path))
    with pytest.raises(HarnessError, match="--allow-unsafe"):
        run.refuse_untrusted(made, "L1 (not isolated)", allow_unsafe=False)
    run.refuse_untrusted(made, "L1 (not isolated)", allow_unsafe=True)
    run.refuse_untrusted(made, "L3", allow_unsafe=False)


def test_two_commands_do_not_share_a_directory(tmp_path: Path) -> None:
    out = tmp_path / "evidence"
    made = make_plan(make_folder(tmp_path))
    run.prepare(made, out, machine())
    with run._locked(out), pytest.raises(HarnessError, match="another harness"):
        fakescript.reproduce(made, out)


def test_changed_evidence_is_refused(tmp_path: Path) -> None:
    out, folder = tmp_path / "evidence", make_folder(tmp_path)
    fakescript.reproduce(make_plan(folder), out)
    path = out / "seed-1" / "run.json"
    row = read_run(out) | {"val_bpb": "low"}
    path.write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(HarnessError, match=r"run\.json#/val_bpb"):
        reproduction.read(out, walk(folder))
