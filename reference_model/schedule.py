"""When to stop, how fast to learn, and the averaged weights: everything that varies over the steps of a run.

Two modes. With a wallclock limit the end is a time: the learning rate falls over the last `warmdown_iters` steps'
worth of it, as predicted from the mean step time so far. Without a limit the end is a step number, no clock is
read, and a run is reproducible to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_model.config import OptimConfig, TrainConfig


@dataclass(frozen=True)
class Schedule:
    """Learning-rate factor, momentum and end of a run.

    Attributes:
        iterations: Steps at most.
        max_wallclock_seconds: Training time at most; 0 means fixed-step mode.
        warmdown_iters: Steps over which the factor falls from 1 to 0 at the end; 0 means never.
        warmdown_shape: "linear" or "cosine".
        warmdown_frac: When above 0, the warmdown is this share of the run (of its time, or of its steps without a
            limit) whatever `warmdown_iters` says: the same on a fast and on a slow machine.
        qat_start: Share of the run after which training is quantization-aware; 1 means never.
    """

    iterations: int
    max_wallclock_seconds: float
    warmdown_iters: int
    warmdown_shape: str
    warmdown_frac: float = 0.0
    qat_start: float = 1.0

    @staticmethod
    def from_config(config: TrainConfig) -> Schedule:
        """Take the schedule's part of a configuration."""
        return Schedule(
            iterations=config.iterations,
            max_wallclock_seconds=config.max_wallclock_seconds,
            warmdown_iters=config.warmdown_iters,
            warmdown_shape=config.warmdown_shape,
            warmdown_frac=config.warmdown_frac,
            qat_start=config.qat_start,
        )

    @property
    def is_timed(self) -> bool:
        """Whether a wallclock limit ends the run."""
        return self.max_wallclock_seconds > 0.0

    def is_over(self, step: int, elapsed_s: float) -> bool:
        """Whether no further step may start after `step` finished steps and `elapsed_s` seconds of training."""
        return step >= self.iterations or (self.is_timed and elapsed_s >= self.max_wallclock_seconds)

    def done(self, step: int, elapsed_s: float) -> float:
        """How much of the run is over, 0 to 1: of its steps or of its time, whichever ends it first."""
        share = step / max(self.iterations, 1)
        return max(share, elapsed_s / self.max_wallclock_seconds) if self.is_timed else share

    def rounds_weights(self, step: int, elapsed_s: float) -> bool:
        """Whether the step that starts now is quantization-aware."""
        return self.qat_start < 1.0 and self.done(step, elapsed_s) >= self.qat_start

    def factor(self, step: int, elapsed_s: float) -> float:
        """The learning-rate factor for the step that starts now: in (0, 1] as long as the run is not over."""
        remaining = self._remaining(step, elapsed_s)
        return remaining if self.warmdown_shape == "linear" else math.sin(0.5 * math.pi * remaining) ** 2

    def _remaining(self, step: int, elapsed_s: float) -> float:
        """What is left of the warmdown, 1 before it begins.

        A step limit counts in timed runs too: whichever end comes first is the end.
        """
        if self.warmdown_frac > 0.0:
            left = 1.0 - self.done(step, elapsed_s)
            return min(max(left / self.warmdown_frac, 0.0), 1.0)
        if self.warmdown_iters <= 0:
            return 1.0
        steps_left = float(self.iterations - step)
        if self.is_timed and step > 0 and elapsed_s > 0.0:
            steps_left = min(steps_left, (self.max_wallclock_seconds - elapsed_s) * step / elapsed_s)
        return min(max(steps_left / self.warmdown_iters, 0.0), 1.0)


def muon_momentum(config: OptimConfig, step: int) -> float:
    """Muon's momentum at a step: rises linearly over the warm-up, then stays."""
    if config.muon_momentum_warmup_steps <= 0:
        return config.muon_momentum
    done = min(step / config.muon_momentum_warmup_steps, 1.0)
    return (1.0 - done) * config.muon_momentum_warmup_start + done * config.muon_momentum


class ExponentialAverage:
    """Exponential moving average of named tensors, corrected for its start as Adam's moments are.

    Without the correction an average with decay 0.997 still holds 40% of the random initial weights after 300 steps.
    After n updates the weight of the update made k updates ago is d^k (1 - d) / (1 - d^n): they sum to one.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.names: tuple[str, ...] = ()
        self.averages: list[Tensor] = []

    @torch.no_grad()
    def update(self, named_tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Take in the present values; the first call decides the names."""
        pairs = list(named_tensors)
        self.updates += 1
        if self.updates == 1:
            self.names = tuple(name for name, _ in pairs)
            self.averages = [tensor.detach().float().clone() for _, tensor in pairs]
            return
        share = (1.0 - self.decay) / (1.0 - self.decay**self.updates)
        for average, (_, tensor) in zip(self.averages, pairs, strict=True):
            average.lerp_(tensor.detach().float(), share)

    def values(self) -> dict[str, Tensor]:
        """The corrected averages by name; empty before the first update."""
        return dict(zip(self.names, self.averages, strict=True))
