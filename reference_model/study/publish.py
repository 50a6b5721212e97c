"""Write the page with its plots, and list what a study would run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from reference_model.storage import write_whole
from reference_model.study.design import TOKENS_PER_SECOND, Experiment, runs_together
from reference_model.study.experiments import ELSEWHERE
from reference_model.study.page import PLOT_FOLDER, Told, page
from reference_model.study.plots import data_digest, draw
from reference_model.study.results import read_results

DIGEST = re.compile(r"<dc:description>([0-9a-f]{16})</dc:description>")


def publish(experiments: Sequence[Experiment], results: Path, target: Path) -> None:
    """Write the page, and the plots beside it that are not those of these results already.

    Raises:
        StudyError: The results cannot be read.
    """
    held = read_results(results)
    for experiment in experiments:
        told, path = Told.of(experiment, held), plot_path(target, experiment)
        if not told.results:
            path.unlink(missing_ok=True)
        elif drawn_from(path) != data_digest(told.panels()):
            write_whole(path, draw(told.panels()).encode())
    write_whole(target, page(experiments, ELSEWHERE, held).encode())


def stale(experiments: Sequence[Experiment], results: Path, target: Path) -> Iterator[str]:
    """What is not as `publish` would leave it; needs no matplotlib."""
    held = read_results(results)
    if not target.is_file() or target.read_text(encoding="utf-8") != page(experiments, ELSEWHERE, held):
        yield target.name
    for experiment in experiments:
        told, path = Told.of(experiment, held), plot_path(target, experiment)
        if drawn_from(path) != (data_digest(told.panels()) if told.results else ""):
            yield path.name


def plot_path(target: Path, experiment: Experiment) -> Path:
    """Where an experiment's plot stands."""
    return target.parent / PLOT_FOLDER / f"{experiment.name}.svg"


def drawn_from(path: Path) -> str:
    """The digest that a plot names, or nothing."""
    found = DIGEST.search(path.read_text(encoding="utf-8")) if path.is_file() else None
    return found[1] if found else ""


def listing(experiments: Sequence[Experiment], seconds: float, seeds: int) -> str:
    """The experiments and what they take, for people."""
    lines, total_s = [], 0.0
    for experiment in experiments:
        trained = len(list(runs_together(experiment))) * seeds
        budget_s, kind = seconds * experiment.budget, "s"
        total_s += trained * budget_s
        if "seconds" not in experiment.equal:
            kind = f"s' worth ({budget_s * TOKENS_PER_SECOND:,.0f} tokens)"
        lines.append(f"{experiment.name:<15} {trained:>3} trainings of {budget_s:g} {kind}: {experiment.title}")
    lines.append(f"{total_s / 60:.0f} minutes of training in one thread, without scoring")
    return "\n".join(lines)
