"""What the printed scores of a program are made of, followed backwards: a statistic beside them is no score.

From the values that are printed as bits per byte through names, entries of dictionaries, members of tuples, attributes
and the returned values of the program's functions; whatever cannot be told apart is followed. So what is left out of
a function that makes a part of a score has no part in it: an oracle's loss that is printed beside, or a margin.
"""

from __future__ import annotations

import ast
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from harness.analysis import flowwords as words
from harness.analysis.bindings import Binding
from harness.analysis.index import Function, children, descend, dotted, last_name
from harness.analysis.prints import REPORTERS
from harness.analysis.program import Module, Program, Scope, argument, default_of
from harness.analysis.reports import printed
from harness.analysis.trace import returned

NODES_LIMIT = 60_000
CANDIDATES_LIMIT = 12
# A member of a tuple, an entry of a dictionary, or all of a value.
Key: TypeAlias = int | str | None
_MAKING_LOSSES = words.LOSSES | words.LOGARITHMS | words.ALONG
_WRITERS = frozenset({"dump", "dumps"})
_known: weakref.WeakKeyDictionary[Program, ScoreSlice] = weakref.WeakKeyDictionary()


def score_slice(program: Program) -> ScoreSlice:
    """The slice of a program; remembered."""
    if program not in _known:
        _known[program] = ScoreSlice(program)
    return _known[program]


class ScoreSlice:
    """The expressions, names and functions that printed scores are made of."""

    def __init__(self, program: Program) -> None:
        # A reference of its own would keep the program, which is the key, for ever.
        self._nodes: set[ast.AST] = set()
        self._names: dict[tuple[Scope, str], set[Key]] = {}
        self._functions: set[ast.AST | None] = set()
        self._losses = False
        self._attributes: set[str] = set()
        self._whole = _Follower(program, self._nodes, self._names, self._attributes).run()
        for scope, _ in self._names:
            self._functions.add(scope.function.node if scope.function is not None else None)
        self._losses = any(
            isinstance(node, ast.Call) and last_name(node.func) in _MAKING_LOSSES for node in self._nodes
        )

    def leaves_out(self, node: ast.AST, module: Module, program: Program) -> bool:
        """Whether a place certainly has no part in a printed score.

        It stands in a function that makes a part of one, and what it computes goes elsewhere; or in a function whose
        every result is trained on, where the score is made of losses of other functions.
        """
        if not self._whole or not self._losses:
            return False
        scope = module.scope_of(node)
        home = scope.function.node if scope.function is not None else None
        if home not in self._functions:
            return scope.function is not None and _is_trained_on(scope.function, module, program)
        statement = module.index.statement_of(node)
        targets = list(_targets(statement))
        if not targets:
            return isinstance(statement, (ast.Assign, ast.AugAssign)) and not self._has(node)
        return not any(self._takes(target, scope) for target in targets) and not self._has(node)

    def _has(self, node: ast.AST) -> bool:
        return any(each in self._nodes for each in descend(node))

    def _takes(self, target: ast.expr, scope: Scope) -> bool:
        """Whether what a statement stores into is among what scores are made of."""
        key: Key = None
        while isinstance(target, ast.Subscript):
            key = _constant(target.slice)
            target = target.value
        if not isinstance(target, ast.Name):
            return not isinstance(target, ast.Attribute) or target.attr in self._attributes
        holder = scope.holder(target.id)
        keys = self._names.get((holder, target.id), set()) if holder is not None else {None}
        return bool(keys) and (key is None or None in keys or key in keys)


# By name: see `flow`.
_FOLLOWED: Mapping[type[ast.AST], str] = {ast.Name: "_name", ast.Attribute: "_attribute", ast.Call: "_call"}


class _Follower:
    def __init__(
        self,
        program: Program,
        nodes: set[ast.AST],
        names: dict[tuple[Scope, str], set[Key]],
        attributes: set[str],
    ) -> None:
        self._program = program
        self._nodes = nodes
        self._names = names
        self._attributes = attributes
        self._seen: set[tuple[ast.AST, Key]] = set()
        self._waiting: list[tuple[ast.AST, Scope, Key]] = []

    def run(self) -> bool:
        """Whether everything was followed."""
        for module in self._program.modules.values():
            for call in module.index.calls_of(*REPORTERS, *_WRITERS):
                scope = module.scope_of(call)
                text, _ = printed(call, scope)
                if last_name(call.func) in _WRITERS or "bpb" in text.lower() or "bits per byte" in text.lower():
                    self._waiting += [(each, scope, None) for each in (*call.args, *call.keywords)]
        while self._waiting and len(self._seen) < NODES_LIMIT:
            node, scope, key = self._waiting.pop()
            if (node, key) not in self._seen:
                self._seen.add((node, key))
                self._nodes.add(node)
                self._waiting += self._next(node, scope, key)
        return not self._waiting

    def _next(self, node: ast.AST, scope: Scope, key: Key) -> Iterable[tuple[ast.AST, Scope, Key]]:
        method = _FOLLOWED.get(type(node))
        if method is not None:
            followed: Iterable[tuple[ast.AST, Scope, Key]] = getattr(self, method)(node, scope, key)
            return followed
        match node:
            case ast.Tuple(elts) | ast.List(elts) if isinstance(key, int) and 0 <= key < len(elts) and _plain(elts):
                return [(elts[key], scope, None)]
            case ast.Dict(keys, values) if isinstance(key, str) and all(
                isinstance(each, ast.Constant) for each in keys
            ):
                return [
                    (value, scope, None)
                    for each, value in zip(keys, values, strict=True)
                    if isinstance(each, ast.Constant) and each.value == key
                ]
            case ast.Subscript(value, index):
                return [(value, scope, _constant(index)), (index, scope, None)]
            case ast.IfExp(test, body, other):
                return [(test, scope, None), (body, scope, key), (other, scope, key)]
        return [(each, scope, None) for each in children(node)]

    def _name(self, node: ast.Name, scope: Scope, key: Key) -> Iterator[tuple[ast.AST, Scope, Key]]:
        holder = scope.holder(node.id)
        if holder is None:
            stem, _, original = scope.module.imports.get(node.id, "").rpartition(".")
            module = self._program.modules.get(stem.rpartition(".")[2]) if stem else None
            bindings = module.scope(None).bindings.get(original, []) if module is not None else []
            yield from ((each.value, module.scope(None), None) for each in bindings if module is not None)
            return
        self._names.setdefault((holder, node.id), set()).add(key)
        for binding in holder.bindings.get(node.id, ()):
            yield from self._bound(node.id, binding, holder, key)
        if node.id in holder.parameters and holder.function is not None:
            for module, call, filled in self._program.call_sites(holder.function):
                value = argument(call, holder.function, node.id, filled)
                if value is not None:
                    yield value, module.scope_of(call), key
            default = default_of(holder.function, node.id)
            if default is not None:
                yield default, holder.parent or holder, key

    def _bound(self, name: str, binding: Binding, scope: Scope, key: Key) -> Iterator[tuple[ast.AST, Scope, Key]]:
        if binding.whole:
            yield binding.value, scope, key
            return
        statement = scope.module.index.statement_of(binding.value)
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        targets = [statement.target] if isinstance(statement, ast.AugAssign) else targets
        for target in targets:
            if isinstance(target, ast.Subscript) and dotted(target.value) == name:
                stored = _constant(target.slice)
                if key is not None and stored is not None and stored != key:
                    return
            if isinstance(target, ast.Tuple) and _plain(target.elts):
                names = [each.id if isinstance(each, ast.Name) else "" for each in target.elts]
                if names.count(name) == 1:
                    yield binding.value, scope, names.index(name)
                    return
        yield binding.value, scope, None

    def _attribute(
        self,
        node: ast.Attribute,
        scope: Scope,
        key: Key,  # noqa: ARG002 - one of the kinds
    ) -> Iterator[tuple[ast.AST, Scope, Key]]:
        self._attributes.add(node.attr)
        yield node.value, scope, None
        for module in self._program.modules.values():
            for target, binding in module.stores(node.attr):
                yield binding.value, module.scope_of(target), None
            for field in module.fields.get(node.attr, ()):
                yield field.value, module.scope(None), None

    def _call(self, node: ast.Call, scope: Scope, key: Key) -> Iterator[tuple[ast.AST, Scope, Key]]:
        yield node.func, scope, None
        called = self._program.called(node, scope)
        if len(called) > CANDIDATES_LIMIT:
            called = []
        for module, function in called:
            inside = module.scope(function)
            self._names.setdefault((inside, ""), set())
            yield from ((each, inside, key) for each in (*returned(inside), *_yielded(function, module)))
        # What is handed over may come back through an object.
        yield from ((each, scope, None) for each in (*node.args, *node.keywords))


def _yielded(function: Function, module: Module) -> list[ast.expr]:
    kinds = module.index.within(function.node, ast.Yield, ast.YieldFrom)
    return [each.value for each in kinds if isinstance(each, (ast.Yield, ast.YieldFrom)) and each.value is not None]


def _plain(nodes: Iterable[ast.expr]) -> bool:
    return not any(isinstance(each, ast.Starred) for each in nodes)


def _constant(node: ast.expr) -> Key:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, (int, str)) else None


def _targets(statement: ast.stmt | None) -> Iterator[ast.expr]:
    """What a statement stores into, members of tuples one by one."""
    match statement:
        case ast.Assign(targets):
            waiting = list(targets)
        case ast.AugAssign(target) | ast.AnnAssign(target):
            waiting = [target]
        case ast.Expr(ast.Call(ast.Attribute(owner, "append" | "extend" | "add"))):
            waiting = [owner]
        case _:
            waiting = []
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.Tuple, ast.List)):
            waiting += node.elts
        else:
            yield node.value if isinstance(node, ast.Starred) else node


def _is_trained_on(function: Function, module: Module, program: Program) -> bool:
    """Whether a function takes gradients itself, or every call's result is a loss whose gradient is taken."""
    if any(module.scope_of(call).function is function for call in module.calls("backward")):
        return True
    sites = program.call_sites(function)
    return bool(sites) and all(_takes_gradient(home, call) for home, call, _ in sites)


def _takes_gradient(module: Module, call: ast.Call) -> bool:
    statement = module.index.statement_of(call)
    names = {each.id for each in _targets(statement) if isinstance(each, ast.Name)}
    scope = module.scope_of(call)
    return any(
        each is call or (isinstance(each, ast.Name) and each.id in names)
        for backward in module.calls("backward")
        if module.scope_of(backward) is scope
        for each in descend(backward.func)
    )
