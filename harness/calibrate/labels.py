"""Label files: submissions with known verdicts, one JSON object in a line, by `schemas/labels.schema.json`."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.model import HarnessError
from harness.sources import schemas
from harness.sources.folder import shown
from harness.sources.pullrequest import record_folder

FILE_LIMIT_BYTES: Final = 64 * 1024 * 1024
# "NOT decidable from code", "behavioural (sum over vocab)": no reading of the code can decide these.
_BEYOND_READING = re.compile(r"\bNOT\b|(?i:behaviou?r)")


@dataclass(frozen=True, slots=True)
class Label:
    """One submission with its verdict.

    Attributes:
        id: its name in the file.
        label: `legal`, `illegal`, `disputed` or `broken`.
        classes: mechanisms and circumstances.
        commit: where it is.
        path: the file that the verdict is about.
        folder: the record folder that holds the file, or "" when it lies in none.
        key_lines: lines of the file that decide.
        pair: the id of its twin, or "".
        cluster: what it shares with its relatives; its own id when nothing is said.
        readable: whether reading the code can decide it at all.
        environment: what the file says of the environment that is needed; for the reader only.
    """

    id: str
    label: str
    classes: tuple[str, ...]
    commit: str
    path: str
    folder: str
    key_lines: tuple[int, ...]
    pair: str
    cluster: str
    readable: bool
    environment: str


def read(path: Path) -> tuple[Label, ...]:
    """Every label of a file.

    Raises:
        HarnessError: the file cannot be read, holds no label, or one of its lines is bad; the message names the line.
    """
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT_BYTES + 1)
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) > FILE_LIMIT_BYTES:
        raise HarnessError(f"{path}: larger than the {FILE_LIMIT_BYTES:,} bytes that are read")
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    labels = [_label(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not labels:
        raise HarnessError(f"{path}: holds no label")
    _check_names(path, labels)
    return tuple(label for _, label in labels)


def _label(path: Path, number: int, line: bytes) -> tuple[int, Label]:
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "not UTF-8, or nested too deeply"
        raise HarnessError(f"{path}:{number}: not a JSON object in one line ({reason})") from None
    found = schemas.problems("labels", row)
    if found:
        place, clause = found[0]
        raise HarnessError(f"{path}:{number}: {place or 'the row'} {clause}")
    return number, _made(row)


def _made(row: Mapping[str, Any]) -> Label:
    return Label(
        id=row["id"],
        label=row["label"],
        classes=tuple(dict.fromkeys(row["classes"])),
        commit=row["commit"],
        path=row["path"],
        folder=record_folder(row["path"]),
        key_lines=tuple(key["line"] for key in row.get("key_lines") or ()),
        pair=row.get("pair") or "",
        cluster=row.get("cluster") or row["id"],
        readable=not _BEYOND_READING.search(row.get("decidable") or ""),
        environment=row.get("env_needed") or "",
    )


def _check_names(path: Path, labels: Sequence[tuple[int, Label]]) -> None:
    counts = Counter(label.id for _, label in labels)
    for number, label in labels:
        if counts[label.id] > 1:
            raise HarnessError(f"{path}:{number}: the id {shown(label.id)!r} stands in {counts[label.id]} lines")
        if label.pair == label.id:
            raise HarnessError(f"{path}:{number}: {shown(label.id)!r} is its own pair")
