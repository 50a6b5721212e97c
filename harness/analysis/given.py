"""Weights that a script is given: loaded before it trains, from something else than the model's own state."""

from __future__ import annotations

import ast

from harness.analysis.index import place_of
from harness.analysis.program import Module, Program, Scope
from harness.analysis.reach import Life, Reach
from harness.model import Location


def starts_from_others(program: Program, reach: Reach, place: Location) -> bool:
    """Whether a function loads weights before a place of its own, other than a copy of what the model held.

    Args:
        program: the scripts.
        reach: what of them runs; loading that a setting may switch off, as of a checkpoint to go on from, is none.
        place: where the function trains, or calls what does.
    """
    for module in program.modules.values():
        if module.at(place.line) != place:
            continue
        for call in module.calls("load_state_dict"):
            node = next((each for each in module.index.each(ast.Call) if each.lineno == place.line), None)
            same = node is not None and module.scope_of(node) is module.scope_of(call)
            early = same and place_of(call) < (place.line or 0, 0)
            if early and reach.of(call, module).life is Life.LIVE and not _is_own_state(call, module):
                return True
    return False


def _is_own_state(call: ast.Call, module: Module) -> bool:
    """Whether what is loaded was taken from a model, `initial = copy(model.state_dict())`, as after a warm-up."""
    scope: Scope = module.scope_of(call)
    values: list[ast.AST] = list(call.args)
    seen: set[str] = set()
    for value in values:
        for each in ast.walk(value):
            if isinstance(each, ast.Attribute) and each.attr in {"state_dict", "deepcopy"}:
                return True
            if isinstance(each, ast.Name) and each.id not in seen:
                seen.add(each.id)
                holder = scope.holder(each.id)
                values += [binding.value for binding in holder.bindings.get(each.id, ())] if holder is not None else []
    return False
