"""Text that is safe to print.

Names, labels and messages of submissions may hold terminal escapes, bidirectional overrides and invisible
characters. What could move a cursor or reorder a line is shown as its code point instead.
"""

from __future__ import annotations

import unicodedata

# Control, format (bidirectional marks, zero-width), surrogate, private, unassigned, line and paragraph separators.
DISTURBING = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
SPACES = frozenset("\t\n\r\v\f")


def plain(text: str) -> str:
    r"""One line of text without anything that disturbs a terminal, in normal form C.

    Example:
        >>> plain("a\x1b[31mb\nc")
        'a\\x1b[31mb c'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in unicodedata.normalize("NFC", text))


def _shown(character: str) -> str:
    if character in SPACES:
        return " "
    if unicodedata.category(character) in DISTURBING:
        return character.encode("unicode_escape", "surrogatepass").decode("ascii")
    return character
