"""Running a study: order, resumption, bounds, failures, and one run whole."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reference_model import cli
from reference_model.cli import command_line
from reference_model.miniature import MINIATURE_SETTINGS, write_miniature_corpus
from reference_model.study import runner
from reference_model.study.design import Experiment, StudyError, Variant
from reference_model.study.results import Result, append_results, finished, read_results
from reference_model.study.runner import Study, chosen, code_digest, machine_name, result_of, run_in_process
from reference_model.study.work import Work
from tests.test_study_results import EXPERIMENT

OTHER = replace(EXPERIMENT, name="other", variants=(*EXPERIMENT.variants, Variant("c", {"MLP_MULT": "2"})))
SCORES = {"int6_bpb": 2.0, "steps": 3.0}
# A batch of 128 tokens for a hundredth of a second each: a few steps.
TINY = replace(
    EXPERIMENT,
    measures=("int6_bpb", "ttt_bpb", "same_bpb"),
    settings={name: value for name, value in MINIATURE_SETTINGS.items() if name not in {"SEED", "RUN_ID"}}
    | {"EVAL_SEQ_LEN": "32", "TTT_CHUNK_TOKENS": "64", "HYMBA_SCAN_BACKEND": "torch"},
    variants=(Variant("a"), Variant("b", {"TTT_EPOCHS": "0"})),
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_miniature_corpus(tmp_path_factory.mktemp("corpus"))


def study(tmp_path: Path, *experiments: Experiment, **changes: Any) -> Study:
    said: list[str] = []
    made = Study(experiments or (EXPERIMENT, OTHER), 2, 1.0, tmp_path, tmp_path / "results.jsonl", say=said.append)
    return replace(made, **changes)


def does(work: Work) -> list[Result]:
    return [result_of(work, variant, SCORES) for variant in work.variants]


def fails(work: Work) -> list[Result]:
    return [result_of(work, variant, {}, "broke") for variant in work.variants]


def test_variants_take_turns_and_seeds_come_one_after_the_other(tmp_path: Path) -> None:
    order = [(work.seed, work.experiment.name, *work.variants) for work in study(tmp_path).order()]
    first = [("toy", "a"), ("other", "a"), ("toy", "b"), ("other", "b"), ("other", "c")]
    assert order == [(seed, *names) for seed in (1337, 42) for names in first]


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    seen: list[str] = []

    def counts(work: Work) -> list[Result]:
        seen.append(work.experiment.name)
        return does(work)

    first = study(tmp_path, EXPERIMENT)
    assert first.run(counts) == 0
    assert first.run(counts) == 0
    assert seen == ["toy"] * 4
    assert replace(first, seconds=2.0).run(counts) == 0
    assert len(seen) == 8
    held = read_results(first.results)
    assert {(one.code, one.machine) for one in held} == {(code_digest(), machine_name())}
    assert len({one.key for one in held}) == 8


@pytest.mark.parametrize(
    "changes",
    [{"settings": {"MATRIX_LR": "0.3"}}, {"budget": 2.0}, {"full_validation": True}, {"equal": ("seconds",)}],
)
def test_what_is_declared_otherwise_is_done_again(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert study(tmp_path, EXPERIMENT).run(does) == 0
    today = replace(EXPERIMENT, **changes)
    again = study(tmp_path, today)
    assert len(list(again.remaining(code_digest(), machine_name()))) == 4
    assert finished(read_results(again.results), today) == []
    assert again.run(does) == 0
    assert len(finished(read_results(again.results), today)) == 4
    assert len(finished(read_results(again.results), EXPERIMENT)) == 4


def test_a_variant_that_is_missing_is_run_without_the_others(tmp_path: Path) -> None:
    once = study(tmp_path, TINY, seeds=1)
    assert [work.variants for work in once.remaining("c", "m")] == [("a", "b")]
    work = next(once.order())
    append_results(once.results, [replace(result_of(work, "a", SCORES), code="c", machine="m")])
    assert [work.variants for work in once.remaining("c", "m")] == [("b",)]
    assert [work.variants for work in once.remaining("c", "another")] == [("a", "b")]


def test_failures_are_told_kept_and_tried_again(tmp_path: Path) -> None:
    said: list[str] = []
    first = study(tmp_path, EXPERIMENT, say=said.append)
    assert first.run(fails) == 4
    assert "toy, a, seed 1337: broke" in said
    assert all(one.error == "broke" for one in read_results(first.results))
    assert first.run(does) == 0
    assert "toy, a, seed 1337: int6 2.0000 BPB, 3 steps" in said
    assert first.run(fails) == 0


def test_no_run_starts_late(tmp_path: Path) -> None:
    said: list[str] = []
    times: Iterator[float] = iter((0.0, 10.0, 50.0, 61.0, 62.0))
    late = study(tmp_path, EXPERIMENT, minutes=1.0, clock=lambda: next(times), say=said.append)
    assert late.run(does) == 0
    assert len(read_results(late.results)) == 2
    assert said[-1] == "1 minutes are over: 2 runs left for the next time"


def test_several_workers_do_everything_once(tmp_path: Path) -> None:
    both = study(tmp_path, workers=3)
    assert both.run(does) == 0
    assert len(read_results(both.results)) == 10


@pytest.mark.parametrize("changes", [{"seeds": 0}, {"seeds": 6}, {"seconds": 0.0}, {"workers": 0}])
def test_bounds_are_checked(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(StudyError, match=r"^--"):
        study(tmp_path, **changes)


def test_experiments_are_chosen_by_name() -> None:
    assert chosen([EXPERIMENT, OTHER], []) == [EXPERIMENT, OTHER]
    assert chosen([EXPERIMENT, OTHER], ["other"]) == [OTHER]
    with pytest.raises(StudyError, match="no such experiment: third"):
        chosen([EXPERIMENT], ["third"])


def test_a_process_that_fails_or_hangs_gives_results_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(EXPERIMENT, ("a",), 1, 1.0, tmp_path)

    def broken(*_: object, **options: Any) -> None:
        assert Work.from_json(options["input"]) == work
        raise subprocess.CalledProcessError(1, "python", stderr="Traceback\nValueError: broke\n")

    monkeypatch.setattr(subprocess, "run", broken)
    assert [one.error for one in run_in_process(work)] == ["ValueError: broke"]

    def hanging(*_: object, **options: Any) -> None:
        raise subprocess.TimeoutExpired("python", options["timeout"])

    monkeypatch.setattr(subprocess, "run", hanging)
    assert [one.error for one in run_in_process(work)] == ["stopped after 940 s"]


def test_one_run_trains_packs_and_scores(corpus: Path) -> None:
    work = Work(TINY, ("a", "b"), 5, 0.1, corpus)
    # Time stands still: nothing but the steps ends training.
    found = dict(work.run(clock=lambda: 0.0))
    assert list(found) == ["a", "b"]
    first, second = found["a"], found["b"]
    assert (first["steps"], first["tokens"]) == (5, 640)
    assert first["computing"] < first["parameters"]
    assert 0 < first["int6_bytes"] < first["int8_bytes"] < 2 * first["parameters"]
    assert first["float_bpb"] == pytest.approx(first["int8_bpb"], rel=0.01)
    assert math.isfinite(first["int6_bpb"])
    assert first["int6_bpb"] != first["int8_bpb"]
    # Without an epoch nothing is learned.
    assert second["ttt_bpb"] == pytest.approx(second["same_bpb"], abs=1e-9)
    assert first["ttt_bpb"] != first["same_bpb"] == second["same_bpb"]
    assert first["peak_mib"] > 50
    assert dict(work.run(clock=lambda: 0.0))["a"]["int6_bpb"] == first["int6_bpb"]


def test_seconds_end_a_run_by_the_injected_clock(corpus: Path) -> None:
    ticks = iter(range(1_000))
    timed = replace(TINY, equal=("seconds",), measures=("int6_bpb",), variants=(Variant("a"),))
    ((_, measures),) = Work(timed, ("a",), 5, 8.0, corpus).run(clock=lambda: float(next(ticks)))
    assert measures["train_s"] >= 8.0
    assert 2 <= measures["steps"] < 8
    assert measures["ms_per_step"] == pytest.approx(1_000 * measures["train_s"] / measures["steps"])


def test_the_command_runs_lists_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "EXPERIMENTS", (EXPERIMENT,))
    monkeypatch.setattr(runner, "run_in_process", does)
    monkeypatch.setattr(runner, "check_data", lambda _: None)
    results, target = tmp_path / "hymba" / "results.jsonl", tmp_path / "page.md"
    assert command_line(["study", "run", "--results", str(results), "--seeds", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "2 runs to do, 20 s of training each before multiples"
    assert len(read_results(results)) == 2
    assert command_line(["study", "list", "toy"]) == 0
    assert "6 trainings of 20 s' worth" in capsys.readouterr().out
    assert command_line(["study", "page", "--results", str(tmp_path / "none"), "--page", str(target)]) == 0
    assert "**Nothing has been run yet**" in target.read_text()
    monkeypatch.setattr(runner, "run_in_process", fails)
    assert command_line(["study", "run", "--results", str(results), "--seeds", "2"]) == 1
    assert command_line(["study", "run", "nothing"]) == 2
    assert "reference_model study: no such experiment: nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lacks", "variable"),
    [("", "TOKENIZER_PATH"), ("tokenizers", "TOKENIZER_PATH"), ("datasets/demo_sp300", "no such shards")],
)
def test_data_that_cannot_be_read_end_a_study_before_its_first_run(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, lacks: str, variable: str
) -> None:
    def never(work: Work) -> list[Result]:
        raise AssertionError(work)

    monkeypatch.setattr(runner, "run_in_process", never)
    data, said = tmp_path / "data", list[str]()
    if lacks:
        shutil.copytree(corpus, data)
        shutil.rmtree(data / lacks)
    whole = study(tmp_path, replace(TINY, full_validation=True), data=data, say=said.append)
    with pytest.raises(StudyError) as error:
        whole.run()
    assert str(error.value).startswith(f"{data}: ")
    assert variable in str(error.value)
    assert f"harness data demo --output {data}" in str(error.value)
    assert not whole.results.exists()
    assert said == []


def test_the_command_names_data_that_is_not_there_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, nowhere = tmp_path / "results.jsonl", tmp_path / "nowhere"
    assert command_line(["study", "run", "--results", str(results), "--data", str(nowhere)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert f"harness data demo --output {nowhere}" in said.err
    assert not results.exists()


@pytest.mark.slow
def test_a_study_of_two_variants_in_processes_of_their_own(tmp_path: Path, corpus: Path) -> None:
    whole = study(tmp_path, replace(TINY, variants=(Variant("a"), Variant("b", {"USE_HYMBA": "0"}))), data=corpus)
    tiny = replace(whole, seconds=0.05, seeds=1, workers=2)
    assert tiny.run() == 0
    assert [sorted(one.measures) for one in read_results(tiny.results)].count([]) == 0
    assert {one.variant for one in read_results(tiny.results)} == {"a", "b"}
    nowhere = replace(tiny, data=tmp_path / "nowhere", results=tmp_path / "failed.jsonl")
    assert nowhere.run(run_in_process) == 2
    assert "TOKENIZER_PATH" in json.loads(nowhere.results.read_text().splitlines()[0])["error"]
