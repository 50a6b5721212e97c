"""Which code may run without isolation: this project's own bundled submissions, recognised by hash.

`python -m harness.reproduce.trusted submissions` in a checkout renews the list.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from harness.model import HarnessError
from harness.sources.evidence import CodeFile

NAME: Final = "trusted.json"
SCHEMA: Final = "trusted/1"
SCRIPTS: Final = "*/train_gpt.py"


def is_trusted(code: Iterable[CodeFile]) -> bool:
    """Whether every code file of a folder is one of ours."""
    known = load()
    files = tuple(code)
    return bool(files) and all(file.sha256 in known for file in files)


def load() -> frozenset[str]:
    """The hashes of our own scripts.

    Raises:
        HarnessError: the list is missing or broken: the installation is incomplete.
    """
    resource = importlib.resources.files("harness.reproduce") / NAME
    try:
        document = json.loads(resource.read_text(encoding="utf-8"))
        return frozenset(document["scripts"].values())
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise HarnessError(f"{NAME}: the list of our own scripts cannot be read ({error})") from error


def compute(submissions: Path) -> dict[str, str]:
    """Path below `submissions` and hash of every bundled script there."""
    paths = sorted(submissions.glob(SCRIPTS))
    return {path.relative_to(submissions).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def write(submissions: Path, target: Path) -> None:
    """Write the list for a submissions folder to `target`, whole or not at all."""
    document = {"schema": SCHEMA, "scripts": compute(submissions)}
    partial = target.with_name(f".{target.name}.partial")
    partial.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(target)


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(__file__).with_name(NAME))
