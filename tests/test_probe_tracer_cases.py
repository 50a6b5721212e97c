"""Pairs of scripts, legal and illegal, under the tracer: which of them the ledger alone tells apart."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.compose import Case, compose, packed
from tests.tracing import VOCABULARY, Seen, traced, unlike, write_tokens

LEARNED = [
    "sgd_before_score",
    "gradient_in_place",
    "later_epoch",
    "two_passes",
    "slot",
    "slot_shared",
    "phased",
    "warm_up",
]
CLEAN = ["part_of_validation", "carried_state", "double_spaces", "look_ahead", "pair_embedding", "unnormalized_counts"]
SIZE = 700


class Pieces:
    """A tokenizer without a file."""

    def __init__(self, **_: Any) -> None:
        self.is_control = self.is_unknown = self.is_unused = lambda token: token < 4
        self.is_byte = lambda token: 4 <= token < 20

    def vocab_size(self) -> int:
        return VOCABULARY

    def id_to_piece(self, token: int) -> str:
        return ("\u2581" if token % 3 else "") + "abcdefgh"[: token % 7 + 1]


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a script; returns its events and what it printed."""
    shard = write_tokens(tmp_path / "fineweb_val_000000.bin", unlike(SIZE))
    train = np.random.default_rng(5).integers(8, VOCABULARY, 20_000)
    write_tokens(tmp_path / "fineweb_train_000000.bin", train)
    settings = {"DATA_PATH": tmp_path, "VOCAB_SIZE": VOCABULARY, "ITERATIONS": 2, "TRAIN_SEQ_LEN": 32}
    for name, value in {**settings, "TRAIN_BATCH_TOKENS": 64, "MODEL_DIM": 16, "TOKENIZER_PATH": "none"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    monkeypatch.setitem(__import__("sys").modules, "sentencepiece", SimpleNamespace(SentencePieceProcessor=Pieces))

    def run(case: Case, source: str = "") -> tuple[Seen, str]:
        path = tmp_path / "scripts" / "train_gpt.py"
        text = (source or compose(case)).replace("torch.device('cuda')", "torch.device('cpu')")
        text = packed(text) if source == "packed" else text
        code = compile(text, str(path), "exec")
        names = {"__name__": "__main__"}
        events = traced(shard, lambda: exec(code, names), str(path))  # noqa: S102 - a case of our own
        return events, capsys.readouterr().out

    return run


@pytest.mark.parametrize("name", LEARNED)
def test_what_is_learned_before_it_is_scored_is_seen(seen: Any, name: str) -> None:
    events, printed = seen(Case(name, "illegal"))
    (mine,) = events.bound(printed)
    assert mine["learned_before"] > 0
    early = [event for event in events.of("score") if event["pass"] == mine["pass"] and event["learned"]]
    first = early[0]
    # The events alone say the same: an earlier update with one of the places.
    places = {place for a, b in first["learned"] for place in range(a, b)}
    updates = [event for event in events.of("update") if event["at"] < first["at"]]
    used = {place for event in updates for a, b in event["positions"] + event["inputs"] for place in range(a, b)}
    assert places <= used
    assert not events.of("lost")


@pytest.mark.parametrize("name", [*LEARNED, *CLEAN])
def test_no_legal_twin_is_accused(seen: Any, name: str) -> None:
    events, printed = seen(Case(name, "legal"))
    (mine,) = events.bound(printed)
    assert mine["learned_before"] == 0
    assert (mine["missing"], mine["doubled"], mine["unknown"], mine["count"]) == ([], [], 0, SIZE - 1)
    assert not events.of("lost")


def test_half_of_the_text_is_half_covered(seen: Any) -> None:
    events, printed = seen(Case("part_of_validation", "illegal"))
    (mine,) = events.bound(printed)
    assert mine["missing"] == [[SIZE // 2, SIZE]]


def test_the_lower_of_two_losses_is_told(seen: Any) -> None:
    events, printed = seen(Case("minimum_of_two", "illegal"))
    assert "minimum" in events.bound(printed)[0]["forms"]
    events, printed = seen(Case("minimum_of_two", "legal"))
    assert "minimum" not in events.bound(printed)[0]["forms"]


def test_scores_during_the_making_of_the_artifact_come_first(seen: Any) -> None:
    events, printed = seen(Case("calibration", "illegal"))
    (mine,) = events.bound(printed)
    others = [each for each in events.of("pass") if each["last"] < mine["first"]]
    assert len(others) == 20
    assert not seen(Case("calibration", "legal"))[0].of("pass")[1:]


def test_thrown_away_learning_returns_to_an_earlier_checksum(seen: Any) -> None:
    events, _ = seen(Case("warm_up", "legal"))
    weights = [event["weights"] for event in events.of("update")]
    assert len(weights) == 2
    assert not {event["weights"] for event in events.of("score")} & set(weights)
    events, _ = seen(Case("warm_up", "illegal"))
    assert events.of("score")[0]["weights"] == events.of("update")[-1]["weights"]


def test_files_are_told_once_for_each_phase(seen: Any) -> None:
    events, _ = seen(Case("validation_in_training", "illegal"))
    opened = [(event["path"].rpartition("/")[2], event["phase"]) for event in events.of("file")]
    assert ("fineweb_val_000000.bin", "start") in opened
    assert len(set(opened)) <= len(opened)
    events, _ = seen(Case("validation_in_training", "legal"))
    opened = [(event["path"].rpartition("/")[2], event["phase"]) for event in events.of("file")]
    assert ("fineweb_val_000000.bin", "start") not in opened
    modes = {event["path"].rpartition("/")[2]: event["mode"] for event in events.of("file")}
    assert modes["final_model.int8.ptz"] in {"r", "rb", "w", "wb"}


def test_phases_are_numbered_by_training_and_first_score(seen: Any) -> None:
    events, _ = seen(Case("slot", "legal"))
    training, evaluation = events.of("phase")
    assert (training["name"], training["steps"], evaluation["name"]) == ("training", 2, "evaluation")
    assert training["ends"] < evaluation["begins"]
