"""Whole evaluations of which the best is reported, and what only looks like that."""

from __future__ import annotations

import pytest

from harness.analysis.bestof import best_scores
from tests.test_analysis_configuration import program

SCRIPT = """
    def eval_plain(model, tokens):
        return 1.0, 2.0

    def eval_adapted(model, tokens):
        return 1.0, 2.0

    def main(model, tokens, log, results, sizes):
        plain_loss, plain_bpb = eval_plain(model, tokens)
        adapted_loss, adapted_bpb = eval_adapted(model, tokens)
        val_bpb = plain_bpb
        {choice}
        {shown}
"""
FINAL = 'log(f"final_roundtrip val_bpb:{val_bpb:.4f}")'


@pytest.mark.parametrize(
    ("choice", "shown", "found"),
    [
        ("val_bpb = min(plain_bpb, adapted_bpb)", FINAL, 1),
        ("val_bpb = plain_bpb if plain_bpb < adapted_bpb else adapted_bpb", FINAL, 1),
        ("method, val_bpb = min(results, key=lambda pair: pair[1])", FINAL, 1),
        # Printed beside the score, under another name; not printed.
        ("best_bpb = min(plain_bpb, adapted_bpb)", FINAL + '; log(f"best of both bpb:{best_bpb}")', 0),
        ("val_bpb = min(plain_bpb, adapted_bpb)", "pass", 0),
        # The best so far, a bound, one evaluation against itself, and a choice by something else.
        ("val_bpb = min(val_bpb, adapted_bpb)", FINAL, 0),
        ("val_bpb = min(adapted_bpb, 9.9)", FINAL, 0),
        ("val_bpb = min(adapted_bpb, adapted_loss)", FINAL, 0),
        ("val_bpb = plain_bpb if results else adapted_bpb", FINAL, 0),
        ("val_bpb = plain_bpb if len(plain_bpb) < len(adapted_bpb) else adapted_bpb", FINAL, 0),
        # The shortest archive, and the best of one list of numbers.
        ("method, blob = min(sizes, key=lambda pair: len(pair[1]))", 'log(f"final size:{len(blob)}")', 0),
        ("val_bpb = min(results)", FINAL, 0),
    ],
)
def test_the_best_of_whole_evaluations(choice: str, shown: str, found: int) -> None:
    assert len(list(best_scores(program(SCRIPT.format(choice=choice, shown=shown))))) == found
