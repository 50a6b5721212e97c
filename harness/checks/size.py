"""PG1xx: bytes of code and model against the cap, in every accounting in use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.challenge import ARTIFACT_CAP_BYTES
from harness.checks.common import (
    claim_unit,
    claimed_seeds,
    known,
    listed,
    many,
    places,
    prints,
    reason_of,
    size,
    undecided,
)
from harness.facts.claims import SeedClaim
from harness.facts.size import SeedSize
from harness.facts.submission import Submission
from harness.model import Fact, Located, Missing, Outcome, Status, Value, Verdict, rule

FAMILY = "size"
MOST_ADMITTED = 1.25
# Whole training scripts have more bytes than the one and, compressed or not, fewer than the other.
LEAST_CODE_BYTES, MOST_CODE_BYTES = 4_096, 150_000


@dataclass(frozen=True, slots=True)
class Accounting:
    """One way to count the artifact, over all runs."""

    name: str
    totals: tuple[Fact[int], ...]

    @property
    def known_totals(self) -> tuple[Located[int], ...]:
        """The totals that are not Missing."""
        return tuple(total for total in self.totals if isinstance(total, Located))

    @property
    def largest(self) -> int | None:
        """The largest run's bytes."""
        return max((total.value for total in self.known_totals), default=None)

    @property
    def over(self) -> bool:
        """Whether some run is above the cap."""
        return self.largest is not None and self.largest > ARTIFACT_CAP_BYTES


def accountings(sizes: Sequence[SeedSize]) -> tuple[Accounting, ...]:
    """The three accountings; all three have been accepted by maintainers."""
    return (
        Accounting("script as shipped", tuple(run.shipped_bytes for run in sizes)),
        Accounting("code compressed", tuple(run.compressed_code_bytes for run in sizes)),
        Accounting("all code files", tuple(run.all_helpers_bytes for run in sizes)),
    )


def relevant(submission: Submission) -> tuple[SeedSize, ...]:
    """Sizes of the claimed seeds' runs; of all runs when no seed is claimed."""
    seeds = claimed_seeds(submission.claims.seeds)
    chosen = tuple(run for run in submission.size.per_seed if known(run.seed) in seeds)
    return chosen or submission.size.per_seed


@rule("PG101", "artifact-over-cap", family=FAMILY, status=Status.SETTLED, authority="README FAQ; #1835; #1959")
def artifact_over_cap(submission: Submission) -> Outcome | None:
    """Code and compressed model together exceed 16,000,000 bytes.

    What it checks:
        Code bytes plus compressed model bytes of every claimed run, in three accountings: the training script as
        shipped; the code as the log's own compressed figure; every shipped code file. It fails only when every
        accounting that can be computed is over the cap, and warns when some are, when another log of the same
        seed is under it, or when no log prints the claimed score and the claimed size is another, under the cap.
        Where model and code cannot be added up, the largest total that submission.json states, or else the logs if all
        are over the cap: it fails when that is over the cap without any code, and warns when it is so with it.

    Why it matters:
        "The submission artifact is computed as code bytes plus compressed model bytes. ... The cap is decimal
        16MB, i.e. 16,000,000 total bytes." How the code is counted was never settled: all three ways have been
        accepted. The cap binds non-record submissions too.

    Evidence:
        The log's size lines and the files on disk.

    How to fix:
        Quantize or compress the model further, or remove code from the training script.
    """
    sizes = relevant(submission)
    every = accountings(sizes)
    stated = [accounting for accounting in every if accounting.known_totals]
    if not stated:
        admitted = _admitted(submission)
        if admitted is not None:
            return admitted
        reasons = reason_of(total for accounting in every for total in accounting.totals) or "no log states a size"
        return undecided("The artifact's bytes cannot be told", reasons, *(run.logged_total_bytes for run in sizes))
    values: dict[str, Value] = {"cap_bytes": ARTIFACT_CAP_BYTES}
    values |= {f"{_key(accounting)}_bytes": accounting.largest for accounting in stated}
    locations = places(*(total for accounting in stated for total in accounting.known_totals))
    verdict, message = _judge(sizes, every)
    smallest = _smallest(sizes)
    if verdict is Verdict.FAIL and len(smallest) < len(sizes):
        milder, _ = _judge(smallest, accountings(smallest))
        if milder is not Verdict.FAIL:
            message = f"{message} Another log of the same seed is smaller, and which one is claimed cannot be told."
            verdict = Verdict.WARN
    if verdict is Verdict.FAIL and _of_another_run(submission):
        message = (
            f"{message} No log prints the claimed score, and the claimed size is another: this may be another run."
        )
        verdict = Verdict.WARN
    return Outcome(verdict, message, values, locations)


def _admitted(submission: Submission) -> Outcome | None:
    """Judge a total over the cap that submission.json or a log states, where none states the model's bytes."""
    claims = submission.claims
    claimed = [fact for fact in (claims.bytes_total, *(row.artifact_bytes for row in claims.seeds)) if known(fact)]
    # Of several logs, any may be the claimed one: all of them have to be over the cap.
    logged = [run.logged_total_bytes for run in relevant(submission)] if not claimed else []
    stated = [fact for fact in claimed or logged if isinstance(fact, Located)]
    over = [fact for fact in stated if fact.value > ARTIFACT_CAP_BYTES]
    if not over or (not claimed and len(over) < len(logged)):
        return None
    largest = max(over, key=lambda fact: fact.value)
    total = largest.value
    shipped = known(submission.size.entry_code_bytes) or 0
    # A script of a few lines runs another one.
    code = known(claims.bytes_code) or (shipped if shipped >= LEAST_CODE_BYTES else MOST_CODE_BYTES)
    told = f"at most {size(code)}" if code == MOST_CODE_BYTES else size(code)
    values: dict[str, Value] = {"cap_bytes": ARTIFACT_CAP_BYTES, "stated_bytes": total, "code_bytes": code}
    said = f"A total of {size(total)} is stated ({largest.location}); the cap is {size(ARTIFACT_CAP_BYTES)}"
    if total - code <= ARTIFACT_CAP_BYTES:
        message = f"{said}. Without its code ({told}) it may be under the cap."
        return Outcome(Verdict.WARN, message, values, places(largest))
    # A total so far above the cap may be that of a checkpoint.
    verdict = Verdict.FAIL if total <= MOST_ADMITTED * ARTIFACT_CAP_BYTES else Verdict.WARN
    message = f"{said}. Without its code ({told}) it is over the cap too."
    return Outcome(verdict, message, values, places(largest))


def _of_another_run(submission: Submission) -> bool:
    """Whether the claim is of a size under the cap and a score, neither of which any log prints."""
    claims = submission.claims
    size_claim, scores = known(claims.bytes_total), [claims.val_bpb, *(seed.val_bpb for seed in claims.seeds)]
    stated = [value for fact in scores if (value := known(fact)) is not None]
    if size_claim is None or not stated or size_claim > ARTIFACT_CAP_BYTES:
        return False
    printed = any(prints(run, value, claim_unit(value)) for run in submission.runs for value in stated)
    return not printed and not _fits(size_claim, submission.size.per_seed)


def _smallest(sizes: Sequence[SeedSize]) -> tuple[SeedSize, ...]:
    """One run of each seed: the smallest where a seed has several logs. Logs that name no seed count as one."""
    kept: dict[int | None, SeedSize] = {}
    for run in sizes:
        seed, total = known(run.seed), known(run.shipped_bytes)
        best = known(kept[seed].shipped_bytes) if seed in kept else None
        if seed not in kept or (total is not None and (best is None or total < best)):
            kept[seed] = run
    return tuple(kept.values())


def _judge(sizes: Sequence[SeedSize], every: Sequence[Accounting]) -> tuple[Verdict, str]:
    """Verdict and sentence, once at least one accounting is known."""
    stated = [accounting for accounting in every if accounting.known_totals]
    over = [accounting for accounting in stated if accounting.over]
    figures = "; ".join(f"{accounting.name} {size(accounting.largest or 0)}" for accounting in stated)
    limit = f"the cap is {size(ARTIFACT_CAP_BYTES)}"
    model = [run for run in sizes if (known(run.model_bytes) or 0) > ARTIFACT_CAP_BYTES]
    if model:
        largest = size(max(known(run.model_bytes) or 0 for run in model))
        return Verdict.FAIL, f"The compressed model alone is over the cap: {largest}; {figures}; {limit}."
    if not over:
        unread = sum(isinstance(total, Missing) for total in stated[0].totals)
        if unread:
            return (
                Verdict.UNDECIDED,
                f"Under the cap as far as read, but {many(unread, 'run')} without a size: {figures}; {limit}.",
            )
        return Verdict.PASS, f"The largest artifact: {figures}; {limit}."
    if len(over) == len(every):
        return Verdict.FAIL, f"Over the cap in every accounting: {figures}; {limit}."
    if len(over) == len(stated):
        unknown = [accounting.name for accounting in every if accounting not in stated]
        return Verdict.UNDECIDED, f"Over the cap as {figures}; {limit}; `{listed(unknown)}` cannot be told."
    names, others = (
        " and ".join(f"`{accounting.name}`" for accounting in stated if accounting.over is wanted)
        for wanted in (True, False)
    )
    return Verdict.WARN, f"Over the cap when counted as {names}, under it as {others}: {figures}; {limit}."


def _key(accounting: Accounting) -> str:
    return accounting.name.replace(" ", "_")


@rule("PG102", "size-claim-differs", family=FAMILY, status=Status.POLICY, authority="README, Submission Process")
def size_claim_differs(submission: Submission) -> Outcome | None:
    """The claimed bytes are not those of the logs.

    What it checks:
        `bytes_total` (under any of its names) is one run's size, or the largest, mean or smallest of them, in any
        accounting, as exactly as its digits say. Each seed's own claimed bytes are compared with that seed's log.

    Why it matters:
        submission.json is what the leaderboard reads. A different number is mostly a leftover of an earlier run:
        hence a warning.

    Evidence:
        The claim's JSON pointer and the logs' size lines.

    How to fix:
        Copy the number from the log; say which seed, or that it is the mean or the largest.
    """
    claim = submission.claims.bytes_total
    sizes = submission.size.per_seed
    totals = [total for run in sizes for total in _totals(run)]
    if isinstance(claim, Missing) and not any(known(row.artifact_bytes) for row in submission.claims.seeds):
        return undecided("The claimed size cannot be compared", claim.reason)
    if not totals:
        return undecided("The claimed size cannot be compared", "no log states a size", claim)
    wrong = [] if isinstance(claim, Missing) or _fits(claim.value, sizes) else [claim]
    wrong += [row for row in _seed_claims(submission.claims.seeds) if not _fits(row.value, sizes)]
    smallest, largest = min(total.value for total in totals), max(total.value for total in totals)
    span = size(smallest) if smallest == largest else f"{smallest:,} to {size(largest)}"
    values: dict[str, Value] = {"smallest_logged_bytes": smallest, "largest_logged_bytes": largest}
    if wrong:
        figures = listed([size(row.value) for row in wrong])
        models = [run.model_bytes.value for run in sizes if isinstance(run.model_bytes, Located)]
        if models and all(_matches(row.value, _named(models)) for row in wrong):
            message = f"submission.json claims {figures}: that is the compressed model alone; with code it is {span}."
            return Outcome(Verdict.WARN, message, values, places(*wrong, *totals))
        message = f"submission.json claims {figures}; the logs and files give {span}, no run and no mean fits."
        return Outcome(Verdict.WARN, message, values, places(*wrong, *totals))
    what = _which(claim.value, sizes) if isinstance(claim, Located) else "each seed's own"
    return Outcome(
        Verdict.PASS, f"The claimed size agrees with the logs ({what}): {span}.", values, places(claim, *totals)
    )


def _totals(run: SeedSize) -> tuple[Located[int], ...]:
    """A run's size as logged and in every accounting."""
    facts = (run.logged_total_bytes, run.shipped_bytes, run.compressed_code_bytes, run.all_helpers_bytes)
    return tuple(fact for fact in facts if isinstance(fact, Located))


def _seed_claims(claims: Sequence[SeedClaim]) -> list[Located[int]]:
    return [claim.artifact_bytes for claim in claims if isinstance(claim.artifact_bytes, Located)]


def _columns(sizes: Sequence[SeedSize]) -> list[list[int]]:
    """For each way of counting, the runs' totals."""
    ways = (
        [run.logged_total_bytes for run in sizes],
        [run.shipped_bytes for run in sizes],
        [run.compressed_code_bytes for run in sizes],
        [run.all_helpers_bytes for run in sizes],
    )
    return [[total.value for total in way if isinstance(total, Located)] for way in ways]


def _which(claim: int, sizes: Sequence[SeedSize]) -> str:
    """What the claim is of the logs' totals: `the largest`, `the mean` ..., or an empty string."""
    named = [pair for totals in filter(None, _columns(sizes)) for pair in _named(totals)]
    return _matches(claim, named)


def _matches(claim: int, named: Sequence[tuple[str, float]]) -> str:
    """The name of the nearest value that the claim repeats, or an empty string."""
    near = [(abs(claim - value), name) for name, value in named if abs(claim - value) <= _rounding(claim)]
    return min(near, key=lambda pair: pair[0])[1] if near else ""


def _named(totals: Sequence[int]) -> list[tuple[str, float]]:
    """What a claim may repeat of one way of counting, with its name."""
    if len(totals) == 1:
        return [("the only run's", totals[0])]
    few = [("the largest", max(totals)), ("the mean", sum(totals) / len(totals)), ("the smallest", min(totals))]
    return [*few, *(("one seed's", total) for total in totals)]


def _fits(claim: int, sizes: Sequence[SeedSize]) -> bool:
    return bool(_which(claim, sizes))


def _rounding(claim: int) -> int:
    """How far a claim may be off: one byte, or one unit of its last digit when it ends in three zeros or more."""
    digits = str(claim)
    zeros = len(digits) - len(digits.rstrip("0"))
    return int(10**zeros) if zeros >= 3 else 1


RULES = (artifact_over_cap, size_claim_differs)
