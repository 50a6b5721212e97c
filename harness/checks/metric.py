"""PG3xx, claims: does the claimed score stand in the logs and in the README?"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.checks import fingerprint
from harness.checks.common import (
    agree,
    bpb,
    claim_unit,
    claimed_seeds,
    counted,
    exact_scores,
    headline_bpb,
    known,
    listed,
    many,
    places,
    printed_scores,
    printed_unit,
    prints,
    reason_of,
    seed_name,
    table_unit,
    undecided,
    unit_of,
)
from harness.facts.claims import SeedClaim
from harness.facts.runs import Run
from harness.facts.submission import Submission
from harness.model import Located, Location, Missing, Outcome, Status, Value, Verdict, rule

FAMILY = "metric"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A value that a claim may repeat: what it is, bits per byte, one unit of its last digit, its places.

    `final` is False for diagnostics and for validations during training.
    """

    what: str
    value: float
    unit: float
    locations: tuple[Location, ...]
    final: bool = True

    def repeated_by(self, claim: float) -> bool:
        """Whether a claim is this value, within the digits of both."""
        return agree(claim, self.value, max(self.unit, claim_unit(claim)))


def headline_candidates(chosen: Sequence[Run], every: Sequence[Run]) -> Iterator[Candidate]:
    """The mean over the claimed runs, then each run's own headline, then the same of all logs."""
    for runs, what in ((chosen, "claimed runs"), (every, "logs")):
        scored = [(run, score) for run in runs if (score := headline_bpb(run)) is not None]
        if len(scored) > 1:
            mean = sum(score.value for _, score in scored) / len(scored)
            unit = max(printed_unit(run) for run, _ in scored)
            where = tuple(score.location for _, score in scored)
            yield Candidate(f"the mean of {len(scored)} {what}", mean, unit, where)
        for run, score in scored:
            yield Candidate(f"the score of {seed_name(run)}", score.value, printed_unit(run), (score.location,))


def _mean_of_claimed_values(submission: Submission) -> list[Candidate]:
    """The mean of one log for each claimed seed's value, whatever seed that log names."""
    claims = submission.claims.seeds
    unit = table_unit(claims)
    values = [claim.val_bpb.value for claim in claims if isinstance(claim.val_bpb, Located)]
    found = [next((run for run in submission.runs if prints(run, value, unit)), None) for value in values]
    runs = [run for run in found if run is not None]
    if len(runs) < 2 or len(runs) < len(claims):
        return []
    return list(headline_candidates(runs, ()))[:1]


def other_candidates(runs: Sequence[Run]) -> Iterator[Candidate]:
    """Every other score in the logs: final ones, diagnostics, validations during training."""
    scores = [(run, score) for run in runs for score in exact_scores(run)]
    for run, score in sorted(scores, key=lambda pair: pair[1].diagnostic):
        if isinstance(score.val_bpb, Located):
            kind = "the diagnostic" if score.diagnostic else "the value"
            what = f"{kind} `{score.label}` of {seed_name(run)}"
            where = (score.val_bpb.location,)
            yield Candidate(what, score.val_bpb.value, 10.0**-score.digits, where, final=not score.diagnostic)
    for run in runs:
        for step, value in run.curve:
            what = f"the validation at step {step} of {seed_name(run)}, during training"
            yield Candidate(what, value, claim_unit(value), (run.location,), final=False)


@rule("PG301", "claim-not-in-logs", family=FAMILY, status=Status.SETTLED, authority="README, Submission Process")
def claim_not_in_logs(submission: Submission) -> Outcome | None:
    """The claimed val_bpb is not what the logs print.

    What it checks:
        The claim against the mean over the claimed seeds' logs, then each log's own final score, within the
        printed digits, then its other evaluations. A claim that equals a diagnostic or a validation during training
        warns. It fails only when every claimed seed has a log and the claim is lower than every score in all logs. A
        number that a log calls bits per byte in a line of unknown shape leaves it undecided when the claim may be
        made of it.

    Why it matters:
        The README asks for a submission.json with `val_bpb` and "a train log, automatically produced by your
        script": the log is the only evidence of the score in the folder.

    Evidence:
        The claim's JSON pointer and the logs' final lines.

    How to fix:
        Copy the number from the logs, or ship the logs that it comes from.
    """
    claim = submission.claims.val_bpb
    if isinstance(claim, Missing):
        return undecided("The claim cannot be compared with the logs", claim.reason, claim)
    candidates = list(headline_candidates(counted(submission).runs, submission.runs))
    candidates += _mean_of_claimed_values(submission)
    for candidate in candidates:
        if candidate.repeated_by(claim.value):
            message = f"The claim of {bpb(claim.value)} is {candidate.what}, {bpb(candidate.value)}."
            return Outcome(
                Verdict.PASS, message, _values(claim.value, candidate), (claim.location, *candidate.locations)
            )
    return _unmatched(submission, claim, candidates)


def _unmatched(submission: Submission, claim: Located[float], candidates: Sequence[Candidate]) -> Outcome:
    """What to say of a claim that no final score repeats."""
    others = list(other_candidates(submission.runs))
    nearest = min(candidates, key=lambda candidate: abs(candidate.value - claim.value), default=None)
    subject = f"The claim of {bpb(claim.value)} is no log's headline"
    if nearest is not None:
        subject = f"{subject}, the nearest being {bpb(nearest.value)} ({nearest.what})"
    for other in others:
        if other.repeated_by(claim.value):
            verdict = Verdict.PASS if other.final else Verdict.WARN
            where = (claim.location, *other.locations)
            return Outcome(verdict, f"{subject}; it is {other.what}.", _values(claim.value, other), where)
    doubt = _unread(submission)
    if nearest is None:
        subject = f"The claim of {bpb(claim.value)} cannot be compared with the logs"
        return undecided(subject, doubt if submission.runs else "no training log was read", claim)
    if doubt:
        return undecided(subject, doubt, claim)
    lowest = min(candidate.value for candidate in (*candidates, *others))
    unread = _under_another_name(submission, claim.value, lowest)
    if unread is not None:
        message = f"{subject}, but a log prints {bpb(unread.value)} in a line that is not read as a score."
        return Outcome(Verdict.UNDECIDED, message, locations=(claim.location, unread.location))
    where = (claim.location, *nearest.locations)
    if claim.value < lowest - unit_of(claim.value):  # not even rounded so
        message = f"{subject}, and every score in every log is higher, {bpb(lowest)} or more."
        return Outcome(Verdict.FAIL, message, _values(claim.value, nearest), where)
    return Outcome(
        Verdict.WARN,
        f"{subject}; no mean over the claimed runs or over all logs gives it.",
        _values(claim.value, nearest),
        where,
    )


def _under_another_name(submission: Submission, claim: float, lowest: float) -> Located[float] | None:
    """A number in a log that repeats the claim, or may be part of its mean, though it was read as no score."""
    every = [*(value for run in submission.runs for value in run.named_bpb), *submission.strays]
    exact = next((value for value in every if agree(claim, value.value, claim_unit(claim))), None)
    least = min(every, key=lambda value: value.value, default=None)
    if exact is not None or least is None or not least.value <= claim < lowest - unit_of(claim):
        return exact
    return least


def _unread(submission: Submission) -> str:
    """Which logs the claim may come from that were not read, as a clause; empty when there are none."""
    logged = {known(run.seed) for run in submission.runs}
    absent = sorted(_claimed(submission) - logged)
    if absent:
        return f"seeds without a log: {listed(absent)}"
    spoken = {fact.value: fact for fact in submission.statements.seeds}
    if not _claimed(submission) and spoken and None not in logged and logged.isdisjoint(spoken):
        return f"seeds without a log: {listed([f'{seed} ({spoken[seed].location})' for seed in sorted(spoken)])}"
    unread = [run for run in submission.runs if headline_bpb(run) is None]
    return (
        f"{listed([run.location.path for run in unread])}: {reason_of(run.headline for run in unread)}"
        if unread
        else ""
    )


def _claimed(submission: Submission) -> frozenset[int]:
    return claimed_seeds(submission.claims.seeds) or claimed_seeds(submission.readme.seeds)


def _values(claim: float, candidate: Candidate) -> dict[str, Value]:
    return {"claimed_bpb": claim, "logged_bpb": candidate.value, "difference_bpb": round(claim - candidate.value, 10)}


@rule("PG302", "readme-differs-from-claim", family=FAMILY, status=Status.POLICY, authority="README, Submission Process")
def readme_differs_from_claim(submission: Submission) -> Outcome | None:
    """The README's headline is not the claimed val_bpb.

    What it checks:
        The README's headline, or the rows of its per-seed table, against submission.json, within the digits of the
        coarser of the two.

    Why it matters:
        Two numbers for one claim leave a reviewer to guess. Often one is the mean and the other the best seed:
        hence a warning.

    Evidence:
        The README's line and the claim's JSON pointer.

    How to fix:
        State one headline in both places, and say whether it is a mean.
    """
    claim, readme = submission.claims.val_bpb, submission.readme.val_bpb
    if isinstance(submission.package.readme, Missing):
        return undecided("The README cannot be compared with the claim", submission.package.readme.reason)
    if isinstance(claim, Located) and _in_table(claim.value, submission.readme.seeds):
        message = f"The README's table holds the claim of {bpb(claim.value)}."
        return Outcome(
            Verdict.PASS, message, {"claimed_bpb": claim.value}, places(claim, *_where(submission.readme.seeds))
        )
    if isinstance(claim, Missing) or isinstance(readme, Missing):
        return undecided("The README cannot be compared with the claim", reason_of((claim, readme)), claim, readme)
    values: dict[str, Value] = {"claimed_bpb": claim.value, "readme_bpb": readme.value}
    where = places(claim, readme)
    if agree(claim.value, readme.value, max(claim_unit(claim.value), claim_unit(readme.value))):
        told = f"The README and submission.json both claim {bpb(claim.value)}."
        if claim.value != readme.value:
            told = (
                f"submission.json claims {bpb(claim.value)}, the README, in fewer or more digits, {bpb(readme.value)}."
            )
        return Outcome(Verdict.PASS, told, values, where)
    message = f"submission.json claims {bpb(claim.value)}, the README {bpb(readme.value)}."
    return Outcome(Verdict.WARN, message, values, where)


def _in_table(claim: float, rows: Sequence[SeedClaim]) -> bool:
    """Whether the claim is the mean of the table's rows or one of them."""
    values = [row.val_bpb.value for row in rows if isinstance(row.val_bpb, Located)]
    if not values:
        return False
    row_unit = min(map(claim_unit, values))
    unit = max(claim_unit(claim), row_unit)
    if agree(claim, statistics.fmean(values), unit):
        return True
    if claim_unit(claim) >= row_unit:
        return any(agree(claim, value, unit) for value in values)
    # A row is the claim rounded or cut off: a mean may lie within a whole unit of a row by chance.
    return any(-unit / 2 * (1 + 1e-6) <= claim - value < unit for value in values)


@rule("PG303", "seed-claim-not-in-logs", family=FAMILY, status=Status.POLICY, authority="README, Submission Process")
def seed_claim_not_in_logs(submission: Submission) -> Outcome | None:
    """A seed's claimed val_bpb is not in that seed's log.

    What it checks:
        Each per-seed value of submission.json and of the README's table against the scores in the logs of that
        seed, within the printed digits, and the values whose seed's log ends before a final score while others do
        not. Seeds without a log are another rule's business. Not for folders that claim no value for any seed.

    Why it matters:
        The mean, its deviation and every significance test rest on these values. Tables are also copied by hand:
        hence a warning.

    Evidence:
        The table's line or JSON pointer, and the log's final line.

    How to fix:
        Copy each value from its log.
    """
    claims = [
        claim for claim in (*submission.claims.seeds, *submission.readme.seeds) if isinstance(claim.val_bpb, Located)
    ]
    if not claims:
        return None
    scored = [run for run in submission.runs if printed_scores(run)]
    pairs = [(claim, run) for claim in claims for run in scored if known(run.seed) == known(claim.seed)]
    checked = [claim for claim in claims if any(claim is other for other, _ in pairs)]
    silent = _without_score(submission, [claim for claim in claims if claim not in checked])
    if not checked:
        return undecided(
            "The seeds' claimed values cannot be compared", "no log of a claimed seed was read", *_where(claims)
        )
    units = {
        id(claim): table_unit(rows) for rows in (submission.claims.seeds, submission.readme.seeds) for claim in rows
    }
    wrong = [
        claim
        for claim in checked
        if not any(_in_log(claim, run, units[id(claim)]) for other, run in pairs if other is claim)
    ]
    values: dict[str, Value] = {"compared_count": len(checked), "different_count": len(wrong)}
    if not wrong and not silent:
        message = f"Each per-seed value with a log stands in it ({many(len(checked), 'value')})."
        return Outcome(Verdict.PASS, message, values, _where(checked))
    clauses = [_contrast(claim, [run for other, run in pairs if other is claim]) for claim in wrong]
    clauses += [f"{_claimed_value(claim)}, and its log prints no final score" for claim, _ in silent]
    logs = [run.location for claim in wrong for other, run in pairs if other is claim]
    logs += [run.location for _, run in silent]
    where = _where([*wrong, *(claim for claim, _ in silent)])
    return Outcome(Verdict.WARN, f"Not in its log: {listed(clauses)}.", values, (*where, *dict.fromkeys(logs)))


def _without_score(submission: Submission, claims: Sequence[SeedClaim]) -> list[tuple[SeedClaim, Run]]:
    """Claims of seeds whose log shows validations during training and ends before a final score, each with that log."""
    silent = [run for run in submission.runs if run.curve and not printed_scores(run)]
    return [
        (claim, run)
        for claim in claims
        for run in silent
        if known(run.seed) is not None and known(run.seed) == known(claim.seed)
    ]


def _where(claims: Sequence[SeedClaim]) -> tuple[Location, ...]:
    return places(*(claim.val_bpb for claim in claims))


def _in_log(claim: SeedClaim, run: Run, unit: float) -> bool:
    """Whether some score of the run, diagnostic or not, is the claimed value."""
    value = known(claim.val_bpb)
    if value is None:
        return False
    every = [(bits, digit) for bits, digit, _ in printed_scores(run)]
    return prints(run, value, unit) or any(agree(value, bits, max(digit, unit)) for bits, digit in every)


def _contrast(claim: SeedClaim, runs: Sequence[Run]) -> str:
    """`seed 42 claims 1.2 BPB at README.md:7, logged 1.3 BPB`."""
    logged = [bpb(score.value) for run in runs if (score := headline_bpb(run)) is not None]
    return f"{_claimed_value(claim)}, logged {listed(logged) or 'none'}"


def _claimed_value(claim: SeedClaim) -> str:
    return f"seed {known(claim.seed)} claims {bpb(known(claim.val_bpb) or 0.0)} at {listed(_where([claim]))}"


RULES = (claim_not_in_logs, readme_differs_from_claim, seed_claim_not_in_logs, *fingerprint.RULES)
