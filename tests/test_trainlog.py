"""The log grammar, the stateful line parser, and the choice of a headline. All log lines are our own."""

from __future__ import annotations

import hashlib
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.sources.logevents import (
    ConfigEvent,
    CountEvent,
    CrashEvent,
    Event,
    PhaseEvent,
    ProgressEvent,
    ScoreEvent,
    SeedEvent,
    SizeEvent,
    SourceEvent,
    StepEvent,
    StopEvent,
)
from harness.sources.loggrammar import parse_line
from harness.sources.scorelabels import Kind, choose, kind_of, uncommon_kinds
from harness.sources.trainlog import LineParser, normalized, parse_lines, source_sha256, strip_prefix

SEPARATOR = "=" * 100


def parse(text: str) -> list[Event]:
    return list(parse_lines(text.split("\n")))


def only(text: str) -> Event:
    (event,) = parse_line(text, 1)
    return event


def score(label: str, bpb: float, *, digits: int = 8, line: int = 1) -> ScoreEvent:
    return ScoreEvent(line, label, 2.0, bpb, digits, digits, None)


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


def test_counts_seeds_and_settings_of_the_header() -> None:
    events = parse(
        "world_size:8 grad_accum_steps:1\nseed:1337\nmodel_params:17059912 (unique_layers:9)\nval_tokens: 62"
    )
    assert CountEvent(1, "world_size", 8) in events
    assert ConfigEvent(1, "grad_accum_steps", "1") in events
    assert SeedEvent(2, 1337) in events
    assert CountEvent(3, "parameters", 17059912) in events
    assert CountEvent(4, "val_tokens", 62) in events
    assert CountEvent(1, "val_tokens", 62_021_632) in parse("val_tokens:62,021,632  train_files=a")
    assert parse_line("NET | params:36,915,884 L:10 ws:8 ga:1 s:42", 1) == (
        CountEvent(1, "parameters", 36915884),
        CountEvent(1, "world_size", 8),
        SeedEvent(1, 42),
    )


def test_pairs_after_the_first_step_are_no_settings() -> None:
    events = parse("a:1 b:2\nstep:1/9 train_loss:1.0 train_time:3ms\nswa:start step_now:6450")
    assert [event.key for event in events if isinstance(event, ConfigEvent)] == ["a", "b"]


def test_hyperparameter_blocks() -> None:
    events = parse("Hyperparameters:\n  SEED: 42\n  val_files: ./v_*.bin\n  empty: \ntrain_shards: 39\n  not: setting")
    assert [(e.key, e.value) for e in events if isinstance(e, ConfigEvent)][:3] == [
        ("seed", "42"),
        ("val_files", "./v_*.bin"),
        ("empty", ""),
    ]
    assert SeedEvent(2, 42) in events
    line = "--- Hyperparameters ---\nlr=0.1 betas=(0.9, 0.95) seed=7"
    assert [(e.key, e.value) for e in parse(line) if isinstance(e, ConfigEvent)] == [
        ("lr", "0.1"),
        ("betas", "(0.9, 0.95)"),
        ("seed", "7"),
    ]


def test_timed_phases_and_crashes() -> None:
    assert only("total_eval_time:519.5s") == PhaseEvent(1, "total_eval_time", 519500.0)
    assert only("GPTQ:collected 67 Hessians in 3.5s") == PhaseEvent(1, "GPTQ:collected 67 Hessians", 3500.0)
    assert only("ttt_lora:compile warmup done (156.2s)") == PhaseEvent(1, "ttt_lora:compile warmup", 156200.0)
    assert isinstance(only("Traceback (most recent call last):"), CrashEvent)
    assert isinstance(only("RuntimeError: shapes differ"), CrashEvent)
    assert isinstance(only("torch.OutOfMemoryError: CUDA out of memory."), CrashEvent)


@pytest.mark.parametrize(
    "prefix",
    [
        "1776142360.714 ",
        "2026-04-14 04:52:28,133 - ",
        "[2026-04-14T04:52:28Z] ",
        "[rank0]:",
        "[rank0]: ",
        "[12:30:01] ",
    ],
)
def test_launcher_prefixes_are_stripped(prefix: str) -> None:
    assert strip_prefix(f"{prefix}seed:7\r\n") == "seed:7"
    assert parse(f"{prefix}seed:7") == [SeedEvent(1, 7), ConfigEvent(1, "seed", "7")]


def test_prefixes_keep_the_indentation_of_a_block() -> None:
    block = "1776142360.710 Hyperparameters:\n1776142360.710   seed: 5\n1776142360.711 train_shards: 3"
    assert SeedEvent(2, 5) in parse(block)


def test_overwritten_progress_keeps_the_last_print() -> None:
    assert strip_prefix("10%\r20%\rseed:3") == "seed:3"


SOURCE = '"""Trains.\n\n' + SEPARATOR + '\nseed:999\n"""\nimport os\n\nprint(f"step:{1}/{2}")\n'


def test_embedded_source_is_hashed_and_never_matched() -> None:
    log = SOURCE + "\n" + SEPARATOR + "\nRunning Python 3.12\n" + SEPARATOR + "\nseed:7\n"
    events = parse(log)
    source = events[0]
    assert isinstance(source, SourceEvent)
    assert source.sha256 == source_sha256(SOURCE) == hashlib.sha256(SOURCE.encode()).hexdigest()
    assert source.size_bytes == len(SOURCE.encode())
    assert source.first_line == 1
    assert [event.seed for event in events if isinstance(event, SeedEvent)] == [7]


def test_announced_source_and_source_after_settings() -> None:
    head = f"{SEPARATOR}\nHyperparameters:\n  seed: 4\n{SEPARATOR}\nSource code:\n{SEPARATOR}\n"
    tail = f"\n{SEPARATOR}\nRunning Python 3.12\nval_tokens: 9\n"
    events = parse(head + "x = 1\nseed = 5\n" + tail)
    assert [type(event) for event in events].count(SourceEvent) == 1
    assert [event.sha256 for event in events if isinstance(event, SourceEvent)] == [source_sha256("x = 1\nseed = 5\n")]
    assert CountEvent(12, "val_tokens", 9) in events


def test_a_source_that_a_log_line_interrupts_has_no_hash() -> None:
    events = parse("from __future__ import annotations\nimport coGDN core\nseed:42\nstep:1/9 train_loss:1.0\n")
    assert events[0] == SourceEvent(3, 1, "", 0)
    assert SeedEvent(3, 42) in events


def test_a_source_without_end_is_reported_at_the_end() -> None:
    parser = LineParser()
    assert parser.feed("import os", 1) == ()
    assert parser.finish() == (SourceEvent(1, 1, "", 0),)
    assert parser.finish() == ()


def test_tables_of_the_driver_are_skipped() -> None:
    assert parse("+----+\n| 0  seed:3 |\n|  N/A  step:1/2 loss:3 |") == []


def test_normalization_ignores_mark_newlines_and_the_end() -> None:
    assert normalized("\ufeffa\r\nb\n\n") == normalized("a\nb") == b"a\nb\n"


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("DIAGNOSTIC post_ema", Kind.DIAGNOSTIC),
        ("pre-quantization post-ema", Kind.DIAGNOSTIC),
        ("diagnostic quantized", Kind.DIAGNOSTIC),
        ("Pre-TTT sliding bpb", Kind.DIAGNOSTIC),
        ("EMA BPB", Kind.DIAGNOSTIC),
        ("quantized", Kind.ROUND_TRIP),
        ("Quantized BPB (no TTT)", Kind.ROUND_TRIP),
        ("final_int8_zlib_roundtrip_exact", Kind.ROUND_TRIP),
        ("quantized_sliding_window", Kind.SLIDING),
        ("final_int6_sliding_window_s64_exact", Kind.SLIDING),
        ("quantized_ttt_phased", Kind.ADAPTED),
        ("legal_ttt_exact", Kind.ADAPTED),
        ("final_int8_ttt_lora", Kind.ADAPTED),
        ("val_bpb", Kind.UNNAMED),
        ("final_krause_eval_exact", Kind.ADAPTED),
        ("dynamic_eval", Kind.ADAPTED),
    ],
)
def test_kinds_of_scores(label: str, kind: Kind) -> None:
    assert kind_of(label) is kind


def test_the_headline_is_the_most_final_kind_in_its_most_exact_print() -> None:
    scores = [
        score("DIAGNOSTIC post_ema", 1.1),
        score("final_roundtrip_exact", 1.3, line=2),
        score("final_sliding", 1.25, digits=4, line=3),
        score("final_sliding_exact", 1.25001234, line=4),
        # Printed last, but it is the earlier kind.
        score("final_int8_zlib_roundtrip_exact", 1.25001234, line=5),
    ]
    assert choose(scores) is scores[3]
    assert choose(scores[:1]) is None
    assert choose([]) is None


def test_adaptation_counts_unless_it_makes_things_worse() -> None:
    sliding, better, worse = (
        score("final_sliding", 1.2),
        score("legal_ttt", 1.1, line=2),
        score("legal_ttt", 1.4, line=2),
    )
    assert choose([sliding, better]) is better
    assert choose([sliding, worse]) is sliding
    assert choose([worse]) is worse


def test_a_kind_that_few_logs_report_is_an_experiment() -> None:
    logs = [{Kind.SLIDING, Kind.ADAPTED}, {Kind.SLIDING}, {Kind.SLIDING}, set()]
    uncommon = uncommon_kinds(logs)
    assert Kind.ADAPTED in uncommon
    assert Kind.SLIDING not in uncommon
    sliding, adapted = score("final_sliding", 1.2), score("legal_ttt", 1.1, line=2)
    assert choose([sliding, adapted], uncommon) is sliding
    assert choose([adapted], uncommon) is adapted


@given(st.lists(st.text(max_size=60), max_size=30))
def test_any_text_gives_events_with_lines_inside_it(lines: list[str]) -> None:
    for event in parse_lines(lines):
        assert 1 <= event.line <= len(lines)


_PIECES = st.sampled_from(
    [
        "step:",
        "1/2",
        " ",
        "val_bpb:",
        "nan",
        "1.5",
        "seed:",
        "=" * 40,
        '"""',
        "params:",
        "ws:",
        "Total submission size:",
        "bytes",
    ]
)


@given(st.lists(st.lists(_PIECES, max_size=8).map("".join), max_size=20))
def test_shuffled_vocabulary_never_crashes_and_streams_like_the_whole(lines: list[str]) -> None:
    parser = LineParser()
    streamed = [event for number, line in enumerate(lines, start=1) for event in parser.feed(line + "\n", number)]
    assert repr([*streamed, *parser.finish()]) == repr(list(parse_lines(lines)))


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.floats(0.5, 9.0))
def test_step_lines_round_trip(step: int, iterations: int, loss: float) -> None:
    event = only(f"step:{step}/{iterations} train_loss:{loss:.4f} train_time:5ms")
    assert isinstance(event, StepEvent)
    assert (event.step, event.iterations, event.train_loss) == (step, iterations, float(f"{loss:.4f}"))


def test_a_log_that_begins_like_python_is_read_all_the_same() -> None:
    events = parse("import ok, entering main\nval_tokens: 9\nloss at 1\ntrain_shards: 3")
    assert events[0] == SourceEvent(4, 1, "", 0)
    assert CountEvent(2, "val_tokens", 9) in events
    assert CountEvent(4, "train_shards", 3) in events


@pytest.mark.parametrize(
    "word", ["val_loader:", "artifact:", "params:1", "a:b ", "bpb: ", " ", "bytes a", "temp_scaling time "]
)
def test_lines_of_one_repeated_word_are_read_in_linear_time(word: str) -> None:
    text = word * (8_000 // len(word))
    started = time.perf_counter()
    for number in range(1, 6):
        parse_line(text, number)
    # A pattern that backtracks over the whole line takes longer than this for a single one.
    assert time.perf_counter() - started < 0.5


def test_a_line_that_stated_nothing_is_read_anew_where_it_may() -> None:
    parser = LineParser()
    parser.feed("step:1/20 train_loss:5.0 train_time:9ms", 1)
    assert parser.feed("width:64", 2) == ()
    assert parser.feed("width:64", 3) == ()
    # A run begins again: `key:value` lines are hyperparameters.
    parser.feed("seed:7", 4)
    [event] = parser.feed("width:64", 5)
    assert isinstance(event, ConfigEvent)
