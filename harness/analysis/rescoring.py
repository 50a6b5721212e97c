"""Scoring with statistics of all validation tokens: a cache filled by one pass and read by the pass that counts."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from harness.analysis.announced import Lines, announcements
from harness.analysis.index import Function, dotted, last_name, own_nodes, place_of
from harness.analysis.origins import Origins
from harness.analysis.program import Module, Program, Scope, argument
from harness.analysis.reach import Life, Reach, Reached
from harness.analysis.reported import Reports
from harness.analysis.sites import LOOPS, Step
from harness.analysis.trace import Tracer, returned

# Operations that count: what they fill has forgotten the order of the tokens.
_COUNTING = frozenset({"bincount", "scatter_add_", "scatter_add", "index_add_", "index_add"})
# What makes one number of many.
_ADDING_UP = frozenset({"sum", "dot", "mean", "vdot"})
# What gives a whole table one value, or nothing.
_CLEARING = frozenset({"fill", "fill_", "zero_", "clear"})
_METHODS_LIMIT = 8


@dataclass(frozen=True, slots=True)
class Rescoring:
    """Two passes over the validation tokens that share a cache.

    Attributes:
        function: the function that runs both.
        cache: the name of what they share.
        again: True when one scoring function runs twice; False when a cache is filled first and scored with then.
        steps: the filling pass and the scoring pass.
        reached: whether the second runs.
        label: the text of the prints of the score.
        printed: what a run that scores so is bound to print.
    """

    function: str
    cache: str
    again: bool
    steps: tuple[Step, ...]
    reached: Reached
    label: str = ""
    printed: tuple[Lines, ...] = ()


class Rescorings:
    """Finds them in a program."""

    def __init__(self, program: Program, reach: Reach, origins: Origins, reports: Reports) -> None:
        self._program = program
        self._reports = reports
        self._reach = reach
        self._tracer = Tracer(program, origins)

    def all(self) -> Iterator[Rescoring]:
        """Every pair of passes, one for each function."""
        for module in self._program.modules.values():
            for scope, calls in self._candidates(module):
                pair = next(self._pairs(calls, scope), None)
                if pair is not None:
                    yield pair

    def _candidates(self, module: Module) -> Iterator[tuple[Scope, list[tuple[ast.Call, str]]]]:
        """Functions that make an object of a class of the program and hand it to two calls or more."""
        for scope in self._makers(module):
            function = scope.function
            made = {name for name in scope.bindings if self._is_cache(name, scope)}
            if not made or function is None:
                continue
            calls = [
                (node, name)
                for node in module.index.own(function.node)
                if isinstance(node, ast.Call)
                for name in (*_handed(node, made), *self._captured(node, made, scope))
            ]
            if len(calls) > 1:
                yield scope, sorted(calls, key=lambda pair: (pair[0].lineno, pair[0].col_offset))

    def _makers(self, module: Module) -> list[Scope]:
        """The functions that make an object of a class that counts."""
        names = [*_COUNTING, "at"]
        if not any(each.calls(name) for each in self._program.modules.values() for name in names):
            return []
        owners = {
            node.name
            for each in self._program.modules.values()
            for node in each.index.classes.values()
            if any(True for _ in self._counting_methods(each, node))
        }
        made = [call for name in owners for call in module.calls(name)]
        return list(dict.fromkeys(module.scope_of(call) for call in made))

    def _captured(self, call: ast.Call, names: set[str], scope: Scope) -> Iterator[str]:
        """Those of some names that a function uses which is defined in the same function as they are."""
        inner = self._inner(call, scope)
        if inner is not None:
            owners = {last_name(node.value) for node in own_nodes(inner.node.body) if isinstance(node, ast.Attribute)}
            yield from (name for name in names if name in owners)

    def _inner(self, call: ast.Call, scope: Scope) -> Function | None:
        """The function that a call runs, when it is defined inside the calling one."""
        if not isinstance(call.func, ast.Name) or scope.function is None:
            return None
        return scope.module.index.functions.get(f"{scope.function.name}.{call.func.id}")

    def _is_cache(self, name: str, scope: Scope) -> bool:
        """Whether a name holds an object of a class of the program that counts."""
        bindings = scope.bindings[name]
        value = bindings[0].value
        if len(bindings) != 1 or not isinstance(value, ast.Call):
            return False
        found = self._program.class_named(last_name(value.func))
        return found is not None and any(True for _ in self._counting_methods(*found))

    def _counting_methods(self, module: Module, owner: ast.ClassDef) -> Iterator[str]:
        for node in owner.body:
            if isinstance(node, ast.FunctionDef) and any(
                _counts(each, module) for each in module.index.within(node, ast.Call)
            ):
                yield node.name

    def _pairs(self, calls: list[tuple[ast.Call, str]], scope: Scope) -> Iterator[Rescoring]:
        reported = self._reported(scope)
        for position, (first, cache) in enumerate(calls):
            if not self._fills(first, cache, scope):
                continue
            for second, name in calls[position + 1 :]:
                if name != cache or second not in reported or _share_loop(first, second, scope):
                    continue
                if not self._gets_tokens(second, scope) or self._emptied(cache, first, second, scope):
                    continue
                if self._takes_numbers(second, cache, scope):
                    continue
                filled = self._reach.of(first, scope.module)
                reached = filled if filled.life is Life.UNKNOWN else self._reach.of(second, scope.module)
                if reached.life is not Life.DEAD:
                    again = last_name(first.func) == last_name(second.func)
                    steps = _steps(first, second, cache, scope)
                    texts = announcements(second, scope.module, self._program, self._reach)
                    yield Rescoring(_name(scope), cache, again, steps, reached, self._reports.told(scope), texts)

    def _emptied(self, cache: str, first: ast.Call, second: ast.Call, scope: Scope) -> bool:
        """Whether a method that gives the cache new tables is called on it between the two passes."""
        value = scope.bindings[cache][0].value
        found = self._program.class_named(last_name(value.func)) if isinstance(value, ast.Call) else None
        if found is None:
            return False
        emptying = set(_emptying(*found))
        return any(
            last_name(call.func.value) == cache and place_of(first) < place_of(call) < place_of(second)
            for name in emptying
            for call in scope.module.calls(name)
            if isinstance(call.func, ast.Attribute) and scope.module.scope_of(call) is scope
            if not self._reach.skipped(call, scope.module)
        )

    def _takes_numbers(self, call: ast.Call, cache: str, scope: Scope) -> bool:
        """Whether all that a pass takes of the cache is a number that a method made of the whole: a census."""
        found: list[bool] = []
        for _, function in self._program.called(call, scope):
            names = [each for each in function.parameters if dotted(argument(call, function, each, 0) or call) == cache]
            for name in names:
                for each in (node for node in own_nodes(function.node.body) if isinstance(node, ast.Attribute)):
                    if last_name(each.value) == name:
                        found += [_is_number(home.scope(method)) for home, method in self._program.functions(each.attr)]
        return bool(found) and all(found)

    def _reported(self, scope: Scope) -> set[ast.expr]:
        """The calls that go into what the function returns."""
        return {binding.value for binding in self._tracer.trace(returned(scope), scope).bindings} | set(returned(scope))

    def _gets_tokens(self, call: ast.Call, scope: Scope) -> bool:
        if any(self._tracer.holds_validation(each, scope) for each in _given(call)):
            return True
        inner = self._inner(call, scope)
        if inner is None:
            return False
        names = [each for each in own_nodes(inner.node.body) if isinstance(each, ast.Name)]
        inside = scope.module.scope(inner)
        return any(each.id in scope.parameters and self._tracer.holds_validation(each, inside) for each in names)

    def _fills(self, call: ast.Call, cache: str, scope: Scope) -> bool:
        """Whether a call, not in a loop, counts all validation tokens into the cache."""
        if self._reach.skipped(call, scope.module) or not self._gets_tokens(call, scope):
            return False
        if any(isinstance(above, LOOPS) for above in _around(call, scope)) or self._takes_part(call, scope):
            return False
        if isinstance(call.func, ast.Attribute) and last_name(call.func.value) == cache:
            return self._counts_in(call.func.attr)
        inner = self._inner(call, scope)
        if inner is not None and self._calls_counting(inner, cache, scope.module):
            return True
        return any(
            self._counts_through(call, cache, module, each) for module, each in self._program.called(call, scope)
        )

    def _takes_part(self, call: ast.Call, scope: Scope) -> bool:
        """Whether a call is given a slice of the tokens, not all of them."""
        return any(
            isinstance(each, ast.Subscript) and self._tracer.holds_validation(each, scope) for each in _given(call)
        )

    def _counts_in(self, method: str, *, through: bool = True) -> bool:
        """Whether a method counts, itself or through another method of its object."""
        for module, function in [*self._program.functions(method)][:_METHODS_LIMIT]:
            for node in module.index.own(function.node) if function.owner else ():
                if _counts(node, module):
                    return True
                if not through or not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                    continue
                if last_name(node.func.value) == "self" and self._counts_in(node.func.attr, through=False):
                    return True
        return False

    def _counts_through(self, call: ast.Call, cache: str, module: Module, function: Function) -> bool:
        """Whether a function calls a counting method of the parameter that the cache is passed for."""
        for parameter in function.parameters:
            passed = argument(call, function, parameter, 0)
            if not isinstance(passed, ast.Name) or passed.id != cache:
                continue
            if self._calls_counting(function, parameter, module):
                return True
        return False

    def _calls_counting(self, function: Function, name: str, module: Module) -> bool:
        """Whether a function calls, and may run, a counting method of a name."""
        for node in module.index.own(function.node):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                alive = last_name(node.func.value) == name and not self._reach.skipped(node, module)
                if alive and self._counts_in(node.func.attr):
                    return True
        return False


def _counts(node: ast.AST, module: Module) -> bool:
    """`np.add.at(table, keys, 1)`, `np.bincount(keys)`, `table.scatter_add_(...)`; not counts that are added up."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    if node.func.attr == "at":
        return last_name(node.func.value) == "add"
    return node.func.attr in _COUNTING and not _is_added_up(node, module)


def _is_added_up(node: ast.expr, module: Module) -> bool:
    """`(np.bincount(ids) * lengths).sum()`: one number is left, such as the bytes of a text."""
    for above in module.index.ancestors(node):
        if isinstance(above, ast.stmt):
            return False
        if isinstance(above, ast.Call) and last_name(above.func) in _ADDING_UP:
            return True
    return False


def _emptying(module: Module, owner: ast.ClassDef) -> Iterator[str]:
    """The methods of a class that give one of its attributes a new value, made without the object: `reset`."""
    tables = _tables(module, owner)
    for node in owner.body:
        if not isinstance(node, ast.FunctionDef) or node.name == "__init__" or len(node.args.args) != 1:
            continue
        own = node.args.args[0].arg
        for store in module.index.within(node, ast.Assign):
            target = store.targets[0]
            table = target.value if isinstance(target, ast.Subscript) and _is_all(target.slice) else target
            ours = {each.id for each in ast.walk(store.value) if isinstance(each, ast.Name)}
            if isinstance(table, ast.Attribute) and table.attr in tables and own not in ours:
                yield node.name
        for call in module.index.within(node, ast.Call):
            table = call.func.value if isinstance(call.func, ast.Attribute) else call
            if last_name(call.func) in _CLEARING and last_name(table) in tables:
                yield node.name


def _is_number(scope: Scope) -> bool:
    """Whether all that a function returns are whole numbers, or sums: `int(self.counts @ self.lengths)`."""
    values = returned(scope)
    numbers = _ADDING_UP | {"int", "float", "len", "item"}
    return bool(values) and all(isinstance(each, ast.Call) and last_name(each.func) in numbers for each in values)


def _is_all(node: ast.expr) -> bool:
    """Whether an index takes everything: `table[:] = 0`."""
    return isinstance(node, ast.Slice) and node.lower is node.upper is node.step is None


def _tables(module: Module, owner: ast.ClassDef) -> set[str]:
    """The attributes of an object that its methods count into."""
    calls = [call for call in module.index.within(owner, ast.Call) if _counts(call, module)]
    return {each.attr for call in calls for each in ast.walk(call) if isinstance(each, ast.Attribute)}


def _given(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def _handed(call: ast.Call, names: set[str]) -> Iterator[str]:
    """Those of some names that a call is made on, or with."""
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    for each in dict.fromkeys([*([owner] if owner is not None else []), *_given(call)]):
        if isinstance(each, ast.Name) and each.id in names:
            yield each.id


def _share_loop(first: ast.AST, second: ast.AST, scope: Scope) -> bool:
    return any(isinstance(above, LOOPS) and above in set(_around(second, scope)) for above in _around(first, scope))


def _around(node: ast.AST, scope: Scope) -> Iterator[ast.AST]:
    for above in scope.module.index.ancestors(node):
        if isinstance(above, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return
        yield above


def _name(scope: Scope) -> str:
    return scope.function.name if scope.function is not None else ""


def _steps(first: ast.Call, second: ast.Call, cache: str, scope: Scope) -> tuple[Step, ...]:
    at = scope.module.at
    return (
        Step(f"`{cache}` is filled from the validation tokens", at(first.lineno)),
        Step("they are scored with it", at(second.lineno)),
    )
