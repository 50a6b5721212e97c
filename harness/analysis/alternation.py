"""Loops in which scoring and training alternate: which of the two comes first for the same tokens."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from harness.analysis.branches import arms
from harness.analysis.index import is_inside, place_of
from harness.analysis.program import Program, Scope
from harness.analysis.reach import Life, Reach
from harness.analysis.repeats import Repeats
from harness.analysis.sites import Event, Order, Ordered, Site, loops_around, written
from harness.analysis.trace import Trace, Tracer

# Names of the tokens that are predicted, which tell a reader more than those of what is made of them.
_TARGETS = re.compile(r"^y[a-z]?$|^y_|_y[a-z]?$|tgt|target|tok", re.IGNORECASE)


class Alternation:
    """Judges a training site against the score additions of its function."""

    def __init__(self, program: Program, tracer: Tracer, reach: Reach) -> None:
        self._tracer = tracer
        self._reach = reach
        self._repeats = Repeats(program, reach.configuration)

    def events(self, roots: Sequence[ast.expr], scope: Scope) -> list[Event]:
        """The live additions to what a function reports, each with the model call behind it."""
        found: list[Event] = []
        for binding in self._tracer.accumulated(roots, scope):
            if self._reach.locally(written(binding.value, scope), scope.module).life is Life.DEAD:
                continue
            trace = self._tracer.trace((binding.value,), scope)
            calls = [place_of(call) for call in trace.calls if place_of(call) <= binding.place]
            if calls:
                found.append(Event(binding, trace, max(calls)))
        return found

    def judge(self, site: Site, events: Sequence[Event]) -> Ordered:
        """The order of a site and the additions that share a loop with it."""
        trace = self._tracer.trace(site.data, site.closure or site.scope, site.node)
        for event in events:
            found = self._repeats.judge(site, trace, event)
            if found is not None:
                return found
        if any(self._on_both_sides(event, site) for event in events):
            return Ordered(Order.UNCLEAR, "a part of what is added comes before the training and a part after it")
        if any(self._in_other_arm(event, site) for event in events):
            return Ordered(Order.UNCLEAR, "one branch of a condition trains and another one scores")
        made = [event.made_with(site.model) for event in events]
        if all(place < site.start for place in made):
            return Ordered(Order.SCORED_FIRST, "each chunk is scored before it is trained on", made[0])
        if not all(place > site.end for place in made):
            return Ordered(Order.UNCLEAR, "some scores come before the training and some after it")
        return self._behind(site, trace, events)

    @staticmethod
    def _in_other_arm(event: Event, site: Site) -> bool:
        """Whether an addition stands in the other arm of a condition: which of the two runs first, no place tells."""
        index = site.module.index
        own = dict(arms(index, site.node))
        others = arms(index, written(event.binding.value, site.scope))
        return any(own.get(above, arm) != arm for above, arm in others)

    def _on_both_sides(self, event: Event, site: Site) -> bool:
        """Whether an addition is a sum of what the model gave before the training and of what it gave after."""
        value = event.binding.value
        sides = [value.left, value.right] if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add) else []
        calls = [[place_of(call) for call in self._tracer.trace((side,), site.scope).calls] for side in sides]
        before = [bool(each) and max(each) < site.start for each in calls]
        after = [bool(each) and min(each) > site.end for each in calls]
        return any(before) and any(after)

    def _behind(self, site: Site, trace: Trace, events: Sequence[Event]) -> Ordered:
        """Every score comes after the training: of the same tokens, and with what was trained?"""
        for event in events:
            common = _common_loop(site, event)
            if common is not None and any(
                is_inside(each.place, common) and each.place > site.end
                for _, bindings in trace.data
                for each in bindings
            ):
                return Ordered(Order.UNCLEAR, "the tokens that are trained on may be those of the round before")
            shared = [
                name
                for name, bindings in trace.data & event.trace.data
                if common is not None and all(is_inside(each.place, common) for each in bindings)
            ]
            if not shared or not any(name.partition(".")[0] in event.trace.names for name in site.model):
                continue
            if trace.parts <= event.trace.parts:
                # Of a parameter that no round binds, both may take another piece.
                bound = [name for name, bindings in trace.data & event.trace.data if name in shared and bindings]
                if not bound:
                    continue
                told = min(bound, key=lambda name: (_TARGETS.search(name) is None, name))
                why = f"`{told}` is trained on and then scored"
                return Ordered(Order.TRAINED_FIRST, why, event.made_with(site.model))
            part = ", ".join(sorted(trace.parts - event.trace.parts)[:3])
            return Ordered(
                Order.CONTEXT,
                f"only a part of the scored tokens ({part}) may be trained on",
                event.made_with(site.model),
            )
        return Ordered(Order.UNCLEAR, "whether the scored tokens are those trained on cannot be read")


def sharing(site: Site, events: Sequence[Event]) -> list[Event]:
    """The additions that share a loop with a site, the model call behind them included."""
    loops = [(_common_loop(site, event), event) for event in events]
    return [event for loop, event in loops if loop is not None and is_inside(event.forward, loop)]


def _common_loop(site: Site, event: Event) -> ast.AST | None:
    return next((loop for loop in loops_around(site) if is_inside(event.binding.place, loop)), None)
