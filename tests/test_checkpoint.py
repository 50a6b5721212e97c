"""Checkpoints: a killed run goes on to the very bits of one that was not, and no other file is taken for one."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from reference_model.checkpoint import CHECKPOINT_MAGIC, Checkpoints, run_identity
from reference_model.config import Config
from reference_model.main import build_model, main
from reference_model.miniature import miniature_environment, write_miniature_corpus
from reference_model.optim import Optimizers
from reference_model.presets import PRESETS
from reference_model.runlog import RunLog
from reference_model.storage import RunError
from reference_model.train import TRAIN_FILES, Trainer, TrainingError, training_loader
from reference_model.worker import Worker
from tests.worlds import exit_codes, run_world

SAVING = {"CHECKPOINT_EVERY": "2", "TRAIN_LOG_EVERY": "1"}
# The clock is read once at the start, then in each of six steps when it begins and when it is logged, and when it is
# saved: this is the log of the fifth.
READS_TO_STEP_5 = 13
RESUMED_ROUNDING = 3e-5


class Killed(BaseException):
    """What stops a run in its own process, and nothing catches."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_miniature_corpus(tmp_path_factory.mktemp("corpus"))


def dying_clock(reads: int, *, really: bool = False) -> Iterator[float]:
    yield from map(float, range(reads - 1))
    if really:
        os.kill(os.getpid(), signal.SIGKILL)
    raise Killed


def trained(
    worker: Worker, corpus: Path, path: Path, changes: dict[str, str], reads: int = 0, *, torn: bool = False
) -> dict[str, Tensor]:
    """Last and averaged weights; the last process kills itself when its clock is read so often (0: never).

    Torn: the first process kills itself between writing its second checkpoint and giving it its name.
    """
    environ = {**miniature_environment(corpus), **SAVING, **changes}
    config = Config.from_environment(environ, PRESETS["demo"])
    checkpoints = Checkpoints(
        path, 2, config.train.resume, run_identity(config, f"{environ['DATA_PATH']}/{TRAIN_FILES}")
    )
    dies = reads and worker.rank == worker.world_size - 1
    clock = dying_clock(reads, really=True) if dies else itertools.count(0.0)
    if torn:
        named = Path.replace
        dying = lambda old, new: os.kill(os.getpid(), signal.SIGKILL) if path.exists() else named(old, new)  # noqa: E731
        patch.object(Path, "replace", dying).start()
    model, loader = build_model(config, "cpu"), training_loader(config, worker)
    log = RunLog(None, lambda _: None)
    result = Trainer(model, config, loader, worker, log, clock.__next__, checkpoints=checkpoints).run()
    return {**dict(model.state_dict()), **{f"average.{name}": value for name, value in result.average.items()}}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []


def test_a_stopped_run_goes_on_to_the_same_artifact(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "train_gpt.py"
    script.write_text("# the script\n")
    environ = {**miniature_environment(corpus), **SAVING, "TTT_ENABLED": "0"}
    with pytest.raises(Killed):
        main(environ, script, "demo", clock=dying_clock(READS_TO_STEP_5).__next__)
    saved = Path("checkpoint.pt").read_bytes()
    capsys.readouterr()
    assert main(environ, script, "demo") == 2
    assert capsys.readouterr().err == (
        "train_gpt.py: CHECKPOINT_PATH: checkpoint.pt is there already; RESUME=1 goes on from it\n"
    )
    for changes, message in (
        ({"MATRIX_LR": "0.5", "WEIGHT_DECAY": "0.1"}, "checkpoint of a run with another MATRIX_LR, WEIGHT_DECAY"),
        ({"CHECKPOINT_PATH": "gone.pt"}, "No such file"),
    ):
        assert main({**environ, "RESUME": "1", **changes}, script, "demo") == 1
        assert message in capsys.readouterr().err
    assert Path("checkpoint.pt").read_bytes() == saved

    # Where it is logged and scored changes nothing that is learned.
    assert main({**environ, "RESUME": "1", "TRAIN_LOG_EVERY": "2", "EVAL_BATCH_SEQS": "4"}, script, "demo") == 0
    assert not Path("checkpoint.pt").exists()
    artifact = Path("final_model.int6.ptz").read_bytes()
    text = Path("logs/miniature.txt").read_text()
    assert (
        text.index("\nstep:4/6 ")
        < text.index("\nresumed:checkpoint.pt step:4/6 train_time:")
        < text.index("\nstep:6/6 ")
    )

    assert main({**environ, "CHECKPOINT_EVERY": "0"}, script, "demo") == 0
    assert Path("final_model.int6.ptz").read_bytes() == artifact


def test_seconds_go_on_where_they_were_saved(corpus: Path, tmp_path: Path) -> None:
    path, timed = tmp_path / "c.pt", {"MAX_WALLCLOCK_SECONDS": "40", "ITERATIONS": "1000"}
    config = Config.from_environment({**miniature_environment(corpus), **SAVING, **timed}, PRESETS["demo"])

    def run(clock: Iterator[float], *, resume: bool) -> tuple[float, list[str]]:
        lines, checkpoints = list[str](), Checkpoints(path, 2, resume)
        model, loader = build_model(config, "cpu"), training_loader(config, Worker())
        log = RunLog(None, lines.append)
        trainer = Trainer(model, config, loader, Worker(), log, clock.__next__, checkpoints=checkpoints)
        return trainer.run().train_s, lines

    with pytest.raises(Killed):
        run(dying_clock(READS_TO_STEP_5), resume=False)
    # Read at the start, four times before the second step was saved, and that often again for the fourth: ten seconds.
    seconds, lines = run(itertools.count(1000.0), resume=True)
    assert 40.0 <= seconds < 43.0
    assert lines[1] == "resumed:c.pt step:4/1000 train_time:10000ms step_avg:2500.00ms"


@pytest.mark.parametrize(
    ("ruined", "message"),
    [
        (3, "training loss that is not finite at step 4"),
        # The loss of the fourth step is that before it.
        (4, "weights that are not finite after step 4: tok_emb.weight"),
    ],
)
def test_a_good_checkpoint_stays_where_weights_are_ruined(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ruined: int, message: str
) -> None:
    environ = {**miniature_environment(corpus), **SAVING, "TRAIN_LOG_EVERY": "0", "WARMUP_STEPS": "0"}
    config, steps, real = Config.from_environment(environ, PRESETS["demo"]), itertools.count(1), Optimizers.step
    checkpoints, model = Checkpoints(tmp_path / "c.pt", 2), build_model(config, "cpu")

    def step(self: Optimizers, factor: float, momentum: float) -> None:
        real(self, factor, momentum)
        if next(steps) == ruined:
            torch.nn.init.constant_(model.tok_emb.weight, float("nan"))

    monkeypatch.setattr(Optimizers, "step", step)
    log = RunLog(None, lambda _: None)
    with pytest.raises(TrainingError, match=message):
        Trainer(model, config, training_loader(config, Worker()), Worker(), log, checkpoints=checkpoints).run()
    assert checkpoints.load()["step"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: b"", "not a checkpoint of this version"),
        (lambda blob: b"PK" + blob[2:], "not a checkpoint of this version"),
        (lambda blob: blob[:-1], "damaged checkpoint, the checksum does not match"),
        (lambda blob: blob[:200] + bytes([blob[200] ^ 1]) + blob[201:], "damaged checkpoint"),
        (lambda blob: blob + b"\0", "damaged checkpoint"),
        (lambda blob: blob[:10], "damaged checkpoint"),
    ],
)
def test_damage_is_one_error_that_names_the_file(change: object, message: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c.pt", identity={"SEED": "1"})
    checkpoints.save({"step": 3, "weights": {"w": torch.ones(50)}})
    blob = checkpoints.path.read_bytes()
    assert blob.startswith(CHECKPOINT_MAGIC)
    assert checkpoints.load()["step"] == 3
    checkpoints.path.write_bytes(change(blob))  # type: ignore[operator]  # one of the functions above
    with pytest.raises(RunError, match=rf"c\.pt: {message}"):
        checkpoints.load()


def test_another_run_is_named(corpus: Path, tmp_path: Path) -> None:
    environ = miniature_environment(corpus)
    files = f"{environ['DATA_PATH']}/{TRAIN_FILES}"
    config = Config.from_environment(environ, PRESETS["demo"])
    identity = run_identity(config, files)
    assert identity["DATA_PATH"].startswith("fineweb_train_000000.bin:")
    assert not {"RESUME", "RUN_ID", "TTT_LR", "VAL_LOSS_EVERY"} & set(identity)
    Checkpoints(tmp_path / "c.pt", identity=identity).save({})
    other = Checkpoints(
        tmp_path / "c.pt", identity={**identity, "DATA_PATH": "fineweb_train_000000.bin:7", "SEED": "8"}
    )
    with pytest.raises(RunError, match=r"c\.pt: checkpoint of a run with another DATA_PATH, SEED"):
        other.load()


def test_what_does_not_fit_the_model_is_named(corpus: Path, tmp_path: Path) -> None:
    config = Config.from_environment(miniature_environment(corpus), PRESETS["demo"])
    checkpoints = Checkpoints(tmp_path / "c.pt", resume=True)
    checkpoints.save({"step": 1, "train_s": 0.0, "weights": {}})
    loader, log = training_loader(config, Worker()), RunLog(None, lambda _: None)
    with pytest.raises(RunError, match=r"c\.pt: does not fit this run"):
        Trainer(build_model(config, "cpu"), config, loader, Worker(), log, checkpoints=checkpoints).run()


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
def test_killed_processes_go_on_to_the_same_bits(size: int, corpus: Path, tmp_path: Path) -> None:
    path, sharded = tmp_path / "c.pt", {"MUON_SHARDED": "1"}
    expected = run_world(size, tmp_path / "whole", trained, corpus, tmp_path / "w.pt", sharded)
    codes = exit_codes(size, tmp_path / "killed", trained, corpus, path, sharded, READS_TO_STEP_5)
    assert codes[-1] == -signal.SIGKILL
    assert 0 not in codes
    found = run_world(size, tmp_path / "resumed", trained, corpus, path, {**sharded, "RESUME": "1"})
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)


@pytest.mark.slow
def test_a_kill_while_writing_leaves_the_checkpoint_before(corpus: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    expected = run_world(1, tmp_path / "whole", trained, corpus, tmp_path / "w.pt", {})
    assert exit_codes(1, tmp_path / "killed", torn, corpus, path) == [-signal.SIGKILL]
    assert path.with_name("c.pt.partial").exists()
    assert_same(run_world(1, tmp_path / "resumed", trained, corpus, path, {"RESUME": "1"})[0], expected[0])


def torn(worker: Worker, corpus: Path, path: Path) -> dict[str, Tensor]:
    return trained(worker, corpus, path, {}, torn=True)


@pytest.mark.slow
def test_two_processes_go_on_as_one(corpus: Path, tmp_path: Path) -> None:
    path, changes = tmp_path / "c.pt", {"MUON_SHARDED": "1", "GRAD_ACCUM_STEPS": "0", "TRAIN_BATCH_TOKENS": "256"}
    expected = run_world(2, tmp_path / "whole", trained, corpus, tmp_path / "w.pt", changes)[0]
    exit_codes(2, tmp_path / "killed", trained, corpus, path, changes, READS_TO_STEP_5)
    found = run_world(1, tmp_path / "resumed", trained, corpus, path, {**changes, "RESUME": "1"})[0]
    for name, value in expected.items():
        assert (found[name] - value).norm() <= RESUMED_ROUNDING * value.norm(), name
