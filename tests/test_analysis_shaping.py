"""Logits that are changed at their own target: what is such a change, and what only marks the target."""

from __future__ import annotations

import pytest

from harness.analysis.shaping import shaped
from tests.test_analysis_configuration import program

SCRIPT = """
    import numpy as np, torch, torch.nn.functional as F
    def evaluate(model, x, targets, prev, V):
        logits = model(x)
        {mark}
        {change}
        {end}
        return loss.sum()
"""
SPARED = "unlikely = logits < -9.0; safe = targets.clamp(min=0); unlikely.scatter_(-1, safe.unsqueeze(-1), False)"
MADE = "hot = torch.zeros_like(logits).scatter(2, targets[..., None], 1.0)"
HOT = "hot = F.one_hot(targets.long(), V).float()"
ROWS = "rows = torch.arange(8); hot = torch.zeros(8, V); hot[rows, targets] = 1.0"
MASKED = "out = logits.masked_fill(unlikely, -1e9)"
MOVED = "out = logits + 2.0 * hot"
LOSS = "loss = F.cross_entropy(out.flatten(0, 1), targets.reshape(-1), reduction='none')"
PICKED = "loss = -out.log_softmax(-1).gather(-1, targets.unsqueeze(-1))"


def count(mark: str, change: str, end: str) -> int:
    return len(list(shaped(program(SCRIPT.format(mark=mark, change=change, end=end)))))


@pytest.mark.parametrize(
    ("mark", "change", "end", "found"),
    [
        (SPARED, MASKED, LOSS, 1),
        (SPARED, "out = torch.where(~unlikely, logits, -1e9)", PICKED, 1),
        (MADE, MOVED, LOSS, 1),
        (HOT, MOVED, PICKED, 1),
        (HOT, "out = 2 * (logits - 0.1 * (logits.sigmoid() - hot))", LOSS, 1),
        (ROWS, "out = logits * (1 + hot)", PICKED, 1),
        ("rows = torch.arange(8)", "logits[rows, targets] += 1.0; out = logits", LOSS, 1),
        ("pass", "out = logits + F.one_hot(targets, V)", LOSS, 1),
        ("logits.scatter_add_(-1, targets[..., None], gain)", "out = logits", LOSS, 1),
        ("out = logits.scatter_add(-1, prev[..., None], gain)", "pass", PICKED, 0),
        # The same of the token before; of a part of the targets, which may be shifted; of nothing.
        (SPARED.replace("targets", "prev"), MASKED, LOSS, 0),
        (SPARED.replace("targets.clamp(min=0)", "targets[:, :-1]"), MASKED, LOSS, 0),
        (SPARED, "out = logits", LOSS, 0),
        # The one-hot row picks the loss, is a soft label or a gradient, or comes after the score.
        (HOT, "out = logits", "loss = -(out.log_softmax(-1) * hot).sum(-1)", 0),
        (HOT, "out = logits", "loss = F.cross_entropy(out, hot)", 0),
        (HOT, "out = logits; step = logits.softmax(-1) - hot", LOSS, 0),
        ("out = logits", LOSS, HOT + "; other = logits + hot", 0),
        # A look-up of the context, and a sum over the marks.
        (HOT, "out = logits + hot.sum(0)", LOSS, 0),
        (HOT, "if model.training: out = logits\n        out = logits", LOSS, 0),
    ],
)
def test_a_change_at_the_target(mark: str, change: str, end: str, found: int) -> None:
    assert count(mark, change, end) == found


def test_what_a_loop_adds_after_the_score_is_no_change_before_it() -> None:
    source = """
        def evaluate(model, chunks, V):
            bias = torch.zeros(V)
            for x, y in chunks:
                logits = model(x)
                out = logits + bias
                loss = F.cross_entropy(out, y, reduction="none")
                bias = bias + 0.1 * F.one_hot(y, V)
    """
    assert not list(shaped(program(source)))


@pytest.mark.parametrize(
    ("guard", "caller", "found"),
    [
        ("if True", "evaluate", 1),
        ("if self.training", "evaluate", 0),
        ("if True", "train", 0),
    ],
)
def test_a_loss_of_the_model_counts_where_scoring_code_calls_it(guard: str, caller: str, found: int) -> None:
    source = f"""
        class Model:
            def losses(self, x, labels):
                logits = self.head(x)
                {guard}:
                    logits = logits - 0.3 * F.one_hot(labels, 64)
                return F.cross_entropy(logits, labels, reduction="none")

        def {caller}(model, x, y):
            ask = torch.compile(model.losses)
            return ask(x, y).mean()
    """
    assert len(list(shaped(program(source)))) == found


def test_the_steps_are_in_order() -> None:
    (found,) = shaped(program(SCRIPT.format(mark=SPARED, change=MASKED, end=LOSS)))
    assert [step.location.line for step in found.steps] == [5, 6, 7]
