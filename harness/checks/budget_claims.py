"""PG2xx, claims: steps and seconds that tables state, and a rate that no machine reaches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.challenge import H100_PEAK_FLOPS, TRAINING_FLOPS_PER_PARAMETER
from harness.checks.budget import FAMILY, RECORD_WORLD_SIZE
from harness.checks.common import claimed_runs, counted, known, listed, many, places, seed_name, table_unit, undecided
from harness.facts.claims import SeedClaim
from harness.facts.runs import Run
from harness.facts.submission import Submission
from harness.model import Fact, Located, Outcome, Status, Value, Verdict, rule

# Steps are counted from zero or from one; seconds are stated as the cap, or before the last step.
SAME_STEPS = 1
# So many zeros at the end are a rounded number.
ROUNDED_ZEROS = 2
SAME_SECONDS = 2.0
SAME_SHARE = 0.01
BATCH_KEY = "train_batch_tokens"


@dataclass(frozen=True, slots=True)
class _Differing:
    """A claim of a seed beside what the seed's logs print."""

    what: str
    seed: int | None
    claim: Located[float]
    logged: tuple[Located[float], ...]

    def __str__(self) -> str:
        """`seed 42: 6,620 steps (README.md:12), logged 6,590 (train.log:88)`."""
        logged = listed([f"{fact.value:,.10g} ({fact.location})" for fact in self.logged])
        return f"seed {self.seed}: {self.claim.value:,.10g} {self.what} ({self.claim.location}), logged {logged}"


@rule("PG208", "steps-claim-differs", family=FAMILY, status=Status.POLICY, authority="README, Submission Process")
def steps_claim_differs(submission: Submission) -> Outcome | None:
    """A seed's claimed steps or training time are not those of its log.

    What it checks:
        The steps and the training seconds of each seed, in submission.json and in the README's table, against the
        logs of that seed that hold its score. A difference of more than one step warns, and of more than two
        seconds and one percent. Approximate numbers (`~7,000`) are left out, and 7,000 may be rounded.

    Why it matters:
        Steps tell runs apart: a table with other steps than the logs is of other runs, or was copied from an
        earlier one. Hence a warning.

    Evidence:
        The place of the claim, and the log's last training line.

    How to fix:
        Copy the numbers from the logs that are shipped.
    """
    compared, wrong = 0, list[_Differing]()
    for table in (submission.claims.seeds, submission.readme.seeds):
        for claim in table:
            for what, stated, logged in _pairs(claim, claimed_runs(claim, submission.runs, table_unit(table))):
                compared += 1
                if not any(_agree(what, stated.value, fact.value) for fact in logged):
                    wrong.append(_Differing(what, known(claim.seed), stated, logged))
    rows = (*submission.claims.seeds, *submission.readme.seeds)
    claims = [fact for row in rows for fact in (row.steps, row.train_seconds) if isinstance(fact, Located)]
    if not compared and claims:
        reason = "no log of a claimed seed prints them beside the claimed score"
        return undecided("Claimed steps and training times cannot be compared", reason, *claims)
    if not compared:
        return None
    values: dict[str, Value] = {"compared_count": compared, "different_count": len(wrong)}
    where = places(*(each.claim for each in wrong), *(fact for each in wrong for fact in each.logged))
    if wrong:
        return Outcome(Verdict.WARN, f"Claimed otherwise than logged: {listed(wrong)}.", values, where)
    message = f"Claimed steps and training times are those of the logs ({many(compared, 'number')})."
    return Outcome(Verdict.PASS, message, values)


def _pairs(claim: SeedClaim, runs: Sequence[Run]) -> Iterator[tuple[str, Located[float], tuple[Located[float], ...]]]:
    """What is claimed and what is logged of it, where both are known."""
    for what, stated, logged in (
        ("steps", claim.steps, [run.steps for run in runs]),
        ("s of training", claim.train_seconds, [run.train_seconds for run in runs]),
    ):
        found = tuple(_floating(fact) for fact in logged if isinstance(fact, Located) and fact.value > 0)
        if isinstance(stated, Located) and found:
            yield what, _floating(stated), found


def _floating(fact: Located[int] | Located[float]) -> Located[float]:
    return Located(float(fact.value), fact.location)


def _agree(what: str, claimed: float, logged: float) -> bool:
    difference = abs(claimed - logged)
    if what != "steps":
        return difference <= max(SAME_SECONDS, SAME_SHARE * logged)
    digits = str(int(claimed))
    zeros = len(digits) - len(digits.rstrip("0"))
    return difference <= (10**zeros if zeros >= ROUNDED_ZEROS else SAME_STEPS)


@rule("PG209", "faster-than-the-machine", family=FAMILY, status=Status.POLICY, authority="arithmetic; nobody here")
def faster_than_the_machine(submission: Submission) -> Outcome | None:
    """The logged steps would take more arithmetic than eight H100 do in the logged time.

    What it checks:
        Six floating-point operations for each parameter and token (forward and backward), times the logged tokens
        of a batch and steps, over the logged training time, against the peak of the logged number of processes,
        each on an H100 (989 TFLOP/s, dense bfloat16). Only a rate above the peak warns; real runs reach a third of
        it. Parameters of tables that are looked up take no arithmetic, hence a warning.

    Why it matters:
        Steps, seconds, tokens and parameters of a log cannot all be true when their product is more than the
        machine can do.

    Evidence:
        The log's steps, seconds, parameter count and batch.

    How to fix:
        Say what the count of parameters or tokens means, or ship the log of the run.
    """
    rates = [(run, rate) for run in counted(submission).runs if (rate := _flops(run)) is not None]
    if not rates:
        return None
    run, rate = max(rates, key=lambda pair: pair[1] / _peak(pair[0]))
    peak = _peak(run)
    values: dict[str, Value] = {"petaflops": round(rate / 1e15, 4), "peak_petaflops": round(peak / 1e15, 4)}
    where = places(run.steps, run.train_seconds, run.parameters)
    work = (
        f"{known(run.steps):,} steps of {known(run.config[BATCH_KEY])} tokens with {known(run.parameters):,} parameters"
    )
    message = (
        f"{work} in {known(run.train_seconds):,.1f} s ({seed_name(run)}) take {rate / 1e15:.2f} PFLOP/s; the peak of "
        f"the machine is {peak / 1e15:.2f} PFLOP/s."
    )
    if rate > peak and known(run.world_size) is None:
        return undecided(message.rstrip("."), "the log does not tell on how many processes it ran", *where)
    return Outcome(Verdict.WARN if rate > peak else Verdict.PASS, message, values, where)


def _flops(run: Run) -> float | None:
    """Floating-point operations per second that the logged training took; None where the log lacks a number."""
    numbers: list[Fact[int] | Fact[float]] = [run.steps, run.train_seconds, run.parameters]
    steps, seconds, parameters = (known(fact) for fact in numbers)
    batch = run.config.get(BATCH_KEY)
    tokens = batch.value.replace(",", "").replace("_", "") if batch is not None else ""
    if not steps or not seconds or not parameters or not tokens.isdecimal():
        return None
    return TRAINING_FLOPS_PER_PARAMETER * parameters * int(tokens[:15]) * steps / seconds


def _peak(run: Run) -> float:
    return (known(run.world_size) or RECORD_WORLD_SIZE) * H100_PEAK_FLOPS


RULES = (steps_claim_differs, faster_than_the_machine)
