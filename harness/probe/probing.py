"""The whole probe of one submission: its runs, and the evidence that they leave."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.facts.build_package import read_scripts
from harness.facts.submission import Submission
from harness.model import HarnessError, Missing
from harness.probe import claimed, miniature, session, unique, world
from harness.probe.experiments import ledger, noninterference
from harness.probe.miniature import Miniature
from harness.probe.session import MiniatureRun, Request
from harness.probe.world import World
from harness.sandbox.backend import Sandbox
from harness.sources import evidence, probeevidence
from harness.sources.cache import user_directory
from harness.sources.folder import walk

SECONDS: Final = 240.0
# So few that a miniature training comes to the end of all its files, whichever it takes them from.
TRAIN_TOKENS: Final = 1_800
BARE: Final = "bare"
RUN_NAMES: Final = frozenset({BARE, noninterference.OTHER, noninterference.AGAIN, ledger.RUN})
TEXT_LIMIT_CHARACTERS: Final = 500
LISTED_LIMIT: Final = 200


@dataclass(frozen=True, slots=True)
class Probe:
    """What a submission is probed with.

    Attributes:
        folder: the record folder.
        script: its training script.
        miniature: the configuration.
        claimed: settings of the claimed run.
    """

    folder: Path
    script: str
    miniature: Miniature
    claimed: Mapping[str, str]


def prepare(folder: Path, facts: Submission) -> Probe:
    """Choose the configuration of a submission's miniature runs.

    Raises:
        HarnessError: there is no script to run, or it cannot be read.
    """
    entry = facts.package.entry
    if isinstance(entry, Missing):
        raise HarnessError(f"{folder}: no script to probe ({entry.reason})")
    scripts, _ = read_scripts(walk(folder))
    script = next(each for each in scripts if each.path == entry.value.path)
    settings = claimed.environment(facts)
    small = miniature.choose(script.texts[-1], settings)
    spec = dataclasses.replace(small.spec, train_tokens=TRAIN_TOKENS)
    return Probe(folder, script.path, dataclasses.replace(small, spec=spec), settings)


def run(probe: Probe, directory: Path, sandbox: Sandbox, tell: Callable[[str], None], seconds: float = SECONDS) -> None:
    """Run a probe and leave its evidence.

    Args:
        probe: what is probed.
        directory: the evidence directory, new or empty, outside of the submission's folder.
        sandbox: what `establish` gave.
        tell: gets one line for each run as it begins and ends.
        seconds: wall time of one run.

    Raises:
        HarnessError: the directory is not empty, or lies in the folder.
    """
    if directory.resolve().is_relative_to(probe.folder.resolve()):
        raise HarnessError(f"{directory}: evidence may not lie inside of the submission's folder")
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise HarnessError(f"{directory}: not empty; name another directory, or remove it")
    with tempfile.TemporaryDirectory(prefix="harness-world-") as place:
        kept = user_directory("tokenizers") or Path(place) / "kept"
        made = world.write_world(Path(place) / "data", probe.miniature.spec, kept)
        runs: dict[str, MiniatureRun] = {}

        def go(name: str, data: World, traced: tuple[str, ...] = ()) -> MiniatureRun:
            tell(f"{name}: {probe.script} on {data.val_tokens:,} validation tokens, at most {seconds:g} s")
            request = Request(probe.folder, probe.script, probe.miniature, data, seconds, traced)
            runs[name] = session.run(request, directory / name, sandbox)
            tell(f"{name}: {_ended(runs[name])}")
            return runs[name]

        bare = go(BARE, made)
        found: dict[str, Any] = {}
        if bare.val_bpb is not None:
            other = noninterference.other_world(made, probe.miniature, Path(place) / "other", kept)
            compared = noninterference.judge(
                bare, go(noninterference.OTHER, other), lambda: go(noninterference.AGAIN, made)
            )
            tell(f"non-interference: {compared.result} ({compared.reason})")
            found["non_interference"] = dataclasses.asdict(compared)
            single, shards = unique.unique_world(made, probe.miniature, Path(place) / "unique")
            order = ledger.judge(go(ledger.RUN, single, shards), single.val_tokens)
            tell(f"ledger: {order.result} ({order.reason})")
            found["ledger"] = json.loads(json.dumps(dataclasses.asdict(order)))
    probeevidence.write(directory, _document(probe, made, sandbox, runs) | {"experiments": found})


def remove(directory: Path) -> None:
    """Remove an evidence directory of a probe, to start over.

    Raises:
        HarnessError: it holds something else.
    """
    from harness.sandbox.disk import remove as remove_tree

    if directory.exists() and any(directory.iterdir()) and not _is_evidence(directory):
        raise HarnessError(f"{directory}: not an evidence directory of a probe, not removed")
    with contextlib.suppress(FileNotFoundError):
        remove_tree(directory)


def _is_evidence(directory: Path) -> bool:
    return probeevidence.has_evidence(directory) or {entry.name for entry in directory.iterdir()} <= RUN_NAMES


def _ended(done: MiniatureRun) -> str:
    score = "no final score" if done.val_bpb is None else f"val_bpb {done.val_bpb:.4f}"
    crash = next((f", {event.get('type')}: {str(event.get('message'))[:120]}" for event in done.of("crash")), "")
    return f"{score} after {done.outcome.seconds:.0f} s ({done.outcome.reason}{crash})"


def _document(probe: Probe, made: World, sandbox: Sandbox, runs: Mapping[str, MiniatureRun]) -> dict[str, Any]:
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
            "seed": spec.seed,
        },
        "shrunk": {name: list(pair) for name, pair in probe.miniature.shrunk.items()},
        "claimed": dict(probe.claimed),
        "runs": [_run(name, done) for name, done in runs.items()],
    }


def _run(name: str, done: MiniatureRun) -> dict[str, Any]:
    outcome = done.outcome
    crash = next(iter(done.of("crash")), None)
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
        "replaced": [
            {"name": _text(event.get("name")), "how": _text(event.get("how")), "exact": event.get("exact") is True}
            for event in done.of("shim")[:LISTED_LIMIT]
        ],
        "refused": [[_text(event.get("name")), _text(event.get("why"))] for event in done.of("refusal")[:LISTED_LIMIT]],
        "crash": None if crash is None else _crash(crash),
        "damaged_events": done.damaged,
    }


def _crash(event: Mapping[str, Any]) -> dict[str, Any]:
    """The crash as the child told it; its paths are those of the sandbox."""
    path, line, blame = event.get("path"), event.get("line"), event.get("blame")
    inside = isinstance(path, str) and path.startswith(f"{session.SUBMISSION}/")
    return {
        "type": _text(event.get("type")),
        "message": _text(event.get("message")),
        "blame": blame if blame in {"script", "shim", "unknown"} else "unknown",
        "reason": _text(event.get("reason")),
        "path": str(path).removeprefix(f"{session.SUBMISSION}/")[:TEXT_LIMIT_CHARACTERS] if inside else None,
        "line": line if isinstance(line, int) and not isinstance(line, bool) else None,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _text(value: object) -> str:
    return str(value if value is not None else "")[:TEXT_LIMIT_CHARACTERS]
