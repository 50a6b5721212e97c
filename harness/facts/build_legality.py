"""The parsed scripts and the stated configuration -> what the code shows of the four conditions."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.adaptation import Adaptation, Adaptations
from harness.analysis.answers import Stated
from harness.analysis.calibration import Calibration, Calibrations
from harness.analysis.fetched import Fetched, Fetching
from harness.analysis.given import starts_from_others
from harness.analysis.hooked import Hooked
from harness.analysis.origins import TRAINING, VALIDATION, Origins
from harness.analysis.outside import contacts
from harness.analysis.program import Program
from harness.analysis.reach import Life, Reach, Reached
from harness.analysis.reported import Reports
from harness.analysis.rescoring import Rescoring, Rescorings
from harness.analysis.sites import Order, Step
from harness.facts.build_stated import contradicted
from harness.facts.code import CodeBase
from harness.facts.legality import ONLY_EVALUATES, LegalityFacts, Passage, Training
from harness.facts.logged import Logged
from harness.facts.package import PackageFacts
from harness.model import Fact, Located, Location, Missing

# What frameworks call a step of learning.
_LEARNING = ("backward", "grad", "value_and_grad", "gradient", "step", "apply_gradients", "fit")
_ADAPTING = frozenset({Order.SCORED_FIRST, Order.LATER_EPOCH, Order.CONTEXT, Order.DISCARDED})


def build_legality(
    code: CodeBase, package: PackageFacts, stated: Stated, reach: Reach | None, logged: Logged
) -> LegalityFacts:
    """Follow the training script under its configuration.

    Args:
        code: the folder's scripts.
        package: for the reason when there is no script to follow.
        stated: what is known of the runs' settings.
        reach: which of its code runs under them; None where there is no script to follow.
        logged: what the claimed runs print.
    """
    program = code.program
    if program is None or reach is None:
        return LegalityFacts(_unread(package))
    origins = Origins(program, reach.skipped, reach.configuration.stated)
    reports = Reports(program, reach, origins)
    adaptations = Adaptations(program, reach, origins, reports)
    trainings = tuple(_training(each, stated, logged) for each in adaptations.all())
    calibrations = Calibrations(program, reach, origins)
    return LegalityFacts(
        Located(code.entry, Location(code.entry)),
        trainings,
        _split(adaptations, trainings, program, reach),
        tuple(
            _passage(each.cache, each.steps, each.reached, _silent(each, logged), label=each.label)
            for each in Rescorings(program, reach, origins, reports).all()
        ),
        tuple(
            _passage(each.function, each.steps, each.reached, _silent(each, logged), proved=each.fed)
            for each in (*calibrations.all(), *Hooked(program, reach, origins).all())
        ),
        tuple(Located(f"{each.kind}: {each.name}", each.place) for each in contacts(program, reach)),
        fetches=tuple(
            _passage(each.name, each.steps, each.reached, _silent(each, logged))
            for each in Fetching(program, reach, origins).all()
        ),
        recalls=tuple(
            _passage(each.function, each.steps, each.reached, _silent(each, logged), proved=each.fed)
            for each in calibrations.on_training()
        ),
    )


def _split(adaptations: Adaptations, trainings: tuple[Training, ...], program: Program, reach: Reach) -> Fact[str]:
    """The split of the training loss: `validation` only when every live gradient's loss comes from there alone."""
    if not any(module.calls(name) for module in program.modules.values() for name in _LEARNING):
        return ONLY_EVALUATES
    kinds = [kinds for kinds in adaptations.splits.values() if kinds]
    if not kinds or len(kinds) < len(adaptations.splits):
        return Missing("the data of a gradient's loss was not followed to a split")
    if any(TRAINING in each for each in kinds):
        return Located(TRAINING, Location(trainings[0].steps[0].location.path) if trainings else Location("."))
    first = next(each for each in trainings if each.runs == str(Life.LIVE))
    if any(each.order in _ADAPTING for each in trainings) or any(each.fresh for each in trainings):
        return Missing("the script adapts a model that another one trained")
    if any(
        starts_from_others(program, reach, each.steps[1].location) for each in trainings if each.runs == str(Life.LIVE)
    ):
        return Missing("the script trains weights that it was given")
    return Located(VALIDATION, first.steps[0].location)


def _passage(
    what: str,
    steps: Sequence[Step],
    reached: Reached,
    silent: Located[str] | None,
    *,
    proved: bool = True,
    label: str = "",
) -> Passage:
    return Passage(
        what=what,
        proved=proved,
        steps=tuple(Located(step.what, step.place) for step in steps),
        runs=str(reached.life),
        settings=tuple(Located(str(reason), reason.location) for reason in reached.reasons),
        unclear=reached.unclear,
        label=label[:500],
        silent=silent,
    )


def _silent(found: Adaptation | Rescoring | Calibration | Fetched, logged: Logged) -> Located[str] | None:
    return logged.lacks(found.printed, found.reached.reasons)


def _unread(package: PackageFacts) -> Missing:
    if isinstance(package.entry, Missing):
        return package.entry
    script = package.entry.value
    if isinstance(script.parsed, Missing):
        return script.parsed
    return Missing(script.problem or "the script holds no statement", Location(script.path))


def _training(found: Adaptation, stated: Stated, logged: Logged) -> Training:
    return Training(
        order=str(found.order),
        why=found.why,
        function=found.function,
        steps=tuple(Located(step.what, step.place) for step in found.steps),
        runs=str(found.reached.life),
        settings=tuple(Located(str(reason), reason.location) for reason in found.reached.reasons),
        unclear=found.reached.unclear,
        doubt=contradicted(found.reached.reasons, stated),
        label=found.label[:500],
        fresh=found.fresh,
        rival=found.rival[:200],
        silent=_silent(found, logged),
    )
