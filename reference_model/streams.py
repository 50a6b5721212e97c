"""Texts side by side, scored chunk by chunk: documents, or parts of one long text, with or without a memory.

Shape letters: S texts of a group, T inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from reference_model.documents import DocumentGroup, Span, document_groups, document_spans
from reference_model.memory import Memory
from reference_model.model import HymbaLM
from reference_model.scoring import Batch, EvalResult, EvalTask, batch_losses, batch_sums, evaluation_mode, sums_of_all


class GroupLearner(Protocol):
    """Learns from each chunk of a group once it is scored."""

    def learn(self, batch: Batch, losses_ST: Tensor | None, documents: int, memory: Memory | None) -> None:
        """Train on a chunk that was scored whole, by the first documents only: the others end with it.

        Args:
            batch: What `DocumentGroup.batch` gave.
            losses_ST: The losses that were scored, with their graph, where it was kept.
            documents: How many go on.
            memory: From before the chunk, where one is carried on.
        """


# Scores one group and returns its sums.
ScoreGroup: TypeAlias = Callable[[DocumentGroup], Tensor]
# Called after each group: how many are done, groups in all, this process's result so far.
GroupHook: TypeAlias = Callable[[int, int, EvalResult], None]


def evaluate_streams(task: EvalTask) -> EvalResult:
    """Score documents apart from each other, or the lanes of the text, without training.

    Processes share the groups; neither a loss nor the float64 sums depend on their number, to the last bit.
    """
    config = task.config
    spans = document_spans(task.tokens, config.bos_id) if config.isolates else lanes(task.targets, config.eval_lanes)
    groups = list(document_groups(spans, config.eval_batch_seqs, config.eval_stride or task.seq_len, task.seq_len))
    return EvalResult.from_sums(sums_of_all(task.worker, score_groups(task, groups, lambda g: score_group(task, g))))


def lanes(targets: int, count: int) -> list[Span]:
    """Parts of a text of equal length, up to one."""
    ends = [targets * lane // count for lane in range(count + 1)]
    return [(first, end) for first, end in pairwise(ends) if first < end]


def new_memory(task: EvalTask) -> Memory:
    """A memory of nothing.

    Raises:
        TypeError: The model has no memory.
    """
    if not isinstance(task.model, HymbaLM):
        raise TypeError(f"{type(task.model).__name__} has no memory that could be carried on")
    return task.model.new_memory()


def score_groups(
    task: EvalTask, groups: Sequence[DocumentGroup], score: ScoreGroup, on_group: GroupHook | None = None
) -> Tensor:
    """Score this process's share of some groups.

    Returns:
        float64 table of nats, targets and bytes, one row for each group; zeros for those of other processes.
    """
    sums_N3 = torch.zeros(len(groups), 3, dtype=torch.float64, device=task.worker.device)
    with evaluation_mode(task.model):
        for index in task.worker.share(len(groups)):
            sums_N3[index] = score(groups[index])
            if on_group is not None:
                on_group(index + 1, len(groups), EvalResult.from_sums(sums_N3.sum(0)))
    return sums_N3


def score_group(task: EvalTask, group: DocumentGroup, learner: GroupLearner | None = None) -> Tensor:
    """Score one group from beginning to end, and let it learn; returns its sums."""
    table = task.table.to(task.worker.device)
    sums_3 = torch.zeros(3, dtype=torch.float64, device=task.worker.device)
    memory = new_memory(task) if task.config.eval_carry else None
    for number in range(group.chunks):
        batch, going_on = group.batch(task.tokens, number), group.active(number + 1)
        before = memory and memory.first_rows(len(batch[0]))
        memory = before and before.first_rows(len(batch[0]))
        learns = learner is not None and going_on > 0
        with torch.set_grad_enabled(learns):
            losses_ST = batch_losses(task, batch[0], memory)
        sums_3 += batch_sums(task, table, batch, losses_ST.detach())
        if learner is not None and learns:
            learner.learn(batch, losses_ST, going_on, before)
    return sums_3
