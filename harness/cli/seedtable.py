"""The table of a reproduction: one row for each seed, then mean, deviation and range."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.facts.reproduction import COLUMNS, Aggregate, ReproductionFacts, SeedMeasurement
from harness.model import Located
from harness.report.plain import plain

FORMATS: Final[dict[str, tuple[str, Callable[[float], str]]]] = {
    "val_bpb": ("val_bpb", lambda value: f"{value:.6f}"),
    "val_loss": ("val_loss nats", lambda value: f"{value:.6f}"),
    "steps": ("steps", lambda value: f"{value:.0f}"),
    "step_milliseconds": ("ms/step", lambda value: f"{value:.1f}"),
    "train_seconds": ("train s", lambda value: f"{value:.1f}"),
    "eval_seconds": ("eval s", lambda value: f"{value:.1f}"),
    "artifact_bytes": ("artifact bytes", lambda value: f"{value:,.0f}"),
    "peak_memory_bytes": ("peak MiB", lambda value: f"{value / 2**20:,.0f}"),
}
REBUILT: Final = {True: "same bytes", False: "DIFFERS"}


def render(facts: ReproductionFacts, width: int) -> str:
    """The table as text, with the conditions of the run below it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("seed", justify="right", no_wrap=True)
    for name, _ in COLUMNS:
        table.add_column(FORMATS[name][0], justify="right")
    table.add_column("repacked")
    table.add_column("rescored", justify="right")
    for seed in facts.seeds:
        _add_seed(table, seed)
    table.add_section()
    for label, value_of in (
        ("mean", lambda aggregate: aggregate.mean),
        ("std", lambda aggregate: aggregate.std),
        ("min", lambda aggregate: aggregate.minimum),
        ("max", lambda aggregate: aggregate.maximum),
    ):
        _add_aggregates(table, label, facts.summary, value_of)
    console = Console(file=io.StringIO(), width=max(width, 60), markup=False, highlight=False)
    with console.capture() as capture:
        console.print(table)
        for line in _conditions(facts):
            console.print(Text(plain(line)))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def headline(facts: ReproductionFacts) -> str:
    """`val_bpb 1.2345 ± 0.0012 over 3 seeds`, or that no seed ended well."""
    for aggregate in facts.summary:
        if aggregate.column == "val_bpb":
            deviation = "" if aggregate.std is None else f" ± {aggregate.std:.6f}"
            seeds = "one seed" if aggregate.count == 1 else f"{aggregate.count} seeds"
            return f"val_bpb {aggregate.mean:.6f}{deviation} over {seeds}"
    return "no seed ended with a score"


def _add_seed(table: Table, seed: SeedMeasurement) -> None:
    if seed.outcome != "ok":
        table.add_row(str(seed.seed), seed.outcome, *[""] * (len(COLUMNS) + 1))
        return
    values = [(FORMATS[name][1], fact_of(seed)) for name, fact_of in COLUMNS]
    cells = [show(fact.value) if isinstance(fact, Located) else "-" for show, fact in values]
    repacked = REBUILT[seed.repacked.value] if isinstance(seed.repacked, Located) else "-"
    again = seed.rescored_val_bpb
    table.add_row(str(seed.seed), *cells, repacked, f"{again.value:.6f}" if isinstance(again, Located) else "-")


def _add_aggregates(
    table: Table, label: str, summary: tuple[Aggregate, ...], value_of: Callable[[Aggregate], float | None]
) -> None:
    by_column = {aggregate.column: value_of(aggregate) for aggregate in summary}
    if not by_column:
        return
    cells = [(FORMATS[name][1], by_column.get(name)) for name, _ in COLUMNS]
    table.add_row(label, *("-" if value is None else show(value) for show, value in cells), "", "")


def _conditions(facts: ReproductionFacts) -> list[str]:
    lines = [headline(facts)]
    lines += [f"seed {seed.seed} failed: {seed.outcome}, {seed.detail}" for seed in facts.seeds if seed.outcome != "ok"]
    lines += [f"not the claim's conditions: {difference}" for difference in facts.differences]
    return [*lines, f"isolation: {facts.isolation}"]
