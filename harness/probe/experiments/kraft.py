"""Kraft sum: the probabilities of all tokens at one place add up to one (C2).

Every token of the vocabulary is put at the place, each in a copy of the process that ends when its score counts. The
sum of exp(-nats) over all of them is at most 1; a partial sum above it proves that it is not, and ends the
experiment. It costs a copy for each token, and is made only where the score is no softmax of a row that is there
before the target. Tokens that followed the same context before come first: a cache holds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from harness.probe.experiments.scores import PASS, Bound, Unit
from harness.probe.experiments.variants import Variant
from harness.probe.phrased import Phrased
from harness.probe.session import MiniatureRun

RUN: Final = "sums"
SUM: Final = "sum"
# What 32-bit floats leave between a sum of one and one.
TOLERANCE: Final = 1e-4
# The same for scores of 16 bits, and for differences of an account in 32.
COARSE: Final = 1e-2
# Tokens without a score whose probability may be missing.
FEW: Final = 4
PLACES: Final = 2
ONE, MORE, LESS, UNCLEAR = "one", "more", "less", "unclear"
# The share of the scores among which places are chosen: early ones cost less.
EARLY: Final = 0.35


@dataclass(frozen=True, slots=True)
class Kraft:
    """What the sums say.

    Attributes:
        result: `one`, `more`, `less` or `unclear`.
        reason: why, as a clause.
        total: the sum that decides; 0 where none was made.
        count: tokens in it.
        position: its place; -1 where none was made.

    A target may be looked up several times, and some of it long before its score: so every copy begins where the
    artifact is read. What a script computed from its targets before that stays that of the old one.
    """

    result: str
    reason: str
    total: float = 0.0
    count: int = 0
    position: int = -1


def places(units: Sequence[Unit], text: Phrased) -> list[Unit]:
    """Scores whose vocabulary is enumerated: early ones, one at least where a cache of what came before hits."""
    single = [unit for unit in units if len(unit.places) == 1 and not unit.straight]
    early = single[: max(int(EARLY * len(single)), 1)]
    known = set(text.hits)
    hit = [unit for unit in single if unit.places[0] in known]
    hits = [unit for unit in hit if unit in early] or hit[:1]
    chosen = hits[len(hits) // 2 :][:1] + early[len(early) // 2 :][:1] if hits else early[len(early) // 2 :][:1]
    return list(dict.fromkeys(chosen))[:PLACES]


def variant(unit: Unit, bound: Bound, text: Phrased, seconds: float) -> Variant:
    """What the child is told for one sum."""
    place, key = unit.places[0], bound.keys[-1]
    growth, piece, pieces = unit.step or (-1, 0, 1)
    told = {
        "place": place,
        "at": unit.at,
        "account": None if bound.by == PASS or isinstance(key, int) else list(key),
        "growth": growth,
        "piece": piece,
        "pieces": pieces,
        "tokens": _tokens(text, place),
        "stop": 1 + TOLERANCE,
        "coarse_stop": 1 + COARSE,
        "limit": seconds,
    }
    return Variant(f"{SUM}-{place}", SUM, place, {"sum": told})


def judge(run: MiniatureRun, units: Sequence[Unit], text: Phrased) -> Kraft:
    """Judge the sums of a run.

    Args:
        run: the run.
        units: the scores that were enumerated, as they were in the run before.
        text: the validation text.
    """
    found = [_one(event, units, text) for event in run.of(SUM)]
    for wanted in (MORE, LESS, ONE):
        chosen = [each for each in found if each.result == wanted]
        if chosen and (wanted != ONE or len(chosen) == len(found)):
            return max(chosen, key=lambda each: abs(each.total - 1))
    return found[0] if found else Kraft(UNCLEAR, "no sum over the vocabulary came to its end")


def _one(event: Mapping[str, Any], units: Sequence[Unit], text: Phrased) -> Kraft:
    place, total, count = event.get("place"), event.get("total"), event.get("count")
    first = event.get("first") or [[None, None]]
    mine = next((unit for unit in units if unit.places == (place,)), None)
    if mine is None or not isinstance(total, (int, float)) or type(count) is not int:
        return Kraft(UNCLEAR, "the sum over the vocabulary could not be read")
    made = (float(total), count, mine.places[0])
    if first[0][0] != int(text.tokens[mine.places[0]]) or abs(first[0][1] - mine.nats) > TOLERANCE:
        return Kraft(UNCLEAR, f"the score of position {place} is another when it is made again", *made)
    tolerance = COARSE if event.get("coarse") is True else TOLERANCE
    missing = text.vocabulary - count
    if total > 1 + tolerance:
        told = f"the probabilities of {count:,} of {text.vocabulary:,} tokens add up to {total:.6g}"
        return Kraft(MORE, told, *made)
    if missing > FEW:
        told = f"the probabilities of {count:,} of {text.vocabulary:,} tokens that were tried add up to {total:.6g}"
        return Kraft(UNCLEAR, told, *made)
    if total < 1 - tolerance:
        told = f"the probabilities of {count:,} of {text.vocabulary:,} tokens add up to {total:.6g}"
        return Kraft(UNCLEAR if missing else LESS, told, *made)
    return Kraft(ONE, f"the probabilities of all tokens add up to {total:.6f}", *made)


def _tokens(text: Phrased, place: int) -> list[int]:
    """The token itself, those that followed its context before, and the rest in seeded order."""
    tokens = [int(token) for token in text.tokens]
    followed = [tokens[here] for here in range(1, place) if tokens[here - 1] == tokens[place - 1]]
    rest = np.random.default_rng(place).permutation(text.vocabulary)
    return list(dict.fromkeys([tokens[place], *followed, *(int(token) for token in rest)]))
