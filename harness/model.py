"""The small shared types: where a value was read, what a rule says, what a report holds.

Facts are values with places. A value that could not be read is a `Missing` with the reason, never `None`: a
rule that needs it then ends *undecided* and repeats the reason, instead of passing by accident.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Self, TypeAlias, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
FactsT = TypeVar("FactsT")

Number: TypeAlias = int | float
Value: TypeAlias = Number | str | bool | list["Value"] | dict[str, "Value"] | None


class Printed(float):
    """A number as it was written: `decimals` tells 1.1470 from 1.147.

    Example:
        >>> Printed(1.147, 4) == 1.147, Printed(1.147, 4).decimals
        (True, 4)
    """

    decimals: int

    def __new__(cls, value: float, decimals: int = 0) -> Self:
        """The value with its number of decimals; copies and pickles keep both."""
        made = super().__new__(cls, value)
        made.decimals = decimals
        return made


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a submission or in an evidence directory.

    Attributes:
        path: POSIX path relative to the record folder (or to the evidence directory).
        line: 1-based line number, if the file has lines.
        pointer: JSON pointer (RFC 6901) for JSON files.
        layer: for a packed script, the unpacking layer that `line` refers to, for example ``lzma(base85)``;
            empty for the file as shipped.
    """

    path: str
    line: int | None = None
    pointer: str | None = None
    layer: str = ""

    @property
    def file(self) -> str:
        """The text that lines count in: `train.log`, or `train_gpt.py[lzma]` for a layer of a packed script."""
        return f"{self.path}[{self.layer}]" if self.layer else self.path

    def __str__(self) -> str:
        """`train.log:17`, `submission.json#/val_bpb`, `train_gpt.py[lzma]:3`."""
        text = self.file
        if self.pointer is not None:
            text += f"#{self.pointer}"
        if self.line is not None:
            text += f":{self.line}"
        return text


@dataclass(frozen=True, slots=True)
class Located(Generic[T_co]):
    """A value and the place where it was read."""

    value: T_co
    location: Location


@dataclass(frozen=True, slots=True)
class Missing:
    """A value that could not be read, and why (one clause, without a final stop)."""

    reason: str
    location: Location | None = None


Fact: TypeAlias = Located[T] | Missing


class Verdict(enum.StrEnum):
    """The end of a rule, or of a submission; ordered by severity."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    WARN = "warn"
    UNDECIDED = "undecided"
    FAIL = "fail"

    @property
    def severity(self) -> int:
        """Rank in the order pass < warn < undecided < fail."""
        return list(Verdict).index(self)


class Status(enum.StrEnum):
    """How firm the rule behind a check is; only settled rules may fail a submission."""

    SETTLED = "settled"
    DISPUTED = "disputed"
    POLICY = "policy"


class Evidence(enum.StrEnum):
    """What a rule needs beyond the folder itself; the value names the command that makes it."""

    FOLDER = "audit"
    REPRODUCTION = "reproduce"
    PROBE = "probe"
    PREVIOUS = "audit --previous"
    PULL_REQUEST = "gate --base"
    RECOUNT = "audit --recount"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one check says about one submission.

    Attributes:
        verdict: how it ends.
        message: one sentence with claim, limit and units.
        values: the numbers behind the sentence; keys end in their unit (`total_bytes`, `difference_bpb`).
        locations: the places that prove it; a claimed and a computed value are two locations.
        notes: plain information that is neither good nor bad, one sentence each.
    """

    verdict: Verdict
    message: str
    values: Mapping[str, Value] = field(default_factory=dict)
    locations: tuple[Location, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule(Generic[FactsT]):
    """One entry of the catalogue: identity, authority and the pure function that decides it.

    The check returns None when the rule does not apply to the submission at all (then it neither passes nor
    counts), an `Outcome` otherwise.
    """

    code: str
    name: str
    family: str
    status: Status
    authority: str
    needs: Evidence
    check: Callable[[FactsT], Outcome | None]

    @property
    def page(self) -> str:
        """The rule's documentation: the docstring of its check."""
        return self.check.__doc__ or ""


def rule(
    code: str, name: str, *, family: str, status: Status, authority: str, needs: Evidence = Evidence.FOLDER
) -> Callable[[Callable[[FactsT], Outcome | None]], Rule[FactsT]]:
    """Declare a rule; the decorated function becomes its check. Registers nothing.

    Args:
        code: `PG` and three digits; never reused.
        name: names the defect, never the cure (`artifact-over-cap`).
        family: a family of the catalogue (`size`).
        status: how firm the rule is.
        authority: who said so, for example ``README FAQ; #1835``.
        needs: evidence beyond the folder; without it the rule stands under *not exercised*.
    """

    def declare(check: Callable[[FactsT], Outcome | None]) -> Rule[FactsT]:
        return Rule(code, name, family, status, authority, needs, check)

    return declare


@dataclass(frozen=True, slots=True)
class Requirement:
    """One demand of the challenge, and which rules look after it.

    Attributes:
        code: `R` and two digits.
        demand: what is demanded, one clause.
        authority: who said so.
        status: how firm it is.
        rules: codes of the rules that decide it, or a part of it.
        beyond: one sentence on what no rule here decides, and why; empty where the rules decide it whole.
    """

    code: str
    demand: str
    authority: str
    status: Status
    rules: tuple[str, ...]
    beyond: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule's statement about one submission."""

    rule: str
    name: str
    family: str
    verdict: Verdict
    message: str
    values: Mapping[str, Value]
    locations: tuple[Location, ...]
    authority: str
    status: Status


@dataclass(frozen=True, slots=True)
class NotExercised:
    """A rule that did not run because its evidence was not asked for, and the command that would run it."""

    rule: str
    command: str


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The quoted lines of one file, or of one unpacked layer of a packed script.

    Attributes:
        lines: text by line number, cut to what is shown.
        anchor: for a layer, the line of the file as shipped that unpacks it.
    """

    lines: Mapping[int, str]
    anchor: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """The caps that figures are drawn against."""

    artifact_bytes: int
    train_seconds: float
    eval_seconds: float


@dataclass(frozen=True, slots=True)
class SubmissionReport:
    """Everything said about one record folder.

    Attributes:
        folder: the folder as it was named.
        name: the submission's name.
        verdict: the worst of its findings.
        facts: every fact, JSON-ready.
        findings: what the rules say, worst first.
        notes: plain information.
        not_exercised: rules without their evidence.
        excerpts: quoted lines by `Location.file`; empty unless they were asked for.
    """

    folder: str
    name: str
    verdict: Verdict
    facts: Mapping[str, Value]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    not_exercised: tuple[NotExercised, ...]
    excerpts: Mapping[str, Excerpt] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """The one document that every command prints."""

    tool_version: str
    edition: str
    submissions: tuple[SubmissionReport, ...]
    limits: Limits | None = None


class HarnessError(Exception):
    """An input that cannot be used; the message names the file, the place and what to do. Exit status 2."""


def worst(verdicts: tuple[Verdict, ...]) -> Verdict:
    """The most severe verdict; pass when there is none.

    Example:
        >>> worst((Verdict.PASS, Verdict.UNDECIDED, Verdict.WARN))
        <Verdict.UNDECIDED: 'undecided'>
    """
    return max(verdicts, key=lambda verdict: verdict.severity, default=Verdict.PASS)
