"""Losses dropped where a stored or guessed token is right, and masks that are none of it."""

from __future__ import annotations

import pytest

from harness.analysis.freehits import free_hits
from tests.test_analysis_configuration import program

SCRIPT = """
    import torch
    def eval_all(net, held, stored, pad):
        nll_sum = loss_sum = 0.0
        for at in range(0, 100, 10):
            x, y = held[at : at + 10], held[at + 1 : at + 11]
            nll = net(x, y)
            {lines}
            nll_sum += nll.sum()
        return nll_sum
"""
GUESS = "guess = stored[at : at + 10]"
FREE = {
    "a store": (GUESS, "hit = guess == y[:10]", "nll[hit] = 0.0"),
    "a product": (GUESS, "targets = y[:10]", "same = targets == guess", "nll *= (~same).float()"),
    "a part": ("hit = stored[at : at + 5] == y[:5]", "nll[:5] *= 1 - hit.float()"),
    "a fill": ("ok = torch.eq(stored[at : at + 5], y[:5])", "nll.masked_fill_(ok, 0.0)"),
    "a choice": ("ok = stored[at : at + 5].eq(y[:5])", "nll = torch.where(ok, torch.zeros_like(nll), nll)"),
    "a flat part": (GUESS, "hit = guess == y.reshape(-1)[:10]", "nll[hit] = 0.0", "add = nll.sum()", "loss_sum += add"),
    "misses kept": ("miss = stored[at : at + 5] != y[:5]", "nll = torch.where(miss, nll, 0.0)"),
    "misses multiplied": ("miss = stored[at : at + 5] != y[:5]", "nll = nll * miss"),
    "at once": ("nll[stored[at : at + 5] == y[:5]] = 0.0",),
}
PAID = {
    "padding": ("hit = y[:5] == pad", "nll[hit] = 0.0"),
    "a price": (GUESS, "hit = guess == y[:10]", "nll[hit] = 0.01"),
    "a price for all": (GUESS, "hit = guess == y[:10]", "nll[hit] = 0.0", "nll += 0.1"),
    "a price behind": (GUESS, "hit = guess == y[:10]", "nll[hit] = 0.0", "nll = torch.where(hit, nll + 0.1, nll + 2)"),
    "misses dropped": (GUESS, "hit = guess == y[:10]", "nll *= hit"),
    "another sum before": (GUESS, "hit = guess == y[:10]", "nll_sum += nll.sum()", "nll[hit] = 0.0"),
    "a count of hits": (GUESS, "hit = guess == y[:10]", "count = hit.sum()"),
    "another tensor": (GUESS, "hit = guess == y[:10]", "weights = torch.ones(10)", "weights[hit] = 0.0"),
}


def count(lines: tuple[str, ...], name: str = "eval_all") -> int:
    return len(list(free_hits(program(SCRIPT.format(lines="\n            ".join(lines)).replace("eval_all", name)))))


@pytest.mark.parametrize("lines", FREE.values(), ids=FREE)
def test_a_loss_dropped_where_a_guess_is_right(lines: tuple[str, ...]) -> None:
    assert count(lines) == 1


@pytest.mark.parametrize("lines", PAID.values(), ids=PAID)
def test_what_pays_for_its_misses_or_is_no_guess(lines: tuple[str, ...]) -> None:
    assert count(lines) == 0


def test_training_may_leave_tokens_out() -> None:
    assert count(FREE["a part"], "fit") == 0
