"""The lines of a log after one another: what a line means by those before it. All log lines are our own."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.sources.logevents import (
    ConfigEvent,
    CountEvent,
    Event,
    SeedEvent,
    SourceEvent,
)
from harness.sources.loggrammar import parse_line
from harness.sources.trainlog import LineParser, normalized, parse_lines, source_sha256, strip_prefix

SEPARATOR = "=" * 100


def parse(text: str) -> list[Event]:
    return list(parse_lines(text.split("\n")))


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


def test_a_log_that_begins_like_python_is_read_all_the_same() -> None:
    events = parse("import ok, entering main\nval_tokens: 9\nloss at 1\ntrain_shards: 3")
    assert events[0] == SourceEvent(4, 1, "", 0)
    assert CountEvent(2, "val_tokens", 9) in events
    assert CountEvent(4, "train_shards", 3) in events


def test_a_line_that_stated_nothing_is_read_anew_where_it_may() -> None:
    parser = LineParser()
    parser.feed("step:1/20 train_loss:5.0 train_time:9ms", 1)
    assert parser.feed("width:64", 2) == ()
    assert parser.feed("width:64", 3) == ()
    # A run begins again: `key:value` lines are hyperparameters.
    parser.feed("seed:7", 4)
    [event] = parser.feed("width:64", 5)
    assert isinstance(event, ConfigEvent)
