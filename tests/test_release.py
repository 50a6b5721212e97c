from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from harness import audit
from harness.checks.common import known
from reference_model.release import ReleaseError, finish, numbers, prepare
from reference_model.releases import RELEASES

PLAN = RELEASES["hymba_demo"]
TODAY = dt.date(2026, 1, 2)


def run_document(seed: int, val_bpb: float, **changes: Any) -> dict[str, Any]:
    return {
        "schema": "run/1",
        "seed": seed,
        "outcome": "ok",
        "detail": "",
        "val_bpb": val_bpb,
        "val_loss": 2.0 * val_bpb,
        "steps": 100,
        "train_seconds": 60.04,
        "eval_seconds": 11.26,
        "code_bytes": 50_000,
        "artifact": {"path": PLAN.artifact, "bytes": 700_000 + seed, "sha256": "0" * 64},
        "repack": {"outcome": "same", "detail": ""},
        "rescore": {"outcome": "ok", "detail": "", "val_bpb": val_bpb},
        **changes,
    }


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    for seed, val_bpb in zip(PLAN.seeds, (1.60, 1.62, 1.64), strict=True):
        write_seed(tmp_path / "evidence", run_document(seed, val_bpb))
    return tmp_path / "evidence"


def write_seed(evidence: Path, document: dict[str, Any]) -> None:
    directory = evidence / f"seed-{document['seed']}"
    (directory / "run" / "logs").mkdir(parents=True, exist_ok=True)
    (directory / "run.json").write_text(json.dumps(document), encoding="utf-8")
    (directory / "run" / "logs" / "r.txt").write_text(f"seed:{document['seed']}\n", encoding="utf-8")
    (directory / "run" / "logs" / "r.eval.txt").write_text("another mode\n", encoding="utf-8")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    counts = {"tokens": 1001, "bytes_by_table": 2800}
    files = {f"datasets/{PLAN.dataset}/fineweb_val_000000.bin": {"counts": counts}}
    (tmp_path / "manifest.json").write_text(json.dumps({"files": files}), encoding="utf-8")
    return tmp_path


def test_numbers_are_the_mean_the_sample_deviation_and_the_largest_artifact() -> None:
    made = numbers([run_document(1, 1.60), run_document(2, 1.62), run_document(3, 1.64)])
    assert made["val_bpb"] == 1.62
    assert made["val_bpb_std"] == 0.02
    assert made["bytes_total"] == 50_000 + 700_003
    assert made["seed_results"]["3"]["bytes_total"] - made["seed_results"]["3"]["bytes_model"] == 50_000
    assert list(made["seed_results"]) == ["1", "2", "3"]


def test_a_release_is_whole(tmp_path: Path, evidence: Path, data: Path) -> None:
    folder = tmp_path / "hymba_demo"
    folder.mkdir()
    (folder / "train_seed9.log").write_text("of an earlier release", encoding="utf-8")
    prepare(folder, PLAN, "print()\n", TODAY)
    finish(folder, PLAN, evidence, data)
    names = {path.name for path in folder.iterdir()}
    assert names == {"README.md", "submission.json", "train_gpt.py", *(f"train_seed{s}.log" for s in PLAN.seeds)}
    manifest = json.loads((folder / "submission.json").read_text(encoding="utf-8"))
    assert manifest["date"] == "2026-01-02"
    assert manifest["validation_split"] == {"name": PLAN.dataset, "tokens": 1000, "bytes": 2800}
    assert (folder / "train_seed42.log").read_text(encoding="utf-8") == "seed:42\n"
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert "**1.620000** ± 0.020000" in readme
    assert "| train s | eval s | total bytes | model bytes |\n" in readme
    assert "| 1337 | 1.600000 | 3.200000 | 100 | 60.0 | 11.3 | 751337 | 701337 |" in readme
    # The audit takes the total, whichever of the two it reads.
    claims = audit.read(folder, None).claims
    assert [known(row.artifact_bytes) for row in claims.seeds] == [751_337, 750_042, 752_025]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"outcome": "crash", "detail": "ValueError: no"}, "crash: ValueError: no"),
        ({"repack": {"outcome": "different", "detail": "two hashes"}}, "repack: different"),
        ({"rescore": {"outcome": "ok", "detail": "", "val_bpb": 1.63}}, "scored again from disk 1.63"),
    ],
)
def test_no_release_from_a_seed_that_failed(
    tmp_path: Path, evidence: Path, data: Path, changes: dict[str, Any], said: str
) -> None:
    write_seed(evidence, run_document(42, 1.62, **changes))
    prepare(tmp_path / "folder", PLAN, "print()\n", TODAY)
    with pytest.raises(ReleaseError, match=said):
        finish(tmp_path / "folder", PLAN, evidence, data)


def test_a_missing_seed_is_named(tmp_path: Path, evidence: Path, data: Path) -> None:
    (evidence / "seed-2025" / "run.json").unlink()
    prepare(tmp_path / "folder", PLAN, "print()\n", TODAY)
    with pytest.raises(ReleaseError, match=r"seed-2025.run\.json: missing"):
        finish(tmp_path / "folder", PLAN, evidence, data)
