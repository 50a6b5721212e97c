"""PG7xx, the bytes: whether a miniature run divides its score by the bytes that its text has."""

from __future__ import annotations

import math
import re
from typing import Final

from harness.challenge import VALIDATION_SPLITS
from harness.checks.behaviour import BARE, FAMILY
from harness.checks.common import undecided
from harness.facts.submission import Submission
from harness.model import Evidence, Located, Location, Missing, Outcome, Status, Value, Verdict, rule

# Windows left out at the end of the text change the ratio by some thousandths.
TOLERANCE = 0.03
# A space counted twice adds about a sixth, its mark counted as three bytes about a third. What is farther away is
# explained by none of them.
EXPLAINED = (0.08, 0.40)
# Bytes per token that a script may know of the official text, as a share of what it says.
KNOWN_SHARE: Final = 1e-3
_TABLE: Final = re.compile(
    r"\.(?:model|vocab|np[yz]|tiktoken|lut)$|(?:tokenizer|vocab|lut|bytes?)[\w.-]*\.(?:json|txt|bin|pkl|pt)$",
    re.IGNORECASE,
)
_NUMBER: Final = re.compile(r"(?<![\w.])\d[\d_]*(?:\.\d+)?(?![\w.])")


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
        fails where the script counts 8 to 40 percent too many, as it does where leading spaces count twice or as the
        bytes of their mark, of the whole text. More than that is explained by no known error, and stays undecided. A
        part of the text may have other words: where the traced run shows that only a part is scored, any difference
        is undecided, and where it shows neither, one of up to eight percent. So is any difference where the folder
        ships a tokenizer or a table of its own, or the code holds the totals of the official text: these belong to
        another text than the small world's.

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
    reason = _explained(submission, apart, whole=facts.whole)
    if reason:
        return undecided(f"In miniature, {told}: {apart:+.1%}", reason, where)
    verdict = Verdict.FAIL if apart > EXPLAINED[0] and facts.whole else Verdict.WARN
    part = "" if facts.whole else "; whether it scores the whole text is not known"
    return Outcome(verdict, f"In miniature, {told}: {apart:+.1%}{part}.", values, (where,))


def _explained(submission: Submission, apart: float, *, whole: bool | None) -> str:
    """Why a difference may be none of the script's making, or ""."""
    part = "it scored a part of the text" if whole is False else ""
    part = "it may have scored a part of the text" if whole is None and abs(apart) <= EXPLAINED[0] else part
    many = "no known error counts so many" if apart > EXPLAINED[1] else ""
    return _of_another_text(submission) or part or many


def _of_another_text(submission: Submission) -> str:
    """Why the script may count the bytes of another text than the small world's, or ""."""
    shipped = next((file.path for file in submission.package.files if _TABLE.search(file.path)), "")
    if shipped:
        return f"the folder ships {shipped}, which may belong to another text"
    for script in submission.package.scripts:
        for number in _NUMBER.findall("\n".join(script.texts)):
            if _is_official(float(number.replace("_", ""))):
                return f"{script.path} holds {number}, a total of the official text"
    return ""


def _is_official(value: float) -> bool:
    """Whether a number is a total of the official validation text, or its bytes per token."""
    totals = {total for split in VALIDATION_SPLITS for total in (split.tokens, split.scored_tokens, split.bytes)}
    totals |= {split.scored_bytes for split in VALIDATION_SPLITS}
    ratios = {ratio for split in VALIDATION_SPLITS for ratio in split.bytes_per_token if ratio > 1}
    return value in totals or any(abs(value / ratio - 1) <= KNOWN_SHARE for ratio in ratios)


RULES = (bytes_miscounted_when_run,)
