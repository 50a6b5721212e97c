"""F-strings of Python 3.12 and later, read with an older parser into an ordinary syntax tree.

Since 3.12 an expression inside an f-string may hold the string's own quotes, backslashes, comments and line breaks
(PEP 701). The scanner finds such expressions, puts a name in their place, and parses them apart; the tree is then put
together again, and every line keeps its number.
"""

from __future__ import annotations

import ast
import bisect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.sources.textlines import lines_with, nodes_on

Parse = Callable[[str], ast.Module]

# The first Python that parses them itself.
FSTRINGS_SINCE = (3, 12)
DEPTH_LIMIT = 16
# Where an f-string may begin; a text without a match needs no second look.
_SUSPECT = re.compile(r"""(?<!\w)(?:[fF][rR]?|[rR][fF])["']""")
_CODE = re.compile(r"""((?<!\w)[A-Za-z]{1,2})?(\"\"\"|'''|["'])|#[^\n]*""")
_EXPRESSION = re.compile(_CODE.pattern + r"|[()\[\]{}:]|!=?")
_PLAIN = {
    '"': re.compile(r'(?:[^"\\\n]|\\.)*"', re.DOTALL),
    "'": re.compile(r"(?:[^'\\\n]|\\.)*'", re.DOTALL),
    '"""': re.compile(r'(?:[^"\\]|\\.|"(?!""))*"""', re.DOTALL),
    "'''": re.compile(r"(?:[^'\\]|\\.|'(?!''))*'''", re.DOTALL),
}
_CONVERSION = re.compile(r"\s*\w+\s*")
_NAMED_CHARACTER = re.compile(r"N\{[^}\n]*\}")
# What an older parser refuses inside an f-string's expression, or may.
_REFUSED = re.compile(r"""["'\\#\n]""")
_DEBUG = re.compile(r"(?<![=!<>])=\s*$")


@dataclass(frozen=True, slots=True)
class _Field:
    """The expression of one replacement field: its span in the text, and whether triple quotes stand around it."""

    start: int
    end: int
    triple: bool


@dataclass(frozen=True, slots=True)
class _String:
    """One f-string of the text: where it ends, and its replacement fields in order."""

    end: int
    fields: tuple[_Field, ...]


def parse_newer(text: str, parse: Parse, depth: int = 0) -> ast.Module:
    """Parse a text whose f-strings may be newer than the parser.

    Args:
        text: the whole script.
        parse: Python's own parser; raises SyntaxError and nothing else.
        depth: how many f-strings stand around the text.

    Raises:
        SyntaxError: it is no program in the newer syntax either.
    """
    if depth > DEPTH_LIMIT:
        raise _error(text, 0, "f-strings nest too deeply")
    return _Rewriter(text, parse, depth).tree()


def has_fstring(text: str) -> bool:
    """Whether an f-string may begin in a text."""
    return _SUSPECT.search(text) is not None


class _Rewriter:
    """Puts names in the place of newer expressions, and the expressions back into the tree."""

    def __init__(self, text: str, parse: Parse, depth: int) -> None:
        self._text = text
        self._parse = parse
        self._depth = depth
        self._breaks = [match.start() for match in re.finditer("\n", text)]
        self._expressions: dict[str, ast.expr] = {}
        self._prefix = "_field"
        while self._prefix in text:
            self._prefix += "_"

    def tree(self) -> ast.Module:
        text = self._rewritten()
        tree = self._parse(text)
        # Only the outermost string is sure to have the right lines.
        strings = nodes_on(tree, lines_with(text, (self._prefix,)), (ast.JoinedStr,))
        for node in (node for string in strings for node in ast.walk(string)):
            if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Name):
                node.value = self._expressions.get(node.value.id, node.value)
        return tree

    def _rewritten(self) -> str:
        pieces: list[str] = []
        position = 0
        for string in _strings(self._text):
            lost = 0
            for field in string.fields:
                source = self._text[field.start : field.end]
                if not _REFUSED.search(source):
                    continue
                # Line breaks stay inside of triple quotes, and follow a string of single ones.
                breaks = source.count("\n")
                lost += 0 if field.triple else breaks
                pieces += [self._text[position : field.start], self._placeholder(field), "\n" * breaks * field.triple]
                position = field.end
            pieces += [self._text[position : string.end], "\\\n" * lost]
            position = string.end
        return "".join([*pieces, self._text[position:]])

    def _placeholder(self, field: _Field) -> str:
        """A name for a field's expression, which is parsed and remembered."""
        name = f"{self._prefix}{len(self._expressions)}"
        source = self._text[field.start : field.end]
        debug = _DEBUG.search(source)
        self._expressions[name] = self._expression(field, source[: debug.start()] if debug else source)
        return f"{name}=" if debug else name

    def _expression(self, field: _Field, source: str) -> ast.expr:
        """One field's expression as a tree, with the lines of the whole text."""
        # The line break ends a comment before the bracket.
        alone = f"({source}\n)"
        try:
            try:
                module = self._parse(alone)
            except SyntaxError:
                module = parse_newer(alone, self._parse, self._depth + 1)
        except SyntaxError as error:
            raise _error(self._text, field.start, f"f-string: {error.msg}") from error
        statement = module.body[0]
        if not source.strip() or len(module.body) != 1 or not isinstance(statement, ast.Expr):
            raise _error(self._text, field.start, "f-string: expecting an expression")
        ast.increment_lineno(statement, bisect.bisect_left(self._breaks, field.start))
        return statement.value


def _strings(text: str) -> Iterator[_String]:
    """The f-strings of a program that stand in no other f-string."""
    position = 0
    while match := _CODE.search(text, position):
        position = match.end()
        if match[2] is None:
            continue
        string = _string(text, match, 0)
        position = string.end
        if string.fields:
            yield string


def _string(text: str, opening: re.Match[str], depth: int) -> _String:
    """The string literal that a match opens."""
    prefix, quote = (opening[1] or "").lower(), opening[2]
    if "f" in prefix:
        return _FString(text, quote, raw="r" in prefix, depth=depth).read(opening.end())
    closing = _PLAIN[quote].match(text, opening.end())
    if closing is None:
        raise _error(text, opening.start(), "unterminated string literal")
    return _String(closing.end(), ())


class _FString:
    """Reads one f-string: literal text, and replacement fields in it."""

    def __init__(self, text: str, quote: str, *, raw: bool, depth: int) -> None:
        if depth > DEPTH_LIMIT:
            raise _error(text, 0, "f-strings nest too deeply")
        self._text = text
        self._quote = quote
        self._raw = raw
        self._depth = depth
        self._fields: list[_Field] = []
        self._triple = len(quote) == 3
        line_break = "" if self._triple else r"|\n"
        self._inside = re.compile(rf"[{{}}]|{quote}{line_break}")
        self._literal = re.compile(rf"\\|\{{\{{?|\}}\}}?|{quote}{line_break}")

    def read(self, start: int) -> _String:
        """The string whose text begins at `start`, after the opening quotes."""
        position = start
        while match := self._literal.search(self._text, position):
            position = match.end()
            if match[0] == self._quote:
                return _String(position, tuple(self._fields))
            if match[0] == "\n":
                break
            if match[0] == "\\":
                position = self._after_escape(position)
            elif match[0] == "{":
                position = self._field(position)
            elif match[0] == "}":
                raise _error(self._text, match.start(), "f-string: single '}' is not allowed")
        raise _error(self._text, start, "unterminated f-string literal")

    def _after_escape(self, position: int) -> int:
        """Where the text goes on after a backslash; a brace that follows it is a brace all the same."""
        named = None if self._raw else _NAMED_CHARACTER.match(self._text, position)
        if named:
            return named.end()
        return position if self._text[position : position + 1] in {"{", "}", ""} else position + 1

    def _field(self, start: int) -> int:
        """Read a replacement field from behind its brace; returns the position behind the closing one."""
        end = self._expression(start)
        self._fields.append(_Field(start, end, self._triple))
        if self._text[end] == "!":
            conversion = _CONVERSION.match(self._text, end + 1)
            end = conversion.end() if conversion else end + 1
        if self._text[end : end + 1] == ":":
            return self._specification(end + 1)
        if self._text[end : end + 1] != "}":
            raise _error(self._text, start, "f-string: expecting '}'")
        return end + 1

    def _expression(self, start: int) -> int:
        """The end of an expression: a colon, an exclamation mark or a closing brace outside of all brackets."""
        position, brackets = start, 0
        while match := _EXPRESSION.search(self._text, position):
            position, found = match.end(), match[0]
            if match[2] is not None:
                position = _string(self._text, match, self._depth + 1).end
            elif found in {"(", "[", "{"}:
                brackets += 1
            elif brackets and found in {")", "]", "}"}:
                brackets -= 1
            elif not brackets and found in {"}", ":", "!"}:
                return match.start()
            elif not brackets and found in {")", "]"}:
                break
        raise _error(self._text, start, "f-string: expecting '}'")

    def _specification(self, start: int) -> int:
        """Read a format specification, which may hold fields of its own."""
        position = start
        while match := self._inside.search(self._text, position):
            if match[0] == "}":
                return match.end()
            if match[0] != "{":
                break
            position = self._field(match.end())
        raise _error(self._text, start, "f-string: expecting '}'")


def _error(text: str, position: int, message: str) -> SyntaxError:
    line = text.count("\n", 0, position) + 1
    return SyntaxError(message, ("", line, None, None))
