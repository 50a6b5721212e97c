"""Logs of wrappers: phases that are done, training summed up in a line, results in brackets, running clocks."""

from __future__ import annotations

import pytest

from harness.facts.build_runs import build_runs
from harness.facts.logfile import read_log
from harness.facts.runs import Run
from harness.sources.logevents import RESULT_LABEL, AnnouncedEvent, PhaseEvent, SizeEvent, StepEvent, StopEvent
from harness.sources.loggrammar import parse_line
from harness.sources.trainlog import strip_prefix
from tests.records import value


def run_of(text: str, path: str = "train.log") -> Run:
    [run] = build_runs(read_log(text.encode(), path))
    return run


@pytest.mark.parametrize(
    ("text", "name", "milliseconds"),
    [
        ("ttt:done elapsed=46.2s", "ttt:done", 46200.0),
        ("pre_ttt:done in 378.7s (8 gpus)", "pre_ttt:done", 378700.0),
        ("ttt:done time=405877ms", "ttt:done", 405877.0),
        ("prune:done (12.5s)", "prune:done", 12500.0),
        ("search: done steps=425 impr=7 loss=2.05 t=60.0s", "search: done", 60000.0),
        ("table: built in 328s", "table: built", 328000.0),
        ("total_eval_time_with_compile:612.5s", "total_eval_time_with_compile", 612500.0),
        ("inner_ttt_eval_time:544.1s", "inner_ttt_eval_time", 544100.0),
        ("GPTQ:collected 67 Hessians and 0 stats in 3.5s", "GPTQ:collected 67 Hessians", 3500.0),
        ("gptq:hessians collected layers=68 time=37.2s", "gptq:hessians collected", 37200.0),
        ("gptq:hessians collected n=12 elapsed=9.5s", "gptq:hessians collected", 9500.0),
        ("Hessians collected in 11.7s", "Hessians collected", 11700.0),
        ("gptq:loop-aware calibrated 12 layers in 2.5s", "gptq:loop-aware calibrated 12 layers", 2500.0),
        ("gptq: Hessians for 12 layers in 0.1s", "gptq: Hessians for 12 layers", 100.0),
        ("gptq:budget_check train:586066ms + gptq:9823ms = 595889ms", "gptq:budget_check", 9823.0),
    ],
)
def test_phases_that_are_done(text: str, name: str, milliseconds: float) -> None:
    assert parse_line(text, 1) == (PhaseEvent(1, name, milliseconds),)


@pytest.mark.parametrize("text", ["ttt:done val_loss=1.9 val_bpb=1.1 elapsed=46.2s", "table: done. 10 shards", "done"])
def test_what_is_done_without_a_time_or_with_a_score_is_no_phase(text: str) -> None:
    assert not any(isinstance(event, PhaseEvent) for event in parse_line(text, 1))


@pytest.mark.parametrize(
    ("text", "steps", "milliseconds"),
    [
        ("Training complete: 4300 steps in 611.0s", 4300, 611000.0),
        ("Training complete in 590s", None, 590000.0),
        ("  Training Time: 600.02 seconds".strip(), None, 600020.0),
        ("Training: 7000 steps, 600s", 7000, 600000.0),
        ("training done in 900ms", None, 900.0),
    ],
)
def test_training_summed_up(text: str, steps: int | None, milliseconds: float) -> None:
    assert parse_line(text, 1) == (StopEvent(1, "summary", steps, milliseconds),)


@pytest.mark.parametrize(
    "text", ["Training for up to 20000 steps (cap=600.0s)", "Training on 8 shards", "Training: 7 s/it"]
)
def test_training_that_is_announced_is_not_summed_up(text: str) -> None:
    assert not any(isinstance(event, StopEvent) for event in parse_line(text, 1))


def test_steps_go_before_a_summary() -> None:
    steps = "step:10/20 train_loss:3.0 train_time:1000ms\n"
    assert (value(run_of(steps).train_seconds), run_of(steps).summed_up) == (1.0, False)
    both = run_of(f"{steps}Training complete in 2s\n")
    assert (value(both.train_seconds), both.summed_up) == (1.0, False)
    alone = run_of("step:10/20 train_loss:3.0\nTraining complete in 2s\n")
    assert (value(alone.train_seconds), alone.summed_up) == (2.0, True)


def test_sizes_with_a_remark() -> None:
    assert parse_line("Artifact: 15100000 bytes (15.10 MB)", 1) == (SizeEvent(1, "total", "", 15100000),)


def test_what_is_being_built_is_announced() -> None:
    [event] = parse_line("gptq:building Hessians from training data...", 1)
    assert isinstance(event, AnnouncedEvent)


def test_ranks_in_capitals_are_a_prefix() -> None:
    [event] = parse_line(strip_prefix("[2026-03-26 18:45:25] [RANK 0] step 1000: loss 4.1280, dt: 104.2s"), 1)
    assert isinstance(event, StepEvent)
    assert (event.step, event.train_loss) == (1000, 4.128)


def result(seed: int, bits: str) -> str:
    return (
        f"[STAGE 1/4] run=a{seed} | hparams: {{'layers': 10, 'seed': {seed}}}\n[STAGE 4/4] run=a{seed} | go\n"
        f"[RESULT] run=a{seed} | score={bits} | size=15,115,793B | fits | OK | 1493s\n"
    )


def test_results_in_brackets() -> None:
    run = run_of(result(7, "1.1900"))
    assert value(run.seed) == 7
    assert value(run.headline).label == RESULT_LABEL
    assert value(value(run.headline).val_bpb) == 1.19
    assert value(run.headline).digits == 4
    assert value(run.total_bytes) == 15115793


def test_a_log_named_after_a_seed_is_read_for_it() -> None:
    joined = result(7, "1.1900") + result(8, "1.1800") + result(9, "1.1850")
    run = run_of(joined, "train_seed8.log")
    assert (value(run.seed), value(value(run.headline).val_bpb)) == (8, 1.18)
    assert [value(run.seed) for run in build_runs(read_log(joined.encode(), "all.log"))] == [7, 8, 9]


CLOCK = "step:9/9 train_loss:3.0\ngptq:generated 32 seqs in {}s\ngptq:collected hessians in {}s\n{}"


@pytest.mark.parametrize(
    ("first", "second", "end", "seconds"),
    [
        (199.1, 199.6, "gptq:quantization complete in 223.4s total", [199.1, 0.5]),
        (10.0, 12.0, "gptq:quantization complete in 23.4s total", [10.0, 12.0]),  # one after the other
        (199.1, 199.6, "", [199.1, 199.6]),
        (200.0, 199.6, "gptq:quantization complete in 223.4s total", [200.0, 199.6]),
    ],
)
def test_a_running_clock_is_taken_apart(first: float, second: float, end: str, seconds: list[float]) -> None:
    run = run_of(CLOCK.format(first, second, end))
    assert [phase.seconds for phase in run.phases if phase.kind == "calibration"] == seconds


def test_adaptation_that_a_later_score_holds_is_evaluation() -> None:
    steps = "step:9/9 train_loss:3.0\nttt:done elapsed=46.2s\n"
    held = run_of(f"{steps}legal_ttt val_loss:2.0 val_bpb:1.1 eval_time:50000ms\n")
    apart = run_of(f"{steps}final_sliding val_loss:2.0 val_bpb:1.1 eval_time:50000ms\n")
    assert [run.phases[0].kind for run in (held, apart)] == ["evaluation", "adaptation"]


def test_the_slowest_stretch_of_steps() -> None:
    lines = [(10, 9_000), (100, 18_000), (200, 28_000), (210, 30_000), (300, 39_000)]
    text = "".join(f"step:{step}/300 train_loss:3.0 train_time:{time}ms\n" for step, time in lines)
    assert value(run_of(text).slowest_step_seconds) == 0.2
    assert value(run_of(text.split("\n")[0]).slowest_step_seconds) is None


def test_a_summary_that_prints_an_evaluation_again_adds_no_seconds() -> None:
    lines = (
        "step:9/9 train_time:500000ms step_avg:90ms",
        "quantized val_loss:2.8 val_bpb:1.09 eval_time:23128ms",
        "quantized_ttt val_loss:2.78958515 val_bpb:1.07993534 eval_time:350456ms",
    )
    run = run_of("\n".join((*lines, "Summary", *lines[1:])))
    assert value(run.eval_seconds) == pytest.approx(373.584)
    other = lines[2].replace("350456", "350457")
    assert value(run_of("\n".join((*lines, other))).eval_seconds) == pytest.approx(724.041)


def test_a_score_of_a_mixture_counts_by_its_seconds_where_it_has_no_loss() -> None:
    lines = (
        "step:9/9 train_time:500000ms step_avg:90ms",
        "quantized_sliding_window val_loss:2.78 val_bpb:1.08 eval_time:90000ms",
        "ppm_mixer val_bpb:0.99668774 eval_time:348863ms order=4",
    )
    run = run_of("\n".join(lines))
    headline = value(run.headline)
    assert (headline.label, value(headline.val_bpb), value(run.eval_seconds)) == ("ppm_mixer", 0.99668774, 438.863)
    assert value(run.complete) is True
    assert value(run_of("\n".join((lines[0], lines[2]))).complete) is True
