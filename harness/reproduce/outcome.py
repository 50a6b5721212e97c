"""How a run ended, in one word and one line."""

from __future__ import annotations

import math
import re
import signal
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from harness.reproduce.executors.base import Ending

DETAIL_CHARACTERS: Final = 300
_RANK = re.compile(r"^\[(?:rank|default)\d+\]:\s?")
_EXCEPTION = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?[A-Za-z_]\w*(?:Error|Exception|Interrupt|Exit|Warning|Iteration)\b")
_LAUNCHER = re.compile(r"ChildFailedError|torch\.distributed\.elastic")
_NO_MODULE = re.compile(r"No module named '([A-Za-z_]\w*)")
_NO_DEVICE = re.compile(r"cuda|nvidia|\bnccl\b|\bgpu\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run gave nothing: the outcome's word, one line, and what this machine lacks that explains it."""

    outcome: str
    detail: str
    machine_lacks: str = ""


def of_process(ending: Ending, own_modules: frozenset[str], accelerators: int) -> Failure | None:
    """The failure of a process, or None when it ended by itself with status 0.

    Args:
        ending: how it ended.
        own_modules: names of the modules that the submission ships.
        accelerators: how many CUDA devices this machine has.
    """
    if ending.killed:
        return Failure("timeout" if ending.overdue else "killed", one_line(ending.killed))
    if ending.exit_code == 0:
        return None
    detail = last_words(ending.tail) or f"no output, {_status(ending.exit_code)}"
    return Failure("crash", one_line(detail), machine_lacks(detail, own_modules, accelerators))


def of_score(val_bpb: float | None) -> Failure | None:
    """The failure of a log without a usable score."""
    if val_bpb is None:
        return Failure("no_metric", "the log holds no final val_bpb")
    if not math.isfinite(val_bpb):
        return Failure("nan", f"the final val_bpb is {val_bpb}")
    return None


def last_words(tail: Sequence[str]) -> str:
    """The line that says why: of the last traceback that is not the launcher's own, else the last line printed."""
    lines = [_RANK.sub("", line).rstrip() for line in tail]
    exceptions = [line for line in _after_traceback(lines) if _EXCEPTION.match(line) and not _LAUNCHER.search(line)]
    spoken = [line for line in lines if line.strip()]
    return exceptions[-1] if exceptions else (spoken[-1].strip() if spoken else "")


def machine_lacks(detail: str, own_modules: frozenset[str], accelerators: int) -> str:
    """What this machine lacks that explains a crash, or "": an accelerator, or a package that nobody ships."""
    module = _NO_MODULE.search(detail)
    if module:
        return "" if module[1] in own_modules else f"the package {module[1]}"
    return "a CUDA device" if accelerators == 0 and _NO_DEVICE.search(detail) else ""


def one_line(text: str) -> str:
    """A text fit for a table: one line, no control or direction characters, not too long."""
    clean = "".join("\ufffd" if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else c for c in text.strip())
    return clean if len(clean) <= DETAIL_CHARACTERS else clean[: DETAIL_CHARACTERS - 3] + "..."


def _after_traceback(lines: Sequence[str]) -> list[str]:
    starts = [number for number, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    return list(lines[starts[0] :]) if starts else []


def _status(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"
