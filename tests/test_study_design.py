"""The experiments as they are declared: every run has settings, and what should be equal is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reference_model.params import parameter_counts
from reference_model.presets import PRESETS
from reference_model.study.design import (
    BASE_PRESET,
    SEEDS,
    Experiment,
    StudyError,
    Variant,
    computing_parameters,
    fitted,
    run_config,
    runs_together,
)
from reference_model.study.experiments import ELSEWHERE, EXPERIMENTS
from reference_model.study.measures import MEASURES

BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda one: one.name)
def test_every_run_has_settings(experiment: Experiment) -> None:
    for variant in experiment.variants:
        config = run_config(experiment, variant.name, 10.0, 7)
        assert config.train.seed == 7
        assert config.train.train_batch_tokens % config.train.train_seq_len == 0
        if "seconds" in experiment.equal:
            assert config.train.max_wallclock_seconds == 10.0 * experiment.budget
        else:
            assert config.train.max_wallclock_seconds == 0.0
            tokens = config.train.iterations * config.train.train_batch_tokens
            assert tokens == pytest.approx(60_000 * experiment.budget, rel=0.1)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda one: one.name)
def test_what_is_declared_fits_together(experiment: Experiment) -> None:
    names = [variant.name for variant in experiment.variants]
    assert len(set(names)) == len(names) > 1
    assert experiment.compared_with in names
    assert {"seconds", "tokens"} & set(experiment.equal)
    assert set(experiment.measures) <= set(MEASURES)
    assert len(set(experiment.measures)) == len(experiment.measures)
    for contrast in experiment.contrasts:
        assert {contrast.lower, contrast.higher} <= set(names)
        assert contrast.lower != contrast.higher
        assert contrast.measure in experiment.measures
    assert experiment.source.startswith(("#", "a follow-up"))
    assert experiment.at_scale.endswith(".")


def test_names_are_unique_and_all_claims_are_there() -> None:
    assert len(BY_NAME) == len(EXPERIMENTS)
    assert not {one.name for one in ELSEWHERE} & set(BY_NAME)
    sources = " ".join([one.source for one in EXPERIMENTS] + [one.source for one in ELSEWHERE])
    assert all(number in sources for number in ("#599", "#914", "#1245", "#1961", "#852"))


@pytest.mark.parametrize("name", [one.name for one in EXPERIMENTS if "parameters" in one.equal])
def test_equal_parameters_are_equal(name: str) -> None:
    models = [run_config(BY_NAME[name], variant.name, 1.0, 1).model for variant in BY_NAME[name].variants]
    counts = [computing_parameters(model) for model in models]
    assert max(counts) < 1.01 * min(counts)
    assert len({model.mlp_hidden for model in models}) > 1


def test_tables_are_not_counted_as_computing() -> None:
    model = PRESETS[BASE_PRESET].model
    tables = 1_024 * 128 + 65_536 * 32
    assert computing_parameters(model) == sum(count for _, count in parameter_counts(model)) - tables


def test_parameters_that_no_width_gives_are_an_error() -> None:
    with pytest.raises(StudyError, match="no width of the MLPs gives 1000 parameters within 1%"):
        fitted(PRESETS[BASE_PRESET].model, 1_000)


def test_what_is_trained_alike_is_trained_once() -> None:
    assert list(runs_together(BY_NAME["ttt"])) == [tuple(one.name for one in BY_NAME["ttt"].variants)]
    assert all(len(group) == 1 for group in runs_together(BY_NAME["rate"]))


def test_a_setting_that_cannot_be_names_its_experiment() -> None:
    wrong = replace(BY_NAME["tied"], variants=(Variant("odd", {"MODEL_DIM": "7"}),))
    with pytest.raises(StudyError, match=r"^tied, odd: MODEL_DIM: "):
        run_config(wrong, "odd", 1.0, 1)
    with pytest.raises(StudyError, match=r"^tied: no such variant: even"):
        run_config(wrong, "even", 1.0, 1)


def test_the_published_seeds_come_first() -> None:
    assert SEEDS[:3] == (1337, 42, 7)
