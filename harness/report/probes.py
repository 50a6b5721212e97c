"""The probes of many folders as one table: what ran, how long, what was replaced, and what the rules say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.model import Report, SubmissionReport, Value, Verdict
from harness.report.jsonfacts import members, number, within
from harness.report.plain import plain
from harness.report.terminal import rendered

FAMILY: Final = "PG7"
ABSENT: Final = "-"
COLUMNS: Final = ("folder", "val_bpb", "bare s", "all s", "ratio", "MB", "replaced", "behaviour")
LEGEND: Final = (
    "val_bpb: of the miniature run, a number of its small world. bare s, all s: wall time of the first run and of all; "
    "ratio: of these. MB: most memory of any run. replaced: stand-ins whose numbers differ from the original's. "
    "behaviour: rules of the family PG7 that do not pass."
)
Facts = Mapping[str, Value]


def render(report: Report, width: int) -> str:
    """The table as plain text, folders without a probe left out."""
    probed = [one for one in report.submissions if within(dict(one.facts), "probe", "script")]

    def write(console: Console) -> None:
        console.print(_table(probed))
        console.print(Text(LEGEND, style="dim"))
        console.print(Text(_totals(probed)))

    return rendered(write, width, color=False)


def _table(probed: Sequence[SubmissionReport]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for title in COLUMNS:
        text = title in {"folder", "behaviour"}
        table.add_column(title, justify="left" if text else "right", overflow="fold", no_wrap=not text)
    for one in probed:
        table.add_row(*(Text(plain(cell)) for cell in _cells(one)))
    return table


def _cells(one: SubmissionReport) -> tuple[str, ...]:
    runs = members(one.facts, "probe", "runs")
    seconds = _seconds(runs)
    reached = number(within(runs[0], "val_bpb")) if runs else None
    memory = max((number(run.get("peak_memory_bytes")) or 0.0 for run in runs), default=0.0)
    return (
        one.folder.rstrip("/").rsplit("/", 1)[-1],
        ABSENT if reached is None else f"{reached:.4f}",
        f"{seconds[0]:.0f}" if seconds else ABSENT,
        f"{sum(seconds):.0f}",
        f"{sum(seconds) / seconds[0]:.1f}" if seconds and seconds[0] else ABSENT,
        f"{memory / 1e6:,.0f}",
        str(len(_approximated(runs))),
        _behaviour(one),
    )


def _seconds(runs: Sequence[Facts]) -> list[float]:
    return [number(run.get("seconds")) or 0.0 for run in runs]


def _approximated(runs: Sequence[Facts]) -> list[Value]:
    found = runs[0].get("approximated") if runs else None
    return list(found) if isinstance(found, list) else []


def _behaviour(one: SubmissionReport) -> str:
    said = [each for each in one.findings if each.rule.startswith(FAMILY)]
    told = [f"{each.rule} {each.verdict}" for each in said if each.verdict in {Verdict.FAIL, Verdict.WARN}]
    open_ = sum(each.verdict is Verdict.UNDECIDED for each in said)
    return ", ".join([*told, *([f"{open_} undecided"] if open_ else [])]) or "pass"


def _totals(probed: Sequence[SubmissionReport]) -> str:
    """How many reached their score, and the median ratio."""
    runs = [members(one.facts, "probe", "runs") for one in probed]
    reached = sum(number(within(each[0], "val_bpb")) is not None for each in runs if each)
    ratios = sorted(sum(found) / found[0] for each in runs if (found := _seconds(each)) and found[0])
    middle = ratios[len(ratios) // 2] if ratios else 0.0
    return f"{reached} of {len(probed)} reached their score; all runs cost {middle:.1f} bare runs in the median"
