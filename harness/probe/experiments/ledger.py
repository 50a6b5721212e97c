"""The ledger: the order of scores and updates, and which tokens the reported score counts.

The tracer tells, for each pass of counted scores, how many tokens were scored with weights that had learned from them,
and which tokens are missing or counted twice. The pass that the script reports is the one whose mean is the loss that
the script prints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from harness.probe.session import MiniatureRun

RUN: Final = "ledger"
# The tracer may not place a window of one token; sums are made in other precisions.
SAME_LOSS: Final = 2e-4
RANGES_LIMIT: Final = 40
BOUND, UNBOUND, NOTHING = "bound", "unbound", "nothing"


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the traced run shows of the reported pass.

    Attributes:
        result: `bound` when a pass has the printed loss, `unbound` when none has, `nothing` when no score was followed.
        reason: why, as a clause.
        where: the line that adds the scores up.
        count: tokens counted.
        learned_before: tokens that were scored with weights that had learned from them.
        learned: ranges of these tokens, some of them.
        missing: ranges of tokens that were not counted.
        doubled: ranges of tokens that were counted more than once.
        tokens: tokens of the validation text that can be predicted.
        passes: all passes that were followed.
    """

    result: str
    reason: str
    where: str = ""
    count: int = 0
    learned_before: int = 0
    learned: tuple[tuple[int, int], ...] = ()
    missing: tuple[tuple[int, int], ...] = ()
    doubled: tuple[tuple[int, int], ...] = ()
    tokens: int = 0
    passes: int = 0


def judge(run: MiniatureRun, val_tokens: int) -> Ledger:
    """Find the reported pass of a traced run.

    Args:
        run: the traced run.
        val_tokens: tokens of its validation text.
    """
    passes = [event for event in run.of("pass") if isinstance(event.get("mean"), (int, float))]
    if run.val_loss is None:
        return Ledger(UNBOUND, "the traced run printed no loss to find its scores by", passes=len(passes))
    if not passes:
        return Ledger(NOTHING, "no score of the traced run could be followed")
    loss = run.val_loss
    nearest = min(passes, key=lambda event: abs(event["mean"] - loss))
    apart = abs(nearest["mean"] - loss) / max(abs(loss), 1e-9)
    if apart > SAME_LOSS:
        reason = f"the printed loss of {loss:.6f} is the mean of none of {len(passes)} passes that were followed"
        return Ledger(UNBOUND, reason, passes=len(passes))
    return Ledger(
        BOUND,
        f"the printed loss of {loss:.6f} is the mean of the scores added up at {_text(nearest.get('where'))}",
        where=_text(nearest.get("where")),
        count=_count(nearest.get("count")),
        learned_before=_count(nearest.get("learned_before")),
        learned=_learned(run, nearest),
        missing=_ranges(nearest.get("missing")),
        doubled=_ranges(nearest.get("doubled")),
        tokens=max(val_tokens - 1, 0),
        passes=len(passes),
    )


def _learned(run: MiniatureRun, chosen: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """Some of the tokens that had been learned before they were scored."""
    found: list[tuple[int, int]] = []
    for event in run.of("score"):
        if event.get("pass") == chosen.get("pass"):
            found += _ranges(event.get("learned"))
        if len(found) >= RANGES_LIMIT:
            break
    return tuple(found[:RANGES_LIMIT])


def _ranges(value: object) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    pairs = [pair for pair in value if isinstance(pair, Sequence) and len(pair) == 2]
    whole = [(pair[0], pair[1]) for pair in pairs if all(type(end) is int and end >= 0 for end in pair)]
    return tuple(whole[:RANGES_LIMIT])


def _count(value: object) -> int:
    return value if type(value) is int and value >= 0 else 0


def _text(value: object) -> str:
    return str(value or "")[:200]
