"""The tests of a record claim: published p-values, SciPy as the oracle, and samples that allow no test."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.challenge import EDITIONS
from harness.checks import welch
from harness.facts.previous import Sample, pooled, sample_from_summary, sample_of

REPRODUCED = ([1.05989454, 1.06124613, 1.06208695], [1.05965], [1.06041], [1.06124])
# SciPy warns of lost digits where scores are nearly equal; its result is the better oracle where they are not.
pytestmark = pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")
SCORES = st.lists(st.integers(100_000, 130_000).map(lambda units: units / 1e5), min_size=2, max_size=6)


@pytest.mark.parametrize(
    ("new", "old", "published"),
    [
        ([[1.07928348, 1.07996676, 1.08024795]], [1.08079, 1.08103, 1.08118], 0.0204),
        ([[1.06356801, 1.0641313, 1.06466993, 1.06509678, 1.06516558]], [1.0661, 1.06473, 1.06563], 0.0625),
        (REPRODUCED, [1.06128183, 1.06086831, 1.06220261], 0.127),
        (REPRODUCED, [1.06083288, 1.06090748, 1.06248776], 0.188),
    ],
)
def test_the_published_p_values_come_out(new: list[list[float]], old: list[float], published: float) -> None:
    p_value = welch.welch(pooled([sample_of(one) for one in new]), sample_of(old))
    digits = len(str(published).partition(".")[2])
    assert p_value is not None
    assert round(p_value, digits) == published


@given(SCORES, SCORES, st.sampled_from([0.0, 0.002, 0.00721]))
def test_welch_is_scipys(new: list[float], old: list[float], margin: float) -> None:
    found = welch.welch(sample_of(new), sample_of(old), margin)
    if len(set(new)) == len(set(old)) == 1:
        assert found is None
        return
    shifted = [value + margin for value in new]
    expected = stats.ttest_ind(shifted, old, equal_var=False, alternative="less").pvalue
    assert found == pytest.approx(float(expected), abs=1e-6)


@given(SCORES, SCORES)
def test_the_other_tests_are_scipys(new: list[float], old: list[float]) -> None:
    if len(set(new)) > 1:
        expected = stats.ttest_1samp(new, statistics.fmean(old), alternative="less").pvalue
        assert welch.one_sample(sample_of(new), statistics.fmean(old)) == pytest.approx(float(expected), abs=1e-6)
        expected = stats.ttest_ind(new, old, alternative="less").pvalue
        assert welch.pooled_variance(sample_of(new), sample_of(old)) == pytest.approx(float(expected), abs=1e-6)


@given(st.lists(SCORES, min_size=1, max_size=4))
def test_pooling_summaries_is_pooling_the_scores(groups: list[list[float]]) -> None:
    whole = sample_of([value for group in groups for value in group])
    summaries = [sample_from_summary(len(g), statistics.fmean(g), statistics.pstdev(g), 0) for g in groups]
    found = pooled(summaries)
    assert found.count == whole.count
    assert found.mean == pytest.approx(whole.mean)
    assert found.deviation == pytest.approx(whole.deviation, abs=1e-7)


def test_one_run_has_no_p_value() -> None:
    one, two = sample_of([1.2]), sample_of([1.21, 1.22])
    assert welch.welch(one, two) is None
    assert welch.welch(two, one) is None
    assert welch.one_sample(one, 1.3) is None
    assert welch.pooled_variance(one, one) is None
    assert sample_from_summary(1, 1.2, 0.0, 1) == Sample(1, 1.2, None)


def test_equal_scores_on_both_sides_have_no_p_value() -> None:
    same = sample_of([1.2, 1.2, 1.2])
    assert welch.welch(same, same) is None
    assert welch.pooled_variance(same, same) is None
    assert welch.needed_mean(same, EDITIONS[1], 0.0) is None


def test_the_mean_that_three_seeds_would_need_is_just_significant() -> None:
    old = sample_of([1.081, 1.082, 1.083])
    needed = welch.needed_mean(old, EDITIONS[0], 0.002)
    assert needed is not None
    just = Sample(3, needed, old.deviation)
    assert welch.welch(just, old, 0.002) == pytest.approx(EDITIONS[0].p_value)


def test_the_olympic_mean_leaves_out_the_best_and_the_worst() -> None:
    trimmed = welch.olympic(sample_of([1.0, 1.5, 1.1, 1.2]))
    assert trimmed is not None
    assert trimmed.values == (1.1, 1.2)
    assert welch.olympic(sample_of([1.0, 1.1, 1.2])) is None


def test_every_reading_stands_beside_the_others() -> None:
    found = welch.readings(sample_of([1.19, 1.2, 1.21]), sample_of([1.22, 1.23, 1.24]), 2.43593)
    assert [round(reading.margin_bpb, 5) for reading in found] == [0.00296, 0.00721, 0.005, 0.0, 0.0, 0.0]
    assert [reading.edition for reading in found] == ["2026-03-18"] * 3 + ["2026-04-28", "", ""]
    without = welch.readings(sample_of([1.19, 1.2, 1.21]), sample_of([1.22, 1.23, 1.24]), None)
    assert len(without) == len(found) - 1
    many = [1.2 + index / 1000 for index in range(4)]
    assert "olympic" in welch.readings(sample_of(many), sample_of(many), None)[-1].name
