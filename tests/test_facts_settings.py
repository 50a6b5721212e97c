"""Settings that a README states plainly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.facts.settings import stated_settings


def stated(text: str) -> dict[str, tuple[float, int | None]]:
    found = stated_settings(text, "README.md")
    return {each.value.key: (each.value.value, each.location.line) for each in found}


def test_commands_and_tables_state_settings() -> None:
    text = "NUM_LAYERS=11 MATRIX_LR=2.5e-2 \\\n  MODEL_DIM='512' torchrun train_gpt.py\n| Vocab size | 1,024 |\n"
    assert stated(text) == {
        "num_layers": (11, 1),
        "matrix_lr": (0.025, 1),
        "model_dim": (512, 2),
        "vocab_size": (1024, 3),
    }


@pytest.mark.parametrize(
    "line",
    [
        "We tried `MODEL_DIM=480`, which broke.",
        "- **MODEL_DIM=480**: no gain",
        "| `TTT_DECAY=0.3` | 1.055 |",
        "BACKOUT_LAYER=-1",
        "SEED=7 torchrun train_gpt.py",
        "NAME=value PATH=./x.1",
        "LAYERS=4,5 python train_gpt.py",
        "TRAIN_SEQ_SCHEDULE=1024@0.1,2048@0.7 python train_gpt.py",
        "CHUNK_SIZES=100:2000 python train_gpt.py",
        "| Layers | 11 | 12 |",
        "| Heads of state | 11 |",
        "A=1",
    ],
)
def test_what_is_no_plain_statement(line: str) -> None:
    assert stated(line) == {}


def test_a_setting_with_several_values_is_left_out() -> None:
    assert stated("NUM_LAYERS=11\nNUM_LAYERS=9\n") == {}


@given(st.text(max_size=200))
def test_any_text_is_read(text: str) -> None:
    found = stated_settings(text, "README.md")
    assert all(each.location.line is not None and each.location.line <= text.count("\n") + 1 for each in found)


def test_long_lines_do_not_take_long() -> None:
    assert stated("A_B=1" * 100_000 + "!") == {}
    assert stated("AB= " * 100_000 + "!") == {}
    assert stated("AB=" * 300 + " x") == {}
