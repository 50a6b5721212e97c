"""Notes beside tensors, by identity: a tensor's own attributes would be saved with it."""

from __future__ import annotations

import weakref
from typing import Any, Generic, TypeVar

import torch

Note = TypeVar("Note")


class Beside(Generic[Note]):
    """One note for each living tensor."""

    def __init__(self) -> None:
        self._notes: dict[int, tuple[weakref.ref[Any], Note]] = {}

    def __bool__(self) -> bool:
        return bool(self._notes)

    def get(self, value: Any) -> Note | None:
        """The note of a tensor."""
        entry = self._notes.get(id(value))
        return entry[1] if entry is not None and entry[0]() is value else None

    def set(self, tensor: torch.Tensor, note: Note) -> None:
        """Note something, in place of what was noted."""
        key, notes = id(tensor), self._notes

        def gone(reference: Any) -> None:
            if key in notes and notes[key][0] is reference:
                del notes[key]

        notes[key] = (weakref.ref(tensor, gone), note)

    def drop(self, tensor: torch.Tensor) -> None:
        """The tensor holds other things now."""
        self._notes.pop(id(tensor), None)
