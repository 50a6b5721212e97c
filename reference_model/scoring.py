"""What every evaluation shares: windows over the tokens, their batches, and the sums of their losses.

A *position* p is a place in the token vector; scoring it means predicting tokens[p] from the tokens before it. A
window of inputs [start, end) scores the positions [scored + 1, end + 1). Shape letters: B windows, T inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

from reference_model.evalconfig import EvalConfig
from reference_model.hooks import Hooks
from reference_model.memory import Memory
from reference_model.metric import ByteTable, bits_per_byte
from reference_model.worker import Worker

# Tokens (B, T + 1), positions of the targets (B, T), whether each is scored (B, T).
Batch: TypeAlias = tuple[Tensor, Tensor, Tensor]


class LanguageModel(Protocol):
    """What scoring needs of a model."""

    training: bool

    @property
    def blocks(self) -> Iterable[nn.Module]:
        """The layers, first to last."""

    @property
    def token_losses(self) -> Callable[..., Tensor]:
        """Nats of each target (B, T) given its own token and those before it: tokens, targets, a memory if there is."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All weights."""

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """All layers, and what they are made of."""

    def train(self, mode: bool = True) -> object:  # noqa: FBT001, FBT002 - torch's own signature
        """Set the training mode."""


@dataclass(frozen=True)
class EvalTask:
    """One model to be scored on one token vector.

    Attributes:
        model: in evaluation mode while it is scored; its mode is restored.
        tokens: the text (one-dimensional, integer); every token but the first is a target.
        table: bytes of each target.
        config: stride, batch size, test-time training.
        seq_len: longest window in tokens.
        worker: this process.
        hooks: told every scored position once, by the process that scored it, and what was learned from.

    Raises:
        ValueError: there is no target, or a token is outside the table's vocabulary.
    """

    model: LanguageModel
    tokens: Tensor
    table: ByteTable
    config: EvalConfig
    seq_len: int
    worker: Worker = field(default_factory=Worker)
    hooks: Hooks = field(default_factory=Hooks)

    def __post_init__(self) -> None:
        if self.tokens.ndim != 1 or self.targets < 1:
            raise ValueError(f"nothing to score in tokens of shape {tuple(self.tokens.shape)}")
        if (largest := int(self.tokens.max())) >= self.table.vocab_size:
            raise ValueError(f"token {largest} is outside the vocabulary of {self.table.vocab_size}")

    @property
    def targets(self) -> int:
        """Tokens to be scored."""
        return self.tokens.numel() - 1


@dataclass(frozen=True)
class EvalResult:
    """Sums over every target: nats, tokens, bytes of text."""

    loss_sum_nats: float
    tokens: int
    bytes: int

    @classmethod
    def from_sums(cls, sums_3: Tensor) -> EvalResult:
        """From the float64 vector of the three sums; counts are exact below 2^53."""
        loss_sum_nats, tokens, size = sums_3.tolist()
        return cls(loss_sum_nats, int(tokens), int(size))

    @property
    def val_loss(self) -> float:
        """Nats per token."""
        return self.loss_sum_nats / self.tokens

    @property
    def val_bpb(self) -> float:
        """Bits per byte."""
        return bits_per_byte(self.loss_sum_nats, self.bytes)


@dataclass(frozen=True)
class Windows:
    """Windows over the inputs [first, end) that score each of them once.

    Attributes:
        first: first input whose target is scored.
        end: end of the inputs.
        seq_len: longest window.
        stride: 0 cuts side by side, the last window short; above 0 each window scores the next `stride` targets and
            reaches back over `seq_len` inputs, before `first` too.
        blind: no window knows where the inputs end: a short last one begins where a whole one would.

    Raises:
        ValueError: the stride is longer than a window, which would leave gaps.
    """

    first: int
    end: int
    seq_len: int
    stride: int
    blind: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.stride <= self.seq_len:
            raise ValueError(f"stride {self.stride} is outside 0 .. {self.seq_len}, the window's length")

    @property
    def _head(self) -> int:
        """End of the first window under a stride; at the text's beginning it scores all that it reads."""
        head = max(self.first + self.stride, self.seq_len)
        return head if self.blind else min(self.end, head)

    @property
    def _whole(self) -> int:
        """How many windows of one length there are, the first ones."""
        if not self.stride:
            return (self.end - self.first) // self.seq_len
        return max(1 + (self.end - self._head) // self.stride, 0) if self.blind else len(self)

    def __len__(self) -> int:
        if self.stride:
            return 1 + (max(self.end - self._head, 0) + self.stride - 1) // self.stride
        return (self.end - self.first + self.seq_len - 1) // self.seq_len

    def bounds(self, index: int) -> tuple[int, int, int]:
        """Start, first scored input and end of one window."""
        if not self.stride:
            start = self.first + index * self.seq_len
            return start, start, min(start + self.seq_len, self.end)
        scored = self._head + (index - 1) * self.stride if index else self.first
        whole = self._head + index * self.stride
        end = min(whole, self.end)
        return max((whole if self.blind else end) - self.seq_len, 0), scored, end

    def batches(self, batch_seqs: int) -> list[range]:
        """Runs of up to `batch_seqs` windows of one length."""
        return self.batches_of(range(len(self)), batch_seqs)

    def batches_of(self, run: range, batch_seqs: int) -> list[range]:
        """The same for some consecutive windows only; a short last window stands by itself."""
        full = range(run.start, min(run.stop, self._whole))
        short = range(max(run.start, self._whole), run.stop)
        return [full[low : low + batch_seqs] for low in range(0, len(full), batch_seqs)] + ([short] if short else [])


def window_batch(tokens: Tensor, windows: Windows, run: range) -> Batch:
    """Cut out windows of one length.

    Returns:
        tokens (B, T + 1) int64; positions (B, T) of the targets; whether each is scored (B, T).
    """
    start_B, scored_B, end_B = torch.tensor([windows.bounds(index) for index in run]).unbind(1)
    inputs_BT = start_B[:, None] + torch.arange(int(end_B[0] - start_B[0]))
    index = torch.cat([inputs_BT, end_B[:, None]], dim=1).to(tokens.device)
    return tokens[index].long(), inputs_BT + 1, inputs_BT >= scored_B[:, None]


def score_windows(task: EvalTask, windows: Windows, batch_seqs: int) -> Tensor:
    """Score this process's share of the windows' batches, without gradients.

    The cut into batches does not depend on the number of processes, so neither does any loss.

    Returns:
        float64 table of nats, targets and bytes, one row for each batch; zeros for those of other processes.
    """
    table = task.table.to(task.worker.device)
    batches = windows.batches(batch_seqs)
    sums_N3 = torch.zeros(len(batches), 3, dtype=torch.float64, device=task.worker.device)
    # no_grad, not inference_mode: a cache filled in inference mode could not be used by a later backward pass.
    with torch.no_grad(), evaluation_mode(task.model):
        for index in task.worker.share(len(batches)):
            sums_N3[index] = _score_batch(task, table, window_batch(task.tokens, windows, batches[index]))
    return sums_N3


def sums_of_all(worker: Worker, sums_N3: Tensor) -> Tensor:
    """Add up what all processes found, in the order of the rows: the same bits whatever their number.

    A row is one process's and zero everywhere else, so making it common rounds nothing. Every process must call it.
    """
    total_3 = torch.zeros(3, dtype=torch.float64, device=sums_N3.device)
    for row_3 in worker.all_sum(sums_N3).unbind():
        total_3 += row_3
    return total_3


def score_for_training(task: EvalTask, windows: Windows, batch_seqs: int) -> tuple[Tensor, Tensor]:
    """Score all windows and keep what a backward pass needs: the caller trains on exactly what was scored.

    Returns:
        float64 vector: nats, targets, bytes; and the sum of the losses in nats, which gradients flow through.
    """
    table = task.table.to(task.worker.device)
    sums_3 = torch.zeros(3, dtype=torch.float64, device=task.worker.device)
    kept = []
    with evaluation_mode(task.model):
        for run in windows.batches(batch_seqs):
            batch = window_batch(task.tokens, windows, run)
            losses_BT = batch_losses(task, batch[0])
            sums_3 += batch_sums(task, table, batch, losses_BT.detach())
            kept.append(losses_BT.sum())
    return sums_3, torch.stack(kept).sum()


def _score_batch(task: EvalTask, table: ByteTable, batch: Batch) -> Tensor:
    return batch_sums(task, table, batch, batch_losses(task, batch[0]))


def batch_losses(task: EvalTask, tokens: Tensor, memory: Memory | None = None) -> Tensor:
    """Nats of each target (B, T) of tokens (B, T + 1), which go on where those of the memory ended."""
    tokens = tokens.to(task.worker.device)
    with task.worker.precision():
        if memory is None:
            return task.model.token_losses(tokens[:, :-1], tokens[:, 1:])
        return task.model.token_losses(tokens[:, :-1], tokens[:, 1:], memory)


def batch_sums(task: EvalTask, table: ByteTable, batch: Batch, losses_BT: Tensor) -> Tensor:
    """Nats, targets and bytes (float64) of what a batch scores; the hooks are told of it."""
    tokens, positions_BT, scored_BT = batch
    tokens = tokens.to(task.worker.device)
    if task.hooks.on_score is not None:
        task.hooks.on_score(positions_BT[scored_BT], losses_BT.cpu()[scored_BT])
    values_3BT = torch.stack(
        [losses_BT.double(), torch.ones_like(losses_BT).double(), table.count(tokens[:, :-1], tokens[:, 1:]).double()]
    )
    return values_3BT.where(scored_BT.to(task.worker.device), 0.0).sum((1, 2))


@contextmanager
def evaluation_mode(model: LanguageModel) -> Iterator[None]:
    """Put a model into evaluation mode; afterwards it has the mode it had."""
    mode = model.training
    model.train(mode=False)
    try:
        yield
    finally:
        model.train(mode=mode)
