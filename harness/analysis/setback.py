"""What may set trained weights back in a way that no text proves: then a score behind the training is in doubt.

A context manager or a decorator around the training that sets weights, an object that kept them, tensors copied back
as a list or as one vector, a child process that dies with its weights, a name that is given an older model again. Each
is found where code could do it; whether it does, only a run shows.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from harness.analysis.bindings import Binding
from harness.analysis.index import Function, descend, dotted, last_name, place_of
from harness.analysis.program import Module, Program, Scope
from harness.analysis.sites import COPIES, Site
from harness.analysis.undoing import SETTING, used_between

# Functions of torch that give many tensors values at once.
_TOGETHER = ("_foreach_copy_", "vector_to_parameters")
# What gives a tensor new values whatever it held: adapters begin anew so.
_ANEW = frozenset(
    """
    zero_ fill_ normal_ uniform_ zeros_ ones_ constant_ kaiming_uniform_ kaiming_normal_ xavier_uniform_
    xavier_normal_ trunc_normal_ orthogonal_ eye_ reset_parameters
    """.split()  # noqa: SIM905 - one word a line would hide the list
)
_OWN_STATE = frozenset({*COPIES, "clone"})
_CALLS_LIMIT = 40
Place = tuple[int, int]
LAST: Place = (10**9, 0)


def doubt(site: Site, program: Program, until: Place = LAST) -> str:
    """Why the weights that a site trains may not be those of a score behind it, or "".

    Args:
        site: the training, or the call that leads to it.
        program: the scripts.
        until: where the score is computed, in the site's function.
    """
    for place, what in _reasons(site, program, until):
        return f"{what} at {site.module.at(place[0])} may set the weights back"
    return ""


def _reasons(site: Site, program: Program, until: Place) -> Iterator[tuple[Place, str]]:
    for around in site.module.index.ancestors(site.node):
        if isinstance(around, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from ((place_of(each), f"`@{dotted(_called(each))}`") for each in _decorators(around, site, program))
            break
        if isinstance(around, (ast.With, ast.AsyncWith)):
            yield from ((place_of(each), f"`with {ast.unparse(each)[:60]}`") for each in _opened(around, site, program))
    calls = (each for each in site.module.index.each(ast.Call) if site.module.scope_of(each) is site.scope)
    for call in sorted(calls, key=place_of):
        name = last_name(call.func)
        if name == "fork" and place_of(call) < site.start and dotted(call.func) in {"os.fork", "fork"}:
            yield place_of(call), "the child process made"
        elif site.end < place_of(call) < until and _sets_back(call, site, program):
            yield place_of(call), f"`{name}`"
    yield from ((place_of(each), "the loop") for each in _looped(site, until))


def _decorators(function: ast.FunctionDef | ast.AsyncFunctionDef, site: Site, program: Program) -> Iterator[ast.expr]:
    for each in function.decorator_list:
        if any(sets(module, found) for module, found in program.named(last_name(_called(each)), site.scope)):
            yield each


def _called(node: ast.expr) -> ast.expr:
    return node.func if isinstance(node, ast.Call) else node


def _opened(around: ast.With | ast.AsyncWith, site: Site, program: Program) -> Iterator[ast.expr]:
    """What a `with` around the training opens that may set weights when it ends."""
    for item in around.items:
        opened = item.context_expr
        names = [last_name(_called(opened))]
        value = site.scope.last_given(opened)
        names += [last_name(value.func)] if isinstance(value, ast.Call) else []
        if any(_keeps(name, site.scope, program) for name in names):
            yield opened
    # `stack.callback(model.load_state_dict, kept)`: handed over, to be called at the end.
    for node in site.module.index.within(around, ast.Call):
        yield from (each for each in node.args if isinstance(each, ast.Attribute) and each.attr == "load_state_dict")


def _keeps(name: str, scope: Scope, program: Program) -> bool:
    """Whether a function, or a method of the class, of a name sets weights."""
    found = program.class_named(name)
    if found is not None:
        return _within(found[1], found[0])
    return any(sets(module, function) for module, function in program.named(name, scope))


def sets(module: Module, function: Function) -> bool:
    """Whether a function, or one inside it, gives tensors values that another place may have kept."""
    return _within(function.node, module)


def _within(node: ast.AST, module: Module) -> bool:
    calls = module.index.within(node, ast.Call)
    if any(last_name(call.func) in {*SETTING, *_TOGETHER} for call in calls):
        return True
    stored = (each for each in module.index.within(node, ast.Attribute) if isinstance(each.ctx, ast.Store))
    return any(each.attr == "data" for each in stored)


def _sets_back(call: ast.Call, site: Site, program: Program) -> bool:
    """Whether a call behind a training gives the trained tensors values that were made before it."""
    heads = {name.partition(".")[0] for name in site.model}
    if last_name(call.func) in _TOGETHER:
        parts = [{each.id for each in descend(part) if isinstance(each, ast.Name)} for part in call.args]
        others = [part for part in parts if part and not part & heads]
        ours = not heads or any(part & heads for part in parts)
        return ours and any(all(_is_early(name, site) for name in part) for part in others)
    owner = dotted(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    if not owner or used_between(site, place_of(call)):
        return False
    methods = [(module, each) for module, each in program.called(call, site.scope)[:_CALLS_LIMIT] if each.owner]
    if owner.partition(".")[0] in heads:
        return any(_begins_anew(module, method) for module, method in methods)
    return _is_early(owner.partition(".")[0], site) and any(sets(module, method) for module, method in methods)


def _looped(site: Site, until: Place) -> Iterator[ast.For]:
    """`for p, old in zip(model.parameters(), kept): p.data = old` behind the training, of what was kept before it."""
    heads = {name.partition(".")[0] for name in site.model}
    for loop in site.module.index.each(ast.For):
        if not site.end < place_of(loop) < until or site.module.scope_of(loop) is not site.scope:
            continue
        listed = {each.id for each in descend(loop.iter) if isinstance(each, ast.Name)} - {"zip"}
        others = listed - heads
        early = bool(others) and all(_is_early(name, site) for name in others)
        if listed & heads and early and any(_gives_others(each) for each in descend(loop)):
            yield loop


def _gives_others(node: ast.AST) -> bool:
    """Whether a tensor is given values of another name than its own: `p.data = old`, `p.copy_(old)`."""
    match node:
        case ast.Assign([ast.Attribute(tensor, "data")], value):
            pass
        case ast.Call(ast.Attribute(tensor, "copy_"), [value]):
            pass
        case _:
            return False
    names = {each.id for each in descend(value) if isinstance(each, ast.Name)}
    return bool(names - {dotted(tensor).partition(".")[0]})


def _begins_anew(module: Module, method: Function) -> bool:
    calls = module.index.within(method.node, ast.Call)
    return any(last_name(call.func) in _ANEW for call in calls)


def _is_early(name: str, site: Site) -> bool:
    """Whether a name of the function got its last value before the training."""
    bindings = site.scope.bindings.get(name, ())
    return bool(bindings) and all(each.place < site.start for each in bindings if each.replaces)


def replaced(name: str, site: Site, until: Place) -> bool:
    """Whether a name is given an older model between the site and a later place, of which nothing was trained.

    `model = before`, `model = deepcopy(base)`, `model = load(path)` with what was stored before the training.
    """
    for binding in site.scope.bindings.get(name, ()):
        if binding.replaces and site.end < binding.place < until and not used_between(site, place_of(binding.value)):
            mentioned = [each for each in descend(binding.value) if isinstance(each, ast.Name)]
            functions = {each.func for each in descend(binding.value) if isinstance(each, ast.Call)}
            given = [each.id for each in mentioned if each not in functions]
            if (given or isinstance(binding.value, ast.Call)) and not _shares(given, site):
                return True
    return False


def _shares(names: list[str], site: Site) -> bool:
    """Whether one of some names may hold what was trained, or was given a value after the training."""
    live = _live(site)
    handed = any(name in site.scope.parameters for name in live if _in_force(name, site) is None)
    for name in names:
        if name in live or (handed and name in site.scope.parameters):
            return True
        bindings = site.scope.bindings.get(name, ())
        if any(each.place > site.end for each in bindings):
            return True
        if any(_is_of(other, each, site) for each in bindings for other in live & _taken(each.value)):
            return True
    return False


def _is_of(name: str, binding: Binding, site: Site) -> bool:
    """Whether a value takes what a name of the trained model holds, not what it held before."""
    given = _in_force(name, site)
    return given is None or given.place <= binding.place


def _live(site: Site) -> set[str]:
    """The names that the trained model may have in its function: through wrappers and other names."""
    found: set[str] = set()
    waiting = [name.partition(".")[0] for name in site.model]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        binding = _in_force(name, site)
        if binding is not None:
            waiting += _taken(binding.value)
    return found


def _in_force(name: str, site: Site) -> Binding | None:
    earlier = [each for each in site.scope.bindings.get(name, ()) if each.replaces and each.place < site.start]
    return earlier[-1] if earlier else None


def _taken(value: ast.expr) -> set[str]:
    """The names that a value may share tensors with: not those of which it is a copy."""
    found: set[str] = set()
    waiting: list[ast.AST] = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Call) and last_name(node.func) in _OWN_STATE:
            continue
        if isinstance(node, ast.Name):
            found.add(node.id)
        parts = [*node.args, *node.keywords] if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None
        waiting += parts if parts is not None else list(ast.iter_child_nodes(node))
    return found
