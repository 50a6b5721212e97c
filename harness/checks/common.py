"""What several checks share: reading facts, comparing printed numbers, choosing the runs that a claim is about."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

from harness.facts.claims import SeedClaim
from harness.facts.runs import Run, Score
from harness.facts.submission import Submission
from harness.model import Fact, Located, Location, Missing, Outcome, Printed, Verdict

T = TypeVar("T")
COARSEST_CLAIM = 1e-3
BPB_DECIMALS = 8


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
    """One unit of the last digit that a number shows; trailing zeros count where they were read.

    Example:
        >>> unit_of(1.0611), unit_of(3.0)
        (0.0001, 1.0)
    """
    if isinstance(value, Printed):
        return float(Decimal(1).scaleb(-value.decimals))
    return _shortest_unit(float(value))


@functools.lru_cache(maxsize=4_000)
def _shortest_unit(value: float) -> float:
    exponent = Decimal(repr(float(value))).normalize().as_tuple().exponent
    return float(Decimal(1).scaleb(min(int(exponent), 0)))


def claim_unit(value: float) -> float:
    """One unit of the last digit of a claimed score or deviation, at most a thousandth.

    Programs that write JSON drop trailing zeros, so 1.2 may have been 1.2000: without the bound it would match
    anything.
    """
    return min(unit_of(value), COARSEST_CLAIM)


def agree(first: float, second: float, unit: float) -> bool:
    """Whether two printed numbers can be the same: they differ by at most one unit of the coarser one's last digit.

    One unit, not half of it, because people truncate as often as they round.
    """
    return abs(first - second) <= unit * (1 + 1e-6)


def bpb(value: float) -> str:
    """Bits per byte with the digits that it has, at most eight decimals."""
    if isinstance(value, Printed) and 0 < value.decimals <= BPB_DECIMALS:
        return f"{value:.{value.decimals}f} BPB"
    text = f"{value:.{BPB_DECIMALS}f}".rstrip("0")
    return f"{text}0 BPB" if text.endswith(".") else f"{text} BPB"


def size(value: float) -> str:
    """A number of bytes, in groups of three digits."""
    return f"{value:,.0f} bytes"


def many(count: int, noun: str) -> str:
    """`1 log`, `3 logs`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(items: Sequence[object], limit: int = 6) -> str:
    """Items as text, at most `limit` of them."""
    shown = ", ".join(str(item) for item in items[:limit])
    return f"{shown} and {len(items) - limit} more" if len(items) > limit else shown


def seed_name(run: Run) -> str:
    """`seed 42`, or the log's name where the seed is unknown."""
    seed = known(run.seed)
    return run.location.path if seed is None else f"seed {seed}"


def run_names(runs: Sequence[Run]) -> list[str]:
    """A name for each run that tells it from the others: its seed, or its log where two share a seed."""
    names = [seed_name(run) for run in runs]
    return [name if names.count(name) == 1 else run.location.path for name, run in zip(names, runs, strict=True)]


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
        basis: who says so: `submission.json`, `README`, `the claim` (it is one log's score), `the only log`, or an
            empty string when nobody does and `runs` is simply every log.
    """

    runs: tuple[Run, ...]
    basis: str


def counted(submission: Submission) -> Counted:
    """Choose the runs whose seed and score submission.json names, else those that the README's table names.

    A seed's log that does not hold the seed's claimed score is another experiment with that seed, not the claimed
    run. When nobody names seeds, or only one, a claim that is one log's score names that log. A table that gives a
    seed several scores compares variants: it counts for the variant that the claim is about, and else for none.
    """
    runs = distinct(submission.runs)
    if len(runs) <= 1:
        return Counted(runs, "the only log")
    for basis, table in (("submission.json", submission.claims.seeds), ("README", submission.readme.seeds)):
        claims = _one_variant(table, known(submission.claims.val_bpb))
        chosen = [run for claim in claims for run in claimed_runs(claim, runs, table_unit(claims))]
        scored = _printing_claim(submission, chosen) if len(claimed_seeds(claims)) == 1 else ()
        if len(scored) == 1:
            return Counted(scored, basis)
        if chosen:
            return Counted(tuple(run for run in runs if run in chosen), basis)
    scored = _printing_claim(submission, runs)
    if len(scored) == 1:
        return Counted(scored, "the claim")
    return Counted(runs, "")


def _one_variant(claims: tuple[SeedClaim, ...], claim: float | None) -> tuple[SeedClaim, ...]:
    """The rows of the one variant whose mean or score is the claim; all rows of a table that has one for each seed."""
    variants: list[list[SeedClaim]] = []
    for row in claims:
        earlier = sum(known(row.seed) == known(other.seed) for variant in variants for other in variant)
        if earlier == len(variants):
            variants.append([])
        variants[earlier].append(row)
    scores = [{known(row.seed): known(row.val_bpb) for row in variant} for variant in variants]
    repeated = any(scores[0].get(seed) != value for variant in scores[1:] for seed, value in variant.items())
    if not repeated:
        return claims
    matching = [variant for variant in variants if claim is not None and _states(variant, claim)]
    return tuple(matching[0]) if len(matching) == 1 else ()


def _states(rows: Sequence[SeedClaim], claim: float) -> bool:
    """Whether a claim is the mean of the rows' scores."""
    values = [value for row in rows if (value := known(row.val_bpb)) is not None]
    unit = max(table_unit(rows), claim_unit(claim))
    return bool(values) and agree(sum(values) / len(values), claim, unit)


def _printing_claim(submission: Submission, runs: Sequence[Run]) -> tuple[Run, ...]:
    """Those of the runs that print the claimed score."""
    claim = known(submission.claims.val_bpb)
    return tuple(run for run in runs if claim is not None and prints(run, claim, claim_unit(claim)))


def claimed_runs(claim: SeedClaim, runs: Sequence[Run], unit: float) -> list[Run]:
    """The runs of the claim's seed that print its score, else those of which no score was read."""
    same = [run for run in runs if known(run.seed) is not None and known(run.seed) == known(claim.seed)]
    value = known(claim.val_bpb)
    if value is None:
        return same
    exact = [run for run in same if prints(run, value, unit)]
    return exact or [run for run in same if headline_bpb(run) is None]


def prints(run: Run, value: float, unit: float) -> bool:
    """Whether one of the run's final scores, diagnostics left out, is a claimed value within the digits of both."""
    headline = headline_bpb(run)
    found = [(headline.value, printed_unit(run))] if headline is not None else []
    found += [(bits, digit) for bits, digit, diagnostic in printed_scores(run) if not diagnostic]
    return any(agree(value, logged, max(digit, unit)) for logged, digit in found)


def printed_scores(run: Run) -> list[tuple[float, float, bool]]:
    """Every score of a run: bits per byte, one unit of its last decimal, whether it is a diagnostic."""
    return [
        (score.val_bpb.value, 10.0**-score.digits, score.diagnostic)
        for score in exact_scores(run)
        if isinstance(score.val_bpb, Located)
    ]


def exact_scores(run: Run) -> tuple[Score, ...]:
    """The run's scores without those that the log prints again under the same label and `_exact`.

    A claim of many digits may agree with the short print and still not be the score.
    """
    labels = {score.label for score in run.scores}
    return tuple(score for score in run.scores if f"{score.label}_exact" not in labels)


def table_unit(claims: Iterable[SeedClaim]) -> float:
    """One unit of the last digit of a table of scores: its finest, since 1.0640 is read as 1.064."""
    return min((claim_unit(value) for claim in claims if (value := known(claim.val_bpb)) is not None), default=0.0)


def of_claimed_seeds(submission: Submission) -> tuple[Run, ...]:
    """Every run of the claimed seeds, whatever its score; the counted runs when no seed is claimed."""
    runs = distinct(submission.runs)
    for claims in (submission.claims.seeds, submission.readme.seeds):
        seeds = claimed_seeds(claims)
        chosen = tuple(run for run in runs if known(run.seed) in seeds)
        if chosen:
            return chosen
    return counted(submission).runs


def claimed_seeds(claims: Iterable[SeedClaim]) -> frozenset[int]:
    """The seeds that a list of claims names."""
    return frozenset(seed for claim in claims if (seed := known(claim.seed)) is not None)
