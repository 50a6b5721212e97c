"""Damage to what the process has learned: to its artifact, or to the weights in its memory."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

MASK = 0xA5
# Standard deviation of what takes the place of trained weights.
NOISE = 0.1


def damage(artifact: Path) -> None:
    """Turn over some bits of every byte of a file; its length stays."""
    content = artifact.read_bytes()
    artifact.write_bytes(bytes(byte ^ MASK for byte in content))


class Trained:
    """Remembers every parameter that an optimizer has stepped."""

    def __init__(self) -> None:
        self._met: dict[int, weakref.ref[Any]] = {}
        register_optimizer_step_post_hook(self._stepped)

    def noise(self) -> int:
        """Fill those that are alive with noise, in place; returns how many there are."""
        generator = torch.Generator().manual_seed(0)
        living = [tensor for tensor in (each() for each in self._met.values()) if tensor is not None]
        for tensor in living:
            tensor.detach().copy_(torch.randn(tensor.shape, generator=generator) * NOISE)
        return len(living)

    def _stepped(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) not in self._met:
                    self._met[id(parameter)] = weakref.ref(parameter)
