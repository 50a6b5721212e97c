"""A conservative reading of C and C++ helpers: functions, blocks and loops by their brackets, no types, no macros.

Enough to see whether what a loop writes for position i depends on the class of the token *at* position i.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

TEXT_LIMIT_CHARACTERS = 400_000
LOOPS_LIMIT = 200
CALLERS_DEPTH = 4

_NOISE = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
_FUNCTION = re.compile(r"\b([A-Za-z_]\w*)\s*\(([^(){};]{0,2000})\)\s*(?:const\s*)?(?:noexcept\s*)?\{")
_NOT_FUNCTIONS = frozenset({"if", "for", "while", "switch", "catch", "sizeof", "return"})
_LOOP = re.compile(r"\bfor\s*\(\s*(?:const\s+)?(?:\w+\s+)+(\w+)\s*=[^;]{0,200};")
_ITEM = re.compile(r"\b(\w+)\s*=\s*(?:\w+\s*\(\s*)?(?:\(\s*\w+\s*\)\s*)?\(?\s*(?:\w+(?:->|\.))?(\w+)\s*\[\s*(\w+)\s*\]")
_TOKENS = re.compile(r"tok|target|tgt", re.IGNORECASE)
# What a hint consists of; counts of bytes and logarithms of the token's own probability are none.
HINT = re.compile(r"hint|top|pred|boost|beta|valid|gate|conf", re.IGNORECASE)
NO_HINT = re.compile(r"byte|log|nll|loss|score", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CGate:
    """A hint that is switched by the class of the token that it is for.

    Attributes:
        function: the C function that holds it, and all that call that, by name.
        lines: 1-based lines: the token, its class, the condition, the hint.
    """

    function: frozenset[str]
    lines: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Function:
    name: str
    parameters: str
    start: int
    end: int


def gates(text: str) -> tuple[CGate, ...]:
    """The gates of a C or C++ text."""
    if len(text) > TEXT_LIMIT_CHARACTERS:
        return ()
    clean = _NOISE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    functions = list(_functions(clean))
    found: list[CGate] = []
    for loop in list(_LOOP.finditer(clean))[:LOOPS_LIMIT]:
        holder = next((each for each in reversed(functions) if each.start <= loop.start() < each.end), None)
        body = _block(clean, clean.find("{", loop.end()))
        if holder is not None and body is not None:
            found += [
                CGate(_callers(clean, functions, holder.name), lines)
                for lines in _loop(clean, body, loop[1], functions)
            ]
    return tuple(found)


def _functions(clean: str) -> Iterator[_Function]:
    for match in _FUNCTION.finditer(clean):
        span = _block(clean, match.end() - 1)
        if match[1] not in _NOT_FUNCTIONS and span is not None:
            yield _Function(match[1], match[2], *span)


def _block(clean: str, start: int) -> tuple[int, int] | None:
    """From an opening bracket to behind its closing one."""
    if start < 0:
        return None
    depth = 0
    for match in re.compile(r"[{}]").finditer(clean, start):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return start, match.end()
    return None


def _loop(
    clean: str, body: tuple[int, int], index: str, functions: Sequence[_Function]
) -> Iterator[tuple[int, int, int, int]]:
    """Gates in one loop over positions."""
    places, classes = _classes(clean, body, index)
    for name, (token, made) in classes.items():
        for condition, written in (*_ifs(clean, body, name, places), *_calls(clean, body, name, functions)):
            if condition > made:
                yield (_line(clean, token), _line(clean, made), _line(clean, condition), _line(clean, written))


def _classes(clean: str, body: tuple[int, int], index: str) -> tuple[set[str], dict[str, tuple[int, int]]]:
    """Names of the position, and of classes of the token at it: where the token and where the class is looked up."""
    places, tokens = {index}, {}
    for match in _ITEM.finditer(clean, *body):
        name, array, place = match.groups()
        if place in places and _TOKENS.search(array):
            tokens[name] = match.start()
        elif place in places and name not in tokens:
            places.add(name)  # `p = pos[i]`: a position of its own
    classes: dict[str, tuple[int, int]] = {}
    for name, start in tokens.items():
        for match in re.compile(rf"\b(\w+)\s*=[^;=]{{0,120}}?\b\w+\s*\[\s*{name}\s*\]").finditer(clean, *body):
            classes.setdefault(match[1], (start, match.start()))
    return places, classes


def _ifs(clean: str, body: tuple[int, int], name: str, places: set[str]) -> Iterator[tuple[int, int]]:
    """`if (... class ...) { hint[i] = ...; }`."""
    stores = re.compile(rf"\b(\w+)\s*\[\s*(?:{'|'.join(sorted(places))})\s*\]\s*=[^=]")
    for match in re.compile(rf"\bif\s*\([^;{{}}]{{0,400}}?\b{name}\b[^;{{}}]{{0,400}}?\)\s*\{{").finditer(clean, *body):
        block = _block(clean, match.end() - 1)
        written = next((each for each in stores.finditer(clean, *(block or (0, 0))) if _is_hint(each[1])), None)
        if written is not None:
            yield match.start(), written.start()


def _calls(clean: str, body: tuple[int, int], name: str, functions: Sequence[_Function]) -> Iterator[tuple[int, int]]:
    """`hint(class, out)`, where that function decides by the class what it gives out."""
    for match in re.compile(rf"\b(\w+)\s*\(([^(){{}};]*\b{name}\b[^(){{}};]*)\)\s*;").finditer(clean, *body):
        function = next((each for each in functions if each.name == match[1]), None)
        if function is None or not _is_hint(match[1]):
            continue
        arguments = [each.strip() for each in match[2].split(",")]
        parameters = [each.strip() for each in function.parameters.split(",")]
        if name not in arguments or len(arguments) != len(parameters):
            continue
        given = parameters[arguments.index(name)].rpartition(" ")[2].lstrip("&*")
        test = re.compile(rf"\bif\s*\([^;{{}}]{{0,300}}?\b{given}\b").search(clean, function.start, function.end)
        if test is not None and "&" in function.parameters:
            yield match.start(), test.start()


def _is_hint(name: str) -> bool:
    return bool(HINT.search(name)) and not NO_HINT.search(name)


def _callers(clean: str, functions: Sequence[_Function], name: str) -> frozenset[str]:
    """A function's name and the names of all that call it."""
    names = {name}
    for _ in range(CALLERS_DEPTH):
        called = re.compile(rf"\b(?:{'|'.join(sorted(names))})\s*\(")
        names |= {each.name for each in functions if called.search(clean, each.start, each.end)}
    return frozenset(names)


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1
