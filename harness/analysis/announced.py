"""What a program is bound to print when a place in it runs, and would not print otherwise."""

from __future__ import annotations

import ast
from typing import TypeAlias

from harness.analysis.prints import Line, of_a_rank, printed_by
from harness.analysis.program import Module, Program
from harness.analysis.reach import Life, Reach

_BLOCKS = ("body", "orelse", "finalbody")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_LEAVING = (ast.Return, ast.Raise)
Lines: TypeAlias = tuple[Line, ...]
_CALLS_LIMIT = 6


def announcements(node: ast.AST, module: Module, program: Program, reach: Reach) -> tuple[Lines, ...]:
    """The fixed texts of prints that a run which comes to a node makes, and one that does not leaves out.

    They stand beside the node, in its blocks and those of the functions around it, up to the outermost condition;
    from function to function as long as one call of each may run. Those of one group are of one block, the innermost
    first.

    Args:
        node: what runs.
        module: where it stands.
        program: the scripts.
        reach: which calls may run.
    """
    found: list[list[Line]] = []
    # Printed beside the node, but so far whatever decides about the node.
    pending: list[list[Line]] = []
    home, here = module, node
    for _ in range(_CALLS_LIMIT):
        below = here
        for above in home.index.ancestors(here):
            if isinstance(below, ast.stmt):
                free, gated = _beside(above, below)
                pending.append(free)
                found.append(gated)
            if _decides(above, below):
                found += pending
                pending = []
            if isinstance(above, _FUNCTIONS):
                break
            below = above
        function = home.index.function_of(here)
        sites = [] if function is None else [(each, call) for each, call, _ in program.call_sites(function)]
        live = [(each, call) for each, call in sites if reach.of(call, each).life is not Life.DEAD]
        if len(live) != 1:
            break
        home, here = live[0]
    return tuple(dict.fromkeys(tuple(lines) for lines in found if lines))


def _beside(above: ast.AST, below: ast.stmt) -> tuple[list[Line], list[Line]]:
    """What the other statements of a block print: in any case, and behind an earlier `if test: return`."""
    for name in _BLOCKS:
        block = getattr(above, name, None)
        if isinstance(block, list) and below in block:
            place = block.index(below)
            end = place if isinstance(below, _LEAVING) else len(block)
            gates = [number for number, each in enumerate(block[:place]) if _leaves(each)]
            start = gates[-1] if gates else end
            return list(printed_by(block[:start])), list(printed_by(block[start:end]))
    return [], []


def _leaves(statement: ast.stmt) -> bool:
    """Whether it is an `if test: return` on something else than which process runs."""
    return (
        isinstance(statement, ast.If)
        and bool(statement.body)
        and isinstance(statement.body[-1], ast.Return)
        and not of_a_rank(statement.test)
    )


def _decides(above: ast.AST, below: ast.AST) -> bool:
    """Whether a node is a condition on what is below it, other than which process runs."""
    if not isinstance(above, ast.If) or below is above.test:
        return False
    return not of_a_rank(above.test) and "__name__" not in {getattr(each, "id", "") for each in ast.walk(above.test)}
