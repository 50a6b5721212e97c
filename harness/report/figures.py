"""Tables and figures of one submission, from its facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.model import Limits, Value
from harness.report import charts
from harness.report.jsonfacts import Cell, cell, members, number, unlocated, within
from harness.report.values import label as spaced

RUNS_DRAWN = 10
RUNS_SHOWN = 60
PHASES_SHOWN = 40
# Accountings of the artifact by the fact's name, as the rules name them; others go by their own name.
ACCOUNTINGS = {
    "shipped_bytes": "script as shipped",
    "compressed_code_bytes": "code compressed",
    "all_helpers_bytes": "all code files",
}
NO_ACCOUNTING = frozenset({"model_bytes", "logged_total_bytes"})
SEED_COLUMNS = (
    ("val_bpb", "BPB", ("headline", "val_bpb")),
    ("val_loss", "nats/token", ("headline", "val_loss")),
    ("steps", "steps", ("steps",)),
    ("train_seconds", "training", ("train_seconds",)),
    ("eval_seconds", "evaluation", ("eval_seconds",)),
    ("model_bytes", "model", ("model_bytes",)),
    ("total_bytes", "logged total", ("total_bytes",)),
    ("parameters_tokens", "parameters", ("parameters",)),
)
MEASURED_COLUMNS = (
    ("val_bpb", "BPB"),
    ("rescored_val_bpb", "scored again"),
    ("steps", "steps"),
    ("train_seconds", "training"),
    ("eval_seconds", "evaluation"),
    ("artifact_bytes", "artifact"),
    ("repacked", "same when repacked"),
)


@dataclass(frozen=True, slots=True)
class SeedRow:
    """One run of the table."""

    name: Cell
    log: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """One run's phases against the caps."""

    name: str
    bars: tuple[charts.Bar, ...]
    over: bool


def runs_of(facts: Mapping[str, Value]) -> list[dict[str, Value]]:
    """The runs, as many as are shown."""
    return members(facts, "runs")[:RUNS_SHOWN]


def run_name(run: Value) -> str:
    """`seed 42`, or the log's name where the seed is unknown."""
    seed = number(within(run, "seed"))
    path = within(run, "location", "path")
    return f"seed {seed:.0f}" if seed is not None else str(path or "a log")


def run_names(runs: Sequence[Value]) -> list[str]:
    """A name for each run that tells it from the others."""
    names = [run_name(run) for run in runs]
    return [
        name if names.count(name) == 1 else f"{name}, {within(run, 'location', 'path')}"
        for name, run in zip(names, runs, strict=True)
    ]


def seeds(runs: Sequence[dict[str, Value]]) -> list[SeedRow]:
    """The per-seed table."""
    return [
        SeedRow(
            cell("seed", within(run, "seed")),
            str(within(run, "location", "path") or ""),
            tuple(cell(name, within(run, *keys)) for name, _, keys in SEED_COLUMNS),
        )
        for run in runs
    ]


def measured(facts: Mapping[str, Value]) -> list[SeedRow]:
    """The seeds of a reproduction, each with its outcome; then mean and deviation."""
    rows = [
        SeedRow(
            cell("seed", seed.get("seed")),
            " ".join(str(seed.get(key) or "") for key in ("outcome", "detail")).strip(),
            tuple(cell(name, seed.get(name)) for name, _ in MEASURED_COLUMNS),
        )
        for seed in members(facts, "reproduction", "seeds")
    ]
    summary = {str(one.get("column")): one for one in members(facts, "reproduction", "summary")}
    for key in ("mean", "std") if summary else ():
        cells = tuple(cell(name, summary.get(name, {}).get(key)) for name, _ in MEASURED_COLUMNS)
        rows.append(SeedRow(Cell(key), "", cells))
    return rows


def curves(runs: Sequence[dict[str, Value]]) -> charts.Plot | None:
    """Validation scores over steps of the first runs that have them."""
    return _plot(runs, "curve", ("headline", "val_bpb"))


def losses(runs: Sequence[dict[str, Value]]) -> charts.Plot | None:
    """Training losses over steps of the first runs that have them."""
    return _plot(runs, "losses", None)


def _plot(runs: Sequence[dict[str, Value]], key: str, final: tuple[str, ...] | None) -> charts.Plot | None:
    drawn = []
    for name, run in zip(run_names(runs), runs, strict=True):
        points = tuple(_points(run.get(key)))
        if points:
            drawn.append(charts.Curve(name, points, number(within(run, *final)) if final else None))
    return charts.plot(drawn[:RUNS_DRAWN])


def _points(curve: Value) -> list[tuple[float, float]]:
    pairs = [pair for pair in curve if isinstance(pair, list)] if isinstance(curve, list) else []
    numbers = [[part for part in map(number, pair) if part is not None] for pair in pairs]
    return [(pair[0], pair[1]) for pair in numbers if len(pair) == 2]


def sizes(facts: Mapping[str, Value], limits: Limits) -> tuple[charts.Bar, ...]:
    """For each accounting the largest run, model and code apart, against the cap."""
    per_seed = members(facts, "size", "per_seed")
    keys = dict.fromkeys(key for row in per_seed for key in row if key.endswith("_bytes") and key not in NO_ACCOUNTING)
    rows = []
    for key in keys:
        known = [(total, row) for row in per_seed if (total := number(row.get(key))) is not None]
        if known:
            total, row = max(known, key=lambda pair: pair[0])
            model = min(number(row.get("model_bytes")) or 0.0, total)
            rows.append(
                (
                    ACCOUNTINGS.get(key, spaced(key)),
                    (("model", model), ("code", total - model)),
                    _margin(row, total, limits),
                )
            )
    return charts.bars(rows, limits.artifact_bytes, "bytes") if rows else ()


def _margin(row: Value, total: float, limits: Limits) -> str:
    margin = limits.artifact_bytes - total
    seed = number(within(row, "seed"))
    whose = "" if seed is None else f" (seed {seed:.0f})"
    return f"{abs(margin):,.0f} bytes {'under' if margin >= 0 else 'over'} the cap{whose}"


def timelines(runs: Sequence[dict[str, Value]], limits: Limits) -> list[Timeline]:
    """Training and every timed phase of each run, in the order of the log, on one scale with the caps."""
    return [found for name, run in zip(run_names(runs), runs, strict=True) if (found := _timeline(name, run, limits))]


def _timeline(name: str, run: dict[str, Value], limits: Limits) -> Timeline | None:
    rows: list[tuple[str, tuple[tuple[str, float], ...], str]] = []
    train = number(run.get("train_seconds"))
    if train is not None:
        rows.append(("training", (("train", train),), ""))
    for phase in members(run, "phases")[:PHASES_SHOWN]:
        seconds = number(phase.get("seconds"))
        if seconds is not None:
            counted = unlocated(phase.get("counted")) is True
            note = "counted as evaluation" if counted else "timed, not counted"
            rows.append((str(phase.get("name", "")), (("eval" if counted else "aside", seconds),), note))
    evaluation = number(run.get("eval_seconds"))
    if evaluation is not None:
        rows.append(("evaluation, sum of what is counted", (("eval", evaluation),), ""))
    if not rows:
        return None
    # Both caps are ten minutes: one line stands for both.
    cap = max(limits.train_seconds, limits.eval_seconds)
    over = (train or 0) > limits.train_seconds or (evaluation or 0) > limits.eval_seconds
    return Timeline(name, charts.bars(rows, cap, "s"), over)
