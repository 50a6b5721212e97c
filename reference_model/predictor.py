"""The model as a predictor: the distribution of the next token, then that token, and so on to the text's end.

Nothing but tokens that were observed can reach a distribution, since nothing else is there: the four conditions hold
by construction. The distributions are those that `evaluate` scores, up to rounding: the same windows, and the same
training on the same tokens once all of them were observed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from reference_model.course import Course, computing_threads, open_course
from reference_model.evalconfig import EvalConfig
from reference_model.memory import Memory
from reference_model.metric import ByteTable
from reference_model.model import HymbaLM
from reference_model.scoring import EvalTask, evaluation_mode
from reference_model.worker import Worker


class Predictor:
    """Predicts a text of known length token by token: `observe` the first, then `predict` and `observe` in turn.

    Made by `predicting`. Its cost per token does not depend on the position where attention has a window, and a
    stride above 0 adds one pass over a window for every `stride` tokens.
    """

    def __init__(self, task: EvalTask, model: HymbaLM, course: Course) -> None:
        self._task, self._model, self._course = task, model, course
        self._observed = 0
        self._memory: Memory = model.new_memory()
        self._logprobs_V: Tensor | None = None

    def observe(self, token: int) -> None:
        """Take the next token of the text.

        Raises:
            ValueError: it is outside the vocabulary, or the text is over.
        """
        tokens, vocab_size = self._task.tokens, self._model.config.vocab_size
        if not 0 <= token < vocab_size:
            raise ValueError(f"token {token} is outside the vocabulary of {vocab_size}")
        if self._observed == tokens.numel():
            raise ValueError(f"token {token} after the end of a text of {tokens.numel()}")
        if self._observed and self._logprobs_V is None:
            self.predict()  # the memory must not miss a token
        tokens[self._observed] = token
        self._observed += 1
        self._logprobs_V = None

    def predict(self) -> Tensor:
        """Logarithms of the next token's probabilities given all that was observed: V in float32, sum of exp 1.

        Raises:
            ValueError: there is no next token, or nothing was observed yet.
        """
        if not 0 < self._observed < self._task.tokens.numel():
            raise ValueError(f"no token to predict after {self._observed} of {self._task.tokens.numel()}")
        if self._logprobs_V is None:
            self._logprobs_V = self._next(self._observed - 1).log_softmax(-1).cpu()
        return self._logprobs_V

    def _next(self, place: int) -> Tensor:
        """Logits after the input at `place`, which no earlier call went beyond."""
        start = self._course.window(place, self._memory)
        if start is not None:
            self._memory = self._model.new_memory()
        worker = self._task.worker
        inputs_1T = self._task.tokens[None, place if start is None else start : place + 1].long().to(worker.device)
        with torch.no_grad(), worker.precision():
            logits_1TV: Tensor = self._model(inputs_1T, self._memory)
        return logits_1TV[0, -1]


@contextmanager
def predicting(
    model: HymbaLM, tokens: int, config: EvalConfig, seq_len: int, worker: Worker | None = None
) -> Iterator[Predictor]:
    """Predict one text; afterwards the model has its weights again.

    Args:
        model: Loaded from an artifact.
        tokens: How many the text has, the first included. Learning rates and the last chunk depend on it.
        config: Stride and test-time training.
        seq_len: Longest window in tokens.
        worker: This process, the only one.
    """
    # Bytes are counted by those who know the text.
    nothing_V = torch.zeros(model.config.vocab_size, dtype=torch.int64)
    table = ByteTable(nothing_V, nothing_V.bool(), nothing_V.bool())
    text = torch.zeros(tokens, dtype=torch.int32)
    task = EvalTask(model, text, table, config, seq_len, worker or Worker())
    with open_course(task) as course, evaluation_mode(model), computing_threads(1):
        # A token is too little work to be shared: waiting for each other costs more.
        yield Predictor(task, model, course)
