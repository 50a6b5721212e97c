"""Scores that are one of several losses: what their rows say of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from harness.probe.experiments import flips
from tests.test_probe_flips import CHOSEN, copies, ran
from tests.tracing import VOCABULARY, Seen, tracer, unlike, write_tokens

rows = importlib.import_module("harness.probe.child.tracer.rows")
SIZE = 64
PLACE = 20
TOKENS = torch.from_numpy(unlike(SIZE).astype(np.int64))
LOGITS = torch.randn(SIZE - 1, VOCABULARY, generator=torch.Generator().manual_seed(1))
Choice = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def watched(folder: Path, run: Callable[[], Any]) -> Seen:
    """Run something in a process whose rows are looked at."""
    seen = Seen()
    shard = write_tokens(folder / "shard.bin", TOKENS.numpy())
    plan = SimpleNamespace(script=__file__, experiment={"validation": [str(shard)]})
    follower = tracer.install(plan, seen.emit)
    follower.ledger.rows = rows.Rows({PLACE: []}, seen.emit)
    try:
        run()
    finally:
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
