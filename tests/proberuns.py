"""Traced runs of a probe and their events, made by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.probe.experiments import variants
from harness.probe.printed import Printed
from harness.probe.session import MiniatureRun
from harness.sandbox.job import Outcome
from harness.sandbox.levels import Level

ENDED = Outcome(Level.L3, "bubblewrap", "exit", "exit status 0", 0, 1.0, 1.0, 1, Path("o"), None, Path("k"))


def ran(*events: Mapping[str, Any], loss: float | None = 2.0) -> MiniatureRun:
    return MiniatureRun(ENDED, events, Printed(1.2, loss))


def wrote(digest: str | None, size: int | None = 900, sizes: Iterable[int] = ()) -> MiniatureRun:
    """A run that left two files, or none, and printed the size of one."""
    files = {} if digest is None else {"work/final_model.ptz": (digest, 900), "work/other.pt": ("o", 7)}
    return MiniatureRun(ENDED, (), Printed(2.5, 4.2, size, frozenset(sizes)), files)


def score(at: int, first: int, nats: Sequence[float], **more: Any) -> dict[str, Any]:
    places = [[first, first + len(nats)]]
    return {"kind": "score", "pass": 0, "at": at, "positions": places, "nll": list(nats), "apart": [], **more}


def whole(mean: float = 2.0, number: int = 0, count: int = 4) -> dict[str, Any]:
    return {"kind": "pass", "pass": number, "mean": mean, "count": count, "where": "a.py:3 evaluate"}


def account(*steps: float, after: Sequence[int], name: str = "nats") -> dict[str, Any]:
    return {
        "kind": "account",
        "function": "evaluate",
        "name": name,
        "total": sum(steps),
        "steps": list(steps),
        "after": list(after),
    }


def computed(*sources: list[Any], learned: Mapping[int, list[list[int]]] | None = None) -> dict[str, Any]:
    """Computations of losses, each its number and its places; by number the places that had been learned."""
    return {"kind": "sources", "sources": [[at, places, (learned or {}).get(at, [])] for at, places in sources]}


def row(crc: str, logs: Sequence[float | None], position: int = 2, at: int = 1) -> dict[str, Any]:
    return {"kind": "row", "position": position, "at": at, "crc": crc, "logs": list(logs)}


CHOSEN = (
    variants.Variant("nothing", "nothing"),
    variants.Variant("suffix-3", "suffix", 3),
    variants.Variant("self-2", "self", 2),
)


def copies(
    *, nothing: float = 2.5, before: float = 1.5, crc: str = "a", logs: float = -1.0, base: Sequence[float] = (1.5, 2.5)
) -> MiniatureRun:
    """Four tokens; `nothing` changes the score of the second in the copy that changes nothing, `before` the first."""
    made: list[dict[str, Any]] = [{"kind": "forks"}]
    for name, nats, key in (
        (None, [*base, 1.0, 3.0], "a"),
        ("nothing", [base[0], nothing, 1.0, 3.0], "a"),
        ("suffix-3", [before, 2.5, 4.0, 5.0], "a"),
        ("self-2", [1.5, 7.0, 1.5, 3.5], crc),
    ):
        marks = {} if name is None else {"variant": name}
        rows = [row(key, [logs if key != "a" else -1.0], position) for position in (2, 3)]
        made += [each | marks for each in (score(1, 1, nats), *rows, whole())]
    return ran(*made)


def crashed(blame: str, kind: str) -> MiniatureRun:
    """A run that ended by an error before it came to a score."""
    failed = Outcome(Level.L3, "bubblewrap", "exit", "exit status 1", 1, 1.0, 1.0, 1, Path("o"), None, Path("k"))
    return MiniatureRun(failed, ({"kind": "crash", "blame": blame, "type": kind},), Printed(None, None))
