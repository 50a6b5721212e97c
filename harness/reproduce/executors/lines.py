"""Bytes of output into lines, with bounded memory whatever comes."""

from __future__ import annotations


class LineSplitter:
    r"""Cuts a byte stream into lines at LF, CR LF and CR, and keeps at most a fixed number of bytes of each.

    Example:
        >>> splitter = LineSplitter(line_bytes=4)
        >>> splitter.feed(b"ab\r\ncdefgh"), splitter.feed(b"ij\nk"), splitter.close()
        (['ab'], ['cdef'], ['k'])
    """

    def __init__(self, line_bytes: int) -> None:
        """Keep at most `line_bytes` bytes of a line."""
        self._line_bytes = line_bytes
        self._rest = b""
        self._after_return = False

    def feed(self, data: bytes) -> list[str]:
        """The lines that this piece completes."""
        if self._after_return and data.startswith(b"\n"):
            data = data[1:]
            self._after_return = False
        if not data:
            return []
        self._after_return = data.endswith(b"\r")
        first, *others = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        pieces = [self._rest + first[: self._line_bytes], *others]
        self._rest = pieces.pop()[: self._line_bytes]
        return [self._text(piece) for piece in pieces]

    def close(self) -> list[str]:
        """The last line, if it had no end."""
        rest, self._rest = self._rest, b""
        return [self._text(rest)] if rest else []

    def _text(self, line: bytes) -> str:
        return line[: self._line_bytes].decode("utf-8", errors="replace")
