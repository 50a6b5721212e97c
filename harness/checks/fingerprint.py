"""PG3xx, the yardstick: were the right bytes and tokens counted?

`val_loss / ln 2 / val_bpb` is bytes per token, a constant of tokenizer and validation split. One log line tells
which split was scored, or that none of the known ones was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.challenge import (
    VALIDATION_SPLITS,
    VALIDATION_TEXT_BYTES,
    ValidationSplit,
    bytes_per_token,
)
from harness.checks.claimedbytes import strange_claims
from harness.checks.common import counted, known, listed, places, reason_of, seed_name, undecided
from harness.checks.splits import known_constants, likely_cause
from harness.checks.textsize import PATH_SPREAD, TAIL_SPREAD, TextSize, text_size
from harness.facts.claims import DeclaredSplit
from harness.facts.runs import Run, Score
from harness.facts.submission import Submission
from harness.model import Fact, Located, Location, Missing, Outcome, Status, Value, Verdict, rule

FAMILY = "metric"
PART_OF_SPLIT = 1e-2
# Four printed decimals tell one split from the next.
BLURRED = 2e-3


@dataclass(frozen=True, slots=True)
class Ratio:
    """Bytes per token of one run: the value and the interval that the printed digits allow."""

    run: Run
    value: float
    low: float
    high: float

    def fits(self, constant: float) -> bool:
        """Whether a constant lies in the interval, widened by the spread between evaluation paths."""
        return self.low * (1 - PATH_SPREAD) <= constant <= self.high * (1 + PATH_SPREAD)

    @property
    def blurred(self) -> bool:
        """Whether the printed digits allow more than the spread between evaluation paths."""
        return self.high - self.low > PATH_SPREAD * self.value


def ratio_of(run: Run, of: Fact[Score] | None = None) -> Ratio | None:
    """The bytes per token of a run's headline or of another score; None when it lacks the loss or the bits per byte."""
    score = known(run.headline if of is None else of)
    loss, bits = (known(score.val_loss), known(score.val_bpb)) if score is not None else (None, None)
    if score is None or loss is None or bits is None or not (math.isfinite(loss) and math.isfinite(bits)):
        return None
    loss_half, bits_half = 0.5 * 10.0**-score.loss_digits, 0.5 * 10.0**-score.digits
    if loss <= loss_half or bits <= bits_half:
        return None
    low = bytes_per_token(loss - loss_half, bits + bits_half)
    return Ratio(run, bytes_per_token(loss, bits), low, bytes_per_token(loss + loss_half, bits - bits_half))


def fitting(ratio: Ratio) -> tuple[ValidationSplit, ...]:
    """The known splits that the ratio allows; the same vocabulary size, where logged, narrows them."""
    splits = [split for split in VALIDATION_SPLITS if any(ratio.fits(value) for value in split.bytes_per_token)]
    vocabulary = known(ratio.run.config["vocab_size"]) if "vocab_size" in ratio.run.config else None
    same = [split for split in splits if str(split.vocab_size) == vocabulary]
    # One byte a token is what a loss in bits gives too: with another known vocabulary it is no byte alphabet's.
    named = any(str(split.vocab_size) == vocabulary for split in VALIDATION_SPLITS)
    return tuple(same or (() if named else splits))


@rule("PG304", "unknown-bytes-per-token", family=FAMILY, status=Status.SETTLED, authority="README; #897, #1719, #1734")
def unknown_bytes_per_token(submission: Submission) -> Outcome | None:
    """The score's bytes per token are those of no known validation split.

    What it checks:
        `val_loss / ln 2 / val_bpb` of each claimed run against the constants of the known tokenizers on the
        challenge's validation split, by the interval that the printed digits allow. With another tokenizer, times
        the logged validation tokens they give the 151.08 million bytes of the validation text; it fails when they
        give over one part in a hundred more than it has. Where the validations of the same log, during training, have
        a known split's bytes per token, the score may be of a part of the text, which has other words: it warns.
        One byte per token without a sign of a byte alphabet is what a loss made of the bits gives too: undecided. A
        split of one's own, declared as `validation_split` in submission.json, is compared with its declaration.
        Without any log, the pairs of val_loss and val_bpb that submission.json claims for different seeds tell the
        same: it warns where they agree on a number of no known split.

    Why it matters:
        "If changes are made to the tokenizer or dataset, prove with certainty that the val_bpb is correctly
        calculated." Counting leading spaces twice, or byte tokens as several bytes, lowers val_bpb without
        any compression, and shows in this number. A new tokenizer shows in it too: hence a warning where the log
        does not count the tokens.

    Evidence:
        The log line with val_loss and val_bpb.

    How to fix:
        Say which tokenizer and split were scored, and show the byte count that val_bpb divides by.
    """
    runs = counted(submission).runs
    ratios = [ratio for run in runs if (ratio := ratio_of(run)) is not None]
    if not ratios:
        claimed = None if runs else strange_claims(submission)
        return claimed or undecided("Bytes per token cannot be told", _why(runs), *(run.location for run in runs))
    declared = submission.claims.validation_split
    if isinstance(declared, Located):
        return against_declared(ratios, declared)
    strange = [ratio for ratio in ratios if not fitting(ratio)]
    values: dict[str, Value] = {"bytes_per_token": [round(ratio.value, 6) for ratio in ratios]}
    if strange:
        return _unknown(strange, values)
    bare = [ratio for ratio in ratios if _is_bare(ratio)]
    if bare:
        reason = "a loss that is the bits times ln 2 gives one byte per token too, and no log tells of a byte alphabet"
        return undecided(f"Bytes per token {bare[0].value:.5f} fits byte260", reason, *(r.run.headline for r in bare))
    names = dict.fromkeys(split.name for ratio in ratios for split in fitting(ratio))
    message = f"Bytes per token {ratios[0].value:.5f} fits {' or '.join(names)}."
    if len(ratios) < len(runs):
        return undecided(message.rstrip("."), f"the other logs: {_why(runs)}", *_where(ratios))
    return Outcome(Verdict.PASS, message, values, _where(ratios))


def _unknown(strange: Sequence[Ratio], values: dict[str, Value]) -> Outcome:
    """Bytes per token of no known tokenizer: held against the size of the text, where the tokens are counted."""
    texts = [(ratio, text) for ratio in strange if (text := text_of(ratio.run)) is not None]
    right = [splits for ratio, _ in texts if (splits := _validated_on(ratio.run))]
    over = [(ratio, text) for ratio, text in texts if text.beyond and not _validated_on(ratio.run)]
    whole = [ratio for ratio, text in texts if text.whole]
    limit = f"the validation text has {VALIDATION_TEXT_BYTES:,}"
    where = places(*(fact for ratio, _ in texts for fact in (ratio.run.headline, ratio.run.val_tokens)))
    if over:
        clauses = [
            f"{seed_name(ratio.run)} {ratio.value:.5f}{likely_cause(ratio.fits)} x {text.tokens:,} = "
            f"{ratio.value * text.tokens:,.0f}"
            for ratio, text in over
        ]
        message = f"Bytes per token times validation tokens is more bytes than there are: {listed(clauses)}; {limit}"
        message += ". Bytes are counted too often, or another text is scored."
        return Outcome(Verdict.FAIL, message, values, where)
    if len(whole) == len(strange):
        message = (
            f"Bytes per token {whole[0].value:.5f} is of no known tokenizer; times the logged tokens it is the text"
        )
        total = whole[0].value * (known(whole[0].run.val_tokens) or 0)
        return Outcome(Verdict.PASS, f"{message}: {total:,.0f} bytes, {limit}.", values, where)
    clauses = [f"{seed_name(ratio.run)} {ratio.value:.5f}{likely_cause(ratio.fits)}" for ratio in strange]
    message = f"Bytes per token of no known validation split: {listed(clauses)}; known are {known_constants()}."
    for splits in right[:1]:
        names = " or ".join(split.name for split in splits)
        message += f" The log's validations during training fit {names}: the score may be of a part of the text."
    return Outcome(Verdict.WARN, message, values, _where(strange))


def _validated_on(run: Run) -> tuple[ValidationSplit, ...]:
    """The known splits that the validations during training fit, where their digits tell."""
    ratio = ratio_of(run, run.validation)
    return fitting(ratio) if ratio is not None and ratio.high - ratio.low < BLURRED * ratio.value else ()


def text_of(run: Run) -> TextSize | None:
    """The text of a run's logged validation tokens, by its bytes per token."""
    ratio = ratio_of(run)
    return text_size(run, ratio.low if ratio is not None else None, ratio.high if ratio is not None else None)


def _is_bare(ratio: Ratio) -> bool:
    """Whether one byte per token is all that speaks of a byte alphabet."""
    only = all(split.name.startswith("byte") for split in fitting(ratio))
    return only and isinstance(ratio.run.val_tokens, Missing) and "vocab_size" not in ratio.run.config


def _why(runs: Sequence[Run]) -> str:
    """Why no ratio came out of the runs."""
    if not runs:
        return "no training log was read"
    headlines: list[Fact[Score]] = [run.headline for run in runs]
    inner: list[Fact[float]] = [
        fact
        for headline in headlines
        if isinstance(headline, Located)
        for fact in (headline.value.val_loss, headline.value.val_bpb)
    ]
    return "; ".join(filter(None, (reason_of(headlines), reason_of(inner)))) or "the values are not finite and positive"


def against_declared(ratios: Sequence[Ratio], declared: Located[DeclaredSplit]) -> Outcome:
    """Compare with the split that submission.json declares."""
    split = declared.value
    constant = split.bytes / split.tokens
    values: dict[str, Value] = {
        "declared_bytes_per_token": round(constant, 6),
        "bytes_per_token": [round(ratio.value, 6) for ratio in ratios],
    }
    note = f"The score is on `{split.name}`, which is not a challenge split: it compares with no record."
    strange = [ratio for ratio in ratios if not ratio.fits(constant)]
    counts = f"{split.bytes:,} bytes, {split.tokens:,} tokens"
    subject = f"declared split `{split.name}` has {constant:.5f} bytes per token ({counts})"
    where = (declared.location, *_where(ratios))
    if strange:
        clauses = [f"{seed_name(ratio.run)} {ratio.value:.5f}" for ratio in strange]
        return Outcome(Verdict.WARN, f"The {subject}; the logs give {listed(clauses)}.", values, where, (note,))
    return Outcome(Verdict.PASS, f"Bytes per token {ratios[0].value:.5f} fits: the {subject}.", values, where, (note,))


def _where(ratios: Sequence[Ratio]) -> tuple[Location, ...]:
    return places(*(ratio.run.headline for ratio in ratios))


@rule(
    "PG305", "validation-tokens-differ", family=FAMILY, status=Status.SETTLED, authority="README; #1835, #2009, #2109"
)
def validation_tokens_differ(submission: Submission) -> Outcome | None:
    """The log counts other validation tokens than the split has.

    What it checks:
        The number of validation tokens that each claimed run logs against the canonical numbers of the split that
        its bytes per token name (or against the declared split). Up to one part in a thousand too few is the tail
        that whole sequences leave out. More than one part in a hundred too few fails; any other difference warns,
        and so does a part in a folder that claims no score, or that calls itself a non-record and a trial (a smoke
        test, a proxy).
        Of an unknown tokenizer, the tokens times their bytes are the 151.08 million bytes of the validation text; it
        fails when they are less than half of it.

    Why it matters:
        The score is defined on the whole validation split, in order, each target once. A part of it is another
        benchmark.

    Evidence:
        The log line that counts the validation tokens.

    How to fix:
        Score every validation shard to its end.
    """
    runs = counted(submission).runs
    logged = [run for run in runs if isinstance(run.val_tokens, Located)]
    if not logged:
        reasons = reason_of(run.val_tokens for run in runs) or "no training log was read"
        return undecided("The number of validation tokens cannot be told", reasons, *(run.location for run in runs))
    outcomes = [_tokens(submission, run) for run in logged]
    worst = max(outcomes, key=lambda outcome: outcome.verdict.severity)
    where = places(*(run.val_tokens for run in logged))
    return Outcome(worst.verdict, worst.message, worst.values, where)


def _tokens(submission: Submission, run: Run) -> Outcome:
    """Judge one run's token count."""
    tokens = known(run.val_tokens) or 0
    subject = f"{seed_name(run)} logs {tokens:,} validation tokens"
    name, canonical = canonical_tokens(submission, run)
    if not canonical:
        return _by_text(submission, subject, name, text_of(run))
    values: dict[str, Value] = {"logged_tokens": tokens, "canonical_tokens": list(canonical)}
    numbers = " or ".join(f"{number:,}" for number in canonical)
    low, high = min(canonical), max(canonical)
    if low * (1 - TAIL_SPREAD) <= tokens <= high + 1:
        return Outcome(Verdict.PASS, f"{subject}; {name} has {numbers}.", values)
    processes = known(run.world_size) or 1
    if processes > 1 and low * (1 - TAIL_SPREAD) <= tokens * processes <= high + processes:
        return undecided(
            subject, f"{name} has {numbers}, as many as {processes} processes have together", run.val_tokens
        )
    if tokens < low * (1 - PART_OF_SPLIT):
        return _part(submission, f"{subject}, a part of the split; {name} has {numbers}.", values)
    return Outcome(Verdict.WARN, f"{subject}; {name} has {numbers}.", values)


def _part(submission: Submission, message: str, values: Mapping[str, Value]) -> Outcome:
    """A part of the split was scored: it warns where the folder says that it claims no place."""
    stated = submission.statements
    if all(isinstance(fact, Missing) for fact in (submission.claims.val_bpb, submission.readme.val_bpb)):
        return Outcome(Verdict.WARN, f"{message} Neither submission.json nor the README claims a score.", values)
    if not stated.non_record or not stated.trial:
        return Outcome(Verdict.FAIL, message, values)
    trial = stated.trial[0]
    readings = "One reading: a score is of the whole split whatever it is for; the other: a trial claims no place"
    said = f"The folder calls itself a non-record and says '{trial.value}' ({trial.location})"
    return Outcome(Verdict.WARN, f"{message} {said}. {readings}.", values)


def _by_text(submission: Submission, subject: str, reason: str, text: TextSize | None) -> Outcome:
    """Judge a token count of an unknown tokenizer by the text that the tokens can hold."""
    limit = f"the validation text has {VALIDATION_TEXT_BYTES:,}"
    if text is not None and text.whole:
        return Outcome(Verdict.PASS, f"{subject}, with {text.low:,.0f} bytes or a little more; {limit}.")
    if text is not None and text.part:
        return _part(submission, f"{subject}, a part of the split: at most {text.high:,.0f} bytes; {limit}.", {})
    return undecided(subject, reason)


def canonical_tokens(submission: Submission, run: Run) -> tuple[str, tuple[int, ...]]:
    """The split's name and its token counts; a reason and nothing when the split cannot be told."""
    declared = submission.claims.validation_split
    if isinstance(declared, Located):
        return f"the declared split {declared.value.name}", (declared.value.tokens,)
    ratio = ratio_of(run)
    splits = fitting(ratio) if ratio is not None else ()
    if not splits:
        return "which split was scored cannot be told from its bytes per token", ()
    numbers = [number for split in splits for number in (split.tokens, split.scored_tokens) if number is not None]
    name = " or ".join(split.name for split in splits)
    if any(split.tokens is None and split.scored_tokens is None for split in splits):
        return f"no canonical number is known for {name}", ()
    return name, tuple(sorted(numbers))


RULES = (unknown_bytes_per_token, validation_tokens_differ)
