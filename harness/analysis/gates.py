"""Hints switched by the class of the token that they are for: in Python loops, and in C helpers that Python calls.

A hint for position t may depend on the tokens before t. Where a loop looks up a class of the token *at* t (does it
start a word, is it a boundary) and writes a hint for t only under that condition, the hint's presence tells the class.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.analysis import ctext
from harness.analysis.forms import ends_before
from harness.analysis.index import descend, dotted, last_name, place_of
from harness.analysis.labels import Step
from harness.analysis.program import Module, Program, Scope, argument
from harness.model import Location

# Those that come in are known: `in_tokens`, `prev_tok`.
_TOKENS = re.compile(
    r"^(?!(?:.*_)?(?:in|inp|inputs?|ctx|context|prev|previous|past|x)(?:_|$)).*(?:tok|target|tgt)", re.IGNORECASE
)
_STRENGTH = re.compile(r"(?:within|word)\w*(?:beta|boost|weight|alpha)", re.IGNORECASE)
_HOPS = 6
_C_TEXT = re.compile(r"uint(?:8|16|32|64)_t|#include")
_STEPS = ("the token being scored", "its class", "the condition", "the hint")


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate.

    Attributes:
        places: the token, its class, the condition and the hint, each with what it is.
        calls: where Python enters the code that holds it: the condition itself, or calls of the C function.
    """

    places: tuple[tuple[str, Location], ...]
    calls: tuple[Step, ...]


def gates(program: Program, texts: Mapping[str, str], helpers: Mapping[str, str]) -> tuple[Gate, ...]:
    """Every gate of a program.

    Args:
        program: the scripts.
        texts: the text of each script by path.
        helpers: the text of each C or C++ file by path.
    """
    found = [gate for path, text in helpers.items() for gate in _in_c(program, text, functools.partial(Location, path))]
    for module in program.modules.values():
        text = texts[module.at(None).path]
        if ("uint" in text or "#include" in text) and _C_TEXT.search(text):
            found += [gate for node in _c_strings(module) for gate in _in_string(program, module, node)]
        if "for " in text and ctext.HINT.search(text):
            found += list(_in_python(module, program))
    return tuple(found)


def strengths(program: Program) -> Iterator[tuple[Module, ast.expr]]:
    """What calls pass for the strength of hints inside words and at their start."""
    for module in program.modules.values():
        keywords = [each for each in module.index.each(ast.keyword) if each.arg and _STRENGTH.search(each.arg)]
        yield from ((module, each.value) for each in sorted(keywords, key=place_of))


def _c_strings(module: Module) -> Iterator[ast.Constant]:
    texts = (node for node in module.index.each(ast.Constant) if isinstance(node.value, str) and len(node.value) > 400)
    yield from sorted((node for node in texts if _C_TEXT.search(str(node.value))), key=place_of)


def _in_string(program: Program, module: Module, node: ast.Constant) -> Iterator[Gate]:
    yield from _in_c(program, str(node.value), lambda line: module.at(node.lineno + line - 1))


def _in_c(program: Program, text: str, at: Callable[[int], Location]) -> Iterator[Gate]:
    for gate in ctext.gates(text):
        calls = tuple(
            Step("the helper is called", module.at(call.lineno), call, module)
            for module in program.modules.values()
            for name in sorted(gate.function)
            for call in module.calls(name)
        )
        if calls:
            yield Gate(tuple(zip(_STEPS, map(at, gate.lines), strict=True)), calls)


def _in_python(module: Module, program: Program) -> Iterator[Gate]:
    for loop in module.index.of(ast.For):
        place, tokens = _loop_tokens(loop)
        if not place:
            continue
        classes: dict[str, ast.stmt] = {}
        if _over_inputs(loop, module, program):
            continue
        for statement in loop.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                _assigned(statement, place, tokens, classes)
        for branch in module.index.within(loop, ast.If) if classes else ():
            tested = [node.id for node in descend(branch.test) if isinstance(node, ast.Name)]
            made = next((classes[name] for name in tested if name in classes), None)
            hint = next(_stores(branch.body, place), None)
            if made is not None and hint is not None:
                lines = (loop.lineno, made.lineno, branch.lineno, hint.lineno)
                places = tuple(zip(_STEPS, map(module.at, lines), strict=True))
                yield Gate(places, (Step("the condition", places[2][1], branch.test, module),))


def _over_inputs(loop: ast.For, module: Module, program: Program) -> bool:
    """Whether every array of tokens that a loop reads holds all but the last of some: a token that is known, then."""
    scope = module.scope_of(loop)
    read = {last_name(each.value) for each in descend(loop) if isinstance(each, ast.Subscript)}
    called = loop.iter.args if isinstance(loop.iter, ast.Call) else []
    arrays = {name for name in read | set(map(dotted, called)) if _TOKENS.search(name)}
    given = [value for name in arrays for value in _given(name, scope, program)]
    return bool(given) and all(_is_input(value, home) for value, home in given)


def _given(name: str, scope: Scope, program: Program) -> list[tuple[ast.expr, Scope]]:
    """What a name of a function is given: by the function, or by all that call it."""
    function = scope.function
    if function is None or name not in scope.parameters:
        return [(each.value, scope) for each in scope.bindings.get(name, ())] or [(ast.Name(name, ast.Load()), scope)]
    sites = [
        (argument(call, function, name, filled), home.scope_of(call))
        for home, call, filled in program.call_sites(function)
    ]
    return [(value, home) for value, home in sites if value is not None]


def _is_input(value: ast.expr, scope: Scope) -> bool:
    """`tokens[:-1]`, under a name or behind calls too."""
    for _ in range(_HOPS):
        value = scope.last_given(value)
        if isinstance(value, ast.Call) and (isinstance(value.func, ast.Attribute) or value.args):
            value = value.func.value if isinstance(value.func, ast.Attribute) else value.args[0]
    return isinstance(value, ast.Subscript) and ends_before(value.slice)


def _loop_tokens(loop: ast.For) -> tuple[str, set[str]]:
    """The position and the token in `for i, token in enumerate(tokens)` and `for i in range(...)`."""
    called = last_name(loop.iter.func) if isinstance(loop.iter, ast.Call) else ""
    if called == "enumerate" and isinstance(loop.target, ast.Tuple) and isinstance(loop.iter, ast.Call):
        over = dotted(loop.iter.args[0]) if loop.iter.args else ""
        names = [dotted(each) for each in loop.target.elts]
        return (names[0], set(names[1:])) if _TOKENS.search(over) else ("", set())
    return (dotted(loop.target), set()) if called == "range" else ("", set())


def _assigned(statement: ast.Assign, place: str, tokens: set[str], classes: dict[str, ast.stmt]) -> None:
    """Names that hold the token at the position, and names that hold its class."""
    name = dotted(statement.targets[0])
    for node in descend(statement.value):
        if isinstance(node, ast.Subscript):
            index, array = dotted(node.slice), last_name(node.value)
            if index == place and place and _TOKENS.search(array):
                tokens.add(name)
            elif index in tokens:
                classes.setdefault(name, statement)
    cast = statement.value
    if isinstance(cast, ast.Call) and last_name(cast.func) == "int" and cast.args and dotted(cast.args[0]) in tokens:
        tokens.add(name)


def _stores(body: Sequence[ast.stmt], place: str) -> Iterator[ast.Subscript]:
    """`hint[i] = ...` among some statements, at any depth."""
    for statement in body:
        for node in descend(statement):
            if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and dotted(node.slice) == place:
                name = last_name(node.value)
                if ctext.HINT.search(name) and not ctext.NO_HINT.search(name):
                    yield node
