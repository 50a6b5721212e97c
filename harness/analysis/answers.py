"""What is known of a setting: a value with what it rests on, or the names of what would decide it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from harness.model import Location


@dataclass(frozen=True, slots=True)
class Setting:
    """A value that the submission states for a run.

    Attributes:
        value: as written.
        source: `log`, `README` or the like, for messages.
        location: where.
    """

    value: str
    source: str
    location: Location


@dataclass(frozen=True, slots=True)
class Stated:
    """Evidence's view of the configuration.

    Attributes:
        logged: logged hyperparameters by lower-case name, where all counted runs agree.
        commanded: environment variables that the README (or a shell script) sets, by name, where it sets one value.
        unclear: names, in lower case, to which the evidence gives several values.
        mentioned: what sentences say of variables; it decides nothing, but it can make a default doubtful.
    """

    logged: Mapping[str, Setting]
    commanded: Mapping[str, Setting]
    unclear: frozenset[str] = frozenset()
    mentioned: Mapping[str, tuple[Setting, ...]] = field(default_factory=dict)

    def variable(self, name: str) -> Setting | None:
        """The one value of an environment variable, as logged or else as commanded."""
        if name.lower() in self.unclear:
            return None
        return self.logged.get(name.lower()) or self.commanded.get(name)


NOTHING_STATED = Stated({}, {})


def option_key(script: str, name: str) -> str:
    """Under which name an option that a command passes to a script stands among the commanded settings."""
    return f"{script.rpartition('/')[2]} --{name}"


@dataclass(frozen=True, slots=True)
class Reason:
    """What a value rests on.

    Attributes:
        name: the environment variable or setting.
        value: its value.
        source: `log`, `README`, `default`.
        location: where that stands.
    """

    name: str
    value: str
    source: str
    location: Location

    def __str__(self) -> str:
        """`TTT_ENABLED is 0 (default at train_gpt.py:118)`."""
        return f"{self.name} is {self.value} ({self.source} at {self.location})"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A value that the configuration gives an expression, and what it rests on."""

    value: object
    reasons: tuple[Reason, ...] = ()

    @property
    def true(self) -> bool:
        """Its truth, as a condition."""
        return bool(self.value)


@dataclass(frozen=True, slots=True)
class Unknown:
    """An expression that the configuration does not decide.

    Attributes:
        names: settings that it would take to decide it; empty when it depends on data instead.
    """

    names: tuple[str, ...] = ()


Answer: TypeAlias = Resolved | Unknown
UNKNOWN = Unknown()
Computation: TypeAlias = Callable[[list[Any]], object]


def apply(function: Computation, parts: list[Answer]) -> Answer:
    """A function of known parts; unknown, with all the names it would take, when a part is."""
    names = tuple(dict.fromkeys(name for part in parts if isinstance(part, Unknown) for name in part.names))
    known = [part for part in parts if isinstance(part, Resolved)]
    if len(known) < len(parts):
        return Unknown(names)
    reasons = tuple(dict.fromkeys(reason for part in known for reason in part.reasons))
    return Resolved(function([part.value for part in known]), reasons)


def agreed(answers: list[Answer]) -> Answer:
    """The one value of all answers, else unknown."""
    names = tuple(dict.fromkeys(name for answer in answers if isinstance(answer, Unknown) for name in answer.names))
    known = [answer for answer in answers if isinstance(answer, Resolved)]
    if len(known) < len(answers) or not known or any(_differ(answer.value, known[0].value) for answer in known):
        return Unknown(names or tuple(reason.name for answer in known for reason in answer.reasons))
    return known[0]


def _differ(first: object, second: object) -> bool:
    return type(first) is not type(second) or first != second


def because(answer: Resolved, reasons: tuple[Reason, ...]) -> Resolved:
    """An answer that rests on further reasons."""
    return Resolved(answer.value, tuple(dict.fromkeys((*answer.reasons, *reasons))))


def moved(answer: Answer, place: Location) -> Answer:
    """An answer found in a helper, whose default stands where the helper is called."""
    if isinstance(answer, Unknown):
        return answer
    moved = tuple(
        Reason(each.name, each.value if each.value != "None" else str(answer.value), each.source, place)
        if each.source == "default"
        else each
        for each in answer.reasons
    )
    return Resolved(answer.value, moved)


def reason_of(name: str, setting: Setting) -> Reason:
    """A stated setting as the reason for a value."""
    return Reason(name, setting.value[:60], setting.source, setting.location)


def literal(text: str) -> object:
    """A logged value as Python means it: True, 12, 0.5, None, or the text."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return text.strip()
