"""Results on disk, and what follows from them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from reference_model.study.design import Contrast, Experiment, StudyError, Variant
from reference_model.study.results import Result, append_results, comparable, finished, read_results
from reference_model.study.stats import CANNOT_BE_TOLD, DOES_NOT, NOT_RUN, REPLICATES, difference, judge

EXPERIMENT = Experiment(
    name="toy",
    title="A toy",
    source="#599",
    claim="a is lower.",
    equal=("tokens",),
    variants=(Variant("a"), Variant("b", {"WEIGHT_DECAY": "0"})),
    contrasts=(Contrast("a is below b.", "a", "b"),),
    measures=("int6_bpb", "int6_gap"),
    at_scale="More.",
)


def result(variant: str = "a", seed: int = 1, value: float = 2.0, **changes: object) -> Result:
    measures = {"int6_bpb": value, "float_bpb": value - 0.1, "steps": 3.0, "tokens": 30.0, "parameters": 9.0}
    made = Result(
        experiment="toy",
        variant=variant,
        seed=seed,
        seconds=1.0,
        code="c",
        machine="m",
        settings=EXPERIMENT.variant_settings(variant),
        declared=EXPERIMENT.declared(variant),
        measures={**measures, "computing": 4.0},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.jsonl"
    assert read_results(path) == []
    append_results(path, [result(), result("b")])
    append_results(path, [result(seed=2, measures={}, error="broke")])
    assert read_results(path) == [result(), result("b"), result(seed=2, measures={}, error="broke")]
    assert result().measure("int6_gap") == pytest.approx(0.1)


def test_a_line_that_was_cut_off_is_left_out_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_results(path, [result(), result("b")])
    path.write_bytes(path.read_bytes()[:-20])
    assert read_results(path) == [result()]
    append_results(path, [result(seed=2)])
    assert read_results(path) == [result(), result(seed=2)]


@pytest.mark.parametrize("line", ["{", "[]", '{"schema": "study/0"}', '{"schema": "study/2", "seed": 1}'])
def test_another_damaged_line_is_an_error_with_its_place(tmp_path: Path, line: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(f"{line}\n", encoding="utf-8")
    with pytest.raises(StudyError, match=r"results\.jsonl:1: no result of a study"):
        read_results(path)


def test_only_results_of_todays_declaration_count() -> None:
    old = result(declared=replace(EXPERIMENT, settings={"WEIGHT_DECAY": "0.5"}).declared("a"))
    gone, failed, other = replace(result(), variant="c"), result(error="broke"), result(experiment="another")
    twice = [result(value=1.0), result(value=3.0)]
    assert finished([old, gone, failed, other, *twice], EXPERIMENT) == [result(value=3.0)]


def test_the_largest_set_of_one_kind_is_compared() -> None:
    small, large = [result(code="new")], [result(), result("b")]
    assert comparable([*small, *large]) == large
    assert comparable([*large, result(seconds=2.0), result("b", seconds=2.0)])[0].seconds == 2.0
    assert comparable([]) == []


def test_the_interval_is_welchs() -> None:
    first, second = [1.0, 2.0, 4.0], [2.0, 6.0, 7.0, 9.0]
    found = difference(first, second)
    # Variances 7/3 and 26/3 over n.
    a, b = 7 / 9, 26 / 12
    freedom = (a + b) ** 2 / (a**2 / 2 + b**2 / 3)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(a + b)
    assert found.middle == pytest.approx(7 / 3 - 6)
    assert (found.low, found.high) == pytest.approx((found.middle - half, found.middle + half))


def test_intervals_at_the_edges() -> None:
    single = difference([1.0], [2.0, 3.0])
    assert (single.low, single.middle, single.high) == (-math.inf, -1.5, math.inf)
    assert not single.beyond_noise
    fixed = difference([5, 5], [4, 4])
    assert (fixed.low, fixed.middle, fixed.high) == (1, 1, 1)
    assert fixed.beyond_noise


LOW, HIGH, WIDE = [1.0, 1.01, 1.02], [2.0, 2.01, 2.02], [0.5, 1.5, 2.5]
BELOW, RATIO = Contrast("", "a", "b"), Contrast("", "a", "b", at_most=1.05)


@pytest.mark.parametrize(
    ("contrast", "values", "verdict"),
    [
        (BELOW, {"a": LOW, "b": HIGH}, REPLICATES),
        (BELOW, {"a": HIGH, "b": LOW}, DOES_NOT),
        (BELOW, {"a": LOW, "b": WIDE}, CANNOT_BE_TOLD),
        (BELOW, {"a": [1.0], "b": HIGH}, CANNOT_BE_TOLD),
        (BELOW, {"a": LOW, "b": []}, NOT_RUN),
        (BELOW, {}, NOT_RUN),
        (BELOW, {"a": [1.0, 1.0], "b": [1.0, 1.0]}, CANNOT_BE_TOLD),
        (RATIO, {"a": LOW, "b": LOW}, REPLICATES),
        (RATIO, {"a": HIGH, "b": LOW}, DOES_NOT),
        (RATIO, {"a": [1.05, 1.06, 1.04], "b": [1.0, 1.01, 0.99]}, CANNOT_BE_TOLD),
        (RATIO, {"a": [1.05, 1.05], "b": [1.0, 1.0]}, REPLICATES),
    ],
)
def test_verdicts_follow_from_the_interval(contrast: Contrast, values: dict[str, list[float]], verdict: str) -> None:
    assert judge(contrast, values).verdict == verdict


def test_a_ratio_is_told_as_a_ratio() -> None:
    interval = judge(RATIO, {"a": [2.0, 2.2], "b": [1.0, 1.1]}).interval
    assert interval is not None
    assert interval.middle == pytest.approx(2.0)
    assert interval.low < 2.0 < interval.high
