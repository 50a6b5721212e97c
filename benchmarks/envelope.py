"""The fit behind rule PG309: what accepted records reach by date and size, and how often the rule warns of them.

    python benchmarks/envelope.py RECORDS

RECORDS is a directory of accepted record folders. Prints the constants of `harness.challenge` and, for each record,
how many deviations it lies from a fit to the other ones.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness import audit
from harness.challenge import ENVELOPE_DEVIATIONS, ENVELOPE_START
from harness.checks.budget import track
from harness.checks.common import counted, known
from harness.checks.record import row_of
from harness.facts.previous import Row
from harness.leaderboard import find_folders

Point = tuple[str, float, int, float | None]


def points(records: Path) -> list[Point]:
    """Name, mean val_bpb, days since the start, and mean parameters of each dated record."""
    found: list[Point] = []
    for folder in find_folders([records]):
        facts = audit.read(folder, None)
        row = row_of(facts)
        if track(facts) != "record" or not isinstance(row, Row) or row.date is None:
            continue
        sizes = [size for run in counted(facts).runs if (size := known(run.parameters))]
        days = max((row.date - ENVELOPE_START).days, 0)
        found.append((row.name, row.sample.mean, days, statistics.fmean(sizes) if sizes else None))
    return found


def fit(rows: Sequence[Point], *, by_size: bool) -> tuple[list[float], float]:
    """Least squares: coefficients and the residuals' deviation, of ln(val_bpb)."""
    design = np.array([features(row, by_size=by_size) for row in rows])
    target = np.log([row[1] for row in rows])
    solution = np.linalg.lstsq(design, target, rcond=None)[0]
    residuals = target - design @ solution
    return [float(value) for value in solution], float(np.std(residuals, ddof=design.shape[1]))


def features(row: Point, *, by_size: bool) -> list[float]:
    """A row of the design matrix."""
    return [1.0, math.log1p(row[2]), *([math.log(row[3])] if by_size and row[3] else [])]


def left_out(rows: Sequence[Point], index: int, *, by_size: bool) -> float:
    """Deviations of one record from the fit to all others; negative is better."""
    solution, deviation = fit([*rows[:index], *rows[index + 1 :]], by_size=by_size)
    return (math.log(rows[index][1]) - float(np.dot(features(rows[index], by_size=by_size), solution))) / deviation


def main() -> None:
    """Print both fits."""
    every = points(Path(sys.argv[1]))
    for by_size in (False, True):
        rows = [row for row in every if row[3] or not by_size]
        solution, deviation = fit(rows, by_size=by_size)
        print(
            "by size" if by_size else "by date", [f"{value:.5g}" for value in solution], f"{deviation:.5g}", len(rows)
        )
        scores = sorted((left_out(rows, index, by_size=by_size), row[0]) for index, row in enumerate(rows))
        print(f"  false warnings: {sum(score < -ENVELOPE_DEVIATIONS for score, _ in scores)} of {len(rows)}")
        for score, record in scores[:5]:
            print(f"  {score:+.2f} {record}")


if __name__ == "__main__":
    main()
