"""Names, attributes and calls of the training script that cannot work."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from harness.model import Located, Missing


class Reach(enum.StrEnum):
    """Whether a run comes by a place of the code."""

    CERTAIN = "certain"
    POSSIBLE = "possible"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class CodeError:
    """Something that raises an error where it is evaluated.

    Attributes:
        subject: the name, the attribute or the call.
        problem: what is wrong with it, as a clause.
        reach: whether a run evaluates it.
    """

    subject: str
    problem: str
    reach: Reach


@dataclass(frozen=True, slots=True)
class NamesFacts:
    """What was found in the training script and in the modules of the folder that it imports.

    Attributes:
        scripts: the files looked at.
        unread: why a file could not be looked at; None when every one could.
        unseen: what can bind names that the text does not show, with its place; None when nothing can.
        undefined: names that nothing binds.
        unbound: names that are read before anything binds them.
        attributes: attributes read on `self` that nothing sets.
        calls: calls of own functions and classes whose arguments do not fit.
    """

    scripts: tuple[str, ...] = ()
    unread: Missing | None = None
    unseen: Located[str] | None = None
    undefined: tuple[Located[CodeError], ...] = ()
    unbound: tuple[Located[CodeError], ...] = ()
    attributes: tuple[Located[CodeError], ...] = ()
    calls: tuple[Located[CodeError], ...] = ()
