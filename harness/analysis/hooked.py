"""Calibration that no function is named for: what hooks gather while the model reads tokens shapes its weights.

Read inside one function: hooks are put on, the model is run on data, the hooks come off, and what they gathered changes
weights in place or goes to a quantizer.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

from harness.analysis.announced import announcements
from harness.analysis.calibration import Calibration
from harness.analysis.index import dotted, last_name, place_of
from harness.analysis.origins import NONE, VALIDATION, Labels, Origins
from harness.analysis.program import Module, Program, Scope
from harness.analysis.reach import Life, Reach
from harness.analysis.sites import Step
from harness.analysis.trace import Tracer

_QUANTIZES = re.compile(r"quant(?!ile)|gptq|awq", re.IGNORECASE)
_HOOKS = ("register_forward_hook", "register_forward_pre_hook")
_CHANGING = frozenset({"mul_", "div_", "copy_", "add_", "sub_", "addcmul_"})


class Hooked:
    """Finds statistics of validation tokens that hooks gather and weights are changed by."""

    def __init__(self, program: Program, reach: Reach, origins: Origins) -> None:
        self._program = program
        self._reach = reach
        self._origins = origins
        self._tracer = Tracer(program, origins)

    def all(self) -> Iterator[Calibration]:
        """Every such use, the first of each function."""
        for module in self._program.modules.values():
            hooks = [call for name in _HOOKS for call in module.calls(name)]
            for scope in dict.fromkeys(module.scope_of(call) for call in hooks):
                found = self._of(scope, [call for call in hooks if module.scope_of(call) is scope])
                if found is not None:
                    yield found

    def _of(self, scope: Scope, hooks: Sequence[ast.Call]) -> Calibration | None:
        module = scope.module
        if scope.function is None:
            return None
        taken_off = [call for call in module.calls("remove") if module.scope_of(call) is scope and not call.args]
        start = min(map(place_of, hooks))
        ends = [place_of(call) for call in taken_off if place_of(call) > start]
        if not ends:
            return None
        fed = next((call for call in self._runs(scope) if start < place_of(call) < min(ends)), None)
        use = self._used(scope, self._gathered(scope, hooks), min(ends)) if fed is not None else None
        if fed is None or use is None:
            return None
        reached = self._reach.of(fed, module)
        if reached.life is Life.DEAD or self._reach.of(use, module).life is not Life.LIVE:
            return None
        labels = self._origins.closed(self._fed(fed, scope))
        named = next(label.place for label in labels if label.place is not None)
        steps = (
            Step("validation files", named),
            Step("the model reads them under hooks", module.at(fed.lineno)),
            Step("what the hooks gathered shapes the weights", module.at(getattr(use, "lineno", None))),
        )
        texts = announcements(fed, module, self._program, self._reach)
        return Calibration(scope.function.node.name, fed=True, steps=steps, reached=reached, printed=texts)

    def _runs(self, scope: Scope) -> Iterator[ast.Call]:
        """The calls of a function that hand a model validation data and nothing of another split."""
        calls = [node for node in scope.module.index.own(scope.function.node) if isinstance(node, ast.Call)]  # type: ignore[union-attr]
        for call in sorted(calls, key=place_of):
            kinds = {label.kind for label in self._origins.closed(self._fed(call, scope))}
            if kinds == {VALIDATION} and call in self._tracer.trace((call,), scope).calls:
                yield call

    def _fed(self, call: ast.Call, scope: Scope) -> Labels:
        return NONE.union(*(self._origins.of(each, scope) for each in call.args))

    def _gathered(self, scope: Scope, hooks: Sequence[ast.Call]) -> set[str]:
        """Names of the function that its inner functions store into, when a hook is one of them or made by one."""
        module = scope.module
        inner = [each for each in module.index.functions.values() if _stands_in(each.node, scope, module)]
        mentioned = {
            node.id for call in hooks for each in call.args for node in ast.walk(each) if isinstance(node, ast.Name)
        }
        makers = [each.node for each in inner if each.node.name in mentioned]
        held: set[str] = set()
        for maker in makers:
            for node in ast.walk(maker):
                target = node.targets[0] if isinstance(node, ast.Assign) else None
                target = node.target if isinstance(node, ast.AugAssign) else target
                if isinstance(node, ast.Call) and last_name(node.func) in {"append", "add_"}:
                    target = node.func.value if isinstance(node.func, ast.Attribute) else None
                while isinstance(target, ast.Subscript):
                    target = target.value
                if isinstance(target, ast.Name) and target.id in scope.bindings:
                    held.add(target.id)
        return held

    def _used(self, scope: Scope, gathered: set[str], after: tuple[int, int]) -> ast.AST | None:
        """The first change of weights by what was gathered, or the first quantizer that gets it."""
        own = scope.module.index.own(scope.function.node) if scope.function is not None else ()
        for node in sorted(own, key=place_of):
            value = _shaping(node) if place_of(node) > after else None
            if value is not None and gathered & self._tracer.trace(value, scope).names.keys():
                return node
        return None


def _stands_in(node: ast.AST, scope: Scope, module: Module) -> bool:
    function = module.index.function_of(node)
    return function is not None and function is scope.function


def _shaping(node: ast.AST) -> Sequence[ast.expr] | None:
    """What weights are changed by, or a quantizer gets: `w.weight.data = value`, `w.weight.mul_(value)`."""
    if isinstance(node, (ast.Assign, ast.AugAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [node.value] if any(_is_weight(dotted(each)) for each in targets) else None
    if not isinstance(node, ast.Call):
        return None
    if _QUANTIZES.search(last_name(node.func)):
        return [*node.args, *(keyword.value for keyword in node.keywords)]
    owner = node.func.value if isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGING else None
    return node.args if owner is not None and _is_weight(dotted(owner)) else None


def _is_weight(name: str) -> bool:
    return name.endswith((".weight", ".weight.data", ".bias", ".bias.data"))
