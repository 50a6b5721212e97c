"""Suffix flip: what was scored already does not change when later tokens do (C1, C3, C4).

All tokens from a place on are changed, but for the beginnings of documents. Scripts that sort documents, or that adapt
to what they have scored, may let an earlier place depend on a later one that was scored before it. So the order of the
scores counts, not that of the text: places before the flip whose score was computed no later than the first score of a
changed token must keep theirs. The same holds where a single token changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from harness.probe.experiments.scores import Unit

# Differences up to here may be rounding.
CLEAR_NATS: Final = 1e-4
PLACES_LIMIT: Final = 40


@dataclass(frozen=True, slots=True)
class Change:
    """What one flip changed.

    Attributes:
        exercised: whether a changed token was scored at all.
        compared: places that had to keep their score.
        changed: those that did not, some of them.
        effect: the largest difference among them, in nats.
        farthest: how many tokens behind the flip the last score is that changed; 0 for none.
    """

    exercised: bool
    compared: int = 0
    changed: tuple[int, ...] = ()
    effect: float = 0.0
    farthest: int = 0


def compare(base: Sequence[Unit], variant: Sequence[Unit], place: int, *, single: bool) -> Change:
    """Compare the scores of two copies.

    Args:
        base: of the text as it was.
        variant: of the changed text.
        place: the first place that changed.
        single: whether it is the only one.
    """
    known = {(unit.places, unit.at): unit.nats for unit in base}
    scored = [unit.at for unit in variant if any(each == place if single else each >= place for each in unit.places)]
    if not scored:
        return Change(exercised=False)
    first = min(scored)
    compared, effect, farthest = 0, 0.0, 0
    changed: list[int] = []
    for unit in variant:
        before = known.get((unit.places, unit.at))
        if before is None:
            continue
        apart = abs(unit.nats - before)
        if max(unit.places) < place:
            if unit.at <= first:
                compared += len(unit.places)
                effect = max(effect, apart)
                changed += unit.places if apart > 0 else ()
        elif apart > CLEAR_NATS:
            farthest = max(farthest, max(unit.places) - place)
    some = tuple(changed[:PLACES_LIMIT])
    return Change(exercised=True, compared=compared, changed=some, effect=effect, farthest=farthest)
