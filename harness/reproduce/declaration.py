"""What submission.json declares under `reproduction`: how its script is run, repacked and evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from harness.model import HarnessError, Value
from harness.reproduce.environment import refuse_foreign
from harness.sources import manifest, schemas
from harness.sources.folder import Folder

FILE: Final = "submission.json"
KEY: Final = "reproduction"


@dataclass(frozen=True, slots=True)
class Declaration:
    """How to reproduce a submission; patterns are relative to the run directory.

    Attributes:
        script: the script to start, "" where nothing is declared.
        environment: settings of the claimed runs.
        artifact: where the compressed model is left, "" where not declared.
        weights: where the unquantized weights are left, "" where not declared.
        evaluate: settings that score an existing artifact, None where not declared.
        repack: settings that pack saved weights again, None where not declared.
        serve: settings that predict a text with an existing artifact, None where not declared.
        data: name of the dataset, "" where not declared.
    """

    script: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    artifact: str = ""
    weights: str = ""
    evaluate: Mapping[str, str] | None = None
    repack: Mapping[str, str] | None = None
    serve: Mapping[str, str] | None = None
    data: str = ""


def read(folder: Folder) -> Declaration:
    """The folder's declaration; an empty one where submission.json is missing or declares nothing.

    Raises:
        HarnessError: the declaration is not of the form that the schema describes, or sets a forbidden variable.
    """
    if FILE not in folder.files:
        return Declaration()
    document = manifest.read(folder.read(FILE, manifest.SIZE_LIMIT_BYTES), FILE).document
    declared = None if document is None else document.get(KEY)
    if document is None or declared is None:
        return Declaration()
    place = manifest.pointer(KEY)
    problems = [found for found in schemas.problems("submission", dict(document)) if found[0].startswith(place)]
    if problems or not isinstance(declared, dict):
        pointer, problem = problems[0] if problems else (place, "is no object")
        raise HarnessError(f"{folder.root / FILE}#{pointer}: {problem}")
    return _declaration(declared)


def _declaration(declared: Mapping[str, Value]) -> Declaration:
    environment = _variables(declared, "environment")
    return Declaration(
        script=str(declared["script"]),
        environment=environment or {},
        artifact=str(declared.get("artifact", "")),
        weights=str(declared.get("weights", "")),
        evaluate=_variables(declared, "evaluate"),
        repack=_variables(declared, "repack"),
        serve=_variables(declared, "serve"),
        data=str(declared.get("data", "")),
    )


def _variables(declared: Mapping[str, Value], key: str) -> dict[str, str] | None:
    found = declared.get(key)
    if not isinstance(found, dict):
        return None
    variables = {name: str(value) for name, value in found.items()}
    refuse_foreign(variables, f"{FILE}#{manifest.pointer(KEY, key)}")
    return variables
