"""Every evaluation by one, two and four real processes that meet over gloo: the same sums."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pytest
from torch import Tensor

from reference_model.evalconfig import EvalConfig
from reference_model.evaluate import evaluate
from reference_model.hooks import Hooks
from reference_model.worker import Worker
from tests.test_lora import LENGTHS, task_of, text, tiny
from tests.worlds import run_world

pytestmark = pytest.mark.slow
# A step takes every sequence of a chunk or phase: else steps of several processes mix other sequences.
TRAINED = EvalConfig(
    eval_stride=0,
    eval_batch_seqs=2,
    ttt_enabled=True,
    ttt_lr=0.1,
    ttt_epochs=2,
    ttt_chunk_tokens=40,
    ttt_batch_seqs=99,
    ttt_lora_rank=2,
    ttt_lora_lr=0.05,
    ttt_chunk_size=4,
    ttt_batch_size=2,
    phased_prefix_docs=8,
    phased_num_phases=2,
)
FIXED = replace(TRAINED, ttt_enabled=False)
SAME_BITS = {
    "plain": FIXED,
    "sliding": replace(FIXED, eval_stride=3),
    "carried": replace(FIXED, eval_carry=True, eval_lanes=7),
    "documents": replace(FIXED, eval_isolate_docs=True, eval_carry=True),
    "lora": replace(TRAINED, ttt_kind="lora"),
    "lora, carried": replace(TRAINED, ttt_kind="lora", eval_carry=True),
}
UP_TO_ROUNDING = {
    "sgd": TRAINED,
    "sgd, sliding": replace(TRAINED, eval_stride=3),
    "sgd, carried": replace(TRAINED, eval_carry=True),
    "phased": replace(TRAINED, ttt_kind="phased"),
    "phased, carried": replace(TRAINED, ttt_kind="phased", eval_carry=True),
    "phased_lora": replace(TRAINED, ttt_kind="phased_lora"),
}
# Nats, targets and bytes of all processes, and the positions that this one scored.
Found: TypeAlias = tuple[float, int, int, list[int]]


def evaluated(worker: Worker) -> dict[str, Found]:
    """By evaluation."""
    found, model = dict[str, Found](), tiny()
    for name, config in (SAME_BITS | UP_TO_ROUNDING).items():
        seen = Counter[int]()

        def on_score(positions: Tensor, _losses: Tensor, seen: Counter[int] = seen) -> None:
            seen.update(positions.tolist())

        result = evaluate(task_of(model, text(LENGTHS * 2), config, hooks=Hooks(on_score), worker=worker))
        found[name] = (result.loss_sum_nats, result.tokens, result.bytes, sorted(seen.elements()))
    return found


@pytest.mark.parametrize("world_size", [2, 4])
def test_several_processes_find_what_one_finds(world_size: int, tmp_path: Path) -> None:
    shared, (alone,) = (run_world(size, tmp_path / str(size), evaluated) for size in (world_size, 1))
    for name, (nats, tokens, size, _) in alone.items():
        assert len({found[name][:3] for found in shared}) == 1
        assert shared[0][name][1:3] == (tokens, size)
        assert sorted(place for found in shared for place in found[name][3]) == list(range(1, 2 * sum(LENGTHS)))
        if name in SAME_BITS:
            assert shared[0][name][0] == nats
        else:
            assert shared[0][name][0] == pytest.approx(nats, rel=1e-6)
