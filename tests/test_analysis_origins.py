"""Where data comes from when the run gives an environment variable its file pattern."""

from __future__ import annotations

import ast

import pytest

from harness.analysis.answers import Stated
from harness.analysis.configuration import Configuration
from harness.analysis.origins import TRAINING, VALIDATION, Origins
from harness.analysis.reach import Reach
from harness.model import Location
from tests.test_analysis_configuration import program, stated

SCRIPT = """
import os
class Settings:
    folder = os.environ.get("DATA_PATH", "data")
    files = os.environ.get("TRAIN_FILES", os.path.join(folder, "fineweb_train_*.bin"))
args = Settings()
batch = read(args.files)
"""


def origins(evidence: Stated) -> dict[str, Location | None]:
    made = program(SCRIPT)
    configuration = Configuration(made, evidence)
    reach = Reach(made, configuration)
    module = made.entry
    call = next(each for each in module.calls("read"))
    assert isinstance(call, ast.Call)
    found = Origins(made, reach.skipped, configuration.stated).of(call, module.scope_of(call))
    return {label.kind: label.place for label in found}


@pytest.mark.parametrize(
    ("evidence", "kind", "path"),
    [
        (stated(), TRAINING, "train_gpt.py"),
        (stated(commanded={"TRAIN_FILES": "fineweb_val_*.bin"}), VALIDATION, "README.md"),
        (stated({"train_files": "/data/fineweb_val_*.bin"}), VALIDATION, "train.log"),
        (stated({"train_files": "data/fineweb_train_*.bin"}, {"TRAIN_FILES": "fineweb_val_*"}), TRAINING, "train.log"),
        # Neither a pattern nor the variable, nor one value of it.
        (stated(commanded={"TRAIN_FILES": "shards"}), TRAINING, "train_gpt.py"),
        (stated(commanded={"VAL_FILES": "fineweb_val_*.bin"}), TRAINING, "train_gpt.py"),
        (stated(None, {"TRAIN_FILES": "fineweb_val_*.bin"}, "train_files"), TRAINING, "train_gpt.py"),
    ],
)
def test_the_pattern_that_the_run_was_given_goes_before_the_default(evidence: Stated, kind: str, path: str) -> None:
    found = origins(evidence)
    assert list(found) == [kind]
    place = found[kind]
    assert place is not None
    assert place.path == path
