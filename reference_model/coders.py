"""Bytes coded by a general compressor, and read back no further than they say.

What is read may be hostile: a stream states its size before its first byte, the reader stops there, and what stands
behind the end of a stream is an error. Packages beyond zstandard are loaded where they are used.
"""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import zstandard

READ_BYTES = 1 << 20
BROTLI_QUALITY = 11
# The largest window of the format proper (RFC 7932).
BROTLI_WINDOW_BITS = 24
SIZE_FORMAT = "<I"
SIZE_BYTES = 4


class CoderError(ValueError):
    """Coded bytes that cannot be read, or a coder that is not there."""


@dataclass
class ByteSource:
    """Decompressed bytes, read in order.

    Attributes:
        size: What the coded bytes state; the caller holds it against a limit before reading.
        step: Gives up to so many of the next bytes, none at the end.
        place: Bytes read so far.
    """

    size: int
    step: Callable[[int], bytes]
    place: int = field(default=0, init=False)

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return self.size - self.place

    def read(self, size: int) -> bytes:
        """Exactly so many bytes, fetched in steps: a stream that ends early costs no more than it holds.

        Raises:
            CoderError: it ends early.
        """
        parts: list[bytes] = []
        missing = size
        while missing:
            part = self.step(min(missing, READ_BYTES))
            if not part:
                raise CoderError(f"ends {missing} bytes early")
            parts.append(part)
            missing -= len(part)
        self.place += size
        return b"".join(parts)

    def finish(self) -> None:
        """Go on to the end.

        Raises:
            CoderError: there is more than was stated.
        """
        if self.step(1):
            raise CoderError(f"holds more than the {self.size} bytes that it states")


def zstd_encoded(content: bytes, level: int) -> bytes:
    """One zstd frame, which states its size."""
    return zstandard.ZstdCompressor(level=level).compress(content)


def zstd_source(frame: bytes, window_bytes: int) -> ByteSource:
    """Read one zstd frame and nothing behind it.

    Args:
        frame: The whole of it; where it does not state its size, that counts as 2^64 - 1.
        window_bytes: Limit of the memory that the frame may ask for.

    Raises:
        CoderError: bytes stand behind the frame, or it is cut off.
        zstandard.ZstdError: it is no frame.
    """
    if (end := frame_end(frame)) != len(frame):
        raise CoderError(f"{len(frame)} bytes hold a frame of {end}")
    # A frame of known size has no window beyond it, but the format's own smallest limit is 1 KiB.
    decompressor = zstandard.ZstdDecompressor(max_window_size=max(window_bytes, 1024))
    return ByteSource(zstandard.get_frame_parameters(frame).content_size, decompressor.stream_reader(frame).read)


def frame_end(frame: bytes) -> int:
    """Length of the first zstd frame (RFC 8878, 3.1.1), from its block headers: the library reads over what follows."""
    place, last = zstandard.frame_header_size(frame), False
    while not last and place < len(frame):
        block = int.from_bytes(frame[place : place + 3], "little")
        last, is_run = bool(block & 1), block >> 1 & 3 == 1
        place += 3 + (1 if is_run else block >> 3)
    return place + 4 * zstandard.get_frame_parameters(frame).has_checksum


def brotli_encoded(content: bytes) -> bytes:
    """The size, and one brotli stream."""
    brotli = package("brotli")
    stream: bytes = brotli.compress(content, quality=BROTLI_QUALITY, lgwin=BROTLI_WINDOW_BITS)
    return struct.pack(SIZE_FORMAT, len(content)) + stream


def brotli_source(coded: bytes) -> ByteSource:
    """Read what `brotli_encoded` wrote.

    Raises:
        CoderError: it is too short to state a size.
    """
    if len(coded) < SIZE_BYTES:
        raise CoderError(f"{len(coded)} bytes state no size")
    return ByteSource(struct.unpack_from(SIZE_FORMAT, coded)[0], BrotliSteps(coded[SIZE_BYTES:]).read)


class BrotliSteps:
    """A brotli stream (RFC 7932), decompressed a limited number of bytes at a time."""

    def __init__(self, stream: bytes) -> None:
        brotli = package("brotli")
        self._error: type[Exception] = brotli.error
        self._decompressor: Any = brotli.Decompressor()
        if not hasattr(self._decompressor, "can_accept_more_data"):
            raise CoderError("brotli 1.2 or newer is needed: older ones cannot decompress in steps")
        self._stream, self._ready = stream, b""

    def read(self, size: int) -> bytes:
        """Up to so many bytes, none behind the end of the stream.

        Raises:
            CoderError: it is damaged, or something stands behind its end.
        """
        try:
            while not self._ready and not self._decompressor.is_finished():
                given, self._stream = self._stream, b""
                self._ready = self._decompressor.process(given, output_buffer_limit=READ_BYTES)
                if not (given or self._ready or self._decompressor.is_finished()):
                    raise CoderError("a brotli stream without an end")
        except self._error as error:
            raise CoderError(f"no brotli stream ({error})") from error
        part, self._ready = self._ready[:size], self._ready[size:]
        return part


def package(name: str) -> ModuleType:
    """Import an optional package.

    Raises:
        CoderError: it is not installed.
    """
    if not is_installed(name):
        raise CoderError(f"the package {name} is not installed (pip install {name})")
    return importlib.import_module(name)


def is_installed(name: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(name) is not None
