"""Gradients: of which loss they are, and who takes them; with L-BFGS it is `optimizer.step(closure)`."""

from __future__ import annotations

import ast

from harness.analysis.index import descend, dotted, last_name, place_of
from harness.analysis.program import Module

_LOOPS = (ast.For, ast.AsyncFor, ast.While)
# Sizes of a gradient, which tell of it and change nothing.
_MEASURES = frozenset({"norm", "item", "numel", "isfinite", "isnan", "vector_norm", "get_total_norm"})


def stepping(gradient: ast.Call, module: Module) -> ast.Call | None:
    """The step of an optimizer that runs the inner function around a gradient.

    None where the function stands in no other one, or where something else than that one step may run it: then the
    text does not tell when the gradient is taken.
    """
    function = module.index.function_of(gradient)
    around = module.index.function_of(function.node) if function is not None else None
    if function is None or around is None:
        return None
    mentions = [each for each in module.loads(function.node.name) if around.node in module.index.ancestors(each)]
    if len(mentions) != 1:
        return None
    holder = module.index.parent(mentions[0])
    call = module.index.parent(holder) if isinstance(holder, ast.keyword) else holder
    if not isinstance(call, ast.Call) or mentions[0] is call.func or last_name(call.func) != "step":
        return None
    return call if module.index.function_of(call) is around else None


def is_inner(node: ast.AST, module: Module) -> bool:
    """Whether a node stands in a function that is defined inside another one."""
    function = module.index.function_of(node)
    return function is not None and module.index.function_of(function.node) is not None


def loss_of(call: ast.Call) -> ast.expr | None:
    """The loss of a gradient: `loss.backward()`, `scaler.scale(loss).backward()`, `torch.autograd.grad(loss, ...)`."""
    if not isinstance(call.func, ast.Attribute):
        return call.args[0] if call.args and isinstance(call.func, ast.Name) and call.func.id == "grad" else None
    if call.func.attr == "grad":
        return call.args[0] if call.args and dotted(call.func.value).endswith("autograd") else None
    owner = dotted(call.func.value)
    if call.args and owner.rpartition(".")[2] in {"autograd", "accelerator", "scaler"}:
        return call.args[0]
    return call.func.value


def is_dropped(gradient: ast.Call, module: Module) -> bool:
    """Whether what a gradient gives changes no weight: it is cleared before a step, or only measured.

    A backward pass in no loop, behind which the next that the function does with gradients is to set them to nothing;
    a gradient that is returned under names of which nothing but norms is taken.
    """
    scope = module.scope_of(gradient)
    if last_name(gradient.func) == "backward":
        if any(isinstance(above, _LOOPS) for above in _around(gradient, module)):
            return False
        calls = [each for name in ("zero_grad", "step") for each in module.calls(name)]
        reads = [each for each in module.loads("grad") if isinstance(each, ast.Attribute)]
        later = [each for each in (*calls, *reads) if place_of(each) > place_of(gradient)]
        mine = sorted((each for each in later if module.scope_of(each) is scope), key=place_of)
        if not mine or last_name(mine[0].func if isinstance(mine[0], ast.Call) else mine[0]) != "zero_grad":
            return False
        # In the same block: on every way behind it.
        return module.index.parent(module.index.statement_of(gradient) or gradient) is module.index.parent(
            module.index.statement_of(mine[0]) or mine[0]
        )
    statement = module.index.statement_of(gradient)
    target = statement.targets[0] if isinstance(statement, ast.Assign) and statement.value is gradient else None
    return isinstance(target, ast.Name) and _is_measured(target.id, gradient, module, 0)


def _around(node: ast.AST, module: Module) -> list[ast.AST]:
    found: list[ast.AST] = []
    for above in module.index.ancestors(node):
        if isinstance(above, (ast.FunctionDef, ast.AsyncFunctionDef)):
            break
        found.append(above)
    return found


def _is_measured(name: str, gradient: ast.Call, module: Module, depth: int) -> bool:
    """Whether every mention of a name takes a norm of it, or of the items that a comprehension takes."""
    scope = module.scope_of(gradient)
    mentions = [each for each in module.index.names.get(name, ()) if module.scope_of(each) is scope]
    return bool(mentions) and all(_measures(each, gradient, module, depth) for each in mentions)


def _measures(mention: ast.AST, gradient: ast.Call, module: Module, depth: int) -> bool:
    below = mention
    for above in module.index.ancestors(mention):
        if isinstance(above, ast.Call) and last_name(above.func) in _MEASURES:
            return True
        if isinstance(above, ast.comprehension) and below is above.iter and depth < 1:
            taken = [each.id for each in descend(above.target) if isinstance(each, ast.Name)]
            return all(_is_measured(each, gradient, module, depth + 1) for each in taken)
        if isinstance(above, ast.stmt):
            return False
        below = above
    return False
