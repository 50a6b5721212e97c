"""Gradients: of which loss they are, and who takes them; with L-BFGS it is `optimizer.step(closure)`."""

from __future__ import annotations

import ast

from harness.analysis.index import dotted, last_name
from harness.analysis.program import Module


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
