"""The artifact under other validation text."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from harness.probe.experiments.noninterference import AGAIN, OTHER_AGAIN, judge, other_world
from harness.probe.miniature import Miniature
from harness.probe.session import MiniatureRun
from harness.probe.world import Spec, write_world
from harness.sources.shards import document_starts, read_tokens
from tests.proberuns import wrote


def found_by_size(digest: str) -> MiniatureRun:
    run = wrote(digest, size=None, sizes={900})
    return dataclasses.replace(run, files={"work/final_model.ptz": (digest, 900)})


@pytest.mark.parametrize(
    ("first", "second", "repeated", "result"),
    [
        (wrote("a"), wrote("a"), [], "same"),
        (wrote("a"), wrote("b"), [wrote("a"), wrote("b")], "depends"),
        # Once in a while it is another: the run with other text may have been that one.
        (wrote("a"), wrote("b"), [wrote("a"), wrote("a")], "unclear"),
        (wrote("a"), wrote("b"), [wrote("c")], "unclear"),
        (wrote("a"), wrote("b"), [wrote(None)], "unclear"),
        (wrote(None), wrote("b"), [], "unclear"),
        (wrote("a"), wrote("b", size=None), [], "unclear"),
        # A file that was found by some number that has its size may be no artifact.
        (found_by_size("a"), found_by_size("a"), [], "same"),
        (found_by_size("a"), found_by_size("b"), [found_by_size("a"), found_by_size("b")], "unclear"),
    ],
)
def test_artifacts_are_compared_and_runs_repeated_only_where_they_differ(
    first: MiniatureRun, second: MiniatureRun, repeated: list[MiniatureRun], result: str
) -> None:
    runs = dict(zip((AGAIN, OTHER_AGAIN), repeated, strict=False))
    assert judge(first, second, runs.__getitem__).result == result


def test_the_other_text_stands_in_the_same_documents(tmp_path: Path) -> None:
    spec = Spec(vocabulary=256 + 4, train_tokens=3_000)
    made = write_world(tmp_path / "data", spec, tmp_path / "kept")
    other = other_world(made, Miniature(spec=spec), tmp_path / "other", tmp_path / "kept")
    first, second = (read_tokens(each.shards / "fineweb_val_000000.bin") for each in (made, other))
    assert np.array_equal(document_starts(first), document_starts(second))
    assert first.size == second.size
    assert (first != second).mean() > 0.5
