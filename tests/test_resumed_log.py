"""The log of a run that was killed and resumed, read by the audit as the one run that it is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import reference_model
from harness.cli import main
from harness.facts.submission import read
from harness.model import Located
from reference_model.bundle import bundle, package_texts
from reference_model.miniature import miniature_environment, write_miniature_corpus

STEPS = 60
KILLED_AFTER = 9
SETTINGS = {"ITERATIONS": str(STEPS), "CHECKPOINT_EVERY": "4", "TRAIN_LOG_EVERY": "1", "OMP_NUM_THREADS": "1"}


def killed_and_resumed(folder: Path) -> str:
    """Kill a run once it has said its ninth step, let it go on, and return its log."""
    environ = {**miniature_environment(write_miniature_corpus(folder / "corpus")), **SETTINGS}
    script = folder / "train_gpt.py"
    script.write_text(bundle(package_texts(Path(reference_model.__file__).parent), "demo", "0"), encoding="utf-8")
    start = [sys.executable, "-u", script.name]
    with subprocess.Popen(start, cwd=folder, env=environ, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert any(line.startswith(f"step:{KILLED_AFTER}/") for line in run.stdout)
        run.kill()
    subprocess.run(start, cwd=folder, env={**environ, "RESUME": "1"}, capture_output=True, check=True, timeout=170)
    return (folder / "logs" / "miniature.txt").read_text(encoding="utf-8")


def last(pattern: str, text: str) -> str:
    found: list[str] = re.findall(pattern, text, re.MULTILINE)
    return found[-1]


def write_record(folder: Path, log: str, script: str) -> dict[str, Any]:
    """Write a record folder whose numbers are those of the log; returns what it claims."""
    exact = last(r"^legal_ttt_exact (.*)$", log)
    claimed = {
        **{key: float(last(rf"{key}:([\d.]+)", exact)) for key in ("val_loss", "val_bpb")},
        "artifact_bytes": int(last(r"^Total submission size .*: (\d+) bytes$", log)),
        "steps": STEPS,
        "train_time_s": float(last(rf"^step:{STEPS}/{STEPS} .* train_time:(\d+)ms", log)) / 1_000,
    }
    manifest = {
        "author": "Ada",
        "github_id": "ada",
        "name": "Resumed",
        "blurb": "A killed run.",
        "date": "2026-03-01",
        "val_bpb": claimed["val_bpb"],
        "val_loss": claimed["val_loss"],
        "bytes_total": claimed["artifact_bytes"],
        "bytes_code": len(script.encode()),
        "seeds": [7],
        "seed_results": {"7": claimed},
    }
    folder.mkdir()
    (folder / "train_gpt.py").write_text(script, encoding="utf-8")
    (folder / "train_seed7.log").write_text(log, encoding="utf-8")
    (folder / "submission.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "README.md").write_text(f"# Resumed\n\nval_bpb: **{claimed['val_bpb']}**\n", encoding="utf-8")
    return claimed


@pytest.mark.slow
def test_a_resumed_run_passes_its_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, folder = killed_and_resumed(tmp_path), tmp_path / "record"
    (before,) = re.findall(r"^resumed:checkpoint\.pt step:(\d+)/60 ", log, re.MULTILINE)
    claimed = write_record(folder, log, (tmp_path / "train_gpt.py").read_text(encoding="utf-8"))
    (run,) = read(folder).runs
    found = {name: getattr(run, name) for name in ("seed", "steps", "iterations", "train_seconds")}
    values = {name: fact.value for name, fact in found.items() if isinstance(fact, Located)}
    assert values == {"seed": 7, "steps": STEPS, "iterations": STEPS, "train_seconds": claimed["train_time_s"]}
    assert [step.value for step in run.resumed] == [int(before)]
    assert [step for step, _ in run.losses] == list(range(1, STEPS + 1))
    assert {"resume": "1", "checkpoint_every": "4", "seed": "7"}.items() <= {
        name: setting.value for name, setting in run.config.items()
    }.items()

    main(["audit", str(folder), "--format", "json"])
    findings = {one["rule"]: one for one in json.loads(capsys.readouterr().out)["submissions"][0]["findings"]}
    verdicts = {rule: findings[rule]["verdict"] for rule in ("PG009", "PG103", "PG201", "PG208", "PG301", "PG303")}
    assert set(verdicts.values()) == {"pass"}, verdicts
    assert f"(seed 7, resumed after step {before})" in findings["PG201"]["message"]
    # It was scored on a small text of its own, and declares no split.
    assert [rule for rule, one in findings.items() if one["verdict"] == "fail"] == ["PG305"]
    assert "a part of the split" in findings["PG305"]["message"]
