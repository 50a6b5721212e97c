"""Calibration of the quantizer: which split its data comes from."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from harness.analysis.announced import Lines, announcements
from harness.analysis.index import Function, last_name
from harness.analysis.origins import PARAMETER, TRAINING, VALIDATION, Origins, reaching
from harness.analysis.program import Module, Program
from harness.analysis.reach import Life, Reach, Reached
from harness.analysis.sites import Step

_CALIBRATES = re.compile(r"hessian|calib|gptq|awq|act(?:ivation)?_stat", re.IGNORECASE)
# `eval_gptq` scores the quantized model.
_SCORES = re.compile(
    r"eval|score|bpb|valid|loss|nll|perplexity|ppl|report|check(?!p)|(?<!la)test|compare|trace", re.IGNORECASE
)
# A temperature is calibrated too.
_QUANTIZES = re.compile(r"hessian|gptq|awq|quant(?!ile)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Calibration:
    """A call of a calibrating function with data of one split.

    Attributes:
        function: its name.
        fed: True when the function hands that data to a model; otherwise it may serve another end.
        steps: where the data is named, the call, and where the model gets it.
        reached: whether the call runs.
        printed: what a run that makes the call is bound to print.
    """

    function: str
    fed: bool
    steps: tuple[Step, ...]
    reached: Reached
    printed: tuple[Lines, ...] = ()


class Calibrations:
    """Finds the calls of functions that calibrate, by name, and the split they are given."""

    def __init__(self, program: Program, reach: Reach, origins: Origins) -> None:
        self._program = program
        self._reach = reach
        self._origins = origins

    def all(self) -> Iterator[Calibration]:
        """Every call of a calibrating function with validation data."""
        yield from self._on(VALIDATION)

    def on_training(self) -> Iterator[Calibration]:
        """Every call of a calibrating function with training data and nothing else."""
        yield from self._on(TRAINING)

    def _on(self, split: str) -> Iterator[Calibration]:
        for module in self._program.modules.values():
            for function in module.index.functions.values():
                if _CALIBRATES.search(function.node.name) and not _SCORES.search(function.node.name):
                    yield from self._of(function, module, split)

    def _of(self, function: Function, module: Module, split: str) -> Iterator[Calibration]:
        for home, call, filled in self._program.call_sites(function):
            reached = self._reach.of(call, home)
            if reached.life is Life.DEAD:
                continue
            given = dict(zip(function.parameters[max(filled, 0) :], call.args[max(-filled, 0) :], strict=False))
            given |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
            for parameter, value in given.items():
                labels = self._origins.closed(self._origins.of(value, home.scope_of(call)))
                kinds = {label.kind for label in labels}
                if kinds != {split}:
                    continue
                named = next(label.place for label in labels if label.place is not None)
                steps = [Step(f"{split} files", named), Step("call", home.at(call.lineno))]
                fed = self._fed(function, module, parameter)
                if fed is not None:
                    steps.append(Step("the model gets them", module.at(fed.lineno)))
                quantizes = _QUANTIZES.search(function.name) is not None or _goes_on(call, home)
                proved = fed is not None and quantizes
                always = proved and self._always(value, home, call, split)
                texts = announcements(call, home, self._program, self._reach)
                yield Calibration(function.name, always, tuple(steps), reached, texts)

    def _always(self, value: ast.expr, module: Module, call: ast.Call, split: str) -> bool:
        """Whether a value is data of a split whichever of its assignments holds."""
        scope = module.scope_of(call)
        holder = scope.holder(value.id) if isinstance(value, ast.Name) else None
        if holder is None or not isinstance(value, ast.Name):
            return True
        bindings = [each for each in reaching(value, scope, holder) if not self._reach.skipped(each.value, module)]
        found = [self._origins.closed(self._origins.of(each.value, holder)) for each in bindings if each.replaces]
        return all(any(label.kind == split for label in labels) for labels in found)

    def _fed(self, function: Function, module: Module, parameter: str) -> ast.Call | None:
        """A call in the function that hands a parameter's data to a name that was passed in, the model."""
        scope = module.scope(function)
        for node in module.index.own(function.node):
            if not isinstance(node, ast.Call):
                continue
            owner = node.func
            while isinstance(owner, ast.Attribute):
                owner = owner.value
            if not isinstance(owner, ast.Name) or owner.id not in function.parameters or owner.id == parameter:
                continue
            labels = [label for each in node.args for label in self._origins.of(each, scope)]
            if any(label.kind == PARAMETER and label.name == parameter for label in labels):
                return node
        return None


def _goes_on(call: ast.Call, module: Module) -> bool:
    """Whether what a call gives is handed to a call that quantizes, by its name: `quantize(state, calib=stats)`."""
    statement = module.index.statement_of(call)
    if not isinstance(statement, ast.Assign) or statement.value is not call:
        return False
    names = {target.id for target in statement.targets if isinstance(target, ast.Name)}
    scope = module.scope_of(call)
    return any(
        _QUANTIZES.search(last_name(later.func)) is not None
        and any(isinstance(each, ast.Name) and each.id in names for each in _given(later))
        for later in module.index.each(ast.Call)
        if later.lineno > call.lineno and module.scope_of(later) is scope
    )


def _given(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]
