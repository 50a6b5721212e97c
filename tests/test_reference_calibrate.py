"""Calibration: which inputs are seen, what they gain, and that it keeps to its text and its time."""

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
from torch import Tensor

import reference_model
from reference_model.bundle import bundle, package_texts
from reference_model.calibrate import Budget, Calibrator, InputStatistics, nearest_of, sampled
from reference_model.config import Config
from reference_model.data import load_validation
from reference_model.main import build_model, main, read_config
from reference_model.miniature import miniature_environment, write_miniature_corpus
from reference_model.model import HymbaLM
from reference_model.presets import PRESETS
from reference_model.quantize import QuantizedTensor, dequantize_rows, tensor_kind
from reference_model.runlog import RunLog
from reference_model.settings import ConfigError
from reference_model.storage import RunError, load_rounded, load_state, pack_model, state_bytes, unpack_model
from reference_model.train import Trainer, training_loader
from reference_model.worker import Worker


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_miniature_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def trained(corpus: Path) -> HymbaLM:
    config = tiny_config(corpus, ITERATIONS="50", TRAIN_BATCH_TOKENS="256", WARMUP_STEPS="0")
    model = build_model(config, "cpu")
    Trainer(model, config, training_loader(config, Worker()), Worker(), RunLog(None, lambda _: None)).run()
    return model


def tiny_config(corpus: Path, preset: str = "demo", **changes: str) -> Config:
    environ = {**miniature_environment(corpus, preset), "QUANT_METHOD": "gptq", "GPTQ_TOKENS": "2048", **changes}
    return Config.from_environment(environ, PRESETS[preset])


def calibrator(
    model: HymbaLM, config: Config, clock: Iterator[float] | None = None, lines: list[str] | None = None
) -> Calibrator:
    said: list[str] = [] if lines is None else lines
    ticks = itertools.count(0.0, 0.0) if clock is None else clock
    loader = training_loader(config, Worker())
    return Calibrator(model, config, loader, Worker(), RunLog(None, said.append), ticks.__next__)


def equal(first: dict[str, QuantizedTensor], second: dict[str, QuantizedTensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name].values, second[name].values) and torch.equal(first[name].scale, second[name].scale)
        for name in first
    )


@torch.no_grad()
def loss(model: HymbaLM, tokens: Tensor) -> float:
    return model.token_losses(tokens[:, :-1], tokens[:, 1:]).mean().item()


@pytest.mark.parametrize("source", ["train", "self"])
def test_four_bits_cost_less_with_inputs_known(source: str, trained: HymbaLM, corpus: Path) -> None:
    config = tiny_config(corpus, QUANT_BITS="4", GPTQ_CALIBRATION=source, GPTQ_LITE="0")
    tokens = load_validation(f"{config.data.data_path}/fineweb_val_*.bin", config.model.vocab_size).long()
    text = tokens[: tokens.numel() // 33 * 33].view(-1, 33)
    floats = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    known = calibrator(trained, config).rounded(80, 0.0)
    nearest = {name: nearest_of(name, floats[name], config.quant) for name in known}
    gaps = []
    for rounded in (known, nearest):
        model = build_model(config, "cpu")
        model.load_state_dict({**floats, **{name: dequantize_rows(one) for name, one in rounded.items()}})
        gaps.append(loss(model, text) - loss(trained, text))
    assert 0 < gaps[0] < 0.8 * gaps[1]
    assert all(torch.equal(tensor, floats[name]) for name, tensor in trained.state_dict().items())


def test_outputs_on_the_calibration_text_are_closer(trained: HymbaLM, corpus: Path) -> None:
    config = tiny_config(corpus, QUANT_BITS="4")
    known, state = calibrator(trained, config).rounded(0, 0.0), trained.state_dict()
    statistics = InputStatistics({name: state[name] for name in known})
    with statistics, torch.no_grad():
        for batch in calibrator(trained, config).batches(0, Budget(lambda: 0.0, 0.0, 1.0)):
            trained(batch)
    for (name, _), hessian in statistics.sums.items():
        if name == "tok_emb.weight":
            continue
        rounded = (known[name], nearest_of(name, state[name], config.quant))
        changes = [(dequantize_rows(one) - state[name]).double() for one in rounded]
        errors = [float(((change @ hessian.double()) * change).sum()) for change in changes]
        assert errors[0] < errors[1], name


def test_it_is_the_same_every_time_and_follows_its_text(trained: HymbaLM, corpus: Path) -> None:
    def run(steps: int = 0, **changes: str) -> dict[str, QuantizedTensor]:
        config = tiny_config(corpus, **{"QUANT_BITS": "4", "GPTQ_TOKENS": "256", **changes})
        return calibrator(trained, config).rounded(steps, 0.0)

    first, own = run(), run(GPTQ_CALIBRATION="self")
    assert equal(first, run())
    assert equal(own, run(GPTQ_CALIBRATION="self"))
    assert not equal(own, run(GPTQ_CALIBRATION="self", SEED="8"))
    assert not equal(first, run(steps=3))
    assert not equal(first, run(GPTQ_ACT_ORDER="0"))
    assert not equal(first, run(GPTQ_DAMPING="1.0"))


@pytest.mark.parametrize("preset", ["demo", "pr914", "pr1245", "mini1961_3", "pr852_records", "pr852", "paper"])
def test_every_matrix_that_is_applied_is_seen(preset: str, corpus: Path) -> None:
    config = tiny_config(corpus, preset, GPTQ_TOKENS="64", TTT_FREEZE_BLOCKS="0", QUANT_KEEP_FLOAT_MAX_NUMEL="200")
    model, lines = build_model(config, "cpu"), list[str]()
    rounded = calibrator(model, config, lines=lines).rounded(0, 0.0)
    state = model.state_dict()
    stored = {name for name, tensor in state.items() if tensor_kind(name, tensor, config.quant).startswith("int")}
    assert rounded.keys() == stored
    applied = [
        name for name in stored if not name.endswith(("tok_emb.weight", "table.weight", "conv1d.weight", "meta_tokens"))
    ]
    matrices = sum(state[name].shape[:-2].numel() for name in applied)
    # The records script's last layer has matrices of a scan that it does not have: ssm_in, ssm_gate, ssm_x, ssm_out.
    unused = 4 if preset == "pr852_records" else 0
    assert f"gptq:quantized {matrices - unused} matrices by their inputs" in lines[-1]


@pytest.mark.parametrize("preset", ["demo", "mini1961_3", "pr852_records", "paper"])
def test_the_log_counts_the_tokens_of_the_text(preset: str, corpus: Path) -> None:
    config = tiny_config(corpus, preset, GPTQ_TOKENS="64", TTT_FREEZE_BLOCKS="0", QUANT_KEEP_FLOAT_MAX_NUMEL="200")
    if preset in {"mini1961_3", "paper"}:
        assert config.model.meta_tokens
    lines = list[str]()
    calibrating = calibrator(build_model(config, "cpu"), config, lines=lines)
    read = sum(batch.numel() for batch in calibrating.batches(0, Budget(lambda: 0.0, 0.0, 1.0)))
    calibrating.rounded(0, 0.0)
    assert read >= 64
    assert f" hessians over {read} tokens of the train shards" in lines[0]


def test_a_matrix_is_known_in_part_in_a_bank_and_not_by_its_value() -> None:
    bank, single, other = torch.randn(3, 4, 5), torch.randn(4, 5), torch.randn(4, 5)
    statistics = InputStatistics({"bank": bank, "single": single})
    x = torch.randn(2, 7, 5)
    with statistics:
        torch.nn.functional.linear(x, bank[1])
        torch.nn.functional.linear(x, bank.unbind()[2][1:])
        torch.nn.functional.linear(x[0], single)
        torch.nn.functional.linear(x[1], single[2:])
        torch.nn.functional.linear(x, other)
        torch.nn.functional.linear(x, single.clone())
    torch.nn.functional.linear(x, bank[0])
    assert sorted(statistics.sums) == [("bank", 1), ("bank", 2), ("single", 0)]
    whole = x.view(-1, 5).T @ x.view(-1, 5)
    for product in statistics.sums.values():
        torch.testing.assert_close(product, whole)


def test_samples_are_the_models_own(trained: HymbaLM) -> None:
    def draw(seed: int, *, over_after: int = 1000) -> Tensor:
        asked = itertools.count()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            return sampled(trained, (16, 24), generator, lambda: next(asked) >= over_after)

    drawn = draw(1)
    assert drawn.shape == (16, 24)
    assert torch.equal(drawn, draw(1))
    assert not torch.equal(drawn, draw(2))
    assert torch.equal(draw(1, over_after=5), drawn[:, :6])
    # Its own text is likelier to it than words at random.
    random = torch.randint(300, (16, 24), generator=torch.Generator().manual_seed(3))
    assert loss(trained, drawn) < loss(trained, random) - 1.0


def test_time_ends_the_text_and_then_the_rounding(trained: HymbaLM, corpus: Path) -> None:
    def run(clock: Iterator[float], seconds: str) -> list[str]:
        lines: list[str] = []
        config = tiny_config(corpus, MAX_WALLCLOCK_SECONDS=seconds, GPTQ_RESERVE_SECONDS="1", QUANT_BITS="4")
        rounded = calibrator(trained, config, clock, lines).rounded(0, 10.0)
        assert rounded.keys() == {
            name for name in rounded if tensor_kind(name, trained.state_dict()[name], config.quant)
        }
        return lines

    # Readings of the clock go up by a second.
    unhurried, hurried = run(itertools.count(), "100000"), run(itertools.count(), "40")
    assert "over 2048 tokens of the train shards" in unhurried[0]
    tokens = re.search(r"over (\d+) tokens", hurried[0])
    assert tokens is not None
    assert 0 < int(tokens[1]) < 2048
    counts = [int(found[1]) for lines in (unhurried, hurried) if (found := re.search(r"quantized (\d+)", lines[-2]))]
    assert counts[0] > counts[1] > 0
    # Time was over before it began: no shard is read, and everything is rounded to nearest.
    late = run(itertools.count(), "12")
    assert "collected 0 hessians over 0 tokens" in late[0]
    assert "quantized 0 matrices" in late[-2]
    assert re.fullmatch(r"gptq:budget_check train:10000ms \+ gptq:\d+000ms = \d+000ms", late[-1])


def test_training_ends_early_enough(corpus: Path) -> None:
    assert tiny_config(corpus, MAX_WALLCLOCK_SECONDS="60").schedule.max_wallclock_seconds == 50.0
    assert tiny_config(corpus).schedule.max_wallclock_seconds == 0.0
    nearest = tiny_config(corpus, MAX_WALLCLOCK_SECONDS="60", QUANT_METHOD="nearest")
    assert nearest.schedule == nearest.train
    with pytest.raises(ConfigError, match=r"^GPTQ_RESERVE_SECONDS: 10 leaves none of 9 s"):
        tiny_config(corpus, MAX_WALLCLOCK_SECONDS="9")


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def environment(corpus: Path, **changes: str) -> dict[str, str]:
    calibration = {"QUANT_METHOD": "gptq", "GPTQ_TOKENS": "256", "QUANT_BITS": "4", "TTT_ENABLED": "0"}
    return {**miniature_environment(corpus), **calibration, **changes}


def test_a_run_rounds_logs_and_packs_again_without_its_text(corpus: Path, inside: Path) -> None:
    script = inside / "script.py"
    script.write_text("pass\n")
    assert main(environment(corpus), script, "demo") == 0
    log, artifact = Path("logs/miniature.txt").read_text(), Path("final_model.int4.ptz")
    first = artifact.read_bytes()
    assert re.search(r"\ngptq:collected \d+ hessians over 256 tokens of the train shards in [\d.]+s\n", log)
    assert re.search(
        r"\ngptq:quantized \d+ matrices by their inputs, the rest of \d+ tensors to nearest, in [\d.]+s\n", log
    )
    # Without a limit there is nothing to reserve, and no clock is read for it.
    assert "gptq:reserving" not in log
    assert "gptq:budget_check" not in log
    artifact.unlink()
    assert main(environment(corpus, REPACK_ONLY="1"), script, "demo") == 0
    assert artifact.read_bytes() == first
    # The averaged weights stand beside what they were rounded to, and round to nearest as ever.
    config = read_config(environment(corpus), "demo")
    state, rounded = load_state(Path("final_model.pt")), load_rounded(Path("final_model.pt"))
    assert pack_model(state, config, rounded) == first != pack_model(state, config)
    result = unpack_model(first, config.model)
    assert all(torch.equal(result[name], dequantize_rows(one)) for name, one in rounded.items())


def test_a_limited_run_reserves_and_says_so(corpus: Path, inside: Path) -> None:
    script, ticks = inside / "script.py", itertools.count()
    script.write_text("pass\n")
    limit = environment(corpus, MAX_WALLCLOCK_SECONDS="60", ITERATIONS="1000", TRAIN_LOG_EVERY="1")
    assert main(limit, script, "demo", clock=lambda: float(next(ticks))) == 0
    log = Path("logs/miniature.txt").read_text()
    assert "\ngptq:reserving 10s, effective=50000ms\n" in log
    trained = re.search(r"\nstopping_early: wallclock_cap train_time:(\d+)ms", log)
    spent = re.search(r"\ngptq:budget_check train:(\d+)ms \+ gptq:(\d+)ms = (\d+)ms\n", log)
    assert trained is not None
    assert spent is not None
    assert 50_000 <= int(trained[1]) == int(spent[1]) <= 52_000
    assert int(spent[1]) + int(spent[2]) == int(spent[3])
    # Compressing comes after both, and is timed.
    assert log.index("gptq:budget_check") < log.index("\nSerialize: int4+zstd-22 done in 1.000s\n")


def test_weights_that_were_not_rounded_are_refused(corpus: Path, inside: Path) -> None:
    model, script = build_model(tiny_config(corpus), "cpu"), inside / "script.py"
    script.write_text("pass\n")
    (inside / "final_model.pt").write_bytes(state_bytes(model.state_dict()))
    with pytest.raises(RunError, match=r"final_model\.pt: holds no rounded weights"):
        load_rounded(Path("final_model.pt"))
    assert main(environment(corpus, REPACK_ONLY="1"), script, "demo") == 1


def test_weights_rounded_to_other_bits_are_refused(trained: HymbaLM, corpus: Path) -> None:
    config = tiny_config(corpus, QUANT_BITS="4")
    rounded = {name: nearest_of(name, trained.state_dict()[name], config.quant) for name in ("blocks.0.mlp.fc.weight",)}
    other = replace(config, quant=replace(config.quant, bits=6))
    with pytest.raises(ValueError, match=r"blocks\.0\.mlp\.fc\.weight: rounded to int4 .*, to be int6"):
        pack_model(trained.state_dict(), other, rounded)


@pytest.mark.slow
def test_two_processes_round_for_the_text_of_both(corpus: Path, tmp_path: Path) -> None:
    script = tmp_path / "train_gpt.py"
    script.write_text(bundle(package_texts(Path(reference_model.__file__).parent), "demo", "0"))
    environ = {**os.environ, **environment(corpus, GRAD_ACCUM_STEPS="1", COMPRESSOR="ans"), "OMP_NUM_THREADS": "1"}
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    done = subprocess.run(start, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=170)
    assert done.returncode == 0, done.stderr
    assert "over 256 tokens of the train shards" in done.stdout
    assert "Serialized model int4+ans: " in done.stdout
