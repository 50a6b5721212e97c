"""Sums over the vocabulary, and the rules on what scores depend on, with evidence of our own making."""

from __future__ import annotations

import dataclasses
import importlib
import math
import os
from pathlib import Path
from typing import Any

import pytest

from harness.checks import behaviour_flips
from harness.facts.experiments import Answer, FlipFacts, SumAnswer
from harness.facts.probe import ProbeFacts
from harness.model import Located, Location, Missing, Outcome, Verdict
from harness.probe.experiments import flips, kraft
from harness.probe.experiments.scores import ACCOUNT, PASS, Bound, Unit
from harness.probe.phrased import phrased_text
from tests import factories
from tests.childruns import run
from tests.proberuns import CHOSEN, copies, ran
from tests.test_probe_flips_child import SCRIPT, SIZE, plan
from tests.tracing import unlike

sums = importlib.import_module("harness.probe.child.flips.sums")
TEXT = phrased_text(1_700, 1024, 3)
BOUND = Bound(PASS, (0,), "a.py:3 evaluate", "")
MIXED = [Unit(1 + place // 64, (place,), 2.0) for place in range(1, 1_700)]


def told(unit: Unit, total: float, count: int = 1024, **more: Any) -> dict[str, Any]:
    place = unit.places[0]
    first = [[int(TEXT.tokens[place]), unit.nats]]
    return {"kind": "sum", "place": place, "total": total, "count": count, "failed": 0, "first": first} | more


def test_places_are_early_and_one_lies_where_a_cache_hits() -> None:
    chosen = kraft.places(MIXED, TEXT)
    assert len(chosen) == 2
    assert all(unit.places[0] < 0.36 * 1_700 for unit in chosen)
    assert chosen[0].places[0] in TEXT.hits
    assert kraft.places([dataclasses.replace(unit, straight=True) for unit in MIXED], TEXT) == []
    assert kraft.places([Unit(1, (1, 2), 3.0)], TEXT) == []
    unlike = phrased_text(40, 1024, 0)
    assert len(kraft.places(MIXED[:30], unlike)) == 1


def test_likely_tokens_come_first_and_each_once() -> None:
    unit = kraft.places(MIXED, TEXT)[0]
    variant = kraft.variant(unit, BOUND, TEXT, 60)
    assert variant.order is not None
    order = variant.order["sum"]
    place = unit.places[0]
    assert order["tokens"][0] == TEXT.tokens[place]
    assert sorted(order["tokens"]) == list(range(1024))
    before = [int(TEXT.tokens[at]) for at in range(1, place) if TEXT.tokens[at - 1] == TEXT.tokens[place - 1]]
    assert set(before) <= set(order["tokens"][: len(before) + 1])
    assert (order["at"], order["account"]) == (unit.at, None)
    account = kraft.variant(Unit(9, (200,), 2.0, step=(199, 0, 1)), Bound(ACCOUNT, (("f", "nats"),), "", ""), TEXT, 60)
    assert account.order is not None
    told = account.order["sum"]
    assert (told["account"], told["growth"], told["piece"], told["pieces"]) == (["f", "nats"], 199, 0, 1)


@pytest.mark.parametrize(
    ("changes", "result"),
    [
        ({"total": 1.00001}, "one"),
        ({"total": 1.0002}, "more"),
        ({"total": 1.2, "count": 9}, "more"),
        ({"total": 1.005, "coarse": True}, "one"),
        ({"total": 1.02, "coarse": True}, "more"),
        ({"total": 0.9}, "less"),
        ({"total": 0.9, "count": 1022}, "unclear"),
        ({"total": 0.99999, "count": 1021}, "one"),
        ({"total": 0.4, "count": 300}, "unclear"),
        ({"total": 1.2, "first": [[0, 2.0]]}, "unclear"),
        ({"total": 1.2, "first": []}, "unclear"),
        ({"total": None}, "unclear"),
        ({"place": 0}, "unclear"),
    ],
)
def test_what_a_sum_says(changes: dict[str, Any], result: str) -> None:
    unit = kraft.places(MIXED, TEXT)[0]
    found = kraft.judge(ran(told(unit, 1.0) | changes), [unit], TEXT)
    assert found.result == result


def test_one_sum_above_one_decides_and_all_have_to_be_one() -> None:
    first, second = kraft.places(MIXED, TEXT)
    more = kraft.judge(ran(told(first, 1.0), told(second, 1.3)), [first, second], TEXT)
    assert (more.result, more.position) == ("more", second.places[0])
    assert kraft.judge(ran(told(first, 0.5, 200), told(second, 1.0)), [first, second], TEXT).result == "unclear"
    assert kraft.judge(ran(told(first, 1.0), told(second, 1.0)), [first, second], TEXT).result == "one"
    assert kraft.judge(ran(), [first], TEXT).result == "unclear"


def changed(**fields: Any) -> flips.Flips:
    """The made-up copies with other scores: `apart` from their rows, or rows that add up to `total`."""
    events = []
    for event in copies().events:
        if event["kind"] == "score":
            events.append({**event, "apart": fields.get("apart", [])})
        elif event["kind"] == "row":
            nats = {None: 2.5, "self-2": 7.0}.get(event.get("variant"), 2.5)
            events.append({**event, "total": fields.get("total", 1.0), "nats": nats, **fields.get("row", {})})
        else:
            events.append(dict(event))
    return flips.judge(ran(*events), CHOSEN, 4)


def test_the_sum_holds_by_construction_or_is_the_row_s_own() -> None:
    plain = changed()
    assert plain.sum.result == "one"
    assert "by construction" in plain.sum.reason
    assert not flips.needs_sum(plain)
    mixed = changed(apart=[[2, 4]])
    assert mixed.sum.result == "unclear"
    assert flips.needs_sum(mixed)
    entry = changed(apart=[[2, 4]], total=1.3)
    assert (entry.sum.result, entry.sum.total, entry.sum.position) == ("more", 1.3, 2)
    assert "adds up to 1.3" in entry.sum.reason
    assert entry.sum.count == 0
    narrow = changed(apart=[[2, 4]], total=1.0157, row={"bits": 16, "width": 1024})
    assert (narrow.sum.result, narrow.sum.count) == ("more", 1024)
    assert "in numbers of 16 bits" in narrow.sum.reason
    # Rounding does not come to so much.
    assert changed(apart=[[2, 4]], total=1.3, row={"bits": 16, "width": 1024}).sum.count == 0
    dependent = flips.judge(copies(crc="b", logs=-1.5), CHOSEN, 4)
    assert not flips.needs_sum(dependent)


def test_copies_are_made_until_the_sum_is_more_than_one() -> None:
    def scored(token: int, writing: int) -> None:
        if token == 3:
            os._exit(1)
        sums.tell(writing, math.log(2) if token < 9 else 50.0)

    order = {"tokens": range(20), "stop": 1.2, "coarse_stop": 1.2, "limit": 60}
    total = sums.Sum(order)
    assert not total.run(scored)
    report = total.report()
    assert (report["count"], report["failed"]) == (3, 0)
    assert report["total"] == pytest.approx(1.5)
    assert report["first"] == [[0, pytest.approx(math.log(2))]]
    failing = sums.Sum({**order, "tokens": [3] * 100})
    assert not failing.run(scored)
    assert (failing.report()["count"], failing.report()["failed"]) == (0, sums.FAILURES + 1)
    coarse = sums.Sum({**order, "tokens": [1], "stop": 0.1})
    coarse.run(lambda _, writing: sums.tell(writing, 0.75))
    assert coarse.report()["coarse"]
    late = sums.Sum({**order, "limit": 0})
    late.run(scored)
    assert late.report()["count"] == 0


@pytest.mark.parametrize("account", [None, ["<module>", "total"]])
def test_tokens_are_put_at_a_place_of_a_script(tmp_path: Path, account: list[str] | None) -> None:
    token = int(unlike(SIZE)[100])
    tokens = [token, *(each for each in range(12) if each != token)]
    # The sixth window holds the place; steps are counted from the first.
    order: dict[str, Any] = {"place": 100, "at": 7, "account": account, "growth": 5, "tokens": tokens}
    order |= {"piece": 0, "pieces": 1}
    order |= {"stop": 1.1, "coarse_stop": 1.1, "limit": 60}
    ran_ = run(tmp_path, SCRIPT, **plan(tmp_path, [{"name": "sum", "sum": order}]))
    [event] = ran_.of("sum")
    assert (event["place"], event["count"], event["failed"]) == (100, 12, 0)
    scores = [each for each in ran_.of("score") if [96, 115] in each["positions"]]
    expected = scores[0]["sum"] if account else scores[0]["nll"][4]
    assert event["first"] == [[token, pytest.approx(expected, abs=1e-5)]]


SAME = Answer("same", "nothing changes", 0.0, ())
FACTS = FlipFacts("a.py:3 evaluate", 4, 4, 0, SAME, SAME, SAME, SumAnswer("one", "it is one", 1.0, 1024, 100))


def answered(name: str, answer: Answer) -> FlipFacts:
    fields: dict[str, Any] = {name: answer}
    return dataclasses.replace(FACTS, **fields)


def decide(code: str, flip_facts: FlipFacts | None) -> Outcome:
    at = Location("probe.json")
    found = Missing("it was not made", at) if flip_facts is None else Located(flip_facts, at)
    unknown: Any = Missing("not made")
    facts = ProbeFacts("train_gpt.py", "L3", (), (), unknown, unknown, unknown, found, unknown)
    [rule] = [each for each in behaviour_flips.RULES if each.code == code]
    outcome = rule.check(factories.submission(probe=facts))
    assert outcome is not None
    return outcome


@pytest.mark.parametrize(
    ("code", "name", "verdict"),
    [("PG707", "later", Verdict.FAIL), ("PG708", "target", Verdict.FAIL), ("PG710", "artifact", Verdict.WARN)],
)
def test_rules_tell_the_effect_the_seed_and_how_to_repeat_it(code: str, name: str, verdict: Verdict) -> None:
    assert decide(code, FACTS).verdict is Verdict.PASS
    depends = answered(name, Answer("depends", "it changes by 0.5 nats", 0.5, (7,)))
    outcome = decide(code, depends)
    assert outcome.verdict is verdict
    assert "it changes by 0.5 nats (seed 0; `harness probe FOLDER` repeats it)" in outcome.message
    assert outcome.values["positions"] == [7]
    assert decide(code, answered(name, Answer("unclear", "nobody knows", 0.0, ()))).verdict is Verdict.UNDECIDED
    assert decide(code, None).verdict is Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("result", "verdict"),
    [("one", Verdict.PASS), ("more", Verdict.WARN), ("less", Verdict.WARN), ("unclear", Verdict.UNDECIDED)],
)
def test_only_a_row_that_adds_up_to_more_than_one_fails(result: str, verdict: Verdict) -> None:
    answer = SumAnswer(result, "so it is", 1.3, 9, 100)
    row = SumAnswer("more", "the row adds up to 1.3", 1.3, 0, 100)
    assert decide("PG709", dataclasses.replace(FACTS, sum=row)).verdict is Verdict.FAIL
    outcome = decide("PG709", dataclasses.replace(FACTS, sum=answer))
    assert outcome.verdict is verdict
    assert "so it is at position 100" in outcome.message
    assert decide("PG709", None).verdict is Verdict.UNDECIDED
    missing = next(rule for rule in behaviour_flips.RULES if rule.code == "PG709").check(
        factories.submission(probe=Missing("no evidence"))
    )
    assert missing is not None
    assert missing.verdict is Verdict.UNDECIDED
