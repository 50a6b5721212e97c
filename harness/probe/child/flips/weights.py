"""Damage to what the process has learned: to its artifact, or to the weights in its memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim.optimizer import register_optimizer_step_post_hook

MASK = 0xA5
# Standard deviation of what takes the place of trained weights.
NOISE = 0.1


def damage(artifact: Path) -> None:
    """Turn over some bits of every byte of a file; its length stays."""
    content = artifact.read_bytes()
    artifact.write_bytes(bytes(byte ^ MASK for byte in content))


@dataclass(frozen=True)
class _Place:
    """Where a parameter's numbers are, without keeping them alive.

    A parameter that is gone may live on under another name: a state dictionary holds its memory.
    """

    storage: StorageWeakRef
    dtype: torch.dtype
    offset: int
    shape: torch.Size
    stride: tuple[int, ...]

    def tensor(self) -> Any:
        """The numbers; None once nothing holds them."""
        if self.storage.expired():
            return None
        held = torch.UntypedStorage._new_with_weak_ptr(self.storage.cdata)
        return torch.empty(0, dtype=self.dtype).set_(held, self.offset, self.shape, self.stride)


class Trained:
    """Remembers every parameter that an optimizer has stepped."""

    def __init__(self) -> None:
        self._met: dict[int, _Place] = {}
        register_optimizer_step_post_hook(self._stepped)

    def noise(self) -> tuple[int, int]:
        """Fill those whose numbers are alive with noise, in place; returns how many that are, and of how many."""
        generator = torch.Generator().manual_seed(0)
        living = [tensor for tensor in (each.tensor() for each in self._met.values()) if tensor is not None]
        for tensor in living:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * NOISE)
        return len(living), len(self._met)

    def _stepped(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                storage = parameter.untyped_storage()
                key = storage.data_ptr() + parameter.storage_offset()
                known = self._met.get(key)
                # Memory is given out again: what lies there now may be another's.
                if known is None or known.storage.expired() or known.shape != parameter.shape:
                    shape, stride = parameter.shape, parameter.stride()
                    place = _Place(StorageWeakRef(storage), parameter.dtype, parameter.storage_offset(), shape, stride)
                    self._met[key] = place
