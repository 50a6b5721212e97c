"""Accounts: numbers of the script's own functions that grow bit by bit, as sums of losses do.

What is mixed in numpy or in plain Python reaches no function of torch any more. The loop that adds it up still has a
variable for it: after each line of the script's own functions its numbers are looked at.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import torch

from ..tracer.ledger import Ledger
from ..tracer.positions import ranges
from ..tracer.rows import STRAIGHT_NATS, Row

# Fewer steps are no account; more are cut off.
LEAST, MOST = 4, 20_000
ACCOUNTS_LIMIT = 24
Key = tuple[str, str]
_HERE = os.path.dirname(os.path.dirname(__file__))


class Accounts:
    """Watches the local variables of the script's functions.

    Args:
        ledger: whose scores tell where the script is in the text.
        emit: writes an event.
    """

    def __init__(self, ledger: Ledger, emit: Callable[..., None]) -> None:
        self._ledger, self._emit = ledger, emit
        self._last: dict[tuple[int, str], tuple[FrameType, float]] = {}
        self._steps: dict[Key, list[tuple[float, int]]] = {}
        self._ends: dict[Key, float] = {}
        # Steps that are the softmax of the row that was looked up last, and the rows of watched places.
        self._straight: dict[Key, list[int]] = {}
        self._rows: dict[Key, list[tuple[int, Row]]] = {}
        # Told of each step: the account, its number and the step.
        self.heard: Callable[[Key, int, float], None] | None = None
        self._before = len(ledger.sources)
        self._tracer: Any = None

    def install(self) -> None:
        """Look at every line from now on, also of functions that are running."""
        frame: Any = sys._getframe()
        while frame is not None:
            if self._own(frame):
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
        self._emit("sources", sources=[[each.at, ranges(each.targets, again=True)] for each in sources])
        for (function, name), steps in kept[:ACCOUNTS_LIMIT]:
            self._emit(
                "account",
                function=function,
                name=name,
                total=self._ends[function, name],
                steps=[round(step, 10) for step, _ in steps],
                after=[after for _, after in steps],
                straight=ranges(np.array(self._straight.get((function, name), []), dtype=np.int64)),
            )
            # So many steps are one for each token that can be predicted, in the order of the text.
            if len(steps) == self._ledger.shard.size - 1 and self._ledger.rows is not None:
                for step, row in self._rows.get((function, name), []):
                    self._ledger.rows.tell(step, step + 1, row)

    def _own(self, frame: FrameType) -> bool:
        name = frame.f_code.co_filename
        return name.startswith((self._ledger.folder, "<unpacked")) and not name.startswith(_HERE)

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if self._own(frame) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event in {"line", "return"}:
            with torch._C.DisableTorchFunction():
                for name, value in frame.f_locals.items():
                    number = _number(value)
                    if number is not None:
                        self._look(frame, name, number)
        return self._line

    def _look(self, frame: FrameType, name: str, number: float) -> None:
        key = id(frame), name
        known = self._last.get(key)
        self._last[key] = frame, number
        if known is None or known[1] == number or known[0] is not frame:
            return
        account = frame.f_code.co_name, name
        steps = self._steps.setdefault(account, [])
        if len(steps) <= MOST:
            self._look_up(account, len(steps), abs(number - known[1]))
            steps.append((number - known[1], len(self._ledger.sources) - self._before))
        self._ends[account] = number
        if self.heard is not None:
            self.heard(account, len(steps) - 1, number - known[1])

    def _look_up(self, account: Key, step: int, nats: float) -> None:
        """Compare a step with the row that was last asked for one number; no other loss has been seen."""
        rows, tokens, place = self._ledger.rows, self._ledger.shard.tokens, step + 1
        if rows is None or rows.last is None or len(self._ledger.sources) > self._before or place >= tokens.size:
            return
        if rows.last.token == tokens[place]:
            if abs(rows.last.nats - nats) <= STRAIGHT_NATS:
                self._straight.setdefault(account, []).append(step)
            if rows.watched(np.array([place])):
                self._rows.setdefault(account, []).append((step, rows.last))


def _number(value: Any) -> float | None:
    """A number that may be a sum of losses."""
    # What stands in for something else is not asked what it is.
    kind = type(value)
    if kind is float or issubclass(kind, np.floating):
        return float(value)
    if issubclass(kind, torch.Tensor) and value.numel() == 1 and value.is_floating_point():
        return float(value.detach())
    return None
