"""The plan of one run, as the parent wrote it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Plan:
    """What to run, and how.

    Attributes:
        script: path of the script.
        folder: the submission's folder, whose paths are told; or "".
        argv: its arguments.
        workdir: where it runs.
        environment: variables to set.
        copied: folders that are copied before the script begins, so that it may write into them: from, to.
        overrides: {"class": {CLASS: {NAME: VALUE}}, "module": {NAME: VALUE}}.
        clock: start_s, per_call_s and per_step_s of the virtual clock; empty: the real one.
        rank: the process's rank; negative: all of them are started.
        world_size: how many processes there are.
        port: the port that they would meet at.
        store: the file that they do meet by; or "".
        trace: whether a tracer watches scores and updates.
        lines: whether the lines that run are noted.
        experiment: what to perturb, for the tracer.
        newer_parser: folder of `fstrings.py` and `textlines.py`, which read f-strings of newer Pythons; or "".
        seed: seed of all generators before the script sets its own.
    """

    script: str
    folder: str = ""
    argv: tuple[str, ...] = ()
    workdir: str = "."
    environment: Mapping[str, str] = field(default_factory=dict)
    copied: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    clock: Mapping[str, float] = field(default_factory=dict)
    rank: int = 0
    world_size: int = 1
    port: int = 29500
    store: str = ""
    trace: bool = False
    lines: bool = False
    experiment: Mapping[str, Any] | None = None
    newer_parser: str = ""
    seed: int = 0


def read_plan(given: str) -> Plan:
    """Read a plan, itself or the file that is named; keys that this version does not know are ignored."""
    values = json.loads(given if given.startswith("{") else Path(given).read_text(encoding="utf-8"))
    known = {item.name for item in fields(Plan)}
    values = {name: value for name, value in values.items() if name in known}
    values["argv"] = tuple(values.get("argv", ()))
    return Plan(**values)
