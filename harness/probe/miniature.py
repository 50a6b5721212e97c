"""A configuration so small that a script runs in seconds on a CPU: only keys that the script really consults."""

from __future__ import annotations

import ast
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from harness.model import HarnessError
from harness.probe import sizes
from harness.probe.world import Spec

Value = int
PLACES_LIMIT = 8
BYTES = 256
# A shift or a power that is written out has no larger parts.
BITS_LIMIT = 64
# Names that a hash is reduced by: `% size`, `& size - 1`.
_MODULUS = re.compile(r"%\s*(?:\w+\.)*(\w+)|(?:&|\bmask\w*\s*=)[^#\n]{0,40}?\b(\w+)\s*-\s*1\b")
# What only prints along the way is turned off; where a script divides by it unasked, it does not come to it instead.
QUIET, NEVER = 0, 1_000_000
_ASKED = re.compile(
    r"val_loss_every\s*(?:>|!=|and\b)|\b(?:if|and|not)\s+(?:\w+\.)*val_loss_every\s*(?:and\b|:|\))", re.IGNORECASE
)
# A key, and a literal behind it, which another bracket or comma ends, or the beginning of anything else.
_KEY = re.compile(
    r"""["'](?P<name>[A-Z][A-Z0-9_]{2,40})["']\s*"""
    r"""(?:,\s*(?:["']{2}|(?:str\()?["']?(?P<literal>[-\w.]+(?:\s*(?:<<|\*\*)\s*\d+)?)["']?\s*(?=[),\]\n#])|(?P<other>[^\s])))?"""
)
EXPRESSION = "an expression"
_HANDED_ON = re.compile(r"\bos\.environ\b(?!\s*[.\[])|\bdict\(\s*os\.environ|\bos\.environ\.(?:copy|items)\(")
_ANNOTATED = re.compile(r"""Annotated\[[^\n]*?["']([A-Z][A-Z0-9_]{2,40})["'][^\n]*\]\s*=\s*["']?([-\w.]+)""")
_VOCABULARY = re.compile(r"""["']VOCAB_SIZE["'],\s*(?:str\()?["']?(\d+)""")
_PLACE = re.compile(r"""["'](?:\./)?data/([\w./-]+?)/?["']""")
_CLASS = "Hyperparameters"


@dataclass(frozen=True, slots=True)
class Miniature:
    """How a script is run small.

    Attributes:
        environment: variables, the claimed ones included.
        classes: attributes of classes that the environment does not reach.
        module: constants of the module.
        everywhere: sizes of tables and of pieces, by name, wherever a number from a least one up is written out.
        shrunk: what was made smaller: name to (claimed or default, now).
        spec: the world that it needs.
        length: tokens of a sequence.
    """

    environment: dict[str, str] = field(default_factory=dict)
    classes: dict[str, dict[str, Value]] = field(default_factory=dict)
    module: dict[str, Value] = field(default_factory=dict)
    everywhere: dict[str, tuple[Value, Value]] = field(default_factory=dict)
    shrunk: dict[str, tuple[str, str]] = field(default_factory=dict)
    spec: Spec = field(default_factory=Spec)
    length: int = sizes.LENGTH

    def overrides(self) -> dict[str, dict[str, object]]:
        """In the form that the child's plan has."""
        return {
            "class": dict(self.classes),
            "module": dict(self.module),
            "everywhere": {name: list(pair) for name, pair in self.everywhere.items()},
        }


def choose(text: str, claimed: Mapping[str, str] | None = None, length: int = sizes.LENGTH) -> Miniature:
    """Shrink a script.

    Args:
        text: its source, unpacked, with that of its own modules after it.
        claimed: the environment of the run that is claimed.
        length: tokens of a sequence.

    Raises:
        HarnessError: the size of the vocabulary is no number.
    """
    claimed = dict(claimed or {})
    vocabulary = {} if length > sizes.LENGTH else {"VOCAB_SIZE": sizes.VOCABULARY}
    small = sizes.SMALL | vocabulary | {name: round(times * length) for name, times in sizes.LENGTHS.items()}
    keys = _consulted(text)
    environment, shrunk = dict(claimed), {}
    quiet = {"VAL_LOSS_EVERY": QUIET if _ASKED.search(text) else NEVER}
    for name, most in {**small, **quiet}.items():
        value = claimed.get(name, keys.get(name, ""))
        if name in keys and (name in quiet or sizes.is_larger(name, value, most)):
            environment[name], shrunk[name] = str(most), (value, str(most))
    width = claimed.get("MODEL_DIM", keys.get("MODEL_DIM", ""))
    for name in sizes.AS_WIDE:
        value = claimed.get(name, keys.get(name, ""))
        if _number(value) is not None and _number(value) == _number(width):
            environment[name], shrunk[name] = str(small["MODEL_DIM"]), (value, str(small["MODEL_DIM"]))
    by_ending = ((name, most) for name in keys for _, most in sizes.by_ending(name, length))
    for name, most in (*sizes.CAPPED.items(), *by_ending):
        value = claimed.get(name, keys.get(name, ""))
        if (_number(value) or 0) >= sizes.least(name, most):
            environment[name], shrunk[name] = str(most), (value, str(most))
    classes, module = _written(text, keys, small)
    everywhere = {name: pair for name, pair in _everywhere(text, keys, length).items() if name.upper() not in small}
    shrunk |= {name: ("in the script", str(value)) for name, value in module.items()}
    shrunk |= {name: ("in the script", str(value)) for name, value in classes.get(_CLASS, {}).items()}
    shrunk |= {name: ("in the script", str(value)) for name, (value, _) in everywhere.items()}
    spec = _spec(text, environment)
    spec = dataclasses.replace(spec, also=_as_claimed(text, claimed, spec))
    return Miniature(environment | _places(keys, spec), classes, module, everywhere, shrunk, spec, length)


def _places(keys: Mapping[str, str], spec: Spec) -> dict[str, str]:
    """Where the data are, for a script that has no place of its own for them."""
    where = {"DATA_PATH": f"./data/{spec.shards}", "TOKENIZER_PATH": f"./data/{spec.tokenizer}"}
    return {name: place for name, place in where.items() if keys.get(name) == ""}


def handed_on(text: str) -> frozenset[str]:
    """Names that a script may look up in an environment which it hands on whole: where, its text does not tell."""
    return frozenset(_consulted(text)) if _HANDED_ON.search(text) else frozenset()


def _consulted(text: str) -> dict[str, str]:
    """Environment keys that a script reads, with their defaults as text: empty where there is none."""
    found: dict[str, str] = {}
    if "environ" not in text and "getenv" not in text:
        return found
    for match in _KEY.finditer(text):
        found.setdefault(match["name"], match["literal"] or (EXPRESSION if match["other"] else ""))
    # There the second word is the low end of a range.
    return found | {match[1]: match[2] for match in _ANNOTATED.finditer(text)}


def _written(
    text: str, keys: Mapping[str, str], small: Mapping[str, int]
) -> tuple[dict[str, dict[str, Value]], dict[str, Value]]:
    """Plain numbers in the class of settings and in the module that no key of the environment sets."""
    try:
        body = ast.parse(text).body
    except SyntaxError:
        return {}, {}
    module = {
        name: small[name]
        for name, value in _numbers(body)
        if name in small and name not in keys and sizes.is_larger(name, str(value), small[name])
    }
    classes: dict[str, dict[str, Value]] = {}
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name == _CLASS:
            found = {
                name: small[name.upper()]
                for name, value in _numbers(node.body)
                if name.upper() in small
                and name.upper() not in keys
                and sizes.is_larger(name.upper(), str(value), small[name.upper()])
            }
            classes[node.name] = found
    return {name: values for name, values in classes.items() if values}, module


def _everywhere(text: str, keys: Mapping[str, str], length: int) -> dict[str, tuple[int, int]]:
    """Sizes of tables and of pieces that are written out anywhere: assigned, as a default, or in a call."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return {}
    moduli = {name for match in _MODULUS.finditer(text) for name in match.groups() if name}
    places = sizes.MORE_PLACES if length > sizes.LENGTH else sizes.PLACES
    found: dict[str, tuple[int, int]] = {}
    for name, value in (pair for node in ast.walk(tree) for pair in _given(node)):
        number = _constant(value) or 0
        limits = [most for ending, most in sizes.by_ending(name, length) if ending in sizes.ANYWHERE]
        if name.upper() in keys:
            continue
        if limits and number >= sizes.least(name, limits[0]):
            found[name] = limits[0], sizes.least(name, limits[0])
        # A float would be looked for in the range number by number.
        elif name in moduli and isinstance(number, int) and number in sizes.MODULI and not number & number - 1:
            found[name] = places, sizes.MODULI.start
    return found


def _given(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Names that are given a value here."""
    if isinstance(node, ast.arguments):
        plain = [*node.posonlyargs, *node.args]
        pairs = [
            *zip(reversed(plain), reversed(node.defaults), strict=False),
            *zip(node.kwonlyargs, node.kw_defaults, strict=True),
        ]
        yield from ((argument.arg, value) for argument, value in pairs if value is not None)
    elif isinstance(node, ast.keyword) and node.arg:
        yield node.arg, node.value
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
        for target, value in _assigned(node):
            if isinstance(target, (ast.Name, ast.Attribute)):
                yield target.id if isinstance(target, ast.Name) else target.attr, value
    else:
        yield from _asked(node)


def _asked(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """What a tensor's number of numbers is compared with, and how many tokens a stream is asked for."""
    if isinstance(node, ast.Compare):
        # `tensor.numel() <= 65_536`
        sides = [node.left, *node.comparators]
        if any(isinstance(side, ast.Call) and ast.unparse(side.func).endswith(".numel") for side in sides):
            yield from ((sizes.NUMBERS, side) for side in sides)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "take":
        yield from ((sizes.TAKING, value) for value in node.args[:1])


def _numbers(body: list[ast.stmt]) -> Iterator[tuple[str, float]]:
    for node in body:
        for target, value in _assigned(node):
            number = _constant(value)
            if isinstance(target, ast.Name) and number is not None:
                yield target.id, number


def _constant(node: ast.AST) -> float | None:
    """A number as it is written, or as a power of two."""
    match node:
        case ast.Constant(int() | float() as value):
            return value
        case ast.BinOp(ast.Constant(int(low)), ast.LShift(), ast.Constant(int(high))) if 0 <= high <= BITS_LIMIT:
            return low << high
        case ast.BinOp(ast.Constant(int(low)), ast.Pow(), ast.Constant(int(high))) if 0 <= high <= BITS_LIMIT:
            return int(low**high)
    return None


def _number(text: str) -> float | None:
    try:
        return _constant(ast.parse(text, mode="eval").body)
    except SyntaxError:
        return None


def _assigned(node: ast.stmt) -> list[tuple[ast.expr, ast.expr]]:
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        return [(node.target, node.value)]
    if not isinstance(node, ast.Assign):
        return []
    target, value = node.targets[0], node.value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return list(zip(target.elts, value.elts, strict=False))
    return [(target, value)]


def _spec(text: str, environment: Mapping[str, str]) -> Spec:
    default = _VOCABULARY.search(text)
    # Fewer pieces than there are bytes is no default but the low end of a checked range.
    written = int(default[1]) if default and int(default[1]) >= BYTES else 1024
    size = _whole("VOCAB_SIZE", environment.get("VOCAB_SIZE") or str(written))
    also = tuple(dict.fromkeys(_PLACE.findall(text)))[:PLACES_LIMIT]
    return Spec(vocabulary=size, caseops=environment.get("CASEOPS_ENABLED") == "1", also=also)


def _as_claimed(text: str, claimed: Mapping[str, str], spec: Spec) -> tuple[str, ...]:
    """Further places of a world: those of the claimed vocabulary too, for a script that spells its name out."""
    of_claim = _spec(text, claimed)
    if of_claim.vocabulary == spec.vocabulary:
        return spec.also
    return *spec.also, of_claim.shards, of_claim.tokenizer


def _whole(key: str, value: str) -> int:
    """A whole number above zero, also where it is written with a point."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf or number != int(number):
        raise HarnessError(f"{key}={value[:60]}: not a whole number above zero")
    return int(number)
