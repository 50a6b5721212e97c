"""What the training script does with its model, as far as its code shows it."""

from __future__ import annotations

from dataclasses import dataclass

from harness.model import Located, Missing

SCORING = "an evaluation on validation data"
METRIC = "a printed metric"


@dataclass(frozen=True, slots=True)
class Untrained:
    """A parameter that no optimizer group takes.

    Attributes:
        name: its name, `Block.conv1d.weight`.
        reason: why it falls through, as a clause.
        groups: where the groups are made.
    """

    name: str
    reason: str
    groups: Located[str]


@dataclass(frozen=True, slots=True)
class PipelineFacts:
    """The parts of the work that the training script and the modules of the folder that it imports show.

    Attributes:
        unread: why the code could not be looked at; None when it could.
        trains: whether the code uses a library that trains models at all.
        steps: the place of each part that was found, by the part's name.
        missing: parts that nothing in the code shows.
        untrained: parameters that no optimizer group takes, each at its definition.
    """

    unread: Missing | None = None
    trains: bool = False
    steps: tuple[Located[str], ...] = ()
    missing: tuple[str, ...] = ()
    untrained: tuple[Located[Untrained], ...] = ()
