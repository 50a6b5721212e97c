"""Documents of a text, and groups of them that are scored side by side, chunk by chunk.

A document's inputs begin with its mark and end before the next one's: the next mark is the last target. Shape letters:
S documents of a group, T inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor

from reference_model.scoring import Batch

# First input and end of the inputs.
Span: TypeAlias = tuple[int, int]


def document_spans(tokens: Tensor, bos_id: int) -> list[Span]:
    """Cut a text's inputs at its marks; what stands before the first mark is a document too.

    Example:
        >>> document_spans(torch.tensor([1, 5, 6, 1, 7, 1]), bos_id=1)
        [(0, 3), (3, 5)]
    """
    marks = (tokens[:-1] == bos_id).nonzero().flatten().tolist()
    return list(pairwise([*([] if marks[:1] == [0] else [0]), *marks, tokens.numel() - 1]))


@dataclass(frozen=True)
class DocumentGroup:
    """Documents side by side, those of most chunks first, so that those that go on are the first rows.

    Attributes:
        spans: Of each document.
        chunk: Inputs that are scored at a time.
        reach: Longest window. A window ends with its chunk and never reaches back over the document's beginning.
    """

    spans: tuple[Span, ...]
    chunk: int
    reach: int

    @property
    def chunks(self) -> int:
        """Chunks of the longest document."""
        return self._chunks_of(self.spans[0])

    def _chunks_of(self, span: Span) -> int:
        return -(-(span[1] - span[0]) // self.chunk)

    def active(self, number: int) -> int:
        """How many documents have a chunk of this number."""
        return sum(self._chunks_of(span) > number for span in self.spans)

    def batch(self, tokens: Tensor, number: int) -> Batch:
        """Windows of the documents that have this chunk; behind a document's end stand zeros that nothing scores.

        Where a window begins does not depend on where its document ends.
        """
        first_S1, end_S1 = torch.tensor(self.spans[: self.active(number)])[..., None].unbind(1)
        begin = max((number + 1) * self.chunk - self.reach, 0)
        last = min((number + 1) * self.chunk, int((end_S1 - first_S1).max()))
        inputs_ST = first_S1 + torch.arange(begin, last + 1)
        known = inputs_ST <= end_S1
        found = tokens[inputs_ST.clamp(max=tokens.numel() - 1).to(tokens.device)].long()
        scored_ST = (inputs_ST >= first_S1 + number * self.chunk) & (inputs_ST < end_S1)
        return found.where(known.to(tokens.device), 0), inputs_ST[:, :-1] + 1, scored_ST[:, :-1]


def document_groups(spans: Sequence[Span], size: int, chunk: int, reach: int) -> Iterator[DocumentGroup]:
    """Groups of neighbouring documents; which stand together depends on nothing but their order."""
    for low in range(0, len(spans), size):
        ordered = sorted(spans[low : low + size], key=lambda span: span[0] - span[1])
        yield DocumentGroup(tuple(ordered), chunk, reach)
