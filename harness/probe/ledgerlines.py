"""From the events of a traced run to the lines of its ledger: each checked, all in order of what happened.

What the tracer sums up, it tells at the end. Here a phase stands at its begin, a pass behind its last score, and
everything else at the number of the computation that it belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from harness.probe.session import MiniatureRun
from harness.sources import ledgerfile

# What the channel knows beside the lines: its own count and the virtual time.
OF_THE_CHANNEL: Final = frozenset({"i", "t"})
PLACES: Final = {"phase": 0, "pass": 2}


def write(run: MiniatureRun, path: Path, script: str, tokens: int, ranks: int = 1) -> Mapping[str, Any]:
    """Write the ledger of a traced run; returns its first line.

    Args:
        run: the traced run.
        path: the file.
        script: the script, relative to the folder.
        tokens: tokens of the validation text.
        ranks: processes that ran.
    """
    kinds = ledgerfile.kinds()
    every = [_line(event) for event in run.events if event.get("kind") in kinds]
    lines = sorted((line for line in every if ledgerfile.valid(line, tokens)), key=_order)
    header = {
        "kind": ledgerfile.HEADER,
        "schema": ledgerfile.SCHEMA,
        "script": script,
        "tokens": tokens,
        "ranks": ranks,
        "lines": len(lines),
        "rejected": len(every) - len(lines),
        "unreadable": run.damaged,
    }
    ledgerfile.write(path, header, lines)
    return header


def _line(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event as a line: with its rank, and with the number at which it belongs."""
    line = {name: value for name, value in event.items() if name not in OF_THE_CHANNEL}
    if line["kind"] == "phase":
        line["at"] = line.get("begins") or 0
    elif line["kind"] == "pass":
        line["at"] = line.get("last")
    first = {"kind": line.pop("kind"), "at": line.pop("at", None), "rank": line.pop("rank", 0)}
    return first | line


def _order(line: Mapping[str, Any]) -> tuple[int, int]:
    """Events with one number stand as they came."""
    return line["at"], PLACES.get(line["kind"], 1)
