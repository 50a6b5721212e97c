"""Accounts: numbers of the script's own functions that grow bit by bit, as sums of losses do.

What is mixed in numpy or in plain Python reaches no function of torch any more. The loop that adds it up still has a
variable for it: after each line of the script's own functions, the numbers that the line names are looked at. Where one
grew by what one array of the same function adds up to, its numbers are the steps.
"""

from __future__ import annotations

import dis
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..tracer.entries import Source
from ..tracer.ledger import Ledger
from ..tracer.positions import ranges
from ..tracer.rows import STRAIGHT_NATS, Row

# Fewer steps are no account; more are cut off.
LEAST, MOST = 4, 20_000
ACCOUNTS_LIMIT = 24
# An array of so many numbers may be one step. An account without any such array in so many steps has none.
PIECES_LIMIT, TRIED = 4_096, 64
Key = tuple[str, str]
_NOTHING: NDArray[np.float64] = np.zeros(0)
# What is certainly no number of this kind.
PLAIN: frozenset[type] = frozenset({int, bool, str, bytes, type(None), list, tuple, dict, set})
_HERE = os.path.dirname(os.path.dirname(__file__))


@dataclass(slots=True)
class _Running:
    """A function that runs.

    Attributes:
        line: that it is at; 0: not known.
        numbers: of its variables, by name.
    """

    line: int = 0
    numbers: dict[str, float] = field(default_factory=dict)


class Accounts:
    """Watches the local variables of the script's functions.

    Args:
        ledger: whose scores tell where the script is in the text.
        emit: writes an event.
    """

    def __init__(self, ledger: Ledger, emit: Callable[..., None]) -> None:
        self._ledger, self._emit = ledger, emit
        self._running: dict[FrameType, _Running] = {}
        # By identity, for to hash code takes long; the code is held so that no other gets its identity.
        self._known: dict[int, tuple[CodeType, bool]] = {}
        self._names: dict[CodeType, dict[int, frozenset[str]]] = {}
        self._steps: dict[Key, list[tuple[float, int]]] = {}
        self._ends: dict[Key, float] = {}
        # Steps that are the softmax of the row that was looked up last, and the rows of watched places.
        self._straight: dict[Key, list[int]] = {}
        self._rows: dict[Key, list[tuple[int, Row]]] = {}
        # Steps that were made at once, as ranges.
        self._pieces: dict[Key, list[list[int]]] = {}
        # How often each has grown.
        self._growths: dict[Key, int] = {}
        # Told of each growth: the account, its number and the steps.
        self.heard: Callable[[Key, int, list[float]], None] | None = None
        self._before = len(ledger.sources)
        self._tracer: Any = None

    def install(self) -> None:
        """Look at every line from now on, also of functions that are running."""
        frame: Any = sys._getframe()
        while frame is not None:
            if self._own(frame.f_code):
                frame.f_trace = self._line
            frame = frame.f_back
        self._tracer = sys.gettrace()
        sys.settrace(self._called)

    def finish(self) -> None:
        """Tell the accounts, those of most steps first."""
        sys.settrace(self._tracer)
        found = sorted(self._steps.items(), key=lambda item: -len(item[1]))
        kept = [(key, steps) for key, steps in found if LEAST <= len(steps) <= MOST]
        sources = self._ledger.sources[self._before :]
        self._emit("sources", sources=[self._told(each) for each in sources])
        for (function, name), steps in kept[:ACCOUNTS_LIMIT]:
            self._emit(
                "account",
                function=function,
                name=name,
                total=self._ends[function, name],
                steps=[round(step, 10) for step, _ in steps],
                after=[after for _, after in steps],
                straight=ranges(np.array(self._straight.get((function, name), []), dtype=np.int64)),
                pieces=[each for each in self._pieces.get((function, name), []) if each[1] <= len(steps)],
            )
            # So many steps are one for each token that can be predicted, in the order of the text.
            if len(steps) == self._ledger.shard.size - 1 and self._ledger.rows is not None:
                for step, row in self._rows.get((function, name), []):
                    self._ledger.rows.tell(step, step + 1, row)

    def _told(self, source: Source) -> list[Any]:
        """A computation of losses: its number, its places, and those of them that had been learned from before.

        What has a gradient may be a further epoch on tokens whose scores, made before, are added up after it.
        """
        known = source.targets[source.targets >= 0]
        early = known[:0] if source.grad else known[source.learned[known]]
        return [source.at, ranges(source.targets, again=True), ranges(early)]

    def _own(self, code: CodeType) -> bool:
        """Whether a function is the script's own; it is asked for every call that is made."""
        known = self._known.get(id(code))
        if known is None:
            name = code.co_filename
            own = name.startswith((self._ledger.folder, "<unpacked")) and not name.startswith(_HERE)
            known = self._known[id(code)] = code, own
        return known[1]

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not self._own(frame.f_code):
            return None
        self._look(frame, frame.f_locals)
        return self._line

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event in {"line", "return"}:
            running = self._running.get(frame)
            # What other functions change of the module's variables is named in no line of its own.
            whole = running is None or not running.line or frame.f_code.co_name == "<module>"
            names = frame.f_locals if running is None or whole else self._named(frame.f_code, running.line)
            self._look(frame, names)
            if event == "return":
                # What a function that has ended holds is not held any longer.
                self._running.pop(frame, None)
            else:
                self._running[frame].line = frame.f_lineno
        return self._line

    def _named(self, code: CodeType, line: int) -> frozenset[str]:
        """Variables that a line reads or sets."""
        lines = self._names.get(code)
        if lines is None:
            lines = self._names[code] = _lines(code)
        return lines.get(line, frozenset())

    def _look(self, frame: FrameType, names: Iterable[str]) -> None:
        """Has a number of a function changed?"""
        numbers = self._running.setdefault(frame, _Running()).numbers
        values = frame.f_locals
        for name in names:
            number = _number(values.get(name))
            if number is None:
                continue
            known = numbers.get(name)
            numbers[name] = number
            # A best value so far begins at infinity; that is no step.
            if known is not None and known != number and math.isfinite(number - known):
                least = _digits(values.get(name)) * abs(number)
                self._step((frame.f_code.co_name, name), known, number, (least, tuple(values.values())))

    def _step(self, account: Key, known: float, number: float, beside: tuple[float, tuple[Any, ...]]) -> None:
        steps = self._steps.setdefault(account, [])
        self._ends[account] = number
        if len(steps) > MOST:
            return
        growth = self._growths[account] = self._growths.get(account, -1) + 1
        after, made = len(self._ledger.sources) - self._before, [number - known]
        if growth < TRIED or account in self._pieces:
            made = _pieces(beside[1], number - known, beside[0]) or made
        if len(made) > 1:
            self._pieces.setdefault(account, []).append([len(steps), len(steps) + len(made)])
        else:
            self._look_up(account, len(steps), abs(made[0]))
        steps += [(step, after) for step in made]
        if self.heard is not None:
            self.heard(account, growth, made)

    def _look_up(self, account: Key, step: int, nats: float) -> None:
        """Compare a step with the row that was last asked for one number; no other loss has been seen."""
        rows, tokens, place = self._ledger.rows, self._ledger.shard.tokens, step + 1
        if rows is None or rows.last is None or len(self._ledger.sources) > self._before or place >= tokens.size:
            return
        if rows.last.token == tokens[place]:
            with torch._C.DisableTorchFunction():
                straight = abs(rows.last.nats - nats) <= STRAIGHT_NATS
            if straight:
                self._straight.setdefault(account, []).append(step)
            if rows.watched(np.array([place])):
                self._rows.setdefault(account, []).append((step, rows.last))


def _number(value: Any) -> float | None:
    """A number that may be a sum of losses."""
    # What stands in for something else is not asked what it is.
    kind = type(value)
    if kind is float:
        return float(value)
    if kind in PLAIN:
        return None
    if issubclass(kind, np.floating):
        return float(value)
    if issubclass(kind, torch.Tensor):
        with torch._C.DisableTorchFunction():
            if value.numel() == 1 and value.is_floating_point():
                return float(value.detach())
    return None


def _digits(value: Any) -> float:
    """The share of a number that its type does not tell."""
    kind = type(value)
    if issubclass(kind, torch.Tensor):
        with torch._C.DisableTorchFunction():
            return 4 * torch.finfo(value.dtype).eps
    return 4 * float(np.finfo(kind if issubclass(kind, np.floating) else np.float64).eps)


def _pieces(values: Iterable[Any], step: float, least: float) -> list[float]:
    """The numbers of the array that adds up to a step, with its sign.

    None where there is no such array, and where there are several that differ: rows and their sums, an array and the
    same in another order.

    Args:
        values: of the function's variables.
        step: by how much an account grew.
        least: what of that the account's own type does not tell.
    """
    found: NDArray[np.float64] | None = None
    for value in values:
        try:
            with np.errstate(all="ignore"):
                numbers, share = _numbers(value)
                total = float(numbers.sum())
        # Some tensors hold no numbers that can be read; the script is not to notice that we tried.
        except Exception:  # noqa: BLE001, S112
            continue
        if not numbers.size or not abs(abs(total) - abs(step)) <= share * abs(step) + least:
            continue
        numbers = numbers if (total < 0) == (step < 0) else -numbers
        if found is None:
            found = numbers
        elif found.shape != numbers.shape or not np.allclose(found, numbers, rtol=1e-6, atol=1e-6):
            return []
    return [] if found is None else found.tolist()


def _numbers(value: Any) -> tuple[NDArray[np.float64], float]:
    """The numbers of an array that may be one step, and the share that their sum may be off by; else nothing."""
    kind = type(value)
    if issubclass(kind, np.ndarray):
        if value.dtype.kind == "f" and 1 < value.size <= PIECES_LIMIT:
            return np.asarray(value, dtype=np.float64).ravel(), _off(value.dtype.itemsize)
    elif issubclass(kind, torch.Tensor):
        with torch._C.DisableTorchFunction():
            plain = value.layout is torch.strided and value.device.type == "cpu" and value.is_floating_point()
            if plain and 1 < value.numel() <= PIECES_LIMIT:
                numbers = value.detach().to(torch.float64).reshape(-1).numpy()
                return np.asarray(numbers), _off(value.element_size())
    return _NOTHING, 0.0


def _off(size: int) -> float:
    """What the sum of numbers of so many bytes may be off by: those of 8 are added in another order at most."""
    return 1e-12 if size >= np.dtype(np.float64).itemsize else 2e-6


def _lines(code: CodeType) -> dict[int, frozenset[str]]:
    """The variables that each line of a function names; those that inner functions may change, in every line."""
    found: dict[int, set[str]] = {}
    line = code.co_firstlineno
    starts = dict(dis.findlinestarts(code))
    for instruction in dis.get_instructions(code):
        line = starts.get(instruction.offset) or line
        found.setdefault(line, set(code.co_cellvars)).update(_variables(instruction))
    return {line: frozenset(names) for line, names in found.items()}


def _variables(instruction: dis.Instruction) -> Iterator[str]:
    if any(kind in instruction.opname for kind in ("FAST", "DEREF", "_NAME")):
        # Newer interpreters join two such instructions into one.
        told = instruction.argval if isinstance(instruction.argval, tuple) else (instruction.argval,)
        yield from (name for name in told if isinstance(name, str))
