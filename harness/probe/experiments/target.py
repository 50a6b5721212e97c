"""Self flip: the distribution at a place does not change with the token that stands there (C1, C2).

Where the score is looked up in a row of logits, log-probabilities or probabilities, the row itself is compared. A row
that is the same for two tokens, and of which the score is the softmax, is a distribution that was there before the
token: independence and the sum of one then hold by construction, at that place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from harness.probe.experiments.scores import Unit, View

SAME, DIFFERS, ROUNDING, UNSEEN = "same", "differs", "rounding", "unseen"
CLEAR_NATS: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Row:
    """What became of the row at one place.

    Attributes:
        result: `same`, `differs`, `rounding`, or `unseen` where the score is not looked up in a row.
        straight: whether the score is the softmax of that row, before and after.
        effect: the largest difference of log-probabilities in it, in nats.
        total: what the row adds up to, where the score is the target's entry as it stands, before and after; else 0.
    """

    result: str
    straight: bool = False
    effect: float = 0.0
    total: float = 0.0


def compare(base: tuple[View, Sequence[Unit]], variant: tuple[View, Sequence[Unit]], place: int) -> Row:
    """Compare the row at a place in two copies.

    Args:
        base: what the unchanged process told, and its reported scores.
        variant: the same of the copy.
        place: where the token was changed.
    """
    mine, others = _unit(base[1], place), _unit(variant[1], place)
    if mine is None or others is None or mine.at != others.at:
        return Row(UNSEEN)
    pairs = list(zip(_rows(base[0], place, mine.at), _rows(variant[0], place, mine.at), strict=False))
    if not pairs or len(_rows(base[0], place, mine.at)) != len(_rows(variant[0], place, mine.at)):
        return Row(UNSEEN)
    straight = mine.straight and others.straight
    if (mine.loose or others.loose) and not all(_entry(one, mine) and _entry(other, others) for one, other in pairs):
        return Row(UNSEEN)
    if all(first["crc"] == second["crc"] for first, second in pairs):
        # Of windows that overlap one is the place's own; a row of the best of several stands beside these.
        entries = [first for first, second in pairs if _entry(first, mine) and _entry(second, others)]
        best = [first for first in entries if "best_of" in first] or entries
        return Row(SAME, straight, total=float(best[0]["total"]) if best else 0.0)
    logs = [each for first, second in pairs for each in zip(first["logs"], second["logs"], strict=False)]
    effect = max((abs(one - other) for one, other in logs if _finite(one) and _finite(other)), default=0.0)
    return Row(DIFFERS if effect > CLEAR_NATS else ROUNDING, straight, effect)


def _unit(units: Sequence[Unit], place: int) -> Unit | None:
    found = [unit for unit in units if unit.places == (place,)]
    return found[0] if len(found) == 1 else None


def _rows(view: View, place: int, at: int) -> list[Mapping[str, Any]]:
    found = [row for row in view.of("row") if row.get("position") == place and row.get("at") == at]
    return [row for row in found if isinstance(row.get("logs"), list)]


def _entry(row: Mapping[str, Any], unit: Unit) -> bool:
    """Whether a score is the row's entry as it stands."""
    nats, total = row.get("nats"), row.get("total")
    return _finite(nats) and _finite(total) and abs(float(nats or 0.0) - unit.nats) <= CLEAR_NATS


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and abs(value) < 1e30
