"""Where the new content of weights comes from: from weights, from gradients, or from outside of the process.

What is read from a file knows of the text only what has left torch before. So weights that are filled from it have
forgotten what they had learned; weights that are filled from others have learned what these had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from .beside import Beside
from .weights import Learned, Weights

# Containers that are looked into when they are saved.
DEPTH = 4


class Origins:
    """Notes what was made of weights, element by element, and what of them has left torch.

    Args:
        weights: all that are known.
        pending: says what weights have learned that have changed since the last look.
    """

    def __init__(self, weights: Weights, pending: Callable[[], Learned]) -> None:
        self._weights, self._pending = weights, pending
        self._made: Beside[Learned] = Beside()
        self._outside: Learned = weights.nothing
        # Before a gradient of the text was taken, there is nothing that any weights could have learned.
        self.awake = False

    def install(self) -> Callable[[], None]:
        """Look at what is saved; returns what undoes it."""
        real = torch.save

        def save(value: Any, *arguments: Any, **keywords: Any) -> Any:
            with torch._C.DisableTorchFunction():
                self.leaves(value)
            return real(value, *arguments, **keywords)

        def undo() -> None:
            torch.save = real

        torch.save = save  # type: ignore[assignment]
        return undo

    def made(self, tensors: Iterable[Any], out: Iterable[Any], *, whole: bool) -> None:
        """Something was computed of some tensors.

        Args:
            tensors: of these.
            out: what came out.
            whole: whether each number of what came out is one of theirs, or a sum of these.
        """
        found, sizes = None, set()
        for tensor in tensors:
            mine = self._of(tensor)
            if mine is not None:
                found = mine if found is None else self._weights.union(found, mine)
                sizes.add(tensor.numel())
        if found is None:
            return
        for each in out:
            # Another size is that of an activation, which weights take part in.
            if (whole or each.numel() in sizes) and self._weights.record(each) is None:
                self._made.set(each, found)

    def content(self, source: Any) -> Learned:
        """What weights have learned that are filled with a tensor."""
        mine = self._of(source) if isinstance(source, torch.Tensor) else None
        return self._outside if mine is None else mine

    def leaves(self, value: Any) -> None:
        """Tensors are saved, or read by what is not torch."""
        for tensor in _tensors(value, DEPTH):
            mine = self._of(tensor)
            if mine is not None:
                self._outside = self._weights.union(self._outside, mine)

    def _of(self, tensor: torch.Tensor) -> Learned | None:
        learned = self._weights.learned_by(tensor, self._pending())
        return self._made.get(tensor) if learned is None else learned


def _tensors(value: Any, depth: int) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif depth and isinstance(value, (Mapping, list, tuple)):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(each, depth - 1)
