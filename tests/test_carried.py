"""Going on from chunk to chunk: the scores of the whole text at once, however it is cut, and documents apart."""

from __future__ import annotations

import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from reference_model.attention import FAR_POSITION, causal_attention, continued_attention, rotary_tables
from reference_model.config import Config
from reference_model.documents import document_spans
from reference_model.evalconfig import EvalConfig
from reference_model.evaluate import evaluate, evaluation_name
from reference_model.hooks import Hooks
from reference_model.memory import KeyValues
from reference_model.model import HymbaLM
from reference_model.presets import PRESETS
from reference_model.scoring import EvalResult
from reference_model.settings import ConfigError
from reference_model.streams import lanes, new_memory
from tests.test_lora import BOS, LENGTHS, MIXERS, scores, task_of, text
from tests.test_memory import WINDOW, random_model, small
from tests.test_ttt import Meeting, ThreadWorker, Unigram

CARRY = EvalConfig(eval_stride=0, eval_carry=True, eval_batch_seqs=3)
STILL: dict[str, Any] = {"ttt_enabled": True, "ttt_lr": 0.0, "ttt_lora_lr": 0.0, "ttt_epochs": 1}
# One memory for the whole text.
WHOLE = {
    "plain": CARRY,
    "sgd": replace(CARRY, **STILL, ttt_chunk_tokens=20),
    "phased": replace(CARRY, **STILL, ttt_kind="phased", phased_prefix_docs=5),
}
# One for each document.
DOCUMENTS = {
    "plain": replace(CARRY, eval_isolate_docs=True),
    "sgd": replace(WHOLE["sgd"], eval_isolate_docs=True),
    "lora": replace(CARRY, **STILL, ttt_kind="lora", ttt_chunk_size=4, ttt_batch_size=3),
    "phased": replace(WHOLE["phased"], eval_isolate_docs=True),
    "phased_lora": replace(CARRY, **STILL, ttt_kind="phased_lora", phased_prefix_docs=5, ttt_chunk_size=4),
}


def windowed(preset: str = "pr914") -> HymbaLM:
    """A small model whose attention has a window in every layer, shorter than the windows of evaluation."""
    return random_model(small(preset, global_layers=()) if preset != "pr599" else hidden(), torch.float32)


def hidden() -> Any:
    return replace(small("pr599"), sliding_window=WINDOW)


def at_once(model: HymbaLM, tokens: Tensor, spans: list[tuple[int, int]]) -> Tensor:
    """Nats by position of stretches that are each scored in one pass."""
    nats = torch.full((tokens.numel(),), float("nan"))
    for first, end in spans:
        row = tokens[None, first : end + 1].long()
        with torch.no_grad():
            nats[first + 1 : end + 1] = model.token_losses(row[:, :-1], row[:, 1:])[0]
    return nats


@pytest.mark.parametrize("preset", [*MIXERS, "mini1961"])
def test_it_is_the_whole_text_at_once(preset: str) -> None:
    model, tokens = windowed(preset), text()
    expected = at_once(model, tokens, [(0, tokens.numel() - 1)])
    torch.testing.assert_close(scores(model, tokens, CARRY)[1:], expected[1:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", WHOLE)
def test_every_kind_goes_on_through_the_text(kind: str) -> None:
    model, tokens = windowed(), text()
    expected = at_once(model, tokens, [(0, tokens.numel() - 1)])
    torch.testing.assert_close(scores(model, tokens, WHOLE[kind])[1:], expected[1:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_every_kind_begins_anew_with_a_document(kind: str) -> None:
    model, tokens = windowed("paper"), text()
    found = scores(model, tokens, DOCUMENTS[kind])
    expected = at_once(model, tokens, document_spans(tokens, BOS))
    torch.testing.assert_close(found[1:], expected[1:], rtol=1e-4, atol=1e-4)


def test_documents_may_have_attention_without_a_window() -> None:
    model, tokens = random_model(small("mini1961"), torch.float32), text()
    expected = at_once(model, tokens, document_spans(tokens, BOS))
    torch.testing.assert_close(scores(model, tokens, DOCUMENTS["plain"])[1:], expected[1:], rtol=1e-4, atol=1e-4)


def test_lanes_are_parts_of_the_text() -> None:
    assert lanes(10, 3) == [(0, 3), (3, 6), (6, 10)]
    assert lanes(2, 4) == [(0, 1), (1, 2)]
    model, tokens = windowed(), text()
    expected = at_once(model, tokens, lanes(tokens.numel() - 1, 3))
    found = scores(model, tokens, replace(CARRY, eval_lanes=3))
    torch.testing.assert_close(found[1:], expected[1:], rtol=1e-4, atol=1e-4)


def test_documents_without_memory_are_scored_in_windows_of_their_own() -> None:
    model, tokens = windowed(), text()
    found = scores(model, tokens, EvalConfig(eval_stride=0, eval_isolate_docs=True))
    spans = [(low, min(low + 8, end)) for first, end in document_spans(tokens, BOS) for low in range(first, end, 8)]
    torch.testing.assert_close(found[1:], at_once(model, tokens, spans)[1:], rtol=1e-4, atol=1e-4)


LEARNING = {
    "sgd": replace(WHOLE["sgd"], ttt_lr=0.1),
    "phased": replace(WHOLE["phased"], ttt_lr=0.1),
    "lora": replace(DOCUMENTS["lora"], ttt_lora_lr=0.05, ttt_grad_steps=2),
}


@pytest.mark.parametrize("kind", LEARNING)
def test_no_score_depends_on_later_tokens(kind: str) -> None:
    model, tokens = windowed(), text()
    before = scores(model, tokens, LEARNING[kind])
    assert not torch.equal(before, scores(model, tokens, {**WHOLE, **DOCUMENTS}[kind]))
    other, changed = tokens.clone(), (torch.arange(len(tokens)) >= 40) & (tokens != BOS)
    other[changed] = other[changed] % 14 + 2
    after = scores(model, other, LEARNING[kind])
    assert torch.equal(before[1:40], after[1:40])
    assert not torch.equal(before[40:], after[40:])


def test_another_document_changes_nothing_to_the_last_bit() -> None:
    model, tokens = windowed(), text()
    before = scores(model, tokens, LEARNING["lora"])
    first, end = document_spans(tokens, BOS)[4]
    other = tokens.clone()
    other[first + 1 : end] = other[first + 1 : end] % 14 + 2
    after = scores(model, other, LEARNING["lora"])
    inside = torch.zeros(len(tokens), dtype=torch.bool)
    inside[first + 1 : end + 1] = True
    assert torch.equal(before[~inside][1:], after[~inside][1:])
    assert not torch.equal(before[inside], after[inside])


@pytest.mark.parametrize("config", [replace(CARRY, eval_lanes=9), DOCUMENTS["plain"]], ids=["lanes", "documents"])
def test_sums_are_the_same_bits_for_any_number_of_processes(config: EvalConfig) -> None:
    tokens, alone = text(), evaluate(task_of(windowed(), text(), config))
    meeting = Meeting(3)
    tasks = [task_of(windowed(), tokens, config, worker=ThreadWorker(rank, 3, meeting=meeting)) for rank in range(3)]
    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(evaluate, tasks)) == {alone}


def test_one_process_scores_what_is_carried_and_all_train() -> None:
    config, meeting = replace(LEARNING["sgd"], ttt_batch_seqs=9), Meeting(2)
    seen = [Counter[int](), Counter[int]()]

    def run(rank: int) -> EvalResult:
        hooks = Hooks(lambda positions, _: seen[rank].update(positions.tolist()))
        worker = ThreadWorker(rank, 2, meeting=meeting)
        return evaluate(task_of(windowed(), text(), config, hooks=hooks, worker=worker))

    with ThreadPoolExecutor(2) as pool:
        (result,) = set(pool.map(run, range(2)))
    assert seen == [dict.fromkeys(range(1, sum(LENGTHS)), 1), {}]
    alone = evaluate(task_of(windowed(), text(), config))
    assert (result.tokens, result.bytes) == (alone.tokens, alone.bytes)
    assert result.loss_sum_nats == pytest.approx(alone.loss_sum_nats, rel=1e-5)


@pytest.mark.parametrize("window", [0, 5])
def test_attention_goes_on_with_many_tokens_and_their_gradients(window: int) -> None:
    kept, generator = KeyValues(window), torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(2, heads, 60, 4, generator=generator, dtype=torch.float64).requires_grad_() for heads in (4, 2, 2)
    )
    whole = causal_attention(q, k, v, window)
    parts = zip(*(torch.split(x, [7, 30, 3, 20], 2) for x in (q, k, v)), strict=True)
    mixed = [continued_attention(q_part, k_part, v_part, kept) for q_part, k_part, v_part in parts]
    torch.testing.assert_close(torch.cat(mixed, 2), whole, rtol=0, atol=1e-12)
    # What was kept has no gradient; the present tokens have that of attention to all.
    (found,) = torch.autograd.grad(mixed[-1].sum(), v)
    (expected,) = torch.autograd.grad(whole[:, :, -20:].sum(), v)
    assert not found[:, :, :40].any()
    torch.testing.assert_close(found[:, :, 40:], expected[:, :, 40:], rtol=0, atol=1e-12)


def test_a_memory_of_some_rows_is_apart() -> None:
    model, tokens = windowed("mini1961_3"), text()[:24].view(2, 12).long()
    memory = new_memory(task_of(model, text()))
    with torch.no_grad():
        model(tokens[:, :5], memory)
        first = memory.first_rows(1)
        expected = model(tokens[:1, 5:], first.first_rows(1))
        model(tokens[:, 5:] % 3, memory)
        assert torch.equal(model(tokens[:1, 5:], first), expected)
    assert (memory.position, first.position) == (12, 12)


def test_far_positions_keep_their_angles() -> None:
    near = rotary_tables(8, 8, 1e4, torch.device("cpu"), first=FAR_POSITION - 4)
    far = rotary_tables(4, 8, 1e4, torch.device("cpu"), first=(1 << 26) + 1)
    frequencies = [1e4 ** -(pair / 4) for pair in range(4)]
    expected = torch.tensor([[[math.cos(p * f) for f in frequencies]] for p in range((1 << 26) + 1, (1 << 26) + 5)])
    torch.testing.assert_close(far[0][..., :1], expected[..., :1], rtol=0, atol=1e-6)
    assert torch.equal(near[1][:4], rotary_tables(4, 8, 1e4, torch.device("cpu"), first=FAR_POSITION - 4)[1])
    assert torch.equal(near[1][4:], rotary_tables(4, 8, 1e4, torch.device("cpu"), first=FAR_POSITION)[1])


def test_settings_and_names() -> None:
    for changes, message in (
        ({"EVAL_CARRY_STATE": "1"}, r"EVAL_CARRY_STATE: needs EVAL_STRIDE=0, not 64"),
        ({"EVAL_CARRY_STATE": "1", "EVAL_STRIDE": "0"}, r"EVAL_CARRY_STATE: a layer without SLIDING_WINDOW"),
        ({"EVAL_LANES": "2"}, r"EVAL_LANES: is for EVAL_CARRY_STATE=1"),
        ({"EVAL_ISOLATE_DOCS": "1", "TTT_ENABLED": "1"}, r"EVAL_ISOLATE_DOCS: TTT_KIND=sgd needs EVAL_CARRY_STATE=1"),
    ):
        with pytest.raises(ConfigError, match=message):
            Config.from_environment(changes, PRESETS["pr599"])
    assert Config.from_environment({"EVAL_CARRY_STATE": "1", "EVAL_LANES": "4"}, replace(
        PRESETS["pr914"], evaluation=CARRY)).evaluation.eval_lanes == 4  # fmt: skip
    scanning = {"EVAL_CARRY_STATE": "1", "EVAL_STRIDE": "0", "USE_ATTENTION": "0"}
    assert Config.from_environment(scanning, PRESETS["pr599"]).evaluation.eval_carry
    with pytest.raises(ConfigError, match="a layer without SLIDING_WINDOW"):
        Config.from_environment(scanning | {"HYMBA_LAYERS": "0,1,2,3,4,5"}, PRESETS["pr599"])
    names = [evaluation_name(task_of(windowed(), text(), config)) for config in (CARRY, *DOCUMENTS.values())]
    assert names[:3] == ["carried", "carried, documents", "score-first TTT, carried, documents"]
    with pytest.raises(TypeError, match="Unigram has no memory"):
        evaluate(replace(task_of(windowed(), text(), CARRY), model=Unigram()))
