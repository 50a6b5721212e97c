"""The size of a script's code when minified, compressed and wrapped, as submissions count it.

The convention: `pyminify`, then lzma or brotli, then base85 inside a two-line wrapper that is counted and not
shipped. The script mostly says itself how it counts; where it does not, the published options are taken.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.sources.cache import Cache
from harness.sources.fstrings import FSTRINGS_SINCE, has_fstring, parse_newer

SOURCE_LIMIT_BYTES = 1024 * 1024
TIME_LIMIT_SECONDS = 60
# The options that the published scripts give to the minifier.
PUBLISHED_OPTIONS = {"rename_locals": False, "hoist_literals": False, "remove_literal_statements": True}
_OPTIONS = {
    "--no-rename-locals": ("rename_locals", False),
    "--rename-globals": ("rename_globals", True),
    "--no-hoist-literals": ("hoist_literals", False),
    "--no-combine-imports": ("combine_imports", False),
    "--remove-literal-statements": ("remove_literal_statements", True),
    "--remove-asserts": ("remove_asserts", True),
    "--remove-debug": ("remove_debug", True),
    "--prefer-single-line": ("prefer_single_line", True),
    "--no-remove-annotations": ("remove_annotations", False),
    "--no-preserve-shebang": ("preserve_shebang", False),
}
_MINIFIER = re.compile(r"[\"']pyminify[\"']|\bpyminify_exe\b|python_minifier\.minify\(|\bminify\(")
_FLAG = re.compile(r"[\"'](--[a-z-]{3,40})[\"']")
_KEYWORD = re.compile(r"\b([a-z_]{3,40})\s*=\s*(True|False)\b")
_COMPRESSOR = re.compile(r"\b(lzma|brotli)\.compress\(")
# The counting function of a script is about this long.
_WINDOW_CHARACTERS = 1_500


@dataclass(frozen=True, slots=True)
class Convention:
    """How a script counts its own code.

    Attributes:
        options: arguments of the minifier.
        compressor: `lzma` or `brotli`.
        line: where the script minifies itself; None when it does not, and the published way is taken.
    """

    options: Mapping[str, bool]
    compressor: str
    line: int | None


@dataclass(frozen=True, slots=True)
class Recounted:
    """Bytes of code plus wrapper by way of packing (`minified + lzma`)."""

    convention: Convention
    sizes: Mapping[str, int]


def convention_of(text: str) -> Convention:
    """The convention that a script states in its code.

    Example:
        >>> convention_of('run(["pyminify", "--no-rename-locals", "-"]); brotli.compress(x)').compressor
        'brotli'
    """
    start = _MINIFIER.search(text)
    if start is None:
        return Convention(PUBLISHED_OPTIONS, "lzma", None)
    window = text[start.start() : start.start() + _WINDOW_CHARACTERS]
    options: dict[str, bool] = dict(_OPTIONS[flag] for flag in _FLAG.findall(window) if flag in _OPTIONS)
    known = {name for name, _ in _OPTIONS.values()}
    options |= {name: value == "True" for name, value in _KEYWORD.findall(window) if name in known}
    compressor = _COMPRESSOR.search(window)
    line = text.count("\n", 0, start.start()) + 1
    return Convention(options or PUBLISHED_OPTIONS, compressor[1] if compressor else "lzma", line)


def recount(text: str, cache: Cache) -> Recounted | str:
    """The sizes of a script's packed code, or the reason why they cannot be told.

    Args:
        text: the script as shipped.
        cache: remembers the sizes, which take a second or two.
    """
    source = text.encode("utf-8", "surrogatepass")
    if len(source) > SOURCE_LIMIT_BYTES:
        return f"the script is larger than the {SOURCE_LIMIT_BYTES:,} bytes that are minified"
    convention = convention_of(text)
    options = json.dumps(dict(convention.options), sort_keys=True).encode()
    key = b"\n".join((minifier_version().encode(), sys.version.encode(), options, source))
    sizes = cache.get(key)
    if sizes is None:
        found = _in_child(options + b"\n" + source)
        older = _for_this_python(text) if isinstance(found, str) else None
        if older is not None:
            found = _in_child(options + b"\n" + older)
            if not isinstance(found, str):
                # Only what minifying makes of the two texts is the same.
                found = {way: size for way, size in found.items() if way.startswith("minified")}
        if isinstance(found, str):
            return found
        sizes = found
        cache.put(key, sizes)
    return Recounted(convention, sizes)


def _for_this_python(text: str) -> bytes | None:
    """A script with f-strings of newer Pythons in the syntax of this one; None where that is not what is wrong."""
    if sys.version_info >= FSTRINGS_SINCE or not has_fstring(text):
        return None
    try:
        return ast.unparse(parse_newer(text, ast.parse)).encode("utf-8", "surrogatepass")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def minifier_version() -> str:
    """Version of the minifier; other versions give sizes that differ by some bytes."""
    return importlib.metadata.version("python-minifier")


def _in_child(stdin: bytes) -> dict[str, int] | str:
    """Run the child on options and source; sizes, or why there are none."""
    command = [sys.executable, "-I", str(Path(__file__).with_name("minify_child.py"))]
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=TIME_LIMIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"minifying it failed ({type(error).__name__})"
    try:
        found = json.loads(done.stdout)
    except ValueError:
        return f"minifying it failed (the minifier's process ended with status {done.returncode})"
    if "error" in found:
        return (
            f"the minifier refuses it ({found['error']}, on Python {sys.version_info.major}.{sys.version_info.minor})"
        )
    return {str(name): int(size) for name, size in found.items()}
