"""Settings that the README states plainly, to be held against what the logs print."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.facts.runs import RUN_SPECIFIC_KEYS
from harness.model import Located, Location

LINE_LIMIT_CHARACTERS = 2_000
# Rows of a table with two columns, by the label's words; other labels mean different things to different people.
LABELS = {
    "layers": "num_layers",
    "num layers": "num_layers",
    "number of layers": "num_layers",
    "model dim": "model_dim",
    "model dimension": "model_dim",
    "sequence length": "train_seq_len",
    "train seq len": "train_seq_len",
    "vocab size": "vocab_size",
    "vocabulary size": "vocab_size",
    "ema decay": "ema_decay",
    "iterations": "iterations",
}
_ASSIGNMENT = re.compile(
    r"(?<![\w$./])([A-Z][A-Z0-9_]{2,40})=[\"']?(-?\d+(?:\.\d+)?(?:e-?\d+)?)[\"']?(?![\w.@%]|[,:/+-][\w.])"
)
# A line of a command: settings, then nothing, a line continuation, or the program that they are for.
_COMMAND = re.compile(
    r"^[\s$]*(?:export\s+|env\s+)?(?:[A-Z][A-Z0-9_]*=\S*(?:\s+|$))+(?:\\?\s*|(?:torchrun|python3?|exec)\b.*)$"
)
# Scripts print the rate in use under this name, which is another setting where embeddings are tied.
_PRINTED_OTHERWISE = frozenset({"embed_lr"})
_ROW = re.compile(r"^\s*\|\s*[*`]*([A-Za-z][A-Za-z _-]{2,30}?)[*`]*\s*\|\s*[*`]*(\d[\d,]*(?:\.\d+)?)[*`]*\s*\|\s*$")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: the name under which scripts log it, and its number."""

    key: str
    value: float


def stated_settings(text: str, path: str) -> tuple[Located[Setting], ...]:
    """Settings that a README gives one value only, each at its first line; those of a single run are left out."""
    found: dict[str, Located[Setting]] = {}
    several: set[str] = set()
    for number, line in enumerate(text.split("\n"), start=1):
        for key, value in _in_line(line[:LINE_LIMIT_CHARACTERS]):
            if key not in found:
                found[key] = Located(Setting(key, value), Location(path, number))
            elif found[key].value.value != value:
                several.add(key)
    ignored = several | RUN_SPECIFIC_KEYS | _PRINTED_OTHERWISE
    # A negative number asks the script to choose.
    return tuple(each for key, each in found.items() if key not in ignored and each.value.value >= 0)


def _in_line(line: str) -> list[tuple[str, float]]:
    assignments = _ASSIGNMENT.finditer(line) if _COMMAND.match(line) else ()
    pairs = [(match[1].lower(), float(match[2])) for match in assignments]
    row = _ROW.match(line)
    label = LABELS.get(" ".join(row[1].lower().replace("_", " ").split())) if row else None
    return [*pairs, (label, float(row[2].replace(",", "")))] if row and label else pairs
