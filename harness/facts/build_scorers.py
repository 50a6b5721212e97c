"""Programs beside the training script that make the claimed score: a command of the README scores a saved model.

Such a program is followed like the training script where a shipped log prints a claimed score behind a text that only
it holds. What prepares data or draws a plot makes nobody's score.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from harness.analysis.answers import Stated
from harness.analysis.configuration import Configuration
from harness.analysis.program import Program
from harness.analysis.reach import Reach
from harness.facts.build_legality import build_legality
from harness.facts.build_targets import build_targets
from harness.facts.code import CodeBase
from harness.facts.legality import LegalityFacts, Passage, Training
from harness.facts.logged import Logged
from harness.facts.package import PackageFacts
from harness.facts.targets import Life, TargetFacts, TargetUse
from harness.model import HarnessError
from harness.sources import runcommands
from harness.sources.folder import LOG_LIMIT_BYTES, Folder, decode

SCORERS_LIMIT = 4
# A claim has four decimals or more; the number that is printed has as many.
SAME_NUMBER = 6e-5
LABEL_LIMIT_CHARACTERS = 100
_CALLED = re.compile(r"(?:bpb|bits[ _-]per[ _-]byte)[^\d\n]{0,20}(\d\.\d{4,12})", re.IGNORECASE)
_UNTIL_NUMBER = re.compile(r"[\d\n]")
# What any script calls its score: a label needs a word of its own.
_COMMON = re.compile(r"val|bpb|bits|per|byte|loss|final|exact|score|[^a-z]", re.IGNORECASE)
OWN_LETTERS = 4
OTHER_SCORES = "its program prints other scores beside the claimed one"
Use = TypeVar("Use", TargetUse, Training, Passage)
Found = TypeVar("Found", Training, Passage)


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


@dataclass(frozen=True, slots=True)
class Scorer:
    """A program that prints a claimed score.

    Attributes:
        code: the scripts, of which its own is the entry.
        stated: what is known of its settings.
        alone: whether it prints no other score, of which what is found in it may be.
    """

    code: CodeBase
    stated: Stated
    alone: bool


def scorers(
    folder: Folder, code: CodeBase, stated: Stated, readme: str, claimed: tuple[Sequence[str], Sequence[float]]
) -> tuple[Scorer, ...]:
    """The other programs that print a claimed score, each as the code that it runs.

    Args:
        folder: the walked folder, for its logs.
        code: the scripts, of which the training script is the entry.
        stated: what is known of the settings of all commands.
        readme: its text.
        claimed: paths of the logs, and every claimed score.
    """
    program = code.program
    others = [] if program is None else list(_beside(code, program, stated, readme))
    if program is None or not others:
        return ()
    own = _text(code, program)
    labels = {pair for pair in _labels(folder, *claimed) if pair[0] not in own}
    wanted = {label for label, is_claimed in labels if is_claimed}
    found: list[Scorer] = []
    for each, text in others:
        mine = {label for label, _ in labels if label in text}
        if mine & wanted:
            found.append(dataclasses.replace(each, alone=mine <= wanted))
    return tuple(found) if len(found) <= SCORERS_LIMIT else ()


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


def joined(own: Followed, others: Sequence[tuple[Scorer, Followed]]) -> Followed:
    """What all programs do; what the training script shows too is told once.

    What the others reach for is no matter: they may fetch models.
    """
    legality, targets = own.legality, own.targets
    every = [each if scorer.alone else _doubted(each) for scorer, each in others]
    return Followed(
        own.reached,
        dataclasses.replace(targets, uses=_joined(targets.uses, (each.targets.uses for each in every))),
        dataclasses.replace(
            legality,
            trainings=_joined(legality.trainings, (each.legality.trainings for each in every)),
            rescorings=_joined(legality.rescorings, (each.legality.rescorings for each in every)),
            calibrations=_joined(legality.calibrations, (each.legality.calibrations for each in every)),
        ),
    )


def _doubted(found: Followed) -> Followed:
    """The same of a program that prints several scores: which of them it is of, its text does not tell."""
    uses = tuple(
        dataclasses.replace(use, life=Life.UNKNOWN, because=OTHER_SCORES) if use.life is Life.LIVE else use
        for use in found.targets.uses
    )
    legality = found.legality
    return Followed(
        found.reached,
        dataclasses.replace(found.targets, uses=uses),
        dataclasses.replace(
            legality,
            trainings=tuple(_unknown(each) for each in legality.trainings),
            rescorings=tuple(_unknown(each) for each in legality.rescorings),
            calibrations=tuple(_unknown(each) for each in legality.calibrations),
        ),
    )


def _unknown(found: Found) -> Found:
    return dataclasses.replace(found, runs="unknown") if found.runs == "live" else found


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


def _beside(code: CodeBase, program: Program, stated: Stated, readme: str) -> Iterator[tuple[Scorer, str]]:
    """Programs that commands of the README run and that the training script does not import, with their text."""
    imported = {module.at(None).path for module in program.modules.values()}
    commands: dict[str, set[str]] = {}
    for command in runcommands.read(readme):
        path = _shipped(command.script, code)
        if path and path not in imported:
            commands.setdefault(path, set()).update(command.variables)
    for path, variables in commands.items():
        other = dataclasses.replace(code, entry=path)
        if other.program is not None:
            yield Scorer(other, _own(stated, other.program, variables), alone=False), _text(other, other.program)


def _shipped(script: str, code: CodeBase) -> str:
    """The path of the script that a command names, where that is clear."""
    found = [
        path
        for path in code.scripts
        if script == path or script.endswith(f"/{path}") or path == script.removeprefix("./")
    ]
    return max(found, key=len, default="")


def _own(stated: Stated, program: Program, variables: Collection[str]) -> Stated:
    """The settings of a program: those of its own commands. Options of a command line are not read."""
    options = {
        str(each.value).lstrip("-").replace("-", "_").lower()
        for module in program.modules.values()
        for call in module.calls("add_argument")
        for each in call.args
        if isinstance(each, ast.Constant)
    }
    commanded = {name: setting for name, setting in stated.commanded.items() if name in variables}
    return Stated({}, commanded, stated.unclear | options, stated.mentioned)


def _text(code: CodeBase, program: Program) -> str:
    return "\n".join(code.scripts[module.at(None).path].script.text for module in program.modules.values())


def _labels(folder: Folder, logs: Iterable[str], scores: Sequence[float]) -> Iterator[tuple[str, bool]]:
    """What stands before a score in the logs, where it calls it bits per byte, and whether it is a claimed one."""
    for path in logs:
        try:
            text = decode(folder.read(path, LOG_LIMIT_BYTES))
        except HarnessError:  # it was refused before
            continue
        for match in _CALLED.finditer(text):
            before = text[max(match.start() - LABEL_LIMIT_CHARACTERS, 0) : match.start(1)]
            label = _UNTIL_NUMBER.split(before)[-1].strip()
            if len(_COMMON.sub("", label)) >= OWN_LETTERS:
                yield label, any(abs(float(match[1]) - each) <= SAME_NUMBER for each in scores)
