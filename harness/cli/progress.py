"""Displays of a reproduction under way: a live line on a terminal, plain lines elsewhere. Both go to standard error."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TextIO

from harness.report.plain import plain
from harness.reproduce.progress import Progress, Snapshot

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

LINE_SECONDS: Final = 10.0
LIVE_PER_SECOND: Final = 4
LIVE_SECONDS: Final = 0.25
HEADINGS: Final = ("seed", "phase", "step", "tokens/s", "loss", "time", "left")


def cells(snapshot: Snapshot) -> tuple[str, ...]:
    """A snapshot as texts, in the order of `HEADINGS`; "" where nothing is known."""
    step = "" if snapshot.step is None else str(snapshot.step)
    if step and snapshot.steps:
        step += f"/{snapshot.steps}"
    return (
        str(snapshot.seed),
        snapshot.phase,
        step,
        "" if snapshot.tokens_per_second is None else f"{snapshot.tokens_per_second:,.0f}",
        "" if snapshot.loss is None else f"{snapshot.loss:.4f}",
        f"{snapshot.seconds:.0f} s",
        "" if snapshot.seconds_left is None else f"{snapshot.seconds_left:.0f} s",
    )


class PlainProgress:
    """One line when the phase changes and every few seconds within a phase."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        """Write to a stream."""
        self._stream = stream
        self._clock = clock
        self._phase: tuple[int, str] | None = None
        self._last = 0.0

    def planned(self, seeds: tuple[int, ...], kept: tuple[int, ...]) -> None:
        """Say what will run."""
        for number in kept:
            self._say(f"seed {number}: kept from an earlier run (--fresh repeats it)")
        if seeds:
            self._say(f"running {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}")

    def update(self, snapshot: Snapshot) -> None:
        """Say where the seed is, now and then."""
        phase = (snapshot.seed, snapshot.phase)
        if phase == self._phase and self._clock() - self._last < LINE_SECONDS:
            return
        self._phase, self._last = phase, self._clock()
        values = dict(zip(HEADINGS, cells(snapshot), strict=True))
        known = [f"{name} {value}" for name, value in values.items() if value and name not in {"seed", "phase"}]
        self._say(f"seed {snapshot.seed}: {snapshot.phase}, {', '.join(known)}")

    def finished(self, seed: int, summary: str) -> None:
        """Say how a seed ended."""
        self._say(f"seed {seed}: {summary}")

    def _say(self, text: str) -> None:
        print(plain(text), file=self._stream, flush=True)


class LiveProgress:
    """One row that is redrawn in place; what is over stays above it."""

    def __init__(self, live: Live, clock: Callable[[], float] = time.monotonic) -> None:
        """Draw with rich."""
        self._live = live
        self._clock = clock
        self._lines = PlainProgress(sys.stderr, clock)
        self._drawn = 0.0

    def planned(self, seeds: tuple[int, ...], kept: tuple[int, ...]) -> None:
        """Say what will run."""
        for number in kept:
            self._print(f"seed {number}: kept from an earlier run (--fresh repeats it)")
        if seeds:
            self._print(f"running seeds {', '.join(map(str, seeds))}")

    def update(self, snapshot: Snapshot) -> None:
        """Redraw the row, not more often than an eye can follow."""
        if self._clock() - self._drawn >= LIVE_SECONDS:
            self._drawn = self._clock()
            self._live.update(_table(snapshot), refresh=True)

    def finished(self, seed: int, summary: str) -> None:
        """Leave a line above the row."""
        self._print(f"seed {seed}: {summary}")

    def _print(self, text: str) -> None:
        # Brackets in a script's words are no markup.
        self._live.console.print(plain(text), markup=False, highlight=False)


def _table(snapshot: Snapshot) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "phase" else "right", no_wrap=True)
    table.add_row(*(Text(cell) for cell in cells(snapshot)))
    return table


@contextlib.contextmanager
def display(stream: TextIO) -> Iterator[Progress]:
    """The display that suits a stream."""
    if not stream.isatty():
        yield PlainProgress(stream)
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(file=stream), refresh_per_second=LIVE_PER_SECOND, transient=True) as live:
        yield LiveProgress(live)
