"""The scores of the run that forks, place by place, in the pass that the script reports.

Where every loss could be followed to the number that counts it, the pass is that of the ledger, the one with the mean
that is printed (see `binding`). Where losses are mixed outside of torch, an account of the script's own takes its
place: a variable whose last value is the printed loss times the number of tokens. Its steps are matched to the
computations of losses that came before each of them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from harness.probe.experiments import binding
from harness.probe.session import MiniatureRun

BASE: Final = ""
PASS, ACCOUNT = "pass", "account"
# A pass by its number, or an account by its function and its name.
Key: TypeAlias = int | tuple[str, str]
# A step of an account with its number, and a computation of losses with its places.
Step: TypeAlias = tuple[tuple[int, int, int], float]
Source: TypeAlias = tuple[int, list[int]]


@dataclass(frozen=True, slots=True)
class Unit:
    """One score, or the sum of several that were added up at once.

    Attributes:
        at: number of the computation that it comes from.
        places: what it scores.
        nats: the score.
        straight: whether it is the softmax of one row, and nothing else.
        step: by which growth of its account it was counted, which of the numbers that it grew by at once it is, and how
            many these were; None where there is no account.
        loose: whether it was matched to its place by the number of steps alone, or in an order that may be another.
    """

    at: int
    places: tuple[int, ...]
    nats: float
    straight: bool = False
    step: tuple[int, int, int] | None = None
    loose: bool = False


@dataclass(frozen=True, slots=True)
class Bound:
    """Which numbers of the run are the reported ones.

    Attributes:
        by: `pass` or `account`.
        keys: passes by number, or the account's function and name.
        where: the line, or the variable.
        reason: how it was found, or why it was not.
    """

    by: str
    keys: tuple[Key, ...]
    where: str
    reason: str


@dataclass(slots=True)
class View:
    """What one copy told.

    Attributes:
        events: all its events by kind.
    """

    events: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        """Events of a kind."""
        return self.events.get(kind, [])

    def units(self, bound: Bound, key: Key, tokens: int) -> list[Unit]:
        """The scores of a pass or an account, in the order in which they were counted.

        Args:
            bound: which they are.
            key: one of its keys.
            tokens: that can be predicted; an account of so many steps without any loss that was seen has one for each.
        """
        return _passed(self, key) if bound.by == PASS else _stepped(self, key, tokens)


def views(run: MiniatureRun) -> dict[str, View]:
    """Each copy's events by its name, those of the process itself under `BASE`."""
    found: dict[str, View] = {BASE: View()}
    for event in run.events:
        view = found.setdefault(str(event.get("variant", BASE)), View())
        view.events.setdefault(str(event["kind"]), []).append(event)
    return found


def bind(view: View, loss: float | None, tokens: int) -> Bound | str:
    """Find the reported scores; a text says why there are none.

    Args:
        view: the process that changed nothing.
        loss: what it printed.
        tokens: that can be predicted.
    """
    if loss is None:
        return "the run that forks printed no loss"
    passes = [event for event in view.of("pass") if isinstance(event.get("mean"), (int, float))]
    chosen = binding.reported(passes, loss)
    counts = {tokens, *(event["count"] for event in passes if type(event.get("count")) is int)}
    account = None if chosen else _account(view, {loss * count for count in counts})
    if account is not None:
        return account
    if chosen:
        where = str(chosen[-1].get("where") or "")[:200]
        reason = f"the reported loss is that of the scores added up at {where}"
        return Bound(PASS, tuple(event["pass"] for event in chosen), where, reason)
    return f"the reported loss of {loss:.6f} is neither the mean of a pass nor an account of the script's"


def _account(view: View, totals: Collection[float]) -> Bound | None:
    """A variable of the script whose last value is one of the sums that the printed loss may stand for."""
    for event in view.of("account"):
        total = event.get("total")
        if isinstance(total, (int, float)) and any(binding.apart(abs(total), each) <= binding.EXACT for each in totals):
            key = str(event.get("function")), str(event.get("name"))
            name = f"variable {key[1]} of {key[0]}"[:200]
            return Bound(ACCOUNT, (key,), name, f"the reported loss is that of {name}")
    return None


def spread(ranges: object) -> list[int]:
    """Half-open ranges as single places; what is no range is none."""
    if not isinstance(ranges, Sequence) or isinstance(ranges, str):
        return []
    found: list[int] = []
    for pair in ranges:
        if isinstance(pair, Sequence) and len(pair) == 2 and all(type(end) is int for end in pair):
            # A row of tokens is never longer than this.
            found += range(pair[0], min(pair[1], pair[0] + 10_000_000))
    return found


def _passed(view: View, number: Key) -> list[Unit]:
    found: list[Unit] = []
    for event in view.of("score"):
        nats, at = event.get("nll"), event.get("at")
        if event.get("pass") != number or not isinstance(nats, list) or type(at) is not int:
            continue
        apart = set(spread(event.get("apart"))) if "apart" in event else None
        pure = apart is not None and not event.get("how")
        for place, value in zip(spread(event.get("positions")), nats, strict=False):
            if isinstance(value, (int, float)):
                found.append(Unit(at, (place,), float(value), pure and apart is not None and place not in apart))
    return found


def _stepped(view: View, key: Key, tokens: int) -> list[Unit]:
    """Steps of an account with the places of the losses that were computed before each."""
    event = next((each for each in view.of("account") if (each.get("function"), each.get("name")) == key), None)
    told = next(iter(view.of("sources")), {}).get("sources")
    if event is None or not isinstance(told, list):
        return []
    sources = [(int(at), spread(ranges)) for at, ranges, _ in told]
    numbers = _numbers(event)
    if not sources and len(event["steps"]) == tokens:
        # The token's own entry of a row that was looked up says that it is the place's.
        straight = set(spread(event.get("straight")))
        return [
            Unit(index, (index + 1,), abs(float(step)), index in straight, numbers[index], loose=index not in straight)
            for index, step in enumerate(event["steps"])
        ]
    groups: dict[int, list[Step]] = {}
    for number, step, after in zip(numbers, event["steps"], event["after"], strict=False):
        groups.setdefault(int(after), []).append((number, abs(float(step))))
    found: list[Unit] = []
    done: set[int] = set()
    last = 0
    ends = sorted(groups)
    for index, after in enumerate(ends):
        mine = sources[last:after]
        if not index:
            # Evaluations before this one have computed losses too.
            mine = _latest(mine, len(groups[after]), ends[1] - after if len(ends) > 1 else len(mine))
        last = after
        found += _matched(mine, groups[after], done)
    return found


def _numbers(event: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    """For each step: the growth that it belongs to, its place among the steps made at once, and how many these are."""
    ends = {begin: end for begin, end in event.get("pieces", []) if end > begin + 1}
    found: list[tuple[int, int, int]] = []
    growth = 0
    while len(found) < len(event["steps"]):
        count = ends.get(len(found), len(found) + 1) - len(found)
        found += [(growth, piece, count) for piece in range(count)]
        growth += 1
    return found


def _latest(sources: list[Source], count: int, usual: int) -> list[Source]:
    """The fewest of the last computations that have so many places; as many as are usual where none do."""
    places: set[int] = set()
    for index in range(len(sources) - 1, -1, -1):
        places |= {place for place in sources[index][1] if place >= 0}
        if len(places) >= count > 1:
            break
    return sources[index:] if sources and len(places) == count > 1 else sources[-usual:]


def _matched(sources: list[Source], steps: list[Step], done: set[int]) -> list[Unit]:
    """Units of some steps that were made since some losses were computed.

    Steps of single tokens are in the order of the losses, row by row. Where that is not the order of the text (sorted
    documents, several in step with each other), the script may have mixed them in another one: the units are loose. So
    are those out of arrays, which may be in any order.
    """
    owners = {place: at for at, places in sources for place in places if place >= 0 and place not in done}
    if not owners:
        return []
    done |= set(owners)
    together = len({number[0] for number, _ in steps}) == 1
    if together and len(steps) != max(len(owners), 2):
        nats = math.fsum(nats for _, nats in steps)
        return [Unit(max(owners.values()), tuple(sorted(owners)), nats, step=steps[0][0])]
    if len(steps) != len(owners):
        return []
    unordered = list(owners) != sorted(owners)
    return [
        Unit(at, (place,), nats, step=number, loose=unordered or number[2] > 1)
        for (place, at), (number, nats) in zip(owners.items(), steps, strict=True)
    ]
