"""What is made of a traced run: its artifact, its error, its reported pass, what it reached for."""

from __future__ import annotations

from typing import Any

import pytest

from harness.probe.experiments import ledger, reach
from harness.probe.printed import Printed
from harness.probe.session import MiniatureRun
from tests.proberuns import wrote


def test_the_error_of_a_copy_is_not_that_of_the_run() -> None:
    mine, copied = {"kind": "crash", "type": "A"}, {"kind": "crash", "type": "B", "variant": "damaged"}
    outcome = wrote("a").outcome
    assert MiniatureRun(outcome, (copied,)).crash is None
    assert MiniatureRun(outcome, (copied, mine)).crash == mine


def test_two_files_of_the_printed_size_are_no_artifact() -> None:
    run = wrote("a")
    files = dict(run.files) | {"work/copy.ptz": ("a", 900)}
    assert MiniatureRun(run.outcome, (), Printed(2.5, 4.2, 900), files).artifact() is None


def test_training_data_counts_only_after_the_artifact_was_read() -> None:
    def opened(path: str, mode: str = "r") -> dict[str, Any]:
        return {"kind": "file", "path": path, "mode": mode}

    first = opened("data/fineweb_train_000000.bin")
    later = opened("data/fineweb_train_000001.bin")
    events = (
        first,
        opened("final_model.ptz", "wb"),
        first,
        opened("./final_model.ptz", "rb"),
        later,
        opened("train.log", "a"),
        {"kind": "socket", "address": "('127.0.0.1', 80)"},
        {"kind": "socket", "address": "example.org"},
        {"kind": "socket", "what": "socket.bind", "address": "('0.0.0.0', 0)"},
        {"kind": "process", "command": "nvidia-smi"},
    )
    run = wrote("a")
    found = reach.judge(MiniatureRun(run.outcome, events, run.printed, run.files))
    assert found.training_data == ("data/fineweb_train_000001.bin",)
    assert (found.network, found.programs) == (("example.org",), ("nvidia-smi",))
    assert reach.judge(MiniatureRun(run.outcome, events, Printed(2.5, 4.2))).training_data == ()


def traced(*events: dict[str, Any], loss: float | None = 4.2) -> MiniatureRun:
    return MiniatureRun(wrote("a").outcome, events, Printed(2.5, loss))


def test_the_reported_pass_is_the_one_with_the_printed_loss() -> None:
    first = {"kind": "pass", "pass": 0, "mean": 4.5, "count": 99, "where": "a.py:1 f", "learned_before": 99}
    second = {"kind": "pass", "pass": 1, "mean": 4.20002, "count": 99, "where": "a.py:2 g", "learned_before": 2}
    scores = [
        {"kind": "score", "pass": 0, "learned": [[0, 50]]},
        {"kind": "score", "pass": 1, "learned": [[7, 9], "x", [1], [True, 2]]},
    ]
    found = ledger.judge(traced(first, second, *scores), 100)
    assert (found.result, found.where, found.learned_before, found.learned) == ("bound", "a.py:2 g", 2, ((7, 9),))
    assert ledger.judge(traced(first, second, loss=4.3), 100).result == "unbound"
    third = second | {"pass": 2, "mean": 4.20003, "learned_before": 0}
    assert ledger.judge(traced(second, third), 100).result == "unbound"
    assert ledger.judge(traced(second, third | {"mean": 4.2}), 100).learned_before == 0
    assert ledger.judge(traced(second, third | {"learned_before": 5}), 100).learned_before == 5
    assert ledger.judge(traced(first, loss=None), 100).result == "unbound"
    assert ledger.judge(traced({"kind": "pass", "mean": None}), 100).result == "nothing"


@pytest.mark.parametrize(
    ("mean", "learned", "result"),
    [
        (4.2, 0, "bound"),
        (4.20003, 0, "bound"),
        (4.2001, 0, "unbound"),
        (4.20003, 2, "bound"),
        (4.2001, 2, "unbound"),
    ],
)
def test_a_pass_with_about_the_printed_loss_neither_accuses_nor_clears(mean: float, learned: int, result: str) -> None:
    one = {"kind": "pass", "pass": 0, "mean": mean, "count": 99, "where": "a.py:1 f", "learned_before": learned}
    found = ledger.judge(traced(one), 100)
    assert found.result == result
    assert result == "bound" or "what is reported may be another score" in found.reason
