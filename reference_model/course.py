"""The course of an evaluation, input after input: where windows begin, when it trains. A predictor follows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

import torch
from torch import nn

from reference_model.documents import DocumentGroup
from reference_model.lora import Learner, adapter_start, frozen_weights, reach_of
from reference_model.memory import Memory
from reference_model.phased import learn_from_beginning, phase_ends, phase_windows
from reference_model.scoring import EvalTask, Windows
from reference_model.streams import lanes, new_memory
from reference_model.ttt import Adaptation, adapted_weights


class Course(Protocol):
    """Asked about every input once, in order, when that input is known."""

    def window(self, place: int, memory: Memory) -> int | None:
        """First input of the window that begins to score at this one; None where the model goes on from its memory.

        What is due to be learned from the inputs before, and from this one as a target, is learned first. The memory is
        that of the inputs before.
        """


class WindowCourse:
    """Windows over a text, without training."""

    def __init__(self, windows: Windows) -> None:
        self._windows, self._index, self._end = windows, 0, windows.first

    def window(self, place: int, memory: Memory) -> int | None:  # noqa: ARG002 - begun anew
        """See `Course.window`."""
        if place != self._end:
            return None
        start, _, self._end = self._windows.bounds(self._index)
        self._index += 1
        return start


class StreamCourse:
    """Chunks of documents or lanes, without training (`evaluate_streams`).

    Attributes:
        first: Where the document or lane began.
        number: Which chunk of it is scored.
    """

    def __init__(self, task: EvalTask, chunk: int) -> None:
        self.task, self.chunk = task, chunk
        self.first, self.number = 0, 0
        self._lanes = {first for first, _ in lanes(task.targets, task.config.eval_lanes)}

    def begins(self, place: int) -> bool:
        """Whether a document or lane begins here."""
        config = self.task.config
        return place in self._lanes or (config.isolates and int(self.task.tokens[place]) == config.bos_id)

    def ends_chunk(self, place: int) -> bool:
        """Whether the chunk before was whole and its document goes on."""
        return not self.begins(place) and place == self.first + (self.number + 1) * self.chunk

    def window(self, place: int, memory: Memory) -> int | None:  # noqa: ARG002 - begun anew, or gone on with
        """See `Course.window`."""
        if self.begins(place):
            self.first, self.number = place, 0
            return place
        if not self.ends_chunk(place):
            return None
        self.number += 1
        if self.task.config.eval_carry:
            return None
        return self.first + max((self.number + 1) * self.chunk - self.task.seq_len, 0)


class ChunkCourse:
    """All weights are trained on each chunk once it is over (`evaluate_ttt`)."""

    def __init__(self, task: EvalTask, adaptation: Adaptation) -> None:
        self._task, self._adaptation, self._threads = task, adaptation, torch.get_num_threads()
        self._chunk = -1
        self._inner: Course = StreamCourse(task, task.seq_len)

    def window(self, place: int, memory: Memory) -> int | None:
        """See `Course.window`."""
        chunks = self._adaptation.chunks
        if place == (chunks[self._chunk][1] if self._chunk >= 0 else 0):
            self._chunk += 1
            if self._chunk:
                with computing_threads(self._threads):
                    self._adaptation.learn(self._chunk - 1)
            if not self._task.config.eval_carry:
                stride = self._task.config.eval_stride
                self._inner = WindowCourse(Windows(*chunks[self._chunk], self._task.seq_len, stride))
        return self._inner.window(place, memory)


class DocumentCourse:
    """Adapters are trained on each chunk of their document once it is over (`evaluate_lora`)."""

    def __init__(self, task: EvalTask) -> None:
        self._task, self._start, self._threads = task, adapter_start(task), torch.get_num_threads()
        self._stream = StreamCourse(task, task.config.ttt_chunk_size)
        self._before: Memory | None = None
        self._learner: Learner | None = None
        self._attached = ExitStack()

    def window(self, place: int, memory: Memory) -> int | None:
        """See `Course.window`."""
        if self._stream.begins(place):
            self.detach()
        elif self._stream.ends_chunk(place):
            with computing_threads(self._threads), frozen_weights(self._task.model):
                self._learn(DocumentGroup(((self._stream.first, place),), self._stream.chunk, reach_of(self._task)))
            self._before = memory.first_rows(1) if self._task.config.eval_carry else None
        return self._stream.window(place, memory)

    def _learn(self, document: DocumentGroup) -> None:
        """Train on the last chunk of a document so far."""
        if self._learner is None:
            # Fresh adapters add nothing: a document has none before its second chunk.
            self._learner = Learner(self._task, document, self._start)
            self._attached.enter_context(self._learner.adapters.attached())
        before = self._before
        if before is None and self._task.config.eval_carry:
            before = new_memory(self._task)
        self._learner.learn(document.batch(self._task.tokens, self._stream.number), None, 1, before)

    def detach(self) -> None:
        """Forget the document's adapters."""
        self._attached.close()
        self._learner = self._before = None


class PhasedCourse:
    """All weights are trained after each phase, on all that came before (`evaluate_phased`)."""

    def __init__(self, task: EvalTask, weights: Sequence[nn.Parameter], documents: DocumentCourse | None) -> None:
        self._task, self._weights, self._documents = task, weights, documents
        self._threads, self._finished = torch.get_num_threads(), 0
        self._windows: Course = StreamCourse(task, task.seq_len)
        if not task.config.eval_carry:
            self._windows = WindowCourse(phase_windows(task, 0, task.targets))

    def window(self, place: int, memory: Memory) -> int | None:
        """See `Course.window`."""
        if place and int(self._task.tokens[place]) == self._task.config.bos_id:
            self._finished += 1
            if self._finished in phase_ends(self._task.config):
                self._end_phase(place)
        return (self._documents or self._windows).window(place, memory)

    def _end_phase(self, place: int) -> None:
        if self._documents is not None:
            self._documents.detach()
        with computing_threads(self._threads):
            learn_from_beginning(self._task, self._weights, place)
        if not self._task.config.eval_carry:
            self._windows = WindowCourse(phase_windows(self._task, place, self._task.targets))


@contextmanager
def open_course(task: EvalTask) -> Iterator[Course]:
    """The course that the configuration says; afterwards the model has its weights again.

    Raises:
        ValueError: The model has none of the layers that are to be adapted.
    """
    config = task.config
    if not config.ttt_enabled:
        yield fixed_course(task)
        return
    documents = DocumentCourse(task) if config.has_adapters else None
    with ExitStack() as stack:
        if documents is not None:
            stack.callback(documents.detach)
        if config.ttt_kind == "lora" and documents is not None:
            yield documents
            return
        weights = stack.enter_context(adapted_weights(task.model, config.ttt_freeze_blocks))
        if config.ttt_kind == "sgd":
            yield ChunkCourse(task, Adaptation(task, weights))
        else:
            yield PhasedCourse(task, weights, documents)


def fixed_course(task: EvalTask) -> Course:
    """The course without training."""
    config = task.config
    if config.eval_carry or config.isolates:
        return StreamCourse(task, config.eval_stride or task.seq_len)
    return WindowCourse(Windows(0, task.targets, task.seq_len, config.eval_stride))


@contextmanager
def computing_threads(count: int) -> Iterator[None]:
    """Compute with so many threads; afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
