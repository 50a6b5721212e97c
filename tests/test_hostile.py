"""Folders made to hang, crash or exhaust the audit: each ends, with a report, within its bounds."""

from __future__ import annotations

import base64
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from harness import audit
from harness.checks import RULES
from harness.facts import logfile, submission
from harness.facts.logfile import read_log
from harness.facts.runs import Run
from harness.model import HarnessError, Located
from harness.sources.folder import decode
from harness.sources.trainlog import LineParser, parse_lines

EVERY = audit.Options(frozenset(rule.code for rule in RULES))
STEP = "step:1/2 train_loss:1.5 train_time:900ms\n"
FINAL = "final_exact val_loss:2.02 val_bpb:1.2 eval_time:5ms\n"


def nested(depth: int) -> str:
    text = "print(1)"
    for _ in range(depth):
        packed = base64.b85encode(zlib.compress(text.encode())).decode()
        text = f"import zlib,base64\nexec(zlib.decompress(base64.b85decode({packed!r})))"
    return text


HOSTILE: Mapping[str, tuple[str, str]] = {
    "one line": ("train.log", "step:1/2 train_loss:" + "9" * 2_000_000),
    "prefixes": ("train.log", "[rank0]: " * 200_000),
    "overwritten": ("train.log", "10%\r" * 500_000),
    "colours": ("train.log", "\x1b[0;" * 500_000),
    "sources that begin": ("train.log", ("import x\n" + STEP) * 20_000),
    "sources that end": ("train.log", ('import x\n"""\n' + "=" * 40 + "\n") * 20_000),
    "scores": ("train.log", STEP + FINAL * 20_000),
    "settings": ("train.log", "Hyperparameters:\n" + "".join(f"  k{n}: 1\n" for n in range(20_000)) + STEP),
    "deep JSON": ("submission.json", "[" * 500_000),
    "deep objects": ("submission.json", '{"a":' * 900 + "1" + "}" * 900),
    "deep Python": ("train_gpt.py", "x=" + "(" * 5_000 + "1" + ")" * 5_000),
    "signs": ("train_gpt.py", "x=" + "-" * 100_000 + "1"),
    "attributes": ("train_gpt.py", "x=a" + ".b" * 50_000),
    "sum": ("train_gpt.py", "x=1" + "+1" * 50_000),
    "lines": ("train_gpt.py", "x=a and a\n" * 20_000),
    "conjunction": ("train_gpt.py", "x=" + "a and " * 30_000 + "a"),
    "comparison": ("train_gpt.py", "x=" + "a<" * 30_000 + "a"),
    "arguments": ("train_gpt.py", "f(" + "*a," * 30_000 + ")"),
    "branches": ("train_gpt.py", "if a:pass\n" + "elif a:pass\n" * 5_000),
    "a script that runs itself": ("train_gpt.py", "exec(open('train_gpt.py').read())"),
    "layers": ("train_gpt.py", nested(30)),
    "bomb": ("train_gpt.py", nested(1).replace("print(1)", "") + "#" * 1_000_000),
    "table": ("README.md", ("|" + "a|" * 1_000 + "\n|" + "-|" * 1_000 + "\n") * 100),
    "sentence": ("README.md", "val_bpb " * 200_000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_ends_with_a_report(name: str, tmp_path: Path) -> None:
    path, text = HOSTILE[name]
    (tmp_path / "README.md").write_text("# A run\n", encoding="utf-8")
    (tmp_path / path).write_text(text, encoding="utf-8")
    audited = audit.audit_folder(tmp_path, EVERY)
    assert audited.report is not None, audited.crashes
    assert audited.crashes == ()


GROWING: Mapping[str, Callable[[int], str]] = {
    "sources": lambda size: ("import x\n" + STEP) * size,
    "quotes": lambda size: ('import x\n"""\n' + "=" * 40 + "\n") * size,
    "steps": lambda size: STEP * size,
    "runs": lambda size: ("seed:1\n" + STEP + FINAL) * size,
    "prefixes": lambda size: "[rank0]: " * size * 10,
}


@pytest.mark.parametrize("name", GROWING)
def test_reading_a_log_grows_with_its_length(name: str) -> None:
    def cost(size: int) -> float:
        data = GROWING[name](size).encode()
        start = time.process_time()
        read_log(data, "train.log")
        return time.process_time() - start

    # Square growth would be 64 times as slow.
    assert min(cost(8_000) for _ in range(2)) < 30 * max(min(cost(1_000) for _ in range(2)), 0.002)


def test_a_log_with_more_lines_than_are_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "LINES_LIMIT", 3)
    with pytest.raises(HarnessError, match="more than 3 lines"):
        read_log(STEP.encode() * 5, "train.log")


def test_more_logs_than_are_read_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "LOGS_LIMIT", 2)
    for seed in range(4):
        (tmp_path / f"train_seed{seed}.log").write_text(STEP + FINAL, encoding="utf-8")
    facts = submission.read(tmp_path)
    assert len(facts.runs) == 2
    assert any("more than 2 logs" in refused.value for refused in facts.package.refused)


def only_run(tmp_path: Path, text: str, name: str = "train.log") -> Run:
    (tmp_path / name).write_text(text, encoding="utf-8")
    [run] = submission.read(tmp_path).runs
    return run


@pytest.mark.parametrize(
    "line",
    [
        "=== Seed 42 ===",
        "SEED=42 torchrun train_gpt.py",
        "Extra args: A=1 SEED=42 B=2",
        "# env:SEED=42",
        '  "seed": 42,',
    ],
)
def test_a_seed_among_other_words_is_read_where_nothing_else_names_one(line: str, tmp_path: Path) -> None:
    seed = only_run(tmp_path, f"{line}\n{STEP}{FINAL}").seed
    assert isinstance(seed, Located)
    assert (seed.value, seed.location.line) == (42, 1)


def test_a_mentioned_seed_gives_way_to_the_names_and_to_another_mention(tmp_path: Path) -> None:
    named = only_run(tmp_path, f"=== Seed 42 ===\n{STEP}{FINAL}", "train_seed7.log").seed
    assert isinstance(named, Located)
    assert named.value == 7
    (tmp_path / "train_seed7.log").unlink()
    several = only_run(tmp_path, f"=== Seed 42 ===\n=== Seed 43 ===\n{STEP}{FINAL}").seed
    assert not isinstance(several, Located)


def test_calendar_dates_and_colours_before_a_line_are_passed_over() -> None:
    lines = ["[Thu Apr 30 12:27:38 UTC 2026] seed:9", "\x1b[32mstep:1/2 train_loss:1.5\x1b[0m"]
    assert [type(event).__name__ for event in parse_lines(lines)] == [
        "SeedEvent",
        "ConfigEvent",
        "StepEvent",
    ]


def test_wide_text_is_read_without_a_mark() -> None:
    for encoding in ("utf-16-le", "utf-16-be", "utf-16"):
        assert decode(STEP.encode(encoding)) == STEP
    assert decode(b"\0\0\0\0") == "\0\0\0\0"


def test_a_source_in_one_piece_is_the_source_line_by_line() -> None:
    source = ['"""A script."""', "import os", "x = 1", "=" * 100, "Running Python 3.12", "seed:1", STEP.strip()]
    streamed = LineParser()
    by_line = [event for number, line in enumerate(source, start=1) for event in streamed.feed(line, number)]
    assert repr([*by_line, *streamed.finish()]) == repr(list(parse_lines(source)))


def test_an_evaluation_time_may_carry_the_evaluations_name(tmp_path: Path) -> None:
    text = STEP + "final_ngram val_loss:1.6 val_bpb:0.9641 ngram_eval_time:890878ms\n"
    seconds = only_run(tmp_path, text).eval_seconds
    assert isinstance(seconds, Located)
    assert seconds.value == 890.878


def test_the_exact_print_of_the_headline_may_name_less(tmp_path: Path) -> None:
    text = "final_rt(ttt_lora) val_loss:1.7120 val_bpb:1.0132\nfinal_rt_exact val_loss:1.71204961 val_bpb:1.01315479\n"
    headline = only_run(tmp_path, STEP + text).headline
    assert isinstance(headline, Located)
    assert (headline.value.digits, headline.location.line) == (8, 3)


def test_a_model_may_be_serialized_with_its_cache(tmp_path: Path) -> None:
    size = only_run(tmp_path, STEP + FINAL + "Serialized model+cache fp16+lzma: 7972260 bytes\n").model_bytes
    assert isinstance(size, Located)
    assert size.value == 7_972_260
