"""Scores that are one of several losses, or the number that a row is asked for: what rows say of them."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from harness.probe.experiments import flips, scores, target
from harness.probe.experiments.scores import ACCOUNT, BASE, Bound, Unit, View
from tests.proberuns import CHOSEN, copies, ran, row
from tests.tracing import VOCABULARY, Seen, tracer, unlike, write_tokens

accounts = importlib.import_module("harness.probe.child.flips.accounts")
rows = importlib.import_module("harness.probe.child.tracer.rows")
SIZE = 64
PLACE = 20
TOKENS = torch.from_numpy(unlike(SIZE).astype(np.int64))
LOGITS = torch.randn(SIZE - 1, VOCABULARY, generator=torch.Generator().manual_seed(1))
Choice = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def watched(folder: Path, run: Callable[[], Any]) -> Seen:
    """Run something in a process whose rows and accounts are looked at."""
    seen = Seen()
    shard = write_tokens(folder / "shard.bin", TOKENS.numpy())
    plan = SimpleNamespace(script=__file__, experiment={"validation": [str(shard)]})
    follower = tracer.install(plan, seen.emit)
    follower.ledger.rows = rows.Rows({PLACE: []}, seen.emit)
    watch = accounts.Accounts(follower.ledger, seen.emit)
    watch.install()
    try:
        run()
    finally:
        watch.finish()
        tracer.finish()
    return seen


def chosen(choose: Choice) -> float:
    targets = TOKENS[1:]
    plain = F.cross_entropy(LOGITS, targets, reduction="none")
    sharp = F.cross_entropy(1.5 * LOGITS, targets, reduction="none")
    return float(choose(plain, sharp).sum().item())


def assigned(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    made = first.clone()
    better = second < first
    made[better] = second[better]
    return made


BEST: dict[str, Choice] = {
    "minimum": torch.minimum,
    "amin": lambda first, second: torch.stack([first, second]).amin(0),
    "min": lambda first, second: torch.stack([first, second]).min(dim=0).values,
    "best probability": lambda first, second: -torch.maximum(torch.exp(-first), torch.exp(-second)).log(),
    "three": lambda first, second: torch.minimum(torch.minimum(first, second), second + 1),
}


@pytest.mark.parametrize("name", BEST)
def test_the_best_chances_of_several_rows_are_added_up(name: str, tmp_path: Path) -> None:
    seen = watched(tmp_path, lambda: chosen(BEST[name]))
    [best] = [each for each in seen.of("row") if "best_of" in each]
    both = torch.stack([LOGITS[PLACE - 1], 1.5 * LOGITS[PLACE - 1]]).double().softmax(-1)
    assert (best["position"], best["best_of"], best["target"]) == (PLACE, 2, int(TOKENS[PLACE]))
    assert best["total"] == pytest.approx(float(both.amax(0).sum()), abs=1e-5)
    assert best["total"] > 1.01
    [event] = seen.of("score")
    assert (event["how"], best["at"]) == (
        [name if name in {"minimum", "amin", "min"} else best_name(name)],
        event["at"],
    )
    assert best["nats"] == pytest.approx(event["nll"][PLACE - 1], abs=1e-5)


def best_name(name: str) -> str:
    return {"best probability": "maximum", "three": "minimum"}[name]


@pytest.mark.parametrize(
    ("choose", "how"),
    [
        (torch.maximum, ["maximum"]),
        (lambda first, _: torch.minimum(first, first), ["minimum"]),
        (lambda first, second: torch.minimum(first, second) + 0.5, ["minimum"]),
        (lambda first, second: torch.where(second < first, second, first), ["where"]),
        (assigned, ["__setitem__"]),
    ],
)
def test_what_is_not_the_best_for_certain_is_only_no_softmax(choose: Choice, how: list[str], tmp_path: Path) -> None:
    seen = watched(tmp_path, lambda: chosen(choose))
    assert not [each for each in seen.of("row") if "best_of" in each]
    assert all(event["how"] == how for event in seen.of("score"))


@pytest.mark.parametrize(
    "choose",
    [
        lambda first, _: torch.where(first > 0, first, torch.zeros(())),
        lambda first, second: torch.logaddexp(-first, -second),
        lambda first, _: first.clamp(0),
    ],
)
def test_what_chooses_among_no_losses_is_no_choice(choose: Choice, tmp_path: Path) -> None:
    seen = watched(tmp_path, lambda: chosen(choose))
    assert not any("how" in event for event in seen.of("score"))


def test_the_best_over_several_targets_is_lost(tmp_path: Path) -> None:
    def worst() -> None:
        F.cross_entropy(LOGITS, TOKENS[1:], reduction="none").reshape(7, 9).max(dim=0).values.sum().item()

    assert watched(tmp_path, worst).of("score") == []


def by_rows(added: float = 0.0, index: Callable[[int], Any] = int) -> float:
    total = 0.0
    for place in range(1, SIZE):
        logs = LOGITS[place - 1 : place].log_softmax(-1)
        number = index(int(TOKENS[place]))
        found = logs[0, number].item() + added
        # The row holds something else by the time that the score counts.
        logs[0, number] += 1
        total -= found
    return total


@pytest.mark.parametrize("index", [int, torch.tensor, np.int64])
def test_steps_are_matched_to_the_rows_that_were_asked_for_one_number(
    index: Callable[[int], Any], tmp_path: Path
) -> None:
    seen = watched(tmp_path, lambda: by_rows(0.0, index))
    [account] = [each for each in seen.of("account") if each["name"] == "total"]
    assert account["straight"] == [[0, SIZE - 1]]
    [told] = seen.of("row")
    assert (told["position"], told["at"], told["target"]) == (PLACE, PLACE - 1, int(TOKENS[PLACE]))
    assert told["total"] == pytest.approx(1.0, abs=1e-5)
    assert told["nats"] == pytest.approx(account["steps"][PLACE - 1], abs=1e-5)


def test_a_step_that_is_made_of_more_than_its_row_is_not_straight(tmp_path: Path) -> None:
    [account] = [each for each in watched(tmp_path, lambda: by_rows(0.1)).of("account") if each["name"] == "total"]
    assert account["straight"] == []


@pytest.mark.parametrize(
    ("shape", "index", "kept"), [((64,), 3, True), ((64,), -64, True), ((64,), 64, False), ((63,), 3, False)]
)
def test_a_row_has_as_many_numbers_as_a_vocabulary(shape: tuple[int, ...], index: int, *, kept: bool) -> None:
    found = rows.Rows({}, Seen().emit)
    found.single(torch.full(shape, 1 / shape[0]), index)
    assert (found.last is not None) is kept
    if found.last is not None:
        assert found.last.chances
        assert found.last.nats == pytest.approx(math.log(64))


def stepped(straight: Sequence[Sequence[int]]) -> list[Unit]:
    account = {"kind": "account", "function": "f", "name": "n", "total": 3.0, "steps": [1.0, 2.0], "after": [0, 0]}
    events: list[dict[str, Any]] = [{"kind": "sources", "sources": []}, account | {"straight": straight}]
    view = scores.views(ran(*events))[BASE]
    return view.units(Bound(ACCOUNT, (("f", "n"),), "", ""), ("f", "n"), 2)


def test_a_step_with_its_row_is_at_its_place_for_certain() -> None:
    assert [(unit.straight, unit.loose) for unit in stepped([[1, 2]])] == [(False, True), (True, False)]
    assert [(unit.straight, unit.loose) for unit in stepped([])] == [(False, True)] * 2


def seen_row(crc: str, log: float, nats: float) -> View:
    told = row(crc, [log], at=1) | {"nats": nats, "total": 1.0}
    return scores.views(ran(told))[BASE]


def test_a_place_that_is_not_certain_needs_the_row_s_own_entry() -> None:
    loose = [Unit(1, (2,), 3.0, step=(1, 0, 1), loose=True)]
    base, other = seen_row("a", -1.0, 3.0), seen_row("b", -2.0, 3.0)
    assert target.compare((base, loose), (other, loose), 2).result == target.DIFFERS
    apart = seen_row("b", -2.0, 4.0)
    assert target.compare((base, loose), (apart, loose), 2).result == target.UNSEEN
    certain = [Unit(1, (2,), 3.0, straight=True, step=(1, 0, 1))]
    assert target.compare((base, certain), (apart, certain), 2).result == target.DIFFERS


def test_rows_of_the_best_of_several_decide_before_the_others() -> None:
    made: list[dict[str, Any]] = []
    for event in copies().events:
        if event["kind"] == "score":
            made.append({**event, "how": ["minimum"]})
        elif event["kind"] == "row":
            entry = {None: 2.5, "self-2": 7.0}.get(event.get("variant"), 2.5)
            made += [{**event, "nats": entry, "total": 1.0}, {**event, "nats": entry, "total": 1.2, "best_of": 2}]
        else:
            made.append(dict(event))
    found = flips.judge(ran(*made), CHOSEN, 4)
    assert (found.sum.result, found.sum.total, found.sum.count) == ("more", 1.2, 0)
    assert "or the best of several" in found.sum.reason
