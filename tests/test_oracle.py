"""What `nox -s oracle` checks, with stand-ins for the packages' reference functions: right ones, and wrong ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests import standins
from tests.oracle import CONV_SHAPES, SCAN_SHAPES, TOLERANCE, conv_deviation, deviations, report, scan_deviation


def scan(u: Tensor, delta: Tensor, *rest: Any, **named: Any) -> tuple[Tensor, Tensor]:
    """As the stand-in, with a last state that has a gradient."""
    y, _ = standins.selective_scan_fn(u, delta, *rest, **named)
    rates, b, *_ = rest
    steps, state = torch.nn.functional.softplus(delta), torch.zeros(*u.shape[:2], rates.shape[1])
    for t in range(u.shape[2]):
        entering = (steps[:, :, t] * u[:, :, t])[..., None] * b[:, None, :, t]
        state = torch.exp(steps[:, :, t, None] * rates) * state + entering
    return y, state


def wrong_scan(u: Tensor, delta: Tensor, *rest: Any, **named: Any) -> tuple[Tensor, Tensor]:
    return scan(u, delta * 1.0001, *rest, **named)


def conv(x: Tensor, weight: Tensor, bias: Tensor, initial_states: Tensor, **named: Any) -> Any:
    if x.shape[1] % 8 == 0 and weight.shape[1] <= 4:
        states = initial_states.transpose(1, 2).contiguous().transpose(1, 2)
        return standins.causal_conv1d_fn(x, weight, bias, initial_states=states, **named)
    joined = torch.cat((initial_states, x), 2)
    y = torch.nn.functional.conv1d(joined, weight[:, None], bias, groups=len(weight))
    return torch.nn.functional.silu(y), joined[:, :, joined.shape[2] - weight.shape[1] + 1 :]


def test_right_functions_are_within_the_tolerance_and_wrong_ones_are_not() -> None:
    assert scan_deviation(scan, SCAN_SHAPES[1], "torch") <= TOLERANCE
    assert scan_deviation(wrong_scan, SCAN_SHAPES[1], "torch") > TOLERANCE
    assert conv_deviation(conv, CONV_SHAPES[2]) <= TOLERANCE
    assert conv_deviation(lambda x, w, *rest, **named: conv(x, w * 1.0001, *rest, **named), CONV_SHAPES[2]) > TOLERANCE


def test_the_report_names_every_check_and_fails_on_a_large_or_undefined_deviation(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.oracle.SCAN_SHAPES", SCAN_SHAPES[:2])
    found = deviations(scan, conv)
    assert report(found) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in found)
    assert "scan torch     B, T, D, N = (2, 7, 5, 3)" in printed
    assert report({**found, "x": 2e-5}) == report({"x": float("nan")}) == 1
