"""Programs beside the training script that make the claimed score: a command of the README scores a saved model.

Such a program is followed like the training script where a shipped log prints a claimed score behind a text that only
it holds. What prepares data or draws a plot makes nobody's score.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from harness.analysis.answers import Stated
from harness.analysis.configuration import Configuration
from harness.analysis.program import Program
from harness.analysis.reach import Reach
from harness.facts.build_legality import build_legality
from harness.facts.build_stated import SAME_SCORE
from harness.facts.build_targets import build_targets
from harness.facts.code import CodeBase
from harness.facts.legality import LegalityFacts, Passage, Training
from harness.facts.logged import Logged
from harness.facts.package import PackageFacts
from harness.facts.targets import TargetFacts, TargetUse
from harness.model import HarnessError
from harness.sources import runcommands
from harness.sources.folder import LOG_LIMIT_BYTES, Folder, decode

# Fewer characters stand before many a number.
LABEL_CHARACTERS = 8
SCORERS_LIMIT = 4
LABEL_LIMIT_CHARACTERS = 100
_CALLED = re.compile(r"(?:bpb|bits[ _-]per[ _-]byte)[^\d\n]{0,20}(\d\.\d{4,12})", re.IGNORECASE)
_UNTIL_NUMBER = re.compile(r"[\d\n]")
Use = TypeVar("Use", TargetUse, Training, Passage)


@dataclass(frozen=True, slots=True)
class Followed:
    """A program that was followed.

    Attributes:
        reached: which of its code runs; None where there is no program.
        targets: what its score owes to the token being scored.
        legality: what it does with validation tokens.
    """

    reached: Reach | None
    targets: TargetFacts
    legality: LegalityFacts


def scorers(
    folder: Folder, code: CodeBase, readme: str, logs: Iterable[str], scores: Sequence[float]
) -> tuple[CodeBase, ...]:
    """The other programs that print a claimed score, each as the code that it runs.

    Args:
        folder: the walked folder, for its logs.
        code: the scripts, of which the training script is the entry.
        readme: its text.
        logs: paths of the logs.
        scores: every claimed score.
    """
    program = code.program
    others = [] if program is None else list(_beside(code, program, readme))
    if program is None or not others:
        return ()
    own, labels = _text(code, program), set(_labels(folder, logs, scores))
    news = [label for label in labels if label not in own]
    return tuple(each for each, text in others if any(label in text for label in news))[:SCORERS_LIMIT]


def follow(folder: Folder, code: CodeBase, package: PackageFacts, stated: Stated, logged: Logged) -> Followed:
    """Follow one program under the claimed configuration.

    Args:
        folder: the walked folder.
        code: the scripts, of which the program's is the entry.
        package: for the reason when there is no script to follow.
        stated: what is known of the runs' settings.
        logged: what the claimed runs print.
    """
    program = code.program
    reached = None if program is None else Reach(program, Configuration(program, stated), logged.shown)
    targets = build_targets(folder, code, stated, reached, logged)
    return Followed(reached, targets, build_legality(code, package, stated, reached, logged))


def joined(own: Followed, others: Sequence[Followed]) -> Followed:
    """What all programs do; what the training script shows too is told once.

    What the others reach for is no matter: they may fetch models.
    """
    legality, targets = own.legality, own.targets
    return Followed(
        own.reached,
        dataclasses.replace(targets, uses=_joined(targets.uses, (each.targets.uses for each in others))),
        dataclasses.replace(
            legality,
            trainings=_joined(legality.trainings, (each.legality.trainings for each in others)),
            rescorings=_joined(legality.rescorings, (each.legality.rescorings for each in others)),
            calibrations=_joined(legality.calibrations, (each.legality.calibrations for each in others)),
        ),
    )


def _joined(own: tuple[Use, ...], others: Iterable[tuple[Use, ...]]) -> tuple[Use, ...]:
    """Uses with those of other programs that are at other places."""
    found = list(own)
    known = {tuple(step.location for step in use.steps) for use in own}
    for use in (use for uses in others for use in uses):
        places = tuple(step.location for step in use.steps)
        if places not in known:
            known.add(places)
            found.append(use)
    return tuple(found)


def _beside(code: CodeBase, program: Program, readme: str) -> Iterator[tuple[CodeBase, str]]:
    """Programs that commands of the README run and that the training script does not import, with their text."""
    imported = {module.at(None).path for module in program.modules.values()}
    by_name = {path.rpartition("/")[2]: path for path in sorted(code.scripts, reverse=True)}
    names = dict.fromkeys(command.script.rpartition("/")[2] for command in runcommands.read(readme))
    for path in (by_name[name] for name in names if name in by_name):
        other = dataclasses.replace(code, entry=path)
        if path not in imported and other.program is not None:
            yield other, _text(other, other.program)


def _text(code: CodeBase, program: Program) -> str:
    return "\n".join(code.scripts[module.at(None).path].script.text for module in program.modules.values())


def _labels(folder: Folder, logs: Iterable[str], scores: Sequence[float]) -> Iterator[str]:
    """What stands before a claimed score in the logs, where it calls it bits per byte."""
    for path in logs:
        try:
            text = decode(folder.read(path, LOG_LIMIT_BYTES))
        except HarnessError:  # it was refused before
            continue
        for match in _CALLED.finditer(text):
            before = text[max(match.start() - LABEL_LIMIT_CHARACTERS, 0) : match.start(1)]
            label = _UNTIL_NUMBER.split(before)[-1].strip()
            if len(label) >= LABEL_CHARACTERS and any(abs(float(match[1]) - each) <= SAME_SCORE for each in scores):
                yield label
