"""Which ends of a first run may come of its small sizes, and are tried once more with larger ones."""

from __future__ import annotations

import dataclasses

import pytest

from harness.probe.miniature import Miniature
from harness.probe.probing import _may_be_too_small
from harness.probe.world import Spec
from tests.proberuns import crashed

SMALL = Miniature()


@pytest.mark.parametrize(
    ("blame", "kind", "again"),
    [
        ("unknown", "KeyError", True),
        ("unknown", "ModuleNotFoundError", False),
        # A stand-in hands on what torch says of the sizes; what it refuses, it refuses at any.
        ("shim", "RuntimeError", True),
        ("shim", "RefusedError", False),
        ("script", "RuntimeError", False),
        ("script", "NameError", False),
    ],
)
def test_a_crash_is_tried_again_where_sizes_may_cause_it(blame: str, kind: str, again: bool) -> None:  # noqa: FBT001
    assert _may_be_too_small(crashed(blame, kind), SMALL, SMALL) is again


def test_a_larger_vocabulary_is_tried_where_no_score_is_printed() -> None:
    larger = dataclasses.replace(SMALL, spec=Spec(vocabulary=8192))
    assert _may_be_too_small(crashed("shim", "RefusedError"), SMALL, larger)
    assert not _may_be_too_small(crashed("script", "NameError"), SMALL, larger)
