"""What the code shows of the four conditions: training on validation tokens, and its order to their score."""

from __future__ import annotations

from dataclasses import dataclass

from harness.model import Fact, Located, Location, Missing

UNFOLLOWED = Missing("no gradient of a loss was followed to a split")
ONLY_EVALUATES = Missing("the script takes no gradient of a loss")


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
        fresh: True when what is trained is no weight but a tensor made for it (SLOT).
        rival: the printed text of a final score before the training, which may be the claimed one.
        silent: what it is bound to print and the logs of the claimed runs do not show, at a log; or None.
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
    fresh: bool = False
    rival: str = ""
    silent: Located[str] | None = None

    @property
    def places(self) -> tuple[Location, ...]:
        """Where the path leads along."""
        return tuple(step.location for step in self.steps)


@dataclass(frozen=True, slots=True)
class Passage:
    """One use of validation tokens, with its path.

    Attributes:
        what: what is used: the name of the shared cache, or of the calibrating function.
        proved: True when the path proves it; False when it shows no more than that it may be.
        steps: the path.
        runs: `live` or `unknown`.
        settings: what decides that it runs.
        unclear: settings of unknown value that would decide it.
        label: the text of the prints of the score that it makes, where they were found.
        silent: what it is bound to print and the logs of the claimed runs do not show, at a log; or None.
    """

    what: str
    proved: bool
    steps: tuple[Located[str], ...]
    runs: str
    settings: tuple[Located[str], ...] = ()
    unclear: tuple[str, ...] = ()
    label: str = ""
    silent: Located[str] | None = None


@dataclass(frozen=True, slots=True)
class LegalityFacts:
    """What static analysis found.

    Attributes:
        script: the script that was followed, or why none could be.
        trainings: gradients of a loss on validation tokens.
        training_split: the split that the training loss comes from: `training`, or `validation` where every live
            gradient's loss does and nothing else.
        rescorings: caches that one pass over the validation tokens fills and another scores with.
        calibrations: calls of calibrating functions with validation tokens.
        recalls: calls of calibrating functions with training tokens.
        contacts: calls that reach the network, other programs or code made at run time.
        fetches: uses of the network that belong to the evaluation.
        renamed: commands of the README or of a shell script that give a validation shard the name of a training shard.
    """

    script: Fact[str]
    trainings: tuple[Training, ...] = ()
    training_split: Fact[str] = UNFOLLOWED
    rescorings: tuple[Passage, ...] = ()
    calibrations: tuple[Passage, ...] = ()
    contacts: tuple[Located[str], ...] = ()
    renamed: tuple[Located[str], ...] = ()
    fetches: tuple[Passage, ...] = ()
    recalls: tuple[Passage, ...] = ()
