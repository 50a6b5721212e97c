"""Values as the flow of the realized target sees them: labels, and the lines that gave each."""

from __future__ import annotations

import ast
import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from harness.analysis.program import Module
from harness.model import Location


class Label(enum.Enum):
    """What a value is made of."""

    # By identity: the one of enumerations hashes the name anew each time.
    __hash__ = object.__hash__

    TARGET = "the target"
    MIXED = "the target mixed with something else"
    HASHED = "the same, by exclusive or"
    KEY = "a bucket of a hash of the target"
    COUNT = "what a table holds in that bucket"
    PAIR = "what a table holds for that very pair"
    DIVIDED = "a share of such numbers"
    PRIOR = "such a number with the model's own probability added before it was divided"
    ALL = "every token of the vocabulary"
    BUCKETS = "a bucket of a hash for every token"
    ROW = "what a table holds for every token"
    PICKED = "what such a row holds for one token"
    MASS = "the sum of such a row"
    FOREIGN = "a share of a row by something else than its sum"
    LOSS = "a loss of each token"
    LOSSES = "several losses side by side"
    CHOSEN = "one of several losses, chosen by their values"


@dataclass(frozen=True, slots=True)
class Step:
    """One line on the way, and the node that stands there; `what` is empty where it only stands for its branch."""

    what: str
    location: Location
    node: ast.AST = field(repr=False, compare=False)
    module: Module = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Proven:
    """Something that lines prove: those, in order."""

    steps: tuple[Step, ...]


Trace: TypeAlias = tuple[Step, ...]
Labels: TypeAlias = Mapping[Label, Trace]


@dataclass(frozen=True, slots=True)
class Flowing:
    """A value: its labels, and its members when it is a tuple; a list stands for one item that was put into it."""

    labels: Labels = field(default_factory=dict)
    items: tuple[Flowing, ...] = ()
    listed: bool = False


NOTHING = Flowing()


TRACE_LIMIT = 40
# Labels that accuse: whether they hold depends on every branch that they came through.
_FOLLOWED = frozenset(Label) - {Label.TARGET, Label.MASS, Label.ALL, Label.LOSS}


def fork(first: tuple[Flowing, Step], second: tuple[Flowing, Step]) -> Flowing:
    """A value that is one of two, each with the branch it comes from.

    What both are made of holds whichever branch runs; what only one is made of, where its branch runs.
    """
    (one, its_branch), (other, other_branch) = first, second
    if one is other:
        return one
    labels = {
        **{label: _marked(label, trace, other_branch) for label, trace in other.labels.items()},
        **{label: _marked(label, trace, its_branch) for label, trace in one.labels.items()},
        **{label: min(one.labels[label], other.labels[label], key=len) for label in one.labels.keys() & other.labels},
    }
    same = len(one.items) == len(other.items)
    pairs = zip(one.items, other.items, strict=True) if same else ((each, each) for each in one.items or other.items)
    items = tuple(fork((left, its_branch), (right, other_branch)) for left, right in pairs)
    return Flowing(labels, items, one.listed or other.listed)


def _marked(label: Label, trace: Trace, step: Step) -> Trace:
    return (*trace, step) if label in _FOLLOWED and len(trace) < TRACE_LIMIT else trace


def join(left: Flowing, right: Flowing) -> Flowing:
    """What a value may be when it is one of two."""
    if len(left.items) == len(right.items):
        items = tuple(join(one, other) for one, other in zip(left.items, right.items, strict=True))
    else:
        items = left.items or right.items
    return Flowing({**right.labels, **left.labels}, items, left.listed or right.listed)


def union(values: Iterable[Flowing]) -> dict[Label, Trace]:
    """All labels of some values; of one label's traces the first."""
    labels: dict[Label, Trace] = {}
    for value in values:
        for label, trace in value.labels.items():
            labels.setdefault(label, trace)
    return labels


def one_after_the_other(traces: Iterable[Trace]) -> Trace:
    """Several traces in the order of the text."""
    ordered = sorted(traces, key=lambda trace: (trace[0].location.path, trace[0].location.line or 0))
    return tuple(step for trace in ordered for step in trace)
