"""What a log's text says of its runs: numbers, places, and which of several runs count."""

from __future__ import annotations

from typing import Any

import pytest

from harness.facts.build_runs import build_runs
from harness.facts.logfile import read_log
from harness.facts.runs import Run
from harness.model import Missing
from harness.sources.trainlog import source_sha256
from tests.records import SCRIPT, line, log, run_of, value


def test_the_numbers_of_a_run_and_their_lines() -> None:
    run = run_of(log())
    score = value(run.headline)
    assert (score.label, value(score.val_bpb), value(score.val_loss)) == ("final_sliding_window_exact", 1.25, 2.8)
    assert (score.digits, score.loss_digits, score.diagnostic) == (8, 8, False)
    # The exact line has no time; its rounded twin has.
    assert (value(score.eval_seconds), line(score.eval_seconds)) == (7.0, 18)
    assert line(run.headline) == 19
    assert [item.diagnostic for item in run.scores] == [True, False, False, False]
    assert (value(run.steps), line(run.steps), value(run.iterations)) == (12, 10, 50)
    assert (value(run.train_seconds), value(run.step_overshoot_seconds)) == (1.201, 0.1)
    assert value(run.eval_seconds) == 9.0
    assert [(phase.name, phase.seconds, phase.counted) for phase in run.phases] == [
        ("DIAGNOSTIC post_ema", 0.5, False),
        ("final_roundtrip", 2.0, True),
        ("final_sliding_window", 7.0, True),
    ]
    assert (value(run.model_bytes), value(run.code_bytes)) == (5000, len(SCRIPT))
    assert (value(run.total_bytes), line(run.total_bytes)) == (5000 + len(SCRIPT), 16)
    assert [value(fact) for fact in (run.parameters, run.world_size, run.val_tokens, run.train_shards)] == [
        9000,
        8,
        1024,
        3,
    ]
    assert {key: run.config[key].value for key in ("grad_accum_steps", "lr", "warmup", "seed")} == {
        "grad_accum_steps": "1",
        "lr": "0.1",
        "warmup": "2",
        "seed": "42",
    }
    assert value(run.complete) is True
    assert run.curve == ((0, 4.0), (12, 1.3))
    assert (run.family, run.concatenated, run.evaluation_only) == ("step", 1, False)
    assert isinstance(run.source, Missing)


def test_the_seed_of_the_log_goes_before_the_name() -> None:
    run = run_of(log(1337), "train_seed42.log")
    assert (value(run.seed), line(run.seed), value(run.named_seed)) == (1337, 6, 42)
    unseeded = log().replace("seed:42\n", "")
    run = run_of(unseeded, "logs/run_seed-7.txt")
    assert (value(run.seed), line(run.seed)) == (7, None)
    assert isinstance(run_of(unseeded, "train_v3.txt").seed, Missing)
    twice = run_of(log().replace("seed:42\n", "seed:42\nseed:43\n"))
    assert isinstance(twice.seed, Missing)
    assert "42, 43" in twice.seed.reason


def test_the_last_finished_run_of_a_joined_log_counts() -> None:
    crashed = log(3, bpb=1.9).partition("stopping_early")[0]
    run = run_of(log(1, bpb=1.5) + log(2, bpb=1.4) + crashed)
    assert (value(run.seed), value(value(run.headline).val_bpb), run.concatenated) == (2, 1.4, 3)
    assert {"lr", "warmup", "seed", "world_size", "grad_accum_steps"} <= set(run.config)
    assert value(run.train_shards) == 3


def resumed_log(
    *, source: str = SCRIPT, resumed: str = "resumed:c.pt step:4/12 train_time:400ms step_avg:100.00ms"
) -> str:
    """A run that was killed after its sixth step and resumed after its fourth; settings stand before the seed."""
    head = "Hyperparameters:\n  resume: {}\n  seed: 7\n" + "=" * 100 + "\n{}" + "=" * 100 + "\nseed:7\n"
    steps = [f"step:{n}/12 train_loss:{9 - n / 4} train_time:{100 * n}ms step_avg:100.00ms" for n in range(1, 13)]
    later = [line.replace("00ms step", "50ms step") for line in steps[4:]]
    parts = (head.format(0, SCRIPT), *steps[:6], "Traceback (most recent call last):", head.format(1, source), resumed)
    return "\n".join((*parts, *later, "final_int8_exact val_loss:2.7 val_bpb:1.2 eval_time:9ms")) + "\n"


def test_a_resumed_run_is_one_run_without_the_steps_that_were_lost() -> None:
    run = run_of(resumed_log())
    assert (value(run.seed), value(run.steps), value(run.train_seconds), run.concatenated) == (7, 12, 1.25, 1)
    assert [step for step, _ in run.losses] == list(range(1, 13))
    assert [(step.value, step.location.line) for step in run.resumed] == [(4, 30)]
    assert value(run.complete) is True
    # The settings of the part that finished are the run's.
    assert run.config["resume"].value == "1"


def test_a_part_of_another_script_is_another_run() -> None:
    run = run_of(resumed_log(source=SCRIPT + "# changed\n"))
    assert (run.concatenated, [step for step, _ in run.losses]) == (2, list(range(5, 13)))
    assert value(run.source) == source_sha256(SCRIPT + "# changed\n")
    unsaid = run_of(resumed_log(resumed="going on"))
    assert (unsaid.concatenated, unsaid.resumed) == (2, ())


def test_data_that_are_named_again_between_two_steps_begin_no_run() -> None:
    text = log()
    steps = [line for line in text.splitlines() if line.startswith("step:") and "train_loss" in line]
    again = f"WARNING: starting epoch:2 dataset:fineweb10B_sp1024 train_shards:1\n{steps[-1]}"
    run = run_of(text.replace(steps[-1], again))
    assert (run.concatenated, value(run.steps), value(run.val_tokens)) == (1, 12, value(run_of(text).val_tokens))
    # Steps that begin again are another run's.
    assert run_of(text.replace(steps[-1], again.replace(steps[-1], text))).concatenated == 2


def test_the_runs_of_several_seeds_in_one_log_all_count() -> None:
    crashed = log(3, bpb=1.9).partition("stopping_early")[0]
    joined = log(1, bpb=1.5) + log(2, bpb=1.4) + crashed
    runs = build_runs(read_log(joined.encode(), "train_logs.txt"))
    assert [value(run.seed) for run in runs] == [1, 2, 3]
    assert [known_headline(run) for run in runs] == [1.5, 1.4, None]
    assert len({run.location for run in runs}) == 3
    assert {run.concatenated for run in runs} == {3}


def test_a_search_over_many_seeds_keeps_its_last_run() -> None:
    joined = "".join(log(seed) for seed in range(1, 15))
    assert [value(run.seed) for run in build_runs(read_log(joined.encode(), "search.txt"))] == [14]


def known_headline(run: Run) -> Any:
    headline = value(run.headline)
    return None if headline is None else value(headline.val_bpb)


def test_a_run_printed_twice_is_one_run() -> None:
    run = run_of(log() + log(source=SCRIPT))
    assert run.concatenated == 1
    assert value(run.source) == source_sha256(SCRIPT)
    assert value(run.source_bytes) == len(SCRIPT)


def test_an_evaluation_after_a_run_belongs_to_it() -> None:
    run = run_of(log(bpb=1.25) + "seed:42\nlegal_ttt_exact val_loss:2.7 val_bpb:1.20000000\n")
    assert value(run.headline).label == "legal_ttt_exact"
    assert value(run.steps) == 12


def test_a_log_without_training_is_an_evaluation() -> None:
    run = run_of(
        "Hyperparameters:\n  seed: 5\n  world_size: 8\nlegal_ttt_exact val_loss:2.7 val_bpb:1.2 eval_time:9ms\n"
    )
    assert run.evaluation_only
    assert run.family == "evaluation"
    assert isinstance(run.steps, Missing)
    assert value(run.world_size) == 8


def test_a_run_without_final_evaluation_says_so() -> None:
    cut = log().partition("DIAGNOSTIC")[0]
    run = run_of(cut)
    assert isinstance(run.headline, Missing)
    assert "the last at step 12" in run.headline.reason
    assert isinstance(run.complete, Missing)
    crashed = run_of(cut + "Traceback (most recent call last):\nRuntimeError: no\n")
    assert value(crashed.complete) is False
    assert line(crashed.complete) == 12


def test_a_nan_score_is_unfinished_business() -> None:
    run = run_of(log().partition("final_roundtrip")[0] + "final_roundtrip val_loss:nan val_bpb:nan\n")
    assert value(run.complete) is False
    score = value(run.headline)
    assert isinstance(score.val_bpb, Missing)
    assert "nan" in score.val_bpb.reason


def test_minutes_are_too_coarse_for_a_time() -> None:
    run = run_of("seed:1\n10/50 train_loss: 3.0 train_time: 9.9m tok/s: 100\nfinal_sliding val_loss:2.8 val_bpb:1.2\n")
    assert run.family == "minutes"
    assert isinstance(run.train_seconds, Missing)


def test_budget_logs_give_the_model_as_what_remains() -> None:
    sizes = "artifact:1MB x:2 code:70\nbudget:1070/16000000 ok\n"
    text = "params:900 L:1 ws:8 ga:1 s:7\nstep:9/9 loss:3.1 t:50ms avg:5ms\n"
    run = run_of(text + sizes + "final_sliding val_loss:2.9 val_bpb:1.15 eval_time:4ms\n")
    assert (run.family, value(run.seed), value(run.total_bytes), value(run.model_bytes)) == ("budget", 7, 1070, 1000)


def test_an_unlabelled_total_counts_when_it_is_model_plus_code() -> None:
    text = log().replace("Total submission size int8+zlib", "Total submission size")
    assert value(run_of(text).total_bytes) == 5000 + len(SCRIPT)
    assert isinstance(run_of(text.replace(f"size: {5000 + len(SCRIPT)}", "size: 77")).total_bytes, Missing)


def test_text_without_a_run_is_no_log() -> None:
    assert read_log(b"torch>=2\nnumpy\n", "requirements.txt") == ()
    assert read_log(b"We reached val_bpb: 1.2 at last.\n", "notes.txt") == ()
    assert read_log(b"\x00\xff" * 40, "x.log") == ()


def test_floods_of_scores_are_bounded() -> None:
    text = log() + "".join(f"final_x{n} val_loss:2.0 val_bpb:1.5\n" for n in range(1_000))
    assert len(run_of(text).scores) == 400


def test_numbers_called_bits_per_byte_are_kept_though_no_score_is_read() -> None:
    run = run_of(log() + "mix_done ngram_bpb=0.3210 delta=-0.8\nppm_mix_bpb:0.832925\n")
    named = {(fact.value, fact.location.line) for fact in run.named_bpb}
    last = log().count("\n")
    assert {(0.321, last + 1), (0.832925, last + 2)} <= named


@pytest.mark.parametrize(("name", "seed"), [("s1_control.txt", None), ("final_s1337.txt", 1337), ("seed7.txt", 7)])
def test_a_single_digit_after_s_is_no_seed(name: str, seed: int | None) -> None:
    assert value(run_of(log(), name).named_seed) == seed
