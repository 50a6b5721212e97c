"""Scores of a model that scoring code itself asks to look both ways: `model(x, is_causal=False)`.

A layer without a causal mask may attend to anything, an encoder's output or earlier blocks, and says nothing. A call in
scoring code that switches the mask of the whole model off, and whose logits give the loss that is counted, lets every
position see later tokens.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from harness.analysis.flow import root
from harness.analysis.flowwords import ACCUMULATOR, LOSSES
from harness.analysis.index import descend, last_name
from harness.analysis.labels import Proven, Step
from harness.analysis.origins import reaching
from harness.analysis.program import Module, Program, Scope
from harness.analysis.scoring import is_scoring

_FLAGS = frozenset({"is_causal", "causal"})
_MEMORY = re.compile(r"cache|past|memory|kv|state", re.IGNORECASE)
_ATTENTION = ("scaled_dot_product_attention", "flash_attn_func", "flash_attn_varlen_func")


def both_ways(program: Program) -> Iterator[Proven]:
    """Every call of a model without its causal mask whose loss is counted."""
    flags = {name for module in program.modules.values() for name in _handed_on(module)}
    for module in program.modules.values() if flags else ():
        for keyword in module.index.of(ast.keyword):
            call = module.index.parent(keyword)
            off = keyword.arg in flags and isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            if not off or not isinstance(call, ast.Call) or last_name(call.func) in _ATTENTION or _remembers(call):
                continue
            found = _counted(call, module.scope_of(call)) if is_scoring(module, call, program) else None
            if found is not None:
                loss, total = found
                first = Step("the model is run without its causal mask", module.at(call.lineno), call, module)
                second = Step("a loss is made of that", module.at(loss.lineno), loss, module)
                yield Proven((first, second, Step("it is counted", module.at(total.lineno), total, module)))


def _handed_on(module: Module) -> Iterator[str]:
    """Parameters that a function hands on to attention as its causal mask."""
    for call in module.index.calls_of(*_ATTENTION):
        scope = module.scope_of(call)
        for keyword in call.keywords:
            value = keyword.value
            if keyword.arg in _FLAGS and isinstance(value, ast.Name) and value.id in scope.parameters:
                yield value.id


def _remembers(call: ast.Call) -> bool:
    """Whether a call goes on from a memory: one token at a time needs no mask."""
    named = (each for value in (*call.args, *call.keywords) for each in descend(value))
    return any(_MEMORY.search(each.arg or "" if isinstance(each, ast.keyword) else last_name(each)) for each in named)


def _counted(call: ast.Call, scope: Scope) -> tuple[ast.Call, ast.AugAssign] | None:
    """The loss of what a call gives, and where it is added to the score; None where a gradient is taken of it."""
    index = scope.module.index
    for loss in index.calls_of(*LOSSES):
        if scope.module.scope_of(loss) is not scope or not loss.args or not comes_from(loss.args[0], call, scope):
            continue
        if any(comes_from(each.func, loss, scope) for each in index.calls_of("backward")):
            return None
        for total in index.of(ast.AugAssign):
            own = scope.module.scope_of(total) is scope and isinstance(total.op, ast.Add)
            if own and ACCUMULATOR.search(root(total.target)) and comes_from(total.value, loss, scope):
                return loss, total
    return None


def comes_from(node: ast.expr, source: ast.expr, scope: Scope) -> bool:
    """Whether a value is made of another one in the same function."""
    waiting: list[ast.AST] = [node]
    seen: set[ast.AST] = set()
    while waiting:
        each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        if each is source:
            return True
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load) and scope.holder(each.id) is scope:
            # What a loop gives the name further down belongs to its next round.
            place = (each.lineno, each.col_offset)
            waiting += [binding.value for binding in reaching(each, scope, scope) if binding.place <= place]
        waiting += [inner for inner in descend(each) if inner is not each and inner not in seen]
    return False
