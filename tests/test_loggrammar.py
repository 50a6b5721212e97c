"""What one line of a log says, whichever script printed it. All log lines are our own."""

from __future__ import annotations

import math
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.sources.logevents import (
    CrashEvent,
    Event,
    PhaseEvent,
    ProgressEvent,
    ScoreEvent,
    SizeEvent,
    StepEvent,
    StopEvent,
)
from harness.sources.loggrammar import parse_line
from tests.growth import RATIO_LIMIT, growth


def only(text: str) -> Event:
    (event,) = parse_line(text, 1)
    return event


def test_steps_of_every_family() -> None:
    assert only("step:50/200 train_loss:4.5 train_time:900ms step_avg:18.00ms") == StepEvent(
        1, 50, 200, train_loss=4.5, train_milliseconds=900.0, step_milliseconds=18.0
    )
    assert only("step:200/200 val_loss:2.5 val_bpb:1.4 train_time:3600ms step_avg:18.00ms") == StepEvent(
        1, 200, 200, val_loss=2.5, val_bpb=1.4, train_milliseconds=3600.0, step_milliseconds=18.0
    )
    # Minutes are rounded to a tenth, so no time is taken from them.
    assert only("500/2000 train_loss: 2.57 train_time: 0.8m tok/s: 8216992") == StepEvent(
        1, 500, 2000, train_loss=2.57, tokens_per_second=8216992.0
    )
    assert only("step:1000/9000 loss:3.31 t:91476ms avg:91.5ms") == StepEvent(
        1, 1000, 9000, train_loss=3.31, train_milliseconds=91476.0, step_milliseconds=91.5
    )
    assert only("step   600/7000 | loss 3.2894 | lr_mul 1.0 | 500s") == StepEvent(1, 600, 7000, train_loss=3.2894)
    assert only("step:1/50 [WARM 3%] train_loss:1.0612 train_time:868ms") == StepEvent(
        1, 1, 50, train_loss=1.0612, train_milliseconds=868.0
    )


@pytest.mark.parametrize(
    "text",
    [
        "warmup_step:3/20",
        "warmup:1/5",
        "loop_warmup_step: 2/20",
        "step:7",
        "late_qat:enabled step:6574 scale:0.1499",
        "",
    ],
)
def test_what_is_no_step(text: str) -> None:
    assert not any(isinstance(event, StepEvent) for event in parse_line(text, 1, header=False))


def test_stop_line_gives_exact_time_and_step() -> None:
    expected = StopEvent(1, "wallclock_cap", 4900, 599623.0)
    assert only("stopping_early: wallclock_cap train_time:599623ms step:4900/20000") == expected
    assert only("stopping_early: wallclock_cap train_time: 599623ms step: 4900/20000") == expected
    assert only("Stopping early at step 1652 (wallclock limit)") == StopEvent(1, "at", 1652, None)


@pytest.mark.parametrize("text", ["1e999ms", "infms", "-inf s", "nanms", f"{'9' * 400}s"])
def test_a_duration_that_is_no_finite_number_is_none(text: str) -> None:
    assert only(f"stopping_early: wallclock_cap train_time:{text} step:7/9") == StopEvent(1, "wallclock_cap", 7, None)
    step = only(f"step:5/9 train_loss:1.5 train_time:{text} step_avg:{text}")
    assert step == StepEvent(1, 5, 9, train_loss=1.5)


@pytest.mark.parametrize("number", [".", "1.2.3", "..", "9" * 400])
def test_a_phase_without_a_number_of_seconds_is_no_phase(number: str) -> None:
    assert not any(isinstance(event, PhaseEvent) for event in parse_line(f"total_eval_time: {number}s", 1))


def test_scores_keep_label_digits_and_time() -> None:
    assert only("final_int8_zlib_roundtrip_exact val_loss:2.07000000 val_bpb:1.22436570") == ScoreEvent(
        1, "final_int8_zlib_roundtrip_exact", 2.07, 1.2243657, 8, 8, None
    )
    assert only("final_sliding val_loss:2.99 val_bpb:1.1578 (stride=16, T=0.90) eval_time:429023ms") == ScoreEvent(
        1, "final_sliding", 2.99, 1.1578, 4, 2, 429023.0
    )
    assert only("ttt_sliding:done val_loss=2.795171 val_bpb=1.082098 elapsed=293.2s") == ScoreEvent(
        1, "ttt_sliding:done", 2.795171, 1.082098, 6, 6, 293200.0
    )
    assert only("final_window_eval stride:64 val_loss:1.95 val_bpb:1.15 eval_time:75096ms") == ScoreEvent(
        1, "final_window_eval stride:64", 1.95, 1.15, 2, 2, 75096.0
    )
    assert only("eval_bits_per_byte=1.25") == ScoreEvent(1, "val_bpb", None, 1.25, 2, 0, None)
    assert only("val_bpb:          1.12278022") == ScoreEvent(1, "val_bpb", None, 1.12278022, 8, 0, None)


def test_a_nan_score_is_a_score() -> None:
    event = only("final_roundtrip val_loss:nan val_bpb:nan")
    assert isinstance(event, ScoreEvent)
    assert math.isnan(event.val_bpb)


@pytest.mark.parametrize(
    ("text", "done", "total", "running"),
    [
        ("ttp: b85/782 bl:2.4965 bb:1.1956 rl:2.3194 rb:1.0566 dl:185-186 gd:1", 85, 782, 1.0566),
        ("tttg: c1/111 lr:0.001000 t:2.4s", 1, 111, None),
        ("  ttt_chunk [691/1238] bpb=1.015336 time=211.7s", 691, 1238, 1.015336),
        ("  sliding_eval [ 10.6%] 12832/121136 windows running_bpb=1.144500", 12832, 121136, 1.1445),
        ("ttt_progress: batch 171/782 batch_loss:2.88 running_bpb:1.0723 doc_len:2-3", 171, 782, 1.0723),
    ],
)
def test_evaluations_under_way_are_no_scores(text: str, done: int, total: int, running: float | None) -> None:
    event = only(text)
    assert isinstance(event, ProgressEvent)
    assert (event.done, event.total, event.running_bpb) == (done, total, running)


def test_progress_under_other_names_is_no_score_either() -> None:
    assert parse_line("  mixer 52.9% windows=64032/121136 bpb:1.087368", 1) == ()


def test_sizes() -> None:
    assert only("Serialized model: 67224983 bytes") == SizeEvent(1, "raw_model", "", 67224983)
    assert only("Serialized model int8+zlib: 1581 bytes (payload:17 ratio:3.91x)") == SizeEvent(
        1, "model", "int8+zlib", 1581
    )
    assert only("Code size: 47642 bytes") == SizeEvent(1, "code", "", 47642)
    assert only("Code size (uncompressed): 151766 bytes") == SizeEvent(1, "code", "uncompressed", 151766)
    assert only("Code size (compressed): 31250 bytes") == SizeEvent(1, "compressed_code", "compressed", 31250)
    assert only("Total submission size: 99 bytes") == SizeEvent(1, "unlabelled_total", "", 99)
    assert only("Total submission size int8+zlib: 1,599 bytes") == SizeEvent(1, "total", "int8+zlib", 1599)
    assert only("budget:15992753/16000000 (15.99/16.00MB) FITS") == SizeEvent(1, "total", "budget", 15992753)
    assert only("artifact:15.92MB ternary:64880640(14237274B) fp:2(3B) code:70853") == SizeEvent(1, "code", "", 70853)
    assert parse_line("INT7+zlib model: 153 bytes | Total submission: 200 bytes", 1) == (
        SizeEvent(1, "unlabelled_total", "", 200),
        SizeEvent(1, "model", "INT7+zlib", 153),
    )


def test_timed_phases_and_crashes() -> None:
    assert only("total_eval_time:519.5s") == PhaseEvent(1, "total_eval_time", 519500.0)
    assert only("GPTQ:collected 67 Hessians in 3.5s") == PhaseEvent(1, "GPTQ:collected 67 Hessians", 3500.0)
    assert only("ttt_lora:compile warmup done (156.2s)") == PhaseEvent(1, "ttt_lora:compile warmup", 156200.0)
    assert isinstance(only("Traceback (most recent call last):"), CrashEvent)
    assert isinstance(only("RuntimeError: shapes differ"), CrashEvent)
    assert isinstance(only("torch.OutOfMemoryError: CUDA out of memory."), CrashEvent)


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.floats(0.5, 9.0))
def test_step_lines_round_trip(step: int, iterations: int, loss: float) -> None:
    event = only(f"step:{step}/{iterations} train_loss:{loss:.4f} train_time:5ms")
    assert isinstance(event, StepEvent)
    assert (event.step, event.iterations, event.train_loss) == (step, iterations, float(f"{loss:.4f}"))


@pytest.mark.parametrize(
    "word", ["val_loader:", "artifact:", "params:1", "a:b ", "bpb: ", " ", "bytes a", "temp_scaling time "]
)
def test_lines_of_one_repeated_word_are_read_in_linear_time(word: str) -> None:
    small, large = (partial(parse_line, word * (size // len(word)), 1) for size in (2_000, 8_000))
    assert growth(small, large) < RATIO_LIMIT


@pytest.mark.parametrize(
    "begin",
    [
        "total_eval_time=", "temp_scaling time=", "GPTQ:collected 6 Hessians in ", "gptq:done in ", "gptq:collected ",
        "Serialize: a done in ", "ttt:compile warmup done (", "ttt:completed time=", "a:precompute elapsed=",
        "serialize_wallclock: ", "GPTQ:quantized in ", "gptq:generated 6 sequences in ", "gptq:calibration done in ",
        "gptq:hessian_collection_time: ", "GPTQ:total quantization time: ", "total_eval_a: ",
        "GPTQ:collected 6 Hessians and a in ", "gptq:Hessians collected in ", "gptq: Hessians for 6 layers in ",
        "gptq:budget_check gptq:", "a: built in ", "a: done in ",
    ],
)  # fmt: skip
@pytest.mark.parametrize("word", ["9", "9.", "a", "time=9", " in 9"])
def test_what_follows_the_name_of_a_phase_is_read_in_linear_time(begin: str, word: str) -> None:
    small, large = (partial(parse_line, begin + word * (size // len(word)), 1) for size in (2_000, 8_000))
    assert growth(small, large) < RATIO_LIMIT


def test_the_time_of_a_phase_has_as_many_decimals_as_python_prints() -> None:
    assert only("total_eval_time:0.12345678901234568s") == PhaseEvent(1, "total_eval_time", 123.45678901234568)
    assert parse_line("total_eval_time:" + "9" * 13 + "s", 1, header=False) == ()
