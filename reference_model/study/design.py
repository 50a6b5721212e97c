"""What an experiment is, and the settings of each of its runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from reference_model.config import Config, ModelConfig
from reference_model.params import parameter_counts
from reference_model.presets import PRESETS
from reference_model.settings import ConfigError

BASE_PRESET = "demo"
# The fastest scan that the machine has, whatever it is: the same for all variants.
BASE_SETTINGS = {"HYMBA_SCAN_BACKEND": "auto"}
# Runs of equal tokens get so many for each second that was asked for, whatever the machine manages.
TOKENS_PER_SECOND = 6_000
# Published seeds first.
SEEDS = (1337, 42, 7, 2025, 11)
# Hidden units of an MLP come in such groups.
HIDDEN_STEP = 4
LARGEST_DIFFERENCE = 0.01
# Looked up, not multiplied: they say nothing about the size of what computes.
TABLES = ("tok_emb.weight", "bigram_hash.table.weight")


class StudyError(ValueError):
    """An experiment that cannot be run as it is declared, or results that cannot be read; the message says where."""


@dataclass(frozen=True)
class Variant:
    """One of the systems that an experiment compares.

    Attributes:
        name: Unique in its experiment.
        settings: Environment variables that make it differ.
    """

    name: str
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Contrast:
    """One comparison that a claim foretells: a measure is lower in one variant than in another.

    Attributes:
        sentence: What is claimed, in one sentence.
        lower: Variant that should have less.
        higher: The other.
        measure: Of what.
        at_most: When given, the claim is that the first has at most so many times the second's.
    """

    sentence: str
    lower: str
    higher: str
    measure: str = "int6_bpb"
    at_most: float | None = None


@dataclass(frozen=True)
class Experiment:
    """A claim, and the runs that test it at the demo's scale.

    Attributes:
        name: Short and unique.
        title: For people.
        source: Who claims it.
        claim: The published claim in our words, with its figures.
        equal: What all variants have in common: "seconds" or "tokens", and "parameters" where it is fitted.
        variants: In the order of tables and plots.
        contrasts: What the claim foretells.
        measures: Columns of the table; the first is drawn, and so are times.
        at_scale: What would replicate the claim itself.
        settings: Environment variables of all variants, over the demo's.
        budget: Multiple of the seconds that a run gets.
        full_validation: Score the whole validation split instead of its first 130 kB.
        reference: The variant that the others are compared with in tables, and whose parameters are everybody's where
            they are equal; the first when empty.
    """

    name: str
    title: str
    source: str
    claim: str
    equal: tuple[str, ...]
    variants: tuple[Variant, ...]
    contrasts: tuple[Contrast, ...]
    measures: tuple[str, ...]
    at_scale: str
    settings: Mapping[str, str] = field(default_factory=dict)
    budget: float = 1.0
    full_validation: bool = False
    reference: str = ""

    @property
    def compared_with(self) -> str:
        """Name of the variant that is the measure of the others."""
        return self.reference or self.variants[0].name

    def variant(self, name: str) -> Variant:
        """The variant of that name; raises StudyError."""
        for one in self.variants:
            if one.name == name:
                return one
        raise StudyError(f"{self.name}: no such variant: {name}")

    def variant_settings(self, name: str) -> dict[str, str]:
        """Environment variables of a variant over the preset, without those that are fitted."""
        return {**BASE_SETTINGS, **self.settings, **self.variant(name).settings}

    def declared(self, name: str) -> str:
        """Digest of all that a variant's numbers depend on in this declaration; raises StudyError."""
        fitted_to = self.variant_settings(self.compared_with) if "parameters" in self.equal else {}
        parts = [self.variant_settings(name), sorted(self.equal), self.budget, self.full_validation, fitted_to]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Elsewhere:
    """A claim that another command of this project measures."""

    name: str
    title: str
    source: str
    claim: str
    where: str


def computing_parameters(model: ModelConfig) -> int:
    """Parameters without those of the embedding tables."""
    return sum(count for name, count in parameter_counts(model) if name not in TABLES)


def fitted(model: ModelConfig, target: int) -> ModelConfig:
    """The model with the width of its MLPs that brings `computing_parameters` nearest to a target.

    Raises:
        StudyError: No width comes within 1 %.
    """
    narrow, wide = (computing_parameters(replace(model, mlp_hidden=hidden)) for hidden in (1, 2))
    hidden = round((target - narrow) / (wide - narrow) / HIDDEN_STEP) * HIDDEN_STEP
    if hidden >= HIDDEN_STEP:
        found = replace(model, mlp_hidden=hidden)
        if abs(computing_parameters(found) - target) < LARGEST_DIFFERENCE * target:
            return found
    raise StudyError(f"no width of the MLPs gives {target} parameters within {LARGEST_DIFFERENCE:.0%}")


def run_config(experiment: Experiment, variant: str, seconds: float, seed: int) -> Config:
    """The settings of one run, without its data.

    Raises:
        StudyError: A setting cannot be used, or equal parameters cannot be had.
    """
    try:
        config = _declared(experiment, variant)
    except ConfigError as error:
        raise StudyError(f"{experiment.name}, {variant}: {error}") from error
    if "parameters" in experiment.equal:
        target = computing_parameters(_declared(experiment, experiment.compared_with).model)
        config = replace(config, model=fitted(config.model, target))
    budget, train = seconds * experiment.budget, replace(config.train, seed=seed)
    if "seconds" in experiment.equal:
        return replace(config, train=replace(train, max_wallclock_seconds=budget))
    steps = max(round(budget * TOKENS_PER_SECOND / train.train_batch_tokens), 1)
    return replace(config, train=replace(train, iterations=steps, max_wallclock_seconds=0.0))


def _declared(experiment: Experiment, variant: str) -> Config:
    return Config.from_environment(experiment.variant_settings(variant), PRESETS[BASE_PRESET])


def runs_together(experiment: Experiment) -> Iterator[tuple[str, ...]]:
    """Variants in groups of those that are trained alike and differ in how they are scored only."""
    groups: dict[object, list[str]] = {}
    for variant in experiment.variants:
        config = _declared(experiment, variant.name)
        groups.setdefault((config.model, config.optim, config.train), []).append(variant.name)
    yield from map(tuple, groups.values())
