"""The compressed size of a script, worked out in a process of its own: source in, one line of JSON out.

Started by path and isolated, so that a script that exhausts the parser's stack, memory or time ends this process
and nothing else. The minifier reads the source with `ast` and never runs it. Needs nothing of the harness.
"""

from __future__ import annotations

import base64
import json
import lzma
import resource
import sys
from typing import Any

MEMORY_LIMIT_BYTES = 2 * 1024**3
# What submissions put around the compressed code; without the payload.
WRAPPERS = {
    "lzma": b'import lzma as L,base64 as B\nexec(L.decompress(B.b85decode("")))\n',
    "brotli": b'import brotli as B,base64 as A\nexec(B.decompress(A.b85decode("")))\n',
    "raw lzma": (
        b"import lzma as L,base64 as B\n"
        b'exec(L.decompress(B.b85decode(""),format=L.FORMAT_RAW,filters=[{"id":L.FILTER_LZMA2}]))\n'
    ),
}


def main() -> None:
    """Read options (one line of JSON) and source from standard input; print sizes in bytes, or the error."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    options = json.loads(sys.stdin.buffer.readline())
    source = sys.stdin.buffer.read()
    try:
        found = sizes(source, options)
    except (SyntaxError, ValueError, RecursionError, MemoryError, NotImplementedError) as error:
        found = {"error": f"{type(error).__name__}: {str(error)[:120]}"}
    sys.stdout.write(json.dumps(found) + "\n")


def sizes(source: bytes, options: dict[str, Any]) -> dict[str, int | str]:
    """Bytes of the wrapped code by compressor, minified and as it is."""
    from python_minifier import minify

    minified = minify(source, **options).encode("utf-8", "surrogatepass")
    found: dict[str, int | str] = {"minified": len(minified)}
    for name, data in (("minified", minified), ("unminified", source)):
        for compressor, payload in compressed(data).items():
            found[f"{name} + {compressor}"] = len(base64.b85encode(payload)) + len(WRAPPERS[compressor])
    return found


def compressed(data: bytes) -> dict[str, bytes]:
    """The data under each compressor in use."""
    import brotli

    strongest = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    return {
        "lzma": lzma.compress(data),
        "brotli": brotli.compress(data, quality=11),
        "raw lzma": lzma.compress(data, format=lzma.FORMAT_RAW, filters=strongest),
    }


if __name__ == "__main__":
    main()
