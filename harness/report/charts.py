"""The geometry of the figures: numbers in, percentages out. Nothing here knows markup."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

FULL = 100.0
TICKS = 4
# The first values are far above the rest: the axis holds those after a tenth of a run's steps.
SETTLED_SHARE = 0.1
# Room beside a cap, so that what is over it can be seen.
BEYOND_CAP = 1.08


@dataclass(frozen=True, slots=True)
class Curve:
    """One run's values over steps, and its final score."""

    label: str
    points: tuple[tuple[float, float], ...]
    final: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A curve in percent of the plot: from the left, from the top."""

    label: str
    path: str
    dots: tuple[tuple[float, float], ...]
    final: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Plot:
    """Curves with their axes; ticks are evenly spaced, y from the top down, x from the left."""

    lines: tuple[Line, ...]
    x_ticks: tuple[str, ...]
    y_ticks: tuple[str, ...]
    clipped: int


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a bar, in percent of its full length."""

    kind: str
    left: float
    width: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar with its parts, its cap and what is written beside it."""

    label: str
    value: str
    note: str
    parts: tuple[Part, ...]
    cap: float | None
    over: bool


def plot(curves: Sequence[Curve]) -> Plot | None:
    """Curves on common axes; None when there are not two points to draw."""
    drawn = [curve for curve in curves if curve.points or curve.final is not None]
    if sum(len(curve.points) for curve in drawn) < 2:
        return None
    last = max((x for curve in drawn for x, _ in curve.points), default=0.0)
    settled = [y for curve in drawn for x, y in curve.points if x >= SETTLED_SHARE * curve.points[-1][0]]
    shown = settled + [curve.final for curve in drawn if curve.final is not None]
    lowest = min([*shown, *(y for curve in drawn for _, y in curve.points)])
    y_axis, x_axis = nice(lowest, max(shown)), nice(0.0, last)
    lines = tuple(_line(curve, x_axis, y_axis) for curve in drawn)
    clipped = sum(y > y_axis[-1] for curve in drawn for _, y in curve.points)
    return Plot(lines, tuple(_tick(x) for x in x_axis), tuple(_tick(y) for y in reversed(y_axis)), clipped)


def nice(low: float, high: float) -> list[float]:
    """Evenly spaced round numbers from at most `low` to at least `high`.

    Example:
        >>> nice(0.0, 4932.0)
        [0.0, 2000.0, 4000.0, 6000.0]
    """
    span = max(high - low, abs(high) * 1e-6, 1e-9)
    rough = span / TICKS
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough * 0.999)
    first = math.floor(low / step + 1e-9)
    count = max(math.ceil((high - first * step) / step - 1e-9), 1)
    return [round((first + index) * step, 12) for index in range(count + 1)]


def _line(curve: Curve, x_axis: Sequence[float], y_axis: Sequence[float]) -> Line:
    dots = tuple((_share(x, x_axis), FULL - _share(y, y_axis)) for x, y in curve.points)
    path = " ".join(f"{'L' if index else 'M'}{x:.2f} {max(y, -FULL):.2f}" for index, (x, y) in enumerate(dots))
    final = None
    if curve.final is not None and curve.points:
        final = (dots[-1][0], FULL - _share(curve.final, y_axis))
    return Line(curve.label, path, tuple(dot for dot in dots if dot[1] >= 0), final)


def _share(value: float, axis: Sequence[float]) -> float:
    return FULL * (value - axis[0]) / (axis[-1] - axis[0])


def _tick(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 10 else f"{value:.6g}"


def bars(rows: Sequence[tuple[str, Sequence[tuple[str, float]], str]], cap: float, unit: str) -> tuple[Bar, ...]:
    """Bars on one scale against a cap.

    Args:
        rows: label, parts as (kind, amount), and a note for each bar.
        cap: the limit.
        unit: of the amounts.
    """
    longest = max([cap, *(sum(amount for _, amount in parts) for _, parts, _ in rows)]) * BEYOND_CAP
    return tuple(_bar(row, cap, longest, unit) for row in rows)


def _bar(row: tuple[str, Sequence[tuple[str, float]], str], cap: float, longest: float, unit: str) -> Bar:
    label, amounts, note = row
    parts: list[Part] = []
    left = 0.0
    for kind, amount in amounts:
        width = FULL * amount / longest
        parts.append(Part(kind, left, width))
        left += width
    total = sum(amount for _, amount in amounts)
    digits = 0 if unit == "bytes" else 1
    return Bar(label, f"{total:,.{digits}f} {unit}", note, tuple(parts), FULL * cap / longest, total > cap)
