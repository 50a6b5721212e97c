"""What an optimizer changes: the names of the model, or of the tensors, that a gradient is taken for."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from harness.analysis.index import dotted, end_of, last_name, place_of
from harness.analysis.program import Scope

_FRESH = frozenset(
    {"requires_grad_", "zeros", "zeros_like", "randn", "randn_like", "empty", "full", "Parameter", "new_zeros", "ones"}
)
_HANDLING = frozenset({"parameters", "named_parameters"})


def optimized(site: ast.Call, scope: Scope, stepping: ast.Call | None = None) -> tuple[tuple[str, ...], bool]:
    """The names of what is changed after a gradient, and whether all are tensors made for it in the function.

    Args:
        site: the gradient.
        scope: the function that makes the optimizer.
        stepping: the optimizer's step, where it runs the gradient itself.
    """
    stepping = stepping or _stepping(site, scope)
    given = _optimizer(stepping)
    arguments = _made_with(given, scope, place_of(stepping)) if stepping is not None else []
    if last_name(site.func) == "grad" and len(site.args) > 1:
        arguments = [site.args[1]]
    names = tuple(dict.fromkeys(name for each in arguments for name in _roots(each, scope, 0)))
    if not names and given in scope.parameters:
        # Where it is made, the callers show: see `made_for`.
        return (given,), False
    return names, bool(names) and all(_is_fresh(name, scope) for name in names)


def made_for(names: Sequence[str], scope: Scope, before: tuple[int, int]) -> tuple[str, ...]:
    """The same names, with those of models where one is that of an optimizer of their parameters."""
    found: list[str] = []
    for name in names:
        arguments = _made_with(name, scope, before)
        handled = any(isinstance(each, ast.Attribute) and each.attr in _HANDLING for each in _walk(arguments))
        found += [root for each in arguments for root in _roots(each, scope, 0)] if handled else [name]
    return tuple(dict.fromkeys(found))


def _walk(nodes: Sequence[ast.expr]) -> Iterator[ast.AST]:
    for node in nodes:
        yield from ast.walk(node)


def _stepping(site: ast.Call, scope: Scope) -> ast.Call | None:
    """The `step` of an optimizer that follows the gradient."""
    calls = scope.module.calls("step")
    return next(
        (each for each in calls if place_of(each) > end_of(site) and scope.module.scope_of(each) is scope), None
    )


def _optimizer(call: ast.Call | None) -> str:
    """The name of the optimizer that steps, or ""."""
    return dotted(call.func.value) if call is not None and isinstance(call.func, ast.Attribute) else ""


def _made_with(name: str, scope: Scope, before: tuple[int, int]) -> list[ast.expr]:
    """What an optimizer of a name was made with before a place."""
    holder = scope.holder(name)
    made = [each.value for each in holder.bindings.get(name, ()) if each.place <= before] if holder else []
    return [argument for value in made if isinstance(value, ast.Call) for argument in (*value.args, *_values(value))]


def _values(call: ast.Call) -> list[ast.expr]:
    return [keyword.value for keyword in call.keywords if keyword.arg == "params"]


def _roots(node: ast.expr, scope: Scope, depth: int) -> Iterator[str]:
    """Names whose tensors an expression lists: `x` of `[x]`, `model` of `model.parameters()`, through assignments."""
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and each.attr in _HANDLING:
            yield dotted(each.value)
        elif isinstance(each, ast.Name):
            holder = scope.holder(each.id)
            bindings = holder.bindings.get(each.id, []) if holder is scope else []
            listed = [value.value for value in bindings if isinstance(value.value, (ast.List, ast.ListComp))]
            added = [value.value for value in bindings if not value.replaces]
            added += [value.value for value in bindings if not value.whole and _hands_out(value.value)]
            if (listed or added) and depth < 3:
                for value in (*listed, *added):
                    yield from _roots(value, scope, depth + 1)
            else:
                yield each.id


def _hands_out(node: ast.expr) -> bool:
    """Whether it is the parameters of a model, of which a loop takes one after the other."""
    return any(isinstance(each, ast.Attribute) and each.attr in _HANDLING for each in ast.walk(node))


def _is_fresh(name: str, scope: Scope) -> bool:
    """Whether a name is a tensor that the function makes by itself."""
    values = [each.value for each in scope.bindings.get(name, ()) if each.whole]
    return bool(values) and all(
        any(isinstance(each, ast.Call) and last_name(each.func) in _FRESH for each in ast.walk(value))
        for value in values
    )
