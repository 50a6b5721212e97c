"""The predictor: the same numbers as the evaluation, from nothing but what was observed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from reference_model.config import ModelConfig
from reference_model.evalconfig import EvalConfig
from reference_model.evaluate import evaluate
from reference_model.hooks import Hooks
from reference_model.metric import ByteTable
from reference_model.model import HymbaLM
from reference_model.predictor import Predictor, predicting
from reference_model.scoring import EvalTask

VOCAB = 16
SEQ_LEN = 8
PLAIN = EvalConfig(eval_stride=0, eval_batch_seqs=2)
TTT = replace(PLAIN, ttt_enabled=True, ttt_lr=0.05, ttt_epochs=2, ttt_chunk_tokens=32, ttt_batch_seqs=2)
CARRY = replace(PLAIN, eval_carry=True)
LORA = replace(PLAIN, ttt_enabled=True, ttt_kind="lora", ttt_lora_lr=0.05, ttt_chunk_size=3, ttt_grad_steps=2)
PHASED = replace(TTT, ttt_kind="phased", phased_prefix_docs=4, phased_num_phases=2)
EVALUATIONS = {
    "plain": PLAIN,
    "stride": replace(PLAIN, eval_stride=3),
    "ttt": TTT,
    "ttt in one step": replace(TTT, ttt_batch_seqs=8, ttt_epochs=1),
    "ttt of ragged chunks": replace(TTT, ttt_chunk_tokens=20, ttt_freeze_blocks=1),
    "ttt with a stride": replace(TTT, eval_stride=3),
    "one chunk": replace(TTT, ttt_chunk_tokens=1000),
    "adapters": LORA,
    "phases": PHASED,
    "phases with a stride": replace(PHASED, phased_prefix_docs=3, phased_num_phases=3, eval_stride=3),
    "phases of adapters": replace(
        TTT, ttt_kind="phased_lora", phased_prefix_docs=2, phased_num_phases=1, ttt_chunk_size=3
    ),
    "adapters, chunks as long as windows": replace(PLAIN, ttt_enabled=True, ttt_kind="lora", ttt_chunk_size=SEQ_LEN),
    "carried": CARRY,
    "carried in lanes": replace(CARRY, eval_lanes=3),
    "carried in documents": replace(CARRY, eval_isolate_docs=True),
    "documents": replace(PLAIN, eval_isolate_docs=True),
    "documents with a stride": replace(PLAIN, eval_isolate_docs=True, eval_stride=3),
    "ttt, carried": replace(TTT, eval_carry=True),
    "ttt, carried in documents": replace(TTT, eval_carry=True, eval_isolate_docs=True),
    "adapters, carried": replace(LORA, eval_carry=True),
    "phases, carried": replace(PHASED, eval_carry=True),
    "phases of adapters, carried": replace(PHASED, ttt_kind="phased_lora", ttt_chunk_size=3, eval_carry=True),
}


def tiny_model() -> HymbaLM:
    config = ModelConfig(
        vocab_size=VOCAB, num_layers=2, model_dim=16, num_heads=2, num_kv_heads=1, mlp_mult=2, ssm_state=2,
        bigram_buckets=16, bigram_dim=8, sliding_window=5,
    )  # fmt: skip
    model = HymbaLM(config, torch.Generator().manual_seed(0))
    for weight in model.parameters():  # zero-initialized outputs would hide the blocks
        noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))
        weight.data.add_(noise, alpha=0.1)
    return model


def some_tokens(count: int) -> Tensor:
    return torch.randint(1, VOCAB, (count,), generator=torch.Generator().manual_seed(5), dtype=torch.int32)


def evaluated(model: HymbaLM, tokens: Tensor, config: EvalConfig) -> Tensor:
    """Nats of every target, as the headline scores them."""
    nats = torch.zeros(tokens.numel())
    flags = torch.zeros(VOCAB, dtype=torch.bool)

    def on_score(positions: Tensor, losses: Tensor) -> None:
        nats[positions] = losses

    table = ByteTable(torch.ones(VOCAB, dtype=torch.int64), flags, flags)
    evaluate(EvalTask(model, tokens, table, config, SEQ_LEN, hooks=Hooks(on_score)))
    return nats[1:]


def distributions(model: HymbaLM, tokens: Tensor, config: EvalConfig) -> Tensor:
    rows = []
    with predicting(model, tokens.numel(), config, SEQ_LEN) as predictor:
        for token in tokens[:-1].tolist():
            predictor.observe(token)
            rows.append(predictor.predict())
    return torch.stack(rows)


@pytest.mark.parametrize("config", EVALUATIONS.values(), ids=EVALUATIONS)
@pytest.mark.parametrize("count", [2, 9, 64, 65, 77])
def test_it_predicts_what_the_evaluation_scores(config: EvalConfig, count: int) -> None:
    model, tokens = tiny_model(), some_tokens(count)
    rows = distributions(model, tokens, config)
    torch.testing.assert_close(rows.exp().sum(-1), torch.ones(count - 1), rtol=0, atol=1e-5)
    nats = -rows.gather(1, tokens[1:, None].long())[:, 0]
    torch.testing.assert_close(nats, evaluated(model, tokens, config), rtol=1e-4, atol=1e-4)


def test_it_repeats_itself_bit_for_bit_and_leaves_the_model_as_it_was() -> None:
    model, tokens = tiny_model().train(), some_tokens(77)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    first = distributions(model, tokens, TTT)
    assert torch.equal(first, distributions(model, tokens, TTT))
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert model.training


@pytest.mark.parametrize("config", [PLAIN, TTT], ids=["plain", "ttt"])
def test_what_is_not_asked_for_changes_nothing(config: EvalConfig) -> None:
    model, tokens = tiny_model(), some_tokens(50)
    with predicting(model, tokens.numel(), config, SEQ_LEN) as predictor:
        for token in tokens[:-1].tolist():
            predictor.observe(token)
        last = predictor.predict()
        assert torch.equal(predictor.predict(), last)
    assert torch.equal(last, distributions(model, tokens, config)[-1])


def refused(predictor: Predictor, token: int | None) -> str:
    with pytest.raises(ValueError) as caught:
        predictor.predict() if token is None else predictor.observe(token)
    return str(caught.value)


def test_what_makes_no_sense_is_refused() -> None:
    with predicting(tiny_model(), 2, PLAIN, SEQ_LEN) as predictor:
        assert "no token to predict after 0 of 2" in refused(predictor, None)
        assert "outside the vocabulary of 16" in refused(predictor, 16)
        assert "outside the vocabulary" in refused(predictor, -1)
        predictor.observe(1)
        predictor.observe(2)
        assert "no token to predict after 2 of 2" in refused(predictor, None)
        assert "after the end of a text of 2" in refused(predictor, 3)
