"""What a display may show of a reproduction under way; printing is the command line's matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where one seed is.

    Attributes:
        seed: which seed.
        phase: `starting`, `training`, `packing`, `evaluating`, `repacking` or `rescoring`.
        seconds: since the phase began.
        step: the last step printed, None before the first.
        steps: planned steps, where known.
        tokens_per_second: training throughput, where known.
        loss: last training loss, nats per token.
        seconds_left: until the phase should end, where known.
    """

    seed: int
    phase: str
    seconds: float
    step: int | None = None
    steps: int | None = None
    tokens_per_second: float | None = None
    loss: float | None = None
    seconds_left: float | None = None


class Progress(Protocol):
    """Told what happens, from the thread that runs the seeds."""

    def planned(self, seeds: tuple[int, ...], kept: tuple[int, ...]) -> None:
        """The seeds to run, and those kept from an earlier command."""
        ...

    def update(self, snapshot: Snapshot) -> None:
        """A seed moved on; called several times a second."""
        ...

    def finished(self, seed: int, summary: str) -> None:
        """A seed ended; the summary is one line."""
        ...


class Silent:
    """A display that shows nothing."""

    def planned(self, seeds: tuple[int, ...], kept: tuple[int, ...]) -> None:
        """Nothing."""

    def update(self, snapshot: Snapshot) -> None:
        """Nothing."""

    def finished(self, seed: int, summary: str) -> None:
        """Nothing."""
