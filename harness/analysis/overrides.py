"""Where a program gives settings values under computed names: then no text tells which of them keep their defaults.

`setattr(config, name, value)`, `globals()[name] = value`, `os.environ.setdefault(name, value)` of a file's lines,
`vars(args).update(values)`. Names that are written out, in a loop over them too, are none of this.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping

from harness.analysis import environment
from harness.analysis.index import descend, dotted, last_name
from harness.analysis.origins import reaching
from harness.analysis.program import Module, Program, Scope, argument

_READING = frozenset({"open", "load", "loads", "safe_load", "read_text", "argv"})
_READERS = frozenset({"load_dotenv"})
_PARSERS = frozenset({"parse_args", "parse_known_args"})
_HOPS_LIMIT = 4


class Overrides:
    """What a program's computed names may change; remembered."""

    def __init__(self, program: Program) -> None:
        self._program = program

    @functools.cached_property
    def environment(self) -> bool:
        """Whether variables of the environment are set so, in the process itself."""
        return any(
            environment.canonical(owner, scope) in {"os.environ", "environ"} for owner, scope in self._written
        ) or any(module.calls(name) for module in self._program.modules.values() for name in _READERS)

    @functools.cached_property
    def modules(self) -> frozenset[Module]:
        """The modules whose global names are set so; or by a file of assignments that is executed in them."""
        found = {
            scope.module
            for owner, scope in self._written
            if isinstance(owner, ast.Call) and dotted(owner.func) == "globals"
        }
        for module in self._program.modules.values():
            for call in module.calls("exec"):
                read = [each for each in ast.walk(call) if isinstance(each, ast.Call)]
                if any(last_name(each.func) in {"open", "read_text"} for each in read):
                    found.add(module)
        return frozenset(found)

    @functools.cached_property
    def classes(self) -> Mapping[str, bool]:
        """The classes whose objects, or which themselves, are given attributes so; "" for what a parser gives.

        With each whether the values are those of the environment alone, which are stated like any variable's.
        """
        found: dict[str, bool] = {}
        for owner, scope in self._written:
            for name in self._owners(owner, scope, 0):
                found[name] = found.get(name, True) and reads_environment(scope)
        return found

    @functools.cached_property
    def _written(self) -> list[tuple[ast.expr, Scope]]:
        """Everything whose entries or attributes get a value under a computed name, with where it stands."""
        return [
            (owner, module.scope_of(key))
            for module in self._program.modules.values()
            for owner, key in _writes(module)
            if not _is_spelled(key, module.scope_of(key))
        ]

    def _owners(self, node: ast.expr, scope: Scope, hops: int) -> Iterator[str]:
        """The classes that an expression may be an object of, or itself."""
        if hops > _HOPS_LIMIT:
            return
        if isinstance(node, ast.Call) and dotted(node.func) == "vars" and node.args:
            yield from self._owners(node.args[0], scope, hops + 1)
        elif isinstance(node, ast.Attribute) and node.attr == "__dict__":
            yield from self._owners(node.value, scope, hops + 1)
        elif isinstance(node, ast.Call):
            name = last_name(node.func)
            if name in _PARSERS:
                yield ""
            elif self._program.class_named(name) is not None:
                yield name
        elif isinstance(node, ast.Name):
            yield from self._named(node.id, scope, hops + 1)

    def _named(self, name: str, scope: Scope, hops: int) -> Iterator[str]:
        function = scope.function
        if name in {"self", "cls"} and function is not None and function.owner:
            yield function.owner
            return
        if self._program.class_named(name) is not None:
            yield name
            return
        holder = scope.holder(name)
        if holder is None:
            return
        for binding in holder.bindings.get(name, ()):
            yield from self._owners(binding.value, holder, hops) if binding.whole else ()
        if name in holder.parameters and holder.function is not None:
            for module, call, filled in self._program.call_sites(holder.function):
                passed = argument(call, holder.function, name, filled)
                if passed is not None:
                    yield from self._owners(passed, module.scope_of(call), hops)


def reads_environment(scope: Scope) -> bool:
    """Whether a function reads variables of the environment, and no file."""
    if scope.function is None:
        return False
    names = {last_name(each) for each in descend(scope.function.node) if isinstance(each, (ast.Name, ast.Attribute))}
    return not names.isdisjoint({"environ", "getenv"}) and names.isdisjoint(_READING)


def _writes(module: Module) -> Iterator[tuple[ast.expr, ast.expr]]:
    """What is written into, with the key or the entries that name what is written."""
    yield from ((call.args[0], call.args[1]) for call in module.calls("setattr") if len(call.args) == 3)
    for call in (*module.calls("setdefault"), *module.calls("update")):
        if isinstance(call.func, ast.Attribute) and call.args:
            yield call.func.value, call.args[0]
    for statement in module.index.each(ast.Assign):
        for target in statement.targets:
            if isinstance(target, ast.Subscript):
                yield target.value, target.slice


def _is_spelled(key: ast.expr, scope: Scope) -> bool:
    """Whether a key is written out: a text, a dictionary of texts, or the name of a loop over such."""
    if isinstance(key, ast.Dict):
        return all(each is not None and _is_spelled(each, scope) for each in key.keys)
    if isinstance(key, ast.Constant):
        return True
    if isinstance(key, ast.Call) and dotted(key.func) == "dict":
        return not key.args and all(each.arg is not None for each in key.keywords)
    holder = scope.holder(key.id) if isinstance(key, ast.Name) else None
    bindings = list(reaching(key, scope, holder)) if holder is not None and isinstance(key, ast.Name) else []
    return bool(bindings) and all(
        isinstance(each.value, ast.Constant) if each.whole else _is_list(each.value, scope) for each in bindings
    )


def _is_list(value: ast.expr, scope: Scope) -> bool:
    """Whether all keys that a loop takes of a value are written out."""
    if isinstance(value, ast.Call) and last_name(value.func) == "items" and isinstance(value.func, ast.Attribute):
        value = value.func.value
    value = scope.last_given(value)
    parts = value.keys if isinstance(value, ast.Dict) else getattr(value, "elts", None)
    return parts is not None and all(
        isinstance(leaf, ast.Constant) for each in parts for leaf in (getattr(each, "elts", None) or [each])[:1]
    )
