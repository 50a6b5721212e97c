"""Logits that are changed at the token that is scored with them: the target is written into a mask over the vocabulary.

A tensor of the vocabulary's width is marked at the target of each position, and the logits are masked, moved or scaled
by it before they become probabilities of the same targets. A mark that meets logarithms of probabilities alone picks
the loss, and one of other tokens, of earlier ones say, is none of this.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Sequence

from harness.analysis.flowwords import means_target
from harness.analysis.forms import leaves_itself_out
from harness.analysis.index import Function, descend, dotted, last_name
from harness.analysis.labels import Proven, Step
from harness.analysis.origins import reaching
from harness.analysis.program import Module, Program, Scope, argument, default_of
from harness.analysis.scoring import is_scoring

_MARKING = frozenset({"scatter", "scatter_", "scatter_add", "scatter_add_"})
_WRITING = frozenset({"scatter_", "scatter_add_"})
_NORMALIZING = frozenset({"softmax", "log_softmax"})
# What changes no number of the tokens, and none of their places.
_SAME = frozenset("clamp clamp_min clone contiguous detach flatten long reshape squeeze to unsqueeze view".split())  # noqa: SIM905
# The same for a mask over the vocabulary, which may be turned round and made a number too.
_SAME_MASK = _SAME | {"bool", "float", "logical_not", "type", "type_as", "expand", "mul", "half", "bfloat16"}
_RUNNING = frozenset({"cumsum", "cumsum_"})
_CHANGING = frozenset({"masked_fill", "masked_fill_", "where"})
_LIBRARIES = frozenset({"torch", "F", "functional"})
_HOPS = 12


def shaped(program: Program) -> Iterator[Proven]:
    """Every such change in scoring code, or in a function that scoring code names."""
    for module in program.modules.values():
        for mark, name, target in _marks(module):
            if in_training(mark, module):
                continue
            scope = module.scope_of(mark)
            used = next(_normalized(mark, name, target, scope), None)
            if used is not None and _scores(mark, scope, program) and not _is_off(mark, scope, program):
                change, end = used
                first = Step("the target is marked in a row of the vocabulary", module.at(mark.lineno), mark, module)
                second = Step("the logits are changed by it", module.at(change.lineno), change, module)
                yield Proven((first, second, Step("they become probabilities", module.at(end.lineno), end, module)))


def _marks(module: Module) -> Iterator[tuple[ast.expr, str, str]]:
    """Marked tensors: the mark, the name that holds it, "" where none does, and the target."""
    for call in module.index.calls_of(*_MARKING, "one_hot"):
        method = isinstance(call.func, ast.Attribute) and last_name(call.func.value) not in _LIBRARIES
        places = call.args[:1] if last_name(call.func) == "one_hot" else call.args[1 if method else 2 :][:1]
        target = _target(places[0], module.scope_of(call)) if places else ""
        if target:
            in_place = isinstance(call.func, ast.Attribute) and call.func.attr in _WRITING
            owner = dotted(call.func.value) if in_place and isinstance(call.func, ast.Attribute) else ""
            yield call, owner or _given(call, module), target
    for item in module.index.of(ast.Subscript):
        if isinstance(item.ctx, ast.Store) and isinstance(item.slice, ast.Tuple) and len(item.slice.elts) > 1:
            scope = module.scope_of(item)
            row = scope.last_given(item.slice.elts[-2])
            target = _target(item.slice.elts[-1], scope)
            if target and isinstance(row, ast.Call) and "arange" in last_name(row.func):
                yield item, dotted(item.value), target


def _given(node: ast.expr, module: Module) -> str:
    """The name that is given an expression, behind what does not change it."""
    statement = module.index.statement_of(node)
    if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
        return ""
    return statement.targets[0].id if any(each is node for each in _chain(statement.value, _SAME_MASK)) else ""


def _chain(node: ast.expr, same: frozenset[str]) -> Iterator[ast.expr]:
    """An expression, and what it is behind calls and indices that change nothing: `x` of `x.long()[..., None]`."""
    while True:
        yield node
        if isinstance(node, ast.Call) and last_name(node.func) in same and isinstance(node.func, ast.Attribute):
            library = last_name(node.func.value) in _LIBRARIES
            if library and not node.args:
                return
            node = node.args[0] if library else node.func.value
        elif isinstance(node, ast.Subscript) and _keeps_all(node.slice):
            node = node.value
        elif isinstance(node, ast.UnaryOp):
            node = node.operand
        else:
            return


def _keeps_all(index: ast.expr) -> bool:
    """Whether an index adds or drops a dimension alone: `[..., None]`, `[:, :, None]`."""
    parts = index.elts if isinstance(index, ast.Tuple) else [index]
    whole = (isinstance(each, ast.Slice) and each.lower is each.upper is each.step is None for each in parts)
    return all(
        full or (isinstance(each, ast.Constant) and each.value in {None, ...})
        for full, each in zip(whole, parts, strict=True)
    )


def _target(node: ast.expr, scope: Scope) -> str:
    """Which targets an expression is, all of them in their places: their name and where it got its value; or ""."""
    for _ in range(_HOPS):
        *_, node = _chain(node, _SAME)
        if not isinstance(node, ast.Name):
            return ""
        bindings = list(reaching(node, scope, scope))
        inner: ast.expr | None = None
        if len(bindings) == 1 and bindings[0].whole:
            *_, inner = _chain(bindings[0].value, _SAME)
        if not isinstance(inner, ast.Name) or inner.id == node.id:
            places = sorted(each.place for each in bindings)
            return f"{node.id} {places}" if means_target(node.id) else ""
        node = inner
    return ""


def _normalized(mark: ast.expr, name: str, target: str, scope: Scope) -> Iterator[tuple[ast.expr, ast.Call]]:
    """Where a marked tensor changes logits, and where those become probabilities of the same targets."""
    index = scope.module.index
    for end in index.calls_of("cross_entropy", *_NORMALIZING):
        if index.function_of(end) is not scope.function:
            continue
        logits, of_target = _logits(end, target, scope)
        change = _change(logits, mark, name, scope) if logits is not None and of_target else None
        if change is not None and end.lineno >= mark.lineno:
            yield change, end


def _logits(end: ast.Call, target: str, scope: Scope) -> tuple[ast.expr | None, bool]:
    """What a call makes probabilities of, and whether it is asked for the same targets."""
    method = isinstance(end.func, ast.Attribute) and last_name(end.func.value) not in {*_LIBRARIES, "nn"}
    given = [end.func.value, *end.args] if method and isinstance(end.func, ast.Attribute) else end.args
    if not given:
        return None, False
    if last_name(end.func) in _NORMALIZING:
        return given[0], _asked(target, scope)
    others = [*given[1:2], *(each.value for each in end.keywords if each.arg in {"target", "targets"})]
    return given[0], any(_target(each, scope) == target for each in others)


def _asked(target: str, scope: Scope) -> bool:
    """Whether a function takes the probabilities at a target."""
    index = scope.module.index
    for call in index.calls_of("gather", "take_along_dim", "take_along_axis"):
        if index.function_of(call) is scope.function and any(_target(each, scope) == target for each in call.args):
            return True
    return False


def _change(node: ast.expr, mark: ast.expr, name: str, scope: Scope, hops: int = 0) -> ast.expr | None:
    """The last change of logits by the marked tensor on the way to a node."""
    *_, node = _chain(node, _SAME_MASK)
    operands = _operands(node)
    if isinstance(node, ast.BinOp) and _takes_itself_off(node, scope):
        return None
    if len(operands) > 1 and any(_is_mark(each, mark, name, scope) for each in operands):
        return node
    parts = operands
    if isinstance(node, ast.Name):
        if node.id == name and _is_logits(name) and _in_place(mark):
            return mark
        # What a loop gives the name further down was made of tokens that are scored by then.
        place = (node.lineno, node.col_offset)
        parts = [each.value for each in reaching(node, scope, scope) if each.whole and each.place <= place]
    if hops >= _HOPS:
        return None
    return next((found for each in parts if (found := _change(each, mark, name, scope, hops + 1))), None)


def _operands(node: ast.expr) -> Sequence[ast.expr]:
    """The parts of a sum, product or mask: `a + b`, `a.masked_fill(m, x)`, `where(m, a, b)`."""
    if isinstance(node, ast.BinOp):
        # A product of matrices mixes positions: what it makes of marks need not be one at its own place.
        return [] if isinstance(node.op, ast.MatMult) else [node.left, node.right]
    if isinstance(node, ast.Call) and last_name(node.func) in _CHANGING and isinstance(node.func, ast.Attribute):
        library = last_name(node.func.value) in _LIBRARIES
        return node.args if library else [node.func.value, *node.args]
    return []


def _is_mark(node: ast.expr, mark: ast.expr, name: str, scope: Scope) -> bool:
    """Whether an operand is the marked tensor, or is computed from it place by place."""
    *_, node = _chain(node, _SAME_MASK)
    if node is mark:
        return True
    if isinstance(node, ast.BinOp):
        return not _takes_itself_off(node, scope) and any(_is_mark(each, mark, name, scope) for each in _operands(node))
    if not isinstance(node, ast.Name) or node.id != name or _is_logits(name) or node.lineno < mark.lineno:
        return False
    statement = scope.module.index.statement_of(mark)
    last = (statement.end_lineno or 0) if statement is not None else 0
    return all(each.line <= last for each in reaching(node, scope, scope))


def _takes_itself_off(node: ast.BinOp, scope: Scope) -> bool:
    """`marks.cumsum(1) - marks`: how often each token came before, this one left out."""
    left, right = (list(_chain(_in_force(each, scope), _SAME_MASK))[-1] for each in (node.left, node.right))
    runs = [isinstance(each, ast.Call) and last_name(each.func) in _RUNNING for each in (left, right)]
    return (isinstance(node.op, ast.Sub) and runs == [True, False]) or leaves_itself_out(node, left, right)


def _in_force(node: ast.expr, scope: Scope) -> ast.expr:
    """What a name was given last before it stands here, where that is one whole value; else the expression itself."""
    given = list(reaching(node, scope, scope)) if isinstance(node, ast.Name) else []
    return given[0].value if given and given[0].whole else node


def _is_off(mark: ast.expr, scope: Scope, program: Program) -> bool:
    """Whether the mark is multiplied by a parameter that is zero wherever scoring code calls the function."""
    function = scope.function
    factor: ast.expr | None = None
    below: ast.AST = mark
    for above in scope.module.index.ancestors(mark):
        if isinstance(above, ast.BinOp) and isinstance(above.op, ast.Mult):
            factor = above.left if above.right is below else above.right
            break
        if isinstance(above, ast.stmt):
            return False
        below = above
    if function is None or not isinstance(factor, ast.Name) or factor.id not in scope.parameters:
        return False
    sites = program.call_sites(function)
    scoring = [site for site in sites if is_scoring(site[0], site[1], program)]
    default = default_of(function, factor.id)
    values = [argument(call, function, factor.id, filled) or default for _, call, filled in scoring or sites]
    return bool(values) and all(isinstance(each, ast.Constant) and each.value == 0 for each in values)


def _is_logits(name: str) -> bool:
    return "logit" in name.lower()


def _in_place(mark: ast.expr) -> bool:
    """Whether a mark changes the tensor that it is written into."""
    return isinstance(mark, ast.Subscript) or (isinstance(mark, ast.Call) and last_name(mark.func) in _WRITING)


def in_training(node: ast.expr, module: Module) -> bool:
    """Whether a condition that asks for training stands around a place."""
    tests = (above.test for above in module.index.ancestors(node) if isinstance(above, (ast.If, ast.IfExp)))
    names = itertools.chain.from_iterable(descend(test) for test in tests)
    return any(last_name(each) in {"training", "is_training", "train"} for each in names)


def _scores(node: ast.expr, scope: Scope, program: Program) -> bool:
    """Whether a place is scoring code, or in a function that scoring code names."""
    if is_scoring(scope.module, node, program):
        return True
    function: Function | None = scope.function
    sites = program.call_sites(function) if function is not None else ()
    return any(is_scoring(module, call, program) for module, call, _ in sites)
