"""The experiments on copies of the trained process, judged on events of our own making."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from harness.probe.experiments import artifact, flips, ledger, scores, suffix, target
from harness.probe.experiments.ledger import Ledger
from harness.probe.experiments.scores import BASE, Bound, Unit, View
from harness.probe.printed import Printed
from harness.probe.session import MiniatureRun
from tests.proberuns import CHOSEN, account, computed, copies, ran, row, score, whole

PRINTED = "final_int8_zlib_roundtrip_exact val_loss:{:.8f} val_bpb:1.20000000\n"


def units(*nats: float, at: int = 1, first: int = 1) -> list[Unit]:
    return [Unit(at, (first + index,), value, straight=True) for index, value in enumerate(nats)]


def test_scores_of_the_pass_with_the_printed_loss() -> None:
    events = [
        score(1, 1, [1.5, 2.5]),
        score(2, 3, [1.0, 3.0], apart=[[4, 5]]),
        score(3, 1, [9.0], **{"pass": 1}),
        whole(),
        whole(9.0, 1),
    ]
    view = scores.views(ran(*events))[BASE]
    bound = scores.bind(view, 2.0, 4)
    assert isinstance(bound, Bound)
    assert (bound.by, bound.keys, bound.where) == ("pass", (0,), "a.py:3 evaluate")
    found = view.units(bound, 0, 4)
    assert [(unit.at, unit.places, unit.nats, unit.straight) for unit in found] == [
        (1, (1,), 1.5, True),
        (1, (2,), 2.5, True),
        (2, (3,), 1.0, True),
        (2, (4,), 3.0, False),
    ]
    chosen = scores.views(ran(score(1, 1, [2.0], how=["minimum"]), whole()))[BASE]
    assert not chosen.units(bound, 0, 4)[0].straight
    assert "neither the mean of a pass" in str(scores.bind(view, 5.0, 4))
    assert "printed no loss" in str(scores.bind(view, None, 4))


def test_an_account_of_the_script_s_own_takes_the_place_of_a_pass() -> None:
    sources = computed([7, [[1, 3]]], [8, [[2, 5]]], [9, [[1, 5]]])
    events = [sources, account(1.0, 3.0, 1.5, 2.5, after=[1, 1, 2, 2]), account(1, 1, after=[1, 2], name="other")]
    view = scores.views(ran(*events))[BASE]
    bound = scores.bind(view, 2.0, 4)
    assert isinstance(bound, Bound)
    assert (bound.by, bound.where) == ("account", "variable nats of evaluate")
    found = view.units(bound, bound.keys[0], 4)
    # The window of the second computation begins with what the first has scored.
    assert [(unit.at, unit.places, unit.nats) for unit in found] == [
        (7, (1,), 1.0),
        (7, (2,), 3.0),
        (8, (3,), 1.5),
        (8, (4,), 2.5),
    ]
    together = scores.views(ran(sources, account(-4.0, -4.0, after=[1, 2])))[BASE]
    assert [unit.places for unit in together.units(bound, bound.keys[0], 4)] == [(1, 2), (3, 4)]
    unlike = scores.views(ran(sources, account(1, 2, 3, 2, after=[1, 1, 1, 2])))[BASE]
    assert [unit.places for unit in unlike.units(bound, bound.keys[0], 4)] == [(3, 4)]
    assert View().units(bound, bound.keys[0], 4) == []


def test_steps_out_of_one_array_are_matched_one_by_one_or_stay_together() -> None:
    sources = computed([7, [[1, 5]]], [8, [[3, 7]]])
    several = account(1.0, 3.0, 1.5, 2.5, 4.0, 2.0, after=[1, 1, 1, 1, 2, 2]) | {"pieces": [[0, 2], [2, 4], [4, 6]]}
    key = ("evaluate", "nats")
    bound = Bound("account", (key,), "", "")
    found = scores.views(ran(sources, several))[BASE].units(bound, key, 6)
    assert [(unit.at, unit.places, unit.nats, unit.step) for unit in found] == [
        (7, (1,), 1.0, (0, 0, 2)),
        (7, (2,), 3.0, (0, 1, 2)),
        (7, (3,), 1.5, (1, 0, 2)),
        (7, (4,), 2.5, (1, 1, 2)),
        (8, (5,), 4.0, (2, 0, 2)),
        (8, (6,), 2.0, (2, 1, 2)),
    ]
    # An array may have them in another order than the text.
    assert all(unit.loose for unit in found)
    # Three numbers for the two places that are new, out of one array: their sum is the score of both.
    padded = account(1.0, 3.0, 1.5, 2.5, 4.0, 2.0, 0.0, after=[1] * 4 + [2] * 3) | {"pieces": [[0, 4], [4, 7]]}
    found = scores.views(ran(sources, padded))[BASE].units(bound, key, 6)
    assert [(unit.places, unit.nats) for unit in found][4:] == [((5, 6), 6.0)]
    apart = account(1.0, 3.0, 1.5, 2.5, 4.0, 2.0, 0.0, after=[1] * 4 + [2] * 3) | {"pieces": [[4, 6]]}
    assert [unit.places for unit in scores.views(ran(sources, apart))[BASE].units(bound, key, 6)][4:] == []


def accounted(*events: Any, loss: float = 2.0, tokens: int = 4) -> Ledger | None:
    """The ledger of a run whose scores are an account."""
    made = MiniatureRun(ran(*events).outcome, tuple(events), Printed(2.5, loss))
    view = scores.views(made)[BASE]
    bound = scores.bind(view, loss, tokens)
    assert isinstance(bound, Bound)
    units = tuple(view.units(bound, bound.keys[-1], tokens))
    return ledger.of_account(made, dataclasses.replace(flips.nothing(""), bound=bound, units=units), tokens + 1)


def test_an_account_tells_the_order_of_scores_and_updates_too() -> None:
    steps = account(1.0, 3.0, 1.5, 2.5, after=[1, 1, 2, 2])
    found = accounted(computed([7, [[1, 3]]], [8, [[1, 5]]], learned={8: [[1, 4]]}), steps)
    assert found is not None
    assert (found.result, found.count, found.tokens, found.missing, found.doubled) == ("bound", 4, 4, (), ())
    # The first two were scored before; only the third had been learned when its score was made.
    assert (found.learned_before, found.learned) == (1, ((3, 4),))
    assert "variable nats of evaluate, on the text whose phrases repeat" in found.reason
    clean = accounted(computed([7, [[1, 3]]], [8, [[1, 5]]], learned={8: [[1, 3]]}), steps)
    assert clean is not None
    assert clean.learned_before == 0


def test_places_that_are_counted_at_once_may_have_been_scored_before() -> None:
    steps = account(4.0, 4.0, after=[2, 4])
    sources = computed([5, [[1, 2]]], [6, [[2, 3]]], [7, [[3, 4]]], [8, [[4, 5]]], learned={6: [[1, 2]], 8: [[3, 5]]})
    found = accounted(sources, steps)
    assert found is not None
    assert (found.learned_before, found.learned) == (1, ((4, 5),))


def test_an_account_with_steps_of_no_place_tells_nothing() -> None:
    sources = computed([7, [[1, 3]]], [8, [[1, 4]]])
    assert accounted(sources, account(1.0, 3.0, 1.5, 2.5, after=[1, 1, 2, 2])) is None
    assert ledger.of_account(ran(), flips.nothing("not made"), 5) is None
    # Steps in the order of the text, without any loss that was seen.
    assert accounted(computed(), account(1.0, 3.0, 1.5, 2.5, after=[0, 0, 0, 0])) is None


def test_damaged_pieces_are_read() -> None:
    sources = computed([7, [[1, 5]]])
    key = ("evaluate", "nats")
    for pieces in ([[3, 1]], [[0, 4], [1, 3]], [[2, 3]], [[3, 4]]):
        view = scores.views(ran(sources, account(1.0, 3.0, 1.5, 2.5, after=[1] * 4) | {"pieces": pieces}))[BASE]
        found = view.units(Bound("account", (key,), "", ""), key, 6)
        assert [unit.places for unit in found] == [(1,), (2,), (3,), (4,)]


def test_losses_of_evaluations_before_it_are_no_account_s() -> None:
    before = [[3, [[1, 3]]], [4, [[3, 5]]], [5, [[1, 5]]]]
    key = ("evaluate", "nats")
    bound = Bound("account", (key,), "", "")
    sources = computed(*before, [7, [[1, 4]]], [8, [[4, 5]]])
    view = scores.views(ran(sources, account(1.0, 3.0, 1.5, 2.5, after=[4, 4, 4, 5])))[BASE]
    found = view.units(bound, key, 4)
    assert [(unit.at, unit.places) for unit in found] == [(7, (1,)), (7, (2,)), (7, (3,)), (8, (4,))]
    # Two computations for each step, of which there are as many before the first one.
    sources = computed(*before, [7, [[1, 2]]], [8, [[2, 3]]], [9, [[3, 4]]], [10, [[4, 5]]])
    view = scores.views(ran(sources, account(4.0, 4.0, after=[5, 7])))[BASE]
    assert [unit.places for unit in view.units(bound, key, 4)] == [(1, 2), (3, 4)]
    # What fits none of the last ones does not take the places of all.
    sources = computed(*before, [7, [[1, 4]]], [8, [[4, 7]]])
    view = scores.views(ran(sources, account(1.0, 3.0, 1.5, 2.5, 2.0, after=[4, 4, 5, 5, 5])))[BASE]
    assert [unit.places for unit in view.units(bound, key, 6)] == [(4,), (5,), (6,)]


def test_steps_are_in_the_order_of_the_losses_not_of_the_text() -> None:
    # The longer document comes first, as when documents are sorted.
    sources = computed([7, [[3, 6], [1, 3]]])
    view = scores.views(ran(sources, account(1.0, 3.0, 1.5, 2.5, 2.0, after=[1] * 5)))[BASE]
    found = view.units(Bound("account", (("evaluate", "nats"),), "", ""), ("evaluate", "nats"), 5)
    assert [(unit.places, unit.nats) for unit in found] == [
        ((3,), 1.0),
        ((4,), 3.0),
        ((5,), 1.5),
        ((1,), 2.5),
        ((2,), 2.0),
    ]
    assert all(unit.loose for unit in found)


def test_no_sum_is_made_where_steps_may_belong_to_other_places() -> None:
    same = flips.Judged(flips.SAME, "")
    test = flips.Test("self-2", "self", 2, exercised=True)
    loose = (Unit(1, (1,), 2.0, step=(0, 0, 1), loose=True),)
    found = dataclasses.replace(
        flips.nothing("not made"), bound=Bound("account", (("f", "n"),), "", ""), tests=(test,), units=loose
    )
    assert not flips.needs_sum(found)
    assert flips.needs_sum(dataclasses.replace(found, later=same))
    assert flips.needs_sum(dataclasses.replace(found, units=tuple(units(1.0))))


def test_an_account_with_the_printed_loss_comes_before_a_pass_with_about_that() -> None:
    near = whole(2.0002)
    bound = scores.bind(scores.views(ran(account(1.0, 3.0, 1.5, 2.5, after=[1, 1, 2, 2]), near))[BASE], 2.0, 4)
    assert isinstance(bound, Bound)
    assert bound.by == "account"
    alone = scores.bind(scores.views(ran(near))[BASE], 2.0, 4)
    assert isinstance(alone, str)
    assert "neither the mean of a pass nor an account" in alone
    rounded = scores.bind(scores.views(ran(whole(2.00001)))[BASE], 2.0, 4)
    assert isinstance(rounded, Bound)
    assert rounded.by == "pass"


@pytest.mark.parametrize("damaged", [None, "x", [["a", 2]], [[1]], [3], [[1, 2, 3]]])
def test_damaged_ranges_are_no_places(damaged: object) -> None:
    assert scores.spread(damaged) == []


def test_scores_before_the_flip_must_keep_their_value_if_they_were_made_by_then() -> None:
    base = [*units(1.0, 2.0), *units(3.0, 4.0, at=2, first=3)]
    same = suffix.compare(base, [*units(1.0, 2.0), *units(3.0, 9.0, at=2, first=3)], 4, single=False)
    assert (same.exercised, same.compared, same.effect, same.farthest) == (True, 3, 0.0, 0)
    seen = suffix.compare(base, [*units(1.0, 2.5), *units(3.0, 9.0, at=2, first=3)], 4, single=False)
    assert (seen.compared, seen.effect, seen.changed) == (3, 0.5, (2,))
    # What is scored later than the changed token may have learned from it.
    turned = [*units(1.0, 2.0, at=5), *units(3.0, 4.0, at=2, first=3)]
    learned = [*units(1.7, 2.5, at=5), *units(3.0, 9.0, at=2, first=3)]
    assert suffix.compare(turned, learned, 4, single=False).effect == 0
    assert not suffix.compare(base, base, 9, single=True).exercised
    later = suffix.compare(base, [*units(1.0, 7.0), *units(3.0, 6.0, at=2, first=3)], 2, single=True)
    assert (later.effect, later.farthest) == (0.0, 2)


@pytest.mark.parametrize(
    ("first", "second", "result", "effect"),
    [
        (row("a", [-1.0, -2.0]), row("a", [-1.0, -2.0]), "same", 0.0),
        (row("a", [-1.0, -2.0]), row("b", [-1.0, -2.5]), "differs", 0.5),
        (row("a", [-1.0, None]), row("b", [-1.00001, None]), "rounding", 1e-5),
        (row("a", [-1.0], at=2), row("b", [-2.0]), "unseen", 0.0),
        (row("a", [-1.0], position=3), row("b", [-2.0]), "unseen", 0.0),
    ],
)
def test_rows_of_two_copies(first: dict[str, Any], second: dict[str, Any], result: str, effect: float) -> None:
    mine, other = (scores.views(ran(each))[BASE] for each in (first, second))
    found = target.compare((mine, units(1.0, 2.0)), (other, units(1.0, 3.0)), 2)
    assert found.result == result
    assert found.effect == pytest.approx(effect)
    assert target.compare((mine, units(1.0, 2.0)), (other, units(1.0, 3.0, at=2)), 2).result == "unseen"


def test_windows_that_overlap_hold_several_rows_of_a_place() -> None:
    twice = [scores.views(ran(row("a", [-1.0]), row(key, [value])))[BASE] for key, value in (("b", -2.0), ("c", -2.5))]
    scored = units(1.0, 2.0)
    assert target.compare((twice[0], scored), (twice[0], scored), 2).result == "same"
    assert target.compare((twice[0], scored), (twice[1], scored), 2).effect == pytest.approx(0.5)
    once = scores.views(ran(row("a", [-1.0])))[BASE]
    assert target.compare((twice[0], scored), (once, scored), 2).result == "unseen"


def test_nothing_depends_on_what_it_must_not() -> None:
    found = flips.judge(copies(), CHOSEN, 4)
    assert (found.result, found.count, found.straight) == ("bound", 4, 4)
    assert (found.later.result, found.target.result) == ("same", "same")
    assert [test.name for test in found.tests] == ["suffix-3", "self-2"]
    assert found.tests[0].compared == 2
    assert found.tests[1].farthest == 2


def test_scores_with_about_the_printed_loss_neither_accuse_nor_clear() -> None:
    for before in (1.5, 1.75):
        found = flips.judge(dataclasses.replace(copies(before=before), printed=Printed(1.2, 2.0002)), CHOSEN, 4)
        assert (found.result, found.later.result) == ("unbound", "unclear")
        assert (found.target.result, found.sum.result) == ("unclear", "unclear")
        assert "reported loss of 2.000200 is neither" in found.later.reason
        assert not flips.needs_sum(found)


def test_an_earlier_score_that_changes_is_told_with_its_place_and_effect() -> None:
    found = flips.judge(copies(before=1.75), CHOSEN, 4)
    assert (found.later.result, found.later.effect, found.later.positions) == ("depends", 0.25, (1,))
    assert "all tokens changed from position 3" in found.later.reason
    assert "0.25 nats" in found.later.reason
    assert flips.judge(copies(before=1.50001), CHOSEN, 4).later.result == "unclear"


def test_a_row_that_changes_with_its_target_is_told() -> None:
    found = flips.judge(copies(crc="b", logs=-1.5), CHOSEN, 4)
    assert (found.target.result, found.target.effect, found.target.positions) == ("depends", 0.5, (2,))
    assert flips.judge(copies(crc="b", logs=-1.00001), CHOSEN, 4).target.result == "unclear"


NARROW = {"kind": "precision", "bits": 16}


def test_small_differences_of_16_bits_may_be_rounding() -> None:
    for before, result in ((1.51, "unclear"), (1.75, "depends")):
        made = copies(before=before, crc="b", logs=-1.0 - (before - 1.5))
        assert flips.judge(made, CHOSEN, 4).later.result == "depends"
        found = flips.judge(ran(NARROW, *made.events), CHOSEN, 4)
        assert (found.later.result, found.target.result) == (result, result)
        assert result == "depends" or "in 16 bits may be rounding" in found.later.reason
        assert result == "depends" or "in 16 bits may be rounding" in found.target.reason


def noticed(name: str, position: int, *changed: int, **more: Any) -> flips.Test:
    return flips.Test(name, "self", position, exercised=True, compared=40, changed=changed, **more)


def test_flips_that_agree_are_no_rounding() -> None:
    same = [noticed("a", 50, 7, 8, effect=0.01), noticed("b", 60, 7, 8, effect=0.02)]
    ahead = [noticed("a", 50, 49, effect=0.01), noticed("b", 60, 59, effect=0.02)]
    many = [noticed(name, 50, *range(30), effect=0.01) for name in "ab"]
    apart = [noticed("a", 50, 7, effect=0.01), noticed("b", 60, 8, effect=0.02)]
    for tests, result in ((same, "depends"), (ahead, "depends"), (many, "unclear"), (apart, "unclear")):
        assert flips._later(tests, narrow=True).result == result
        assert flips._later(tests, narrow=False).result == "depends"
    rows = [noticed(name, 50, row="differs", row_effect=0.01) for name in "ab"]
    assert flips._target(rows, narrow=True).result == "depends"
    assert flips._target(rows[:1], narrow=True).result == "unclear"
    assert flips._target(rows[:1], narrow=False).result == "depends"


def test_where_copies_differ_by_themselves_nothing_is_said() -> None:
    found = flips.judge(copies(nothing=2.6, before=9.0), CHOSEN, 4)
    assert (found.later.result, found.target.result) == ("unclear", "unclear")
    assert "changes nothing" in found.later.reason
    late = {"kind": "variant", "name": "nothing", "ended": "time"}
    assert "in the time" in flips.judge(ran(*copies(nothing=2.6).events, late), CHOSEN, 4).later.reason
    assert "several passes" in flips.judge(several(), CHOSEN, 4).reason
    assert flips.judge(ran(whole()), CHOSEN, 4).result == "unbound"
    unbound = flips.judge(ran({"kind": "forks"}, whole(7.0)), CHOSEN, 4)
    assert (unbound.result, unbound.later.result) == ("unbound", "unclear")


def several() -> MiniatureRun:
    """Two passes with about the same mean, one of which looks ahead."""
    made = copies()
    second = [
        {**event, "pass": 1, **({"nll": [9.0, *event["nll"][1:]]} if event.get("variant") == "suffix-3" else {})}
        for event in made.events
        if event["kind"] == "score"
    ]
    passes = [{**event, "pass": 1} for event in made.events if event["kind"] == "pass"]
    return ran(*made.events, *second, *passes)


def test_scores_that_are_made_of_more_than_their_row_are_left_to_the_sum() -> None:
    made = [{**event, "apart": [[2, 3]]} if event["kind"] == "score" else event for event in copies().events]
    found = flips.judge(ran(*made), CHOSEN, 4)
    assert found.target.result == "unclear"
    assert "made of more than these rows" in found.target.reason


def ended(name: str, loss: float | None, status: int = 0, how: str = "exit") -> dict[str, Any]:
    printed = "" if loss is None else PRINTED.format(loss)
    return {"kind": "variant", "name": name, "ended": how, "status": status, "printed": printed}


NOISE = {"kind": "noise", "tensors": 12, "stepped": 12}
GONE = {"kind": "noise", "tensors": 0, "stepped": 12}
UNSTEPPED = {"kind": "noise", "tensors": 0, "stepped": 0}


@pytest.mark.parametrize(
    ("events", "result", "words"),
    [
        ((ended("damaged", None, 1), ended("noise", 2.0), NOISE), "same", "12 trained parameters"),
        ((ended("damaged", 3.0), ended("noise", 2.0), NOISE), "same", "12 trained parameters"),
        ((ended("damaged", 2.0), ended("noise", 2.0), NOISE), "depends", "every byte"),
        ((ended("damaged", None, 1), ended("noise", 2.5), NOISE), "depends", "2.500000, not 2.000000"),
        ((ended("damaged", None, 1), ended("noise", 2.5)), "unclear", "no parameter"),
        ((ended("damaged", None, 1), ended("noise", 2.0), UNSTEPPED), "unclear", "no parameter"),
        ((ended("damaged", None, 1), ended("noise", 2.0), GONE), "same", "of 12 trained parameters none is left"),
        ((ended("damaged", 2.0), ended("noise", 2.0), GONE), "depends", "every byte"),
        ((ended("damaged", None, 1), ended("noise", 2.5), GONE), "unclear", "another each time"),
        ((ended("damaged", None, 1), ended("noise", None, 1), NOISE), "unclear", "did not come to a score"),
        ((ended("damaged", None, 1), ended("noise", None, -9, "time"), NOISE), "unclear", "did not come to a score"),
        ((ended("noise", 2.0), NOISE), "unclear", "not read back"),
    ],
)
def test_the_score_comes_from_the_artifact(events: tuple[dict[str, Any], ...], result: str, words: str) -> None:
    found = artifact.judge(ran(*events))
    assert found[0] == result
    assert words in found[1]
    assert artifact.judge(ran(*events, loss=None))[0] == "unclear"
