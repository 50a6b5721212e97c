"""What several checks share: reading facts, comparing printed numbers, choosing the runs that a claim is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

from harness.facts.claims import SeedClaim
from harness.facts.runs import Run
from harness.facts.submission import Submission
from harness.model import Fact, Located, Location, Missing, Outcome, Value, Verdict

T = TypeVar("T")
COARSEST_CLAIM = 1e-3


def known(fact: Fact[T]) -> T | None:
    """The value of a fact, or None when it is Missing."""
    return fact.value if isinstance(fact, Located) else None


def places(*facts: Fact[T] | Location) -> tuple[Location, ...]:
    """Where facts were read, each place once, in order; a Missing without a place gives none."""
    found = (fact if isinstance(fact, Location) else fact.location for fact in facts)
    return tuple(dict.fromkeys(place for place in found if place is not None))


def undecided(subject: str, reason: str, *facts: Fact[T] | Location) -> Outcome:
    """The outcome of a rule that lacks a fact: `subject` cannot be told, because `reason`."""
    return Outcome(Verdict.UNDECIDED, f"{subject}: {reason}.", locations=places(*facts))


def reason_of(facts: Iterable[Fact[T]]) -> str:
    """The distinct reasons of those facts that are Missing, joined."""
    return "; ".join(dict.fromkeys(fact.reason for fact in facts if isinstance(fact, Missing)))


def unit_of(value: float) -> float:
    """One unit of the last digit that a number shows, trailing zeros unseen.

    Example:
        >>> unit_of(1.0611), unit_of(3.0)
        (0.0001, 1.0)
    """
    exponent = Decimal(repr(float(value))).normalize().as_tuple().exponent
    return float(Decimal(1).scaleb(min(int(exponent), 0)))


def claim_unit(value: float) -> float:
    """One unit of the last digit of a claimed score or deviation, at most a thousandth.

    JSON and tables drop trailing zeros, so 1.2 may have been 1.2000: without the bound it would match anything.
    """
    return min(unit_of(value), COARSEST_CLAIM)


def agree(first: float, second: float, unit: float) -> bool:
    """Whether two printed numbers can be the same: they differ by at most one unit of the coarser one's last digit.

    One unit, not half of it, because people truncate as often as they round.
    """
    return abs(first - second) <= unit * (1 + 1e-6)


def bpb(value: float) -> str:
    """Bits per byte with the digits that it has, at most eight decimals."""
    text = f"{value:.8f}".rstrip("0")
    return f"{text}0 BPB" if text.endswith(".") else f"{text} BPB"


def size(value: float) -> str:
    """A number of bytes, in groups of three digits."""
    return f"{value:,.0f} bytes"


def listed(items: Sequence[object], limit: int = 6) -> str:
    """Items as text, at most `limit` of them."""
    shown = ", ".join(str(item) for item in items[:limit])
    return f"{shown} and {len(items) - limit} more" if len(items) > limit else shown


def seed_name(run: Run) -> str:
    """`seed 42`, or the log's name where the seed is unknown."""
    seed = known(run.seed)
    return run.location.path if seed is None else f"seed {seed}"


def headline_bpb(run: Run) -> Located[float] | None:
    """The run's headline in bits per byte, or None."""
    score = known(run.headline)
    if score is None or isinstance(score.val_bpb, Missing):
        return None
    return score.val_bpb


def printed_unit(run: Run) -> float:
    """One unit of the last decimal that the run's headline prints."""
    score = known(run.headline)
    return 0.0 if score is None else 10.0**-score.digits


def same_measurement(first: Run, second: Run) -> bool:
    """Whether two logs hold one and the same run: score, loss, steps and training time agree to the last digit."""
    return fingerprint(first) is not None and fingerprint(first) == fingerprint(second)


def fingerprint(run: Run) -> tuple[float, float, int, float] | None:
    """What no two runs share: score, loss, steps and seconds; None when one is missing or too coarse to tell."""
    score = known(run.headline)
    if score is None or score.digits < 6:
        return None
    values = (known(score.val_bpb), known(score.val_loss), known(run.steps), known(run.train_seconds))
    score_bpb, loss, steps, seconds = values
    if score_bpb is None or loss is None or steps is None or seconds is None:
        return None
    return (score_bpb, loss, steps, seconds)


def distinct(runs: Sequence[Run]) -> tuple[Run, ...]:
    """The runs without repetitions of one measurement under another file name; the first name stays."""
    kept: list[Run] = []
    for run in runs:
        if not any(same_measurement(run, other) for other in kept):
            kept.append(run)
    return tuple(kept)


@dataclass(frozen=True, slots=True)
class Counted:
    """The runs that the claim is about.

    Attributes:
        runs: those runs, repetitions left out.
        basis: who says so: `submission.json`, `README`, `the only log`, or an empty string when nobody does and
            `runs` is simply every log.
    """

    runs: tuple[Run, ...]
    basis: str


def counted(submission: Submission) -> Counted:
    """Choose the runs of the seeds that submission.json names, else of those that the README's table names."""
    runs = distinct(submission.runs)
    if len(runs) <= 1:
        return Counted(runs, "the only log")
    for basis, claims in (("submission.json", submission.claims.seeds), ("README", submission.readme.seeds)):
        seeds = claimed_seeds(claims)
        chosen = tuple(run for run in runs if known(run.seed) in seeds)
        if chosen:
            return Counted(chosen, basis)
    return Counted(runs, "")


def claimed_seeds(claims: Iterable[SeedClaim]) -> frozenset[int]:
    """The seeds that a list of claims names."""
    return frozenset(seed for claim in claims if (seed := known(claim.seed)) is not None)


def numbers(values: Iterable[float | int]) -> list[Value]:
    """Numbers as a JSON list."""
    return list(values)
