"""What the code shows of the four conditions: training on validation tokens, and its order to their score."""

from __future__ import annotations

from dataclasses import dataclass

from harness.model import Fact, Located, Location


@dataclass(frozen=True, slots=True)
class Training:
    """One place that trains on validation tokens.

    Attributes:
        order: `trained first`, `scored first`, `weights discarded`, `never runs` or `unclear`.
        why: one clause.
        function: the function that trains.
        steps: the path that proves it, outermost first: what happens, and where.
        runs: `live`, `dead` or `unknown` under the run's configuration.
        settings: what decides that it runs, or that it does not: `TTT_ENABLED is 0 (default at train_gpt.py:118)`.
        unclear: settings of unknown value that would decide it.
        doubt: a sentence of the README that says otherwise than the settings, or None.
        label: the printed text of the score that follows.
    """

    order: str
    why: str
    function: str
    steps: tuple[Located[str], ...]
    runs: str
    settings: tuple[Located[str], ...] = ()
    unclear: tuple[str, ...] = ()
    doubt: Located[str] | None = None
    label: str = ""

    @property
    def places(self) -> tuple[Location, ...]:
        """Where the path leads along."""
        return tuple(step.location for step in self.steps)


@dataclass(frozen=True, slots=True)
class LegalityFacts:
    """What static analysis found.

    Attributes:
        script: the script that was followed, or why none could be.
        trainings: gradients of a loss on validation tokens.
    """

    script: Fact[str]
    trainings: tuple[Training, ...] = ()
