"""Every regular expression of the readers on long hostile lines: its cost grows with the length, not its square."""

from __future__ import annotations

import importlib
import itertools
import pkgutil
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import harness.facts
import harness.sources
from tests.growth import RATIO_LIMIT, growth, seconds

# Pieces of what the readers look for: repeated, they make a pattern start again and again without ending.
PIECES = (
    " ", "\t", "\n", "0", "9,", "1.", "a", "a_", "A", "=", "a=", "a:1 ", "a:1", "-", ": ", "| ", "|-", "|", "**", "`",
    "(", "[", '"', "'", "\\", "/", "1/2 ", "step", "step:", "seed", "seed ", "params:1", "val_bpb", "val_bpb ", "bpb ",
    "loss:", "model ", "a+a model", "total ", "artifact ", "artifact_size", "bytes", "Serialized model ", "code ",
    "python ", "torchrun ", "a.py", "import a, ", "from a ", "e", "[rank0]: ", "1234567890 ", "std ", "± ",
    "gptq:collected a",
    "ttt", "ttt:", "GPTQ:", "no a ", "temp_scaling", "x:precompute ", "Serialize: ", "1→",
    'env("A",', "type a", "\x1b[0;",
    "compile warmup", "def a", "é", "# -*- ", "eval ", "submission", "train.", "log",
)  # fmt: skip
SIZES = (1_000, 4_000)
# Below this a call is not worth a second look: the rounds of a whole run take a minute otherwise.
FLOOR_SECONDS = 0.004
# Patterns that a loop applies, at the beginning of a text only.
ANCHORED = {"_TIMED_PHASES": "match", "_PARTS": "fullmatch", "_PLAIN": "match"}


def patterns() -> Iterator[tuple[str, re.Pattern[str]]]:
    for package in (harness.sources, harness.facts):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            for name, value in vars(importlib.import_module(module.name)).items():
                for index, pattern in enumerate(_in(value)):
                    yield f"{module.name.removeprefix('harness.')}.{name}.{index}", pattern


def _in(value: object) -> list[re.Pattern[str]]:
    if isinstance(value, re.Pattern):
        return [value] if isinstance(value.pattern, str) else []
    if isinstance(value, (tuple, list)):
        return [pattern for each in value for pattern in _in(each)]
    return [pattern for each in value.values() for pattern in _in(each)] if isinstance(value, dict) else []


def ways(name: str) -> list[str]:
    """How the readers apply a pattern, from their own text; everything that goes over the whole text is a search."""
    module, variable, _ = name.rsplit(".", 2)
    if variable in ANCHORED:
        return [ANCHORED[variable]]
    text = Path(str(importlib.import_module(f"harness.{module}").__file__)).read_text(encoding="utf-8")
    used = set(re.findall(rf"\b{variable}\.(\w+)\(", text)) or {"search"}
    return sorted(way if way in {"match", "fullmatch"} else "search" for way in used)


PATTERNS = dict(patterns())


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_is_linear(name: str) -> None:
    pattern = PATTERNS[name]
    for way, piece, end in itertools.product(ways(name), PIECES, ("", "!")):
        small, large = ((piece * size)[:size] + end for size in SIZES)
        slow = partial(getattr(pattern, way), large)
        if seconds(slow) > FLOOR_SECONDS:
            ratio = growth(partial(getattr(pattern, way), small), slow, floor=FLOOR_SECONDS / 16)
            assert ratio < RATIO_LIMIT, (way, piece)
