"""The end of a run, the learning rate's way there, momentum, and the corrected average."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reference_model.config import OptimConfig, TrainConfig
from reference_model.schedule import ExponentialAverage, Schedule, muon_momentum

TIMED = Schedule(iterations=20_000, max_wallclock_seconds=60.0, warmdown_iters=100, warmdown_shape="linear")
FIXED = Schedule(iterations=50, max_wallclock_seconds=0.0, warmdown_iters=20, warmdown_shape="linear")


def test_timed_warmdown_by_hand() -> None:
    # 0.2 s per step: the warmdown takes 20 s, so that it begins after 40 s.
    assert TIMED.factor(200, 40.0) == 1.0
    assert TIMED.factor(250, 50.0) == pytest.approx(0.5)
    assert TIMED.factor(290, 58.0) == pytest.approx(0.1)


def test_fixed_warmdown_by_hand() -> None:
    assert FIXED.factor(30, 0.0) == 1.0
    assert FIXED.factor(40, 0.0) == 0.5
    assert FIXED.factor(49, 0.0) == pytest.approx(0.05)


def test_cosine_by_hand() -> None:
    cosine = Schedule(50, 0.0, 20, "cosine")
    assert cosine.factor(40, 0.0) == pytest.approx(0.5)
    assert cosine.factor(45, 0.0) == pytest.approx(0.5 * (1 - math.cos(math.pi / 4)))


def test_a_step_limit_also_ends_a_timed_run() -> None:
    both = Schedule(iterations=100, max_wallclock_seconds=60.0, warmdown_iters=20, warmdown_shape="linear")
    assert both.factor(90, 0.9) == pytest.approx(0.5)
    assert both.is_over(100, 1.0)


def test_fraction_of_the_run_by_hand() -> None:
    timed = Schedule(20_000, 60.0, 100, "linear", warmdown_frac=0.5)
    assert timed.factor(7, 15.0) == 1.0
    assert timed.factor(7, 45.0) == pytest.approx(0.5)
    fixed = Schedule(40, 0.0, 100, "linear", warmdown_frac=0.5)
    assert fixed.factor(20, 0.0) == 1.0
    assert fixed.factor(30, 0.0) == pytest.approx(0.5)


def test_end_of_a_run() -> None:
    assert not TIMED.is_over(19_999, 59.9)
    assert TIMED.is_over(5, 60.0)
    assert TIMED.is_over(20_000, 1.0)
    assert not FIXED.is_over(49, 1e9)
    assert FIXED.is_over(50, 0.0)


@given(
    st.integers(0, 10_000),
    st.floats(0.0, 1000.0),
    st.integers(0, 5_000),
    st.sampled_from(["linear", "cosine"]),
    st.sampled_from([0.0, 600.0]),
    st.sampled_from([0.0, 0.3, 1.0]),
)
def test_rate_is_positive_while_the_run_lasts(
    step: int, elapsed: float, warmdown: int, shape: str, cap: float, fraction: float
) -> None:
    schedule = Schedule(10_000, cap, warmdown, shape, warmdown_frac=fraction)
    factor = schedule.factor(step, elapsed)
    assert 0.0 <= factor <= 1.0
    assert schedule.is_over(step, elapsed) or factor > 0.0


def test_fixed_mode_ignores_the_clock() -> None:
    assert FIXED.factor(40, 0.0) == FIXED.factor(40, 12345.6)


def test_schedule_comes_from_the_settings() -> None:
    config = TrainConfig(iterations=7, max_wallclock_seconds=3.0, warmdown_iters=2, warmdown_shape="linear")
    assert Schedule.from_config(config) == Schedule(7, 3.0, 2, "linear")
    assert Schedule.from_config(config).is_timed


def test_momentum_rises_then_stays() -> None:
    config = OptimConfig(muon_momentum_warmup_steps=500)
    assert [round(muon_momentum(config, step), 6) for step in (0, 250, 500, 5000)] == [0.85, 0.9, 0.95, 0.95]
    assert muon_momentum(OptimConfig(muon_momentum_warmup_steps=0), 0) == 0.95


@given(st.floats(0.0, 0.999), st.lists(st.floats(-10, 10), min_size=1, max_size=8))
def test_average_is_the_weighted_mean_of_its_updates(decay: float, values: list[float]) -> None:
    average = ExponentialAverage(decay)
    for value in values:
        average.update([("w", torch.tensor([value]))])
    weights = [decay ** (len(values) - 1 - k) for k in range(len(values))]
    expected = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    assert average.values()["w"].item() == pytest.approx(expected, abs=1e-4)


def test_average_of_a_constant_is_the_constant_and_a_copy() -> None:
    average, weight = ExponentialAverage(0.997), torch.full((3,), 2.0)
    for _ in range(5):
        average.update([("w", weight)])
    weight.zero_()
    torch.testing.assert_close(average.values()["w"], torch.full((3,), 2.0))


def test_average_without_updates_is_empty() -> None:
    assert ExponentialAverage(0.9).values() == {}
