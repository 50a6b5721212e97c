"""PG3xx, the number itself: is it in bits per byte, and is it one that the challenge's models reach?"""

from __future__ import annotations

import math

from harness.challenge import (
    ENVELOPE_BY_DATE,
    ENVELOPE_BY_SIZE,
    ENVELOPE_DEVIATIONS,
    ENVELOPE_START,
    VALIDATION_SPLITS,
)
from harness.checks.common import (
    agree,
    bpb,
    claim_unit,
    counted,
    headline_bpb,
    known,
    listed,
    places,
    printed_unit,
    reason_of,
    seed_name,
    undecided,
)
from harness.checks.fingerprint import Ratio, fitting, ratio_of
from harness.checks.record import date_of, row_of, scores
from harness.facts.submission import Submission
from harness.model import Located, Missing, Outcome, Status, Value, Verdict, rule

FAMILY = "metric"
LOG_2 = math.log(2)


@rule("PG307", "other-unit-than-bits-per-byte", family=FAMILY, status=Status.SETTLED, authority="README")
def other_unit_than_bits_per_byte(submission: Submission) -> Outcome | None:
    """A score is not in bits per byte.

    What it checks:
        Whether a claimed run's logged val_bpb is its val_loss (nats per token), its val_loss / ln 2 (bits per
        token), or val_loss over bytes per token (nats per byte, without the division by ln 2); and whether the
        claim of submission.json is one of these of a run instead of its val_bpb. It warns, because a tokenizer of
        one's own may have such a ratio by chance.

    Why it matters:
        Submissions are "evaluated by compression on the FineWeb validation set (tokenizer-agnostic, bits per
        byte)". Nats per byte are 0.69 times bits per byte.

    Evidence:
        The log line with val_loss and val_bpb, and the claim's JSON pointer.

    How to fix:
        val_bpb = val_loss / ln 2 * tokens / bytes.
    """
    runs = counted(submission).runs
    ratios = [ratio for run in runs if (ratio := ratio_of(run)) is not None]
    if not ratios:
        reason = reason_of(run.headline for run in runs) or "no log states val_loss and val_bpb of its final score"
        return undecided("The unit of the score cannot be told", reason, *(run.location for run in runs))
    values: dict[str, Value] = {"bytes_per_token": [round(ratio.value, 6) for ratio in ratios]}
    wrong = [(ratio, unit) for ratio in ratios if (unit := _logged_unit(ratio))]
    if wrong:
        clauses = [f"{seed_name(ratio.run)} {unit}" for ratio, unit in wrong]
        where = places(*(ratio.run.headline for ratio, _ in wrong))
        return Outcome(Verdict.WARN, f"Logged as val_bpb, but in another unit: {listed(clauses)}.", values, where)
    claim = submission.claims.val_bpb
    for ratio in ratios if isinstance(claim, Located) else ():
        unit = _claimed_unit(submission, ratio)
        if unit:
            message = f"The claim of {bpb(known(claim) or 0.0)} is {seed_name(ratio.run)}'s {unit}, not its val_bpb."
            return Outcome(Verdict.WARN, message, values, places(claim, ratio.run.headline))
    where = places(*(ratio.run.headline for ratio in ratios))
    return Outcome(Verdict.PASS, "val_loss and val_bpb are nats per token and bits per byte.", values, where)


def _logged_unit(ratio: Ratio) -> str:
    """The unit that the logged value has instead, in words; empty when it may be bits per byte."""
    if ratio.blurred or fitting(ratio):
        vocabulary = known(ratio.run.config["vocab_size"]) if "vocab_size" in ratio.run.config else None
        large = vocabulary is not None and vocabulary.isdecimal() and int(vocabulary[:9]) > 512
        return "val_loss / ln 2, bits per token" if ratio.fits(1.0) and large else ""
    if ratio.fits(1 / LOG_2):
        return "val_loss itself, nats per token"
    for split in VALIDATION_SPLITS:
        if split.vocab_size > 512 and any(ratio.fits(value / LOG_2) for value in split.bytes_per_token):
            return f"nats per byte of {split.name}"
    return ""


def _claimed_unit(submission: Submission, ratio: Ratio) -> str:
    """What the claim repeats of a run instead of its val_bpb; empty when it repeats none of them."""
    score, claim = known(ratio.run.headline), known(submission.claims.val_bpb)
    loss, bits = (known(score.val_loss), headline_bpb(ratio.run)) if score is not None else (None, None)
    if claim is None or loss is None or bits is None:
        return ""
    unit = max(claim_unit(claim), printed_unit(ratio.run))
    printed = [
        other.val_bpb.value for run in submission.runs for other in run.scores if isinstance(other.val_bpb, Located)
    ]
    if any(agree(claim, value, unit) for value in printed):
        return ""
    found = (
        (loss, "val_loss, nats per token"),
        (loss / LOG_2, "val_loss / ln 2, bits per token"),
        (bits.value * LOG_2, "nats per byte"),
    )
    return next((name for value, name in found if agree(claim, value, unit)), "")


@rule(
    "PG309",
    "better-than-plausible",
    family=FAMILY,
    status=Status.POLICY,
    authority="as MLPerf does; nobody here",
)
def better_than_plausible(submission: Submission) -> Outcome | None:
    """The score is better than accepted records of its date and size suggest.

    What it checks:
        The mean val_bpb, or the claim where that is lower, against a fit over the accepted records: ln(val_bpb) falls
        with ln(1 + days since 2026-03-17) and, where the log states it, with ln(parameters). More than three standard
        deviations (four percent) below the fit warns. Leaving out each accepted record in turn, none warns (0 of 46;
        the nearest is 2.2 deviations below). Training steps are not in the fit: among records they fall as models
        grow. Not for a declared split of one's own.

    Why it matters:
        A jump can be a discovery. Most jumps of this size were target-keyed caches, two passes, training on tokens
        before scoring them, or bytes counted twice: a reviewer looks there first. A heuristic: hence a warning.

    Evidence:
        The final scores, the parameter count in the log, the date.

    How to fix:
        Nothing, when the score is right: say where the gain comes from, and show that it is causal.
    """
    if isinstance(submission.claims.validation_split, Located):
        return None
    row, date = row_of(submission), date_of(submission)
    for fact in (row, date):
        if isinstance(fact, Missing):
            return undecided("Whether the score is plausible cannot be told", fact.reason, fact)
    if isinstance(row, Missing) or isinstance(date, Missing):
        return None
    sizes = [run.parameters for run in counted(submission).runs if (known(run.parameters) or 0) > 0]
    parameters = max((known(size) or 0 for size in sizes), default=0)
    envelope = ENVELOPE_BY_SIZE if parameters else ENVELOPE_BY_DATE
    expected = envelope.expected_bpb(max((date.value - ENVELOPE_START).days, 0), parameters or None)
    lowest = expected * math.exp(-ENVELOPE_DEVIATIONS * envelope.deviation)
    claim = submission.claims.val_bpb
    claimed = isinstance(claim, Located) and 0.0 < claim.value < row.sample.mean
    mean = claim.value if isinstance(claim, Located) and claimed else row.sample.mean
    values: dict[str, Value] = {
        "mean_bpb": round(mean, 8),
        "expected_bpb": round(expected, 4),
        "lowest_plausible_bpb": round(lowest, 4),
        "parameters": parameters or None,
    }
    where = places(*([claim] if claimed else scores(submission)[0]), *sizes[:1], date)
    size = f", {parameters:,} parameters" if parameters else ""
    subject = f"{bpb(round(mean, 6))} on {date.value}{size}"
    told = f"accepted records suggest {expected:.4f} BPB, {lowest:.4f} BPB at best"
    if mean < lowest:
        return Outcome(Verdict.WARN, f"Better than plausible: {subject}; {told}.", values, where)
    return Outcome(Verdict.PASS, f"Plausible: {subject}; {told}.", values, where)


RULES = (other_unit_than_bits_per_byte, better_than_plausible)
