"""PG3xx, claims: does the claimed score stand in the logs and in the README?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.checks import fingerprint
from harness.checks.common import (
    Counted,
    agree,
    bpb,
    claim_unit,
    claimed_seeds,
    counted,
    headline_bpb,
    known,
    listed,
    places,
    printed_unit,
    reason_of,
    seed_name,
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
    """A value that a claim may repeat: what it is, bits per byte, one unit of its last digit, its places."""

    what: str
    value: float
    unit: float
    locations: tuple[Location, ...]

    def repeated_by(self, claim: float) -> bool:
        """Whether a claim is this value, within the digits of both."""
        return agree(claim, self.value, max(self.unit, claim_unit(claim)))


def headline_candidates(chosen: Counted, every: Sequence[Run]) -> Iterator[Candidate]:
    """The mean over the claimed runs, then each run's own headline, then the mean over all runs."""
    for runs, what in ((chosen.runs, "claimed runs"), (tuple(every), "logs")):
        scored = [(run, score) for run in runs if (score := headline_bpb(run)) is not None]
        if len(scored) > 1:
            mean = sum(score.value for _, score in scored) / len(scored)
            unit = max(printed_unit(run) for run, _ in scored)
            where = tuple(score.location for _, score in scored)
            yield Candidate(f"the mean of {len(scored)} {what}", mean, unit, where)
        for run, score in scored:
            yield Candidate(f"the score of {seed_name(run)}", score.value, printed_unit(run), (score.location,))


def other_candidates(runs: Sequence[Run]) -> Iterator[Candidate]:
    """Every other score in the logs, final ones before diagnostics."""
    scores = [(run, score) for run in runs for score in run.scores]
    for run, score in sorted(scores, key=lambda pair: pair[1].diagnostic):
        if isinstance(score.val_bpb, Located):
            kind = "the diagnostic" if score.diagnostic else "the value"
            what = f"{kind} `{score.label}` of {seed_name(run)}"
            yield Candidate(what, score.val_bpb.value, 10.0**-score.digits, (score.val_bpb.location,))


@rule("PG301", "claim-not-in-logs", family=FAMILY, status=Status.SETTLED, authority="README, Submission Process")
def claim_not_in_logs(submission: Submission) -> Outcome | None:
    """The claimed val_bpb is not what the logs print.

    What it checks:
        The claim against the mean over the claimed seeds' logs, then each log's own final score, within the
        printed digits. A claim that equals another value in a log (a diagnostic, another evaluation) warns. It
        fails only when every claimed seed has a log and the claim is lower than every score in all of them.

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
    candidates = list(headline_candidates(counted(submission), submission.runs))
    if not candidates:
        reasons = reason_of(run.headline for run in submission.runs) or "no training log was read"
        return undecided(f"The claim of {bpb(claim.value)} cannot be compared with the logs", reasons, claim)
    for candidate in candidates:
        if candidate.repeated_by(claim.value):
            message = f"The claim of {bpb(claim.value)} is {candidate.what}, {bpb(candidate.value)}."
            return Outcome(
                Verdict.PASS, message, _values(claim.value, candidate), (claim.location, *candidate.locations)
            )
    return _unmatched(submission, claim, candidates)


def _unmatched(submission: Submission, claim: Located[float], candidates: Sequence[Candidate]) -> Outcome:
    """What to say of a claim that no final score repeats."""
    nearest = min(candidates, key=lambda candidate: abs(candidate.value - claim.value))
    others = list(other_candidates(submission.runs))
    subject = f"The claim of {bpb(claim.value)} is no log's final score"
    for other in others:
        if other.repeated_by(claim.value):
            message = f"{subject}, the nearest being {bpb(nearest.value)} ({nearest.what}); it is {other.what}."
            return Outcome(Verdict.WARN, message, _values(claim.value, other), (claim.location, *other.locations))
    absent = sorted(_claimed(submission) - {known(run.seed) for run in submission.runs})
    unread = [run for run in submission.runs if headline_bpb(run) is None]
    where = (claim.location, *nearest.locations)
    if absent or unread:
        why = (
            f"seeds without a log: {listed(absent)}"
            if absent
            else f"no score read in {listed([r.location.path for r in unread])}"
        )
        return undecided(f"{subject}, the nearest being {bpb(nearest.value)} ({nearest.what})", why, *where)
    lowest = min(candidate.value for candidate in (*candidates, *others))
    message = f"{subject} and no mean of them; the nearest is {bpb(nearest.value)} ({nearest.what})"
    if claim.value < lowest - unit_of(claim.value):  # not even rounded so
        message = f"{message}, and every score in every log is higher, {bpb(lowest)} or more."
        return Outcome(Verdict.FAIL, message, _values(claim.value, nearest), where)
    return Outcome(Verdict.WARN, f"{message}.", _values(claim.value, nearest), where)


def _claimed(submission: Submission) -> frozenset[int]:
    return claimed_seeds(submission.claims.seeds) or claimed_seeds(submission.readme.seeds)


def _values(claim: float, candidate: Candidate) -> dict[str, Value]:
    return {"claimed_bpb": claim, "logged_bpb": candidate.value, "difference_bpb": round(claim - candidate.value, 10)}


@rule("PG302", "readme-differs-from-claim", family=FAMILY, status=Status.POLICY, authority="README, Submission Process")
def readme_differs_from_claim(submission: Submission) -> Outcome | None:
    """The README's headline is not the claimed val_bpb.

    What it checks:
        The README's headline against submission.json, within the digits of the coarser of the two.

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
    if isinstance(claim, Missing) or isinstance(readme, Missing):
        return undecided("The README cannot be compared with the claim", reason_of((claim, readme)), claim, readme)
    values: dict[str, Value] = {"claimed_bpb": claim.value, "readme_bpb": readme.value}
    where = places(claim, readme)
    if agree(claim.value, readme.value, max(claim_unit(claim.value), claim_unit(readme.value))):
        return Outcome(Verdict.PASS, f"The README and submission.json both claim {bpb(claim.value)}.", values, where)
    message = f"submission.json claims {bpb(claim.value)}, the README {bpb(readme.value)}."
    return Outcome(Verdict.WARN, message, values, where)


@rule("PG303", "seed-claim-not-in-logs", family=FAMILY, status=Status.POLICY, authority="README, Submission Process")
def seed_claim_not_in_logs(submission: Submission) -> Outcome | None:
    """A seed's claimed val_bpb is not in that seed's log.

    What it checks:
        Each per-seed value of submission.json and of the README's table against the scores in the logs of that
        seed, within the printed digits. Seeds without a log are another rule's business. Not for folders that
        claim no value for any seed.

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
    pairs = [(claim, run) for claim in claims for run in submission.runs if known(run.seed) == known(claim.seed)]
    checked = [claim for claim in claims if any(claim is other for other, _ in pairs)]
    if not checked:
        return undecided(
            "The seeds' claimed values cannot be compared", "no log of a claimed seed was read", *_where(claims)
        )
    wrong = [claim for claim in checked if not any(_in_log(claim, run) for other, run in pairs if other is claim)]
    values: dict[str, Value] = {"compared_count": len(checked), "different_count": len(wrong)}
    if not wrong:
        message = f"All {len(checked)} per-seed values that have a log stand in it."
        return Outcome(Verdict.PASS, message, values, _where(checked))
    clauses = [_contrast(claim, [run for other, run in pairs if other is claim]) for claim in wrong]
    logs = [run.location for claim in wrong for other, run in pairs if other is claim]
    return Outcome(Verdict.WARN, f"Not in its log: {listed(clauses)}.", values, (*_where(wrong), *dict.fromkeys(logs)))


def _where(claims: Sequence[SeedClaim]) -> tuple[Location, ...]:
    return places(*(claim.val_bpb for claim in claims))


def _in_log(claim: SeedClaim, run: Run) -> bool:
    """Whether some score of the run, diagnostic or not, is the claimed value."""
    value = known(claim.val_bpb)
    headline = headline_bpb(run)
    found = [(headline.value, printed_unit(run))] if headline is not None else []
    found += [(score.value, 10.0**-digits) for score, digits in _scores(run)]
    return value is not None and any(agree(value, logged, max(unit, claim_unit(value))) for logged, unit in found)


def _scores(run: Run) -> list[tuple[Located[float], int]]:
    return [(score.val_bpb, score.digits) for score in run.scores if isinstance(score.val_bpb, Located)]


def _contrast(claim: SeedClaim, runs: Sequence[Run]) -> str:
    """`seed 42 claims 1.2 BPB at README.md:7, logged 1.3 BPB`."""
    logged = [bpb(score.value) for run in runs if (score := headline_bpb(run)) is not None]
    where = listed(_where([claim]))
    claimed = bpb(known(claim.val_bpb) or 0.0)
    return f"seed {known(claim.seed)} claims {claimed} at {where}, logged {listed(logged) or 'none'}"


RULES = (claim_not_in_logs, readme_differs_from_claim, seed_claim_not_in_logs, *fingerprint.RULES)
