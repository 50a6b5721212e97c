"""What a miniature run printed of its result, read as the log of any run is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from harness.facts.build_runs import build_runs
from harness.facts.logfile import read_log
from harness.facts.runs import Run, Score
from harness.facts.scorekinds import Kinds, kinds
from harness.model import Located

NOT_KNOWN: Final[Kinds] = frozenset()
# So many decimals tell a loss to well below what two passes of a small world differ by.
EXACT_DIGITS: Final = 8
UNREAD_LIMIT_CHARACTERS: Final = 120
# Fewer digits are no size of a model.
_SIZE = re.compile(r"(?<![\d.,])(?:\d{1,3}(?:,\d{3})+|\d{4,12})(?!\d|[.,]\d)")
_UNREAD = re.compile(r"\b\w*(?:bpb|bits[ _-]per[ _-]byte)\b[^\d\n]{0,20}(\d+\.\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Printed:
    """Score, loss and sizes that an output reports.

    Attributes:
        val_bpb: the headline; None when there is none.
        val_loss: the loss beside it, in nats per token.
        implied: where there is none, the loss that it stands for with the bytes per token of another score.
        model_bytes: the size of the compressed model.
        sizes: every number that may be a size in bytes.
        labels: of all scores, as printed, that of the score itself first.
        unread: where there is no headline, the last line that names bits per byte and a number; empty when none does.
    """

    val_bpb: float | None = None
    val_loss: float | None = None
    model_bytes: int | None = None
    sizes: frozenset[int] = frozenset()
    unread: str = ""
    implied: float | None = None
    labels: tuple[str, ...] = ()

    @property
    def loss(self) -> float | None:
        """The loss that the reported scores have in the mean, printed or implied."""
        return self.implied if self.val_loss is None else self.val_loss


def printed(data: bytes, name: str, wanted: Kinds = NOT_KNOWN) -> Printed:
    """Read an output.

    Args:
        data: what was printed.
        name: of the output.
        wanted: what is done in the evaluation whose score is claimed. In a small world adaptation may make a score
            worse, and the headline be another one.
    """
    text = data.decode(errors="replace")
    sizes = frozenset(int(match[0].replace(",", "")) for match in _SIZE.finditer(text))
    runs = build_runs(read_log(data, name))
    last = runs[-1] if runs else None
    size = last.model_bytes.value if last is not None and isinstance(last.model_bytes, Located) else None
    score = None if last is None else _reported(last, wanted)
    bits = None if score is None else score.val_bpb
    if last is None or score is None or not isinstance(bits, Located):
        return _only(text, size, sizes)
    loss = score.val_loss
    nats = loss.value if isinstance(loss, Located) else _loss_beside(bits.value, last.scores)
    implied = _implied(bits.value, last.scores) if nats is None and score.digits >= EXACT_DIGITS else None
    labels = tuple(dict.fromkeys(each.label for each in (score, *last.scores)))
    return Printed(bits.value, nats, size, sizes, implied=implied, labels=labels)


def _reported(run: Run, wanted: Kinds) -> Score | None:
    """The headline; where that is of another evaluation than the claimed one, the last score of the claimed one."""
    headline = run.headline.value if isinstance(run.headline, Located) else None
    if headline is None or not wanted or kinds(headline.label) & wanted:
        return headline
    found = [each for each in run.scores if not each.diagnostic and kinds(each.label) & wanted]
    exact = [each for each in found if found and _same(each, found[-1])]
    return max(exact, key=lambda each: each.digits, default=headline)


def _same(first: Score, second: Score) -> bool:
    """Whether two prints are of one value."""
    one, other = first.val_bpb, second.val_bpb
    slack = 10.0 ** -min(first.digits, second.digits)
    return isinstance(one, Located) and isinstance(other, Located) and abs(one.value - other.value) <= slack


def _only(text: str, size: int | None, sizes: frozenset[int]) -> Printed:
    """A score of no known form: what alone is called bits per byte in all that was printed is taken for it."""
    found = [(line.strip(), match) for line in text.splitlines() for match in _UNREAD.finditer(line)]
    if len(found) == 1:
        return Printed(float(found[0][1][1]), model_bytes=size, sizes=sizes)
    return Printed(model_bytes=size, sizes=sizes, unread=found[-1][0][:UNREAD_LIMIT_CHARACTERS] if found else "")


def _loss_beside(headline: float, scores: Sequence[Score]) -> float | None:
    """The loss of a line with the same score and fewer decimals, where the headline's line has none."""
    for score in reversed(scores):
        bits, loss = score.val_bpb, score.val_loss
        if not isinstance(bits, Located) or not isinstance(loss, Located):
            continue
        if abs(bits.value - headline) <= 10.0**-score.digits:
            return loss.value
    return None


def _implied(bits: float, scores: Sequence[Score]) -> float | None:
    """The loss of a score in bits per byte, where an evaluation with both tells how many bytes a token has."""
    for score in reversed(scores):
        other, loss = score.val_bpb, score.val_loss
        exact = min(score.digits, score.loss_digits) >= EXACT_DIGITS
        if exact and isinstance(other, Located) and isinstance(loss, Located) and other.value > 0:
            return bits * loss.value / other.value
    return None
