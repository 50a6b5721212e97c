"""Adapters of each document: what they add, that nothing passes between documents, and that scores come first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call

from reference_model.adapters import START_SEED, AdapterStart, adapted_layers
from reference_model.config import Config
from reference_model.documents import document_groups, document_spans
from reference_model.evalconfig import LORA_PARTS, EvalConfig
from reference_model.evaluate import evaluate, evaluation_name
from reference_model.hooks import Hooks
from reference_model.lora import adapter_start, evaluate_lora, frozen_weights
from reference_model.metric import ByteTable
from reference_model.model import HymbaLM
from reference_model.presets import PRESETS
from reference_model.scoring import EvalResult, EvalTask
from reference_model.settings import ConfigError
from reference_model.worker import Worker
from tests.test_memory import random_model, small
from tests.test_ttt import Meeting, ThreadWorker

BOS = 1
REACH = 8
CONFIG = EvalConfig(
    eval_stride=0,
    ttt_enabled=True,
    ttt_kind="lora",
    ttt_lora_rank=2,
    ttt_lora_parts=",".join(LORA_PARTS),
    ttt_lora_lr=0.05,
    ttt_chunk_size=4,
    ttt_batch_size=3,
)
LENGTHS = (9, 1, 14, 4, 22, 5, 13)
# One for each kind of mixer and bank.
MIXERS = ("pr599", "mini1961_3", "pr852_records", "pr852", "paper")


def text(lengths: Sequence[int] = LENGTHS, seed: int = 0, vocab: int = 16) -> Tensor:
    """Documents of so many tokens, the mark included."""
    draw = torch.Generator().manual_seed(seed)
    documents = [torch.randint(2, vocab, (length,), generator=draw, dtype=torch.int32) for length in lengths]
    for document in documents:
        document[0] = BOS
    return torch.cat(documents)


def tiny(preset: str = "pr914") -> HymbaLM:
    """A small model of a preset in which everything influences everything."""
    return random_model(small(preset), torch.float32)


def task_of(model: HymbaLM, tokens: Tensor, config: EvalConfig = CONFIG, **changes: object) -> EvalTask:
    size = model.config.vocab_size
    flags = torch.zeros(size, dtype=torch.bool)
    task = EvalTask(model, tokens, ByteTable(torch.arange(size), flags, flags), config, REACH)
    return replace(task, **changes)  # type: ignore[arg-type]


def scores(model: HymbaLM, tokens: Tensor, config: EvalConfig = CONFIG) -> Tensor:
    """Nats by position."""
    nats = torch.full((tokens.numel(),), float("nan"))

    def on_score(positions: Tensor, losses: Tensor) -> None:
        nats[positions] = losses

    evaluate(task_of(model, tokens, config, hooks=Hooks(on_score)))
    return nats


def test_a_text_is_cut_at_its_marks() -> None:
    assert document_spans(torch.tensor([1, 5, 6, 1, 7]), 1) == [(0, 3), (3, 4)]
    assert document_spans(torch.tensor([5, 1, 1, 7, 8]), 1) == [(0, 1), (1, 2), (2, 4)]
    assert document_spans(torch.tensor([5, 6, 7]), 1) == [(0, 2)]
    (first, second) = document_groups([(0, 9), (9, 10), (10, 24), (24, 28)], 3, 4, 8)
    assert first.spans == ((10, 24), (0, 9), (9, 10))
    assert [first.active(number) for number in range(5)] == [3, 2, 2, 1, 0]
    assert (first.chunks, second.spans) == (4, ((24, 28),))


def test_windows_end_with_their_chunk_and_stay_in_their_document() -> None:
    tokens = text((14, 9, 3))
    (group,) = document_groups(document_spans(tokens, BOS), 3, 4, 8)
    batch, positions, scored = group.batch(tokens, 2)
    # Inputs 4 .. 12 of the first, 4 .. 9 of the second, whose last target is the next mark.
    assert positions.tolist() == [list(range(5, 13)), list(range(19, 27))]
    assert scored.tolist() == [[False] * 4 + [True] * 4, [False] * 4 + [True] + [False] * 3]
    assert batch[0].tolist() == tokens[4:13].tolist()
    assert batch[1].tolist() == [*tokens[18:24].tolist(), 0, 0, 0]
    assert int(batch[1, 5]) == BOS


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.integers(1, 4), st.integers(1, 8))
def test_every_target_is_scored_once(lengths: list[int], size: int, chunk: int) -> None:
    tokens, seen = text([2, *lengths]), Counter[int]()
    config = replace(CONFIG, ttt_batch_size=size, ttt_chunk_size=chunk, ttt_lora_parts="head")
    result = evaluate(task_of(tiny(), tokens, config, hooks=Hooks(lambda p, _: seen.update(p.tolist()))))
    assert seen == dict.fromkeys(range(1, tokens.numel()), 1)
    assert (result.tokens, result.bytes) == (tokens.numel() - 1, int(tokens[1:].sum()))


@pytest.mark.parametrize("preset", ["pr914", "mini1961_3", "pr852_records"])
def test_frozen_blocks_have_no_adapters(preset: str) -> None:
    model = tiny(preset)
    blocks = [{id(module) for module in block.modules()} for block in model.blocks]
    adapted = {
        id(layer) for layer in adapter_start(task_of(model, text(), replace(CONFIG, ttt_freeze_blocks=2))).layers
    }
    assert [bool(block & adapted) for block in blocks] == [False, False] + [True] * (len(blocks) - 2)
    frozen = replace(CONFIG, ttt_freeze_blocks=len(blocks), ttt_lora_parts="mlp")
    with pytest.raises(ValueError, match="no layer for adapters on mlp beyond its first 5 blocks"):
        adapter_start(task_of(model, text(), frozen))


def test_without_a_rate_every_chunk_is_scored_in_the_window_before_its_end() -> None:
    model, tokens = tiny(), text()
    found = scores(model, tokens, replace(CONFIG, ttt_lora_lr=0.0))
    for first, end in document_spans(tokens, BOS):
        for low in range(first, end, 4):
            begin, high = max(low + 4 - REACH, first), min(low + 4, end)
            row = tokens[None, begin : high + 1].long()
            with torch.no_grad():
                expected = model.token_losses(row[:, :-1], row[:, 1:])[0, low - begin :]
            torch.testing.assert_close(found[low + 1 : high + 1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("preset", MIXERS)
def test_another_document_changes_nothing_to_the_last_bit(preset: str) -> None:
    model, tokens = tiny(preset), text()
    before = scores(model, tokens)
    assert torch.isfinite(before[1:]).all()
    spans = document_spans(tokens, BOS)
    first, end = spans[4]
    other = tokens.clone()
    other[first + 1 : end] = other[first + 1 : end] % 14 + 2
    after = scores(model, other)
    inside = torch.zeros(len(tokens), dtype=torch.bool)
    inside[first + 1 : end + 1] = True
    assert torch.equal(before[~inside][1:], after[~inside][1:])
    assert not torch.equal(before[inside], after[inside])


def test_no_score_depends_on_later_tokens() -> None:
    model, tokens = tiny(), text()
    before = scores(model, tokens)
    first, end = document_spans(tokens, BOS)[4]
    flipped = first + 11
    other = tokens.clone()
    other[flipped:end] = other[flipped:end] % 14 + 2
    after = scores(model, other)
    assert torch.equal(before[1:flipped], after[1:flipped])
    assert not torch.equal(before[flipped : end + 1], after[flipped : end + 1])


@pytest.mark.parametrize("preset", MIXERS)
def test_adapters_of_every_part_learn_and_the_model_stays(preset: str) -> None:
    model, tokens = tiny(preset), text()
    model.tok_emb.weight.requires_grad = False
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made: list[tuple[list[Tensor], list[Tensor]]] = []
    fresh = AdapterStart.fresh

    def watched(self: AdapterStart, documents: int) -> object:
        adapters = fresh(self, documents)
        made.append((adapters.down, adapters.up))
        return adapters

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AdapterStart, "fresh", watched)
        first = evaluate_lora(task_of(model, tokens))
    # The longest document stands first and has learned; the shortest ended with its first chunk.
    assert all(bool(weight[0].any()) for _, up in made[:1] for weight in up)
    assert not any(bool(weight[2].any()) for _, up in made[:1] for weight in up)
    assert len(made[0][1]) == len(adapted_layers(model, LORA_PARTS))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [name for name, weight in model.named_parameters() if not weight.requires_grad] == ["tok_emb.weight"]
    assert not any(module._forward_hooks for module in model.modules())
    assert evaluate_lora(task_of(model, tokens)) == first


def test_a_repetitive_document_gets_cheaper() -> None:
    tokens = torch.tensor([BOS, *[3, 2, 4, 5, 9, 7] * 12], dtype=torch.int32)
    learned, still = scores(tiny(), tokens), scores(tiny(), tokens, replace(CONFIG, ttt_lora_lr=0.0))
    assert torch.equal(learned[1:5], still[1:5])
    assert float(learned[-12:].mean()) < float(still[-12:].mean()) - 0.3


def adapted_weights_by_hand(model: HymbaLM, down: dict[str, Tensor], up: dict[str, Tensor]) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters())
    return {**parameters, **{name: parameters[name] + up[name] @ down[name] for name in down}}


def test_it_is_training_of_a_low_rank_addition_to_the_matrices() -> None:
    # One document at a time, matrices added up before the product: another way to the same numbers.
    model = random_model(small("pr914", tie_embeddings=False), torch.float32)
    tokens, config = text((15, 10)), replace(CONFIG, ttt_grad_steps=2)
    names = [f"{name}.weight" for name, _ in model.named_modules() if name.endswith(
        ("c_q", "kv_proj", "attn.proj", "mamba_proj", "mamba_out_proj", "mlp.fc", "mlp.proj", "lm_head"))]  # fmt: skip
    parameters, expected = dict(model.named_parameters()), torch.zeros(tokens.numel())
    for first, end in document_spans(tokens, BOS):
        draw = torch.Generator().manual_seed(START_SEED)
        ordered = sorted(names, key=lambda name: (name.startswith("lm_head"), names.index(name)))
        down = {
            name: (torch.empty(2, (width := parameters[name].shape[1])).uniform_(-1, 1, generator=draw) * width**-0.5)
            for name in ordered
        }
        up = {name: torch.zeros(len(parameters[name]), 2) for name in names}
        weights = [tensor.requires_grad_() for tensor in (*down.values(), *up.values())]
        optimizer = torch.optim.Adam(weights, 0.05, (0.9, 0.95), 1e-10)
        for low in range(first, end, 4):
            begin, high = max(low + 4 - REACH, first), min(low + 4, end)
            row = tokens[None, begin : high + 1].long()
            for step in range(3):
                logits = functional_call(model, adapted_weights_by_hand(model, down, up), (row[:, :-1],))
                losses = torch.nn.functional.cross_entropy(logits[0], row[0, 1:], reduction="none")[low - begin :]
                if step == 0:
                    expected[low + 1 : high + 1] = losses.detach()
                if step < 2 and high < end:
                    optimizer.zero_grad()
                    losses.mean().backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
    torch.testing.assert_close(scores(model, tokens, config)[1:], expected[1:], rtol=1e-3, atol=1e-3)


def test_updates_follow_the_scores_of_the_same_tokens_and_leave_last_chunks_alone() -> None:
    scored: Counter[int] = Counter()
    learned: Counter[int] = Counter()

    def on_update(positions: Tensor) -> None:
        assert all(scored[position] == 1 for position in positions.tolist())
        learned.update(positions.tolist())

    tokens = text()
    hooks = Hooks(lambda positions, _: scored.update(positions.tolist()), on_update)
    evaluate_lora(task_of(tiny(), tokens, hooks=hooks))
    spans = document_spans(tokens, BOS)
    expected = [p for first, end in spans for p in range(first + 1, first + 1 + (end - first - 1) // 4 * 4)]
    assert learned == dict.fromkeys(expected, 1)


def test_sums_are_the_same_bits_for_any_number_of_processes() -> None:
    tokens, model = text(LENGTHS * 2, seed=3), tiny()
    alone = evaluate_lora(task_of(model, tokens))
    for size in (2, 9):
        meeting = Meeting(size)
        models = [tiny() for _ in range(size)]
        tasks = [
            task_of(models[rank], tokens, worker=ThreadWorker(rank, size, meeting=meeting)) for rank in range(size)
        ]
        with ThreadPoolExecutor(size) as pool:
            assert set(pool.map(evaluate_lora, tasks)) == {alone}


def test_progress_is_told_group_by_group() -> None:
    told: list[tuple[int, int, int]] = []
    evaluate_lora(task_of(tiny(), text()), lambda done, groups, result: told.append((done, groups, result.tokens)))
    assert told == [(1, 3, 24), (2, 3, 55), (3, 3, 67)]


def test_a_model_without_the_layers_is_refused() -> None:
    plain = random_model(small("pr914", use_hymba=False), torch.float32)
    with pytest.raises(ValueError, match="no layer for adapters on mamba"):
        evaluate_lora(task_of(plain, text(), replace(CONFIG, ttt_lora_parts="mamba")))


def test_settings() -> None:
    with pytest.raises(ConfigError, match=r"TTT_LORA_PARTS: 'mpl' is not one of attention, mamba, mlp, head"):
        replace(CONFIG, ttt_lora_parts="head,mpl")
    base = PRESETS["demo"]
    with pytest.raises(ConfigError, match=r"TTT_CHUNK_SIZE: 600 is longer than the 512 of a window"):
        Config.from_environment({"TTT_KIND": "lora", "TTT_CHUNK_SIZE": "600"}, base)
    assert Config.from_environment({"TTT_CHUNK_SIZE": "600"}, base).evaluation.ttt_kind == "sgd"
    assert evaluation_name(task_of(tiny(), text())) == "score-first LoRA TTT, plain, documents"
    with pytest.raises(KeyError), frozen_weights(model := tiny()):
        raise KeyError
    assert all(weight.requires_grad for weight in model.parameters())
    assert isinstance(evaluate_lora(task_of(model, text(), worker=Worker())), EvalResult)
