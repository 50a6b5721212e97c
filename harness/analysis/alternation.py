"""Loops in which scoring and training alternate: which of the two comes first for the same tokens."""

from __future__ import annotations

import ast
import enum
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.analysis.answers import Resolved
from harness.analysis.bindings import Binding
from harness.analysis.branches import arms, guards
from harness.analysis.configuration import Configuration
from harness.analysis.index import dotted, last_name
from harness.analysis.program import Module, Scope
from harness.analysis.reach import Life, Reach
from harness.analysis.rounds import count_of, holds, moves_on, selects, start_of
from harness.analysis.trace import Trace, Tracer
from harness.model import Location

LOOPS = (ast.For, ast.AsyncFor, ast.While)
_FRESH = frozenset(
    {"requires_grad_", "zeros", "zeros_like", "randn", "randn_like", "empty", "full", "Parameter", "new_zeros", "ones"}
)
_HANDLING = frozenset({"parameters", "named_parameters"})
# Names of the tokens that are predicted, which tell a reader more than those of what is made of them.
_TARGETS = re.compile(r"^y[a-z]?$|^y_|_y[a-z]?$|tgt|target|tok", re.IGNORECASE)
Place = tuple[int, int]
COPIES = frozenset({"deepcopy"})
# So many rounds are looked at.
ROUNDS = 64


class Order(enum.StrEnum):
    """How training on validation tokens stands to their score."""

    TRAINED_FIRST = "trained first"
    SCORED_FIRST = "scored first"
    LATER_EPOCH = "a later epoch is scored"
    CONTEXT = "trained on a part"
    DISCARDED = "weights discarded"
    UNCLEAR = "unclear"
    NEVER = "never runs"


@dataclass(frozen=True, slots=True)
class Ordered:
    """An order, why, and the place of the score that decides it (None when none does)."""

    order: Order
    why: str
    score: Place | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """An addition to a reported score.

    Attributes:
        binding: the addition.
        trace: how its value came about.
        forward: place of the model call that made it.
    """

    binding: Binding
    trace: Trace
    forward: Place

    def made_with(self, names: Sequence[str]) -> Place:
        """Where the value was made with what is trained: the last place on the way that reads it, or the model call."""
        heads = {name.partition(".")[0] for name in names}
        places = {place for name in heads for place in self.trace.names.get(name, ()) if place <= self.binding.place}
        return max(places, default=self.forward)


@dataclass(frozen=True, slots=True)
class Step:
    """One place on the path that proves something."""

    what: str
    place: Location


@dataclass(frozen=True, slots=True)
class Site:
    """A gradient, or a call that leads to one, in a function.

    Attributes:
        node: the call.
        module: its script.
        steps: the path from it to the gradient.
        model: names of what is trained.
        data: what is trained on: the loss, or the arguments that hold validation tokens.
        closure: where the data stand when the call runs an inner function, as an optimizer does; else None.
    """

    node: ast.Call
    module: Module
    steps: tuple[Step, ...]
    model: tuple[str, ...]
    data: tuple[ast.expr, ...]
    closure: Scope | None = None

    @property
    def start(self) -> tuple[int, int]:
        """Where it begins in the text."""
        return self.node.lineno, self.node.col_offset

    @property
    def scope(self) -> Scope:
        """Where it stands."""
        return self.module.scope_of(self.node)

    @property
    def end(self) -> tuple[int, int]:
        """Where it ends in the text."""
        return self.node.end_lineno or 0, self.node.end_col_offset or 0


class Alternation:
    """Judges a training site against the score additions of its function."""

    def __init__(self, tracer: Tracer, reach: Reach, configuration: Configuration) -> None:
        self._tracer = tracer
        self._reach = reach
        self._configuration = configuration

    def events(self, roots: Sequence[ast.expr], scope: Scope) -> list[Event]:
        """The live additions to what a function reports, each with the model call behind it."""
        found: list[Event] = []
        for binding in self._tracer.accumulated(roots, scope):
            if self._reach.locally(_written(binding.value, scope), scope.module).life is Life.DEAD:
                continue
            trace = self._tracer.trace((binding.value,), scope)
            calls = [_start(call) for call in trace.calls if _start(call) <= binding.place]
            if calls:
                found.append(Event(binding, trace, max(calls)))
        return found

    def judge(self, site: Site, events: Sequence[Event]) -> Ordered:
        """The order of a site and the additions that share a loop with it."""
        trace = self._tracer.trace(site.data, site.closure or site.scope, site.node)
        for event in events:
            found = self._repeated(site, trace, event)
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
        others = arms(index, _written(event.binding.value, site.scope))
        return any(own.get(above, arm) != arm for above, arm in others)

    def _on_both_sides(self, event: Event, site: Site) -> bool:
        """Whether an addition is a sum of what the model gave before the training and of what it gave after."""
        value = event.binding.value
        sides = [value.left, value.right] if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add) else []
        calls = [[_start(call) for call in self._tracer.trace((side,), site.scope).calls] for side in sides]
        before = [bool(each) and max(each) < site.start for each in calls]
        after = [bool(each) and min(each) > site.end for each in calls]
        return any(before) and any(after)

    def _behind(self, site: Site, trace: Trace, events: Sequence[Event]) -> Ordered:
        """Every score comes after the training: of the same tokens, and with what was trained?"""
        for event in events:
            common = _common_loop(site, event)
            if common is not None and any(
                _inside(each.place, common) and each.place > site.end for _, bindings in trace.data for each in bindings
            ):
                return Ordered(Order.UNCLEAR, "the tokens that are trained on may be those of the round before")
            shared = [
                name
                for name, bindings in trace.data & event.trace.data
                if common is not None and all(_inside(each.place, common) for each in bindings)
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

    def _repeated(self, site: Site, trace: Trace, event: Event) -> Ordered | None:
        """Whether a loop repeats both the training and the score over the same tokens."""
        for loop in _loops(site):
            added = _inside(event.binding.place, loop) or self._keeps_last(event, trace, loop, site.scope)
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
            if answer.value > 1:
                why = f"of {answer.value:g} rounds over `{counter}`, a later one scores what an earlier one trained on"
                return Ordered(Order.LATER_EPOCH, why, event.binding.place)
        return None

    @staticmethod
    def _keeps_last(event: Event, trained: Trace, loop: ast.AST, scope: Scope) -> bool:
        """Whether an addition behind a loop takes what the last round computed, of tokens that no round changes."""
        if not _inside(event.forward, loop):
            return False
        data = {binding for _, bindings in trained.data | event.trace.data for binding in bindings}
        rounds = [binding for binding in event.trace.bindings if _inside(binding.place, loop)]
        if not rounds or any(_inside(binding.place, loop) and binding not in rounds for binding in data):
            return False
        held = {name for name, bindings in trained.data & event.trace.data if not bindings & set(rounds)}
        plain = all(binding.replaces and binding.whole for binding in rounds)
        return plain and bool(held) and not any(_conditional(each.value, loop, scope) for each in rounds)

    def _first_only(self, event: Event, counter: str, scope: Scope, start: int) -> bool:
        """Whether the addition runs in the first round alone."""
        for guard in guards(scope.module.index, _written(event.binding.value, scope)):
            first = holds(guard.test, counter, start)
            later = {holds(guard.test, counter, start + rounds) for rounds in range(1, ROUNDS)}
            if first is not None and first not in later:
                return first is guard.wanted
        return False


def optimized(site: ast.Call, scope: Scope, stepping: ast.Call | None = None) -> tuple[tuple[str, ...], bool]:
    """The names of what is changed after a gradient, and whether all are tensors made for it in the function.

    Args:
        site: the gradient.
        scope: the function that makes the optimizer.
        stepping: the optimizer's step, where it runs the gradient itself.
    """
    stepping = stepping or _stepping(site, scope)
    given = _optimizer(stepping)
    arguments = _made_with(given, scope, _start(stepping)) if stepping is not None else []
    if last_name(site.func) == "grad" and len(site.args) > 1:
        arguments = [site.args[1]]
    names = tuple(dict.fromkeys(name for each in arguments for name in _roots(each, scope, 0)))
    if not names and given in scope.parameters:
        # Where it is made, the callers show: see `made_for`.
        return (given,), False
    return names, bool(names) and all(_is_fresh(name, scope) for name in names)


def made_for(names: Sequence[str], scope: Scope, before: tuple[int, int]) -> tuple[str, ...]:
    """The same names, with those of models where one is that of an optimizer of their parameters."""
    found: list[str] = []
    for name in names:
        arguments = _made_with(name, scope, before)
        handled = any(isinstance(each, ast.Attribute) and each.attr in _HANDLING for each in _walk(arguments))
        found += [root for each in arguments for root in _roots(each, scope, 0)] if handled else [name]
    return tuple(dict.fromkeys(found))


def _walk(nodes: Sequence[ast.expr]) -> Iterator[ast.AST]:
    for node in nodes:
        yield from ast.walk(node)


def _stepping(site: ast.Call, scope: Scope) -> ast.Call | None:
    """The `step` of an optimizer that follows the gradient."""
    calls = scope.module.calls("step")
    return next((each for each in calls if _start(each) > _end(site) and scope.module.scope_of(each) is scope), None)


def _optimizer(call: ast.Call | None) -> str:
    """The name of the optimizer that steps, or ""."""
    return dotted(call.func.value) if call is not None and isinstance(call.func, ast.Attribute) else ""


def _made_with(name: str, scope: Scope, before: tuple[int, int]) -> list[ast.expr]:
    """What an optimizer of a name was made with before a place."""
    holder = scope.holder(name)
    made = [each.value for each in holder.bindings.get(name, ()) if each.place <= before] if holder else []
    return [argument for value in made if isinstance(value, ast.Call) for argument in (*value.args, *_values(value))]


def _values(call: ast.Call) -> list[ast.expr]:
    return [keyword.value for keyword in call.keywords if keyword.arg == "params"]


def _roots(node: ast.expr, scope: Scope, depth: int) -> Iterator[str]:
    """Names whose tensors an expression lists: `x` of `[x]`, `model` of `model.parameters()`, through assignments."""
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and each.attr in _HANDLING:
            yield dotted(each.value)
        elif isinstance(each, ast.Name):
            holder = scope.holder(each.id)
            bindings = holder.bindings.get(each.id, []) if holder is scope else []
            listed = [value.value for value in bindings if isinstance(value.value, (ast.List, ast.ListComp))]
            added = [value.value for value in bindings if not value.replaces]
            added += [value.value for value in bindings if not value.whole and _hands_out(value.value)]
            if (listed or added) and depth < 3:
                for value in (*listed, *added):
                    yield from _roots(value, scope, depth + 1)
            else:
                yield each.id


def _hands_out(node: ast.expr) -> bool:
    """Whether it is the parameters of a model, of which a loop takes one after the other."""
    return any(isinstance(each, ast.Attribute) and each.attr in _HANDLING for each in ast.walk(node))


def _is_fresh(name: str, scope: Scope) -> bool:
    """Whether a name is a tensor that the function makes by itself."""
    values = [each.value for each in scope.bindings.get(name, ()) if each.whole]
    return bool(values) and all(
        any(isinstance(each, ast.Call) and last_name(each.func) in _FRESH for each in ast.walk(value))
        for value in values
    )


def _loops(site: Site) -> list[ast.AST]:
    """The loops around a site in its function, innermost first."""
    found: list[ast.AST] = []
    for above in site.module.index.ancestors(site.node):
        if isinstance(above, (ast.FunctionDef, ast.AsyncFunctionDef)):
            break
        if isinstance(above, LOOPS):
            found.append(above)
    return found


def sharing(site: Site, events: Sequence[Event]) -> list[Event]:
    """The additions that share a loop with a site, the model call behind them included."""
    loops = [(_common_loop(site, event), event) for event in events]
    return [event for loop, event in loops if loop is not None and _inside(event.forward, loop)]


def _common_loop(site: Site, event: Event) -> ast.AST | None:
    return next((loop for loop in _loops(site) if _inside(event.binding.place, loop)), None)


def _anew(site: Site, loop: ast.AST) -> bool:
    """Whether every round trains a copy of its own, made in the round of what no round changes."""
    heads = {name.partition(".")[0] for name in site.model}
    made = [site.scope.bindings.get(name, ()) for name in heads]
    return bool(heads) and all(any(_is_copy(each, site, loop) for each in bindings) for bindings in made)


def _is_copy(binding: Binding, site: Site, loop: ast.AST) -> bool:
    value = binding.value
    if not binding.whole or not isinstance(value, ast.Call) or last_name(value.func) not in COPIES:
        return False
    if not _inside(binding.place, loop) or binding.place > site.start or _conditional(value, loop, site.scope):
        return False
    sources = [each.id for each in ast.walk(value) if isinstance(each, ast.Name)]
    return not any(_inside(each.place, loop) for name in sources for each in site.scope.bindings.get(name, ()))


def _conditional(value: ast.expr, loop: ast.AST, scope: Scope) -> bool:
    """Whether a condition inside a loop decides that a value is computed."""
    return any(
        not guard.repeats and _inside(_start(guard.test), loop)
        for guard in guards(scope.module.index, _written(value, scope))
    )


def _written(value: ast.expr, scope: Scope) -> ast.AST:
    """A node of a value that stands in the text; a tuple of arguments that was put together does not."""
    return next((each for each in ast.walk(value) if scope.module.index.parent(each) is not None), value)


def _inside(place: Place, node: ast.AST) -> bool:
    return _start(node) <= place <= _end(node)


def _start(node: ast.AST) -> Place:
    return getattr(node, "lineno", 0), getattr(node, "col_offset", 0)


def _end(node: ast.AST) -> Place:
    return getattr(node, "end_lineno", 0) or 0, getattr(node, "end_col_offset", 0) or 0
