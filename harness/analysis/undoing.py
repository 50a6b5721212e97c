"""Weights that do not outlive a training: set again after it, copied before it, or read anew."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from harness.analysis.index import Function, descend, dotted, last_name, place_of
from harness.analysis.origins import reaching
from harness.analysis.program import Module, Program, argument
from harness.analysis.sites import COPIES, LOOPS, Site

SETTING = ("load_state_dict", "copy_", "set_", "_load_from_state_dict")
_READING = frozenset({"load", "open", "read_bytes", "load_file"})
# Calls on a model that neither store nor read what it holds.
_PASSING = frozenset({"zero_grad", "eval", "train", "requires_grad_"})
Place = tuple[int, int]


def undone(site: Site, program: Program) -> ast.expr | None:
    """A place after a site, in its function, that gives the trained model weights from before the training.

    A call of its own, a loop over the parameters, or a call of a function that does so to the model it is given.
    Weights loaded from what was made of the model after the training, the artifact, are the trained ones.
    """
    for call in _setting(site.module):
        owner = dotted(call.func.value) if isinstance(call.func, ast.Attribute) else ""
        ours = owner in site.model or (last_name(call.func) == "copy_" and _is_of_model(owner, call, site))
        live = any(isinstance(each, ast.Name) and _is_live(each, site) for each in call.args)
        if ours and _after(call, site) and not live and not _is_of_itself(call, site) and not _made_after(call, site):
            return call
    put_back = next(_put_back(site), None)
    if put_back is not None:
        return put_back
    calls = (each for each in site.module.index.each(ast.Call) if _after(each, site))
    return next((each for each in sorted(calls, key=place_of) if _restores(each, site, program)), None)


def _is_of_model(owner: str, call: ast.Call, site: Site) -> bool:
    """Whether a tensor may be one of the trained model's: under its name, or as one of those that a loop takes."""
    head = owner.partition(".")[0]
    if not head or not site.model or head in {name.partition(".")[0] for name in site.model}:
        return True
    targets: list[ast.expr] = []
    for above in site.module.index.ancestors(call):
        targets += [above.target] if isinstance(above, ast.For) else []
        targets += [each.target for each in above.generators] if isinstance(above, ast.ListComp) else []
    return any(isinstance(node, ast.Name) and node.id == head for target in targets for node in descend(target))


def _is_live(name: ast.Name, site: Site) -> bool:
    """Whether a name holds the state of a model as it is, no copy: it changes with the training."""
    holder = site.scope.holder(name.id)
    values = [each.value for each in reaching(name, site.scope, holder)] if holder is not None else []
    return bool(values) and all(
        isinstance(each, ast.Call) and last_name(each.func) == "state_dict" and not each.args for each in values
    )


def _is_of_itself(call: ast.Call, site: Site) -> bool:
    """Whether what is set is computed from the trained model, or the tensor, itself: `load_state_dict(round(net))`."""
    heads = {name.partition(".")[0] for name in site.model}
    if isinstance(call.func, ast.Attribute):
        heads.add(dotted(call.func.value).partition(".")[0])
    return any(isinstance(each, ast.Name) and each.id in heads for given in call.args for each in descend(given))


def _after(node: ast.expr, site: Site) -> bool:
    return place_of(node) > site.end and site.module.scope_of(node) is site.scope


def _put_back(site: Site) -> Iterator[ast.expr]:
    """`for p, s in zip(model.parameters(), saved): p.data = s`, or `p.copy_(s)`, right behind the training.

    What is put back was made before the training, and nothing between the two mentions it or is given a value.
    """
    heads = {name.partition(".")[0] for name in site.model}
    places: list[tuple[ast.expr, ast.expr]] = []
    places += [(node, binding.value) for node, binding in site.module.stores("data") if binding.whole]
    places += [(call, each) for call in site.module.calls("copy_") for each in call.args[:1]]
    for node, value in places:
        loop = next((each for each in site.module.index.ancestors(node) if isinstance(each, ast.For)), None)
        if loop is None or not _after(node, site) or not isinstance(value, (ast.Name, ast.Subscript)):
            continue
        taken = {each.id for each in descend(loop.target) if isinstance(each, ast.Name)}
        listed = {each.id for each in descend(loop.iter) if isinstance(each, ast.Name)}
        sources = {each.id for each in descend(value) if isinstance(each, ast.Name)}
        sources = (sources | (listed if sources & taken else set())) - taken - heads - {"zip"}
        if listed & heads and sources and all(_is_old(name, site, loop) for name in sources) and _follows(loop, site):
            yield node


def _is_old(name: str, site: Site, loop: ast.For) -> bool:
    """Whether a name got its values before a training, and is not mentioned until a loop behind it."""
    bindings = site.scope.bindings.get(name, ())
    first = site.start
    for above in site.module.index.ancestors(site.node):
        if isinstance(above, (ast.FunctionDef, ast.AsyncFunctionDef)):
            break
        first = place_of(above) if isinstance(above, LOOPS) else first
    mentions = [each for each in site.module.loads(name) if site.module.scope_of(each) is site.scope]
    early = bool(bindings) and all(each.place < first for each in bindings)
    return early and not any(first < place_of(each) < place_of(loop) for each in mentions)


def _follows(loop: ast.For, site: Site) -> bool:
    """Whether nothing that gets a value stands between a training and a loop behind it in the same block."""
    chains = [[node, *site.module.index.ancestors(node)] for node in (site.node, loop)]
    around = next((each for each in chains[1] if each in chains[0]), None)
    for name in ("body", "orelse", "finalbody"):
        block = getattr(around, name, None)
        if isinstance(block, list):
            ends = [next((i for i, each in enumerate(block) if each in chain), None) for chain in chains]
            if ends[0] is not None and ends[1] is not None:
                return not any(isinstance(each, (ast.Assign, ast.AugAssign)) for each in block[ends[0] + 1 : ends[1]])
    return False


def _setting(module: Module) -> Iterator[ast.Call]:
    for name in SETTING:
        yield from module.calls(name)


def _restores(call: ast.Call, site: Site, program: Program) -> bool:
    """Whether a call hands what was trained to a function that sets weights."""
    for module, function in program.called(call, site.scope):
        filled = int(bool(function.owner))
        for parameter in function.parameters:
            passed = argument(call, function, parameter, filled)
            if passed is None or dotted(passed) not in site.model:
                continue
            handed = [argument(call, function, name, filled) for name in _set_from(parameter, function, module)]
            if any(isinstance(each, ast.Name) for each in handed) and not _made_after(call, site):
                return True
    return False


def _set_from(parameter: str, function: Function, module: Module) -> Iterator[str]:
    """The parameters whose values a function gives to the model that is its parameter: what it is handed, it sets."""
    inside = module.scope(function)
    for call in _setting(module):
        owner = dotted(call.func.value) if isinstance(call.func, ast.Attribute) else ""
        if owner == parameter and module.scope_of(call) is inside:
            yield from (each.id for each in call.args if isinstance(each, ast.Name))


def _made_after(call: ast.Call, site: Site) -> bool:
    """Whether what a call loads was made after the site, from the model as trained, or may be what was stored of it."""
    nodes = [node for each in call.args for node in ast.walk(each)]
    if any(isinstance(node, ast.Call) and last_name(node.func) in _READING for node in nodes):
        return used_between(site, place_of(call))
    names = [node for each in call.args for node in ast.walk(each) if isinstance(node, ast.Name)]
    for name in names:
        holder = site.scope.holder(name.id)
        bindings = list(reaching(name, site.scope, holder)) if holder is not None else []
        if any(each.place > site.end for each in bindings):
            return used_between(site, place_of(call))
    return False


def used_between(site: Site, until: Place) -> bool:
    """Whether the model is handed on between the site and a later place."""
    return any(
        site.end < place_of(mention) < until
        and site.module.scope_of(mention) is site.scope
        and getattr(site.module.index.parent(mention), "attr", "") not in _PASSING
        for name in site.model
        for mention in site.module.loads(name.rpartition(".")[2])
    )


def makes_own(name: str, function: Function, program: Program) -> bool:
    """Whether a function makes an object of its own under a name: the caller's of that name is another one."""
    homes = [module for module, each in program.functions(function.node.name) if each is function]
    scope = homes[0].scope(function) if homes else None
    if scope is None or scope.holder(name) is not scope:
        return False
    statements = scope.module.index.own(function.node)
    declared = {each for node in statements if isinstance(node, ast.Global) for each in node.names}
    values = [each.value for each in scope.bindings.get(name, ()) if each.whole]
    return bool(values) and name not in declared and all(isinstance(each, ast.Call) for each in values)


def copied(name: str, site: Site) -> bool:
    """Whether what is trained under a name is a copy that the function made of it before."""
    return any(
        each.replaces
        and each.place < site.start
        and any(isinstance(node, ast.Call) and last_name(node.func) in COPIES for node in descend(each.value))
        for each in site.scope.bindings.get(name, ())
    )


def renewed(name: str, site: Site, until: Place) -> bool:
    """Whether a name is given another model between the site and a later place, by a call that is handed no name."""
    return any(
        each.replaces and site.end < each.place < until and isinstance(each.value, ast.Call) and not _handed(each.value)
        for each in site.scope.bindings.get(name, ())
    )


def _handed(call: ast.Call) -> bool:
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    return any(isinstance(node, ast.Name) for each in given for node in descend(each))
