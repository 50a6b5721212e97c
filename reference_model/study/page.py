"""docs/hymba.md: the claims, what was run, tables, plots and verdicts, from a file of results and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from reference_model.study.design import BASE_PRESET, TOKENS_PER_SECOND, Contrast, Elsewhere, Experiment
from reference_model.study.measures import MEASURES
from reference_model.study.plots import Values
from reference_model.study.results import Result, comparable, finished
from reference_model.study.stats import Interval, Judgement, difference, judge, mean_and_deviation
from reference_model.study.texts import HOW, INTRODUCTION
from reference_model.study.work import TTT_TOKENS

PLOT_FOLDER = "hymba"
FRAME = ("parameters", "computing", "steps")
DRAWN_WITH_THE_FIRST = ("ms_per_step",)


@dataclass(frozen=True)
class Told:
    """One experiment and the results of it that are comparable.

    Attributes:
        experiment: As declared.
        results: Of one length, one code and one machine; empty when it was not run.
    """

    experiment: Experiment
    results: tuple[Result, ...]

    @staticmethod
    def of(experiment: Experiment, results: Sequence[Result]) -> Told:
        """Take from a file what belongs to an experiment."""
        return Told(experiment, tuple(comparable(finished(results, experiment))))

    def values(self, measure: str) -> Values:
        """A measure by variant, seeds in the order of the file."""
        return {
            variant.name: [one.measure(measure) for one in self.results if one.variant == variant.name]
            for variant in self.experiment.variants
        }

    def judgement(self, contrast: Contrast) -> Judgement:
        """The verdict on a contrast."""
        return judge(contrast, self.values(contrast.measure))

    def panels(self) -> Mapping[str, Values]:
        """What is drawn: the first measure, and the time of a step where it is one of the measures."""
        first, *others = self.experiment.measures
        drawn = (first, *(name for name in DRAWN_WITH_THE_FIRST if name in others))
        return {name: self.values(name) for name in drawn}


def page(experiments: Sequence[Experiment], elsewhere: Sequence[Elsewhere], results: Sequence[Result]) -> str:
    """The whole page."""
    told = [Told.of(experiment, results) for experiment in experiments]
    lines = [*introduction(told), *summary(told), HOW.format(tokens=TOKENS_PER_SECOND, ttt=TTT_TOKENS)]
    for one in told:
        lines += section(one)
    lines += ["## Measured elsewhere", ""]
    for other in elsewhere:
        lines += [f"**{other.title}** ({other.source}). Claimed: {other.claim} {other.where}", ""]
    return "\n".join(lines).rstrip() + "\n"


def introduction(told: Sequence[Told]) -> Iterator[str]:
    """What this is, and what the numbers are of."""
    yield INTRODUCTION.format(preset=BASE_PRESET)
    done = [one for one in told if one.results]
    if not done:
        yield "**Nothing has been run yet**: below stand the claims and how each is tried."
    else:
        runs = sum(len(one.results) for one in done)
        yield f"**{len(done)} of {len(told)} experiments have been run**, {runs} runs; each section tells their length."
        steps = [int(result.measures["steps"]) for one in done for result in one.results]
        yield f"They took {min(steps):,} to {max(steps):,} steps; those behind the claims took 134 to 13,780."
        if missing := [f"`{one.experiment.name}`" for one in told if not one.results]:
            yield f"Not run: {', '.join(missing)}."
    yield ""


def summary(told: Sequence[Told]) -> Iterator[str]:
    """All verdicts in one table."""
    yield "## Verdicts"
    yield ""
    yield "| experiment | claim of | foretold | verdict |"
    yield "|---|---|---|---|"
    for one in told:
        for contrast in one.experiment.contrasts:
            link = f"[{one.experiment.name}](#{anchor(one.experiment.title)})"
            yield f"| {link} | {one.experiment.source} | {contrast.sentence} | {one.judgement(contrast).verdict} |"
    count = sum(len(one.experiment.contrasts) for one in told)
    yield ""
    yield f"With {count} comparisons at 95 %, one or two can come out by chance alone."
    yield "*Our question*: the authors do not claim it."
    yield ""


def anchor(title: str) -> str:
    """GitHub's link to a heading."""
    return "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -").replace(" ", "-")


def section(told: Told) -> Iterator[str]:
    """One experiment."""
    experiment = told.experiment
    yield f"## {experiment.title}"
    yield ""
    yield f"Claimed ({experiment.source}): {experiment.claim}"
    yield ""
    settings = f", {words(experiment.settings)}" if experiment.settings else ""
    yield f"Tried as `{experiment.name}`: equal {' and '.join(experiment.equal)}{settings}."
    yield ""
    if told.results:
        yield from ran(told)
    else:
        yield f"**Not run.** Variants: {', '.join(variant_words(experiment, one.name) for one in experiment.variants)}."
        yield ""
    for contrast in experiment.contrasts:
        yield f"- {contrast.sentence} {verdict_words(contrast, told.judgement(contrast))}"
    yield ""
    yield f"To replicate the claim itself: {experiment.at_scale}"
    yield ""


def words(settings: Mapping[str, str]) -> str:
    """Settings as one would type them."""
    return f"`{' '.join(f'{name}={value}' for name, value in settings.items())}`"


def variant_words(experiment: Experiment, name: str) -> str:
    """A variant and what it sets."""
    settings = experiment.variant(name).settings
    return f"{name} ({words(settings)})" if settings else name


def ran(told: Told) -> Iterator[str]:
    """How long the runs were, the table and the plot."""
    experiment, first = told.experiment, told.results[0]
    seeds = ", ".join(map(str, dict.fromkeys(one.seed for one in told.results)))
    length = f"{first.seconds * experiment.budget:g} s of training" if "seconds" in experiment.equal else ""
    tokens = {int(one.measures["tokens"]) for one in told.results}
    yield f"Runs of {length or f'{max(tokens):,} tokens'}, seeds {seeds}, code `{first.code}`, on {first.machine}."
    yield ""
    yield from table(told)
    yield ""
    yield f"![{experiment.title}]({PLOT_FOLDER}/{experiment.name}.svg)"
    yield ""


def table(told: Told) -> Iterator[str]:
    """Means and deviations by variant, and the first measure's difference to the first variant."""
    experiment = told.experiment
    names = (*FRAME, *experiment.measures)
    heads = [MEASURES[name].title for name in names]
    compared_by = f"{MEASURES[experiment.measures[0]].title}: difference"
    yield f"| variant | sets | runs | {' | '.join(heads)} | {compared_by} | beyond noise |"
    yield f"|{'---|' * (len(heads) + 5)}"
    reference = told.values(experiment.measures[0])[experiment.compared_with]
    for variant in experiment.variants:
        first = told.values(experiment.measures[0])[variant.name]
        if not first:
            continue
        cells = [mean_words(name, told.values(name)[variant.name]) for name in names]
        is_reference = variant.name == experiment.compared_with or not reference
        compared = ("", "") if is_reference else difference_cells(experiment.measures[0], difference(first, reference))
        sets = words(variant.settings) if variant.settings else ""
        yield f"| {variant.name} | {sets} | {len(first)} | {' | '.join(cells)} | {' | '.join(compared)} |"


def mean_words(name: str, values: Sequence[float]) -> str:
    """Mean, and deviation where the values vary."""
    mean, deviation = mean_and_deviation(values)
    number = MEASURES[name].number
    return number(mean) if len(set(values)) == 1 else f"{number(mean)} ± {number(deviation)}"


def difference_cells(name: str, interval: Interval) -> tuple[str, str]:
    """The difference with its interval, and whether it is beyond noise."""
    return interval_words(name, interval), "yes" if interval.beyond_noise else "no"


def interval_words(name: str, interval: Interval) -> str:
    """Middle and ends."""
    digits = MEASURES[name].digits
    ends = [f"{value:+,.{digits}f}" for value in (interval.middle, interval.low, interval.high)]
    return f"{ends[0]} [{ends[1]}, {ends[2]}]"


def verdict_words(contrast: Contrast, judgement: Judgement) -> str:
    """The verdict with the numbers that it follows from."""
    if judgement.interval is None:
        return f"*{judgement.verdict.capitalize()}.*"
    title, interval = MEASURES[contrast.measure].title, judgement.interval
    if contrast.at_most is None:
        numbers = f"{title}, {contrast.lower} less {contrast.higher}: {interval_words(contrast.measure, interval)}"
    else:
        ends = f"{interval.middle:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
        numbers = f"{title}, {contrast.lower} over {contrast.higher}: {ends}, limit {contrast.at_most:g}"
    return f"*{judgement.verdict.capitalize()}* ({numbers})."
