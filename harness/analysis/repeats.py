"""Loops that repeat both the training and the score: does a later round score what an earlier one trained on?"""

from __future__ import annotations

import ast

from harness.analysis.answers import Resolved
from harness.analysis.bindings import Binding
from harness.analysis.branches import guards
from harness.analysis.configuration import Configuration
from harness.analysis.index import descend, dotted, is_inside, last_name, place_of
from harness.analysis.program import Program, Scope
from harness.analysis.rounds import carried, count_of, holds, may_move, moves_on, selects, start_of
from harness.analysis.sites import COPIES, Event, Order, Ordered, Site, loops_around, written
from harness.analysis.trace import Trace

# So many rounds are looked at.
ROUNDS = 64


class Repeats:
    """Judges a training site and an addition to the score that share loops."""

    def __init__(self, program: Program, configuration: Configuration) -> None:
        self._program = program
        self._configuration = configuration

    def judge(self, site: Site, trace: Trace, event: Event) -> Ordered | None:
        """Whether a loop repeats both the training and the score over the same tokens."""
        for loop in loops_around(site):
            added = is_inside(event.binding.place, loop) or self._keeps_last(event, trace, loop, site.scope)
            if not isinstance(loop, ast.For) or not added:
                continue
            counter = last_name(loop.target)
            count = count_of(loop)
            if count is None or selects(counter, trace, site.scope) or selects(counter, event.trace, site.scope):
                continue
            if self._first_only(event, counter, site.scope, start_of(loop)) or moves_on(loop) or _anew(site, loop):
                continue
            answer = self._configuration.value(count, site.scope)
            if not isinstance(answer, Resolved) or not isinstance(answer.value, (int, float)):
                why = f"the loop over `{counter}` repeats score and training an unknown number of times"
                return Ordered(Order.UNCLEAR, why)
            if answer.value > 1 and not _takes_first(event, loop, site.scope):
                doubt = self._doubt(site, trace, event, loop)
                if doubt:
                    return Ordered(Order.UNCLEAR, doubt)
                why = f"of {answer.value:g} rounds over `{counter}`, a later one scores what an earlier one trained on"
                return Ordered(Order.LATER_EPOCH, why, event.binding.place)
        return None

    def _doubt(self, site: Site, trained: Trace, event: Event, loop: ast.For) -> str:
        """Why rounds may score other tokens, other weights, or in one round alone, in a way that no text proves."""
        reader = next(
            filter(None, (may_move(each, loop, site.scope, self._program) for each in (trained, event.trace))), ""
        )
        if reader:
            return f"`{reader}` may give other tokens each time"
        for guard in guards(site.module.index, written(event.binding.value, site.scope)):
            if not guard.repeats and is_inside(place_of(guard.test), loop) and carried(guard.test, loop, site.scope):
                return f"`{ast.unparse(guard.test)[:60]}` may hold in one round alone"
        heads = {name.partition(".")[0] for name in site.model}
        made = [
            each
            for name in heads
            for each in site.scope.bindings.get(name, ())
            if each.whole
            and isinstance(each.value, ast.Call)
            and is_inside(each.place, loop)
            and each.place < site.start
        ]
        mentioned = {name.id for each in made for name in descend(each.value) if isinstance(name, ast.Name)}
        return "each round may begin with the weights from before" if made and not mentioned & heads else ""

    @staticmethod
    def _keeps_last(event: Event, trained: Trace, loop: ast.AST, scope: Scope) -> bool:
        """Whether an addition behind a loop takes what the last round computed, of tokens that no round changes."""
        if not is_inside(event.forward, loop):
            return False
        data = {binding for _, bindings in trained.data | event.trace.data for binding in bindings}
        rounds = [binding for binding in event.trace.bindings if is_inside(binding.place, loop)]
        if not rounds or any(is_inside(binding.place, loop) and binding not in rounds for binding in data):
            return False
        held = {name for name, bindings in trained.data & event.trace.data if not bindings & set(rounds)}
        plain = all(binding.replaces and binding.whole for binding in rounds)
        return plain and bool(held) and not any(_conditional(each.value, loop, scope) for each in rounds)

    def _first_only(self, event: Event, counter: str, scope: Scope, start: int) -> bool:
        """Whether the addition runs in the first round alone."""
        for guard in guards(scope.module.index, written(event.binding.value, scope)):
            test = scope.last_given(guard.test)
            first = holds(test, counter, start)
            later = {holds(test, counter, start + rounds) for rounds in range(1, ROUNDS)}
            if first is not None and first not in later:
                return first is guard.wanted
        return False


def _takes_first(event: Event, loop: ast.For, scope: Scope) -> bool:
    """Whether scores go into a list of which nothing but the first entry is read behind the loop."""
    statement = scope.module.index.statement_of(event.binding.value)
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute) or call.func.attr != "append":
        return False
    name = dotted(call.func.value)
    reads = [
        each
        for each in scope.module.loads(name)
        if scope.module.scope_of(each) is scope and each is not call.func.value
    ]
    parts = [scope.module.index.parent(each) for each in reads if not is_inside(place_of(each), loop)]
    return bool(parts) and all(
        isinstance(each, ast.Subscript) and isinstance(each.slice, ast.Constant) and each.slice.value == 0
        for each in parts
    )


def _anew(site: Site, loop: ast.AST) -> bool:
    """Whether every round trains a copy of its own, made in the round of what no round changes."""
    heads = {name.partition(".")[0] for name in site.model}
    made = [site.scope.bindings.get(name, ()) for name in heads]
    return bool(heads) and all(any(_is_copy(each, site, loop) for each in bindings) for bindings in made)


def _is_copy(binding: Binding, site: Site, loop: ast.AST) -> bool:
    value = binding.value
    if not binding.whole or not isinstance(value, ast.Call) or last_name(value.func) not in COPIES:
        return False
    if not is_inside(binding.place, loop) or binding.place > site.start or _conditional(value, loop, site.scope):
        return False
    sources = [each.id for each in ast.walk(value) if isinstance(each, ast.Name)]
    return not any(is_inside(each.place, loop) for name in sources for each in site.scope.bindings.get(name, ()))


def _conditional(value: ast.expr, loop: ast.AST, scope: Scope) -> bool:
    """Whether a condition inside a loop decides that a value is computed."""
    return any(
        not guard.repeats and is_inside(place_of(guard.test), loop)
        for guard in guards(scope.module.index, written(value, scope))
    )
