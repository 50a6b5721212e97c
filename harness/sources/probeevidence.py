"""Evidence of `harness probe`: one document, `probe.json`, beside the run directories of its runs.

It is written last and by rename, so that a document that exists is whole. A submission cannot ship its own: the
directory is named by the user, and may not lie inside of the submission's folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from harness.model import HarnessError
from harness.sources import schemas

DOCUMENT_NAME: Final = "probe.json"
DOCUMENT_CAP_BYTES: Final = 4 << 20


def has_evidence(directory: Path) -> bool:
    """Whether a directory holds a probe's evidence."""
    return (directory / DOCUMENT_NAME).is_file()


def read(directory: Path) -> Mapping[str, Any]:
    """The document of an evidence directory.

    Raises:
        HarnessError: there is none, or it is broken.
    """
    path = directory / DOCUMENT_NAME
    if not has_evidence(directory):
        raise HarnessError(f"{directory}: no evidence of a probe here ({DOCUMENT_NAME} is missing)")
    if path.stat().st_size > DOCUMENT_CAP_BYTES:
        raise HarnessError(f"{path}: larger than {DOCUMENT_CAP_BYTES:,} bytes")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise HarnessError(f"{path}: not readable as JSON ({type(error).__name__})") from error
    found = schemas.problems("probe", document)
    if found:
        raise HarnessError(f"{path}: {found[0][0] or 'the document'} {found[0][1]}")
    made: Mapping[str, Any] = document
    return made


def write(directory: Path, document: Mapping[str, Any]) -> None:
    """Write the document whole or not at all, after checking it.

    Raises:
        ValueError: the schema rejects it: a fault of ours, not of the input.
    """
    found = schemas.problems("probe", dict(document))
    if found:
        raise ValueError(f"{DOCUMENT_NAME}: {found}")
    partial = directory / f".{DOCUMENT_NAME}.partial"
    partial.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(directory / DOCUMENT_NAME)
