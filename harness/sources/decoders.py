"""Decoders that packed scripts use, each with a cap on what it may produce.

A few hundred bytes can claim gigabytes; every decoder here stops at the cap instead of following the claim.
"""

from __future__ import annotations

import base64
import binascii
import bz2
import lzma
import zlib
from collections.abc import Callable, Mapping
from typing import Any

UNPACKED_LIMIT_BYTES = 8 * 1024 * 1024
DICTIONARY_LIMIT_BYTES = 64 * 1024 * 1024
MEMORY_LIMIT_BYTES = 256 * 1024 * 1024
_CHUNK_BYTES = 64

# What decoders raise on damaged data, and on options of a kind or size that they do not take.
_FAILURES = (
    lzma.LZMAError,
    zlib.error,
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    TypeError,
    ValueError,
)

Decoder = Callable[[bytes, Mapping[str, Any]], bytes]


class DecodeError(Exception):
    """A packed payload that is damaged, too large, or in an unknown format; the message is one clause."""


def decode(function: str, data: bytes, options: Mapping[str, Any]) -> tuple[str, bytes]:
    """Run one decoder.

    Args:
        function: dotted name as the script calls it (`lzma.decompress`).
        data: its input.
        options: its keyword arguments, as plain values.

    Returns:
        The layer's name (`lzma`) and the output.

    Raises:
        DecodeError: unknown function, damaged input, or output beyond the cap.
    """
    if function == "codecs.decode":
        encoding = options.get("encoding")
        # Of a list not even the text is taken: lists that share their items have no end of it.
        function = _CODECS.get(encoding.lower().replace("-", "_") if isinstance(encoding, str) else "", function)
    if function not in _DECODERS:
        raise DecodeError(f"{function} is not a decoder that is known here")
    name, decoder = _DECODERS[function]
    try:
        output = decoder(data, options)
    except _FAILURES as error:
        raise DecodeError(f"{name} data is damaged ({str(error)[:80]})") from error
    if len(output) > UNPACKED_LIMIT_BYTES:
        raise DecodeError(f"{name} data unpacks to more than {UNPACKED_LIMIT_BYTES:,} bytes")
    return name, output


def _lzma(data: bytes, options: Mapping[str, Any]) -> bytes:
    form = options.get("format", lzma.FORMAT_AUTO)
    filters = options.get("filters")
    if form == lzma.FORMAT_RAW:
        if not isinstance(filters, list) or not all(isinstance(item, dict) for item in filters):
            raise DecodeError("lzma data has filters that are no plain list of them")
        for item in filters:
            if item.get("dict_size", 0) > DICTIONARY_LIMIT_BYTES:
                raise DecodeError("lzma data asks for a dictionary beyond the cap")
        return lzma.LZMADecompressor(form, None, filters).decompress(data, UNPACKED_LIMIT_BYTES + 1)
    return lzma.LZMADecompressor(form, MEMORY_LIMIT_BYTES).decompress(data, UNPACKED_LIMIT_BYTES + 1)


def _zlib(data: bytes, options: Mapping[str, Any]) -> bytes:
    return zlib.decompressobj(options.get("wbits", zlib.MAX_WBITS)).decompress(data, UNPACKED_LIMIT_BYTES + 1)


def _gzip(data: bytes, _options: Mapping[str, Any]) -> bytes:
    return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(data, UNPACKED_LIMIT_BYTES + 1)


def _bz2(data: bytes, _options: Mapping[str, Any]) -> bytes:
    return bz2.BZ2Decompressor().decompress(data, UNPACKED_LIMIT_BYTES + 1)


def _brotli(data: bytes, _options: Mapping[str, Any]) -> bytes:
    import brotli

    decompressor, output = brotli.Decompressor(), bytearray()
    try:
        # Small bites: one bite can only expand so far before the cap is checked.
        for start in range(0, len(data), _CHUNK_BYTES):
            output += decompressor.process(data[start : start + _CHUNK_BYTES])
            if len(output) > UNPACKED_LIMIT_BYTES:
                break
    except brotli.error as error:
        raise DecodeError("brotli data is damaged") from error
    return bytes(output)


def _zstd(data: bytes, _options: Mapping[str, Any]) -> bytes:
    import zstandard

    try:
        reader = zstandard.ZstdDecompressor(max_window_size=DICTIONARY_LIMIT_BYTES).stream_reader(data)
        return reader.read(UNPACKED_LIMIT_BYTES + 1)
    except zstandard.ZstdError as error:
        raise DecodeError(f"zstd data is damaged ({str(error)[:80]})") from error


def _of(function: Callable[[bytes], bytes]) -> Decoder:
    return lambda data, _options: function(data)


_DECODERS: Mapping[str, tuple[str, Decoder]] = {
    "lzma.decompress": ("lzma", _lzma),
    "zlib.decompress": ("zlib", _zlib),
    "gzip.decompress": ("gzip", _gzip),
    "bz2.decompress": ("bz2", _bz2),
    "brotli.decompress": ("brotli", _brotli),
    "zstandard.decompress": ("zstd", _zstd),
    "zstd.decompress": ("zstd", _zstd),
    "compression.zstd.decompress": ("zstd", _zstd),
    "backports.zstd.decompress": ("zstd", _zstd),
    "pyzstd.decompress": ("zstd", _zstd),
    "brotlicffi.decompress": ("brotli", _brotli),
    "base64.b85decode": ("base85", _of(base64.b85decode)),
    "base64.a85decode": ("ascii85", _of(base64.a85decode)),
    "base64.b64decode": ("base64", _of(base64.b64decode)),
    "base64.standard_b64decode": ("base64", _of(base64.b64decode)),
    "base64.urlsafe_b64decode": ("base64", _of(base64.urlsafe_b64decode)),
    "base64.b32decode": ("base32", _of(base64.b32decode)),
    "base64.b16decode": ("base16", _of(base64.b16decode)),
    "binascii.unhexlify": ("hex", _of(binascii.unhexlify)),
    "binascii.a2b_base64": ("base64", _of(binascii.a2b_base64)),
    "base64.decodebytes": ("base64", _of(base64.decodebytes)),
    "binascii.a2b_hex": ("hex", _of(binascii.unhexlify)),
    "bytearray.fromhex": ("hex", lambda data, _options: bytes.fromhex(data.decode("ascii"))),
    "bytes.fromhex": ("hex", lambda data, _options: bytes.fromhex(data.decode("ascii"))),
}
_CODECS: Mapping[str, str] = {
    "hex": "binascii.unhexlify",
    "hex_codec": "binascii.unhexlify",
    "base64": "base64.decodebytes",
    "base64_codec": "base64.decodebytes",
    "zlib": "zlib.decompress",
    "zlib_codec": "zlib.decompress",
    "bz2": "bz2.decompress",
    "bz2_codec": "bz2.decompress",
}
