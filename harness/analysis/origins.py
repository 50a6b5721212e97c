"""Where the data in an expression comes from: the validation tokens, the training tokens, or a parameter.

Followed backwards from the expression, on demand: through names (the assignments that reach the place, not all),
slices, calls, attributes and the returned values of the program's own functions. Indices, shapes and lengths carry no
data. A label names the file pattern it began with, or the parameter that a caller has to explain.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from harness.analysis.answers import Setting
from harness.analysis.bindings import Binding
from harness.analysis.index import Function, children, dotted, last_name, place_of
from harness.analysis.program import Module, Program, Scope, argument, default_of
from harness.model import Location

VALIDATION, TRAINING, PARAMETER = "validation", "training", "parameter"
DEPTH_LIMIT = 60
WORK_LIMIT = 6_000
STORES_LIMIT = 12
PATTERN_LIMIT_CHARACTERS = 200

_VALIDATION_FILES = re.compile(r"fineweb_val|(?:^|[/_])val(?:id(?:ation)?)?_[*\d%{]|val_\*|_val_")
_TRAINING_FILES = re.compile(r"fineweb_train|(?:^|[/_])train_[*\d%{]|train_\*|_train_")
# What these give is a size or a place, not data.
_SIZES = frozenset("shape ndim dtype device numel size dim nbytes itemsize element_size stride data_ptr".split())  # noqa: SIM905
_SIZE_CALLS = frozenset(
    """
    len range type isinstance id hasattr zeros ones empty full arange zeros_like ones_like empty_like full_like
    rand_like randn_like randint_like new_zeros new_ones new_empty new_full
    random_ fill_ zero_ uniform_ normal_ bernoulli_
    """.split()  # noqa: SIM905 - one word a line would hide the list
)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_LOOPS = (ast.For, ast.AsyncFor, ast.While)


@dataclass(frozen=True, slots=True)
class Label:
    """One origin of data.

    Attributes:
        kind: VALIDATION, TRAINING or PARAMETER.
        place: where the file pattern stands; None for a parameter.
        function: the function whose parameter it is.
        name: the parameter.
    """

    kind: str
    place: Location | None = None
    function: Function | None = None
    name: str = ""


Skipped: TypeAlias = Callable[[ast.AST, Module], bool]
Labels: TypeAlias = frozenset[Label]
NONE: Labels = frozenset()


# What evidence gives the environment variable that a call reads.
Given: TypeAlias = Callable[[ast.Call, Scope], Setting | None]


def unstated(node: ast.Call, scope: Scope) -> None:
    """Every variable may have its default."""


def never(node: ast.AST, module: Module) -> bool:  # noqa: ARG001 - one of the kinds of `Skipped`
    """Every assignment may run."""
    return False


# By name: a table of bound methods would hold all that is known of a program in a circle.
_KINDS: Mapping[type[ast.expr], str] = {
    ast.Constant: "_pattern",
    ast.Name: "_name",
    ast.Attribute: "_attribute",
    ast.Call: "_call",
    ast.Subscript: "_part",
    ast.ListComp: "_element",
    ast.SetComp: "_element",
    ast.GeneratorExp: "_element",
    ast.IfExp: "_choice",
    ast.Lambda: "_nothing",
    ast.Compare: "_nothing",
}


def _named(text: str, place: Location) -> Labels:
    """The split that a file pattern names."""
    if len(text) > PATTERN_LIMIT_CHARACTERS:
        return NONE
    if _VALIDATION_FILES.search(text):
        return frozenset([Label(VALIDATION, place)])
    return frozenset([Label(TRAINING, place)]) if _TRAINING_FILES.search(text) else NONE


class Origins:
    """Answers for the expressions of one program; remembered.

    Args:
        program: the program.
        skipped: whether the configuration shows that an assignment never runs.
        given: what the run gives an environment variable: a file pattern there goes before the default's.
    """

    def __init__(self, program: Program, skipped: Skipped = never, given: Given = unstated) -> None:
        self._program = program
        self._skipped = skipped
        self._given = given
        self._known: dict[ast.expr, Labels] = {}
        self._returned: dict[Function, Labels] = {}
        self._handed: dict[Scope, dict[str, list[Binding]]] = {}
        self._closed: dict[tuple[Labels, int], Labels] = {}
        self._passed: dict[Label, Labels] = {}
        self._work = 0

    def of(self, node: ast.expr, scope: Scope) -> Labels:
        """The origins of an expression's data, parameters of the functions around it left as such."""
        self._work = 0
        return self._of(node, scope, 0)

    def closed(self, labels: Labels, calls: int = 5) -> Labels:
        """The same with every parameter replaced by what all its callers pass; remembered."""
        key = (labels, calls)
        if key not in self._closed:
            for _ in range(calls):
                opened = [label for label in labels if label.kind == PARAMETER]
                if not opened:
                    break
                labels = labels.difference(opened).union(*(self.passed(label) for label in opened))
            self._closed[key] = frozenset(label for label in labels if label.kind != PARAMETER)
        return self._closed[key]

    def passed(self, label: Label) -> Labels:
        """What callers pass for a parameter; remembered."""
        if label not in self._passed:
            self._passed[label] = self._from_callers(label)
        return self._passed[label]

    def _from_callers(self, label: Label) -> Labels:
        if label.function is None:
            return NONE
        found: set[Label] = set()
        for module, call, filled in self._program.call_sites(label.function):
            value = argument(call, label.function, label.name, filled)
            if value is not None:
                found |= self.of(value, module.scope_of(call))
        return frozenset(found)

    def returned(self, function: Function, module: Module) -> Labels:
        """The origins of what a function returns, in terms of its parameters."""
        self._work = 0
        return self._summary(function, module, 0)

    def _of(self, node: ast.expr, scope: Scope, depth: int) -> Labels:
        if node not in self._known:
            self._work += 1
            if depth > DEPTH_LIMIT or self._work > WORK_LIMIT:
                return NONE
            # Until it is known, for loops that feed a name with itself.
            self._known[node] = NONE
            self._known[node] = self._followed(node, scope, depth + 1)
        return self._known[node]

    def _followed(self, node: ast.expr, scope: Scope, depth: int) -> Labels:
        method = _KINDS.get(type(node))
        if method is not None:
            followed: Labels = getattr(self, method)(node, scope, depth)
            return followed
        return self._union((each for each in children(node) if isinstance(each, ast.expr)), scope, depth)

    def _part(self, node: ast.Subscript, scope: Scope, depth: int) -> Labels:
        entry = self._entry(node, scope)
        return self._of(node.value if entry is None else entry, scope, depth)

    @staticmethod
    def _entry(node: ast.Subscript, scope: Scope) -> ast.expr | None:
        """The one value that a written table holds under a written key: `conf["train_files"]`."""
        holder = scope.holder(node.value.id) if isinstance(node.value, ast.Name) else None
        bound = (
            holder.bindings.get(node.value.id, []) if holder is not None and isinstance(node.value, ast.Name) else []
        )
        table = bound[0].value if len(bound) == 1 and bound[0].whole else node.value
        if not isinstance(table, ast.Dict) or not isinstance(node.slice, ast.Constant):
            return None
        keys = [key.value if isinstance(key, ast.Constant) else None for key in table.keys]
        return table.values[keys.index(node.slice.value)] if keys.count(node.slice.value) == 1 else None

    def _element(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp, scope: Scope, depth: int) -> Labels:
        return self._of(node.elt, scope, depth)

    def _choice(self, node: ast.IfExp, scope: Scope, depth: int) -> Labels:
        arms = [arm for arm in (node.body, node.orelse) if not self._skipped(arm, scope.module)]
        return self._union(arms, scope, depth)

    def _nothing(self, node: ast.expr, scope: Scope, depth: int) -> Labels:  # noqa: ARG002 - one of the kinds
        return NONE

    def _union(self, nodes: Iterable[ast.expr], scope: Scope, depth: int) -> Labels:
        return NONE.union(*(self._of(each, scope, depth) for each in nodes))

    def _pattern(self, node: ast.Constant, scope: Scope, depth: int) -> Labels:  # noqa: ARG002 - one of the kinds
        """A file pattern names its split."""
        return _named(node.value, scope.module.at(node.lineno)) if isinstance(node.value, str) else NONE

    def _name(self, node: ast.Name, scope: Scope, depth: int) -> Labels:
        holder = scope.holder(node.id)
        if holder is None:
            return self._global(node.id, scope, depth)
        bindings = list(reaching(node, scope, holder))
        if len(bindings) > 1:
            bindings = [each for each in bindings if not self._skipped(each.value, holder.module)]
        labels = self._bound(bindings, holder, depth)
        labels |= self._bound(self.handed_in(holder).get(node.id, ()), holder, depth)
        if node.id in holder.parameters and not any(each.replaces for each in bindings):
            labels |= {Label(PARAMETER, None, holder.function, node.id)}
        return labels

    def handed_in(self, scope: Scope) -> Mapping[str, list[Binding]]:
        """What functions of the program add to the names that are passed to them, `add_to(total, loss)`."""
        if scope in self._handed or scope.function is None:
            return self._handed.get(scope, {})
        table = self._handed[scope] = {}
        for node in scope.module.index.own(scope.function.node):
            if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
                continue
            call = node.value
            for module, function in self._program.named(last_name(call.func), scope):
                bindings = module.scope(function).bindings
                for parameter in function.parameters:
                    value = argument(call, function, parameter, 0)
                    added = any(not each.replaces for each in bindings.get(parameter, ()))
                    if added and isinstance(value, ast.Name):
                        others = ast.Tuple([each for each in call.args if each is not value], ast.Load())
                        place = (call.end_lineno or 0, call.end_col_offset or 0)
                        table.setdefault(value.id, []).append(
                            Binding(place, others, whole=False, replaces=False, block=None)
                        )
        return table

    def _global(self, name: str, scope: Scope, depth: int) -> Labels:
        """A name from another module of the folder."""
        stem, _, original = scope.module.imports.get(name, "").rpartition(".")
        module = self._program.modules.get(stem.rpartition(".")[2]) if stem else None
        return (
            NONE
            if module is None
            else self._bound(module.scope(None).bindings.get(original, []), module.scope(None), depth)
        )

    def _bound(self, bindings: Iterable[Binding], scope: Scope, depth: int) -> Labels:
        return self._union((each.value for each in bindings), scope, depth)

    def _attribute(self, node: ast.Attribute, scope: Scope, depth: int) -> Labels:
        if node.attr in _SIZES:
            return NONE
        found: Labels = NONE
        for module in self._program.modules.values():
            stores = module.stores(node.attr)[:STORES_LIMIT]
            for target, binding in stores:
                if self._is_anothers(node, target, scope, module.scope_of(target)):
                    continue
                found |= self._bound([binding], module.scope_of(target), depth)
            for field in module.fields.get(node.attr, [])[:STORES_LIMIT]:
                found |= self._of(field.value, module.scope(None), depth)
        # What a constructor was given is not followed: the constructor's caller need not be the one at hand.
        found = frozenset(label for label in found if label.kind != PARAMETER)
        return found or self._of(node.value, scope, depth)

    def _is_anothers(self, read: ast.Attribute, stored: ast.Attribute, here: Scope, there: Scope) -> bool:
        """Whether `self.x` is read in a class that has nothing to do with the one that stores it."""
        if last_name(read.value) != "self" or last_name(stored.value) != "self":
            return False
        owners = [
            scope.function.owner.rpartition(".")[2] if scope.function is not None else "" for scope in (here, there)
        ]
        return all(owners) and owners[1] not in self._program.family(owners[0])

    def _call(self, node: ast.Call, scope: Scope, depth: int) -> Labels:
        name = last_name(node.func)
        if name in _SIZE_CALLS or name in _SIZES:
            return NONE
        stated = self._given(node, scope)
        if stated is not None and (labels := _named(stated.value, stated.location)):
            return labels
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        if name == "new_tensor":
            # Of the tensor that it is called on, it takes the kind of number alone.
            return self._union(given, scope, depth)
        if isinstance(node.func, ast.Attribute):
            owner = NONE if dotted(node.func.value) in scope.module.imports else self._of(node.func.value, scope, depth)
            if any(label.kind != PARAMETER for label in owner):
                return owner
            return owner | self._union(given, scope, depth) or self._own(node, scope, depth)
        targets = self._program.named(name, scope)
        return self._own(node, scope, depth) if targets else self._union(given, scope, depth)

    def _own(self, node: ast.Call, scope: Scope, depth: int) -> Labels:
        """What the program's own functions return to this call."""
        found: set[Label] = set()
        for module, function in self._program.called(node, scope)[:STORES_LIMIT]:
            for label in self._summary(function, module, depth):
                if label.kind != PARAMETER or label.function is not function:
                    found.add(label)
                    continue
                value = argument(node, function, label.name, int(bool(function.owner)))
                default = default_of(function, label.name)
                if value is not None:
                    found |= self._of(value, scope, depth)
                elif default is not None:
                    found |= self._of(default, module.scope(None), depth)
        return frozenset(found)

    def _summary(self, function: Function, module: Module, depth: int) -> Labels:
        """What a function returns, in terms of its parameters."""
        if function not in self._returned:
            self._returned[function] = NONE
            scope = module.scope(function)
            given = [
                node.value
                for node in module.index.own(function.node)
                if isinstance(node, (ast.Return, ast.Yield)) and node.value is not None
            ]
            self._returned[function] = self._union(given, scope, depth)
        return self._returned[function]


def reaching(node: ast.Name, scope: Scope, holder: Scope, at: ast.AST | None = None) -> Iterator[Binding]:
    """The bindings of a name that can be in force at a place, its own where none is given.

    Backwards from the place: up to the nearest one that replaces the value on every way to it. In a loop without such
    a one, the later bindings of the loop as well. From another scope, all of them.
    """
    at = at or node
    bindings = holder.bindings.get(node.id, [])
    if holder is not scope or not bindings:
        yield from bindings
        return
    around = [at, *_around(scope, at)]
    place = place_of(at)
    for binding in reversed(bindings):
        if binding.place <= place:
            yield binding
            if binding.replaces and binding.block in around:
                return
    loops = [each for each in around if isinstance(each, _LOOPS)]
    if loops:
        end = (loops[-1].end_lineno or 0, loops[-1].end_col_offset or 0)
        yield from (each for each in bindings if place < each.place <= end)


def _around(scope: Scope, node: ast.AST) -> Iterator[ast.AST]:
    """What holds a node, up to its function."""
    for above in scope.module.index.ancestors(node):
        yield above
        if isinstance(above, _FUNCTIONS):
            return
