"""The configuration that a run had: constants propagated from logged values, the README's command and defaults.

A script reads 40 to 120 environment variables, so a default in the source is not the value of the run. A logged
hyperparameter is; the command in the README comes next, and the literal default last. A value that nobody states
is Unknown, and Unknown decides no branch.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping

from harness.analysis import construction, environment
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
    literal,
    moved,
    option_key,
    reason_of,
)
from harness.analysis.arithmetic import CONSTANT_ERRORS, METHODS, compare, method
from harness.analysis.bindings import Binding
from harness.analysis.branches import guards
from harness.analysis.evaluation import STATEMENTS_LIMIT, Evaluation, Frame
from harness.analysis.index import Function, dotted, field_default, last_name
from harness.analysis.overrides import Overrides, reads_environment
from harness.analysis.program import Field, Module, Program, Scope, argument, default_of
from harness.model import Location

DEPTH_LIMIT = 40
WORK_LIMIT = 4_000
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


class Configuration(Evaluation):
    """Values of expressions under the run's configuration."""

    def __init__(self, program: Program, stated: Stated = NOTHING_STATED) -> None:
        self._program = program
        self._stated = stated
        self._overrides = Overrides(program)
        self._known: dict[ast.expr, Answer] = {}
        self._work = 0

    def value(self, node: ast.expr, scope: Scope) -> Answer:
        """What an expression in a scope is."""
        self._work = 0
        return self._of(node, Frame(scope, {}, 0))

    def at_calls(self, node: ast.expr, scope: Scope) -> Iterator[tuple[Module, ast.Call, Answer]]:
        """What an expression is at each call of the function that it stands in, where those are few."""
        function = scope.function
        sites = self._program.call_sites(function) if function is not None else ()
        if function is None or len(sites) > CALL_SITES_LIMIT:
            return
        for site in sites:
            self._work = 0
            local = {name: self._passed(name, function, scope, site) for name in function.parameters}
            yield site[0], site[1], self._of(node, Frame(scope, local, 0))

    def _of(self, node: ast.expr, frame: Frame) -> Answer:
        """The same inside a frame; remembered, but inside a helper, whose parameters differ from call to call."""
        if frame.local:
            return self._evaluated(node, frame)
        if node not in self._known:
            # Until it is known, for values that depend on themselves.
            self._known[node] = UNKNOWN
            self._known[node] = self._evaluated(node, frame)
        return self._known[node]

    def _evaluated(self, node: ast.expr, frame: Frame) -> Answer:
        self._work += 1
        if frame.depth > DEPTH_LIMIT or self._work > WORK_LIMIT:
            return UNKNOWN
        try:
            return self._dispatch(node, frame.deeper())
        except CONSTANT_ERRORS:
            return UNKNOWN

    def _dispatch(self, node: ast.expr, frame: Frame) -> Answer:
        if isinstance(node, ast.Constant):
            return Resolved(node.value)
        if isinstance(node, ast.Name):
            return self._name(node.id, frame)
        if isinstance(node, ast.NamedExpr):
            return self._of(node.value, frame)
        method_name = _KINDS.get(node.__class__)
        answer: Answer = getattr(self, method_name)(node, frame) if method_name is not None else UNKNOWN
        return answer

    # Names and attributes

    def _name(self, name: str, frame: Frame) -> Answer:
        if name in frame.local:
            return frame.local[name]
        holder = frame.scope.holder(name)
        if holder is None:
            # In the body of a class its other names are seen, too.
            fields = [*self._fields(name, "", frame.scope.module, frame).values()] if frame.depth < DEPTH_LIMIT else []
            return agreed(fields) if fields else self._imported(name, frame)
        bindings = holder.bindings.get(name, [])
        inner = Frame(holder, frame.local if holder is frame.scope else {}, frame.depth)
        if name in holder.parameters and holder.function is not None:
            return UNKNOWN if bindings else self._parameter(name, holder, inner)
        return self._one_of(bindings, inner, name)

    def _imported(self, name: str, frame: Frame) -> Answer:
        """A constant of another module of the folder."""
        stem, _, original = frame.scope.module.imports.get(name, "").rpartition(".")
        module = self._program.modules.get(stem.rpartition(".")[2]) if stem else None
        return UNKNOWN if module is None else self._name(original, Frame(module.scope(None), {}, frame.depth))

    def _one_of(self, bindings: list[Binding], frame: Frame, name: str) -> Answer:
        """The value of a name whose every binding gives one and the same."""
        if not bindings or len(bindings) > CALL_SITES_LIMIT or not all(each.whole for each in bindings):
            return UNKNOWN
        answers = [self._of(each.value, frame) for each in bindings]
        open_to_all = frame.scope.function is None and frame.scope.module in self._overrides.modules
        return self._logged(name, Unknown((name,)) if open_to_all else agreed(answers))

    def _parameter(self, name: str, scope: Scope, frame: Frame) -> Answer:
        """A parameter's value, where every call passes the same."""
        function = scope.function
        if function is None:
            return UNKNOWN
        sites = self._program.call_sites(function)
        answers = [self._passed(name, function, scope, site, frame.depth) for site in sites]
        answer = agreed(answers) if 0 < len(answers) <= CALL_SITES_LIMIT else UNKNOWN
        # What calls choose is a setting, whatever they choose.
        chosen = answer == UNKNOWN and any(isinstance(each, Resolved) for each in answers)
        return Unknown((name,)) if chosen else answer

    def _passed(
        self, name: str, function: Function, scope: Scope, site: tuple[Module, ast.Call, int], depth: int = 0
    ) -> Answer:
        """What one call passes for a parameter, or its default."""
        module, call, filled = site
        passed = argument(call, function, name, filled)
        if passed is not None:
            return self._of(passed, Frame(module.scope_of(call), {}, depth))
        default = default_of(function, name)
        return self._of(default, Frame(scope.parent or scope, {}, depth)) if default is not None else UNKNOWN

    def _attribute(self, node: ast.Attribute, frame: Frame) -> Answer:
        found = self._setting(node.attr, frame, own=last_name(node.value) == "self")
        return self._logged(node.attr, found)

    def _setting(self, name: str, frame: Frame, *, own: bool) -> Answer:
        """The value of an attribute: a field of a class, set in `__init__`, or an option of argparse."""
        owner = frame.scope.function.owner if own and frame.scope.function is not None else ""
        written: list[Answer] = []
        stored: list[Answer] = []
        for module in self._program.modules.values():
            fields = self._fields(name, owner, module, frame)
            written += fields.values()
            stored += self._stores(name, frozenset([owner] if owner else fields), module, frame)
        if not written and not stored:
            written = [answer for module in self._program.modules.values() for answer in self._option(name, module)]
        answers = [*written, *stored]
        if not answers:
            return UNKNOWN
        answer = agreed(answers) if len(answers) <= CALL_SITES_LIMIT else Unknown((name,))
        # What classes or a parser have values for is a setting; what a method stores may count something.
        chosen = answer == UNKNOWN and not stored and any(isinstance(each, Resolved) for each in written)
        return Unknown((name,)) if chosen else answer

    def _fields(self, name: str, owner: str, module: Module, frame: Frame) -> dict[str, Answer]:
        """Values of `name = ...` in the bodies of classes, by class; of the class `owner` alone when it has one."""
        fields = (field for field in module.fields.get(name, ()) if owner in {"", field.owner})
        return {field.owner: self._field(name, field, module, frame.depth) for field in fields}

    def _field(self, name: str, field: Field, module: Module, depth: int) -> Answer:
        inner = Frame(module.scope(None), {}, depth)
        default = field_default(field.value) if field.annotated else field.value
        passed = construction.given(name, field, module, self._program) if field.annotated else []
        unread = [at for value, at in passed if value is construction.UNREAD]
        changed = self._overrides.classes.get(field.owner, bool(unread))
        if changed and all(map(reads_environment, unread)):
            stated = self._environment(name.upper(), self._of(default, inner), module.at(default.lineno))
            # By its kind, `int(text)`: what converts it stands under a computed name, too.
            return apply(lambda values: literal(str(values[0])), [stated])
        if unread or field.owner in self._overrides.classes:
            return Unknown((name,))
        values = [(value or default, inner if value is None else Frame(at, {}, depth)) for value, at in passed]
        answers = [self._of(value, around) for value, around in values or [(default, inner)]]
        return agreed(answers) if len(answers) <= CALL_SITES_LIMIT else UNKNOWN

    def _stores(self, name: str, owners: frozenset[str], module: Module, frame: Frame) -> list[Answer]:
        """Values of `x.name = ...` that run; those of `self.name` only in the classes `owners`, when there are any."""
        found: list[Answer] = []
        for target, binding in module.stores(name)[: CALL_SITES_LIMIT + 1]:
            scope = module.scope_of(target)
            here = scope.function.owner if scope.function is not None else ""
            if owners and last_name(target.value) == "self" and here not in owners:
                continue
            if not self._skipped(target, scope, frame):
                whole = self._of(binding.value, Frame(scope, {}, frame.depth)) if binding.whole else UNKNOWN
                found.append(whole)
        return found

    def _skipped(self, node: ast.AST, scope: Scope, frame: Frame) -> bool:
        """Whether a condition around a node is known to be false."""
        for guard in guards(scope.module.index, node):
            answer = self._of(guard.test, Frame(scope, {}, frame.depth))
            if isinstance(answer, Resolved) and answer.true is not guard.wanted:
                return True
        return False

    def _option(self, name: str, module: Module) -> list[Answer]:
        """`parser.add_argument("--name", default=...)`: what the command passes, else the default."""
        found: list[Answer] = []
        for option in construction.options(name, module):
            keys = {option_key(self._program.entry.at(None).path, each): each for each in sorted(option.spelled)}
            passed = [key for key in keys if self._stated.variable(key) is not None]
            setting = self._stated.variable(passed[0]) if len(passed) == 1 else None
            if len(passed) > 1 or any(key.lower() in self._stated.unclear for key in keys):
                found.append(Unknown((f"--{name}",)))
            elif setting is not None:
                flag = literal(setting.value) is True
                value = keys[passed[0]] not in option.off if flag else literal(setting.value)
                found.append(Resolved(value, (reason_of(f"--{keys[passed[0]]}", setting),)))
            elif self._overrides.classes.get("") is False:
                found.append(Unknown((f"--{name}",)))
            elif option.default is not None:
                answer = self._of(option.default, Frame(module.scope(None), {}, 1))
                reason = Reason(f"--{name}", str(getattr(answer, "value", "")), "default", option.place)
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
        if isinstance(default, Unknown) or self._overrides.environment:
            return Unknown((key,))
        shown = str(default.value)[:60]
        return Resolved(default.value, (Reason(key, shown, "default", place), *default.reasons))

    def _call(self, node: ast.Call, frame: Frame) -> Answer:
        name = dotted(node.func)
        if node.args and environment.is_getter(node.func, frame.scope, self._program):
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
        # Any other method is one of the data: `valid.any()`.
        if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
            attribute = node.func.attr
            parts = [self._of(each, frame) for each in (node.func.value, *node.args)]
            return apply(lambda values: method(attribute, values), parts)
        return UNKNOWN

    def _getter(self, node: ast.Call, frame: Frame) -> Answer:
        key = self._of(node.args[0], frame)
        if not isinstance(key, Resolved) or not isinstance(key.value, str):
            return UNKNOWN
        given = node.args[1:2] + [each.value for each in node.keywords if each.arg == "default"]
        default: Answer = self._of(given[0], frame) if given else Resolved(None)
        return self._environment(key.value, default, frame.scope.module.at(node.lineno))

    def stated(self, node: ast.Call, scope: Scope) -> Setting | None:
        """What a log or a command gives the environment variable that a call reads, if it reads one."""
        if not node.args or not environment.is_getter(node.func, scope, self._program):
            return None
        key = self.value(node.args[0], scope)
        name = key.value if isinstance(key, Resolved) and isinstance(key.value, str) else ""
        return self._stated.variable(name)

    def _getattr(self, node: ast.Call, frame: Frame) -> Answer:
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

    def _helper(self, node: ast.Call, frame: Frame) -> Answer:
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
                outer = Frame(module.scope(None), {}, frame.depth)
                local[parameter] = self._of(default, outer) if default is not None else UNKNOWN
        answer = self._body(function.node.body, Frame(module.scope(function), local, frame.depth), local)
        place = frame.scope.module.at(node.lineno)
        return moved(answer, place) if answer is not None else UNKNOWN

    # Operators

    def _comparison(self, node: ast.Compare, frame: Frame) -> Answer:
        if isinstance(node.ops[0], (ast.In, ast.NotIn)) and environment.is_environment(
            node.comparators[0], frame.scope, self._program
        ):
            key = self._of(node.left, frame)
            if not isinstance(key, Resolved):
                return UNKNOWN
            given = self._environment(str(key.value), Resolved(None), frame.scope.module.at(node.lineno))
            inside = isinstance(node.ops[0], ast.In)
            return apply(lambda values: (values[0] is not None) is inside, [given])
        answers = [self._of(each, frame) for each in (node.left, *node.comparators)]
        return apply(lambda values: compare(node.ops, values), answers)

    def _item(self, node: ast.Subscript, frame: Frame) -> Answer:
        if environment.is_environment(node.value, frame.scope, self._program):
            key = self._of(node.slice, frame)
            if isinstance(key, Resolved):
                return self._environment(str(key.value), UNKNOWN, frame.scope.module.at(node.lineno))
            return UNKNOWN
        parts = [self._of(node.value, frame), self._of(node.slice, frame)]
        return apply(lambda values: values[0][values[1]], parts)
