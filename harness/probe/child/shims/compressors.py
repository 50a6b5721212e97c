"""Compressors at low effort: the artifact's bytes come back all the same, only its size is another."""

from __future__ import annotations

import functools
import lzma
from typing import Any

from ..events import replaced
from ..patch import present, put

BROTLI_QUALITY = 4
ZSTD_LEVEL = 3
LZMA_PRESET = 1


def install() -> None:
    """Lower the effort of brotli, zstandard and lzma."""
    put(lzma, compress=_lower(lzma.compress, "lzma", preset=LZMA_PRESET))
    if present("brotli"):
        import brotli

        put(brotli, compress=_lower(brotli.compress, "brotli", quality=BROTLI_QUALITY))
    if present("zstandard"):
        _zstandard()


def _lower(function: Any, name: str, **effort: int) -> Any:
    """Cap one keyword of a function; where it is not given, or filters say more, the call stays as it is."""
    (keyword, most), *_ = effort.items()

    @functools.wraps(function)
    def compress(data: Any, *arguments: Any, **keywords: Any) -> Any:
        if keywords.get("filters") is None and not arguments:
            replaced(f"{name}.compress", f"{keyword} {most} at most: the size is not the artifact's", exact=False)
            wanted = keywords.get(keyword)
            keywords[keyword] = most if wanted is None else min(int(wanted) & 0xFF, most)
        return function(data, *arguments, **keywords)

    return compress


def _zstandard() -> None:
    import zstandard

    real = zstandard.ZstdCompressor

    def compressor(level: int = ZSTD_LEVEL, **keywords: Any) -> Any:
        replaced("zstandard", f"level {ZSTD_LEVEL} at most: the size is not the artifact's", exact=False)
        return real(min(level, ZSTD_LEVEL), **keywords)

    put(zstandard, ZstdCompressor=compressor)
    module: Any = zstandard
    put(zstandard, compress=lambda data, level=ZSTD_LEVEL: module.ZstdCompressor(level).compress(data))
