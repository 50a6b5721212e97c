"""Evidence directories of `harness reproduce`, and the identity of the code that they are about.

Layout: `plan.json` once, `seed-N/run.json` for each finished seed. Both are written last and by rename, so that
a document that exists is whole. A submission cannot ship its own evidence: the directory is named by the user and
may not lie inside the submission's folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from harness.model import HarnessError
from harness.sources import schemas
from harness.sources.folder import Folder

PLAN_NAME: Final = "plan.json"
RUN_NAME: Final = "run.json"
LOG_NAME: Final = "train.log"
RESCORE_LOG_NAME: Final = "rescore.log"
DOCUMENT_CAP_BYTES: Final = 1 << 20
CODE_FILE_CAP_BYTES: Final = 64 << 20
CODE_FILES_CAP: Final = 500
_SEED_DIRECTORY = re.compile(r"seed-(\d{1,19})")
# What a run may need: source, build files, tokenizers, settings. Logs, pictures, prose and models are not code.
_SOURCE_SUFFIXES = frozenset({".py", ".pyx", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".sh", ".so"})
_SETTING_SUFFIXES = frozenset({".toml", ".yaml", ".yml", ".cfg", ".ini", ".json", ".model", ".vocab"})
_NO_CODE = frozenset({"submission.json"})


@dataclass(frozen=True, slots=True)
class CodeFile:
    """One file that runs or is read by what runs; `path` is relative, POSIX style."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """An evidence directory: the plan's document and one document for each finished seed, by seed."""

    directory: Path
    plan: Mapping[str, Any]
    runs: tuple[Mapping[str, Any], ...]


def seed_directory(directory: Path, seed: int) -> Path:
    """Where a seed's files stand."""
    return directory / f"seed-{seed}"


def code_files(folder: Folder) -> tuple[CodeFile, ...]:
    """The code files of a record folder, sorted by path; hidden entries are left out.

    Raises:
        HarnessError: too many files, or a code file that is too large or cannot be read.
    """
    paths = [path for path in folder.files if _is_code(path)]
    if len(paths) > CODE_FILES_CAP:
        raise HarnessError(f"{folder.root}: {len(paths)} code files, at most {CODE_FILES_CAP} are copied")
    read = ((path, folder.read(path, CODE_FILE_CAP_BYTES)) for path in sorted(paths))
    return tuple(CodeFile(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in read)


def code_sha256(files: Iterable[CodeFile]) -> str:
    """One hash over names and contents of code files."""
    lines = sorted(f"{file.sha256}  {file.path}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def canonical_sha256(document: object) -> str:
    """Hash of a JSON document, the same for every order of keys."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def has_plan(directory: Path) -> bool:
    """Whether the directory holds evidence."""
    return (directory / PLAN_NAME).is_file()


def read(directory: Path) -> Evidence:
    """Read an evidence directory.

    Raises:
        HarnessError: no evidence there, or a document that the schema or its plan rejects.
    """
    if not has_plan(directory):
        raise HarnessError(f"{directory}: no evidence of a reproduction here ({PLAN_NAME} is missing)")
    plan = _document(directory / PLAN_NAME, "plan/1")
    if canonical_sha256(plan["settings"]) != plan["plan_sha256"]:
        raise HarnessError(f"{directory / PLAN_NAME}: its settings were changed after they were written")
    runs = tuple(_run(directory, seed, plan) for seed in _finished_seeds(directory))
    return Evidence(directory, plan, runs)


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write one document whole or not at all, after checking it against the schema.

    Raises:
        ValueError: the schema rejects it: a fault of ours, not of the input.
    """
    found = schemas.problems("run", dict(document))
    if found:
        raise ValueError(f"{path.name}: {found}")
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


def _is_code(path: str) -> bool:
    parts = PurePosixPath(path)
    if any(part.startswith(".") for part in parts.parts) or parts.name in _NO_CODE:
        return False
    return parts.suffix.lower() in _SOURCE_SUFFIXES | _SETTING_SUFFIXES or parts.name == "requirements.txt"


def _finished_seeds(directory: Path) -> list[int]:
    matches = (_SEED_DIRECTORY.fullmatch(path.name) for path in directory.iterdir())
    seeds = sorted(int(match[1]) for match in matches if match)
    return [seed for seed in seeds if (seed_directory(directory, seed) / RUN_NAME).is_file()]


def _run(directory: Path, seed: int, plan: Mapping[str, Any]) -> Mapping[str, Any]:
    path = seed_directory(directory, seed) / RUN_NAME
    document = _document(path, "run/1")
    if document["seed"] != seed:
        raise HarnessError(f"{path}: is about seed {document['seed']}")
    if document["plan_sha256"] != plan["plan_sha256"]:
        raise HarnessError(f"{path}: belongs to another plan than {PLAN_NAME}")
    return document


def _document(path: Path, schema: str) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > DOCUMENT_CAP_BYTES:
            raise HarnessError(f"{path}: larger than {DOCUMENT_CAP_BYTES:,} bytes")
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise HarnessError(f"{path}: no readable JSON ({error})") from error
    found = schemas.problems("run", document)
    if found:
        pointer, problem = found[0]
        raise HarnessError(f"{path}#{pointer}: {problem}")
    if document["schema"] != schema:
        raise HarnessError(f"{path}: schema {document['schema']}, expected {schema}")
    checked: Mapping[str, Any] = document
    return checked
