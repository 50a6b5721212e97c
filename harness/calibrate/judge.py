"""One audited submission against its label: was it caught, by the right rules, at the right lines?"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.calibrate import classes
from harness.calibrate.labels import Label
from harness.model import Finding, Verdict


class Outcome(enum.StrEnum):
    """What the rules that fit the label's classes say, the strongest first."""

    FAIL = "fail"
    UNDECIDED = "undecided"
    WARN = "warn"
    SILENT = "silent"
    CRASHED = "crashed"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Judged:
    """A label and what the audit says of it.

    Attributes:
        label: what is known.
        outcome: what the fitting rules say; `crashed` when the audit failed, `absent` when there is nothing to audit.
        problem: why there is no report, or which rules raised, or "".
        findings: what the fitting rules say, in that outcome's verdict.
        others: rules that fail and do not fit.
        pointed: whether a finding names a line of the label's file.
        distance: lines between the nearest of those lines and the nearest key line, if both are known.
        seconds: what its audit took.
        warned: whether a rule that fits warns, whatever the others say.
    """

    label: Label
    outcome: Outcome
    problem: str
    findings: tuple[Finding, ...]
    others: tuple[Finding, ...]
    pointed: bool
    distance: int | None
    seconds: float
    warned: bool = False

    @property
    def caught(self) -> bool:
        """Whether a rule that fits fails."""
        return self.outcome is Outcome.FAIL

    @property
    def available(self) -> bool:
        """Whether there was something to audit; a crash of ours is no excuse."""
        return self.outcome is not Outcome.ABSENT


def judge(label: Label, twin: Label | None, findings: Sequence[Finding], seconds: float) -> Judged:
    """Judge a report by its label.

    Args:
        label: what is known of the submission.
        twin: its pair, whose classes say of what it would be accused wrongly.
        findings: what the audit says.
        seconds: what the audit took.
    """
    prefixes = accusing(label, twin)
    fits = [finding for finding in findings if finding.rule.startswith(prefixes)]
    fails = [finding for finding in findings if finding.verdict is Verdict.FAIL]
    verdicts = {finding.verdict for finding in fits}
    order = (Verdict.FAIL, Verdict.UNDECIDED, Verdict.WARN)
    verdict = next((one for one in order if one in verdicts), Verdict.PASS)
    outcome = Outcome.SILENT if verdict is Verdict.PASS else Outcome(verdict.value)
    told = tuple(finding for finding in fits if finding.verdict is verdict) if outcome is not Outcome.SILENT else ()
    others = tuple(finding for finding in fails if finding not in fits)
    lines = _lines(label, told)
    distance = min((abs(line - key) for line in lines for key in label.key_lines), default=None)
    return Judged(
        label,
        outcome,
        "",
        told,
        others,
        pointed=bool(lines),
        distance=distance,
        seconds=seconds,
        warned=Verdict.WARN in verdicts,
    )


def without_report(label: Label, outcome: Outcome, problem: str, seconds: float = 0.0) -> Judged:
    """A label for which there is no report."""
    return Judged(label, outcome, problem, (), (), pointed=False, distance=None, seconds=seconds)


def accusing(label: Label, twin: Label | None) -> tuple[str, ...]:
    """Beginnings of the codes whose fail is a catch, or, for a legal submission, a false accusation."""
    if label.label == "broken":
        return classes.fitting(label.classes, classes.PACKAGE)
    if label.label == "illegal":
        return classes.fitting(label.classes)
    # A legal submission's classes name what it does rightly: calling that illegal is wrong, and so is any accusation.
    own = classes.fitting(label.classes, ())
    theirs = classes.fitting(twin.classes, ()) if twin is not None and twin.label == "illegal" else ()
    return tuple(dict.fromkeys((*classes.ACCUSING, *own, *theirs)))


def judged_class(one: Judged, name: str) -> bool:
    """Whether a failing rule fits this one of the label's classes."""
    prefixes = classes.rules_for(name)
    fits = classes.LEGALITY if prefixes is None else prefixes
    return one.caught and any(finding.rule.startswith(fits) for finding in one.findings if fits)


def _lines(label: Label, findings: Iterable[Finding]) -> list[int]:
    """The lines of the label's file that findings name."""
    inner = label.path.removeprefix(f"{label.folder}/")
    lines = [place.line for finding in findings for place in finding.locations if place.path == inner]
    return [line for line in lines if line is not None]


def twins(labels: Iterable[Label]) -> Mapping[str, Label]:
    """The twin of each label that has one, by the label's id."""
    every = {label.id: label for label in labels}
    return {label.id: every[label.pair] for label in every.values() if label.pair in every}
