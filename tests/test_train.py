"""Training, packing and scoring on a tiny corpus: reproducible, on its clock, from disk, with clear refusals."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import reference_model
from reference_model.bundle import bundle, package_texts
from reference_model.config import Config
from reference_model.exchange import Exchange, average_gradients
from reference_model.launch import started_worker
from reference_model.main import build_model, main, read_config
from reference_model.miniature import miniature_environment, write_miniature_corpus
from reference_model.presets import PRESETS
from reference_model.runlog import RunLog
from reference_model.settings import ConfigError
from reference_model.storage import RunError, load_state, write_whole
from reference_model.train import (
    Stopwatch,
    Trainer,
    TrainingError,
    TrainingResult,
    accumulation_steps,
    training_loader,
)
from reference_model.worker import Worker


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_miniature_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "train_gpt.py"
    path.write_text(bundle(package_texts(Path(reference_model.__file__).parent), "demo", reference_model.__version__))
    return path


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(config: Config, clock: Iterator[float], lines: list[str] | None = None) -> tuple[TrainingResult, list[str]]:
    lines = [] if lines is None else lines
    model = build_model(config, "cpu")
    loader = training_loader(config, Worker())
    return Trainer(model, config, loader, Worker(), RunLog(None, lines.append), clock.__next__).run(), lines


def tiny_config(corpus: Path, **changes: str) -> Config:
    return Config.from_environment({**miniature_environment(corpus), **changes}, PRESETS["demo"])


def test_fixed_steps_do_not_depend_on_the_clock(corpus: Path) -> None:
    config = tiny_config(corpus)
    slow, lines = train(config, itertools.count(0.0, 50.0))
    fast, _ = train(config, itertools.count(0.0, 0.001))
    assert slow.steps == fast.steps == 6
    assert all(torch.equal(slow.average[name], fast.average[name]) for name in slow.average)
    assert not any("stopping_early" in line for line in lines)


def test_warm_up_leaves_no_trace(corpus: Path) -> None:
    without, _ = train(tiny_config(corpus, WARMUP_STEPS="0"), itertools.count())
    with_some, lines = train(tiny_config(corpus, WARMUP_STEPS="3"), itertools.count())
    assert lines[:3] == ["warmup_step:1/3", "warmup_step:2/3", "warmup_step:3/3"]
    assert all(torch.equal(without.average[name], with_some.average[name]) for name in without.average)


def test_accumulation_does_not_change_the_gradient(corpus: Path) -> None:
    whole, _ = train(tiny_config(corpus, GRAD_ACCUM_STEPS="1", ITERATIONS="1"), itertools.count())
    parts, _ = train(tiny_config(corpus, GRAD_ACCUM_STEPS="4", ITERATIONS="1"), itertools.count())
    for name, value in whole.average.items():
        torch.testing.assert_close(parts.average[name], value, atol=2e-3, rtol=2e-3)


def test_wallclock_ends_the_run_on_the_injected_clock(corpus: Path) -> None:
    ticks = itertools.count(0.0, 1.0)
    result, lines = train(tiny_config(corpus, MAX_WALLCLOCK_SECONDS="9", ITERATIONS="1000", WARMUP_STEPS="0"), ticks)
    assert 1 < result.steps < 10
    assert result.train_s >= 9.0
    assert (
        lines[-1] == f"stopping_early: wallclock_cap train_time:{1000 * result.train_s:.0f}ms step:{result.steps}/1000"
    )


def test_losses_fall(corpus: Path) -> None:
    _, lines = train(tiny_config(corpus, ITERATIONS="40", TRAIN_LOG_EVERY="1"), itertools.count())
    losses = [float(match[1]) for line in lines if (match := re.search(r"train_loss:(\S+)", line))]
    assert len(losses) == 40
    assert losses[-1] < 0.7 * losses[0]


def test_average_is_taken_every_few_steps(corpus: Path) -> None:
    result, _ = train(tiny_config(corpus, EMA_EVERY="7"), itertools.count())
    assert result.average == {}


@pytest.mark.parametrize("every", ["0", "1"])
def test_loss_that_is_not_finite_stops_the_run(corpus: Path, every: str) -> None:
    config = tiny_config(corpus, TRAIN_LOG_EVERY=every)
    model = build_model(config, "cpu")
    torch.nn.init.constant_(model.tok_emb.weight, float("nan"))
    with pytest.raises(TrainingError, match="training loss that is not finite at step 1"):
        Trainer(model, config, training_loader(config, Worker()), Worker(), RunLog(None, lambda _: None)).run()


def test_validation_time_does_not_count() -> None:
    now = iter([0.0, 5.0, 105.0, 107.0])
    watch = Stopwatch(now.__next__, "cpu")
    watch.start()
    with watch.paused():
        pass
    assert watch.elapsed_s() == 7.0


def test_eight_micro_batches_are_shared_by_default(corpus: Path) -> None:
    config = tiny_config(corpus, GRAD_ACCUM_STEPS="0")
    assert [accumulation_steps(config, size) for size in (1, 2, 8)] == [8, 4, 1]
    with pytest.raises(ConfigError, match=r"^GRAD_ACCUM_STEPS: must be given"):
        accumulation_steps(config, 3)
    with pytest.raises(ConfigError, match=r"^TRAIN_BATCH_TOKENS: 128 is not a multiple of 32 tokens x 8"):
        training_loader(config, Worker())


def test_one_process_keeps_its_gradients() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([1.0, 2.0])
    average_gradients([parameter], Exchange())()
    assert parameter.grad.tolist() == [1.0, 2.0]


def run_main(environ: dict[str, str], script: Path) -> int:
    return main(environ, script, "demo")


def headline(log: Path) -> str:
    return [line for line in log.read_text().splitlines() if "val_bpb:" in line][-1]


def test_whole_run_leaves_its_files_and_the_same_bytes_again(corpus: Path, script: Path, inside: Path) -> None:
    environ = miniature_environment(corpus)
    assert run_main(environ, script) == 0
    assert sorted(path.name for path in inside.iterdir()) == [
        *["final_model.int6.ptz", "final_model.pt", "final_model.raw.pt", "logs"]
    ]
    artifact = Path("final_model.int6.ptz")
    first, text = artifact.read_bytes(), Path("logs/miniature.txt").read_text()
    assert script.read_text().rstrip() in text
    assert f"Code size: {script.stat().st_size} bytes" in text
    assert f"Serialized model int6+zstd-22: {len(first)} bytes" in text
    assert "\nseed:7\n" in text
    assert headline(Path("logs/miniature.txt")).startswith("legal_ttt_exact val_loss:")

    artifact.unlink()
    assert run_main({**environ, "REPACK_ONLY": "1"}, script) == 0
    assert artifact.read_bytes() == first

    assert run_main({**environ, "RUN_ID": "again"}, script) == 0
    assert artifact.read_bytes() == first
    assert run_main({**environ, "RUN_ID": "other", "SEED": "8"}, script) == 0
    assert artifact.read_bytes() != first


def test_saved_artifact_scores_the_same_without_training_data(corpus: Path, script: Path, inside: Path) -> None:
    environ = miniature_environment(corpus)
    assert run_main(environ, script) == 0
    validation_only = inside / "val"
    validation_only.mkdir()
    shard = Path(environ["DATA_PATH"]) / "fineweb_val_000000.bin"
    (validation_only / shard.name).write_bytes(shard.read_bytes())
    assert run_main({**environ, "EVAL_ONLY": "1", "DATA_PATH": str(validation_only)}, script) == 0
    assert headline(Path("logs/miniature.eval.txt")) == headline(Path("logs/miniature.txt"))
    assert "train_loader:dataset:demo" not in Path("logs/miniature.eval.txt").read_text()


def test_scored_weights_are_those_of_the_artifact(corpus: Path, script: Path, inside: Path) -> None:
    environ = {**miniature_environment(corpus), "TTT_ENABLED": "0"}
    assert run_main(environ, script) == 0
    score = headline(Path("logs/miniature.txt"))
    assert score.startswith("final_int6_roundtrip_exact")
    (inside / "final_model.pt").write_bytes((inside / "final_model.raw.pt").read_bytes())
    assert run_main({**environ, "EVAL_ONLY": "1"}, script) == 0
    assert headline(Path("logs/miniature.eval.txt")) == score


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"SEED": "x"}, 2, "SEED: 'x' is not an integer"),
        ({"QUANT_BITS": "5"}, 2, "QUANT_BITS: 5 is not one of"),
        ({"RUN_ID": "../up"}, 2, "RUN_ID: '../up' is not a file name"),
        ({"EVAL_ONLY": "1", "REPACK_ONLY": "1"}, 2, "EVAL_ONLY: excludes REPACK_ONLY"),
        ({"EVAL_ONLY": "1", "SERVE_ONLY": "1"}, 2, "EVAL_ONLY: excludes SERVE_ONLY"),
        ({"DATA_PATH": "nowhere"}, 2, "DATA_PATH: nowhere/fineweb_val_*.bin: no such shards"),
        ({"TOKENIZER_PATH": "nowhere.model"}, 2, "TOKENIZER_PATH: nowhere.model: not a readable"),
        ({"VOCAB_SIZE": "310"}, 2, "VOCAB_SIZE: 310, but the tokenizer has"),
        ({"RANK": "-1"}, 2, "RANK: '-1' is not a number"),
        ({"RANK": "1"}, 2, "RANK: 1 is not below WORLD_SIZE (1)"),
        ({"EVAL_ONLY": "1"}, 1, "final_model.int6.ptz: No such file"),
        ({"REPACK_ONLY": "1"}, 1, "final_model.pt: No such file"),
        ({"SERVE_ONLY": "1"}, 1, "final_model.int6.ptz: No such file"),
    ],
)
def test_refusals_are_one_line(
    changes: dict[str, str],
    status: int,
    message: str,
    corpus: Path,
    script: Path,
    inside: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_main({**miniature_environment(corpus), **changes}, script) == status
    error = capsys.readouterr().err
    assert error.startswith(f"train_gpt.py: {message}")
    assert error.count("\n") == 1
    assert not list(inside.glob("final_model*"))


def test_artifact_of_other_settings_is_refused(
    corpus: Path, script: Path, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = miniature_environment(corpus)
    assert run_main(environ, script) == 0
    assert run_main({**environ, "EVAL_ONLY": "1", "LOGIT_SOFTCAP": "20"}, script) == 1
    assert "packed under other settings of logit_softcap" in capsys.readouterr().err
    (inside / "final_model.int6.ptz").write_bytes(b"HYM1 and nothing of use behind it")
    assert run_main({**environ, "EVAL_ONLY": "1"}, script) == 1


def test_submission_above_the_cap_is_refused_before_it_is_written(
    corpus: Path, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    big = inside / "train_gpt.py"
    big.write_text("#" * 16_000_000)
    assert run_main(miniature_environment(corpus), big) == 1
    assert "the cap is 16000000" in capsys.readouterr().err
    assert not (inside / "final_model.int6.ptz").exists()


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"nothing")
    with pytest.raises(RunError, match=r"w\.pt: not saved weights"):
        load_state(tmp_path / "w.pt")


def test_failed_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_whole(path, b"old")
    (tmp_path / "a.bin.partial").mkdir()
    with pytest.raises(OSError):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"


def test_published_command_lines_are_accepted() -> None:
    common = {"NUM_LAYERS": "7", "MLP_MULT": "4", "MODEL_DIM": "512", "MATRIX_LR": "0.02", "HYMBA_EXPAND": "1"}
    config = read_config({**common, "SEED": "1337", "WARMDOWN_SHAPE": "cosine", "EVAL_STRIDE": "64"}, "pr599")
    assert config == replace(PRESETS["pr599"], train=replace(PRESETS["pr599"].train, seed=1337))


def test_single_process_is_rank_zero() -> None:
    with started_worker({}) as worker:
        assert (worker.rank, worker.world_size) == (0, 1)


@pytest.mark.slow
def test_two_processes_stop_together_and_score_alike(corpus: Path, script: Path, tmp_path: Path) -> None:
    environ = {**os.environ, **miniature_environment(corpus), "OMP_NUM_THREADS": "1", "GRAD_ACCUM_STEPS": "1"}
    environ |= {"MAX_WALLCLOCK_SECONDS": "3", "ITERATIONS": "100000", "TRAIN_LOG_EVERY": "0"}
    environ |= {"MUON_SHARDED": "1", "CHECKPOINT_EVERY": "2", "QAT_START": "0"}
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    done = subprocess.run(start, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "world_size:2 grad_accum_steps:1" in done.stdout
    assert done.stdout.count("qat:on after_step:") == 1
    assert not (tmp_path / "checkpoint.pt").exists()
    log = tmp_path / "logs" / "miniature.txt"
    score = headline(log)
    # The artifact scores the same on one process, but for the order of additions and of the adapting steps.
    plain = {**environ, "EVAL_ONLY": "1", "TTT_ENABLED": "0"}
    alone = subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=plain, check=False, timeout=120)
    assert alone.returncode == 0
    roundtrip = [line for line in log.read_text().splitlines() if line.startswith("final_int6_roundtrip_exact")]
    assert headline(tmp_path / "logs" / "miniature.eval.txt") == roundtrip[-1]
    assert score.startswith("legal_ttt_exact")


def test_the_last_step_is_always_logged(corpus: Path) -> None:
    _, lines = train(tiny_config(corpus, ITERATIONS="25", TRAIN_LOG_EVERY="20"), itertools.count())
    steps = [line.split()[0] for line in lines if line.startswith("step:")]
    assert steps[-2:] == ["step:20/25", "step:25/25"]
