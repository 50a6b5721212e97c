"""Parameters of a model that no optimizer group takes, where the code shows it.

The usual script sorts the parameters of the blocks by their number of dimensions into a group for matrices and one for
vectors, and names the others one by one. Two kinds then fall through: tensors of three dimensions in a block
(convolutions, banks), and parameters of the model itself that nobody named.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from harness.analysis.index import Index, dotted, last_name

_CONVOLUTIONS = {"Conv1d": 3, "Conv2d": 4, "Conv3d": 5, "ConvTranspose1d": 3}
# Optimizers are made within so many lines of the lists of their parameters.
NEAR_LINES = 80
_FACTORIES = frozenset({"randn", "rand", "zeros", "ones", "empty", "full"})
_OWN_LAYERS = frozenset({"Embedding", "Linear", "CastedLinear"})


@dataclass(frozen=True, slots=True)
class Dead:
    """A parameter that is in no group.

    Attributes:
        name: its name, `Model.gate` or `Block.conv.weight`.
        definition: the statement that makes it.
        groups: the expression that sorts parameters into groups.
        reason: why it falls through, as a clause.
    """

    name: str
    definition: ast.stmt
    groups: ast.expr
    reason: str


def dead_parameters(index: Index, text: str) -> list[Dead]:
    """Parameters that are in no optimizer group; empty where the groups are not built from the blocks alone.

    Args:
        index: the script.
        text: its text, whose string constants may name parameters.
    """
    if "named_parameters" not in text or ".blocks" not in text:
        return []
    sources = list(_block_lists(index))
    filters = [each for each in index.each(ast.ListComp) if _iterates(each, sources)]
    if not filters or _takes_everything(index, filters):
        return []
    place = min(filters, key=lambda each: each.lineno)
    patterns = _patterns(index, filters)
    dimensions = _dimensions(filters)
    found = list(_top_level(index, place))
    if dimensions == {"==2", "<2"}:
        found += _too_many_dimensions(index, place, patterns, _made_of(index, _making_blocks(index)))
    return sorted(found, key=lambda each: each.definition.lineno)


def swapped_parameters(index: Index, text: str, helper: Index) -> list[Dead]:
    """The same for layers that a helper's function puts into the blocks before the groups are made.

    Args:
        index: the script that makes the groups.
        text: its text.
        helper: a module that it imports, whose function assigns to `model.blocks[i].name`.
    """
    swapping = {
        function.node.name: function
        for targets in helper.stored_attributes.values()
        for target in targets
        if _of_a_block(target) and (function := helper.function_of(target)) is not None
    }
    if not swapping or "named_parameters" not in text:
        return []
    sources = list(_block_lists(index))
    filters = [each for each in index.each(ast.ListComp) if _iterates(each, sources)]
    if not filters or _takes_everything(index, filters) or _dimensions(filters) != {"==2", "<2"}:
        return []
    place, home = min(filters, key=lambda each: each.lineno), index.function_of(filters[0])
    called = {
        last_name(call.func)
        for call in index.calls_of(*swapping)
        if call.lineno < place.lineno and index.function_of(call) is home
    }
    parts = _made_of(helper, [swapping[name].node for name in called])
    return list(_too_many_dimensions(helper, place, _patterns(index, filters), parts))


def _words(nodes: Iterable[ast.AST]) -> frozenset[str]:
    """Words of string constants: names by which a filter may catch a parameter."""
    words: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 2_000:
            words.update(re.findall(r"\w+", node.value))
    return frozenset(words)


def _patterns(index: Index, filters: list[ast.ListComp]) -> frozenset[str]:
    """Words of the constants that the filters name, written in them or bound to a name that they use."""
    names = {node.id for each in filters for node in index.within(each, ast.Name)}
    texts: list[ast.AST] = [node for each in filters for node in index.within(each, ast.Constant)]
    for statement in index.each(ast.Assign):
        target = statement.targets[0]
        if isinstance(target, ast.Name) and target.id in names:
            texts += index.within(statement.value, ast.Constant)
    return _words(texts)


def _block_lists(index: Index) -> Iterator[str]:
    """Names bound to the parameters of a model's blocks, and the expressions themselves."""
    for called in index.attributes.get("named_parameters", ()):
        statement = index.statement_of(called)
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        if isinstance(statement, ast.Assign) and isinstance(target, ast.Name) and _of_blocks(statement.value):
            yield target.id


def _of_a_block(target: ast.Attribute) -> bool:
    """Whether an attribute is one of `model.blocks[i]`."""
    return isinstance(target.value, ast.Subscript) and last_name(target.value.value) == "blocks"


def _of_blocks(node: ast.expr) -> bool:
    while isinstance(node, ast.Call) and last_name(node.func) == "list" and node.args:
        node = node.args[0]
    return isinstance(node, ast.Call) and dotted(node.func).endswith(".blocks.named_parameters")


def _iterates(node: ast.ListComp, sources: list[str]) -> bool:
    source = node.generators[0].iter
    return _of_blocks(source) or (isinstance(source, ast.Name) and source.id in sources)


def _takes_everything(index: Index, filters: list[ast.ListComp]) -> bool:
    """Whether anything beside the blocks' lists may feed the optimizers made near them: a whole model's parameters."""
    home = index.function_of(filters[0])
    last = max(each.lineno for each in filters) + NEAR_LINES
    for method in ("parameters", "named_parameters", "named_modules"):
        for func in index.attributes.get(method, ()):
            call = index.parent(func)
            if not isinstance(call, ast.Call) or call.func is not func or dotted(func.value).endswith(".blocks"):
                continue
            near = index.function_of(call) is home and call.lineno <= last
            if near and not _only_counts(index, call, index.statement_of(call)):
                return True
    return False


def _only_counts(index: Index, call: ast.Call, statement: ast.stmt | None) -> bool:
    """Whether a list of parameters is only counted, clipped, averaged or switched, as far as one statement shows."""
    around = {last_name(each.func) for each in index.ancestors(call) if isinstance(each, ast.Call)}
    if around & {"sum", "clip_grad_norm_", "any", "all", "len"}:
        return True
    if not isinstance(statement, ast.For):
        return False
    collecting = {"append", "extend", "add"}
    return not any(last_name(each.func) in collecting for each in index.within(statement, ast.Call))


def _dimensions(filters: list[ast.ListComp]) -> frozenset[str]:
    """Which numbers of dimensions the filters of all groups ask for: `{"==2", "<2"}`."""
    found: set[str] = set()
    for each in filters:
        tests = [test for test in ast.walk(each.generators[0]) if isinstance(test, ast.Compare)]
        found.update(_dimension(test) for test in tests if last_name(test.left) == "ndim")
    return frozenset(found)


def _dimension(test: ast.Compare) -> str:
    sign = {ast.Eq: "==", ast.Lt: "<", ast.LtE: "<=", ast.GtE: ">=", ast.Gt: ">"}.get(type(test.ops[0]), "?")
    limit = test.comparators[0]
    return f"{sign}{limit.value!r}" if isinstance(limit, ast.Constant) else "?"


def _too_many_dimensions(
    index: Index, place: ast.expr, patterns: frozenset[str], parts: set[ast.ClassDef]
) -> Iterator[Dead]:
    """Tensors of three dimensions or more made in classes that the blocks are built of."""
    for node in index.each(ast.Assign):
        target = node.targets[0]
        owner = next((each for each in index.ancestors(node) if isinstance(each, ast.ClassDef)), None)
        if owner is None or owner not in parts or dotted(target).partition(".")[0] != "self":
            continue
        count, suffix = _rank(node.value)
        name = dotted(target).removeprefix("self.")
        # The name of the parameter, or of the layer that holds it, may be one of the patterns.
        if count < 3 or any(word in f"{name}{suffix}" for word in patterns):
            continue
        reason = f"has {count} dimensions, and the groups take those of two and of fewer"
        yield Dead(f"{owner.name}.{name}{suffix}", node, place, reason)


def _made_of(index: Index, roots: Iterable[ast.AST]) -> set[ast.ClassDef]:
    """Classes that blocks are made of: those that some statements mention, and what these mention."""
    by_name = {each.name: each for each in index.each(ast.ClassDef)}
    found: set[ast.ClassDef] = set()
    queue: list[ast.AST] = list(roots)
    while queue:
        mentioned = (by_name.get(node.id) for node in index.within(queue.pop(), ast.Name))
        new = {each for each in mentioned if each is not None and each not in found}
        found |= new
        queue += new
    return found


def _making_blocks(index: Index) -> Iterator[ast.stmt]:
    """The statements of the functions that set `self.blocks`, without those that set other attributes."""
    for each in _setting_blocks(index):
        function = index.function_of(each)
        for statement in function.node.body if function is not None else ():
            target = dotted(statement.targets[0]) if isinstance(statement, ast.Assign) else ""
            if not target.startswith("self.") or target == "self.blocks":
                yield statement


def _setting_blocks(index: Index) -> Iterator[ast.Assign]:
    """Assignments to `self.blocks`."""
    for target in index.stored_attributes.get("blocks", ()):
        statement = index.parent(target)
        if isinstance(statement, ast.Assign) and statement.targets[0] is target and dotted(target) == "self.blocks":
            yield statement


def _rank(node: ast.expr) -> tuple[int, str]:
    """Dimensions of a parameter that an expression makes, and its name inside the layer; 0 where unknown."""
    if not isinstance(node, ast.Call):
        return 0, ""
    if last_name(node.func) in _CONVOLUTIONS:
        return _CONVOLUTIONS[last_name(node.func)], ".weight"
    if last_name(node.func) != "Parameter" or not node.args or _frozen(node):
        return 0, ""
    factories = [each for each in ast.walk(node.args[0]) if isinstance(each, ast.Call)]
    made = [each for each in factories if last_name(each.func) in _FACTORIES]
    return (_arguments(made[0]) if len(factories) == len(made) == 1 else 0), ""


def _arguments(call: ast.Call) -> int:
    if any(isinstance(each, ast.Starred) for each in call.args):
        return 0
    if call.args and isinstance(call.args[0], (ast.Tuple, ast.List)):
        return len(call.args[0].elts)
    return len(call.args) if last_name(call.func) != "full" else 0


def _frozen(call: ast.Call) -> bool:
    return any(each.arg == "requires_grad" for each in call.keywords)


def _with_blocks(index: Index) -> set[ast.ClassDef]:
    """The classes that set `self.blocks`."""
    return {
        above
        for node in _setting_blocks(index)
        if len(node.targets) == 1
        for above in index.ancestors(node)
        if isinstance(above, ast.ClassDef)
    }


def _top_level(index: Index, place: ast.expr) -> Iterator[Dead]:
    """Parameters of the model itself whose names appear nowhere outside of its class."""
    models = list(_with_blocks(index))
    if len(models) != 1:
        return
    inside = range(models[0].lineno, (models[0].end_lineno or 0) + 1)
    words: frozenset[str] | None = None
    for node in index.within(models[0], ast.Assign):
        name = dotted(node.targets[0]).removeprefix("self.")
        made = node.value
        always = isinstance(index.parent(node), ast.FunctionDef)
        if "." in name or not name or not always or not isinstance(made, ast.Call) or _frozen(made):
            continue
        if last_name(made.func) not in {"Parameter", *_OWN_LAYERS}:
            continue
        uses = (*index.attributes.get(name, ()), *index.stored_attributes.get(name, ()))
        if any(each.lineno not in inside for each in uses):
            continue
        words = _words(index.each(ast.Constant)) if words is None else words
        if name not in words:
            yield Dead(f"{models[0].name}.{name}", node, place, "is named by no group")
