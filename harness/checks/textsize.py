"""How much text the counted tokens hold: tokens times bytes per token, whichever tokenizer made them."""

from __future__ import annotations

from dataclasses import dataclass

from harness.challenge import VALIDATION_SPLITS, VALIDATION_TEXT_BYTES
from harness.checks.common import known
from harness.facts.runs import Run

# Evaluation paths drop different windows at the ends of documents and of the split: on accepted records one
# tokenizer's constant moves by up to 1.3 parts in 10,000. The nearest two splits are 26 parts apart.
PATH_SPREAD = 2e-4
# Whole sequences only: up to 32,768 tokens at the split's end are left out by accepted records, 4 parts in 10,000.
TAIL_SPREAD = 1e-3
# Nearer than this to the text's size, other windows or rounding may explain a difference.
BEYOND_TEXT = 1e-2
PART_OF_TEXT = 0.5
# No tokenizer whose tokens fit in 16 bits holds more on the average: 8,192 pieces hold 3.7 bytes.
MOST_BYTES_PER_TOKEN = 16.0
# Where a log counts one process's tokens and not the processes.
MOST_PROCESSES = 8
_OTHER_TEXTS = tuple(
    split.scored_bytes for split in VALIDATION_SPLITS if split.bytes is None and split.scored_bytes is not None
)


@dataclass(frozen=True, slots=True)
class TextSize:
    """Bytes of the text that a run's validation tokens hold.

    Attributes:
        tokens: as logged.
        low: the least that the printed digits allow.
        high: the most.
        processes: by which the tokens may have to be multiplied.
    """

    tokens: int
    low: float
    high: float
    processes: int

    @property
    def whole(self) -> bool:
        """Whether it is the validation text, but for the tail that whole sequences leave out."""
        least, most = VALIDATION_TEXT_BYTES * (1 - TAIL_SPREAD), VALIDATION_TEXT_BYTES * (1 + PATH_SPREAD)
        return least <= self.low and self.high <= most

    @property
    def part(self) -> bool:
        """Whether it is far less than the text even if every process had so many tokens."""
        return self.high * self.processes < PART_OF_TEXT * VALIDATION_TEXT_BYTES

    @property
    def beyond(self) -> bool:
        """Whether it is more than the text, and no other published export of it either."""
        near = any(
            self.low <= size * (1 + TAIL_SPREAD) and size * (1 - TAIL_SPREAD) <= self.high for size in _OTHER_TEXTS
        )
        return self.low > VALIDATION_TEXT_BYTES * (1 + BEYOND_TEXT) and not near


def text_size(run: Run, low: float | None, high: float | None) -> TextSize | None:
    """The text of a run's logged validation tokens; None where the log counts none.

    Args:
        run: the run.
        low: the fewest bytes per token that its score allows; None where the score does not tell.
        high: the most.
    """
    tokens = known(run.val_tokens)
    if tokens is None:
        return None
    processes = known(run.world_size) or MOST_PROCESSES
    return TextSize(tokens, tokens * (low or 0.0), tokens * (high or MOST_BYTES_PER_TOKEN), processes)
