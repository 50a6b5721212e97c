"""What a folder says of itself beside scores and sizes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness.facts import build_statements, submission
from harness.facts.statements import StatementFacts

SCRIPT = """import os
class Hyperparameters:
    num_layers = int(os.environ.get("NUM_LAYERS", 9))
    ttt_enabled, ttt_epochs = True, 3
print(Hyperparameters.num_layers)
"""


def statements(where: Path, readme: str = "# A run\n", script: str = SCRIPT, **document: Any) -> StatementFacts:
    (where / "README.md").write_text(readme, encoding="utf-8")
    (where / "submission.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    (where / "train_gpt.py").write_text(script, encoding="utf-8")
    return submission.read(where).statements


@pytest.mark.parametrize(
    ("readme", "document", "said"),
    [
        ("# A run\n", {"track": "10min_16mb"}, []),
        ("# A run\n", {"track": "non_record_16mb"}, ["track is non_record_16mb"]),
        ("# A run\n", {"is_record": False}, ["is_record is false"]),
        ("# A run\n", {"is_record": True, "notes": {"non_record": True}}, ["non_record is true"]),
        ("# [Non-Record] A run\n", {}, ["the title is [Non-Record] A run"]),
        ("# A run\n\n## Why non-record runs matter\n", {}, []),
        ("# A run\n\n**Non-record submission** | 1.15\n", {}, ["the README begins with Non-record submission"]),
        ("# A run\n\nNo Non-record submission is meant.\n", {}, []),
        ("# A run\n\n## Notes\n\nNon-record submission of a friend.\n", {}, []),
    ],
)
def test_a_folder_says_which_track_it_is_for(
    tmp_path: Path, readme: str, document: dict[str, Any], said: list[str]
) -> None:
    assert [each.value for each in statements(tmp_path, readme, **document).non_record] == said


@pytest.mark.parametrize(
    ("readme", "blurb", "said"),
    [
        ("# A run\n", "A smoke test on one T4.", ["smoke test"]),
        ("# A run\n\nThe goal is not a leaderboard claim.\n", "", ["not a leaderboard claim"]),
        ("# H100 proxy run\n", "Non-record smoke", ["smoke", "proxy run"]),
        ("# A run\n", "Proxy-free smoked attention", []),
        ("# A run\n" + "\n" * 60 + "A smoke test came first.\n", "", []),
    ],
)
def test_a_folder_that_calls_itself_a_trial(tmp_path: Path, readme: str, blurb: str, said: list[str]) -> None:
    assert [each.value for each in statements(tmp_path, readme, blurb=blurb).trial] == said


def test_seeds_are_spoken_of_in_texts(tmp_path: Path) -> None:
    found = statements(
        tmp_path, "# A run of seed 9\n", blurb="8xH100, seed 7, best of seed=42", notes={"more": "SEED: 1337"}
    )
    assert [each.value for each in found.seeds] == [7, 42, 1337]
    assert statements(tmp_path, "# A run\n", blurb="3 seeds, seeded 7, no-seed 8, seed one").seeds == ()


def test_parameters_are_stated_in_two_places(tmp_path: Path) -> None:
    found = statements(tmp_path, "# A run\n\n| A | B |\n|--|--|\n| Parameters | 27.2M |\n", num_parameters=27_161_151)
    assert [(each.value.value, each.value.unit) for each in found.parameters] == [
        (27_161_151.0, 1.0),
        (27_200_000.0, 100_000.0),
    ]
    assert [str(each.location) for each in found.parameters] == ["submission.json#/num_parameters:2", "README.md:5"]


COMMAND = "# A run\n\n```\nEMA_ENABLED=1 NUM_LAYERS=9 NCCL_DEBUG=1 torchrun train_gpt.py\n```\n"


def test_variables_that_no_script_names_are_unread(tmp_path: Path) -> None:
    [launch] = statements(tmp_path, COMMAND).launches
    assert (launch.value.script, launch.value.shipped, launch.value.unread) == ("train_gpt.py", True, ("EMA_ENABLED",))
    assert launch.location.line == 4


@pytest.mark.parametrize(
    ("readme", "script"),
    [
        (COMMAND, "import runpy\nrunpy.run_path('other.py')\n"),  # hands the environment on
        (COMMAND, "import os\nprint(os.environ['ema_enabled'.upper()])\n"),
        (COMMAND.replace("torchrun", "torchrun --x=$EMA_ENABLED"), SCRIPT),
        (COMMAND.replace("train_gpt.py", "absent.py"), SCRIPT),
    ],
)
def test_what_may_be_read_is_not_unread(tmp_path: Path, readme: str, script: str) -> None:
    [launch] = statements(tmp_path, readme, script).launches
    assert "EMA_ENABLED" not in launch.value.unread


def test_a_stated_setting_that_the_script_only_sets_is_idle(tmp_path: Path) -> None:
    found = statements(tmp_path, hyperparameters={"num_layers": 9, "ttt_epochs": 3, "ttt_enabled": False, "other": 4})
    [(stated, field)] = found.idle
    assert (stated.value, str(stated.location)) == (
        "ttt_epochs is 3",
        "submission.json#/hyperparameters/ttt_epochs:4",
    )
    assert str(field.location) == "train_gpt.py:4"


def test_a_setting_that_is_read_anywhere_is_not_idle(tmp_path: Path) -> None:
    used = SCRIPT + "def adapt(ttt_epochs):\n    return ttt_epochs\n"
    assert statements(tmp_path, script=used, hyperparameters={"ttt_epochs": 3}).idle == ()


def test_many_values_and_objects_are_read_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_statements, "VALUES_LIMIT", 3)
    document: dict[str, Any] = {"a": 1, "b": 2, "inner": {"num_params": 7}, "c": 3, "model_params": 5}
    assert statements(tmp_path, **document).parameters == ()
    del document["b"], document["c"]
    assert [each.value.value for each in statements(tmp_path, **document).parameters] == [5.0, 7.0]


def test_only_names_that_a_class_sets_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def escape(name: str) -> str:
        looked.append(name)
        return name

    monkeypatch.setattr(re, "escape", escape)
    notes: dict[str, Any] = {f"note{number}": number for number in range(1, 50)}
    statements(tmp_path, ttt_epochs=3, **notes)
    assert looked.count("ttt_epochs") == 1
    assert not any(name.startswith("note") for name in looked)
