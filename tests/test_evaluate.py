"""Scoring: every target exactly once whatever the lengths, and the same sums for any number of processes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import reduce
from operator import add

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from reference_model.config import ModelConfig
from reference_model.evalconfig import EvalConfig
from reference_model.evaluate import evaluate, evaluate_plain, evaluate_sliding, evaluation_name
from reference_model.hooks import Hooks
from reference_model.metric import ByteTable
from reference_model.model import HymbaLM
from reference_model.scoring import EvalResult, EvalTask, Windows, evaluation_mode, score_windows, sums_of_all
from reference_model.worker import Worker

VOCAB = 16


class ContextLength(nn.Module):
    """A model whose loss of a target is the number of tokens it saw before it, plus that target / 100."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        self.modes: list[bool] = []
        self.products: list[torch.dtype] = []

    def token_losses(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:  # noqa: N803 - shape letters
        self.modes.append(self.training)
        self.products.append((torch.ones(1, 1) @ torch.ones(1, 1)).dtype)
        assert not torch.is_grad_enabled()
        return torch.arange(1, tokens_BT.shape[1] + 1).expand_as(tokens_BT) + targets_BT / 100


def table_of(sizes: Iterable[int] = range(VOCAB)) -> ByteTable:
    base = torch.tensor(list(sizes))
    return ByteTable(base, torch.zeros(len(base), dtype=torch.bool), torch.zeros(len(base), dtype=torch.bool))


def some_tokens(count: int, seed: int = 0) -> Tensor:
    return torch.randint(1, VOCAB, (count,), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)


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


@given(st.integers(0, 40), st.integers(1, 60), st.integers(1, 12), st.integers(0, 12), st.integers(1, 5))
def test_windows_score_each_input_once_and_read_no_more_than_a_window(
    first: int, length: int, seq_len: int, stride: int, batch_seqs: int
) -> None:
    windows = Windows(first, first + length, seq_len, min(stride, seq_len))
    bounds = [windows.bounds(index) for index in range(len(windows))]
    assert [place for _, scored, end in bounds for place in range(scored, end)] == list(range(first, first + length))
    assert all(0 <= start <= scored < end and end - start <= seq_len for start, scored, end in bounds)
    if windows.stride:
        assert all(end - start == seq_len or start == 0 for start, _, end in bounds)
        assert all(end - scored <= windows.stride for start, scored, end in bounds if start)
    runs = windows.batches(batch_seqs)
    assert [index for run in runs for index in run] == list(range(len(windows)))
    for run in runs:
        assert 1 <= len(run) <= batch_seqs
        assert len({bounds[index][2] - bounds[index][0] for index in run}) == 1


@given(st.integers(2, 70), st.integers(1, 12), st.integers(0, 12), st.integers(1, 5))
def test_every_target_is_scored_once(count: int, seq_len: int, stride: int, batch_seqs: int) -> None:
    seen: Counter[int] = Counter()
    reported: list[float] = []

    def on_score(positions: Tensor, losses: Tensor) -> None:
        seen.update(positions.tolist())
        reported.extend(losses.tolist())

    tokens, stride = some_tokens(count), min(stride, seq_len)
    config = EvalConfig(eval_batch_seqs=batch_seqs, eval_stride=stride)
    task = EvalTask(ContextLength(), tokens, table_of(), config, seq_len, hooks=Hooks(on_score))
    result = evaluate(task)
    assert seen == dict.fromkeys(range(1, count), 1)
    assert result.tokens == count - 1
    assert result.bytes == int(tokens[1:].sum())
    assert result.loss_sum_nats == pytest.approx(math.fsum(reported), rel=1e-6)


def test_plain_and_sliding_contexts_by_hand() -> None:
    contexts: dict[int, int] = {}

    def on_score(positions: Tensor, losses: Tensor) -> None:
        contexts.update(zip(positions.tolist(), map(int, losses.tolist()), strict=True))

    task = EvalTask(
        ContextLength(), torch.zeros(11, dtype=torch.int32), table_of(), EvalConfig(), 4, hooks=Hooks(on_score)
    )
    evaluate_plain(task)
    assert [contexts[p] for p in range(1, 11)] == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]
    evaluate_sliding(task, 2)
    assert [contexts[p] for p in range(1, 11)] == [1, 2, 3, 4, 3, 4, 3, 4, 3, 4]
    evaluate_sliding(task, 3)
    assert [contexts[p] for p in range(1, 11)] == [1, 2, 3, 4, 2, 3, 4, 2, 3, 4]
    evaluate_sliding(task, 1)
    assert [contexts[p] for p in range(1, 11)] == [1, 2, 3, 4, 4, 4, 4, 4, 4, 4]


def test_result_is_bits_per_byte_of_a_hand_computed_example() -> None:
    # Targets 2, 3, 5 in windows of 2: losses 1.02, 2.03, 1.05; bytes 2 + 3 + 5.
    task = EvalTask(ContextLength(), torch.tensor([9, 2, 3, 5]), table_of(), EvalConfig(), 2)
    result = evaluate_plain(task)
    assert (result.tokens, result.bytes) == (3, 10)
    assert result.val_loss == pytest.approx(4.10 / 3, rel=1e-6)
    assert result.val_bpb == pytest.approx(4.10 / math.log(2) / 10, rel=1e-6)


@pytest.mark.parametrize("stride", [0, 3])
@pytest.mark.parametrize("world_size", [2, 3, 7, 40])
def test_shares_of_the_processes_add_up(stride: int, world_size: int) -> None:
    model, tokens = tiny_model(), some_tokens(203)

    def sums(worker: Worker, seen: Counter[int]) -> Tensor:
        hooks = Hooks(lambda places, _: seen.update(places.tolist()))
        task = EvalTask(model, tokens, table_of(), EvalConfig(eval_batch_seqs=3), 8, worker, hooks)
        return score_windows(task, Windows(0, 202, 8, stride), 3)

    alone_seen: Counter[int] = Counter()
    shared_seen: Counter[int] = Counter()
    alone = sums(Worker(), alone_seen)
    shared = sum((sums(Worker(rank, world_size), shared_seen) for rank in range(world_size)), torch.zeros_like(alone))
    assert shared_seen == alone_seen == dict.fromkeys(range(1, 203), 1)
    assert torch.equal(shared, alone)
    in_order = [reduce(add, column) for column in alone.T.tolist()]
    assert sums_of_all(Worker(), shared).tolist() == in_order


def test_a_long_context_changes_what_a_real_model_says() -> None:
    task = EvalTask(tiny_model(), some_tokens(100), table_of(), EvalConfig(eval_batch_seqs=4), 16)
    plain, full, sliding = evaluate_plain(task), evaluate_sliding(task, 16), evaluate_sliding(task, 4)
    assert plain.tokens == full.tokens == sliding.tokens == 99
    assert len({round(result.loss_sum_nats, 6) for result in (plain, full, sliding)}) == 3
    whole = evaluate_plain(replace(task, seq_len=99))
    assert evaluate_sliding(replace(task, seq_len=99), 7).loss_sum_nats == pytest.approx(whole.loss_sum_nats, rel=1e-12)
    assert evaluate_plain(replace(task, seq_len=500)).loss_sum_nats == pytest.approx(whole.loss_sum_nats, rel=1e-12)


def test_the_batch_size_does_not_matter() -> None:
    task = EvalTask(tiny_model(), some_tokens(100), table_of(), EvalConfig(eval_batch_seqs=1), 16)
    for batch_seqs in (2, 5, 100):
        other = replace(task, config=EvalConfig(eval_batch_seqs=batch_seqs))
        assert evaluate_plain(other).loss_sum_nats == pytest.approx(evaluate_plain(task).loss_sum_nats, rel=1e-6)


def test_the_models_mode_is_restored_and_gradients_are_off() -> None:
    model = ContextLength()
    evaluate_plain(EvalTask(model, some_tokens(20), table_of(), EvalConfig(), 4))
    assert model.training
    assert not any(model.modes)
    with pytest.raises(KeyError), evaluation_mode(model):
        raise KeyError
    assert model.training


def test_autocast_covers_the_model() -> None:
    model = ContextLength()
    task = EvalTask(model, some_tokens(9), table_of(), EvalConfig(), 4)
    evaluate_plain(replace(task, worker=Worker(autocast=torch.bfloat16)))
    assert set(model.products) == {torch.bfloat16}
    model.products.clear()
    evaluate_plain(task)
    assert set(model.products) == {torch.float32}


def test_what_cannot_be_scored_is_refused() -> None:
    for tokens in (torch.tensor([1]), torch.zeros(0, dtype=torch.int32), torch.ones(2, 2, dtype=torch.int32)):
        with pytest.raises(ValueError, match="nothing to score"):
            EvalTask(ContextLength(), tokens, table_of(), EvalConfig(), 4)
    with pytest.raises(ValueError, match="token 16 is outside the vocabulary of 16"):
        EvalTask(ContextLength(), torch.tensor([1, 16]), table_of(), EvalConfig(), 4)
    task = EvalTask(ContextLength(), some_tokens(9), table_of(), EvalConfig(), 4)
    with pytest.raises(ValueError, match="stride 5 is outside"):
        evaluate_sliding(task, 5)
    with pytest.raises(ValueError, match="stride 0 is not positive"):
        evaluate_sliding(task, 0)


def test_counts_survive_the_float64_sums() -> None:
    result = EvalResult.from_sums(torch.tensor([1.5, 2.0**40 + 1, 2.0**50 + 1], dtype=torch.float64))
    assert (result.tokens, result.bytes) == (2**40 + 1, 2**50 + 1)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (EvalConfig(eval_stride=0), "plain"),
        (EvalConfig(eval_stride=64), "stride 64"),
        (EvalConfig(eval_stride=0, ttt_enabled=True), "score-first TTT, plain"),
    ],
)
def test_names_of_evaluations(config: EvalConfig, name: str) -> None:
    assert evaluation_name(EvalTask(ContextLength(), some_tokens(9), table_of(), config, 64)) == name
