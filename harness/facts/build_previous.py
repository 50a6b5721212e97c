"""A leaderboard file -> its rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.facts.previous import Row, Sample, sample_from_summary, sample_of
from harness.sources import standings
from harness.sources.folder import shown


def read_rows(path: Path) -> tuple[Row, ...]:
    """The rows of a leaderboard file.

    Raises:
        HarnessError: it is no document of the schema `leaderboard/1`.
    """
    rows = standings.read(path)["rows"]
    return tuple(map(_row, rows))


def _row(row: Mapping[str, Any]) -> Row:
    return Row(
        name=shown(row["name"]),
        date=dt.date.fromisoformat(row["date"]) if row.get("date") else None,
        sample=_sample(row),
        reproductions=tuple((shown(one["source"]), _sample(one)) for one in row.get("reproductions", ())),
    )


def _sample(row: Mapping[str, Any]) -> Sample:
    """From the scores themselves where they are listed, else from mean, deviation and count."""
    if row.get("scores_bpb"):
        return sample_of([float(value) for value in row["scores_bpb"]])
    return sample_from_summary(row["count"], row["mean_bpb"], row.get("deviation_bpb") or 0.0, row.get("ddof", 1))
