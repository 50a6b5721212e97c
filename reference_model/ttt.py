"""Score-first test-time training: a chunk is scored, then trained on, and never scored again (rules C3, C4, R12).

Shape letters: B sequences, T inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor, nn

from reference_model.banks import frozen_matrices
from reference_model.carried import CarriedText
from reference_model.scoring import (
    EvalResult,
    EvalTask,
    LanguageModel,
    Windows,
    evaluation_mode,
    score_for_training,
    score_windows,
    sums_of_all,
    window_batch,
)
from reference_model.worker import Worker

# Called after each chunk: chunks scored, chunks in all, and the result so far over all processes.
ChunkHook: TypeAlias = Callable[[int, int, EvalResult], None]


def evaluate_ttt(task: EvalTask, on_chunk: ChunkHook | None = None) -> EvalResult:
    """Score chunk after chunk, and train on each once it is scored; the last one is only scored.

    A chunk's losses are added up before the first update that sees it. Windows may reach back over the tokens before
    their chunk when the configuration has a stride, or go on where the last one ended, with the memory of the tokens
    before, which is not trained through. Training is SGD with momentum on the chunk's sequences side by
    side, in order; a step takes `ttt_batch_seqs` of every process's contiguous share. Where the first step takes the
    whole chunk as it was scored, it goes back through the very pass that scored it, instead of repeating that pass.

    The model's weights are changed in place, and restored before this returns or raises.
    """
    config = task.config
    total_3 = torch.zeros(3, dtype=torch.float64, device=task.worker.device)
    with adapted_weights(task.model, config.ttt_freeze_blocks) as weights:
        adaptation = Adaptation(task, weights)
        chunks, carried = adaptation.chunks, CarriedText(task) if config.eval_carry else None
        for number, (first, end) in enumerate(chunks):
            last = number + 1 == len(chunks)
            if carried is not None:
                sums_3, scored = carried.score(first, end), None
            else:
                windows = Windows(first, end, task.seq_len, config.eval_stride)
                sums_3, scored = _score_chunk(task, windows, trained=not last)
            total_3 += sums_3
            if on_chunk is not None:
                on_chunk(number + 1, len(chunks), EvalResult.from_sums(total_3))
            if not last:
                adaptation.learn(number, scored)
    return EvalResult.from_sums(total_3)


class Adaptation:
    """Weights that are trained chunk by chunk, each chunk once, in order.

    Attributes:
        chunks: first input and end of each chunk.
    """

    def __init__(self, task: EvalTask, weights: Sequence[nn.Parameter]) -> None:
        config, targets = task.config, task.targets
        self.task, self.weights = task, weights
        starts = range(0, targets, config.ttt_chunk_tokens)
        self.chunks = [(first, min(first + config.ttt_chunk_tokens, targets)) for first in starts]
        self.optimizer = torch.optim.SGD(weights, lr=config.ttt_lr, momentum=config.ttt_momentum)

    def learn(self, number: int, scored: Tensor | None = None) -> None:
        """Train on a chunk whose targets are all known; `scored` is the sum of its losses with their graph, if kept."""
        first, end = self.chunks[number]
        self.optimizer.param_groups[0]["lr"] = ttt_rate(self.task.config.ttt_lr, number, len(self.chunks))
        lesson = Lesson(self.task, Windows(first, end, self.task.seq_len, 0), self.weights, scored)
        train_on(lesson, self.optimizer)


def ttt_rate(base: float, chunk: int, chunks: int) -> float:
    """Learning rate after scoring a chunk: a cosine from `base` at the first to zero at the last."""
    return base * 0.5 * (1.0 + math.cos(math.pi * chunk / max(chunks - 1, 1)))


@contextmanager
def adapted_weights(model: LanguageModel, freeze_blocks: int) -> Iterator[list[nn.Parameter]]:
    """Lend out the weights that are trained: all but those of the first blocks, which take no gradient meanwhile.

    That holds for their matrices in a bank too. No weight has a gradient at first. Afterwards every weight has the
    value and the `requires_grad` it had, and no gradient.
    """
    blocks = list(model.blocks)[:freeze_blocks]
    frozen = {id(weight) for block in blocks for weight in block.parameters()}
    before = [(weight, weight.requires_grad, weight.detach().clone()) for weight in model.parameters()]
    try:
        for weight, _, _ in before:
            weight.grad = None
            weight.requires_grad_(id(weight) not in frozen)
        with frozen_matrices(blocks):
            yield [weight for weight, _, _ in before if weight.requires_grad]
    finally:
        for weight, trainable, value in before:
            weight.data.copy_(value)
            weight.grad = None
            weight.requires_grad_(trainable)


@dataclass(frozen=True)
class Lesson:
    """Scored text to train on.

    Attributes:
        task: what is evaluated.
        windows: its sequences side by side.
        weights: those that are trained.
        scored: sum of its losses in nats with what a backward pass needs, where scoring kept it.
    """

    task: EvalTask
    windows: Windows
    weights: Sequence[nn.Parameter]
    scored: Tensor | None


def _score_chunk(task: EvalTask, windows: Windows, *, trained: bool) -> tuple[Tensor, Tensor | None]:
    """Sums of one chunk over all processes, and its loss for the first step where that step takes the whole chunk."""
    config, worker = task.config, task.worker
    one_step = windows.stride == 0 and worker.world_size == 1 and len(windows) <= config.ttt_batch_seqs
    if trained and one_step and config.ttt_epochs > 0:
        return score_for_training(task, windows, config.ttt_batch_seqs)
    # A batch is small enough that every process has work.
    fair = -(-len(windows) // worker.world_size)
    return sums_of_all(worker, score_windows(task, windows, min(config.eval_batch_seqs, fair))), None


def train_on(lesson: Lesson, optimizer: torch.optim.Optimizer, falling_from: float | None = None) -> None:
    """All epochs over one lesson; every process takes the same steps, even when it has no sequences left.

    Args:
        lesson: What is learned; the hooks are told of it.
        optimizer: Of its weights.
        falling_from: Rate of the first step, which falls by a cosine over all of them; None keeps the optimizer's.
    """
    task, weights = lesson.task, lesson.weights
    longest = -(-len(lesson.windows) // task.worker.world_size)
    steps = list(range(0, longest, task.config.ttt_batch_seqs)) * task.config.ttt_epochs
    with evaluation_mode(task.model):
        for number, low in enumerate(steps):
            if falling_from is not None:
                optimizer.param_groups[0]["lr"] = ttt_rate(falling_from, number, len(steps) + 1)
            _compute_gradients(lesson, low, None if number else lesson.scored)
            if task.config.ttt_grad_clip > 0:
                nn.utils.clip_grad_norm_(weights, task.config.ttt_grad_clip)
            optimizer.step()
    if task.hooks.on_update is not None:
        task.hooks.on_update(torch.arange(lesson.windows.first + 1, lesson.windows.end + 1))


def _compute_gradients(lesson: Lesson, low: int, scored: Tensor | None) -> None:
    """Gradient of the mean loss over one step's targets of all processes; a short window goes by itself."""
    task, windows, weights = lesson.task, lesson.windows, lesson.weights
    worker, size = task.worker, task.config.ttt_batch_seqs
    runs = [replace(worker, rank=rank).share(len(windows))[low : low + size] for rank in range(worker.world_size)]
    targets = sum(end - start for run in runs for start, _, end in map(windows.bounds, run))
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    if scored is not None:
        (scored / targets).backward()  # type: ignore[no-untyped-call]
        return
    for part in windows.batches_of(runs[worker.rank], size):
        batch = window_batch(task.tokens, windows, part)[0].to(worker.device)
        with worker.precision():
            losses_BT = task.model.token_losses(batch[:, :-1], batch[:, 1:])
        (losses_BT.sum() / targets).backward()  # type: ignore[no-untyped-call]
    _sum_gradients(worker, [weight.grad for weight in weights if weight.grad is not None])


def _sum_gradients(worker: Worker, gradients: Sequence[Tensor]) -> None:
    """Sum over all processes, in one message."""
    if worker.world_size > 1:
        flat = worker.all_sum(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))
