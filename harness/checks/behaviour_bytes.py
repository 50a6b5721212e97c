"""PG7xx, the bytes: whether a miniature run divides its score by the bytes that its text has."""

from __future__ import annotations

import math

from harness.checks.behaviour import BARE, FAMILY
from harness.checks.common import undecided
from harness.facts.probe import ProbeFacts
from harness.facts.submission import Submission
from harness.model import Evidence, Located, Location, Missing, Outcome, Status, Value, Verdict, rule

# Windows left out at the end of the text change the ratio by some thousandths.
TOLERANCE = 0.03
# A space counted twice adds a sixth.
CLEAR = 0.08
SAME_COUNT_SHARE = 0.05


@rule(
    "PG712",
    "bytes-miscounted-when-run",
    family=FAMILY,
    status=Status.SETTLED,
    authority="README; #897, #1545, #1632, #1719, #1734, #1804",
    needs=Evidence.PROBE,
)
def bytes_miscounted_when_run(submission: Submission) -> Outcome | None:
    """A miniature run divides by other bytes than its text has.

    What it checks:
        The printed val_loss and val_bpb of the first run give the bytes per token that the script divides by:
        val_loss / ln 2 / val_bpb. The text of that run is known to the byte. More than three percent apart warns. It
        fails where the script counts more than eight percent too many, which lowers its score, and the traced run
        shows that it scores the whole text: a part of it may have other words.

    Why it matters:
        "If changes are made to the tokenizer or dataset, prove with certainty that the val_bpb is correctly
        calculated." A space counted twice lowers val_bpb by about a seventh without any compression.

    Evidence:
        The printed numbers, the bytes and tokens of the text.

    How to fix:
        Count the piece's UTF-8 bytes without its mark, one byte for a byte token, none for control tokens, and one
        more for a leading space unless the previous token is a boundary.
    """
    facts = submission.probe
    subject = "Whether the script counts the bytes of its text cannot be told"
    if isinstance(facts, Missing):
        return undecided(subject, facts.reason)
    where = Location(facts.script)
    run = next((each for each in facts.runs if each.name == BARE), None)
    if run is None or not isinstance(run.val_bpb, Located) or not isinstance(run.val_loss, Located):
        return undecided(subject, "the miniature run printed no loss beside its score", where)
    if not facts.val_bytes or run.val_bpb.value <= 0:
        return undecided(subject, "the score is no positive number", where)
    counted = run.val_loss.value / math.log(2) / run.val_bpb.value
    true = facts.val_bytes / max(facts.val_tokens - 1, 1)
    apart = counted / true - 1
    values: dict[str, Value] = {"counted_bytes_per_token": counted, "text_bytes_per_token": true}
    told = f"the script counts {counted:.4f} bytes per token, the text has {true:.4f}"
    if abs(apart) <= TOLERANCE:
        return Outcome(Verdict.PASS, f"In miniature, {told}.", values, (where,))
    whole = _scores_all(facts)
    verdict = Verdict.FAIL if apart > CLEAR and whole else Verdict.WARN
    part = "" if whole else "; whether it scores the whole text is not known"
    return Outcome(verdict, f"In miniature, {told}: {apart:+.1%}{part}.", values, (where,))


def _scores_all(facts: ProbeFacts) -> bool:
    """Whether the traced run shows that the reported score counts the whole text."""
    if isinstance(facts.ledger, Missing) or facts.ledger.value.result != "bound":
        return False
    found = facts.ledger.value
    missing = sum(end - start for start, end in found.missing)
    return missing <= SAME_COUNT_SHARE * max(found.tokens, 1)


RULES = (bytes_miscounted_when_run,)
