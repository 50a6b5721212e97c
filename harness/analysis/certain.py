"""Which functions of a script a run comes by, and which places it cannot miss.

Both are answered without a configuration: *reached* is generous (anything that reached code mentions by name),
*certain* is strict (called outside of all conditions, from the module's own statements on).
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Sequence

from harness.analysis.index import FunctionNode, Index, children, last_name, own_nodes

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_ENDS = (ast.Return, ast.Raise, ast.Break, ast.Continue)
# Methods that Python or torch calls where an object is made or used.
IMPLICIT = frozenset({"__init__", "__new__", "__post_init__", "forward", "setup"})
CERTAIN_METHODS = frozenset({"__init__", "__post_init__"})


class Reach:
    """Reachability in one script."""

    def __init__(self, index: Index) -> None:
        self._index = index
        # For each block of statements that was asked for, the first one that may leave it.
        self._leaving: dict[tuple[ast.AST, str], ast.stmt | None] = {}
        self._behind: dict[ast.AST, frozenset[ast.AST]] = {}

    @functools.cached_property
    def reached(self) -> frozenset[ast.AST]:
        """Functions and classes that the module's own statements can come to by any mention of their names."""
        by_name: dict[str, list[ast.AST]] = {}
        for node in self._definitions():
            by_name.setdefault(getattr(node, "name", ""), []).append(node)
        found: set[ast.AST] = set()
        queue: list[ast.AST] = [self._index.tree]
        while queue:
            for name in self._mentions(queue.pop()):
                new = [node for node in by_name.get(name, ()) if node not in found]
                found.update(new)
                queue += new
        return frozenset(found)

    @functools.cached_property
    def certain(self) -> frozenset[ast.AST]:
        """Functions that every run calls: outside of all conditions, or as the constructor of a class so called."""
        functions: dict[str, list[ast.AST]] = {}
        for node in self._definitions():
            if self._index.parent(node) is self._index.tree:
                functions.setdefault(getattr(node, "name", ""), []).append(node)
        found: set[ast.AST] = set()
        queue: list[ast.AST] = [self._index.tree]
        while queue:
            for call in self._certain_calls(queue.pop()):
                named = functions.get(call.func.id, []) if isinstance(call.func, ast.Name) else []
                # Of several definitions with one name it is open which one runs.
                new = [node for node in _called(named[0]) if node not in found] if len(named) == 1 else []
                found.update(new)
                queue += new
        return frozenset(found)

    def is_reached(self, node: ast.AST) -> bool:
        """Whether a run can come by a place: every function and class around it is mentioned by reached code."""
        around = [each for each in self._index.ancestors(node) if isinstance(each, (*_FUNCTIONS, ast.ClassDef))]
        return all(each in self.reached for each in around) and not self._is_after_end(node)

    def _is_after_end(self, node: ast.AST) -> bool:
        """Whether a place stands behind a `return`, `raise`, `break` or `continue` of its own body."""
        below = node
        for above in self._index.ancestors(node):
            if isinstance(below, ast.stmt) and below in self._behind_end(above):
                return True
            below = above
        return False

    def _behind_end(self, above: ast.AST) -> frozenset[ast.AST]:
        """The statements right in a node that stand behind one that leaves their block."""
        if above not in self._behind:
            found: set[ast.AST] = set()
            for name in ("body", "orelse", "finalbody"):
                block = getattr(above, name, None)
                if isinstance(block, list):
                    end = next((place for place, each in enumerate(block) if isinstance(each, _ENDS)), len(block))
                    found.update(block[end + 1 :])
            self._behind[above] = frozenset(found)
        return self._behind[above]

    def is_certain(self, node: ast.AST) -> bool:
        """Whether every run evaluates a place."""
        function = next((each for each in self._index.ancestors(node) if isinstance(each, _FUNCTIONS)), None)
        owner: ast.AST = self._index.tree if function is None else function
        return (function is None or function in self.certain) and self._unconditional(node, owner)

    def _definitions(self) -> Iterator[ast.AST]:
        for kind in (*_FUNCTIONS, ast.ClassDef):
            yield from self._index.each(kind)

    def _mentions(self, owner: ast.AST) -> Iterator[str]:
        """Names that the statements of a module, function or class mention; those of a class's implicit methods too."""
        yield from IMPLICIT if isinstance(owner, ast.ClassDef) else ()
        stack = list(ast.iter_child_nodes(owner))
        for node in own_nodes(stack):
            if isinstance(node, ast.Name):
                yield node.id
            elif isinstance(node, ast.Attribute):
                yield node.attr
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
                # `getattr(module, "name")` and tables of names.
                yield node.value
            elif isinstance(node, ast.FunctionDef) and (node.decorator_list or node.name.startswith("__")):
                yield node.name
            elif isinstance(node, ast.Lambda):
                yield from self._mentions(node)

    def _certain_calls(self, owner: ast.AST) -> Iterator[ast.Call]:
        for node in own_nodes(getattr(owner, "body", [])):
            if isinstance(node, ast.Call) and self._unconditional(node, owner):
                yield node

    def _unconditional(self, node: ast.AST, owner: ast.AST) -> bool:
        """Whether a place is evaluated in every complete run of its owner: no condition, loop or handler around it.

        A `return`, `raise` or exit before it, under whatever condition, makes it conditional too.
        """
        below = node
        for above in self._index.ancestors(node):
            if _may_skip(above, below):
                return False
            if isinstance(below, ast.stmt) and self._left_before(above, below):
                return False
            if above is owner:
                return True
            below = above
        return owner is self._index.tree

    def _left_before(self, above: ast.AST, below: ast.stmt) -> bool:
        """Whether a statement before this one in the same block may leave the function, the loop or the program."""
        for name in ("body", "orelse", "finalbody"):
            block = getattr(above, name, None)
            if isinstance(block, list) and _holds(block, below):
                if (above, name) not in self._leaving:
                    self._leaving[above, name] = next((each for each in block if _leaves(each)), None)
                leaving = self._leaving[above, name]
                return leaving is not None and _first(leaving) < _first(below)
        return False


def _called(node: ast.AST) -> list[ast.AST]:
    """What a call of a definition runs: a plain function, or the constructor of a class."""
    if isinstance(node, ast.ClassDef):
        return [each for each in node.body if isinstance(each, _FUNCTIONS) and each.name in CERTAIN_METHODS]
    return [node] if isinstance(node, ast.FunctionDef) and not _is_generator(node) else []


def _is_generator(node: FunctionNode) -> bool:
    return any(isinstance(each, (ast.Yield, ast.YieldFrom)) for each in own_nodes(node.body))


# Parts of these are evaluated only under a condition, or any number of times.
_OPEN = (
    ast.ExceptHandler,
    ast.Match,
    ast.match_case,
    ast.Lambda,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
    ast.comprehension,
    ast.ClassDef,
    ast.TryStar,
)
_LOOPS = (ast.For, ast.AsyncFor, ast.While)


def _may_skip(above: ast.AST, below: ast.AST) -> bool:
    """Whether a node may be evaluated without one of its parts."""
    if isinstance(above, ast.If):
        return below is not above.test and not (_is_main_guard(above) and _holds(above.body, below))
    if isinstance(above, ast.While):
        always = isinstance(above.test, ast.Constant) and bool(above.test.value)
        return below is not above.test and not (always and _holds(above.body, below))
    if isinstance(above, (ast.For, ast.AsyncFor)):
        return below is not above.iter
    if isinstance(above, ast.Try):
        return bool(above.handlers) and not _holds(above.finalbody, below)
    return _may_skip_value(above, below)


def _may_skip_value(above: ast.AST, below: ast.AST) -> bool:
    """The same for expressions, which stop at the first value that decides."""
    if isinstance(above, ast.BoolOp):
        return below is not above.values[0]
    if isinstance(above, (ast.IfExp, ast.Assert)):
        return below is not above.test
    if isinstance(above, ast.Compare):
        return below is not above.left and below is not above.comparators[0]
    return isinstance(above, _OPEN)


def _is_main_guard(node: ast.If) -> bool:
    test = node.test
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"


def _holds(block: Sequence[ast.stmt], part: ast.AST) -> bool:
    """Whether a statement stands in a block of the node that it is a part of; a search would take the block's length.

    Blocks are in the order of the text.
    """
    if not block or not isinstance(part, (ast.stmt, ast.ExceptHandler)):
        return False
    return _first(block[0]) <= _first(part) <= _first(block[-1])


def _first(statement: ast.stmt | ast.ExceptHandler) -> tuple[int, int]:
    """Where a statement begins."""
    return statement.lineno, statement.col_offset


def _leaves(statement: ast.AST) -> bool:
    """Whether a statement may return, exit, or end or restart the loop around it; an error ends the run anyway."""
    stack: list[tuple[ast.AST, bool]] = [(statement, False)]
    while stack:
        node, in_loop = stack.pop()
        if isinstance(node, ast.Return) or (isinstance(node, (ast.Break, ast.Continue)) and not in_loop):
            return True
        if isinstance(node, ast.Call) and last_name(node.func) in {"exit", "_exit", "quit", "execv", "execvp"}:
            return True
        if not isinstance(node, (*_FUNCTIONS, ast.ClassDef, ast.Lambda)):
            stack += [(child, in_loop or isinstance(node, _LOOPS)) for child in children(node)]
    return False
