"""One text scored window after window, the model's memory going on: the scan's state, the convolution, the keys.

Where nothing is trained in between, the scores are those of the whole text at once under the attention's window. A
memory that was made with earlier weights stays as it is: it depends on earlier tokens alone (rule C1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from reference_model.documents import Span
from reference_model.hooks import Hooks
from reference_model.memory import Memory
from reference_model.scoring import Batch, EvalTask, batch_losses, batch_sums, evaluation_mode
from reference_model.streams import new_memory


class CarriedText:
    """Scores stretches of a text, each where the last one ended.

    That is sequential, so the first process does it; it alone has the memory and tells the hooks of scores.
    """

    def __init__(self, task: EvalTask) -> None:
        first = task.worker.rank == 0
        self.task = task if first else replace(task, hooks=Hooks(on_update=task.hooks.on_update))
        self._memory: Memory | None = None

    def score(self, first: int, end: int) -> Tensor:
        """Nats, targets and bytes of the inputs [first, end), in float64; of all processes, each of which must call."""
        task = self.task
        sums_3 = torch.zeros(3, dtype=torch.float64, device=task.worker.device)
        if task.worker.rank == 0:
            table = task.table.to(task.worker.device)
            with torch.no_grad(), evaluation_mode(task.model):
                for window in self._windows(first, end):
                    batch = self._batch(window)
                    sums_3 += batch_sums(task, table, batch, batch_losses(task, batch[0], self._memory))
        return task.worker.all_sum(sums_3)

    def _windows(self, first: int, end: int) -> Iterator[Span]:
        """Windows of up to `seq_len`, none of which goes into another document where these are apart."""
        marks = []
        if self.task.config.eval_isolate_docs:
            marks = (first + (self.task.tokens[first:end] == self.task.config.bos_id).nonzero().flatten()).tolist()
        starts = sorted({first, *marks})
        for low, high in zip(starts, [*starts[1:], end], strict=True):
            if self._memory is None or low in marks:
                self._memory = new_memory(self.task)
            yield from ((start, min(start + self.task.seq_len, high)) for start in range(low, high, self.task.seq_len))

    def _batch(self, window: Span) -> Batch:
        start, end = window
        positions_1T = torch.arange(start + 1, end + 1)[None]
        return self.task.tokens[None, start : end + 1].long(), positions_1T, torch.ones_like(positions_1T).bool()
