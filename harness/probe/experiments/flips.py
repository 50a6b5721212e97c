"""Flips: the script's own evaluation, forked from one trained state, on texts that differ in known tokens.

One module judges each question: `suffix` whether earlier scores change, `target` whether the distribution at a place
does, `artifact` whether the score comes from the artifact. Here their answers are put together. A copy that changes
nothing has to give the scores of the process itself, else nothing is said.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from harness.probe.experiments import artifact, kraft, scores, suffix, target
from harness.probe.experiments.kraft import Kraft
from harness.probe.experiments.scores import BASE, Bound, Key, Unit, View
from harness.probe.experiments.suffix import CLEAR_NATS, PLACES_LIMIT
from harness.probe.experiments.variants import DOCUMENT, NOTHING, SELF, SUFFIX, Variant
from harness.probe.session import MiniatureRun

SAME, DEPENDS, UNCLEAR = "same", "depends", "unclear"
BOUND, UNBOUND = "bound", "unbound"
NARROW_BITS: Final = 16
# What rounding to 16 bits may make of a sum of one: it moves each nat by a 256th, or the sum by a 256th of the entropy.
ROUNDED_TOTAL: Final = 1.1
# Differences up to here may be rounding where products are made in 16 bits: later tokens change the shapes in which
# experts, or rows that are packed together, are computed.
NARROW_NATS: Final = 0.1
# Of the scores that are compared, at most so many are few.
FEW_SHARE: Final = 0.25
FLIPS: Final = frozenset({SUFFIX, SELF, DOCUMENT})


@dataclass(frozen=True, slots=True)
class Judged:
    """The answer to one question.

    Attributes:
        result: `same`, `depends` or `unclear`.
        reason: why, as a clause.
        effect: the largest difference, in nats.
        positions: places in question, some of them.
    """

    result: str
    reason: str
    effect: float = 0.0
    positions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Test:
    """What one copy showed.

    Attributes:
        name: of the variant.
        kind: what was changed.
        position: the first token that was; -1 for none.
        exercised: whether a changed token was scored.
        compared: places that had to keep their score.
        changed: those that did not, some of them.
        effect: the largest difference among them, in nats.
        row: what became of the distribution at the position: `same`, `differs`, `rounding` or `unseen`.
        straight: whether the score is the softmax of that row.
        row_effect: the largest difference in it, in nats.
        row_total: what the row adds up to where the score is its entry as it stands; else 0.
        farthest: tokens between the position and the last score that changed.
    """

    name: str
    kind: str
    position: int
    exercised: bool
    compared: int = 0
    changed: tuple[int, ...] = ()
    effect: float = 0.0
    row: str = target.UNSEEN
    straight: bool = False
    row_effect: float = 0.0
    row_total: float = 0.0
    farthest: int = 0


@dataclass(frozen=True, slots=True)
class Flips:
    """What the run that forks shows.

    Attributes:
        result: `bound` when the reported scores were found, else `unbound`.
        reason: why.
        where: the line or the variable that adds the scores up.
        count: scores in it.
        straight: those that are the softmax of one row.
        later: whether scores depend on later tokens.
        target: whether distributions depend on their target.
        artifact: whether the score comes from the artifact.
        tests: what each copy showed.
        sum: whether the probabilities of the vocabulary add up to one.
        bound: where the reported scores are; None where they were not found.
        units: the reported scores.
    """

    result: str
    reason: str
    where: str = ""
    count: int = 0
    straight: int = 0
    later: Judged = field(default_factory=lambda: Judged(UNCLEAR, ""))
    target: Judged = field(default_factory=lambda: Judged(UNCLEAR, ""))
    artifact: Judged = field(default_factory=lambda: Judged(UNCLEAR, ""))
    tests: tuple[Test, ...] = ()
    sum: Kraft = field(default_factory=lambda: Kraft(kraft.UNCLEAR, ""))
    bound: Bound | None = None
    units: tuple[Unit, ...] = ()


def nothing(reason: str) -> Flips:
    """No answer to any question, and why."""
    unclear = Judged(UNCLEAR, reason)
    return Flips(UNBOUND, reason, later=unclear, target=unclear, artifact=unclear, sum=Kraft(kraft.UNCLEAR, reason))


def needs_sum(found: Flips) -> bool:
    """Whether the sum over the vocabulary has to be made: it does not hold by construction."""
    exercised = any(test.exercised for test in found.tests)
    # At another step than the place's, the same chance would be added up for every token.
    placed = found.later.result == SAME or not any(unit.loose for unit in found.units)
    unclear = found.sum.result == kraft.UNCLEAR and found.target.result != DEPENDS
    return unclear and exercised and placed and found.bound is not None


def judge(run: MiniatureRun, variants: Sequence[Variant], tokens: int) -> Flips:
    """Judge a run that forked.

    Args:
        run: the run.
        variants: what it was told.
        tokens: of the validation text that can be predicted.
    """
    if not run.of("forks"):
        return nothing("the run ended before it opened its artifact, or never did")
    seen = scores.views(run)
    kept = Judged(*artifact.judge(run))
    bound = scores.bind(seen[BASE], run.printed.loss, tokens)
    if isinstance(bound, str):
        return dataclasses.replace(nothing(bound), artifact=kept)
    found = [_of(seen, variants, (bound, key, tokens), kept) for key in bound.keys]
    first = found[-1]
    # Several passes may have about the reported loss: they have to say the same.
    if any((each.later.result, each.target.result) != (first.later.result, first.target.result) for each in found):
        return nothing("several passes have about the reported loss, and they differ in what they depend on")
    return first


def _of(seen: Mapping[str, View], variants: Sequence[Variant], which: tuple[Bound, Key, int], kept: Judged) -> Flips:
    """The answers for one pass or account."""
    bound = which[0]
    base = seen[BASE].units(*which)
    again = seen[NOTHING].units(*which) if NOTHING in seen else []
    count, straight = sum(len(unit.places) for unit in base), sum(unit.straight for unit in base)
    if not base or base != again:
        late = any(each.get("name") == NOTHING and each.get("ended") != "exit" for each in seen[BASE].of("variant"))
        reason = "a copy of the process that changes nothing gives other scores"
        reason = "no copy came to its end in the time that it had" if late or not again else reason
        reason = reason if base else "the reported scores could not be matched to places"
        return dataclasses.replace(nothing(reason), result=BOUND, where=bound.where, count=count, artifact=kept)
    tests = [
        _test(each, (seen[BASE], base), (seen[each.name], seen[each.name].units(*which)))
        for each in variants
        if each.kind in FLIPS and each.name in seen
    ]
    narrow = bool(seen[BASE].of("precision"))
    later, aim = _later(tests, narrow=narrow), _target(tests, narrow=narrow)
    if later.result == DEPENDS and any(unit.loose for unit in base):
        later = Judged(UNCLEAR, "the scores were matched to places by their order alone, and more of them change")
    total = _sum(tests, aim, count, straight, _narrow_rows(seen[BASE]))
    return Flips(
        BOUND, bound.reason, bound.where, count, straight, later, aim, kept, tuple(tests), total, bound, tuple(base)
    )


def _narrow_rows(view: View) -> dict[int, int]:
    """Tokens of the rows whose numbers have 16 bits, by position."""
    return {event["position"]: event["width"] for event in view.of("row") if event.get("bits") == NARROW_BITS}


def _sum(tests: Sequence[Test], aim: Judged, count: int, straight: int, narrow: Mapping[int, int]) -> Kraft:
    """What is known of the sum without making it."""
    if aim.result == SAME and straight == count:
        reason = f"each of {count:,} scores is the softmax of its row, and at {len(aim.positions)} positions the row"
        return Kraft(kraft.ONE, f"{reason} stays when its target changes: normalized by construction")
    more = [test for test in tests if test.row_total > 1 + kraft.COARSE]
    if more and aim.result != DEPENDS:
        worst = max(more, key=lambda test: test.row_total)
        reason = "the score is the entry of a row, or the best of several, that is the same whatever the target is, and"
        told, coarse = f"{reason} adds up to {worst.row_total:.6g}", 0
        if worst.row_total <= ROUNDED_TOTAL and worst.position in narrow:
            # It warns, as a sum of copies does.
            told, coarse = f"{told}, in numbers of 16 bits", narrow[worst.position]
        return Kraft(kraft.MORE, told, worst.row_total, coarse, worst.position)
    if aim.result == DEPENDS:
        return Kraft(kraft.UNCLEAR, "the distribution depends on its target, so that there is none to add up")
    return Kraft(kraft.UNCLEAR, "it was not made")


def _test(variant: Variant, base: tuple[View, list[Unit]], copy: tuple[View, list[Unit]]) -> Test:
    single = variant.kind != SUFFIX
    change = suffix.compare(base[1], copy[1], variant.place, single=single)
    row = target.Row(target.UNSEEN)
    # With more tokens changed than one, those scored before the place may count in it.
    first = min((unit.at for unit in copy[1] if max(unit.places) >= variant.place), default=-1)
    if single or any(unit.at == first for unit in copy[1] if unit.places == (variant.place,)):
        row = target.compare(base, copy, variant.place)
    return Test(
        variant.name,
        variant.kind,
        variant.place,
        change.exercised,
        change.compared,
        change.changed,
        change.effect,
        row.result,
        row.straight,
        row.effect,
        row.total,
        change.farthest,
    )


def _later(tests: Sequence[Test], *, narrow: bool) -> Judged:
    """Whether a score depends on tokens behind it."""
    made = [each for each in tests if each.exercised and each.compared]
    if not made:
        return Judged(UNCLEAR, "no changed token was scored")
    worst = max(made, key=lambda each: each.effect)
    compared = sum(each.compared for each in made)
    if worst.effect > (NARROW_NATS if narrow and not _agree(made) else CLEAR_NATS):
        reason = f"with {_told(worst)}, scores before it change by up to {worst.effect:.4g} nats"
        return Judged(DEPENDS, reason, worst.effect, worst.changed)
    if worst.effect > 0:
        told = "in 16 bits may be rounding" if worst.effect > CLEAR_NATS else "may be rounding"
        return Judged(UNCLEAR, f"scores differ by up to {worst.effect:.2g} nats, which {told}", worst.effect)
    return Judged(SAME, f"{compared:,} scores before {len(made)} changes of later tokens are the same")


def _agree(tests: Sequence[Test]) -> bool:
    """Whether several flips change the same few scores, in the text or as seen from the flip: no rounding does."""
    few = [each for each in tests if each.effect > CLEAR_NATS and len(each.changed) <= each.compared * FEW_SHARE]
    few = [each for each in few if len(each.changed) < PLACES_LIMIT]
    places = [each.changed for each in few]
    steps = [tuple(place - each.position for place in each.changed) for each in few]
    return any(len(set(found)) < len(found) for found in (places, steps))


def _target(tests: Sequence[Test], *, narrow: bool) -> Judged:
    """Whether a distribution depends on the token that stands at its place."""
    made = [each for each in tests if each.exercised and each.row != target.UNSEEN]
    apart = [each for each in made if each.row == target.DIFFERS]
    # Where no score before it changes, there is no rounding that a place could have changed by.
    alone = [each for each in apart if each.compared and not each.effect]
    if narrow and len(alone) < 2 and max((each.row_effect for each in apart), default=NARROW_NATS) < NARROW_NATS:
        return Judged(UNCLEAR, "the distributions differ by what in 16 bits may be rounding")
    if apart:
        worst = max(apart, key=lambda each: each.row_effect)
        reason = f"with {_told(worst)}, the distribution at that position changes by up to {worst.row_effect:.4g} nats"
        return Judged(DEPENDS, reason, worst.row_effect, tuple(each.position for each in apart[:PLACES_LIMIT]))
    if not made:
        return Judged(UNCLEAR, "no score at a changed position is looked up in a row that was seen")
    if any(each.row == target.ROUNDING for each in made):
        return Judged(UNCLEAR, "the distributions differ by what may be rounding")
    loose = [each for each in made if not each.straight]
    if loose:
        return Judged(UNCLEAR, "the rows do not depend on the target, and the scores are made of more than these rows")
    places = tuple(each.position for each in made)
    return Judged(SAME, f"at {len(made)} positions the score is the softmax of a row that is the same", 0.0, places)


def _told(test: Test) -> str:
    what = {SUFFIX: "all tokens changed from", SELF: "one token changed at", DOCUMENT: "one token changed at"}
    return f"{what[test.kind]} position {test.position}"
