"""A world of two: joining what its processes counted, what crosses between them, and the rule on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.checks import behaviour_ranks
from harness.facts import probe
from harness.model import Missing, Outcome, Verdict
from harness.probe.experiments import ledger, ranks
from harness.probe.printed import Printed
from harness.probe.session import MiniatureRun
from harness.sandbox.job import Outcome as Ended
from harness.sandbox.levels import Level
from harness.sources import probeevidence
from harness.sources.folder import walk
from tests import factories, probefacts
from tests.childruns import Ran, run
from tests.tracing import VOCABULARY, unlike, write_tokens

TOKENS = 101


def ran(
    val_bpb: float | None = 2.5, val_loss: float | None = None, *events: dict[str, Any], ended: str = "exit"
) -> Any:
    outcome = Ended(Level.L3, "bubblewrap", ended, f"it was {ended}", 0, 1.0, 1.0, 1, Path("o"), None, Path("k"))
    return MiniatureRun(outcome, events, Printed(val_bpb, val_loss))


def scored(
    rank: int, positions: list[list[int]], learned: list[list[int]], mean: float, **more: Any
) -> list[dict[str, Any]]:
    """One score event and the summary of its pass."""
    count = sum(end - begin for begin, end in positions)
    early = sum(end - begin for begin, end in learned)
    shared = {"rank": rank, "pass": more.pop("number", 0)}
    return [
        {
            "kind": "score",
            "at": more.pop("at", 6 + rank),
            "positions": positions,
            "learned": learned,
            "sum": mean * count,
            **shared,
        },
        {
            "kind": "pass",
            "sum": mean * count,
            "count": count + more.pop("left_out", 0),
            "where": "train_gpt.py:9 evaluate",
            "grad": False,
            "last": 7,
            "learned_before": early,
            **shared,
            **more,
        },
    ]


def judged(loss: float, *lines: dict[str, Any]) -> ledger.Ledger:
    header = {"kind": "ledger", "tokens": TOKENS}
    return ledger.judge(ranks.together(ran(2.5, loss), [header, *lines]), TOKENS)


def test_the_parts_of_two_processes_are_one_pass() -> None:
    first, second = scored(0, [[1, 51]], [], 4.0), scored(1, [[51, 101]], [[60, 70], [80, 81]], 2.0)
    found = judged(3.0, *first, *second)
    assert (found.result, found.count, found.learned_before) == ("bound", 100, 11)
    assert (found.learned, found.missing, found.doubled) == (((60, 70), (80, 81)), (), ())
    [block] = found.timeline
    assert (block.first, block.last, block.ranges, block.learned) == (6, 7, ((1, 101),), 11)


def test_what_neither_counts_is_missing_and_what_both_count_is_doubled() -> None:
    found = judged(3.0, *scored(0, [[1, 41], [50, 60]], [], 3.0), *scored(1, [[55, 101]], [], 3.0))
    assert (found.missing, found.doubled) == (((41, 50),), ((55, 60),))


def test_processes_that_each_score_all_are_judged_by_the_first() -> None:
    found = judged(3.0, *scored(0, [[1, 101]], [], 3.0), *scored(1, [[1, 101]], [[1, 90]], 3.0))
    assert (found.count, found.learned_before, found.doubled) == (100, 0, ())


def test_the_nth_pass_belongs_to_the_nth() -> None:
    lines = scored(0, [[1, 51]], [], 9.0) + scored(1, [[51, 101]], [], 9.0)
    lines += scored(0, [[1, 51]], [[1, 9]], 2.0, number=4) + scored(1, [[51, 101]], [], 4.0, number=3)
    found = judged(3.0, *lines)
    assert (found.learned_before, found.passes) == (8, 2)


def test_a_pass_that_does_not_tell_where_it_begins_is_divided_where_another_process_begins() -> None:
    lines = scored(0, [[1, 31]], [], 9.0, at=6) + scored(0, [[1, 51]], [[1, 9]], 2.0, number=1, at=12)
    # The second process has other tokens in its second pass, and so one pass of both.
    one = scored(1, [[31, 101]], [], 9.0, at=7)[:1] + scored(1, [[51, 91]], [[60, 63]], 4.0, at=13)[:1]
    one += scored(1, [[91, 101]], [], 4.0, at=14)[:1]
    total = 9.0 * 70 + 4.0 * 50
    summary = {**scored(1, [[31, 101], [51, 101]], [], total / 120)[1], "learned_before": 3, "last": 14}
    found = judged(3.0, *lines, *one, summary)
    assert (found.result, found.count, found.learned_before, found.doubled) == ("bound", 100, 11, ())
    # Of which lines were left out, it stays as it is, and counts for nothing.
    assert judged(3.0, *lines, *one[:2], summary).result == "unbound"


def test_a_process_without_a_pass_of_its_own_has_no_part_in_it() -> None:
    lines = scored(0, [[1, 101]], [], 9.0, at=6) + scored(0, [[1, 51]], [], 2.0, number=1, at=12)
    found = judged(3.0, *lines, *scored(1, [[51, 101]], [], 4.0, at=13))
    assert (found.result, found.count, found.missing) == ("bound", 100, ())


def test_a_pass_of_which_events_were_left_out_is_not_joined() -> None:
    found = judged(3.0, *scored(0, [[1, 51]], [], 3.0, left_out=3), *scored(1, [[51, 101]], [], 3.0))
    assert found.result == "nothing"


def test_of_many_passes_the_last_are_kept() -> None:
    lines = [line for number in range(600) for line in scored(0, [[1, 51]], [], 9.0, number=number, last=number)]
    lines += scored(0, [[1, 51]], [[1, 9]], 2.0, number=600, last=1_000)
    lines += [line for number in range(600) for line in scored(1, [[51, 101]], [], 9.0, number=number, last=number)]
    lines += scored(1, [[51, 101]], [], 4.0, number=600, last=1_000)
    assert judged(3.0, *lines).learned_before == 8
    assert sum(len(group) for group in ranks._groups(lines, TOKENS)) == ranks.PASSES_LIMIT


@pytest.mark.parametrize(
    ("made", "alone", "result", "words"),
    [
        (ran(2.5), 2.45, "reached", "one 2.4500: within 5%"),
        (ran(2.5), 3.0, "reached", "apart by more than 5%"),
        (ran(2.5), None, "reached", "two processes printed 2.5000"),
        (ran(None), 2.5, "not-exercised", "printed no score"),
        (ran(None, ended="wall"), 2.5, "not-exercised", "it was wall"),
        (
            ran(None, None, {"kind": "refusal", "name": "torch.distributed point-to-point"}),
            2.5,
            "not-exercised",
            "point-to-point",
        ),
        (
            ran(
                None,
                None,
                {"kind": "crash", "rank": 0, "type": "RuntimeError", "message": "Connection closed by peer"},
                {"kind": "crash", "rank": 1, "type": "ValueError", "message": "mine", "blame": "unknown"},
            ),
            2.5,
            "not-exercised",
            "process 1 ended with ValueError: mine (blame: unknown)",
        ),
    ],
)
def test_the_reason_is_the_true_one(made: MiniatureRun, alone: float | None, result: str, words: str) -> None:
    found = ranks.judge(made, alone)
    assert found.result == result
    assert words in found.reason


def test_two_processes_are_not_tried_where_they_cannot_be() -> None:
    assert ranks.unable(Level.L3, ranked=True) == ranks.unable(Level.L1, ranked=True) == ""
    assert "no network" in ranks.unable(Level.L2, ranked=True)
    assert "no rank" in ranks.unable(Level.L3, ranked=False)


ORDER = probefacts.LEDGER | {"where": "train_gpt.py:9 evaluate"}
REACHED = {"result": "reached", "reason": "two processes printed 2.5", "val_bpb": 2.5, "alone": 2.4, "ledger": ORDER}


def decide(folder: Path, two_ranks: dict[str, Any] | None) -> Outcome:
    """The rule's outcome on evidence about a folder."""
    folder.mkdir()
    (folder / "train_gpt.py").write_text("print(1)\n", encoding="utf-8")
    document = probefacts.document(
        folder,
        world={"vocabulary": 1024, "caseops": False, "val_tokens": 1001, "val_bytes": 2000, "seed": 0},
        runs=[],
        experiments={} if two_ranks is None else {"two_ranks": two_ranks},
    )
    probeevidence.write(folder.parent, document)
    [rule] = behaviour_ranks.RULES
    outcome = rule.check(factories.submission(probe=probe.read(folder.parent, walk(folder))))
    assert outcome is not None
    return outcome


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, Verdict.PASS),
        ({"learned_before": 101, "learned": [[1, 102]]}, Verdict.FAIL),
        ({"learned_before": 100, "learned": [[1, 101]]}, Verdict.WARN),
        ({"result": "unbound", "learned_before": 900}, Verdict.UNDECIDED),
    ],
)
def test_tokens_learned_on_one_process_before_the_other_scores_them(
    tmp_path: Path, changes: dict[str, Any], verdict: Verdict
) -> None:
    found = REACHED | {"ledger": ORDER | changes}
    outcome = decide(tmp_path / "run", found)
    assert outcome.verdict is verdict
    assert [str(place) for place in outcome.locations] == ["train_gpt.py"]
    assert verdict is not Verdict.FAIL or "101 of 1,000 tokens" in outcome.message


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            {"result": "not-exercised", "reason": "no loopback", "val_bpb": None, "ledger": None},
            "not exercised there: no",
        ),
        (None, "was not made"),
    ],
)
def test_what_was_not_exercised_accuses_nobody(tmp_path: Path, found: dict[str, Any] | None, words: str) -> None:
    outcome = decide(tmp_path / "run", None if found is None else REACHED | found)
    assert outcome.verdict is Verdict.UNDECIDED
    assert words in outcome.message


def test_without_a_probe_nothing_is_decided() -> None:
    [rule] = behaviour_ranks.RULES
    outcome = rule.check(factories.submission(probe=Missing("no evidence of a probe was given")))
    assert outcome is not None
    assert outcome.verdict is Verdict.UNDECIDED


CROSSING = """
import os, torch, torch.distributed as dist, torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel as DDP
import numpy as np
dist.init_process_group("nccl")
rank = dist.get_rank()
tokens = torch.from_numpy(np.fromfile("val.bin", dtype="<u2", offset=1024).astype(np.int64))
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Embedding({vocabulary}, 8), torch.nn.Linear(8, {vocabulary}))
def losses(model, begin):
    x, y = tokens[begin : begin + 32], tokens[begin + 1 : begin + 33]
    return F.cross_entropy(model(x[None])[0], y, reduction="none")
# Each process learns from a window of its own; what the other has learned comes by {how}.
begin = 32 * (rank + 1)
{learn}
total = 0.0
for begin in range(0, 128, 32):
    with torch.no_grad():
        total += losses(net, begin).sum().item()
print(total)
dist.destroy_process_group()
"""
LEARN = {
    "nothing": "losses(net, begin).mean().backward()\ntorch.optim.SGD(net.parameters(), lr=0.1).step()",
    "DDP": "losses(DDP(net), begin).mean().backward()\ntorch.optim.SGD(net.parameters(), lr=0.1).step()",
    "all_reduce of gradients": (
        "losses(net, begin).mean().backward()\n"
        "for each in net.parameters():\n    dist.all_reduce(each.grad, op=dist.ReduceOp.AVG)\n"
        "torch.optim.SGD(net.parameters(), lr=0.1).step()"
    ),
    "all_reduce of weights": (
        "losses(net, begin).mean().backward()\n"
        "torch.optim.SGD(net.parameters(), lr=0.1).step()\n"
        "for each in net.parameters():\n    dist.all_reduce(each.data, op=dist.ReduceOp.AVG)"
    ),
    "reduce_scatter and all_gather": (
        "losses(net, begin).mean().backward()\n"
        "for each in net.parameters():\n"
        "    flat = each.grad.reshape(-1)\n"
        "    part = torch.zeros(flat.numel() // 2)\n"
        "    dist.reduce_scatter_tensor(part, flat, op=dist.ReduceOp.AVG)\n"
        "    whole = torch.zeros_like(flat)\n"
        "    dist.all_gather_into_tensor(whole, part)\n"
        "    each.data.add_(whole.view_as(each), alpha=-0.1)"
    ),
    "functional all_reduce of gradients": (
        "import torch.distributed._functional_collectives as fc\n"
        "losses(net, begin).mean().backward()\n"
        "for each in net.parameters():\n"
        '    each.data.add_(fc.wait_tensor(fc.all_reduce(each.grad, "avg", dist.group.WORLD)), alpha=-0.1)'
    ),
    "broadcast of weights": (
        "losses(net, begin).mean().backward()\n"
        "torch.optim.SGD(net.parameters(), lr=0.1).step()\n"
        "for each in net.parameters():\n    dist.broadcast(each.data, src=1)"
    ),
    "a sum of losses": (
        "loss = losses(net, begin).mean()\nloss.backward()\n"
        "torch.optim.SGD(net.parameters(), lr=0.1).step()\nlog = loss.detach()\ndist.all_reduce(log)"
    ),
}
OWN = [{*range(32, 65)}, {*range(64, 97)}]
BOTH = OWN[0] | OWN[1]


def crossed(folder: Path, how: str) -> Ran:
    write_tokens(folder / "val.bin", unlike(160))
    text = CROSSING.format(vocabulary=VOCABULARY, how=how, learn=LEARN[how])
    plan = {"trace": True, "experiment": {"validation": [str(folder / "val.bin")]}}
    made = run(folder, text, rank=-1, world_size=2, **plan)
    assert made.status == 0, made.output
    assert not made.of("lost"), made.of("lost")
    return made


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("nothing", OWN),
        ("a sum of losses", OWN),
        ("DDP", [BOTH, BOTH]),
        ("all_reduce of gradients", [BOTH, BOTH]),
        ("all_reduce of weights", [BOTH, BOTH]),
        ("reduce_scatter and all_gather", [BOTH, BOTH]),
        ("functional all_reduce of gradients", [BOTH, BOTH]),
        ("broadcast of weights", [OWN[1], OWN[1]]),
    ],
)
def test_what_a_process_learns_reaches_the_other_by_what_they_exchange(
    tmp_path: Path, how: str, expected: list[set[int]]
) -> None:
    made = crossed(tmp_path, how)
    for rank in range(2):
        mine = [event for event in made.of("score") if event["rank"] == rank and event["by"] == "item"]
        learned = {place for event in mine for begin, end in event["learned"] for place in range(begin, end)}
        assert learned == expected[rank]
        # What comes later has a higher number on every process.
        first = max(event["at"] for event in made.of("update") if event["rank"] == rank)
        assert all(event["at"] > first for event in mine)
