"""Test-time training of low-rank adapters, anew in each document (the accepted record of 2026-03-17, "LoRA TTT").

A document is scored chunk by chunk; after each chunk its own adapters are trained on it, and on nothing else. Nothing
passes from one document to another, so neither the order in which they are scored nor who scores them matters: every
score depends on the document's own earlier tokens alone (rules C1, C3, C4, R12, R21). The model's weights never change.

Shape letters: S documents side by side, T inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from reference_model.adapters import AdapterStart, adapted_layers
from reference_model.documents import DocumentGroup, Span, document_groups, document_spans
from reference_model.memory import Memory
from reference_model.scoring import Batch, EvalResult, EvalTask, LanguageModel, batch_losses, sums_of_all
from reference_model.streams import score_group, score_groups
from reference_model.ttt import ChunkHook

# As the later accepted records have it: gradients of a mean over few tokens are small.
# Far below rounding: a gradient that is truly 0, as that of a lone query, gives steps of noise (docs/evaluation.md).
ADAM_EPS = 1e-10


def evaluate_lora(task: EvalTask, on_chunk: ChunkHook | None = None) -> EvalResult:
    """Score all documents; `on_chunk` hears of each group, with the result of this process alone so far.

    Processes share the groups. Neither a loss nor the float64 sums depend on their number, to the last bit.

    Raises:
        ValueError: The model has none of the layers that are to be adapted.
    """
    spans = document_spans(task.tokens, task.config.bos_id)
    return EvalResult.from_sums(sums_of_all(task.worker, score_documents(task, spans, on_chunk)))


def score_documents(task: EvalTask, spans: Sequence[Span], on_chunk: ChunkHook | None = None) -> Tensor:
    """Score this process's share of some documents: a row of sums for each group (see `score_groups`)."""
    config, start = task.config, adapter_start(task)
    groups = list(document_groups(spans, config.ttt_batch_size, config.ttt_chunk_size, reach_of(task)))

    def score(group: DocumentGroup) -> Tensor:
        learner = Learner(task, group, start)
        with learner.adapters.attached():
            return score_group(task, group, learner)

    with frozen_weights(task.model):
        return score_groups(task, groups, score, on_chunk)


def reach_of(task: EvalTask) -> int:
    """Longest window: what a memory holds is not read again."""
    return task.config.ttt_chunk_size if task.config.eval_carry else task.seq_len


def adapter_start(task: EvalTask) -> AdapterStart:
    """Where the adapters of every document begin; raises ValueError where the model has no layer for them."""
    config = task.config
    return AdapterStart.drawn(
        adapted_layers(task.model, config.lora_parts, config.ttt_freeze_blocks), config.ttt_lora_rank
    )


@contextmanager
def frozen_weights(model: LanguageModel) -> Iterator[None]:
    """Ask for no gradient of the model's own weights; afterwards for those that had been asked for."""
    before = [(weight, weight.requires_grad) for weight in model.parameters()]
    try:
        for weight, _ in before:
            weight.requires_grad = False
        yield
    finally:
        for weight, trainable in before:
            weight.requires_grad_(trainable)


class Learner:
    """Adapters of one group, and their optimizer; `attached` to the model while they are in use."""

    def __init__(self, task: EvalTask, group: DocumentGroup, start: AdapterStart) -> None:
        config = task.config
        self.task, self.group = task, group
        self.adapters = start.fresh(len(group.spans))
        betas = config.ttt_beta1, config.ttt_beta2
        self.optimizer = torch.optim.Adam(self.adapters.weights, config.ttt_lora_lr, betas, ADAM_EPS)

    def learn(self, batch: Batch, losses_ST: Tensor | None, documents: int, memory: Memory | None) -> None:
        """See `GroupLearner.learn`."""
        tokens, positions_ST = batch[0][:documents], batch[1][:documents, -self.group.chunk :]
        for _ in range(self.task.config.ttt_grad_steps):
            if losses_ST is None:
                losses_ST = batch_losses(self.task, tokens, memory and memory.first_rows(documents))
            self.optimizer.zero_grad()
            # A sum over documents: the gradient of each one's adapters is that of its own mean.
            losses_ST[:documents, -self.group.chunk :].mean(1).sum().backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            losses_ST = None
        if self.task.hooks.on_update is not None:
            self.task.hooks.on_update(positions_ST.flatten())
