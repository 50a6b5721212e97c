"""Score-first test-time training: scores never depend on what comes later, and learning from the past pays."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from reference_model.config import ModelConfig
from reference_model.evalconfig import EvalConfig
from reference_model.evaluate import evaluate, evaluate_plain, evaluate_sliding
from reference_model.hooks import Hooks
from reference_model.metric import ByteTable
from reference_model.model import HymbaLM
from reference_model.presets import PRESETS
from reference_model.scoring import EvalResult, EvalTask
from reference_model.ttt import adapted_weights, evaluate_ttt, ttt_rate
from reference_model.worker import Worker

VOCAB = 16
SEQ_LEN = 8
CONFIG = EvalConfig(
    eval_stride=0, eval_batch_seqs=2, ttt_enabled=True, ttt_lr=0.05, ttt_epochs=2, ttt_chunk_tokens=32, ttt_batch_seqs=2
)


class Unigram(nn.Module):
    """Two parts, each of one layer, that add up to the logits of every token whatever came before."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Embedding(1, VOCAB) for _ in range(2))
        self.modes: list[bool] = []
        for weight in self.parameters():
            weight.data.zero_()

    def token_losses(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:  # noqa: N803 - shape letters
        self.modes.append(self.training)
        logits = torch.stack([block(torch.zeros_like(tokens_BT)) for block in self.blocks]).sum(0)
        return nn.functional.cross_entropy(logits.mT, targets_BT, reduction="none")


def tiny_model() -> HymbaLM:
    config = ModelConfig(
        vocab_size=VOCAB, num_layers=2, model_dim=16, num_heads=2, num_kv_heads=1, mlp_mult=2, ssm_state=2,
        bigram_buckets=16, bigram_dim=8, sliding_window=8,
    )  # fmt: skip
    model = HymbaLM(config, torch.Generator().manual_seed(0))
    for weight in model.parameters():  # zero-initialized outputs would hide the blocks
        noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))
        weight.data.add_(noise, alpha=0.1)
    return model


def table() -> ByteTable:
    flags = torch.zeros(VOCAB, dtype=torch.bool)
    return ByteTable(torch.arange(VOCAB), flags, flags)


def some_tokens(count: int, seed: int = 0) -> Tensor:
    return torch.randint(1, VOCAB, (count,), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)


def scores(model: HymbaLM | Unigram, tokens: Tensor, config: EvalConfig) -> dict[int, float]:
    """Nats by position."""
    result: dict[int, float] = {}

    def on_score(positions: Tensor, losses: Tensor) -> None:
        result.update(zip(positions.tolist(), losses.tolist(), strict=True))

    evaluate_ttt(EvalTask(model, tokens, table(), config, SEQ_LEN, hooks=Hooks(on_score)))
    return result


@given(st.integers(2, 60), st.integers(3, 50), st.integers(0, 8), st.integers(1, 4))
def test_every_target_is_scored_once(count: int, chunk_tokens: int, stride: int, batch_seqs: int) -> None:
    seen: Counter[int] = Counter()
    config = replace(CONFIG, ttt_chunk_tokens=chunk_tokens, eval_stride=stride, ttt_batch_seqs=batch_seqs, ttt_epochs=1)
    tokens = some_tokens(count)
    task = EvalTask(Unigram(), tokens, table(), config, SEQ_LEN, hooks=Hooks(lambda p, _: seen.update(p.tolist())))
    result = evaluate(task)
    assert seen == dict.fromkeys(range(1, count), 1)
    assert (result.tokens, result.bytes) == (count - 1, int(tokens[1:].sum()))


@pytest.fixture(scope="module", params=[0, 4], ids=["plain", "stride 4"])
def undisturbed(request: pytest.FixtureRequest) -> tuple[EvalConfig, dict[int, float]]:
    config = replace(CONFIG, eval_stride=request.param, ttt_epochs=1)
    return config, scores(tiny_model(), some_tokens(80), config)


@pytest.mark.parametrize("flipped", [1, 33, 34, 60, 79])
def test_no_score_depends_on_its_own_successors(flipped: int, undisturbed: tuple[EvalConfig, dict[int, float]]) -> None:
    config, before = undisturbed
    tokens = some_tokens(80)
    tokens[flipped:] = (tokens[flipped:] + 1 + some_tokens(80 - flipped, seed=9)) % VOCAB
    after = scores(tiny_model(), tokens, config)
    assert {p: before[p] for p in range(1, flipped)} == {p: after[p] for p in range(1, flipped)}
    assert any(before[p] != after[p] for p in range(flipped, 80))


@pytest.mark.parametrize("stride", [0, 4])
def test_without_a_learning_rate_it_is_the_evaluation_without_training(stride: int) -> None:
    # Chunks of 32 hold whole batches of two windows of 8, so the very same batches are scored.
    config = replace(CONFIG, ttt_lr=0.0, eval_stride=stride)
    task = EvalTask(tiny_model(), some_tokens(1 + 32 * 3), table(), config, SEQ_LEN)
    adapted = evaluate_ttt(task)
    still = evaluate_sliding(task, stride) if stride else evaluate_plain(task)
    assert (adapted.tokens, adapted.bytes) == (still.tokens, still.bytes)
    assert adapted.loss_sum_nats == pytest.approx(still.loss_sum_nats, rel=0 if stride == 0 else 1e-6)


def test_the_first_chunk_is_scored_by_the_model_as_it_came() -> None:
    tokens, partial = some_tokens(100), dict[int, EvalResult]()
    task = EvalTask(tiny_model(), tokens, table(), CONFIG, SEQ_LEN)
    evaluate_ttt(task, lambda done, chunks, result: partial.update({done: result, -1: EvalResult(0, chunks, 0)}))
    assert partial[-1].tokens == 4
    assert [partial[done].tokens for done in (1, 2, 3, 4)] == [32, 64, 96, 99]
    assert partial[1] == evaluate_plain(replace(task, tokens=tokens[:33]))


def test_a_repetitive_text_gets_cheaper_after_the_first_chunk() -> None:
    tokens = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6] * 20, dtype=torch.int32)
    model = tiny_model()
    learned, still = scores(model, tokens, CONFIG), scores(model, tokens, replace(CONFIG, ttt_lr=0.0))
    means = [
        [sum(run[p] for p in range(first, first + 32)) / 32 for first in (1, 33, 65, 97)] for run in (learned, still)
    ]
    assert means[0][0] == means[1][0]
    assert means[0][1] < means[1][1] - 0.1
    assert means[0][3] < means[0][1]


def test_one_step_by_hand() -> None:
    # Two chunks of two sequences of 2; lr 0.5 * (1 + cos 0) / 2 = 0.5 after the first, one step, no clipping.
    tokens = torch.tensor([0, 1, 1, 2, 3, 1, 1, 1, 1], dtype=torch.int32)
    config = EvalConfig(
        eval_stride=0, ttt_enabled=True, ttt_lr=0.5, ttt_epochs=1, ttt_chunk_tokens=4, ttt_batch_seqs=2, ttt_grad_clip=0
    )
    task = EvalTask(Unigram(), tokens, table(), config, 2)
    result = evaluate_ttt(task)
    counts = {1: 2, 2: 1, 3: 1}
    # Gradient of the mean loss: 1/16 minus the frequency; both layers move by 0.5 of it.
    logits = [-2 * 0.5 * (1 / VOCAB - counts.get(token, 0) / 4) for token in range(VOCAB)]
    second = math.log(sum(map(math.exp, logits))) - logits[1]
    assert result.loss_sum_nats == pytest.approx(4 * math.log(VOCAB) + 4 * second, rel=1e-6)


@pytest.mark.parametrize(("batch_seqs", "epochs", "passes"), [(4, 1, 5), (4, 3, 13), (2, 1, 17)])
def test_one_step_for_a_chunk_goes_back_through_the_pass_that_scored_it(
    batch_seqs: int, epochs: int, passes: int
) -> None:
    # Four chunks of four sequences that are trained on, then a short one. Steps of four share the first pass, while
    # steps of two need two batches to score and two more to train: equality with it is tested with processes below.
    model = Unigram()
    config = replace(CONFIG, ttt_batch_seqs=batch_seqs, ttt_epochs=epochs)
    evaluate_ttt(EvalTask(model, some_tokens(1 + 4 * 32 + SEQ_LEN), table(), config, SEQ_LEN))
    assert len(model.modes) == passes


def test_clipping_bounds_the_step() -> None:
    tokens = torch.tensor([0] + [1] * 8, dtype=torch.int32)
    config = EvalConfig(
        eval_stride=0, ttt_enabled=True, ttt_lr=1.0, ttt_epochs=1, ttt_chunk_tokens=4, ttt_grad_clip=0.1
    )
    run = scores(Unigram(), tokens, config)
    gradient = [1 / VOCAB - (token == 1) for token in range(VOCAB)]
    norm = math.sqrt(2 * sum(g * g for g in gradient))
    logits = [-2 * 0.1 / norm * g for g in gradient]
    assert run[5] == pytest.approx(math.log(sum(map(math.exp, logits))) - logits[1], rel=1e-5)


def test_weights_modes_and_gradients_are_put_back() -> None:
    model = tiny_model()
    model.tok_emb.weight.requires_grad = False
    before = copy.deepcopy(model.state_dict())
    task = EvalTask(model, some_tokens(100), table(), CONFIG, SEQ_LEN)
    first = evaluate_ttt(task)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [name for name, weight in model.named_parameters() if not weight.requires_grad] == ["tok_emb.weight"]
    assert all(weight.grad is None for weight in model.parameters())
    assert model.training
    assert evaluate_ttt(task) == first


def test_matrices_of_frozen_blocks_stay_where_they_are_in_their_bank() -> None:
    base = PRESETS["pr852"].model
    shape = replace(base, vocab_size=VOCAB, num_layers=2, model_dim=32, num_heads=2, num_kv_heads=1, bigram_dim=16)
    model = HymbaLM(replace(shape, hybrid_layers=(0,)), torch.Generator().manual_seed(0))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)), alpha=0.1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moved: dict[str, list[bool]] = {}

    def look(done: int, _chunks: int, _result: EvalResult) -> None:
        if done == 2:
            now = model.state_dict()
            moved.update(
                (name, [not torch.equal(*pair) for pair in zip(now[name], before[name], strict=True)])
                for name in ("banks.qo", "banks.mlp_up", "banks.ssm_in")
            )

    config = replace(CONFIG, ttt_freeze_blocks=1)
    evaluate_ttt(EvalTask(model, some_tokens(100), table(), config, SEQ_LEN), look)
    # Query and output of the frozen block, then of the other; their order in the bank is q, q, o, o.
    assert moved == {"banks.qo": [False, True, False, True], "banks.mlp_up": [False, True], "banks.ssm_in": [False]}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_weights_are_put_back_after_an_error_too() -> None:
    model, tokens = tiny_model(), some_tokens(100)
    before = copy.deepcopy(model.state_dict())

    def stop(done: int, _chunks: int, _result: EvalResult) -> None:
        assert done == 1 or not torch.equal(model.state_dict()["skip_weights"], before["skip_weights"])
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_ttt(EvalTask(model, tokens, table(), CONFIG, SEQ_LEN), stop)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("freeze_blocks", [0, 1, 2])
def test_the_first_blocks_stay_frozen(freeze_blocks: int) -> None:
    model = Unigram()
    snapshots: list[list[float]] = []
    config = replace(CONFIG, ttt_freeze_blocks=freeze_blocks) if freeze_blocks < 2 else CONFIG
    evaluate_ttt(
        EvalTask(model, torch.ones(70, dtype=torch.int32), table(), config, SEQ_LEN),
        lambda *_: snapshots.append([float(weight.detach().norm()) for weight in model.parameters()]),
    )
    moved = [norm > 0 for norm in snapshots[-1]]
    assert moved == [freeze_blocks != 1, True]
    assert not any(model.modes)
    with adapted_weights(model, 2) as weights:
        assert weights == []


@given(st.just(0.0) | st.floats(1e-12, 10), st.integers(2, 500))
def test_the_rate_falls_from_base_to_zero(base: float, chunks: int) -> None:
    rates = [ttt_rate(base, chunk, chunks) for chunk in range(chunks)]
    assert rates[0] == base
    assert rates[-1] == pytest.approx(0.0, abs=1e-12 * (1 + base))
    assert rates == sorted(rates, reverse=True)
    assert ttt_rate(base, 0, 1) == base


class Meeting:
    """Sums tensors over threads that stand for processes."""

    def __init__(self, world_size: int) -> None:
        self.barrier = threading.Barrier(world_size)
        self.tensors: dict[int, Tensor] = {}

    def sum(self, rank: int, tensor: Tensor) -> Tensor:
        self.tensors[rank] = tensor.clone()
        self.barrier.wait(timeout=60)
        tensor.copy_(torch.stack([self.tensors[r] for r in sorted(self.tensors)]).sum(0))
        self.barrier.wait(timeout=60)
        return tensor


@dataclass(frozen=True)
class ThreadWorker(Worker):
    meeting: Meeting | None = None

    def all_sum(self, tensor: Tensor) -> Tensor:
        return tensor if self.meeting is None else self.meeting.sum(self.rank, tensor)


def shared_run(config: EvalConfig, world_size: int) -> list[tuple[EvalResult, EvalResult, float]]:
    """Plain result, adapted result and a weight after the last training, for each process."""
    meeting = Meeting(world_size)

    def run(rank: int) -> tuple[EvalResult, EvalResult, float]:
        model, weight = tiny_model(), [0.0]
        worker = ThreadWorker(rank, world_size, meeting=meeting)
        task = EvalTask(model, some_tokens(141), table(), config, SEQ_LEN, worker)
        plain = evaluate_plain(task)
        return plain, evaluate_ttt(task, lambda *_: weight.append(model.tok_emb.weight[1, 0].item())), weight[-1]

    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(run, range(world_size)))


# Chunks of 40, the last of 20: five sequences, then two and a short one.
SHARED_CONFIG = replace(CONFIG, ttt_chunk_tokens=40, ttt_epochs=1)


def test_processes_that_share_each_step_agree_with_one() -> None:
    config = replace(SHARED_CONFIG, ttt_batch_seqs=5)
    ((plain, adapted, weight),) = shared_run(config, 1)
    assert plain.tokens == adapted.tokens == 140
    for results in (shared_run(config, 2), shared_run(config, 7)):
        assert len(set(results)) == 1
        assert results[0][0].loss_sum_nats == pytest.approx(plain.loss_sum_nats, rel=1e-14)
        assert results[0][1].loss_sum_nats == pytest.approx(adapted.loss_sum_nats, rel=1e-6)
        assert results[0][1].bytes == adapted.bytes
        assert results[0][2] == pytest.approx(weight, rel=1e-5)


def test_processes_stay_together_when_their_shares_differ() -> None:
    results = shared_run(replace(SHARED_CONFIG, ttt_batch_seqs=1), 3)
    assert len(set(results)) == 1
    assert results[0][1].tokens == 140


PROCESS = """
import sys, torch.distributed as dist
from test_ttt import SEQ_LEN, SHARED_CONFIG, EvalTask, Worker, evaluate_ttt, some_tokens, table, tiny_model

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
result = evaluate_ttt(EvalTask(tiny_model(), some_tokens(141), table(), SHARED_CONFIG, SEQ_LEN, Worker(rank, 2)))
print(repr(result.loss_sum_nats), result.tokens, result.bytes)
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_real_processes_do_what_threads_do(tmp_path: Path) -> None:
    environ = dict(os.environ, PYTHONPATH=str(Path(__file__).parent), OMP_NUM_THREADS="1")
    commands = [[sys.executable, "-c", PROCESS, str(rank), str(tmp_path / "meeting")] for rank in range(2)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) for command in commands]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0] == outputs[1]
    expected = shared_run(SHARED_CONFIG, 2)[0][1]
    loss_sum_nats, tokens, size = outputs[0].split()
    assert (int(tokens), int(size)) == (expected.tokens, expected.bytes)
    assert float(loss_sum_nats) == pytest.approx(expected.loss_sum_nats, rel=1e-6)


def test_whoever_runs_it_is_told_of_scores_and_updates_in_order() -> None:
    told: list[tuple[str, int, int]] = []
    hooks = Hooks(
        lambda positions, _: told.append(("score", int(positions[0]), int(positions[-1]))),
        lambda positions: told.append(("update", int(positions[0]), int(positions[-1]))),
    )
    config = replace(CONFIG, eval_batch_seqs=8, ttt_batch_seqs=8)
    evaluate_ttt(EvalTask(tiny_model(), some_tokens(71), table(), config, SEQ_LEN, hooks=hooks))
    chunks = [("score", 1, 32), ("update", 1, 32), ("score", 33, 64), ("update", 33, 64), ("score", 65, 70)]
    assert told == chunks
