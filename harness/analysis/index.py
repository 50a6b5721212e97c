"""One walk over a script's syntax tree, remembered: every analysis asks this index instead of walking again.

A script has about 20,000 nodes, and a folder is audited in well under a second: a second walk per question would
cost more than the parsing.
"""

from __future__ import annotations

import ast
import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeAlias, TypeVar

NodeT = TypeVar("NodeT", bound=ast.AST)
FunctionNode: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
# Leaves that only name an operator or a context are left out of every walk.
_LEAVES = (ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop)
_WALKED = frozenset(
    kind
    for kind in vars(ast).values()
    if isinstance(kind, type) and issubclass(kind, ast.AST) and not issubclass(kind, _LEAVES)
)
# More than half of all nodes.
_CHILDLESS = frozenset({ast.Name, ast.Constant, ast.alias, ast.Pass, ast.Break, ast.Continue})
# Fields that hold no nodes, or only such leaves; and the lists that may hold None beside nodes.
_PLAIN_FIELDS = frozenset(
    """
    arg asname attr conversion ctx id is_async kind kwd_attrs level lineno module name op ops rest simple tag
    type_comment
    """.split()  # noqa: SIM905 - one word a line would hide the list
)
_GAPPED_FIELDS = frozenset({"keys", "kw_defaults"})
_FIELDS = {
    kind: tuple(name for name in kind._fields if name not in _PLAIN_FIELDS)
    for kind in _WALKED - {ast.Constant, ast.Global, ast.MatchSingleton, ast.Nonlocal}
}
_LINE_AND_COLUMN = attrgetter("lineno", "col_offset")
_FUNCTIONS = frozenset({ast.FunctionDef, ast.AsyncFunctionDef})
_DEFINITIONS = _FUNCTIONS | {ast.ClassDef, ast.Lambda}
_BODIED = _DEFINITIONS | {ast.Module}
_CLOSED = _DEFINITIONS | _CHILDLESS
# What a definition is asked for most: what gives names a value, is called, or is returned.
_TELLING = frozenset(
    {
        ast.AnnAssign,
        ast.Assign,
        ast.AsyncFor,
        ast.AugAssign,
        ast.Call,
        ast.Expr,
        ast.For,
        ast.NamedExpr,
        ast.Return,
        ast.Yield,
        ast.comprehension,
        ast.withitem,
    }
)
# Where the index keeps a node's children, on the node itself: looking them up again costs more than the walk.
_KEPT = "_walked_children"


@dataclass(frozen=True, eq=False)
class Function:
    """A function or method of the script; one object for each definition, so that it is found again by identity.

    Attributes:
        node: its definition.
        name: its qualified name, `Model.forward` or `outer.inner`.
        owner: the class that it is a method of, or "".
    """

    node: FunctionNode
    name: str
    owner: str

    @functools.cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of its parameters, in the order of a call, keyword-only ones last."""
        arguments = self.node.args
        return tuple(each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs))


class Index:
    """The nodes of one syntax tree by type, their parents, and the script's functions and classes.

    Attributes:
        tree: the module.
        functions: every function by qualified name; of several with one name the last, as in Python.
        classes: every class by qualified name.
        names: every place that reads a name, by the name, in no particular order.
        stored: every place that sets or deletes a name, the same.
        attributes: every `x.name` that is read, by `name`, the same.
        stored_attributes: every `x.name` that is set or deleted, the same.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.functions: dict[str, Function] = {}
        self.classes: dict[str, ast.ClassDef] = {}
        self.names: defaultdict[str, list[ast.Name]] = defaultdict(list)
        self.stored: defaultdict[str, list[ast.Name]] = defaultdict(list)
        self.attributes: defaultdict[str, list[ast.Attribute]] = defaultdict(list)
        self.stored_attributes: defaultdict[str, list[ast.Attribute]] = defaultdict(list)
        self._nodes: defaultdict[type[ast.AST], list[ast.AST]] = defaultdict(list)
        self._own: dict[ast.AST, list[ast.AST]] = {}
        self._parents: dict[ast.AST, ast.AST] = {}
        self._ordered: dict[tuple[type[ast.AST], ...], list[ast.AST]] = {}
        self._walk()
        self._name_definitions()

    def of(self, *types: type[NodeT]) -> list[NodeT]:
        """Nodes of the given concrete types, in the order of the text."""
        found = self._ordered.get(types)
        if found is None:
            key = _LINE_AND_COLUMN if all(issubclass(kind, (ast.expr, ast.stmt)) for kind in types) else place_of
            found = sorted((node for kind in types for node in self.each(kind)), key=key)
            self._ordered[types] = found
        return found.copy()  # type: ignore[return-value]  # by construction they have those types

    def each(self, kind: type[NodeT]) -> list[NodeT]:
        """Nodes of one concrete type in no particular order; not copied, and ten times faster than `of`."""
        named: tuple[Mapping[str, list[Any]], ...] = ()
        if issubclass(kind, ast.Name):
            named = self.names, self.stored
        elif issubclass(kind, ast.Attribute):
            named = self.attributes, self.stored_attributes
        if named:
            return [node for table in named for nodes in table.values() for node in nodes]
        return self._nodes.get(kind, [])  # type: ignore[return-value]  # by construction they have that type

    def plain_calls(self, name: str) -> Iterator[ast.Call]:
        """Calls of a plain name, in no particular order."""
        for use in self.names.get(name, ()):
            call = self._parents[use]
            if isinstance(call, ast.Call) and call.func is use:
                yield call

    def own(self, definition: ast.AST) -> Sequence[ast.AST]:
        """The assignments, loops, calls, expression statements and returns in the body of a function or of the module.

        Those of functions and classes defined inside it are left out: see `own_nodes`, which gives all nodes.
        """
        return self._own.get(definition, ())

    def parent(self, node: ast.AST) -> ast.AST | None:
        """The node that directly holds this one; None for the module."""
        return self._parents.get(node)

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        """What holds the node, innermost first, the module last."""
        above = self._parents.get(node)
        while above is not None:
            yield above
            above = self._parents.get(above)

    def function_of(self, node: ast.AST) -> Function | None:
        """The innermost function around a node (a definition is in the function around it); None at module level."""
        above = self._parents.get(node)
        while above is not None and above.__class__ not in _FUNCTIONS:
            above = self._parents.get(above)
        return None if above is None else self._by_node.get(above)

    def statement_of(self, node: ast.AST) -> ast.stmt | None:
        """The innermost statement that holds a node, or is it."""
        for each in (node, *self.ancestors(node)):
            if isinstance(each, ast.stmt):
                return each
        return None

    def calls_of(self, *names: str) -> list[ast.Call]:
        """Calls whose callee's last name is one of these, in order: `f(x)`, `module.f(x)`, `self.f(x)`."""
        return sorted((call for name in names for call in self._called(name)), key=place_of)

    def _called(self, name: str) -> Iterator[ast.Call]:
        for use in (*self.names.get(name, ()), *self.attributes.get(name, ())):
            call = self._parents[use]
            if isinstance(call, ast.Call) and call.func is use:
                yield call

    def within(self, node: ast.AST, *types: type[NodeT]) -> list[NodeT]:
        """Nodes of these types inside another (itself included), in the order of the text."""
        return sorted((each for each in descend(node) if isinstance(each, types)), key=place_of)

    def _walk(self) -> None:
        """Fill the tables; iterative, because chains of operators nest deeper than Python's stack."""
        names, stored, nodes, parents = self.names, self.stored, self._nodes, self._parents
        attributes, stored_attributes = self.attributes, self.stored_attributes
        waiting: list[tuple[list[ast.AST], list[Any]]] = [([], [self.tree])]
        for own, stack in waiting:
            while stack:
                node = stack.pop()
                kind = node.__class__
                if kind is ast.Name:
                    (names if node.ctx.__class__ is ast.Load else stored)[node.id].append(node)
                    continue
                if kind is ast.Attribute:
                    (attributes if node.ctx.__class__ is ast.Load else stored_attributes)[node.attr].append(node)
                else:
                    nodes[kind].append(node)
                node.__dict__[_KEPT] = found = _CHILDREN.get(kind, children)(node)
                for child in found:
                    parents[child] = node
                if kind in _BODIED:
                    waiting += self._parts(node, found)
                    continue
                stack.extend(found)
                if kind in _TELLING:
                    own.append(node)

    def _parts(self, node: ast.AST, found: Sequence[ast.AST]) -> Iterator[tuple[list[ast.AST], list[ast.AST]]]:
        """The body of a definition, and what belongs to the definition itself: decorators, defaults, bases."""
        self._own[node] = []
        yield self._own[node], [each for each in found if isinstance(each, ast.stmt)]
        yield [], [each for each in found if not isinstance(each, ast.stmt)]

    def _name_definitions(self) -> None:
        names: dict[ast.AST, str] = {}
        self._by_node: dict[ast.AST, Function] = {}
        defined: list[FunctionNode | ast.ClassDef] = [
            *self.of(ast.FunctionDef),
            *self.of(ast.AsyncFunctionDef),
            *self.of(ast.ClassDef),
        ]
        for node in sorted(defined, key=place_of):
            around = next((above for above in self.ancestors(node) if above in names), None)
            name = f"{names[around]}.{node.name}" if around is not None else node.name
            names[node] = name
            if isinstance(node, ast.ClassDef):
                self.classes[name] = node
                continue
            owner = names[around] if isinstance(around, ast.ClassDef) else ""
            self.functions[name] = self._by_node[node] = Function(node, name, owner)


def children(node: ast.AST) -> Sequence[ast.AST]:
    """Child nodes, without the leaves that only name an operator or a context; at once for a node that is indexed."""
    kept: Sequence[ast.AST] | None = node.__dict__.get(_KEPT)
    if kept is not None:
        return kept
    found: list[ast.AST] = []
    fields = node.__dict__
    for name in _FIELDS.get(node.__class__, ()):
        value = fields.get(name)
        if value.__class__ is list:
            found += value if name not in _GAPPED_FIELDS else [each for each in value if each is not None]
        elif value is not None:
            found.append(value)
    return found


# The same, quicker, for the nodes that are most of all.
_CHILDREN: Mapping[type[ast.AST], Callable[[Any], Sequence[ast.AST]]] = {
    ast.Assign: lambda node: [*node.targets, node.value],
    ast.Attribute: lambda node: (node.value,),
    ast.BinOp: attrgetter("left", "right"),
    ast.Constant: lambda _: (),
    ast.Call: lambda node: [node.func, *node.args, *node.keywords],
    ast.Compare: lambda node: [node.left, *node.comparators],
    ast.Expr: lambda node: (node.value,),
    ast.Tuple: lambda node: node.elts,
    ast.arg: lambda node: () if node.annotation is None else (node.annotation,),
    ast.Subscript: attrgetter("value", "slice"),
    ast.keyword: lambda node: (node.value,),
}


def descend(node: ast.AST) -> Iterator[ast.AST]:
    """The node and all below it, in no particular order."""
    stack = [node]
    while stack:
        node = stack.pop()
        yield node
        if node.__class__ not in _CHILDLESS:
            stack += children(node)


def own_nodes(function: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """The nodes of some statements without those of functions and classes defined among them."""
    stack = list(function)
    while stack:
        node = stack.pop()
        yield node
        if node.__class__ not in _CLOSED:
            stack += children(node)


def dotted(node: ast.AST) -> str:
    """The dotted name that an expression is, or "": `torch.optim.SGD`; chains can be too long for recursion."""
    if isinstance(node, ast.Name):
        return node.id
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else ""


def last_name(node: ast.AST) -> str:
    """The last part of a name or attribute, whatever stands before it: `step` of `optimizers[0].step`."""
    kind = node.__class__
    if kind is ast.Attribute:
        return node.attr  # type: ignore[attr-defined, no-any-return]  # its class is looked at above
    return node.id if kind is ast.Name else ""  # type: ignore[attr-defined]  # the same


def imported_names(index: Index) -> Mapping[str, str]:
    """What each imported name stands for: `{"F": "torch.nn.functional", "b85decode": "base64.b85decode"}`."""
    names: dict[str, str] = {}
    for node in index.of(ast.Import):
        for alias in node.names:
            names[alias.asname or alias.name.partition(".")[0]] = (
                alias.name if alias.asname else alias.name.partition(".")[0]
            )
    for source in index.of(ast.ImportFrom):
        for alias in source.names:
            names[alias.asname or alias.name] = f"{source.module or ''}.{alias.name}".lstrip(".")
    return names


def place_of(node: ast.AST) -> tuple[int, int]:
    """Line and column, zeros where a node has none: the key of the order of the text."""
    return getattr(node, "lineno", 0), getattr(node, "col_offset", 0)


def end_of(node: ast.AST) -> tuple[int, int]:
    """Line and column behind a node, zeros where it has none."""
    return getattr(node, "end_lineno", 0) or 0, getattr(node, "end_col_offset", 0) or 0


def is_inside(place: tuple[int, int], node: ast.AST) -> bool:
    """Whether a place in the text is inside a node."""
    return place_of(node) <= place <= end_of(node)


def field_default(value: ast.expr) -> ast.expr:
    """The default of a dataclass field: `field(default=0)` is 0."""
    if isinstance(value, ast.Call) and last_name(value.func) == "field":
        return next((each.value for each in value.keywords if each.arg == "default"), value)
    return value
