"""The parsed scripts and the stated configuration -> what the code shows of the four conditions."""

from __future__ import annotations

from harness.analysis.adaptation import Adaptation, Adaptations
from harness.analysis.configuration import Configuration, Reason, Stated
from harness.analysis.origins import Origins
from harness.analysis.reach import Reach
from harness.facts.code import CodeBase
from harness.facts.legality import LegalityFacts, Training
from harness.facts.package import PackageFacts
from harness.model import Located, Location, Missing


def build_legality(code: CodeBase, package: PackageFacts, stated: Stated) -> LegalityFacts:
    """Follow the training script under its configuration.

    Args:
        code: the folder's scripts.
        package: for the reason when there is no script to follow.
        stated: what is known of the runs' settings.
    """
    program = code.program
    if program is None:
        return LegalityFacts(_unread(package))
    reach = Reach(program, Configuration(program, stated))
    found = Adaptations(program, reach, Origins(program)).all()
    return LegalityFacts(
        Located(code.entry, Location(code.entry)),
        trainings=tuple(_training(each, stated) for each in found),
    )


def _unread(package: PackageFacts) -> Missing:
    if isinstance(package.entry, Missing):
        return package.entry
    script = package.entry.value
    if isinstance(script.parsed, Missing):
        return script.parsed
    return Missing(script.problem or "the script holds no statement", Location(script.path))


def _training(found: Adaptation, stated: Stated) -> Training:
    return Training(
        order=str(found.order),
        why=found.why,
        function=found.function,
        steps=tuple(Located(step.what, step.place) for step in found.steps),
        runs=str(found.reached.life),
        settings=tuple(Located(str(reason), reason.location) for reason in found.reached.reasons),
        unclear=found.reached.unclear,
        doubt=_doubt(found.reached.reasons, stated),
        label=found.label[:200],
    )


def _doubt(reasons: tuple[Reason, ...], stated: Stated) -> Located[str] | None:
    """A sentence that gives a variable another value than the default that was taken for it."""
    for reason in reasons:
        for setting in stated.mentioned.get(reason.name, ()):
            if reason.source == "default" and setting.value != reason.value:
                return Located(f"{reason.name}={setting.value}", setting.location)
    return None
