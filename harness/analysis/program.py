"""The modules of a submission as one program: scopes, what each name is bound to, and who calls whom, by name."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from harness.analysis.bindings import Binding, bound
from harness.analysis.index import Function, Index, imported_names, last_name, place_of
from harness.model import Location

At: TypeAlias = Callable[[int | None], Location]
_T = TypeVar("_T")
# That two classes are made of one of these makes them no relatives.
_FOREIGN_BASES = frozenset(
    {"Module", "object", "Optimizer", "Dataset", "IterableDataset", "ABC", "Protocol", "NamedTuple", "Enum"}
)
_Method: TypeAlias = "tuple[Module, Function]"


@dataclass(frozen=True, slots=True)
class Field:
    """A value that the body of a class gives a name.

    Attributes:
        owner: the class.
        value: the value.
        annotated: whether the name has a type beside it, as the fields of dataclasses have.
    """

    owner: str
    value: ast.expr
    annotated: bool


class Module:
    """One script of the program.

    Attributes:
        index: its syntax tree.
        at: a line of it as a place in the folder.
    """

    def __init__(self, index: Index, at: At) -> None:
        self.index = index
        self.at = at
        self._scopes: dict[Function | None, Scope] = {}
        self._calls: dict[str, list[ast.Call]] = {}
        self._stores: dict[str, list[tuple[ast.Attribute, Binding]]] = {}

    @functools.cached_property
    def imports(self) -> Mapping[str, str]:
        """What imported names stand for."""
        return imported_names(self.index)

    def calls(self, name: str) -> list[ast.Call]:
        """Calls of what has this last name, in order; remembered."""
        if name not in self._calls:
            self._calls[name] = self.index.calls_of(name)
        return self._calls[name]

    def loads(self, name: str) -> list[ast.Name | ast.Attribute]:
        """Every mention that reads a name, or an attribute of that name, in order."""
        return sorted([*self.index.names.get(name, ()), *self.index.attributes.get(name, ())], key=place_of)

    def stores(self, name: str) -> list[tuple[ast.Attribute, Binding]]:
        """Every `x.name = value`, in order; remembered."""
        if name not in self._stores:
            self._stores[name] = [
                (node, binding)
                for node in sorted(self.index.stored_attributes.get(name, ()), key=place_of)
                for target, binding in bound(self.index.statement_of(node), self.index)
                if target is node
            ]
        return self._stores[name]

    @functools.cached_property
    def fields(self) -> Mapping[str, list[Field]]:
        """Every `name = ...` in the bodies of classes, by name."""
        found: list[tuple[str, Field]] = []
        for label, node in self.index.classes.items():
            for line in node.body:
                if isinstance(line, (ast.Assign, ast.AnnAssign)) and line.value is not None:
                    targets = line.targets if isinstance(line, ast.Assign) else [line.target]
                    annotated = isinstance(line, ast.AnnAssign)
                    pairs = [pair for target in targets for pair in _pairs(target, line.value)]
                    found += [(last_name(target), Field(label, value, annotated)) for target, value in pairs]
        return _by_name(found)

    @functools.cached_property
    def functions_named(self) -> Mapping[str, list[Function]]:
        """Functions and methods by their own name, without what is around them."""
        return _by_name([(function.node.name, function) for function in self.index.functions.values()])

    def names_of(self, name: str) -> list[str]:
        """The names that a function has in this module: its own, and those that imports give it."""
        aliases = [alias for alias, target in self.imports.items() if target.endswith(f".{name}") and alias != name]
        return [name, *aliases]

    def scope(self, function: Function | None) -> Scope:
        """The names of a function, or of the module."""
        if function not in self._scopes:
            around = self.index.function_of(function.node) if function is not None else None
            parent = self.scope(around) if function is not None else None
            self._scopes[function] = Scope(self, function, parent)
        return self._scopes[function]

    def scope_of(self, node: ast.AST) -> Scope:
        """The scope that a node is evaluated in."""
        return self.scope(self.index.function_of(node))


class Scope:
    """The local names of one function, or the global names of a module."""

    def __init__(self, module: Module, function: Function | None, parent: Scope | None) -> None:
        self.module = module
        self.function = function
        self.parent = parent

    @functools.cached_property
    def parameters(self) -> tuple[str, ...]:
        """The function's parameters."""
        return self.function.parameters if self.function is not None else ()

    @functools.cached_property
    def bindings(self) -> Mapping[str, list[Binding]]:
        """What each name is bound to, in the order of the text."""
        index = self.module.index
        found = [
            (target.id, binding)
            for node in index.own(index.tree if self.function is None else self.function.node)
            for target, binding in bound(node, index)
            if isinstance(target, ast.Name)
        ]
        return _by_name(sorted(found, key=lambda pair: pair[1].place))

    def holder(self, name: str) -> Scope | None:
        """The innermost scope, this one or one around it, that binds a name or has it as a parameter."""
        scope: Scope | None = self
        while scope is not None and name not in scope.bindings and name not in scope.parameters:
            scope = scope.parent
        return scope

    def last_given(self, node: ast.expr) -> ast.expr:
        """What a name was given last in the text, where that is one whole value; else the expression itself."""
        holder = self.holder(node.id) if isinstance(node, ast.Name) else None
        bindings = holder.bindings.get(node.id, []) if holder is not None and isinstance(node, ast.Name) else []
        return bindings[-1].value if bindings and bindings[-1].whole else node


class Program:
    """The entry script and the modules of the folder that it imports, by name.

    Attributes:
        entry: the script that is run.
        modules: every module that the entry can reach by imports, by stem; the entry first.
    """

    def __init__(self, entry: Module, others: Mapping[str, Callable[[], Module | None]]) -> None:
        self.entry = entry
        self.modules: dict[str, Module] = {"": entry}
        self._families: dict[str, frozenset[str]] = {}
        self._call_sites: dict[Function, tuple[tuple[Module, ast.Call, int], ...]] = {}
        waiting = [entry]
        while waiting:
            for target in waiting.pop().imports.values():
                for stem in target.split("."):
                    module = others[stem]() if stem in others and stem not in self.modules else None
                    if module is not None:
                        self.modules[stem] = module
                        waiting.append(module)

    def functions(self, name: str) -> Iterator[tuple[Module, Function]]:
        """Every function or method of that name in any module."""
        for module in self.modules.values():
            for function in module.functions_named.get(name, ()):
                yield module, function

    def called(self, call: ast.Call, scope: Scope) -> list[tuple[Module, Function]]:
        """The functions that a call may run: the nearest of that name; methods of every class with one."""
        name = last_name(call.func)
        if isinstance(call.func, ast.Name):
            return self.named(name, scope) or list(dict.fromkeys(self._given(name, scope)))
        if isinstance(call.func, ast.Attribute):
            owner = last_name(call.func.value)
            if owner and owner in self.modules:  # the entry is the module of no name
                return [(self.modules[owner], each) for each in self.modules[owner].functions_named.get(name, ())]
            methods = [(module, each) for module, each in self.functions(name) if each.owner]
            return self._of_class(self._class_of(call.func.value, scope), methods)
        return []

    def _class_of(self, node: ast.expr, scope: Scope) -> str:
        """The class of the program that a call's receiver is made of, where it is plain: `Cache(n).fill(x)`, or ""."""
        if isinstance(node, ast.Name):
            holder = scope.holder(node.id)
            bindings = holder.bindings.get(node.id, []) if holder is not None else []
            plain = len(bindings) == 1 and bindings[0].whole and holder is not None and node.id not in holder.parameters
            node = bindings[0].value if plain else node
        name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        return name if any(name in module.index.classes for module in self.modules.values()) else ""

    def _of_class(self, name: str, methods: list[_Method]) -> list[_Method]:
        """Those of some methods of one name that an object of a class has: its own, else those of its bases."""
        waiting, seen = [name], set[str]()
        while waiting:
            name = waiting.pop(0)
            own = [pair for pair in methods if pair[1].owner.rpartition(".")[2] == name]
            if own:
                return own
            found = self.class_named(name) if name and name not in seen else None
            seen.add(name)
            waiting += [last_name(base) for base in found[1].bases] if found is not None else []
        return methods

    def named(self, name: str, scope: Scope) -> list[tuple[Module, Function]]:
        """The plain functions that a name in a scope can stand for."""
        module = scope.module
        local = [each for each in module.functions_named.get(name, ()) if not each.owner]
        if local:
            around = scope.function.name if scope.function is not None else ""
            nested = [each for each in local if "." in each.name and around.startswith(each.name.rpartition(".")[0])]
            return [(module, each) for each in nested or local]
        target = module.imports.get(name, name).rpartition(".")[2]
        return [(home, each) for home, each in self.functions(target) if home is not module and not each.owner]

    def _given(self, name: str, scope: Scope) -> Iterator[tuple[Module, Function]]:
        """The functions that a variable may stand for: `score = by_window if windows else by_token`."""
        holder = scope.holder(name)
        for binding in holder.bindings.get(name, ()) if holder is not None else ():
            value = binding.value
            for each in (value.body, value.orelse) if isinstance(value, ast.IfExp) else (value,):
                if binding.whole and isinstance(each, ast.Name) and each.id != name:
                    yield from self.named(each.id, scope)

    def family(self, name: str) -> frozenset[str]:
        """The class of a name, those that it is made of and those that are made of one of them; remembered."""
        if name not in self._families:
            found, size = {name}, 0
            pairs = [
                (label.rpartition(".")[2], {last_name(base) for base in node.bases})
                for module in self.modules.values()
                for label, node in module.index.classes.items()
            ]
            while len(found) > size:
                size = len(found)
                for label, bases in pairs:
                    if label in found:
                        found |= bases
                    elif bases & found - _FOREIGN_BASES:
                        found.add(label)
            self._families[name] = frozenset(found)
        return self._families[name]

    def class_named(self, name: str) -> tuple[Module, ast.ClassDef] | None:
        """A class of the program by its name."""
        for module in self.modules.values():
            if name in module.index.classes:
                return module, module.index.classes[name]
        return None

    def call_sites(self, function: Function) -> Sequence[tuple[Module, ast.Call, int]]:
        """Calls that can run a function, and how many leading parameters the call fills by itself.

        Passing the function to another call (`timed("label", function, x, y)`, `partial(function, x)`) counts as a
        call whose arguments begin after it.
        """
        found = self._call_sites.get(function)
        if found is None:
            makes = bool(function.owner) and function.node.name == "__init__"
            owner = function.owner.rpartition(".")[2]
            sites = self._constructions(owner) if makes else self._find_call_sites(function)
            self._call_sites[function] = found = tuple(sites)
        return found

    def _find_call_sites(self, function: Function) -> Iterator[tuple[Module, ast.Call, int]]:
        for module in self.modules.values():
            for name in module.names_of(function.node.name):
                for call in module.calls(name):
                    if not function.owner or self._may_run(call, function, module):
                        yield module, call, int(bool(function.owner))
                for mention in module.loads(name):
                    holder = module.index.parent(mention)
                    if isinstance(holder, ast.Call) and mention in holder.args:
                        yield module, holder, int(bool(function.owner)) - holder.args.index(mention) - 1
                    elif not function.owner:
                        yield from ((module, call, 0) for call in _by_variable(module, mention))

    def _constructions(self, owner: str) -> Iterator[tuple[Module, ast.Call, int]]:
        """The calls that make an object of a class, and those of its `__init__` by the classes made of it."""
        for module in self.modules.values():
            for name in module.names_of(owner):
                yield from ((module, call, 1) for call in module.calls(name))
            for call in module.calls("__init__"):
                around = next((each for each in module.index.ancestors(call) if isinstance(each, ast.ClassDef)), None)
                if around is not None and owner in map(last_name, around.bases):
                    yield module, call, 1

    def _may_run(self, call: ast.Call, function: Function, module: Module) -> bool:
        """Whether a call of a method's name may be one of that method, by the class of its receiver."""
        receiver = call.func.value if isinstance(call.func, ast.Attribute) else None
        name = self._class_of(receiver, module.scope_of(call)) if receiver is not None else ""
        return not name or any(each is function for _, each in self.called(call, module.scope_of(call)))


def _by_variable(module: Module, mention: ast.AST) -> Iterator[ast.Call]:
    """Calls through the variable that a function is given to, alone or as one of two: see `Program.called`."""
    above = module.index.parent(mention)
    if isinstance(above, ast.IfExp) and mention is not above.test:
        mention, above = above, module.index.parent(above)
    if not isinstance(above, ast.Assign) or above.value is not mention or len(above.targets) != 1:
        return
    target = above.targets[0]
    if isinstance(target, ast.Name):
        holder = module.scope_of(above).holder(target.id)
        for call in module.calls(target.id):
            if isinstance(call.func, ast.Name) and module.scope_of(call).holder(target.id) is holder:
                yield call


def argument(call: ast.Call, function: Function, parameter: str, filled: int) -> ast.expr | None:
    """What a call passes for a parameter; None when it passes nothing by that name or place."""
    for keyword in call.keywords:
        if keyword.arg == parameter:
            return keyword.value
    names = function.parameters
    place = names.index(parameter) - filled if parameter in names else -1
    if 0 <= place < len(call.args) and not any(isinstance(each, ast.Starred) for each in call.args[: place + 1]):
        return call.args[place]
    return None


def default_of(function: Function, parameter: str) -> ast.expr | None:
    """A parameter's default value, or None."""
    arguments = function.node.args
    positional = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
    defaults = dict(zip(reversed(positional), reversed(arguments.defaults), strict=False))
    named = {each.arg: value for each, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if value}
    return {**defaults, **named}.get(parameter)


def _pairs(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    """What is given to what: `a, b = 1, 2` is two assignments."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        return list(zip(target.elts, value.elts, strict=True))
    return [(target, value)]


def _by_name(pairs: list[tuple[str, _T]]) -> dict[str, list[_T]]:
    table: dict[str, list[_T]] = {}
    for name, item in pairs:
        table.setdefault(name, []).append(item)
    return table
