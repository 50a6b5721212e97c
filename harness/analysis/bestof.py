"""The best of several whole evaluations, printed as the score.

Each of them may be legal by itself. To report the lower of two results is to choose by the text that is being scored;
the lowest result of all epochs of one training, the shortest of several archives and a best result that is printed
beside the score are none of this.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

from harness.analysis.index import descend, dotted, last_name
from harness.analysis.labels import Proven, Step
from harness.analysis.origins import reaching
from harness.analysis.prints import REPORTERS, strings_of
from harness.analysis.program import Module, Program, Scope

_RESULT = re.compile(r"bpb|loss|nll", re.IGNORECASE)
_WAY = re.compile(r"name|method|strategy|mode|variant|label", re.IGNORECASE)
_EVALUATING = re.compile(r"eval|scor|valid|infer|bpb|ttt|slid", re.IGNORECASE)
# What a script calls the result that counts.
_FINAL = re.compile(r"final|exact|roundtrip|submission", re.IGNORECASE)


def best_scores(program: Program) -> Iterator[Proven]:
    """Every such choice whose result is printed as the final one."""
    for module in program.modules.values():
        for node in (*module.index.calls_of("min"), *module.index.of(ast.IfExp)):
            statement = module.index.statement_of(node)
            if not isinstance(statement, ast.Assign) or statement.value is not node:
                continue
            evaluations = _evaluations(node, module.scope_of(node), program)
            names = _results(statement.targets[0], node, evaluations)
            printed = next((each for name in names for each in _printed(name, node, module)), None)
            if printed is not None:
                steps = [Step("a whole evaluation", module.at(each.lineno), each, module) for each in evaluations]
                choice = Step("the lowest result is taken", module.at(node.lineno), node, module)
                last = Step("it is printed as the score", module.at(printed.lineno), printed, module)
                yield Proven((*steps, choice, last))


def _evaluations(node: ast.expr, scope: Scope, program: Program) -> list[ast.Call]:
    """The evaluations that a choice is between, where all that it is between are results of different ones."""
    parts = _compared(node)
    calls = [_evaluation(each, scope, program) for each in parts]
    found = list(dict.fromkeys(call for call in calls if call is not None))
    return found if len(found) == len(parts) > 1 else []


def _compared(node: ast.expr) -> Sequence[ast.expr]:
    """The values of `min(a, b)`, and of `a if a < b else b`."""
    if isinstance(node, ast.Call):
        return node.args if not node.keywords else []
    if not isinstance(node, ast.IfExp) or not isinstance(node.test, ast.Compare):
        return []
    sides = [node.test.left, *node.test.comparators]
    arms = [node.body, node.orelse]
    return arms if {dotted(each) for each in sides} == {dotted(each) for each in arms} - {""} else []


def _evaluation(node: ast.expr, scope: Scope, program: Program) -> ast.Call | None:
    """The one call of an evaluating function of the program that a name's value comes from."""
    holder = scope.holder(node.id) if isinstance(node, ast.Name) and _RESULT.search(node.id) else None
    bindings = list(reaching(node, scope, holder)) if isinstance(node, ast.Name) and holder is not None else []
    value = bindings[0].value if len(bindings) == 1 else None
    if not isinstance(value, ast.Call) or not _EVALUATING.search(last_name(value.func)):
        return None
    return value if program.called(value, scope) else None


def _results(target: ast.expr, node: ast.expr, evaluations: Sequence[ast.Call]) -> list[str]:
    """The names of the lowest result: of a choice between evaluations, or of the best of a list of named ways."""
    names = [dotted(each) for each in (target.elts if isinstance(target, ast.Tuple) else [target])]
    results = [name for name in names if _RESULT.search(name)]
    if evaluations:
        return results
    listed = isinstance(node, ast.Call) and len(node.args) == 1 and any(each.arg == "key" for each in node.keywords)
    return results if listed and any(_WAY.search(name) for name in names if name not in results) else []


def _printed(name: str, node: ast.expr, module: Module) -> Iterator[ast.Call]:
    """The prints of a name, after a place in its function, that call it final."""
    scope = module.scope_of(node)
    for call in module.index.calls_of(*REPORTERS):
        if call.lineno < node.lineno or module.scope_of(call) is not scope:
            continue
        said = " ".join(text for each in call.args for text in strings_of(each))
        shown = any(isinstance(each, ast.Name) and each.id == name for part in call.args for each in descend(part))
        if shown and _FINAL.search(said) and _RESULT.search(said):
            yield call
