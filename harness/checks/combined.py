"""Reading and running put together: what the probe (PG7xx) says to what the code shows (PG6xx).

Reading proves what a line does and not whether it is reached; a miniature run shows what happened and not what would
have at full size. So neither overrules the other:

| reading | the probe | together |
|---|---|---|
| fails | fails | fails; the agreement is said |
| fails | went through the very lines and shows the opposite | warns, with both pieces of evidence |
| fails | went elsewhere | fails; that the probe did not exercise it is said |
| undecided | went through the lines and shows that nothing is wrong | passes, with both reasons |
| undecided | fails | as it was: the probe's own finding fails |
| passes | anything | as it was: nothing found is no evidence against what happened |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.checks.common import listed
from harness.facts.probe import ProbeFacts
from harness.facts.submission import Submission
from harness.model import Finding, Missing, Verdict


@dataclass(frozen=True, slots=True)
class Counterpart:
    """The probe's rules that bear on one rule of reading.

    Attributes:
        deciding: all of these have to pass before the opposite is shown.
        bearing: none of these may fail or warn then; any that fails agrees.
    """

    deciding: tuple[str, ...]
    bearing: tuple[str, ...]


_ORDER = Counterpart(("PG704",), ("PG703", "PG704", "PG707", "PG711"))
# What is kept of tokens beside the weights shows in the copies alone.
_KEPT = Counterpart(("PG704", "PG707"), _ORDER.bearing)
_ARTIFACT = Counterpart(("PG703",), ("PG703",))
_TARGET = Counterpart(("PG708", "PG709"), ("PG707", "PG708", "PG709"))
COUNTERPARTS: Final[Mapping[str, Counterpart]] = {
    "PG601": _ORDER,
    "PG602": _KEPT,
    "PG603": _ORDER,
    "PG604": _ARTIFACT,
    "PG605": _ARTIFACT,
    "PG606": _KEPT,
    "PG620": _TARGET,
    "PG621": _TARGET,
    "PG622": _TARGET,
    "PG623": _TARGET,
    "PG624": _TARGET,
    "PG625": Counterpart(("PG707",), ("PG707",)),
}


def combine(findings: Sequence[Finding], submission: Submission) -> list[Finding]:
    """The findings with each of reading held against those of the probe.

    Args:
        findings: what the rules say, of both families.
        submission: with the facts of the probe; without them nothing changes.
    """
    facts = submission.probe
    if isinstance(facts, Missing):
        return list(findings)
    probed = {finding.rule: finding for finding in findings if finding.rule.startswith("PG7")}
    return [_held(finding, probed, facts) if finding.rule in COUNTERPARTS else finding for finding in findings]


def _held(finding: Finding, probed: Mapping[str, Finding], facts: ProbeFacts) -> Finding:
    counterpart = COUNTERPARTS[finding.rule]
    bearing = [probed[code] for code in counterpart.bearing if code in probed]
    against = [each for each in bearing if each.verdict in {Verdict.FAIL, Verdict.WARN}]
    if finding.verdict is Verdict.FAIL and any(each.verdict is Verdict.FAIL for each in against):
        names = listed([each.rule for each in against if each.verdict is Verdict.FAIL])
        return _said(finding, f"The probe agrees ({names}).")
    shown = [each for each in bearing if each.rule in counterpart.deciding and each.verdict is Verdict.PASS]
    if finding.verdict not in {Verdict.FAIL, Verdict.UNDECIDED} or against or len(shown) < len(counterpart.deciding):
        return finding
    evidence = " ".join(f"{each.rule}: {each.message}" for each in shown)
    exercised = _exercised(finding, facts)
    if finding.verdict is Verdict.UNDECIDED:
        return _resolved(finding, evidence) if exercised else finding
    if exercised is not True:
        return _said(finding, "The probe did not exercise it: its miniature run did not go through all of these lines.")
    message = f"Reading and running disagree. Reading: {finding.message} Running, through the same lines: {evidence}"
    return replace(finding, verdict=Verdict.WARN, message=message)


def _exercised(finding: Finding, facts: ProbeFacts) -> bool | None:
    """Whether the traced run went through every line that the finding names; None where no line says it."""
    known = [facts.went_through(place) for place in finding.locations]
    told = [each for each in known if each is not None]
    return all(told) if told else None


def _resolved(finding: Finding, evidence: str) -> Finding:
    message = f"Reading alone leaves it open, running does not. {evidence} Reading: {finding.message}"
    return replace(finding, verdict=Verdict.PASS, message=message)


def _said(finding: Finding, sentence: str) -> Finding:
    return replace(finding, message=f"{finding.message} {sentence}")
