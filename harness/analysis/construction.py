"""What objects of settings are made with: arguments of dataclasses, and the defaults of options of argparse."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from harness.analysis.index import last_name
from harness.analysis.program import Field, Module, Program, Scope
from harness.model import Location

_MAKERS = frozenset({"dataclass", "dataclasses"})
# What is passed for a field where the text does not tell: `Config(**values)`.
UNREAD = ast.Constant(value=...)


def given(name: str, field: Field, module: Module, program: Program) -> list[tuple[ast.expr | None, Scope]]:
    """What each place that makes an object of a dataclass passes for a field: None where the default holds.

    `UNREAD` where that cannot be read (`**values`); `replace(config, name=...)` counts as a place too.
    """
    owner = module.index.classes[field.owner]
    if not any(
        last_name(each.func if isinstance(each, ast.Call) else each) in _MAKERS for each in owner.decorator_list
    ):
        return []
    order = [last_name(line.target) for line in owner.body if isinstance(line, ast.AnnAssign)]
    found: list[tuple[ast.expr | None, Scope]] = []
    for home, call in _made(owner.name, program):
        named = {each.arg: each.value for each in call.keywords}
        places = [each for each in call.args if not isinstance(each, ast.Starred)]
        unread = None in named or len(places) < len(call.args)
        value = named.get(name, dict(zip(order, places, strict=False)).get(name))
        found.append((UNREAD if unread else value, home.scope_of(call)))
    for home in program.modules.values():
        changed = (each for call in home.calls("replace") for each in call.keywords if each.arg == name)
        found += [(each.value, home.scope_of(each.value)) for each in changed]
    return found


def _made(name: str, program: Program) -> Iterator[tuple[Module, ast.Call]]:
    for module in program.modules.values():
        for known in module.names_of(name):
            yield from ((module, call) for call in module.calls(known))
        for call in module.calls("cls"):
            function = module.scope_of(call).function
            if function is not None and function.owner.rpartition(".")[2] == name:
                yield module, call


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a command line.

    Attributes:
        default: its default, where it has one.
        place: where it is added.
        spelled: the names under which a command passes it, as argparse has them.
        off: those of them that turn it off where they are passed without a value.
    """

    default: ast.expr | None
    place: Location
    spelled: frozenset[str]
    off: frozenset[str]


def options(name: str, module: Module) -> Iterator[Option]:
    """The options whose values have a name: `parser.add_argument("--name", ...)`, or by `dest` where that is given."""
    for call in module.calls("add_argument"):
        words = (str(each.value) for each in call.args if isinstance(each, ast.Constant))
        spelled = frozenset(each.lstrip("-").replace("-", "_") for each in words)
        named = {keyword.arg: keyword.value for keyword in call.keywords}
        dest = named.get("dest")
        if name not in ({dest.value} if isinstance(dest, ast.Constant) else spelled):
            continue
        action = named.get("action")
        stored = action.value if isinstance(action, ast.Constant) else ""
        fallback = ast.Constant(value=stored == "store_false") if stored in {"store_true", "store_false"} else None
        off = spelled if stored == "store_false" else frozenset[str]()
        if action is not None and last_name(action) == "BooleanOptionalAction":
            off = frozenset(f"no_{each}" for each in spelled)
        changed = [each for call in module.calls("set_defaults") for each in call.keywords if each.arg in {name, None}]
        last = changed[-1] if changed else None
        default = named.get("default", fallback) if last is None else last.value if last.arg else UNREAD
        yield Option(default, module.at(last.value.lineno if last else call.lineno), spelled | off, off)
