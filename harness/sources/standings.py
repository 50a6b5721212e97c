"""Leaderboard files: JSON documents of the schema `leaderboard/1`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from harness.model import HarnessError
from harness.sources import schemas

FILE_CAP_BYTES: Final = 16 << 20


def read(path: Path) -> dict[str, Any]:
    """The document of a leaderboard file.

    Raises:
        HarnessError: it is no regular file, cannot be read, is too large, is no JSON, or not of the schema.
    """
    # Opening a pipe would wait for its writer.
    if path.exists() and not path.is_file():
        raise HarnessError(f"{path}: no regular file")
    try:
        with path.open("rb") as file:
            data = file.read(FILE_CAP_BYTES + 1)
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) > FILE_CAP_BYTES:
        raise HarnessError(f"{path}: larger than {FILE_CAP_BYTES:,} bytes, no leaderboard is")
    try:
        document: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise HarnessError(f"{path}: no JSON document ({type(error).__name__})") from error
    problems = schemas.problems("leaderboard", document)
    if problems:
        pointer, clause = problems[0]
        raise HarnessError(f"{path}: no leaderboard/1 document: {pointer or 'the document'} {clause}")
    found: dict[str, Any] = document
    return found
