"""Reach: what the traced run opened, connected to and started, as far as it matters.

Three things are told: addresses outside of the machine, programs, and training data that is opened after the artifact
was read back, when only its evaluation is left.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from harness.probe.session import MiniatureRun

LISTED_LIMIT: Final = 40
TEXT_LIMIT_CHARACTERS: Final = 160
_LOCAL = re.compile(r"127\.|localhost|::1|^\(?'?'?\)?$|^/|^b?'/|None")
_TRAINING = re.compile(r"train[_\w]*\.(?:bin|npy|jsonl?|txt)$")


@dataclass(frozen=True, slots=True)
class Reach:
    """What the script reached for, each as a text.

    Attributes:
        network: addresses outside of the machine.
        programs: programs that it started, or tried to.
        training_data: training files that it opened after it had read its artifact back.
    """

    network: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    training_data: tuple[str, ...] = ()


def judge(run: MiniatureRun) -> Reach:
    """Read the events of a traced run."""
    # To bind an address is to reach for nothing: it asks for a free port.
    network = [_text(event, "address") for event in run.of("socket") if event.get("what") != "socket.bind"]
    programs = [_text(event, "command") for event in run.of("process")]
    return Reach(
        _some(address for address in network if not _LOCAL.search(address)),
        _some(programs),
        _some(_after_artifact(run)),
    )


def _after_artifact(run: MiniatureRun) -> Iterator[str]:
    """Training files opened after the artifact was read."""
    artifact = run.artifact()
    name = artifact[0].rpartition("/")[2] if artifact is not None else ""
    read = False
    for event in run.of("file"):
        path, mode = _text(event, "path"), str(event.get("mode"))
        if name and path.rpartition("/")[2] == name and mode.startswith("r"):
            read = True
        elif read and mode.startswith("r") and _TRAINING.search(path):
            yield path


def _some(found: Iterator[str] | list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(found))[:LISTED_LIMIT]


def _text(event: Mapping[str, Any], key: str) -> str:
    return str(event.get(key) or "")[:TEXT_LIMIT_CHARACTERS]
