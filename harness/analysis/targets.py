"""What the score owes to the token being scored: hash keys made of it, and losses picked by it.

Finds the functions in which a hash, or a choice between losses, is written, and everything that calls them; lets
`flow` read those; and keeps what reaches a score outside of training.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.analysis.flow import Flow, Skipped
from harness.analysis.flowwords import LOSSES, TOKEN_LOSS
from harness.analysis.index import Function, dotted, place_of
from harness.analysis.labels import Label, Step
from harness.analysis.program import Module, Program
from harness.analysis.scoring import is_scoring

CALLERS_DEPTH = 4
_HASHING = re.compile(r"\^|bitwise_xor|%|remainder|fmod")
_CHOICES = ("minimum", "fmin", "maximum", "fmax", "where", "argmin", "amin", "min")
# Begins with one of two characters: what begins with any name is fifteen times slower.
_BETTER = re.compile(r"[<>]=?\s*\w*(?:nll|logp|log_p|logprob)")
_LOSS = re.compile(r"nll|loss|logp|log_p|lp\b|bits|\bce\b|cost", re.IGNORECASE)
_TARGETLIKE = re.compile(
    r"\b(?:\w+_)?(?:tgts?|tg|tn|targets?|f?ys?|labels?|nxt|next|tok|sym|symbol|nll|lo?ss)(?:_\w+)?\b"
)


@dataclass(frozen=True, slots=True)
class TargetUse:
    """One way in which the score uses the realized target.

    Attributes:
        kind: COUNT (a hashed bucket), PRIOR (the same, with a prior), PAIR (the very pair), FOREIGN (a row divided by
            something else than its sum) or CHOSEN (a choice between losses).
        steps: the lines that prove it, in order.
    """

    kind: Label
    steps: tuple[Step, ...]


def target_uses(program: Program, texts: Mapping[str, str], skipped: Skipped | None = None) -> tuple[TargetUse, ...]:
    """Uses of the target in the scoring code of a program.

    Args:
        program: the scripts.
        texts: the text of each script by path.
        skipped: branches that are left out. Of two branches that lead to the same use, one alone is told.
    """
    hot = [(module, f) for module in program.modules.values() for f in _hot(module, texts[module.at(None).path])]
    if not hot:
        return ()
    followed = _with_callers(program, hot)
    flow = Flow(program, {*followed, *_losing(program)}, skipped)
    for module, function in followed.values():
        flow.run(module, function)
    uses: dict[TargetUse, None] = {}
    for arrival in flow.arrivals:
        # A choice is made where its losses are computed; everything else where it arrives.
        steps = arrival.steps if arrival.label is Label.CHOSEN else arrival.steps[-1:]
        if any(is_scoring(step.module, step.node, program) for step in steps):
            uses.setdefault(TargetUse(arrival.label, tuple(dict.fromkeys(arrival.steps))))
    return tuple(uses)


def scoring_hashes(program: Program, texts: Mapping[str, str]) -> Iterator[tuple[Module, ast.AST]]:
    """The first exclusive or of each function of scoring code, or called by it: keys of unknown content."""
    for module in program.modules.values():
        text = texts[module.at(None).path]
        if "^" not in text and "bitwise_xor" not in text:
            continue
        asked: set[Function | None] = set()
        for node in _exclusive_ors(module):
            function = module.index.function_of(node)
            if function in asked:
                continue
            asked.add(function)
            calls = _calls(program, [function.node.name]) if function is not None else ()
            if is_scoring(module, node, program) or any(is_scoring(home, call, program) for home, call in calls):
                yield module, node


def _exclusive_ors(module: Module) -> Iterator[ast.AST]:
    kinds: tuple[type[ast.BinOp | ast.AugAssign], ...] = (ast.BinOp, ast.AugAssign)
    for kind in kinds:
        yield from (node for node in module.index.of(kind) if isinstance(node.op, ast.BitXor))
    yield from module.calls("bitwise_xor")


def _hot(module: Module, text: str) -> Iterator[Function]:
    """Functions that hash something that may be the target, or that choose between losses."""
    lines = text.split("\n")
    nodes = list(_hashes(module)) if _HASHING.search(text) else []
    if _BETTER.search(text):
        nodes += [test for test in module.index.of(ast.Compare) if _compares_losses(test)]
    for name in _CHOICES:
        nodes += [call for call in module.calls(name) if _LOSS.search(lines[call.lineno - 1])]
    found: dict[ast.AST, Function] = {}
    for node in nodes:
        function = module.index.function_of(node)
        if function is not None and function.node not in found and _names_a_target(function, lines):
            found[function.node] = function
    yield from found.values()


def _losing(program: Program) -> Iterator[ast.AST]:
    """Functions that compute a loss of each token, for those that choose between what they return."""
    for module in program.modules.values():
        for name in sorted(LOSSES):
            for call in module.calls(name):
                function = module.index.function_of(call)
                if function is not None and any(each.arg == "reduction" for each in call.keywords):
                    yield function.node


def _compares_losses(test: ast.Compare) -> bool:
    return all(TOKEN_LOSS.search(dotted(side)) for side in (test.left, test.comparators[0]))


def _names_a_target(function: Function, lines: Sequence[str]) -> bool:
    return any(_TARGETLIKE.search(line) for line in lines[function.node.lineno - 1 : function.node.end_lineno])


def _hashes(module: Module) -> Iterator[ast.expr | ast.stmt]:
    """Exclusive ors, and remainders of products and sums."""
    hashes = [
        node
        for node in module.index.each(ast.BinOp)
        if isinstance(node.op, ast.BitXor) or (isinstance(node.op, ast.Mod) and isinstance(node.left, ast.BinOp))
    ]
    yield from sorted(hashes, key=place_of)
    changes = (change for change in module.index.each(ast.AugAssign) if isinstance(change.op, ast.BitXor))
    yield from sorted(changes, key=place_of)
    for name in ("bitwise_xor", "remainder", "fmod"):
        yield from module.calls(name)


def _with_callers(program: Program, hot: Iterable[tuple[Module, Function]]) -> dict[ast.AST, tuple[Module, Function]]:
    """The functions and what calls them, outermost last."""
    found: dict[ast.AST, tuple[Module, Function]] = {function.node: (module, function) for module, function in hot}
    names = {function.node.name for _, function in found.values()}
    for _ in range(CALLERS_DEPTH):
        new: dict[ast.AST, tuple[Module, Function]] = {}
        for module, call in _calls(program, names):
            function = module.index.function_of(call)
            if function is not None and function.node not in found:
                new[function.node] = (module, function)
        if not new:
            break
        found |= new
        names = {function.node.name for _, function in new.values()}
    return found


def _calls(program: Program, names: Iterable[str]) -> Iterator[tuple[Module, ast.Call]]:
    for module in program.modules.values():
        for name in sorted(names):
            yield from ((module, call) for call in module.calls(name))
