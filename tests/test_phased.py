"""Training in phases: everything is scored before it is learned from, once, from left to right."""

from __future__ import annotations

import copy
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reference_model.documents import document_spans
from reference_model.evalconfig import EvalConfig
from reference_model.evaluate import evaluate, evaluate_plain, evaluation_name
from reference_model.hooks import Hooks
from reference_model.phased import evaluate_phased, phase_spans, phase_windows
from reference_model.scoring import EvalResult
from reference_model.settings import ConfigError
from tests.test_lora import BOS, LENGTHS, REACH, scores, task_of, text, tiny
from tests.test_ttt import Meeting, ThreadWorker

CONFIG = EvalConfig(
    eval_stride=0,
    eval_batch_seqs=2,
    ttt_enabled=True,
    ttt_kind="phased",
    phased_prefix_docs=5,
    phased_num_phases=2,
    ttt_lr=0.1,
    ttt_epochs=2,
    ttt_batch_seqs=3,
    ttt_lora_rank=2,
    ttt_lora_lr=0.05,
    ttt_chunk_size=4,
    ttt_batch_size=2,
)
WITH_ADAPTERS = replace(CONFIG, ttt_kind="phased_lora")
KINDS = {"plain": CONFIG, "stride": replace(CONFIG, eval_stride=3), "adapters": WITH_ADAPTERS}
# Of seven documents: two, three, two.
ENDS = (10, 50, 67)
MODEL = tiny()


def test_phases_end_where_so_many_documents_end() -> None:
    spans = document_spans(text(), BOS)
    assert phase_spans(spans, CONFIG) == [(0, 10), (10, 50), (50, 67)]
    assert phase_spans(spans, replace(CONFIG, phased_prefix_docs=7, phased_num_phases=1)) == [(0, 67)]
    assert phase_spans(spans, replace(CONFIG, phased_prefix_docs=9, phased_num_phases=3)) == [
        (0, 24), (24, 55), (55, 67)
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="PHASED_TTT_NUM_PHASES: 6 of 5 documents"):
        replace(CONFIG, phased_num_phases=6)


@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(1, 4), st.integers(1, 4), st.integers(0, 8))
def test_every_target_is_scored_once(lengths: list[int], documents: int, phases: int, stride: int) -> None:
    tokens, seen = text([2, *lengths]), Counter[int]()
    changes = {"phased_prefix_docs": max(documents, phases), "phased_num_phases": phases}
    config = replace(CONFIG, eval_stride=stride, ttt_epochs=1, **changes)  # type: ignore[arg-type]
    result = evaluate(task_of(tiny(), tokens, config, hooks=Hooks(lambda p, _: seen.update(p.tolist()))))
    assert seen == dict.fromkeys(range(1, tokens.numel()), 1)
    assert (result.tokens, result.bytes) == (tokens.numel() - 1, int(tokens[1:].sum()))


@given(st.integers(0, 40), st.integers(1, 60), st.integers(1, 30), st.integers(1, 9), st.integers(0, 9))
def test_where_a_window_begins_does_not_depend_on_the_end(
    first: int, length: int, further: int, seq_len: int, stride: int
) -> None:
    task = replace(task_of(MODEL, text()), seq_len=seq_len)
    task = replace(task, config=replace(CONFIG, eval_stride=min(stride, seq_len)))
    windows, longer = (phase_windows(task, first, first + size) for size in (length, length + further))
    bounds = [windows.bounds(index) for index in range(len(windows))]
    assert bounds[0][1] == first
    assert [scored for _, scored, _ in bounds[1:]] == [end for _, _, end in bounds[:-1]]
    assert bounds[-1][2] == first + length
    for index, (start, scored, end) in enumerate(bounds):
        assert longer.bounds(index)[:2] == (start, scored)
        assert 0 <= start <= scored < end <= start + seq_len
    for run in windows.batches(3):
        assert len({windows.bounds(index)[2] - windows.bounds(index)[0] for index in run}) == 1


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
def test_a_phase_is_learned_from_after_it_was_scored_with_all_before_it(config: EvalConfig) -> None:
    scored, updates = Counter[int](), list[tuple[int, int]]()

    def on_update(positions: Tensor) -> None:
        places = positions.tolist()
        assert all(scored[place] == 1 for place in places)
        if places[0] == 1 and len(places) >= ENDS[0]:
            assert max(scored) == len(places)
            updates.append((places[0], places[-1]))

    hooks = Hooks(lambda positions, _: scored.update(positions.tolist()), on_update)
    evaluate(task_of(tiny(), text(), config, hooks=hooks))
    assert updates == [(1, ENDS[0]), (1, ENDS[1])]
    assert scored == dict.fromkeys(range(1, ENDS[-1] + 1), 1)


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
def test_no_score_depends_on_later_tokens(config: EvalConfig) -> None:
    model, tokens = tiny(), text()
    before = scores(model, tokens, config)
    assert torch.isfinite(before[1:]).all()
    for flipped in (9, 30):
        other = tokens.clone()
        changed = (torch.arange(len(tokens)) >= flipped) & (tokens != BOS)
        other[changed] = other[changed] % 14 + 2
        after = scores(model, other, config)
        assert torch.equal(before[1:flipped], after[1:flipped])
        assert not torch.equal(before[51:], after[51:])


def test_it_is_training_by_hand_between_plain_evaluations() -> None:
    model, tokens = tiny(), text()
    found, by_hand = scores(model, tokens, CONFIG), copy.deepcopy(model)
    for (first, end), learned in zip(((0, 10), (10, 50), (50, 67)), (10, 50, 0), strict=True):
        for low in range(first, end, REACH):
            row = tokens[None, low : min(low + REACH, end) + 1].long()
            with torch.no_grad():
                nats = by_hand.token_losses(row[:, :-1], row[:, 1:])[0]
            torch.testing.assert_close(found[low + 1 : low + 1 + len(nats)], nats, rtol=1e-3, atol=1e-3)
        sequences = [tokens[None, low : min(low + REACH, learned) + 1].long() for low in range(0, learned, REACH)]
        steps = [sequences[low : low + 3] for low in range(0, len(sequences), 3)] * 2
        optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1, momentum=0.9)
        for number, step in enumerate(steps):
            rate = 0.05 * (1 + torch.tensor(number / len(steps) * torch.pi).cos().item())
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            losses = torch.cat([by_hand.token_losses(row[:, :-1], row[:, 1:])[0] for row in step])
            losses.mean().backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(by_hand.parameters(), 1.0)
            optimizer.step()


def test_the_first_phase_is_scored_by_the_model_as_it_came_which_is_put_back() -> None:
    model, told = tiny(), list[EvalResult]()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate_phased(task_of(model, text(), CONFIG), lambda *heard: told.append(heard[2]))
    plain = evaluate_plain(task_of(model, text()[:11], CONFIG))
    assert (told[0], [result.tokens for result in told]) == (plain, list(ENDS))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("config", [CONFIG, WITH_ADAPTERS], ids=["plain", "adapters"])
def test_processes_agree_with_one(config: EvalConfig) -> None:
    config = replace(config, ttt_batch_seqs=20, ttt_epochs=1)
    tokens = text(LENGTHS)
    alone = evaluate_phased(task_of(tiny(), tokens, config))
    meeting = Meeting(3)
    tasks = [task_of(tiny(), tokens, config, worker=ThreadWorker(rank, 3, meeting=meeting)) for rank in range(3)]
    with ThreadPoolExecutor(3) as pool:
        (result,) = set(pool.map(evaluate_phased, tasks))
    assert (result.tokens, result.bytes) == (alone.tokens, alone.bytes)
    assert result.loss_sum_nats == pytest.approx(alone.loss_sum_nats, rel=1e-5)


def test_names() -> None:
    assert evaluation_name(task_of(MODEL, text(), CONFIG)) == "score-first phased TTT, plain"
    assert evaluation_name(task_of(MODEL, text(), WITH_ADAPTERS)) == "score-first phased LoRA TTT, plain, documents"
