"""Which code makes scores, whatever its functions are called."""

from __future__ import annotations

import ast

import pytest

from harness.analysis.scoring import is_scoring
from tests.test_analysis_configuration import program

SCRIPT = """
    import torch
    def hashed(x): return mark(x)
    def whole(model, tokens): return hashed(tokens)
    def other(x): return mark_other(x)
    def learn(model): other(model).backward()
    def main():
        model = learn(1)
        loss, bpb = whole(model, tokens)
        print(f"final val_bpb:{bpb:.4f}")
    main()
"""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (True, False)),
        ({"val_bpb": "steps"}, (False, False)),
        ({"def other": "def evaluate_other"}, (True, True)),
        ({"return mark_other(x)": "\n        with torch.no_grad(): return mark_other(x)"}, (True, True)),
        ({"whole": "train_all"}, (False, False)),  # what returns the score of a training does more than score
    ],
)
def test_what_is_printed_as_a_score_makes_scores(changes: dict[str, str], expected: tuple[bool, bool]) -> None:
    source = SCRIPT
    for old, new in changes.items():
        source = source.replace(old, new)
    made = program(source)
    marks = [next(iter(made.entry.calls(name))) for name in ("mark", "mark_other")]
    assert all(isinstance(mark, ast.Call) for mark in marks)
    assert tuple(is_scoring(made.entry, mark, made) for mark in marks) == expected
