"""Switches that a log shows to have been set: one side of a condition prints a line of it, the default takes the other.

Most logs do not list all settings, and READMEs forget some. But a run that prints `ttt:done` had adaptation on.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from typing import NamedTuple

from harness.analysis.answers import Reason, Resolved, Setting, Stated
from harness.analysis.configuration import Configuration
from harness.analysis.index import last_name
from harness.analysis.program import Module, Program
from harness.analysis.reach import Reach

# The other value of a switch, as an environment variable holds it.
OTHER = {"0": "1", "1": "0", "False": "True", "True": "False", "false": "true", "true": "false"}
# And of what counts, where 0 turns it off: as many as show whether a later round knows more than the first.
NUMBERS = {"STRIDE": "64", "EPOCHS": "2", "STEPS": "2", "PASSES": "2", "RANK": "4"}
DEFAULT, LOG = "default", "log"
# `bool(int(...))`, `env_flag("A")`; `get("A", "0") == "1"`, `get("A", "").lower() in ("1", "true")`; `A_ENABLED`.
_TRUTH = re.compile(r"bool|flag|truth|enabled", re.IGNORECASE)
_WORDS = frozenset({"0", "1", "true", "false", "yes", "no", "on", "off", "y", "n", ""})
_NAMED = re.compile(r"(?:^|_)(?:ENABLED?|USE|DISABLED?)(?:_|$)")
# What leaves the training to an earlier run, whose files no folder holds, or the evaluation to a later one.
HALF = re.compile(
    r"EVAL_ONLY|ONLY_EVAL|(?:^|_)(?:PREQUANT|QUANTIZE|TTT|TRAIN|VAL)_ONLY(?:_|$)|SKIP_TRAIN|^RESUME(?:_|$)"
    r"|^LOAD_(?:MODEL|CKPT|CHECKPOINT|SNAPSHOT|ARTIFACT|WEIGHTS|PATH|FROM)|SKIP_(?:\w+_)?EVALS?$"
)


class Switch(NamedTuple):
    """A variable of the environment, the value that a run must have had, and what shows it.

    Attributes:
        name: of the variable.
        value: as the environment holds it.
        shown: what shows it.
        exact: whether it is that very value: of a number is known only that it is not 0.
    """

    name: str
    value: str
    shown: Reason
    exact: bool


def switched(program: Program, stated: Stated, reached: Reach) -> dict[str, Switch]:
    """Switches by name whose default would take the other side of a condition than the logs show.

    Args:
        program: the scripts.
        stated: what is known of the runs' settings.
        reached: what of the program runs, with the logs.
    """
    return {each.name: each for each in _switches(program, stated, reached)}


def _switches(program: Program, stated: Stated, reached: Reach) -> Iterator[Switch]:
    for module in program.modules.values():
        for node in module.index.each(ast.If):
            answer = reached.configuration.value(node.test, module.scope_of(node.test))
            if not isinstance(answer, Resolved):
                continue
            plain = [reason for reason in answer.reasons if _is_switch(reason)]
            shown = reached.shown(node, module, wanted=not answer.true) if plain else None
            if shown is None or not shown.reasons or reached.shown(node, module, wanted=answer.true) is not None:
                continue
            values = {each.name: value for each in plain if (value := _other(each, program))}
            turning = [
                Switch(name, value, shown.reasons[0], value in OTHER)
                for name, value in values.items()
                if _turns(name, value, (node, module, not answer.true), program, stated)
            ]
            # Of two switches either may have been set.
            yield from turning if len(turning) == 1 else ()


def _is_switch(reason: Reason) -> bool:
    """Whether a value rests on the default of a variable of the environment with two values."""
    own = not reason.name.startswith("-") and not HALF.search(reason.name)
    return own and reason.source == DEFAULT and reason.value in OTHER


def _is_read_as_truth(name: str, program: Program) -> bool:
    """Whether a variable is made a truth where it is read; the 0 of a stride has no other value."""
    if _NAMED.search(name):
        return True
    for module in program.modules.values():
        for node in module.index.each(ast.Constant):
            if node.value != name:
                continue
            for above in module.index.ancestors(node):
                called = last_name(above.func) if isinstance(above, ast.Call) else ""
                if _is_a_word(above) or _TRUTH.search(called):
                    return True
                if isinstance(above, ast.stmt):
                    break
    return False


def _is_a_word(node: ast.AST) -> bool:
    """Whether a text is compared with words for on and off; an order asks for a number."""
    alike = (ast.Eq, ast.NotEq, ast.In, ast.NotIn)
    if not isinstance(node, ast.Compare) or not all(isinstance(each, alike) for each in node.ops):
        return False
    others = [each for side in node.comparators for each in getattr(side, "elts", [side])]
    return all(isinstance(each, ast.Constant) and str(each.value).lower() in _WORDS for each in others)


def _other(switch: Reason, program: Program) -> str:
    """What else a variable may have been; "" where that is no matter of on and off."""
    if _is_read_as_truth(switch.name, program):
        return OTHER[switch.value]
    return NUMBERS.get(switch.name.rpartition("_")[2], "") if switch.value == "0" else ""


def _turns(name: str, value: str, where: tuple[ast.If, Module, bool], program: Program, stated: Stated) -> bool:
    """Whether another value of a variable alone makes a condition what it must have been."""
    node, module, wanted = where
    given = dataclasses.replace(
        stated, commanded={**stated.commanded, name: Setting(value, LOG, module.at(node.lineno))}
    )
    answer = Configuration(program, given).value(node.test, module.scope_of(node.test))
    return isinstance(answer, Resolved) and answer.true is wanted
