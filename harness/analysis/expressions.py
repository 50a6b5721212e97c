"""What an expression is made of: operators, look-ups, and calls that mean one of them."""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from harness.analysis import flowwords as words
from harness.analysis.forms import (
    counts,
    counts_vocabulary,
    is_none,
    is_shifted,
    leaves_itself_out,
    of_one_table,
    sets_apart,
)
from harness.analysis.index import children, dotted, last_name
from harness.analysis.labels import NOTHING, Flowing, Label, Step, Trace, fork, join, one_after_the_other, union
from harness.analysis.prints import only_reported
from harness.analysis.program import Module

DEPTH_LIMIT = 80
# What a sum of earlier places has not.
_OF_THE_TOKEN = frozenset({Label.TARGET, Label.LOSS, Label.LOSSES})


# By name: see `flow`. The method's argument has the type of the key.
_EXPRESSIONS: Mapping[type[object], str] = {
    ast.Name: "_name",
    ast.Attribute: "_name",
    ast.Subscript: "_subscript",
    ast.BinOp: "_binary",
    ast.UnaryOp: "_unary",
    ast.Compare: "_nothing",
    ast.BoolOp: "_nothing",
    ast.Tuple: "_tuple",
    ast.List: "_tuple",
    ast.IfExp: "_choice",
    ast.ListComp: "_comprehension",
    ast.GeneratorExp: "_comprehension",
    ast.Starred: "_starred",
    ast.NamedExpr: "_walrus",
    ast.Call: "_call",
}


class Expressions(ABC):
    """Reads the expressions of one function; what its names hold is in `names`."""

    def __init__(self, module: Module, names: dict[str, Flowing]) -> None:
        self.module = module
        self.names = names
        self._depth = 0

    @abstractmethod
    def bind(self, target: ast.expr, value: Flowing, source: ast.expr) -> None:
        """Give a name, a tuple of names or an item its value."""

    @abstractmethod
    def iterated(self, node: ast.expr) -> Flowing:
        """One item of what a loop runs over."""

    @abstractmethod
    def own(self, node: ast.Call, arguments: Sequence[Flowing], keywords: Mapping[str, Flowing]) -> Flowing | None:
        """What a call of one of the script's own functions returns; None when it calls none that is followed."""

    @abstractmethod
    def arrive(self, value: Flowing, node: ast.AST) -> None:
        """A value enters the score at a node."""

    def value(self, node: ast.AST | None) -> Flowing:
        """The labels of an expression."""
        method = _EXPRESSIONS.get(type(node))
        if method is None or self._depth > DEPTH_LIMIT:
            return NOTHING
        self._depth += 1
        try:
            flowing: Flowing = getattr(self, method)(node)
            return flowing
        finally:
            self._depth -= 1

    def _name(self, node: ast.Name | ast.Attribute) -> Flowing:
        name = dotted(node)
        if name in self.names:
            return self.names[name]
        if isinstance(node, ast.Attribute):
            return NOTHING if node.attr in words.SHAPES else self.value(node.value)
        return self.seed(node) if words.means_target(name) else NOTHING

    def seed(self, node: ast.AST) -> Flowing:
        """The target itself, first seen here."""
        return Flowing({Label.TARGET: (self.step("the target", node),)})

    def step(self, what: str, node: ast.AST) -> Step:
        """What happens at a node."""
        return Step(what, self.module.at(getattr(node, "lineno", None)), node, self.module)

    def _subscript(self, node: ast.Subscript) -> Flowing:
        base, index = self.value(node.value), self.value(node.slice)
        if base.listed:
            return replace(base, listed=False)
        if base.items and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, int):
            place = node.slice.value
            if -len(base.items) <= place < len(base.items):
                return base.items[place]
        if len(index.items) > 1 and Label.TARGET in index.items[-1].labels and self._names_rows(node.slice):
            return self._taken(base, index, node)
        return self._lookup(base, index, node)

    def _names_rows(self, places: ast.expr) -> bool:
        """Whether the place before the last is that of every row, `rows = arange(n)`, or of the row of a loop."""
        row = places.elts[-2] if isinstance(places, ast.Tuple) and len(places.elts) > 1 else places
        scope = self.module.scope_of(row)
        given = scope.last_given(row)
        if isinstance(given, ast.Call):
            return "arange" in last_name(given.func)
        holder = scope.holder(row.id) if isinstance(row, ast.Name) else None
        bound = holder.bindings.get(row.id, ()) if holder is not None and isinstance(row, ast.Name) else ()
        return any(isinstance(each.block, ast.For) and counts(each.block.iter) for each in bound)

    def _lookup(self, base: Flowing, index: Flowing, node: ast.AST) -> Flowing:
        """`table[key]`: what a table holds where the target leads."""
        labels = dict(base.labels)
        if isinstance(node, ast.Subscript) and self.is_before(node):
            labels.pop(Label.TARGET, None)
        if Label.KEY in index.labels:
            labels[Label.COUNT] = (*index.labels[Label.KEY], self.step("the table is read", node))
        elif Label.BUCKETS in index.labels:
            labels[Label.ROW] = (self.step("the table is read for every token", node),)
        elif Label.HASHED in index.labels or Label.MIXED in index.labels:
            trace = index.labels.get(Label.HASHED) or index.labels[Label.MIXED]
            labels[Label.PAIR] = (*trace, self.step("the table is read", node))
        return Flowing(labels, base.items)

    def _binary(self, node: ast.BinOp) -> Flowing:
        left, right = self.value(node.left), self.value(node.right)
        found = self.operation(type(node.op), left, right, node)
        if leaves_itself_out(node, node.left, node.right):
            known = {label: way for label, way in found.labels.items() if label not in _OF_THE_TOKEN}
            return Flowing(known)
        # How far a loss is from the better one, `low - loss`, is no choice either.
        apart = isinstance(node.op, ast.Sub) and any(
            Label.CHOSEN in one.labels and Label.CHOSEN not in other.labels and Label.LOSS in other.labels
            for one, other in ((left, right), (right, left))
        )
        if Label.CHOSEN in found.labels and (apart or sets_apart(node)):
            return Flowing({label: way for label, way in found.labels.items() if label is not Label.CHOSEN})
        return found

    def operation(self, kind: type[ast.operator], left: Flowing, right: Flowing, node: ast.AST) -> Flowing:
        """Two values under an operator: the target enters a key, the key is cut to buckets."""
        labels = {**right.labels, **left.labels}
        if kind in words.MIXING and Label.TARGET in labels:
            trace = (*labels.pop(Label.TARGET), self.step("the target enters the key", node))
            labels.setdefault(Label.MIXED, trace[-1:])
        if kind is ast.BitXor and Label.MIXED in labels:
            labels.setdefault(Label.HASHED, labels[Label.MIXED])
        if kind in words.REDUCING and Label.MIXED in left.labels:
            labels.setdefault(Label.KEY, labels[Label.MIXED])
        if kind in words.REDUCING and Label.ALL in left.labels:
            labels[Label.BUCKETS] = left.labels[Label.ALL]
        self._shares(kind, left, right, labels, node)
        return Flowing(labels)

    def _shares(
        self, kind: type[ast.operator], left: Flowing, right: Flowing, labels: dict[Label, Trace], node: ast.AST
    ) -> None:
        """Numbers of a table that become probabilities: with or without a prior, by the sum of a row or not."""
        # `total += count` adds counts up; `count += k * p` adds a prior.
        added = isinstance(node, ast.BinOp) or Label.COUNT in left.labels
        raw = Label.COUNT in labels and Label.DIVIDED not in labels and added
        if kind is ast.Add and raw and (Label.COUNT in left.labels) is not (Label.COUNT in right.labels):
            labels[Label.PRIOR] = (self.step("a prior is added", node),)
        if kind is not ast.Div:
            return
        if Label.COUNT in left.labels and Label.PRIOR not in left.labels:
            # What is added to the divisor alone is no prior: `count / (count + size)`.
            labels.pop(Label.PRIOR, None)
        if of_one_table(left.labels.get(Label.COUNT, ()), right.labels.get(Label.MASS, ())):
            labels.pop(Label.COUNT)
            labels.pop(Label.PRIOR, None)
        elif Label.COUNT in left.labels:
            labels[Label.DIVIDED] = (self.step("it is divided", node),)
        # What was divided by the sum of its row once is a share, whatever it is divided by then.
        shared = Label.MASS in left.labels or bool(right.labels.keys() & {Label.MASS, Label.ROW})
        if Label.PICKED in left.labels and not shared:
            step = self.step("it is divided by something else than the sum of its row", node)
            labels[Label.FOREIGN] = (*left.labels[Label.PICKED], step)

    def _nothing(self, node: ast.AST) -> Flowing:
        """Comparisons and the like: evaluated for the calls inside, without labels of their own."""
        for child in children(node):
            self.value(child)
        return NOTHING

    def _unary(self, node: ast.UnaryOp) -> Flowing:
        return self.value(node.operand)

    def _tuple(self, node: ast.Tuple | ast.List) -> Flowing:
        items = tuple(self.value(each) for each in node.elts)
        return Flowing(union(items), items)

    def _choice(self, node: ast.IfExp) -> Flowing:
        arms = self.value(node.body), self.value(node.orelse)
        found = fork((arms[0], self.step("", node.body)), (arms[1], self.step("", node.orelse)))
        return self.by_outcome(node.test, (node.body, node.orelse), found)

    def by_outcome(self, test: ast.expr, arms: tuple[ast.expr, ast.expr], found: Flowing) -> Flowing:
        """`a if a < b else b` with two losses: a choice between them."""
        sides = [test.left, *test.comparators] if isinstance(test, ast.Compare) else []
        if {ast.dump(each) for each in sides} != {ast.dump(each) for each in arms} or not self._distinct(sides):
            return found
        losses = one_after_the_other(_distinct_losses([self.value(each) for each in sides]))
        return Flowing({**found.labels, Label.CHOSEN: (*losses, self.step("the better one is chosen", test))})

    def _comprehension(self, node: ast.ListComp | ast.GeneratorExp) -> Flowing:
        for each in node.generators:
            item = self.iterated(each.iter)
            if counts_vocabulary(each.iter):
                item = Flowing({Label.ALL: (self.step("every token", each.iter),)})
            self.bind(each.target, item, each.iter)
        return self.value(node.elt)

    def _starred(self, node: ast.Starred) -> Flowing:
        return self.value(node.value)

    def _walrus(self, node: ast.NamedExpr) -> Flowing:
        value = self.value(node.value)
        self.bind(node.target, value, node.value)
        return value

    def _call(self, node: ast.Call) -> Flowing:
        name = last_name(node.func)
        base = self.value(node.func.value) if isinstance(node.func, ast.Attribute) else NOTHING
        arguments = [self.value(each) for each in node.args]
        keywords = {each.arg or "": self.value(each.value) for each in node.keywords}
        if name in words.SIZES:
            return NOTHING
        if name == "arange":
            over = any("vocab" in last_name(each).lower() for each in node.args)
            return Flowing({Label.ALL: (self.step("every token", node),)}) if over else NOTHING
        found = self._special(node, name, base, arguments)
        if found is None:
            found = self.own(node, arguments, keywords)
        if found is None:
            found = Flowing(union((base, *arguments, *keywords.values())))
        if is_shifted(node):
            return Flowing({label: way for label, way in found.labels.items() if label is not Label.TARGET})
        return found

    def _special(self, node: ast.Call, name: str, base: Flowing, arguments: Sequence[Flowing]) -> Flowing | None:
        """Calls of libraries that mean an operator, a look-up, a logarithm, a loss or a choice."""
        every = [base, *arguments]
        if name in words.OPERATORS and len(arguments) in {1, 2}:
            left, right = (arguments[0], arguments[1]) if len(arguments) == 2 else (base, arguments[0])
            return self.operation(words.OPERATORS[name], left, right, node)
        if name in words.LOOKUPS and arguments:
            return self._looked_up(base, arguments, node)
        if name in words.CONTAINERS and isinstance(node.func, ast.Attribute):
            self._append(node.func.value, arguments)
            return NOTHING
        if name in words.LOGARITHMS:
            self.arrive(Flowing(union(every)), node)
            return Flowing(union(every))
        return self._losses(node, name, every)

    def _looked_up(self, base: Flowing, arguments: Sequence[Flowing], node: ast.Call) -> Flowing:
        """`T.gather(1, i)`, `np.take(T, i)`, `d.get(k, 0)`; the value at the target is a loss of each token."""
        from_module = isinstance(node.func, ast.Attribute) and dotted(node.func.value) in {"np", "torch", "numpy"}
        table, indices = (arguments[0], arguments[1:]) if from_module else (base, arguments)
        index = Flowing(union(indices))
        along = last_name(node.func) in words.ALONG
        if along and (Label.ROW in table.labels or Label.TARGET in index.labels):
            return self._taken(table, index, node)
        return self._lookup(table, index, node)

    def _taken(self, table: Flowing, index: Flowing, node: ast.AST) -> Flowing:
        """One number of each row: of a table's row a token's number, of anything else a loss of each token."""
        if Label.ROW in table.labels:
            picked = {Label.PICKED: (*table.labels[Label.ROW], self.step("one token's number is taken", node))}
            return Flowing(picked | {label: way for label, way in table.labels.items() if label is Label.MASS})
        found = self._lookup(table, index, node)
        return Flowing({**found.labels, Label.LOSS: (self.step("a loss of each token", node),)})

    def _append(self, container: ast.expr, arguments: Sequence[Flowing]) -> None:
        name = dotted(container)
        if name and arguments:
            item = replace(arguments[-1], listed=True)
            self.names[name] = join(self.names.get(name, NOTHING), item)

    def _losses(self, node: ast.Call, name: str, every: Sequence[Flowing]) -> Flowing | None:
        """Losses of each token, and choices between them."""
        labels = union(every)
        if name in words.LOSSES and any(each.arg == "reduction" and is_none(each.value) for each in node.keywords):
            return Flowing({Label.LOSS: (self.step("a loss of each token", node),)})
        if name in words.TOTALS:
            # One number of a choice is an index, or is added up where it is added to the score.
            if name != "item" and not self._is_beside(node):
                self.arrive(Flowing({label: labels[label] for label in {Label.CHOSEN} & labels.keys()}), node)
            labels.pop(Label.LOSS, None)
            row = labels.pop(Label.ROW, None)
            return Flowing({**labels, Label.MASS: row} if row is not None else labels)
        if name in words.NORMALIZING and Label.ROW in labels:
            return Flowing({**labels, Label.MASS: labels[Label.ROW]})
        if name in words.STACKS and every[1:]:
            rows = _distinct_losses(every[1].items)
            return Flowing({**labels, Label.LOSSES: one_after_the_other(rows)}) if len(rows) > 1 else None
        losses = self._choice_between(node, name, every)
        if not losses:
            return None
        return Flowing({**labels, Label.CHOSEN: (*losses, self.step("the better one is chosen", node))})

    def is_before(self, node: ast.Subscript) -> bool:
        """Whether an item is so many places before one that is taken too: `y[i - 2]`, where `y[i]` is scored."""
        match node.slice:
            case ast.BinOp(ast.Name(name), ast.Sub(), ast.Constant(int(places))) if places > 0:
                base, scope = ast.dump(node.value), self.module.scope_of(node)
                items = (self.module.index.parent(each) for each in self.module.loads(name))
                return any(
                    isinstance(each, ast.Subscript)
                    and isinstance(each.slice, ast.Name)
                    and ast.dump(each.value) == base
                    and self.module.scope_of(each) is scope
                    for each in items
                )
        return False

    def _is_beside(self, node: ast.Call) -> bool:
        """Whether a total goes to a name that the function only prints, or takes the gradient of."""
        added = self.module.index.statement_of(node)
        targets = added.targets if isinstance(added, ast.Assign) else []
        targets = [added.target] if isinstance(added, ast.AugAssign) else targets
        scope = self.module.scope_of(node)
        return bool(targets) and all(isinstance(each, ast.Name) and only_reported(each.id, scope) for each in targets)

    def _choice_between(self, node: ast.Call, name: str, every: Sequence[Flowing]) -> Trace:
        """The losses that a call chooses between, or nothing."""
        losses = _distinct_losses(every)
        if len(losses) > 1 and len(node.args) > 1 and (name in words.CHOICES or self._picks(node, name, every)):
            return one_after_the_other(losses)
        return union(every).get(Label.LOSSES, ()) if name in words.CHOICES_OVER else ()

    def _picks(self, node: ast.Call, name: str, every: Sequence[Flowing]) -> bool:
        """`where(a < b, a, b)` with two losses: the test compares the losses themselves."""
        if name != "where" or len(node.args) != 3 or len(_distinct_losses(every[2:])) < 2:
            return False
        return any(self._distinct([test.left, *test.comparators]) for test in self._comparisons(node.args[0]))

    def _distinct(self, nodes: Iterable[ast.expr]) -> bool:
        """Whether there are two different losses of each token among some expressions."""
        return len(_distinct_losses([self.value(each) for each in nodes])) > 1

    def _comparisons(self, test: ast.expr) -> list[ast.Compare]:
        """The comparisons that a condition is, or that its name was given: `better = a < b`, `better & seen`.

        Those of a mask are those of the places that it leaves: `places[better]`, `nonzero(better)`, `where(better)[0]`.
        """
        if isinstance(test, ast.Name):
            scope = self.module.scope_of(test)
            holder = scope.holder(test.id)
            given = [each.value for each in holder.bindings.get(test.id, ())] if holder is scope else []
            return [each for value in given if not isinstance(value, ast.Name) for each in self._comparisons(value)]
        if isinstance(test, ast.BinOp) and isinstance(test.op, ast.BitAnd):
            return [*self._comparisons(test.left), *self._comparisons(test.right)]
        if isinstance(test, ast.Subscript):
            return [*self._comparisons(test.value), *self._comparisons(test.slice)]
        if isinstance(test, ast.Call) and last_name(test.func) in words.PLACES:
            given = [test.func.value] if isinstance(test.func, ast.Attribute) else []
            return [each for value in (*given, *test.args[:1]) for each in self._comparisons(value)]
        return [test] if isinstance(test, ast.Compare) else []


def _distinct_losses(values: Iterable[Flowing]) -> Collection[Trace]:
    """The losses among some values, by the nodes that gave them: one line may compute two."""
    traces = (value.labels[Label.LOSS] for value in values if Label.LOSS in value.labels)
    return {tuple(id(step.node) for step in trace): trace for trace in traces}.values()
