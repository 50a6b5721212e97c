"""The text of a Python file as Python reads it: its encoding, its line ends, and why Python refuses its bytes."""

from __future__ import annotations

import codecs
import io
import re
import tokenize
from dataclasses import dataclass

from harness.sources.folder import decode, shown

# Encodings whose decoders take no more than one pass and give characters for bytes, nothing else.
_PLAIN = re.compile(
    r"utf-8|utf-8-sig|ascii|iso8859-\d+|cp125\d|cp437|cp850|cp866|cp932|cp936|cp949|cp950|koi8-[rtu]|mac-\w+"
    r"|gbk|gb2312|gb18030|big5|shift_jis|euc_jp|euc_kr"
)
# A declaration is written in ASCII, which neither of these is.
_WIDE = frozenset({"utf-16", "utf-32"})


@dataclass(frozen=True, slots=True)
class SourceText:
    """A Python file's text.

    Attributes:
        text: with one line feed at the end of each line; wrong bytes are U+FFFD.
        problem: why Python refuses the bytes, or why that cannot be told, as a clause; or "".
        line: where, when there is a problem.
        undecided: True when it cannot be told.
    """

    text: str
    problem: str = ""
    line: int | None = None
    undecided: bool = False


def read(data: bytes) -> SourceText:
    """The text of a file; never raises, whatever the bytes are."""
    text = unix(decode(data))
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return SourceText(text, "it is UTF-16, which Python does not read", 1)
    if b"\0" in data:
        return SourceText(text, "it holds null bytes, which Python refuses", _line(data, data.index(b"\0")))
    try:
        # The declaration is looked for in lines, which may end in any way.
        encoding, _ = tokenize.detect_encoding(io.BytesIO(_unix_bytes(data)).readline)
        name = codecs.lookup(encoding).name
    except (SyntaxError, LookupError) as error:
        wrong = _decoded(data, "utf-8")
        # The first lines are taken for UTF-8 before they declare anything.
        if str(error).startswith("invalid") and wrong.problem:
            return wrong
        return SourceText(text, f"Python cannot read its encoding: {shown(str(error))}", 1)
    return _decoded(data, name) if _PLAIN.fullmatch(name) else _refused(text, name)


def unix(text: str) -> str:
    """A text with the line ends that Python makes of all of its own: what counts lines counts the same ones then."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _decoded(data: bytes, name: str) -> SourceText:
    """The text in an encoding that is known here."""
    marked = data.startswith(codecs.BOM_UTF8)
    try:
        text = unix(data.decode(name))
    except UnicodeDecodeError as error:
        problem = f"its bytes are no {name.removesuffix('-sig')}"
        # Behind a byte-order mark, some versions read over wrong bytes in a comment.
        return SourceText(unix(decode(data)), problem, _line(data, error.start + 3 * marked), undecided=marked)
    if marked and text.startswith("\ufeff"):
        return SourceText(text[1:], "it begins with two byte-order marks", 1)
    return SourceText(text)


def _refused(text: str, name: str) -> SourceText:
    """What is known of a file in another encoding."""
    if name in _WIDE:
        return SourceText(text, f"it declares {name} in bytes that are not", 1)
    try:
        b"text".decode(name)
    except LookupError:
        return SourceText(text, f"it declares {name}, which is no encoding of text", 1)
    except ValueError:
        pass  # It is one, whatever it makes of this.
    return SourceText(text, f"it declares {name}, which is not read here", 1, undecided=True)


def _line(data: bytes, offset: int) -> int:
    return _unix_bytes(data[:offset]).count(b"\n") + 1


def _unix_bytes(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data
