"""Results of runs: one JSON object a line, appended as runs end."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reference_model.study.design import Experiment, StudyError

SCHEMA = "study/2"
DIFFERENCES = {"int8_gap": ("int8_bpb", "float_bpb"), "int6_gap": ("int6_bpb", "float_bpb")}


@dataclass(frozen=True)
class Result:
    """What one run of one variant gave.

    Attributes:
        experiment: Its name.
        variant: Its name.
        seed: Of the initial weights.
        seconds: That were asked for, before the experiment's own multiple.
        code: Digest of the sources that the run depends on.
        machine: Processor, cores, version of torch.
        settings: What the variant sets.
        declared: Digest of the declaration, see `Experiment.declared`.
        measures: By name; empty where the run failed.
        error: Last words of a run that failed.
    """

    experiment: str
    variant: str
    seed: int
    seconds: float
    code: str
    machine: str
    settings: Mapping[str, str]
    declared: str
    measures: Mapping[str, float]
    error: str = ""

    @property
    def key(self) -> tuple[str, str, str, int, float, str, str]:
        """What makes a run the same as another."""
        return self.experiment, self.variant, self.declared, self.seed, self.seconds, self.code, self.machine

    def measure(self, name: str) -> float:
        """One measure, or the difference of two."""
        if name in DIFFERENCES:
            first, second = DIFFERENCES[name]
            return self.measures[first] - self.measures[second]
        return self.measures[name]


def read_results(path: Path) -> list[Result]:
    """All results of a file; none where there is no file. A last line that was cut off is left out.

    Raises:
        StudyError: Another line is no result; the message names file and line.
    """
    if not path.is_file():
        return []
    text, results = path.read_text(encoding="utf-8"), []
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        try:
            results.append(_result(json.loads(line)))
        except (KeyError, TypeError, ValueError) as error:
            if number == len(lines) and not text.endswith("\n"):
                break
            raise StudyError(f"{path}:{number}: no result of a study ({error})") from error
    return results


def _result(fields: dict[str, Any]) -> Result:
    if fields.pop("schema") != SCHEMA:
        raise ValueError(f"schema is not {SCHEMA}")
    return Result(**fields)


def append_results(path: Path, results: Iterable[Result]) -> None:
    """Add results to a file; what a killed run left of a line is ended first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps({"schema": SCHEMA, **asdict(result)}, sort_keys=True) + "\n" for result in results)
    if path.is_file() and (held := path.read_bytes()) and not held.endswith(b"\n"):
        path.write_bytes(held[: held.rfind(b"\n") + 1])
    with path.open("a", encoding="utf-8") as file:
        file.write(lines)


def finished(results: Iterable[Result], experiment: Experiment) -> list[Result]:
    """Those of an experiment that ended well and are of what it declares today, the last of equal ones."""
    today = {variant.name: experiment.declared(variant.name) for variant in experiment.variants}
    kept = {
        result.key: result
        for result in results
        if result.experiment == experiment.name and result.declared == today.get(result.variant) and not result.error
    }
    return list(kept.values())


def comparable(results: Sequence[Result]) -> list[Result]:
    """The largest set of an experiment's results of one length, one code and one machine, the later of two as large."""
    sets: dict[tuple[float, str, str], list[Result]] = {}
    for result in results:
        sets.setdefault((result.seconds, result.code, result.machine), []).append(result)
    return max(reversed(sets.values()), key=len) if sets else []
