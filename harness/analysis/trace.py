"""How a value came about inside one function: the data names, model calls, slices and masks on the way to it."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from harness.analysis.bindings import Binding
from harness.analysis.index import children, descend, last_name
from harness.analysis.origins import TRAINING, VALIDATION, Origins, reaching
from harness.analysis.program import Program, Scope

NODES_LIMIT = 1_500
_BUILTINS = frozenset(dir(builtins))
_OF_TENSORS = frozenset({"T", "mT", "data", "grad", "shape", "device", "dtype"})


@dataclass
class Trace:
    """What an expression was made of.

    Attributes:
        names: every name, with the places where it is read.
        data: names that hold validation data, each with the bindings in force.
        bindings: every binding passed on the way.
        calls: calls that hand validation data to a model: neither a library's function nor a method of the data.
        parts: slices and masks taken of the data, as text; those that leave out no more than an end are not listed.
    """

    names: dict[str, set[tuple[int, int]]] = field(default_factory=dict)
    data: set[tuple[str, frozenset[Binding]]] = field(default_factory=set)
    bindings: set[Binding] = field(default_factory=set)
    calls: list[ast.Call] = field(default_factory=list)
    parts: set[str] = field(default_factory=set)


class Tracer:
    """Traces expressions through the assignments of the function that they stand in."""

    def __init__(self, program: Program, origins: Origins) -> None:
        self._program = program
        self._origins = origins

    def trace(
        self, nodes: Iterable[ast.expr], scope: Scope, at: ast.AST | None = None, closed: ast.AST | None = None
    ) -> Trace:
        """Everything in the function that expressions depend on, themselves included.

        Args:
            nodes: the expressions.
            scope: where they stand.
            at: the call that runs them where they stand in a closure: its names from around it are followed from there.
            closed: a call whose own arguments are left out.
        """
        found = Trace()
        waiting: list[tuple[ast.AST, Scope]] = [(each, scope) for each in nodes]
        seen: set[ast.AST] = set()
        while waiting and len(seen) < NODES_LIMIT:
            each, own = waiting.pop()
            if each in seen or each is closed:
                continue
            seen.add(each)
            if isinstance(each, ast.Name):
                waiting.extend(self._name(each, own, found, at))
            else:
                waiting.extend((child, own) for child in self._next(each, own, found))
        return found

    def accumulated(self, roots: Iterable[ast.expr], scope: Scope) -> Iterator[Binding]:
        """The additions of validation data (`total += x`, `items.append(x)`) on the way to some values."""
        handed = self._origins.handed_in(scope)
        waiting: list[ast.AST] = list(roots)
        seen: set[str] = set()
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.Name) and node.id not in seen and scope.holder(node.id) is scope:
                seen.add(node.id)
                for binding in (*scope.bindings.get(node.id, ()), *handed.get(node.id, ())):
                    if binding.replaces:
                        waiting.append(binding.value)
                    elif self.holds_validation(binding.value, scope):
                        yield binding
                        waiting.append(binding.value)
            waiting.extend(each for each in children(node) if isinstance(each, (ast.expr, ast.keyword)))

    def of_either(self, node: ast.expr, scope: Scope, at: ast.AST) -> bool:
        """Whether something on the way to a value may be of either split by itself: a call that gives both.

        A name that loops give values of one split and then of the other is none of this.
        """
        for binding in self.trace((node,), scope, at).bindings:
            names = (each for each in descend(binding.value) if isinstance(each, ast.Name))
            if self._mixes(binding.value, scope) and not any(self._mixes(each, scope) for each in names):
                return True
        return False

    def _mixes(self, node: ast.expr, scope: Scope) -> bool:
        kinds = {each.kind for each in self._origins.closed(self._origins.of(node, scope))}
        return {TRAINING, VALIDATION} <= kinds

    def holds_validation(self, node: ast.expr, scope: Scope) -> bool:
        """Whether an expression holds data of the validation split."""
        labels = self._origins.of(node, scope)
        return any(label.kind == VALIDATION for label in self._origins.closed(labels))

    def _next(self, node: ast.AST, scope: Scope, found: Trace) -> Iterator[ast.AST]:
        if isinstance(node, ast.Call):
            self._model_call(node, scope, found)
        elif isinstance(node, ast.Subscript):
            found.parts.update(self._part(node, scope))
            yield node.value
            return
        elif isinstance(node, ast.Attribute) and node.attr not in _OF_TENSORS and self._is_item(node.value, scope):
            # Of a pair that a loop takes, one side may be trained on and the other one scored.
            found.parts.add(f".{node.attr}")
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            found.parts.update(each for side in (node.left, node.right) for each in self._mask(side, scope))
        yield from (child for child in children(node) if isinstance(child, (ast.expr, ast.keyword)))

    def _name(self, node: ast.Name, scope: Scope, found: Trace, at: ast.AST | None) -> Iterator[tuple[ast.expr, Scope]]:
        found.names.setdefault(node.id, set()).add((node.lineno, node.col_offset))
        holder = scope.holder(node.id)
        around = scope if at is None else scope.module.scope_of(at)
        if holder is None or (holder is not scope and holder is not around):
            return
        bindings = frozenset(reaching(node, holder, holder, node if holder is scope else at))
        if self.holds_validation(node, scope):
            found.data.add((node.id, bindings))
        found.bindings |= bindings
        yield from ((each.value, holder) for each in bindings)

    def _model_call(self, node: ast.Call, scope: Scope, found: Trace) -> None:
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        owner = node.func
        while isinstance(owner, (ast.Attribute, ast.Subscript, ast.Call)):
            owner = owner.func if isinstance(owner, ast.Call) else owner.value
        root = owner.id if isinstance(owner, ast.Name) else ""
        if not root or root in _BUILTINS or root in scope.module.imports:
            return
        if isinstance(node.func, ast.Attribute) and self.holds_validation(node.func.value, scope):
            return
        if any(self.holds_validation(each, scope) for each in given):
            found.calls.append(node)

    def _part(self, node: ast.Subscript, scope: Scope) -> Iterator[str]:
        """A slice of validation data that may leave out more than an end of it."""
        if not self.holds_validation(node.value, scope):
            return
        indices = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        for index in indices:
            if isinstance(index, ast.Slice):
                if not (_constant(index.lower) and (_constant(index.upper) or self._whole(node, index.upper, scope))):
                    yield ast.unparse(index)
            elif isinstance(index, ast.Constant) and isinstance(index.value, int) and self._is_item(node.value, scope):
                yield f"[{index.value}]"
            elif isinstance(index, ast.Name):
                yield from self._mask(index, scope) if not _loop_name(index, scope) else ()

    def _is_item(self, node: ast.expr, scope: Scope) -> bool:
        """Whether an expression is the name of an item that a loop takes, which holds validation data."""
        return isinstance(node, ast.Name) and _loop_name(node, scope) and self.holds_validation(node, scope)

    def _whole(self, node: ast.Subscript, upper: ast.expr | None, scope: Scope) -> bool:
        """Whether a slice ends at the tensor's own length, or one before: `y[:, : n - 1]` of `zeros(b, n)`."""
        size = (
            upper.left
            if isinstance(upper, ast.BinOp) and isinstance(upper.op, ast.Sub) and _constant(upper.right)
            else upper
        )
        if not isinstance(size, ast.Name) or not isinstance(node.value, ast.Name):
            return False
        holder = scope.holder(node.value.id)
        made = (
            [each.value for each in holder.bindings.get(node.value.id, ()) if each.whole] if holder is not None else []
        )
        return any(
            isinstance(value, ast.Call)
            and any(isinstance(each, ast.Name) and each.id == size.id for each in value.args)
            for value in made
        )

    def _mask(self, node: ast.expr, scope: Scope) -> Iterator[str]:
        """The slices that a mask lets through: those that are stored into it."""
        if not isinstance(node, ast.Name) or self.holds_validation(node, scope):
            return
        holder = scope.holder(node.id)
        for binding in holder.bindings.get(node.id, ()) if holder is not None else ():
            statement = holder.module.index.statement_of(binding.value) if holder is not None else None
            target = statement.targets[0] if isinstance(statement, ast.Assign) else None
            if isinstance(target, ast.Subscript):
                indices = target.slice.elts if isinstance(target.slice, ast.Tuple) else [target.slice]
                yield from (ast.unparse(index) for index in indices if isinstance(index, ast.Slice))
            elif binding.whole and not _filler(binding.value):
                yield f"mask {node.id}"


def returned(scope: Scope) -> list[ast.expr]:
    """What a function returns."""
    if scope.function is None:
        return []
    nodes = scope.module.index.own(scope.function.node)
    return [node.value for node in nodes if isinstance(node, ast.Return) and node.value is not None]


def _constant(node: ast.expr | None) -> bool:
    """Whether a bound of a slice is absent or a small number."""
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    return node is None or (isinstance(node, ast.Constant) and isinstance(node.value, int) and node.value <= 1)


def _filler(value: ast.expr) -> bool:
    """Whether a value is a tensor of zeros to be filled; `+ mask` of ones lets everything through."""
    return isinstance(value, ast.Call) and last_name(value.func) in {"zeros", "zeros_like", "ones", "ones_like", "full"}


def _loop_name(node: ast.Name, scope: Scope) -> bool:
    """Whether a name counts a loop: an index of one item, no mask."""
    holder = scope.holder(node.id)
    bindings = holder.bindings.get(node.id, ()) if holder is not None else ()
    return any(isinstance(each.block, (ast.For, ast.AsyncFor)) and not each.whole for each in bindings)
