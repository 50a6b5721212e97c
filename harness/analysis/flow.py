"""Where the realized target flows inside scoring code: labels that one statement after the other hands on.

A small abstract interpreter. Each value carries *labels*, each label the trace of lines that gave it: the target
itself, a key that the target was mixed into, a number that a table holds at that key, a loss of each token. Loops
are read once, from top to bottom, so that what a score-first loop stores *after* scoring is not seen by the
scoring above it. Calls of the script's own functions are followed, by position and name of the parameters.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from harness.analysis import flowwords as words
from harness.analysis.expressions import Expressions
from harness.analysis.forms import ends_before, is_guess
from harness.analysis.index import Function, descend, dotted, last_name
from harness.analysis.labels import NOTHING, Flowing, Label, Trace, fork, join, union
from harness.analysis.program import Module, Program

CALL_DEPTH = 6
CANDIDATES_LIMIT = 3
BLOCKS_LIMIT = 100


# Whether a condition in the function around a node keeps it from running.
Skipped: TypeAlias = Callable[[ast.AST, Module], bool]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A label that reached the score, and the lines that prove it, the last one there.

    PRIOR stands for a COUNT that the model's own probability was added to.
    """

    label: Label
    steps: Trace


class Flow:
    """Interprets functions of a program and collects what arrives in the score.

    Calls of functions that are not among the `followed` are entered only with something more than the target. Blocks
    that are `skipped` are left out.
    """

    def __init__(self, program: Program, followed: Collection[ast.AST], skipped: Skipped | None = None) -> None:
        self.program = program
        self.followed = followed
        self.skipped = skipped
        self.arrivals: list[Arrival] = []
        self._known: dict[tuple[ast.AST, tuple[tuple[str, frozenset[Label]], ...]], Flowing] = {}
        self._active: set[ast.AST] = set()

    def run(self, module: Module, function: Function, given: Mapping[str, Flowing] | None = None) -> Flowing:
        """What the function returns when its parameters hold the given values."""
        given = {name: value for name, value in (given or {}).items() if value.labels or value.items}
        key = (function.node, tuple(sorted((name, frozenset(value.labels)) for name, value in given.items())))
        if key in self._known:
            return self._known[key]
        if function.node in self._active or len(self._active) >= CALL_DEPTH:
            return NOTHING
        self._active.add(function.node)
        frame = Frame(self, module, function, dict(given))
        try:
            frame.block(function.node.body)
        except RecursionError:
            return NOTHING  # written to nest deeper than any scoring code; what was seen until here stays seen
        finally:
            self._active.discard(function.node)
        self._known[key] = frame.returned
        return frame.returned


# By name: a table of bound methods would hold its frame, and all that it read, in a circle.
_STATEMENTS: Mapping[type[ast.AST], str] = {
    ast.Assign: "_assign",
    ast.AnnAssign: "_annotated",
    ast.AugAssign: "_augmented",
    ast.If: "_if",
    ast.Match: "_match",
    ast.For: "_for",
    ast.While: "_while",
    ast.With: "_with",
    ast.Try: "_try",
    ast.Return: "_return",
    ast.Expr: "_expression",
}


_ORDERS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


class Frame(Expressions):
    """One function being read: its statements in order, and what it returns."""

    def __init__(self, flow: Flow, module: Module, function: Function, names: dict[str, Flowing]) -> None:
        super().__init__(module, names)
        self.flow = flow
        self.function = function
        self.returned = NOTHING
        self._blocks = 0

    def block(self, statements: Iterable[ast.stmt]) -> None:
        """Read statements in order; a chain of a hundred branches is left unread."""
        self._blocks += 1
        for statement in statements if self._blocks <= BLOCKS_LIMIT else ():
            method = _STATEMENTS.get(statement.__class__)
            if method is not None:
                getattr(self, method)(statement)
        self._blocks -= 1

    def _assign(self, node: ast.Assign) -> None:
        value = self._kept_best(node, self.value(node.value))
        for target in node.targets:
            self.bind(target, value, node.value)
            self._better_stored(target, node.value)

    def _kept_best(self, node: ast.Assign, value: Flowing) -> Flowing:
        """`best = minimum(best, loss)`: the best of all passes so far."""
        call = node.value
        if not isinstance(call, ast.Call) or last_name(call.func) not in words.KEPT or Label.LOSS not in value.labels:
            return value
        kept = {root(target) for target in node.targets} & {root(each) for each in call.args}
        # The best mean of all epochs is a name; the best loss of each token is an item.
        single = last_name(call.func) == "min" and not all(isinstance(each, ast.Subscript) for each in node.targets)
        if not kept - {""} or len(call.args) != 2 or single:
            return value
        step = self.step("the best of all passes so far is kept", node)
        return Flowing({**value.labels, Label.CHOSEN: (*value.labels[Label.LOSS], step)}, value.items)

    def _annotated(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.bind(node.target, self.value(node.value), node.value)

    def _augmented(self, node: ast.AugAssign) -> None:
        added = self.value(node.value)
        name = root(node.target)
        if words.ACCUMULATOR.search(name):
            self.arrive(added, node)
        if isinstance(node.target, ast.Subscript):
            self._store(node.target, added)
            return
        before = self.names.get(dotted(node.target), NOTHING)
        self.names[dotted(node.target)] = self.operation(type(node.op), before, added, node)

    def _if(self, node: ast.If) -> None:
        self.value(node.test)
        self._better_kept(node)
        self._better_returned(node)
        before = self.names
        if self._is_skipped(node.body):
            self.block(node.orelse)
            return
        if self._is_skipped(node.orelse):
            self.block(node.body)
            return
        after = self._behind(node.body, before)
        otherwise = self._behind(node.orelse, before)
        # An `if` without `else` stands for itself: what it leaves alone holds in any case.
        self.names = self._either((after, node.body[0]), (otherwise, node.orelse[0] if node.orelse else node))

    def _match(self, node: ast.Match) -> None:
        self.value(node.subject)
        before = self.names
        bodies = [case.body for case in node.cases if not self._is_skipped(case.body)]
        ways = [(self._behind(body, before), body[0]) for body in bodies]
        last: tuple[dict[str, Flowing], ast.stmt] = (before, node)
        for way in reversed(ways):
            last = (self._either(way, last), way[1])
        self.names = last[0]

    def _either(
        self, first: tuple[dict[str, Flowing], ast.stmt], second: tuple[dict[str, Flowing], ast.stmt]
    ) -> dict[str, Flowing]:
        """What names hold behind one of two branches, each with a statement that stands for it."""
        (after, one), (otherwise, other) = first, second
        marks = self.step("", one), self.step("", other)
        names = {**otherwise, **after}
        for name in names:
            here, there = after.get(name, NOTHING), otherwise.get(name, NOTHING)
            if here is not there:
                names[name] = fork((here, marks[0]), (there, marks[1]))
        return names

    def _is_skipped(self, block: Sequence[ast.stmt]) -> bool:
        return bool(block) and self.flow.skipped is not None and self.flow.skipped(block[0], self.module)

    def _better_kept(self, node: ast.If) -> None:
        """`if new_nll < old_nll: nll[i] = new_nll`: the better of two losses of one token is kept."""
        test = node.test
        if not isinstance(test, ast.Compare) or not isinstance(test.ops[0], _ORDERS):
            return
        sides = [dotted(each) for each in (test.left, test.comparators[0])]
        if len({*sides}) < 2 or not all(words.TOKEN_LOSS.search(side) for side in sides):
            return
        for line in node.body:
            target = line.targets[0] if isinstance(line, ast.Assign) else None
            kept = isinstance(line, ast.Assign) and dotted(line.value) in sides
            if kept and isinstance(target, ast.Subscript) and words.ACCUMULATOR.search(root(target)):
                compared = self.step("two losses of a token are compared", node.test)
                self.arrive(Flowing({Label.CHOSEN: (compared, self.step("the better one is kept", line))}), line)

    def _better_returned(self, node: ast.If) -> None:
        """`if a < b: return a` above `return b`: a choice between losses is returned."""
        block = getattr(self.module.index.parent(node), "body", [])
        below = block[block.index(node) + 1 :] if node in block else []
        arms = [each.value for each in (node.body[-1], *node.orelse, *below) if isinstance(each, ast.Return)]
        if len(arms) > 1 and arms[0] is not None and arms[1] is not None:
            self.returned = join(self.returned, self.by_outcome(node.test, (arms[0], arms[1]), NOTHING))

    def _better_stored(self, target: ast.expr, value: ast.expr) -> None:
        """`nll[better] = other[better]` with `better = other < nll`: the same, for many tokens at once."""
        if not isinstance(target, ast.Subscript) or not isinstance(value, ast.Subscript):
            return
        if not words.ACCUMULATOR.search(root(target)):
            return
        for test in self._comparisons(target.slice):
            sides = [test.left, *test.comparators]
            names = {dotted(side) for side in sides}
            losses = self._distinct(sides) or all(words.TOKEN_LOSS.search(name) for name in names)
            if len(names) == 2 and losses and root(value) in names - {""} and isinstance(test.ops[0], _ORDERS):
                compared = self.step("two losses of each token are compared", test)
                self.arrive(Flowing({Label.CHOSEN: (compared, self.step("the better one is kept", value))}), value)

    def _behind(self, body: Sequence[ast.stmt], before: Mapping[str, Flowing]) -> dict[str, Flowing]:
        """What the names hold behind a branch."""
        self.names = dict(before)
        self.block(body)
        return self.names

    def _for(self, node: ast.For) -> None:
        self.bind(node.target, self.iterated(node.iter), node.iter)
        self.block(node.body)
        self.block(node.orelse)

    def _while(self, node: ast.While) -> None:
        self.block(node.body)
        self.block(node.orelse)

    def _with(self, node: ast.With) -> None:
        self.block(node.body)

    def _try(self, node: ast.Try) -> None:
        for part in (node.body, *(handler.body for handler in node.handlers), node.orelse, node.finalbody):
            self.block(part)

    def _return(self, node: ast.Return) -> None:
        if node.value is not None:
            self.returned = join(self.returned, self.value(node.value))

    def _expression(self, node: ast.Expr) -> None:
        self.value(node.value)

    def bind(self, target: ast.expr, value: Flowing, source: ast.expr) -> None:
        """Give a name, each of several, or an item its value; `source` is the expression that it comes from."""
        if isinstance(target, (ast.Tuple, ast.List)):
            parts = value.items if len(value.items) == len(target.elts) else (Flowing(value.labels),) * len(target.elts)
            sources = source.elts if isinstance(source, (ast.Tuple, ast.List)) else []
            if len(sources) != len(target.elts):
                sources = [source] * len(target.elts)
            for each, part, given in zip(target.elts, parts, sources, strict=True):
                self.bind(each, part, given)
        elif isinstance(target, ast.Subscript):
            self._store(target, self._named(root(target), value, source))
        elif isinstance(target, ast.Starred):
            self.bind(target.value, value, source)
        else:
            self.names[dotted(target)] = self._named(dotted(target), value, source)

    def _named(self, name: str, value: Flowing, source: ast.expr) -> Flowing:
        """A name that says *target* is one, when it was cut out of something or computed by a call."""
        said = not value.labels and words.means_target(name.rpartition(".")[2])
        parts = [source, *callees(source)]
        cut = [part for part in parts if isinstance(part, ast.Subscript)]
        known = is_guess(source) or self._is_of_inputs(source) or any(map(self.is_before, cut))
        return self.seed(source) if said and cut and not known else value

    def _is_of_inputs(self, source: ast.expr) -> bool:
        """Whether a value is looked up at all tokens but the last: `group[tokens[:-1]]`, a label of the inputs."""
        scope = self.module.scope_of(source)
        places = (each.slice for each in descend(source) if isinstance(each, ast.Subscript))
        cuts = (scope.last_given(place) for place in places if not isinstance(place, ast.Slice))
        return any(ends_before(each.slice) for cut in cuts for each in descend(cut) if isinstance(each, ast.Subscript))

    def _store(self, target: ast.Subscript, value: Flowing) -> None:
        """`table[key] = value`: results keep their labels; a table that the target indexes is being updated."""
        index = self.value(target.slice).labels
        name = root(target)
        if index.keys() & {Label.TARGET, Label.MIXED, Label.HASHED, Label.KEY} or name.startswith("self."):
            return
        if words.ACCUMULATOR.search(name):
            self.arrive(value, target)
        self.names[name] = join(self.names.get(name, NOTHING), value)

    def iterated(self, node: ast.expr) -> Flowing:
        """One item of what a loop runs over; `enumerate` and `zip` give several side by side."""
        if isinstance(node, ast.Call) and last_name(node.func) in {"enumerate", "zip"}:
            parts = tuple(self.value(each) for each in node.args if not isinstance(each, ast.Starred))
            return Flowing(items=(NOTHING, *parts[:1]) if last_name(node.func) == "enumerate" else parts)
        return self.value(node)

    def own(self, node: ast.Call, arguments: Sequence[Flowing], keywords: Mapping[str, Flowing]) -> Flowing | None:
        """A call of a function of the scripts: what it returns for these arguments."""
        found: Flowing | None = None
        carried = union((*arguments, *keywords.values())).keys() - {Label.TARGET}
        targets = self.flow.program.called(node, self.module.scope(self.function))
        for module, function in targets if len(targets) <= CANDIDATES_LIMIT else ():
            if not carried and function.node not in self.flow.followed:
                continue
            names = [name for name in function.parameters if not (function.owner and name in {"self", "cls"})]
            given = {**dict(zip(names, arguments, strict=False)), **keywords}
            result = self._returned_here(self.flow.run(module, function, given), given.values(), node)
            found = result if found is None else join(found, result)
        return found

    def _returned_here(self, value: Flowing, given: Iterable[Flowing], node: ast.Call) -> Flowing:
        """What a call returns: a loss that the function computes is another one at each call."""
        loss = value.labels.get(Label.LOSS)
        if loss is None or any(each.labels.get(Label.LOSS) == loss for each in given):
            return value
        return replace(value, labels={**value.labels, Label.LOSS: (*loss, self.step("", node))})

    def arrive(self, value: Flowing, node: ast.AST) -> None:
        """Remember what enters the score here."""
        for label in (Label.COUNT, Label.PAIR, Label.CHOSEN, Label.FOREIGN):
            if label in value.labels:
                steps = (*value.labels[label], self.step("it enters the score", node))
                smoothed = label is Label.COUNT and Label.PRIOR in value.labels
                self.flow.arrivals.append(Arrival(Label.PRIOR if smoothed else label, steps))


def root(node: ast.expr) -> str:
    """The name that a chain of subscripts begins with: `self.table` of `self.table[order][key]`."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return dotted(node)


def callees(node: ast.expr) -> Iterator[ast.expr]:
    """What methods are called on, from the outside in: of `a[1:].to(x).long()` the two calls' objects."""
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        node = node.func.value
        yield node
