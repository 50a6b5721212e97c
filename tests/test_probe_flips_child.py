"""What the child does to make and change copies of a trained process."""

from __future__ import annotations

import importlib
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from harness.challenge import BOS_TOKEN
from tests.childruns import run
from tests.tracing import Seen, unlike, write_tokens

PACKAGE = "harness.probe.child"
accounts, holders, scratch, texts, forks = (
    importlib.import_module(f"{PACKAGE}.flips.{name}") for name in ("accounts", "holders", "scratch", "texts", "forks")
)
positions, rows = (importlib.import_module(f"{PACKAGE}.tracer.{name}") for name in ("positions", "rows"))
SIZE = 400
SCRIPT = """
import glob, os, zlib
import numpy as np, torch, torch.nn.functional as F

tokens = torch.from_numpy(np.fromfile(glob.glob("data/fineweb_val_*.bin")[0], dtype="<u2", offset=1024).astype("int64"))
torch.manual_seed(0)
model = torch.nn.Embedding(512, 512)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
model(torch.arange(8)).sum().backward()
optimizer.step()
with open("model.ptz", "wb") as file:
    file.write(zlib.compress(model.weight.detach().numpy().tobytes()))
with open("model.ptz", "rb") as file:
    weight = torch.from_numpy(np.frombuffer(zlib.decompress(file.read()), dtype="f4").copy()).view(512, 512)
again = np.fromfile(glob.glob("data/fineweb_val_*.bin")[0], dtype="<u2", offset=1024)
assert (again == tokens.numpy()).all()
open("log.txt", "a").write("scored")
total = 0.0
for begin in range(0, 399, 19):
    x, y = tokens[None, begin : begin + 19], tokens[None, begin + 1 : begin + 20]
    total += F.cross_entropy(F.embedding(x, weight)[0], y[0], reduction="sum").item()
print(f"final val_loss:{total / 399:.8f} log {open('log.txt').read()}")
"""


@pytest.fixture
def shard() -> Any:
    return positions.Shard(unlike(SIZE))


def test_a_suffix_changes_but_for_the_beginnings_of_documents(shard: Any) -> None:
    told = {"suffix": 120, "vocabulary": 512, "first": 8, "seed": 3}
    made = texts.changed(shard.tokens, told)
    assert (made[:120] == shard.tokens[:120]).all()
    starts = shard.tokens[120:] == BOS_TOKEN
    assert starts.any()
    assert (made[120:][starts] == BOS_TOKEN).all()
    assert (made[120:][~starts] != shard.tokens[120:][~starts]).all()
    assert (made == texts.changed(shard.tokens, told)).all()
    assert made[120:].min() >= 1
    assert made.max() < 512
    single = texts.changed(shard.tokens, {"flip": 7, "token": 99})
    assert np.flatnonzero(single != shard.tokens).tolist() in ([7], [])
    assert single[7] == 99


def test_every_holder_of_the_text_is_found_and_changed(shard: Any, tmp_path: Path) -> None:
    path = write_tokens(tmp_path / "a.bin", shard.tokens)
    copy = write_tokens(tmp_path / "deep.bin", shard.tokens)
    other = write_tokens(tmp_path / "other.bin", shard.tokens[::-1])
    tokens = torch.from_numpy(shard.tokens.copy())
    batches = [
        (tokens[begin : begin + 32].to(torch.int32), tokens[begin + 1 : begin + 33].clone()) for begin in (0, 64)
    ]
    numbers = shard.tokens.tolist()
    frozen = np.frombuffer(path.read_bytes(), dtype="<u2", offset=1024)
    mapped = np.memmap(path, dtype="<u2", mode="r", offset=1024)
    unlike_text = torch.arange(400)
    found = holders.Holders(shard, [str(path)], str(tmp_path))
    assert len(found) >= 5
    new = texts.changed(shard.tokens, {"suffix": 10, "vocabulary": 512, "first": 8, "seed": 3})
    old = shard.tokens.copy()
    found.write(new)
    try:
        assert (tokens.numpy() == new).all()
        assert (batches[1][0].numpy() == new[64:96]).all()
        assert (batches[1][1].numpy() == new[65:97]).all()
        assert numbers == new.tolist()
        assert (frozen == new).all()
        assert (mapped == new).all()
        assert (unlike_text == torch.arange(400)).all()
        assert np.fromfile(copy, dtype="<u2", offset=1024).tolist() == new.tolist()
        assert np.fromfile(other, dtype="<u2", offset=1024).tolist() == old[::-1].tolist()
    finally:
        # The fixture's own array is a holder too.
        found.write(old)


def test_the_scratch_is_put_back(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("kept", "changed", "deep/removed", "longer"):
        (tmp_path / name).write_text(f"this is {name}", encoding="utf-8")
    kept = scratch.Scratch(tmp_path)
    (tmp_path / "changed").write_text("that", encoding="utf-8")
    (tmp_path / "longer").write_text("this is longer than it was", encoding="utf-8")
    (tmp_path / "deep" / "removed").unlink()
    (tmp_path / "new").write_text("new", encoding="utf-8")
    kept.restore()
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.rglob("*") if path.is_file()} == {
        "kept": "this is kept",
        "changed": "this is changed",
        "removed": "this is deep/removed",
        "longer": "this is longer",
    }


def test_rows_tell_what_a_target_is_looked_up_in() -> None:
    seen = Seen()
    found = rows.Rows({5: [1, 99], 9: []}, seen.emit)
    logits = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    nats = found.direct(3, np.array([4, 5]), logits, torch.tensor([2, 0]), chances=False)
    assert nats == pytest.approx([-np.log(np.exp(3) / np.exp([1, 2, 3]).sum()), np.log(3)])
    [told] = seen.of("row")
    assert (told["position"], told["at"], told["target"]) == (5, 3, 0)
    assert (told["bits"], told["width"]) == (32, 3)
    # The one token of the place that is in the vocabulary, and all three of it as a sample.
    assert told["logs"] == pytest.approx([-np.log(3)] * 4, abs=1e-6)
    chances = torch.tensor([[0.2, 0.2, 0.0], [0.5, 0.25, 0.25]])
    nats = found.direct(4, np.array([9, -1]), chances, torch.tensor([0, 1]), chances=True)
    assert nats == pytest.approx([np.log(2), np.log(4)])
    assert None in seen.of("row")[1]["logs"]


def add_up(values: list[float]) -> float:
    total = 0.0
    for value in values:
        total -= value
    return total


def improved(values: list[float]) -> float:
    best = float("inf")
    for value in values:
        best = min(best, value)
    return best


def nested(values: list[float]) -> float:
    total = 0.0

    def add(value: float) -> None:
        nonlocal total
        total += value

    for value in values:
        add(value)
    return total


def in_place(values: list[float]) -> torch.Tensor:
    total = torch.zeros(())
    for value in values:
        total.add_(value)
    return total


def by_and_by(values: list[float]) -> Iterator[float]:
    total = 0.0
    for value in values:
        total += value
        yield total


def accounted(run: Callable[[], object]) -> tuple[Seen, Any]:
    """Run something whose accounts are followed."""
    seen = Seen()
    shard = positions.Shard(unlike(9))
    ledger = SimpleNamespace(sources=[], rows=None, shard=shard, folder=str(Path(__file__).parent))
    watch = accounts.Accounts(ledger, seen.emit)
    watch.install()
    try:
        run()
    finally:
        watch.finish()
    return seen, watch


@pytest.mark.parametrize(
    ("run", "function", "sign"),
    [
        (add_up, "add_up", -1),
        (nested, "nested", 1),
        (in_place, "in_place", 1),
        (lambda values: list(by_and_by(values)), "by_and_by", 1),
    ],
)
def test_accounts_are_numbers_that_grow_step_by_step(run: Any, function: str, sign: int) -> None:
    values = [1.0, 2.0, 0.5, 0.25, 3.0]
    seen, watch = accounted(lambda: run(values))
    [account] = [each for each in seen.of("account") if (each["function"], each["name"]) == (function, "total")]
    assert account["steps"] == [sign * value for value in values]
    assert account["total"] == sign * 6.75
    # What a function held is not held any longer when it has ended.
    assert not {frame.f_code.co_name for frame in watch._running} & {"add_up", "nested", "add", "in_place"}


@pytest.mark.parametrize("of", [np.asarray, torch.tensor], ids=["numpy", "torch"])
def test_an_array_that_adds_up_to_a_step_is_its_steps(of: Callable[[list[float]], Any]) -> None:
    values = [[1.0, 2.0, 0.5], [0.25, 3.0], [4.0], [1.5, 1.25], [0.75, 0.0]]

    def add_up_rows() -> float:
        total, other = 0.0, of([9.0, 9.0])
        for value in values:
            row = of(value)
            total -= float(row.sum())
        return total + float(other.sum())

    seen, _ = accounted(add_up_rows)
    [account] = [each for each in seen.of("account") if each["name"] == "total"]
    assert account["steps"] == [-each for value in values for each in value]
    assert account["pieces"] == [[0, 3], [3, 5], [6, 8], [8, 10]]
    assert account["total"] == -14.25


def test_pieces_are_of_one_array() -> None:
    exact, near = np.array([1.0, 2.0]), np.array([1.5, 1.5 + 3e-9])
    assert accounts._pieces([near, exact, "x", 3.0], 3.0, 1e-12) == [1.0, 2.0]
    assert accounts._pieces([exact, exact.copy(), torch.from_numpy(exact)], -3.0, 1e-12) == [-1.0, -2.0]
    assert accounts._pieces([near.astype(np.float32)], 3.0, 1e-12) == [1.5, 1.5]
    # The same numbers in another order, or their sums: which of them are the scores, nobody can tell.
    assert accounts._pieces([exact, exact[::-1]], 3.0, 1e-12) == []
    assert accounts._pieces([np.ones((3, 2)), np.full(3, 2.0)], 6.0, 1e-12) == []
    assert accounts._pieces([np.array([1.5, 1.6]), np.ones(5_000), np.arange(3)], 3.0, 1e-12) == []


def test_arrays_without_readable_numbers_are_passed_over() -> None:
    strange: list[Any] = [
        torch.ones(3, device="meta"),
        torch.ones(3).to_sparse(),
        np.array([math.inf, -math.inf]),
        np.array([math.nan, 1.0]),
        np.zeros(0),
        np.array(["a", "b"], dtype=object),
        torch.ones(3, requires_grad=True).to(torch.bfloat16),
    ]
    assert accounts._pieces(strange, 3.0, 1e-12) == [1.0, 1.0, 1.0]
    assert accounts._pieces(strange[:-1], 3.0, 1e-12) == []
    with np.errstate(all="raise"):
        assert accounts._pieces(strange[:-1], 3.0, 1e-12) == []

    def inside(x: torch.Tensor) -> torch.Tensor:
        assert accounts._pieces([x], 3.0, 1e-12) == []
        return x.sum()

    torch.func.vmap(inside)(torch.ones(2, 3))


def test_what_a_further_epoch_had_learned_is_no_score_s() -> None:
    watch = accounts.Accounts(SimpleNamespace(sources=[]), Seen().emit)
    learned = np.array([False, False, True, True])
    source = SimpleNamespace(at=7, targets=np.array([1, 2, 3, -1]), learned=learned, grad=False)
    assert watch._told(source) == [7, [[1, 4], [-1, 0]], [[2, 4]]]
    source.grad = True
    assert watch._told(source) == [7, [[1, 4], [-1, 0]], []]


def test_a_best_value_that_begins_at_infinity_makes_no_step_of_it() -> None:
    seen, _ = accounted(lambda: improved([9.0, 7.0, 5.0, 4.0, 3.5]))
    [account] = [each for each in seen.of("account") if each["name"] == "best"]
    assert account["steps"] == [-2.0, -2.0, -1.0, -0.5]


def test_a_copy_that_takes_too_long_is_ended() -> None:
    pid = os.fork()
    if pid == 0:
        import signal

        signal.pause()
        os._exit(0)
    assert forks.wait(pid, 0.1) is None
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    assert forks.wait(pid, 20) == 3


def plan(folder: Path, variants: list[dict[str, Any]], **flips: Any) -> dict[str, Any]:
    world = folder / "world"
    world.mkdir()
    write_tokens(world / "fineweb_val_000000.bin", unlike(SIZE))
    work = folder / "scratch" / "work"
    work.mkdir(parents=True)
    told = {
        "artifact": "model.ptz",
        "when": "read",
        "seconds": 60,
        "accounts": True,
        "watched": [100],
        "variants": variants,
    }
    return {
        "workdir": str(work),
        "copied": {str(world): str(work / "data")},
        "trace": True,
        "experiment": {"validation": [str(work / "data" / "fineweb_val_000000.bin")], "flips": told | flips},
    }


def test_each_copy_goes_on_with_one_thing_changed(tmp_path: Path) -> None:
    text = {"suffix": 200, "vocabulary": 512, "first": 8, "seed": 3}
    chosen: list[dict[str, Any]] = [
        {"name": "nothing"},
        {"name": "suffix", **text},
        {"name": "damaged", "artifact": True},
        {"name": "noise", "noise": True},
    ]
    ran = run(tmp_path, SCRIPT, **plan(tmp_path, chosen))
    assert ran.status == 0, ran.output
    ended = {event["name"]: event for event in ran.of("variant")}
    assert [event["status"] for event in ended.values()] == [0, 0, 1, 0]
    loss = ran.output.strip()
    # The log of each copy is its own.
    assert loss.endswith("log scored")
    assert ended["nothing"]["printed"].strip() == ended["noise"]["printed"].strip() == loss
    assert ended["suffix"]["printed"].strip() != loss
    assert [event["tensors"] for event in ran.of("noise")] == [1]
    told = {
        (event.get("variant"), place): value
        for event in ran.of("score")
        for place, value in zip(range(*event["positions"][0]), event["nll"], strict=True)
    }
    assert all(told[None, place] == told["nothing", place] for place in range(1, 400))
    assert all(told[None, place] == told["suffix", place] for place in range(1, 200))
    assert sum(told[None, place] != told["suffix", place] for place in range(200, 400)) > 150
    assert {event["position"] for event in ran.of("row")} == {100}


def test_copies_begin_where_the_artifact_is_written_if_it_is_never_read(tmp_path: Path) -> None:
    told = plan(tmp_path, [{"name": "nothing"}, {"name": "late"}], when="write", seconds=60)
    ran = run(tmp_path, SCRIPT, **told)
    assert [event["name"] for event in ran.of("variant")] == ["nothing", "late"]
    assert json.dumps(ran.of("forks")[0]["artifact"]) == '"model.ptz"'


def test_without_time_copies_are_left_out(tmp_path: Path) -> None:
    ran = run(tmp_path, SCRIPT, **plan(tmp_path, [{"name": "nothing"}], seconds=0.5))
    assert [event["ended"] for event in ran.of("variant")] == ["left out"]
    assert ran.status == 0
