"""The configuration that a run had: constants propagated from logged values, the README's command and defaults.

A script reads 40 to 120 environment variables, so a default in the source is not the value of the run. A logged
hyperparameter is; the command in the README comes next, and the literal default last. A value that nobody states
is Unknown, and Unknown decides no branch.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.analysis import environment
from harness.analysis.answers import (
    NOTHING_STATED,
    UNKNOWN,
    Answer,
    Reason,
    Resolved,
    Setting,
    Stated,
    Unknown,
    agreed,
    apply,
    because,
    literal,
    moved,
    reason_of,
)
from harness.analysis.arithmetic import CONSTANT_ERRORS, binary, compare, method, unary
from harness.analysis.branches import guards
from harness.analysis.index import dotted, field_default, last_name
from harness.analysis.program import Binding, Module, Program, Scope, argument, default_of
from harness.model import Location

DEPTH_LIMIT = 40
WORK_LIMIT = 4_000
STATEMENTS_LIMIT = 40
CALL_SITES_LIMIT = 12
_BUILTINS: dict[str, Callable[..., object]] = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "abs": abs,
    "min": min,
    "max": max,
    "len": len,
}
_TRUTH = {"True": "1", "False": "0"}


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where an expression is evaluated: its scope, and the values of parameters inside an inlined helper."""

    scope: Scope
    local: Mapping[str, Answer]
    depth: int

    def deeper(self) -> _Frame:
        return _Frame(self.scope, self.local, self.depth + 1)


# By name: a table of bound methods would hold the configuration, and the trees it read, in a circle.
_KINDS: Mapping[type[ast.expr], str] = {
    ast.Attribute: "_attribute",
    ast.Call: "_call",
    ast.BoolOp: "_connective",
    ast.UnaryOp: "_operator",
    ast.BinOp: "_operator",
    ast.Compare: "_comparison",
    ast.IfExp: "_choice",
    ast.Tuple: "_sequence",
    ast.List: "_sequence",
    ast.Set: "_sequence",
    ast.Subscript: "_item",
}


class Configuration:
    """Values of expressions under the run's configuration."""

    def __init__(self, program: Program, stated: Stated = NOTHING_STATED) -> None:
        self._program = program
        self._stated = stated
        self._known: dict[ast.expr, Answer] = {}
        self._work = 0

    def value(self, node: ast.expr, scope: Scope) -> Answer:
        """What an expression in a scope is."""
        self._work = 0
        return self._of(node, _Frame(scope, {}, 0))

    def _of(self, node: ast.expr, frame: _Frame) -> Answer:
        """The same inside a frame; remembered, but inside a helper, whose parameters differ from call to call."""
        if frame.local:
            return self._evaluated(node, frame)
        if node not in self._known:
            # Until it is known, for values that depend on themselves.
            self._known[node] = UNKNOWN
            self._known[node] = self._evaluated(node, frame)
        return self._known[node]

    def _evaluated(self, node: ast.expr, frame: _Frame) -> Answer:
        self._work += 1
        if frame.depth > DEPTH_LIMIT or self._work > WORK_LIMIT:
            return UNKNOWN
        try:
            return self._dispatch(node, frame.deeper())
        except CONSTANT_ERRORS:
            return UNKNOWN

    def _dispatch(self, node: ast.expr, frame: _Frame) -> Answer:
        if isinstance(node, ast.Constant):
            return Resolved(node.value)
        if isinstance(node, ast.Name):
            return self._name(node.id, frame)
        if isinstance(node, ast.NamedExpr):
            return self._of(node.value, frame)
        method_name = _KINDS.get(node.__class__)
        answer: Answer = getattr(self, method_name)(node, frame) if method_name is not None else UNKNOWN
        return answer

    def _operator(self, node: ast.UnaryOp | ast.BinOp, frame: _Frame) -> Answer:
        if isinstance(node, ast.UnaryOp):
            sign = node.op
            return apply(lambda values: unary(sign, values[0]), [self._of(node.operand, frame)])
        kind = node.op
        parts = [self._of(node.left, frame), self._of(node.right, frame)]
        return apply(lambda values: binary(kind, values[0], values[1]), parts)

    def _sequence(self, node: ast.Tuple | ast.List | ast.Set, frame: _Frame) -> Answer:
        return apply(tuple, [self._of(each, frame) for each in node.elts[:STATEMENTS_LIMIT]])

    # Names and attributes

    def _name(self, name: str, frame: _Frame) -> Answer:
        if name in frame.local:
            return frame.local[name]
        holder = frame.scope.holder(name)
        if holder is None:
            # In the body of a class its other names are seen, too.
            fields = [*self._fields(name, "", frame.scope.module, frame).values()] if frame.depth < DEPTH_LIMIT else []
            return agreed(fields) if fields else self._imported(name, frame)
        bindings = holder.bindings.get(name, [])
        inner = _Frame(holder, {}, frame.depth)
        if name in holder.parameters and holder.function is not None:
            return UNKNOWN if bindings else self._parameter(name, holder, inner)
        return self._one_of(bindings, inner, name)

    def _imported(self, name: str, frame: _Frame) -> Answer:
        """A constant of another module of the folder."""
        stem, _, original = frame.scope.module.imports.get(name, "").rpartition(".")
        module = self._program.modules.get(stem.rpartition(".")[2]) if stem else None
        return UNKNOWN if module is None else self._name(original, _Frame(module.scope(None), {}, frame.depth))

    def _one_of(self, bindings: list[Binding], frame: _Frame, name: str) -> Answer:
        """The value of a name whose every binding gives one and the same."""
        if not bindings or len(bindings) > CALL_SITES_LIMIT or not all(each.whole for each in bindings):
            return UNKNOWN
        answers = [self._of(each.value, frame) for each in bindings]
        return self._logged(name, agreed(answers))

    def _parameter(self, name: str, scope: Scope, frame: _Frame) -> Answer:
        """A parameter's value, where every call passes the same."""
        function = scope.function
        if function is None:
            return UNKNOWN
        answers: list[Answer] = []
        for module, call, filled in self._program.call_sites(function):
            passed = argument(call, function, name, filled)
            outer = _Frame(module.scope_of(call), {}, frame.depth)
            if passed is not None:
                answers.append(self._of(passed, outer))
                continue
            default = default_of(function, name)
            around = _Frame(scope.parent or scope, {}, frame.depth)
            answers.append(self._of(default, around) if default is not None else UNKNOWN)
        return agreed(answers) if 0 < len(answers) <= CALL_SITES_LIMIT else UNKNOWN

    def _attribute(self, node: ast.Attribute, frame: _Frame) -> Answer:
        found = self._setting(node.attr, frame, own=last_name(node.value) == "self")
        return self._logged(node.attr, found)

    def _setting(self, name: str, frame: _Frame, *, own: bool) -> Answer:
        """The value of an attribute: a field of a class, set in `__init__`, or an option of argparse."""
        owner = frame.scope.function.owner if own and frame.scope.function is not None else ""
        answers: list[Answer] = []
        for module in self._program.modules.values():
            fields = self._fields(name, owner, module, frame)
            answers += fields.values()
            answers += self._stores(name, frozenset([owner] if owner else fields), module, frame)
        if not answers:
            answers = [answer for module in self._program.modules.values() for answer in self._option(name, module)]
        if not answers:
            return UNKNOWN
        return agreed(answers) if len(answers) <= CALL_SITES_LIMIT else Unknown((name,))

    def _fields(self, name: str, owner: str, module: Module, frame: _Frame) -> dict[str, Answer]:
        """Values of `name = ...` in the bodies of classes, by class; of the class `owner` alone when it has one."""
        inner = _Frame(module.scope(None), {}, frame.depth)
        return {
            field.owner: self._of(field_default(field.value) if field.annotated else field.value, inner)
            for field in module.fields.get(name, ())
            if owner in {"", field.owner}
        }

    def _stores(self, name: str, owners: frozenset[str], module: Module, frame: _Frame) -> list[Answer]:
        """Values of `x.name = ...` that run; those of `self.name` only in the classes `owners`, when there are any."""
        found: list[Answer] = []
        for target, binding in module.stores(name)[: CALL_SITES_LIMIT + 1]:
            scope = module.scope_of(target)
            here = scope.function.owner if scope.function is not None else ""
            if owners and last_name(target.value) == "self" and here not in owners:
                continue
            if not self._skipped(target, scope, frame):
                whole = self._of(binding.value, _Frame(scope, {}, frame.depth)) if binding.whole else UNKNOWN
                found.append(whole)
        return found

    def _skipped(self, node: ast.AST, scope: Scope, frame: _Frame) -> bool:
        """Whether a condition around a node is known to be false."""
        for guard in guards(scope.module.index, node):
            answer = self._of(guard.test, _Frame(scope, {}, frame.depth))
            if isinstance(answer, Resolved) and answer.true is not guard.wanted:
                return True
        return False

    def _option(self, name: str, module: Module) -> list[Answer]:
        """Defaults of `parser.add_argument("--name", default=...)`."""
        found: list[Answer] = []
        for call in module.calls("add_argument"):
            spelled = [each.value for each in call.args if isinstance(each, ast.Constant)]
            if name not in {str(each).lstrip("-").replace("-", "_") for each in spelled}:
                continue
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            action = given.get("action")
            stored = action.value if isinstance(action, ast.Constant) else ""
            fallback = ast.Constant(value=stored == "store_false") if stored in {"store_true", "store_false"} else None
            value = given.get("default", fallback)
            if value is not None:
                answer = self._of(value, _Frame(module.scope(None), {}, 1))
                reason = Reason(f"--{name}", str(getattr(answer, "value", "")), "default", module.at(call.lineno))
                found.append(Resolved(answer.value, (reason,)) if isinstance(answer, Resolved) else answer)
        return found

    # Environment and calls

    def _logged(self, name: str, otherwise: Answer) -> Answer:
        """The logged value of a setting, if the evidence gives one and the source makes it a setting at all."""
        key = name.lower()
        if key in self._stated.unclear:
            return Unknown((name,))
        setting = self._stated.logged.get(key)
        is_setting = bool(otherwise.reasons) if isinstance(otherwise, Resolved) else bool(otherwise.names)
        if setting is None or not is_setting:
            return otherwise
        return Resolved(literal(setting.value), (reason_of(name, setting),))

    def _environment(self, key: str, default: Answer, place: Location) -> Answer:
        """The value of an environment variable in the run."""
        if key in environment.LAUNCHER_KEYS and key.lower() not in self._stated.logged:
            return UNKNOWN
        if key.lower() in self._stated.unclear:
            return Unknown((key,))
        setting = self._stated.variable(key)
        if setting is not None:
            return Resolved(_TRUTH.get(setting.value, setting.value), (reason_of(key, setting),))
        if isinstance(default, Unknown):
            return Unknown((key,))
        shown = str(default.value)[:60]
        return Resolved(default.value, (Reason(key, shown, "default", place), *default.reasons))

    def _call(self, node: ast.Call, frame: _Frame) -> Answer:
        name = dotted(node.func)
        if node.args and environment.is_getter(node.func, frame.scope):
            return self._getter(node, frame)
        if name in _BUILTINS and not node.keywords:
            function = _BUILTINS[name]
            return apply(lambda values: function(*values), [self._of(each, frame) for each in node.args])
        if name == "getattr" and len(node.args) >= 2:
            return self._getattr(node, frame)
        if isinstance(node.func, ast.Name):
            answer = self._helper(node, frame)
            # A function that cannot be followed and is given a variable's name may well read it.
            named = environment.named_variable(node) if answer == UNKNOWN else ""
            return Unknown((named,)) if named else answer
        if isinstance(node.func, ast.Attribute):
            attribute = node.func.attr
            parts = [self._of(each, frame) for each in (node.func.value, *node.args)]
            return apply(lambda values: method(attribute, values), parts)
        return UNKNOWN

    def _getter(self, node: ast.Call, frame: _Frame) -> Answer:
        key = self._of(node.args[0], frame)
        if not isinstance(key, Resolved) or not isinstance(key.value, str):
            return UNKNOWN
        given = node.args[1:2] + [each.value for each in node.keywords if each.arg == "default"]
        default: Answer = self._of(given[0], frame) if given else Resolved(None)
        return self._environment(key.value, default, frame.scope.module.at(node.lineno))

    def stated(self, node: ast.Call, scope: Scope) -> Setting | None:
        """What a log or a command gives the environment variable that a call reads, if it reads one."""
        if not node.args or not environment.is_getter(node.func, scope):
            return None
        key = self.value(node.args[0], scope)
        name = key.value if isinstance(key, Resolved) and isinstance(key.value, str) else ""
        return self._stated.variable(name)

    def _getattr(self, node: ast.Call, frame: _Frame) -> Answer:
        """`getattr(args, "name", default)`: the attribute where something sets it."""
        if not isinstance(node.args[1], ast.Constant):
            return UNKNOWN
        name = str(node.args[1].value)
        found = self._attribute(ast.Attribute(node.args[0], name, ast.Load()), frame)
        defined = any(module.stores(name) for module in self._program.modules.values())
        if isinstance(found, Resolved) or defined or len(node.args) < 3 or name.lower() in self._stated.unclear:
            return found
        fields = [
            answer for module in self._program.modules.values() for answer in self._fields(name, "", module, frame)
        ]
        return found if fields else self._of(node.args[2], frame)

    def _helper(self, node: ast.Call, frame: _Frame) -> Answer:
        """A call of a short function of the script's own, such as `env_bool("NAME", True)`, evaluated inline."""
        targets = self._program.named(last_name(node.func), frame.scope)
        if len(targets) != 1 or len(targets[0][1].node.body) > STATEMENTS_LIMIT:
            return UNKNOWN
        module, function = targets[0]
        local: dict[str, Answer] = {}
        for parameter in function.parameters:
            passed, default = argument(node, function, parameter, 0), default_of(function, parameter)
            if passed is not None:
                local[parameter] = self._of(passed, frame)
            else:
                outer = _Frame(module.scope(None), {}, frame.depth)
                local[parameter] = self._of(default, outer) if default is not None else UNKNOWN
        answer = self._body(function.node.body, _Frame(module.scope(function), local, frame.depth), local)
        place = frame.scope.module.at(node.lineno)
        return moved(answer, place) if answer is not None else UNKNOWN

    def _body(self, body: list[ast.stmt], frame: _Frame, local: dict[str, Answer]) -> Answer | None:
        """What a run of simple statements returns; None when it falls through; Unknown when it cannot be followed."""
        for line in body:
            if isinstance(line, ast.Return):
                return self._of(line.value, frame) if line.value is not None else Resolved(None)
            if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
                local[line.targets[0].id] = self._of(line.value, frame)
            elif isinstance(line, (ast.If, ast.Try)):
                answer = self._branch(line, frame, local)
                if answer is not None:
                    return answer
            elif not isinstance(line, (ast.Expr, ast.Pass)):
                return UNKNOWN
        return None

    def _branch(self, line: ast.If | ast.Try, frame: _Frame, local: dict[str, Answer]) -> Answer | None:
        if isinstance(line, ast.Try):
            return self._body(line.body, frame, local)
        test = self._of(line.test, frame)
        if isinstance(test, Unknown):
            return test
        answer = self._body(line.body if test.true else line.orelse, frame, local)
        return because(answer, test.reasons) if isinstance(answer, Resolved) else answer

    # Operators

    def _connective(self, node: ast.BoolOp, frame: _Frame) -> Answer:
        """`and`, `or`: one operand can decide alone; otherwise all must be known."""
        stop = isinstance(node.op, ast.Or)
        answers = [self._of(each, frame) for each in node.values]
        for answer in answers:
            if isinstance(answer, Resolved) and answer.true is stop:
                # An unknown operand before it may have another value of the same truth.
                return answer if answer is answers[0] else Resolved(stop, answer.reasons)
        return apply(lambda values: values[-1], answers)

    def _comparison(self, node: ast.Compare, frame: _Frame) -> Answer:
        if isinstance(node.ops[0], (ast.In, ast.NotIn)) and environment.is_environment(
            node.comparators[0], frame.scope
        ):
            key = self._of(node.left, frame)
            if not isinstance(key, Resolved):
                return UNKNOWN
            given = self._environment(str(key.value), Resolved(None), frame.scope.module.at(node.lineno))
            inside = isinstance(node.ops[0], ast.In)
            return apply(lambda values: (values[0] is not None) is inside, [given])
        answers = [self._of(each, frame) for each in (node.left, *node.comparators)]
        return apply(lambda values: compare(node.ops, values), answers)

    def _choice(self, node: ast.IfExp, frame: _Frame) -> Answer:
        test = self._of(node.test, frame)
        if isinstance(test, Unknown):
            return test
        answer = self._of(node.body if test.true else node.orelse, frame)
        return because(answer, test.reasons) if isinstance(answer, Resolved) else answer

    def _item(self, node: ast.Subscript, frame: _Frame) -> Answer:
        if environment.is_environment(node.value, frame.scope):
            key = self._of(node.slice, frame)
            if isinstance(key, Resolved):
                return self._environment(str(key.value), UNKNOWN, frame.scope.module.at(node.lineno))
            return UNKNOWN
        parts = [self._of(node.value, frame), self._of(node.slice, frame)]
        return apply(lambda values: values[0][values[1]], parts)
