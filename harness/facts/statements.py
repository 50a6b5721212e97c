"""What a folder says of itself beside scores and sizes: its track, its commands, its parameters, its settings."""

from __future__ import annotations

from dataclasses import dataclass

from harness.model import Located


@dataclass(frozen=True, slots=True)
class Count:
    """A number of parameters as stated: `27.2M` is 27,200,000, known to 50,000."""

    value: float
    unit: float


@dataclass(frozen=True, slots=True)
class Launch:
    """A command of the README that runs a script.

    Attributes:
        script: the script as written.
        shipped: whether the folder ships a file of that name.
        unread: variables set for the script that no shipped script names.
    """

    script: str
    shipped: bool
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StatementFacts:
    """Statements, each at its place.

    Attributes:
        non_record: where the folder calls itself a submission outside the record track.
        trial: where it calls itself a trial that claims no place: a smoke test, a proxy, no leaderboard claim.
        parameters: numbers of parameters of the model.
        launches: commands of the README that run scripts.
        seeds: seeds that submission.json speaks of in its texts.
        idle: settings that submission.json states and the scripts name only where they set them: the place of the
            statement, and of the setting.
    """

    non_record: tuple[Located[str], ...] = ()
    trial: tuple[Located[str], ...] = ()
    parameters: tuple[Located[Count], ...] = ()
    launches: tuple[Located[Launch], ...] = ()
    seeds: tuple[Located[int], ...] = ()
    idle: tuple[tuple[Located[str], Located[str]], ...] = ()


NO_STATEMENTS = StatementFacts()
