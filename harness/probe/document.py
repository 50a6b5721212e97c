"""What a probe leaves behind: the runs and what they showed, as `probe.json` has them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.facts.scorekinds import Kinds
from harness.probe.experiments.events import pairs
from harness.probe.experiments.ledger import RUN
from harness.probe.miniature import Miniature
from harness.probe.notrun import functions_not_run
from harness.probe.printed import NOT_KNOWN
from harness.probe.session import MiniatureRun
from harness.probe.world import World
from harness.sandbox.backend import Sandbox
from harness.sources import evidence
from harness.sources.folder import walk

TEXT_LIMIT_CHARACTERS: Final = 500
LISTED_LIMIT: Final = 200


@dataclass(frozen=True, slots=True)
class Probe:
    """What a submission is probed with.

    Attributes:
        folder: the record folder.
        script: its training script.
        miniature: the configuration.
        longer: the same with longer sequences, for a script that ends at the usual length.
        claimed: settings of the claimed run.
        text: the script, unpacked.
        ranked: whether the script asks for ranks or a process group.
        wanted: what is done in the evaluation whose score is claimed.
    """

    folder: Path
    script: str
    miniature: Miniature
    claimed: Mapping[str, str]
    text: str = ""
    ranked: bool = True
    longer: Miniature | None = None
    wanted: Kinds = NOT_KNOWN


def of(
    probe: Probe, made: World, sandbox: Sandbox, runs: Mapping[str, MiniatureRun], experiments: Mapping[str, Any]
) -> dict[str, Any]:
    """The document of a probe.

    Args:
        probe: what was probed.
        made: the world of its first run.
        sandbox: the sandbox in force.
        runs: every run by its name, in order.
        experiments: what the experiments say, by name.
    """
    spec = probe.miniature.spec
    return {
        "schema": "probe/1",
        "folder_sha256": evidence.code_sha256(evidence.code_files(walk(probe.folder))),
        "script": probe.script,
        "isolation": {"level": str(sandbox.level), "backend": sandbox.backend.name},
        "world": {
            "vocabulary": spec.vocabulary,
            "caseops": spec.caseops,
            "val_tokens": made.val_tokens,
            "val_bytes": made.val_bytes,
            "seed": spec.seed,
        },
        "shrunk": {name: list(pair) for name, pair in probe.miniature.shrunk.items()},
        "claimed": dict(probe.claimed),
        "runs": [_run(name, done) for name, done in runs.items()],
        "experiments": dict(experiments),
    } | _executed(probe, runs.get(RUN))


def _executed(probe: Probe, traced: MiniatureRun | None) -> dict[str, Any]:
    """Lines that the traced run went through, and functions of the script that it never entered."""
    told = traced.of("lines")[:LISTED_LIMIT] if traced is not None else ()
    if traced is None or not told:
        return {}
    files = {
        _text(traced.shipped(event.get("path")) or event.get("path")): pairs(event.get("ranges")) for event in told
    }
    # What a packed script unpacked last is the program itself.
    innermost = ([path for path in files if path.startswith("<unpacked")] or [probe.script])[-1]
    return {
        "executed": [{"path": path, "ranges": [list(pair) for pair in found]} for path, found in files.items()],
        "not_run": functions_not_run(probe.text, files.get(innermost, ())),
    }


def _run(name: str, done: MiniatureRun) -> dict[str, Any]:
    outcome = done.outcome
    crash = done.crash
    return {
        "name": name,
        "ended": outcome.ended,
        "reason": outcome.reason,
        "returncode": outcome.returncode,
        "seconds": round(outcome.seconds, 3),
        "cpu_seconds": round(outcome.cpu_s, 3),
        "peak_memory_bytes": outcome.peak_memory_bytes,
        "val_bpb": _finite(done.val_bpb),
        "val_loss": _finite(done.val_loss),
        "labels": [_text(label) for label in done.printed.labels[:LISTED_LIMIT]],
        "unread": _text(done.printed.unread),
        "replaced": [
            {"name": _text(event.get("name")), "how": _text(event.get("how")), "exact": event.get("exact") is True}
            for event in _each_once(done.of("shim"))[:LISTED_LIMIT]
        ],
        "refused": [
            [_text(event.get("name")), _text(event.get("why"))]
            for event in _each_once(done.of("refusal"))[:LISTED_LIMIT]
        ],
        "crash": None if crash is None else _crash(crash, done.shipped(crash.get("path"))),
        "damaged_events": done.damaged,
    }


def _each_once(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Events without those of the same name: each process tells its own."""
    return list({_text(event.get("name")): event for event in reversed(events)}.values())[::-1]


def _crash(event: Mapping[str, Any], path: str | None) -> dict[str, Any]:
    """The crash as the child told it, in the submission's file at that path."""
    line, blame = event.get("line"), event.get("blame")
    return {
        "type": _text(event.get("type")),
        "message": _text(event.get("message")),
        "blame": blame if blame in {"script", "shim", "unknown"} else "unknown",
        "reason": _text(event.get("reason")),
        "path": None if path is None else path[:TEXT_LIMIT_CHARACTERS],
        "line": line if isinstance(line, int) and not isinstance(line, bool) else None,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _text(value: object) -> str:
    return str(value if value is not None else "")[:TEXT_LIMIT_CHARACTERS]
