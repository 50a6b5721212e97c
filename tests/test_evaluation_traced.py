"""The probe's tracer on every evaluation: it finds each target scored once, and nothing learned from before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from reference_model.evalconfig import EvalConfig
from reference_model.evaluate import evaluate
from reference_model.scoring import EvalResult
from tests.test_lora import task_of
from tests.test_memory import random_model, small
from tests.tracing import VOCABULARY, traced, unlike, write_tokens

# Documents of 50 tokens.
TEXT = unlike(160)
CONFIG = EvalConfig(
    eval_stride=0,
    eval_batch_seqs=4,
    ttt_epochs=2,
    ttt_lr=0.05,
    ttt_chunk_tokens=64,
    ttt_chunk_size=16,
    ttt_batch_size=2,
    ttt_lora_rank=2,
    phased_prefix_docs=2,
    phased_num_phases=2,
)
TRAINED = replace(CONFIG, ttt_enabled=True)
# Without the context that is carried, a piece of two tokens at a document's end could be anywhere: whole chunks only.
CARRIED_ADAPTERS = replace(TRAINED, ttt_kind="lora", eval_carry=True, ttt_chunk_size=25)
# Each with whether it learns.
EVALUATIONS = {
    "plain": (CONFIG, False),
    "sliding": (replace(CONFIG, eval_stride=16), False),
    "carried": (replace(CONFIG, eval_carry=True, eval_lanes=2), False),
    "sgd": (TRAINED, True),
    "sgd, carried": (replace(TRAINED, eval_carry=True), True),
    "lora": (replace(TRAINED, ttt_kind="lora"), True),
    "lora, carried": (CARRIED_ADAPTERS, True),
    "phased": (replace(TRAINED, ttt_kind="phased"), True),
    "phased_lora, carried": (replace(CARRIED_ADAPTERS, ttt_kind="phased_lora"), True),
}


@pytest.mark.parametrize("kind", EVALUATIONS)
def test_the_tracer_sees_a_score_first_evaluation(kind: str, tmp_path: Path) -> None:
    config, learns = EVALUATIONS[kind]
    torch.manual_seed(0)
    model = random_model(replace(small("pr914", vocab_size=VOCABULARY), num_layers=2), torch.float32)
    tokens, results = torch.from_numpy(TEXT.astype(np.int32)), list[EvalResult]()
    task = replace(task_of(model, tokens, config), seq_len=32)
    seen = traced(write_tokens(tmp_path / "val.bin", TEXT), lambda: results.append(evaluate(task)))
    assert not seen.of("lost"), seen.of("lost")
    (found,) = [each for each in seen.of("pass") if each["count"] == len(TEXT) - 1]
    assert found["mean"] == pytest.approx(results[0].val_loss, rel=1e-6)
    assert (found["missing"], found["doubled"], found["learned_before"]) == ([], [], 0)
    assert bool(seen.of("update")) == learns
