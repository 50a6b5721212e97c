"""Evidence of a probe, made by hand, and the facts that are read from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.facts import probe
from harness.facts.probe import ProbeFacts
from harness.sources import evidence, probeevidence
from harness.sources.folder import walk

RUN: dict[str, Any] = {
    "name": "bare",
    "ended": "exit",
    "reason": "exit status 0",
    "returncode": 0,
    "seconds": 3.5,
    "cpu_seconds": 4.0,
    "peak_memory_bytes": 300_000_000,
    "val_bpb": 2.5,
    "val_loss": 4.2,
    "labels": ["final_int8_zlib_roundtrip_exact"],
    "unread": "",
    "replaced": [{"name": "torch.compile", "how": "runs uncompiled", "exact": False}],
    "refused": [],
    "crash": None,
    "damaged_events": 0,
}
CRASH = {"type": "AttributeError", "message": "no x", "blame": "script", "reason": "nothing defines x"}
LEDGER: dict[str, Any] = {
    "result": "bound",
    "reason": "the printed loss is the mean of the scores added up at train_gpt.py:1 evaluate",
    "where": "train_gpt.py:1 evaluate",
    "count": 1000,
    "learned_before": 0,
    "learned": [],
    "missing": [],
    "doubled": [],
    "tokens": 1000,
    "passes": 1,
    "timeline": [],
    "left_out": 0,
}


def document(folder: Path, run: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    made = {
        "schema": "probe/1",
        "folder_sha256": evidence.code_sha256(evidence.code_files(walk(folder))),
        "script": "train_gpt.py",
        "isolation": {"level": "L3", "backend": "bubblewrap"},
        "world": {"vocabulary": 1024, "caseops": False, "val_tokens": 1700, "val_bytes": 6800, "seed": 0},
        "shrunk": {"ITERATIONS": ["20000", "8"]},
        "claimed": {},
        "runs": [RUN | (run or {})],
        "experiments": {},
    }
    return made | changes


def script_folder(root: Path) -> Path:
    """A folder with a script and nothing else; evidence of it lies beside it."""
    made = root / "run"
    made.mkdir()
    (made / "train_gpt.py").write_text("print(1)\n", encoding="utf-8")
    return made


def facts(folder: Path, run: dict[str, Any] | None = None, **changes: Any) -> ProbeFacts:
    where = folder.with_name("evidence")
    where.mkdir(exist_ok=True)
    probeevidence.write(where, document(folder, run, **changes))
    found = probe.read(where, walk(folder))
    assert isinstance(found, ProbeFacts)
    return found
