"""Which code makes scores: by the names of its functions, because it takes no gradients, and by what becomes of it.

A function whose result is printed as bits per byte makes scores whatever it is called, and so does what it calls.
"""

from __future__ import annotations

import ast
import re
import weakref
from collections.abc import Iterator

from harness.analysis.index import Function, Index, children, last_name
from harness.analysis.prints import REPORTERS
from harness.analysis.program import Module, Program, Scope
from harness.analysis.reports import printed

_SCORING = re.compile(r"eval|scor|valid|infer|bpb|nll|test|predict|mix|lookup|prob|blend|slid", re.IGNORECASE)
# What returns a score of a whole training does much beside scoring.
_WHOLE = re.compile(r"train|main|run|fit", re.IGNORECASE)
_WITHOUT_GRADIENT = frozenset({"no_grad", "inference_mode"})
FUNCTIONS_LIMIT = 400
NAMES_LIMIT = 40
# Of a method's name that more classes have it is open which one runs.
CANDIDATES_LIMIT = 3
_known: weakref.WeakKeyDictionary[Program, frozenset[ast.AST]] = weakref.WeakKeyDictionary()


def is_scoring(module: Module, node: ast.AST, program: Program) -> bool:
    """Whether a place belongs to evaluation."""
    if _says_so(module.index, node):
        return True
    functions = _reported(program)
    return any(above in functions for above in module.index.ancestors(node))


def _says_so(index: Index, node: ast.AST) -> bool:
    """The same by the name of a function around it, or because it computes no gradients."""
    for above in index.ancestors(node):
        if isinstance(above, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if _SCORING.search(above.name) or any(_gradientless(each) for each in above.decorator_list):
                return True
        elif isinstance(above, ast.With) and any(_gradientless(item.context_expr) for item in above.items):
            return True
    return False


def _gradientless(node: ast.expr) -> bool:
    return last_name(node.func if isinstance(node, ast.Call) else node) in _WITHOUT_GRADIENT


def _reported(program: Program) -> frozenset[ast.AST]:
    """The functions whose results are printed as bits per byte, and those that they call; remembered."""
    if program not in _known:
        found: dict[ast.AST, None] = {}
        waiting = [each for module in program.modules.values() for each in _roots(module, program)]
        while waiting and len(found) < FUNCTIONS_LIMIT:
            module, function = waiting.pop()
            if function.node not in found:
                found[function.node] = None
                waiting += _called_by(function, module, program)
        _known[program] = frozenset(found)
    return _known[program]


def _roots(module: Module, program: Program) -> Iterator[tuple[Module, Function]]:
    """The functions whose values are printed with `bpb`."""
    for call in module.index.calls_of(*REPORTERS):
        scope = module.scope_of(call)
        text, names = printed(call, scope)
        for name in names if "bpb" in text.lower() else ():
            for home, function in _gave(name, scope, program):
                if not _WHOLE.search(function.node.name):
                    yield home, function


def _gave(name: ast.Name, scope: Scope, program: Program) -> Iterator[tuple[Module, Function]]:
    """The functions of the program that a local name has its values from, through arithmetic and sums."""
    waiting: list[ast.AST] = [name]
    seen: set[str] = set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and node.id not in seen and len(seen) < NAMES_LIMIT:
            seen.add(node.id)
            waiting += [binding.value for binding in scope.bindings.get(node.id, ())]
        called = program.called(node, scope) if isinstance(node, ast.Call) else []
        yield from called if len(called) <= CANDIDATES_LIMIT else ()
        if not called:
            waiting += children(node)


def _called_by(function: Function, module: Module, program: Program) -> Iterator[tuple[Module, Function]]:
    scope = module.scope(function)
    for node in module.index.own(function.node):
        if isinstance(node, ast.Call):
            found = program.called(node, scope)
            if isinstance(node.func, ast.Name) or len(found) <= CANDIDATES_LIMIT:
                yield from found
