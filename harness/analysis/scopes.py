"""Names that are read and never bound, or read before they are bound, in one script.

The script is divided into units: the module's own statements, the bodies of classes, and functions together with all
that is defined inside them. A name read in a unit is looked up there, then in the module, then among Python's own
names. Inside a unit the scopes of nested functions count as one, so the analysis misses some errors and invents none.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.analysis.index import Index, last_name, own_nodes

MODULE_NAMES = frozenset(
    """
    __file__ __name__ __doc__ __spec__ __loader__ __package__ __path__ __builtins__ __annotations__ __dict__ __debug__
    __class__ __module__ __qualname__ __cached__ WindowsError get_ipython display reveal_type
    """.split()  # noqa: SIM905 - one word a line would hide the list
)
PYTHON_NAMES = frozenset(dir(builtins)) | MODULE_NAMES
# Classes of errors that a handler must name to catch a NameError or an UnboundLocalError.
NAME_ERRORS = frozenset({"NameError", "UnboundLocalError", "Exception", "BaseException"})
# Calls that can bind any name of a module.
_BINDERS = frozenset({"globals", "exec", "locals", "vars", "execfile", "eval"})
_CLASS, _FUNCTION, _MODULE = "class", "function", "module"


@dataclass(frozen=True, slots=True)
class Unit:
    """A stretch of lines whose names are looked up together.

    Attributes:
        kind: `module`, `class` or `function`.
        node: the definition, or the module.
        parent: number of the unit around it.
    """

    kind: str
    node: ast.AST
    parent: int


class Scopes:
    """The units of a script and what each of them binds and reads.

    Attributes:
        units: the module first, then classes and functions in the order of the text.
        bound: for each unit and name the place of the first binding, `(line, column)`.
        assigned: units and names that are bound by an assignment, a loop or the like.
        undefined: names that are bound neither in their unit, nor in the module, nor by Python.
        early: names read in a unit at a place before the first one that binds them there.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self.units: list[Unit] = [Unit(_MODULE, index.tree, 0)]
        self.bound: dict[tuple[int, str], tuple[int, int]] = {}
        self._unit_of_line = self._divide()
        self._bind()
        self.module_names = frozenset(name for unit, name in self.bound if unit == 0)
        self.undefined: list[ast.Name] = []
        self.early: list[ast.Name] = []
        self._own: dict[int, dict[int, ast.AST]] = {}
        self._look_up()

    def unit_of(self, node: ast.AST) -> int:
        """Number of the unit that a node's line belongs to."""
        line = getattr(node, "lineno", 0)
        return self._unit_of_line[line] if line < len(self._unit_of_line) else 0

    def own(self, unit: int) -> dict[int, ast.AST]:
        """The nodes of a unit without those of the units inside it, by identity."""
        found = self._own.get(unit)
        if found is None:
            body = getattr(self.units[unit].node, "body", [])
            self._own[unit] = found = {id(each): each for each in own_nodes(body)}
        return found

    def name_of(self, unit: int) -> str:
        """The unit's qualified name; empty for the module."""
        parts = []
        while unit:
            parts.append(getattr(self.units[unit].node, "name", ""))
            unit = self.units[unit].parent
        return ".".join(reversed(parts))

    def _divide(self) -> list[int]:
        """The unit of each line; a function inside a function belongs to the outer one."""
        index = self.index
        last = max((getattr(node, "end_lineno", 0) for node in index.tree.body), default=0)
        lines = [0] * (last + 2)
        inside: dict[ast.AST, int] = {}
        for node in index.of(ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef):
            around = next((above for above in index.ancestors(node) if above in inside), None)
            parent = 0 if around is None else inside[around]
            if self.units[parent].kind == _FUNCTION:
                inside[node] = parent
                continue
            kind = _CLASS if isinstance(node, ast.ClassDef) else _FUNCTION
            inside[node] = len(self.units)
            first, end = getattr(node, "lineno", 1), getattr(node, "end_lineno", 1)
            lines[first : end + 1] = [len(self.units)] * (end + 1 - first)
            self.units.append(Unit(kind, node, parent))
        self._inside = inside
        return lines

    def _bind(self) -> None:
        bound, lines = self.bound, self._unit_of_line
        for name, uses in self.index.stored.items():
            for node in uses:
                key = (lines[node.lineno], name)
                first = bound.get(key)
                if isinstance(node.ctx, ast.Store) and (first is None or node.lineno <= first[0]):
                    place = self._bound_from(node)
                    bound[key] = place if first is None else min(place, first)
        self.assigned = frozenset(bound)
        for unit, name, place in self._other_bindings():
            bound[unit, name] = min(place, bound.get((unit, name), place))

    def _bound_from(self, node: ast.Name) -> tuple[int, int]:
        """The place from which a target holds: for an assignment the end, since its value has to be known."""
        above = self.index.parent(node)
        statement = self.index.parent(above) if isinstance(above, ast.Tuple) else above
        if isinstance(statement, (ast.Assign, ast.AugAssign)):
            return statement.end_lineno or 0, statement.end_col_offset or 0
        return node.lineno, node.col_offset

    def _other_bindings(self) -> Iterator[tuple[int, str, tuple[int, int]]]:
        for node in self.index.each(ast.arg):
            yield self.unit_of(node), node.arg, (node.lineno, -1)
        for defined in self._inside:
            unit = self._inside[defined]
            owner = self.units[unit].parent if self.units[unit].node is defined else unit
            yield owner, getattr(defined, "name", ""), _place(defined)
        sources: list[ast.Import | ast.ImportFrom] = [*self.index.each(ast.Import), *self.index.each(ast.ImportFrom)]
        for source in sources:
            for alias in source.names:
                yield self.unit_of(source), alias.asname or alias.name.partition(".")[0], _place(source)
        yield from self._rare_bindings()

    def _rare_bindings(self) -> Iterator[tuple[int, str, tuple[int, int]]]:
        named: list[ast.ExceptHandler | ast.MatchAs | ast.MatchStar] = [
            *self.index.each(ast.ExceptHandler),
            *self.index.each(ast.MatchAs),
            *self.index.each(ast.MatchStar),
        ]
        for node in named:
            if node.name:
                yield self.unit_of(node), node.name, _place(node)
        for mapping in self.index.each(ast.MatchMapping):
            if mapping.rest:
                yield self.unit_of(mapping), mapping.rest, _place(mapping)
        for statement in self.index.each(ast.Global):
            for name in statement.names:
                yield 0, name, (0, 0)
                yield self.unit_of(statement), name, (0, 0)

    def _look_up(self) -> None:
        bound, lines, known = self.bound, self._unit_of_line, self.module_names | PYTHON_NAMES
        units: dict[str, dict[int, tuple[int, int]]] = {}
        for (unit, name), place in bound.items():
            units.setdefault(name, {})[unit] = place
        for name, uses in self.index.names.items():
            if name in units or name not in known:
                self._look_up_uses(uses, units.get(name, {}), known=name in known)
        for statement in self.index.each(ast.AugAssign):
            target = statement.target
            if isinstance(target, ast.Name) and (target.lineno, -1) < bound[lines[target.lineno], target.id]:
                self.early.append(target)

    def _look_up_uses(self, uses: Iterable[ast.Name], units: Mapping[int, tuple[int, int]], *, known: bool) -> None:
        """Look up the uses of one name, which `units` bind first at these places."""
        for node in uses:
            first = units.get(self._unit_of_line[node.lineno])
            if first is None:
                if not known:
                    self.undefined.append(node)
            elif node.lineno <= first[0] and (node.lineno, node.col_offset) < first:
                self.early.append(node)


def binds_unseen(index: Index) -> str:
    """What in a script can bind names that the text does not show, as a clause; or ""."""
    for source in index.each(ast.ImportFrom):
        if any(alias.name == "*" for alias in source.names):
            return f"line {source.lineno} imports everything from {source.module or 'a module'}"
    binding = [call for name in _BINDERS for call in index.plain_calls(name) if _can_bind(index, call)]
    call = max(binding, key=lambda each: each.lineno, default=None)
    return f"line {call.lineno} calls {last_name(call.func)}, which can bind any name" if call is not None else ""


def _can_bind(index: Index, call: ast.Call) -> bool:
    """Whether what a call of `globals` or `exec` returns is changed, or may be."""
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    if name in {"exec", "execfile"}:
        return True
    if name in {"vars", "eval"}:
        return name == "vars" and not call.args
    above = index.parent(call)
    # `globals()["x"]` and `"x" in globals()` only read.
    return not (
        (isinstance(above, ast.Subscript) and isinstance(above.ctx, ast.Load))
        or isinstance(above, ast.Compare)
        or (isinstance(above, ast.Attribute) and above.attr in {"get", "keys", "items", "values", "copy"})
    )


def caught(index: Index, node: ast.AST, errors: Collection[str]) -> bool:
    """Whether an error at a node is caught around it, within its function."""
    below = node
    for above in index.ancestors(node):
        if isinstance(above, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return False
        if isinstance(above, ast.Try) and below in above.body and any(_catches(h, errors) for h in above.handlers):
            return True
        if isinstance(above, ast.With) and any("suppress" in ast.dump(item.context_expr) for item in above.items):
            return True
        below = above
    return False


def _catches(handler: ast.ExceptHandler, errors: Collection[str]) -> bool:
    if handler.type is None:
        return True
    names = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any((each.id if isinstance(each, ast.Name) else "") in errors for each in names)


def in_annotation(index: Index, node: ast.AST) -> bool:
    """Whether a node stands in an annotation, which may never be evaluated."""
    below = node
    for above in index.ancestors(node):
        if below in (getattr(above, "annotation", None), getattr(above, "returns", None)):
            return True
        if isinstance(above, ast.stmt):
            return False
        below = above
    return False


def certainly_unbound(scopes: Scopes, node: ast.Name) -> bool:
    """Whether a name that is read early is unbound whenever the place is reached.

    Only names of a function's own scope, or of the module's own statements, are judged: a nested function or a
    comprehension may bind and read a name of its own.
    """
    index, unit = scopes.index, scopes.units[scopes.unit_of(node)]
    if unit.kind == _CLASS or (unit.kind == _MODULE and (node.id in PYTHON_NAMES or binds_unseen(index))):
        return False
    if in_comprehension(index, node, unit.node):
        return False
    own = scopes.own(scopes.unit_of(node))
    if id(node) not in own or any(
        isinstance(each, (ast.Global, ast.Nonlocal)) and node.id in each.names for each in own.values()
    ):
        return False
    stores = [each for each in own.values() if isinstance(each, ast.Name) and each.id == node.id and each is not node]
    stores = [
        each for each in stores if isinstance(each.ctx, ast.Store) and not in_comprehension(index, each, unit.node)
    ]
    first = scopes.bound[scopes.unit_of(node), node.id]
    if not (stores or isinstance(node.ctx, ast.Store)) or (node.lineno, node.col_offset) >= first:
        return False
    if _binds_otherwise(own.values(), node.id) or _is_parameter(unit.node, node.id):
        return False
    return not any(isinstance(index.parent(each), ast.NamedExpr) for each in stores)


def in_comprehension(index: Index, node: ast.AST, end: ast.AST) -> bool:
    """Whether a comprehension or a lambda, which may bind names of its own, stands between a node and another."""
    for above in index.ancestors(node):
        if above is end:
            return False
        if isinstance(above, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda)):
            return True
    return False


def _is_parameter(node: ast.AST, name: str) -> bool:
    arguments = getattr(node, "args", None)
    return isinstance(arguments, ast.arguments) and any(
        each.arg == name for each in ast.walk(arguments) if isinstance(each, ast.arg)
    )


def _binds_otherwise(nodes: Collection[ast.AST], name: str) -> bool:
    """Whether something other than an assignment binds a name: an import, a definition, a handler, a pattern."""
    for node in nodes:
        if getattr(node, "name", None) == name:
            return True
        aliases = node.names if isinstance(node, (ast.Import, ast.ImportFrom)) else ()
        if any((alias.asname or alias.name.partition(".")[0]) == name for alias in aliases):
            return True
    return False


def _place(node: ast.AST) -> tuple[int, int]:
    return getattr(node, "lineno", 0), getattr(node, "col_offset", 0)
