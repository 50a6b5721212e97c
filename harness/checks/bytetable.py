"""PG31x, metric: the bytes that val_bpb divides by, as the code counts them."""

from __future__ import annotations

import math

from harness.challenge import VALIDATION_SPLITS, bytes_per_token
from harness.checks.common import counted, known, listed, places, undecided
from harness.checks.fingerprint import Ratio, against_declared, fitting, ratio_of
from harness.checks.splits import likely_cause
from harness.checks.textsize import PATH_SPREAD
from harness.facts.bytetable import ByteTable
from harness.facts.submission import Submission
from harness.model import Located, Location, Missing, Outcome, Status, Value, Verdict, rule

FAMILY = "metric"
RIGHT = frozenset(
    {
        "correct",
        "bytes from a sidecar file",
        "each token is one byte",
        "bytes from the tokenizer's own table",
    }
)
PROVED_WRONG = frozenset({"leading space counted twice", "the mark of a leading space counted as its own bytes"})
BYTE_TOKENS_WRONG = "byte tokens not counted as one byte"
BYTE_TOKENS = 256  # SentencePiece's byte fallback: one token for each byte


@rule(
    "PG310",
    "byte-denominator-wrong",
    family=FAMILY,
    status=Status.SETTLED,
    authority="README; #897, #1545, #1632, #1719, #1734, #1804",
)
def byte_denominator_wrong(submission: Submission) -> Outcome:
    """The code does not count the bytes of the text.

    What it checks:
        The loop that fills the table of bytes per token, followed for a byte token, a word with and without a
        leading space, a letter of two bytes, a control and an unused token, and the line of the evaluation that adds
        the space. It fails where a space is proved to be counted twice, or as the three bytes of its mark. Byte
        tokens that count as the length of their names (`<0x0A>`) warn, since their number in the text decides. The
        logged `val_loss / ln 2 / val_bpb` is the second witness (without a log, the claimed one): where it is that of
        a canonical split, a wrong table cannot have made the score.

    Why it matters:
        "If changes are made to the tokenizer or dataset, prove with certainty that the val_bpb is correctly
        calculated." A space counted twice lowers val_bpb by about a seventh without any compression.

    Evidence:
        The lines that fill the table and that add the space, and the log line with val_loss and val_bpb.

    How to fix:
        Count the piece's UTF-8 bytes without its mark, one byte for a byte token, none for control and unused
        tokens, and one more for a leading space unless the previous token is a boundary.
    """
    facts = submission.byte_tables
    ratios = [ratio for run in counted(submission).runs if (ratio := ratio_of(run)) is not None]
    canonical = bool(ratios) and all(fitting(ratio) for ratio in ratios)
    witness = _witness(ratios, canonical=canonical)
    values: dict[str, Value] = {"bytes_per_token": [round(ratio.value, 6) for ratio in ratios]}
    logged = places(*(ratio.run.headline for ratio in ratios[:1]))
    if isinstance(facts.kind, Missing):
        return _unread(submission, facts.kind, ratios, canonical=canonical)
    kind = facts.kind.value
    where = (*_lines(facts.tables, kind), *logged)
    if kind in RIGHT:
        return Outcome(Verdict.PASS, f"How the code counts bytes: {kind}; {witness}.", values, where)
    if kind == BYTE_TOKENS_WRONG:
        values["byte_tokens"] = BYTE_TOKENS
        return Outcome(Verdict.WARN, f"Up to {BYTE_TOKENS} {kind} in the code; {witness}.", values, where)
    if canonical:
        return undecided(f"The code shows {kind}", f"but the log does not: {witness}", *where)
    if not ratios and (claimed := _claimed(submission)):
        return undecided(f"The code shows {kind}", f"but the claim does not: {claimed}", *where)
    verdict = Verdict.FAIL if kind in PROVED_WRONG else Verdict.WARN
    return Outcome(verdict, f"The code counts wrong bytes: {kind}; {witness}.", values, where)


def _unread(submission: Submission, kind: Missing, ratios: list[Ratio], *, canonical: bool) -> Outcome:
    """The code tells nothing: then only the logs' bytes per token speak."""
    witness, declared = _witness(ratios, canonical=canonical), submission.claims.validation_split
    values: dict[str, Value] = {"bytes_per_token": [round(ratio.value, 6) for ratio in ratios]}
    where = (*places(kind), *places(*(ratio.run.headline for ratio in ratios[:1])))
    if canonical:
        message = f"The bytes are those of a canonical split by the log: {witness}; in the code, {kind.reason}."
        return Outcome(Verdict.PASS, message, values, where)
    if ratios and isinstance(declared, Located):
        # A text of one's own: its bytes are what the submission declares, and only they can be compared.
        found = against_declared(ratios, declared)
        if found.verdict is Verdict.PASS:
            return Outcome(Verdict.PASS, f"{found.message[:-1]}; in the code, {kind.reason}.", values, where)
    return undecided("How bytes are counted cannot be told", f"{kind.reason}; {witness}", *where)


def _claimed(submission: Submission) -> str:
    """What the claimed loss and score say, where that is a known split's number; else ""."""
    loss, bits = known(submission.claims.val_loss), known(submission.claims.val_bpb)
    if loss is None or bits is None or not (math.isfinite(loss) and 0.0 < bits < math.inf):
        return ""
    value = bytes_per_token(loss, bits)
    names = [
        split.name
        for split in VALIDATION_SPLITS
        if any(abs(value / constant - 1.0) <= PATH_SPREAD for constant in split.bytes_per_token)
    ]
    return f"its val_loss and val_bpb give {value:.5f} bytes per token, which is {' or '.join(names)}" if names else ""


def _witness(ratios: list[Ratio], *, canonical: bool) -> str:
    """What the logs say, as a clause."""
    if not ratios:
        return "no log tells the bytes per token"
    figure = f"{ratios[0].value:.5f} bytes per token logged"
    if canonical:
        return f"{figure}, which is {' or '.join(split.name for split in fitting(ratios[0]))}"
    return f"{figure}, which fits no known split{likely_cause(ratios[0].fits)}"


def _lines(tables: tuple[ByteTable, ...], kind: str) -> tuple[Location, ...]:
    return places(*(place for table in tables if table.kind == kind and table.runs for place in table.places))


@rule("PG311", "text-transformed", family=FAMILY, status=Status.DISPUTED, authority="#1604, #1729; README")
def text_transformed(submission: Submission) -> Outcome:
    """The text is changed before it is tokenized.

    What it checks:
        Case folding or Unicode normalization in a shipped script that tokenizes text, while val_bpb does not divide
        by a sidecar of the raw bytes.

    Why it matters:
        A lossy change makes the text easier, and its bytes are no longer those of the validation split (#1604, not
        ruled). Changes that can be undone, scored on the raw bytes of a sidecar, were accepted (#1729). Hence a
        warning.

    Evidence:
        The line that changes the text.

    How to fix:
        Use a change that decodes to the raw text, and divide by the raw bytes.
    """
    facts = submission.byte_tables
    if not submission.package.scripts:
        return undecided("Whether the text is changed cannot be told", "the folder holds no Python script")
    if not facts.transformed:
        return Outcome(Verdict.PASS, "No shipped script changes text before tokenizing it.")
    if isinstance(facts.kind, Located) and facts.kind.value == "bytes from a sidecar file":
        message = "The text is changed before tokenizing, and the bytes come from a sidecar file."
        return Outcome(Verdict.PASS, message, locations=(*facts.transformed, facts.kind.location))
    shown = listed(facts.transformed, 3)
    message = f"The text is changed before tokenizing ({shown}); one reading allows it where bytes of the raw text are"
    return Outcome(Verdict.WARN, f"{message} counted, the other never.", locations=facts.transformed)


RULES = (byte_denominator_wrong, text_transformed)
