"""The table of a reproduction: one row for each seed, then mean, deviation and range."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.facts.reproduction import COLUMNS, Aggregate, ReproductionFacts, SeedMeasurement
from harness.model import Fact, Located, Missing
from harness.report.plain import plain

NARROW_COLUMNS: Final = 90
LESS: Final = frozenset({"val_loss", "peak_memory_bytes"})  # what a narrow terminal does without
FORMATS: Final[dict[str, tuple[str, Callable[[float], str]]]] = {
    "val_bpb": ("val_bpb", lambda value: f"{value:.5f}"),
    "val_loss": ("val_loss", lambda value: f"{value:.5f}"),
    "steps": ("steps", lambda value: f"{value:.0f}"),
    "step_milliseconds": ("ms/step", lambda value: f"{value:.1f}"),
    "train_seconds": ("train s", lambda value: f"{value:.1f}"),
    "eval_seconds": ("eval s", lambda value: f"{value:.1f}"),
    "artifact_bytes": ("bytes", lambda value: f"{value:,.0f}"),
    "peak_memory_bytes": ("MiB", lambda value: f"{value / 2**20:,.0f}"),
}
REBUILT: Final = {True: "same", False: "differs"}


Column: TypeAlias = tuple[str, Callable[[SeedMeasurement], Fact[float]]]
AGGREGATES: Final[tuple[tuple[str, Callable[[Aggregate], float | None]], ...]] = (
    ("mean", lambda aggregate: aggregate.mean),
    ("std", lambda aggregate: aggregate.std),
    ("min", lambda aggregate: aggregate.minimum),
    ("max", lambda aggregate: aggregate.maximum),
)


def render(facts: ReproductionFacts, width: int) -> str:
    """The table as text, with the conditions of the run below it."""
    columns = [(name, fact_of) for name, fact_of in COLUMNS if width >= NARROW_COLUMNS or name not in LESS]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("seed", *(FORMATS[name][0] for name, _ in columns), "repacked", "rescored"):
        table.add_column(heading, justify="right", no_wrap=True)
    for seed in facts.seeds:
        table.add_row(*_seed(seed, columns))
    # Of one seed there is nothing to aggregate.
    summary = [aggregate for aggregate in facts.summary if aggregate.count > 1]
    if summary:
        table.add_section()
    for label, value_of in AGGREGATES if summary else ():
        values = {aggregate.column: value_of(aggregate) for aggregate in summary}
        table.add_row(label, *(_cell(name, values.get(name)) for name, _ in columns))
    console = Console(file=io.StringIO(), width=max(width, NARROW_COLUMNS), markup=False, highlight=False)
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


def _seed(seed: SeedMeasurement, columns: Sequence[Column]) -> list[str]:
    """One row; a failed seed shows its outcome instead of numbers."""
    if seed.outcome != "ok":
        return [str(seed.seed), seed.outcome]
    values = [(name, fact_of(seed)) for name, fact_of in columns]
    cells = [_cell(name, fact.value if isinstance(fact, Located) else None) for name, fact in values]
    repacked = REBUILT[seed.repacked.value] if isinstance(seed.repacked, Located) else "-"
    return [str(seed.seed), *cells, repacked, _again(seed)]


def _again(seed: SeedMeasurement) -> str:
    """The second score, or `same`."""
    first, again = seed.val_bpb, seed.rescored_val_bpb
    if isinstance(again, Missing):
        return "failed" if seed.rescore_detail else "-"
    return "same" if isinstance(first, Located) and first.value == again.value else _cell("val_bpb", again.value)


def _cell(column: str, value: float | None) -> str:
    return "-" if value is None else FORMATS[column][1](value)


def _conditions(facts: ReproductionFacts) -> list[str]:
    lines = [headline(facts)]
    lines += [f"seed {seed.seed} failed: {seed.outcome}, {seed.detail}" for seed in facts.seeds if seed.outcome != "ok"]
    lines += [f"not the claim's conditions: {difference}" for difference in facts.differences]
    return [*lines, f"isolation: {facts.isolation}"]
