"""Environment variables that a README or a shell script sets for a run, each at its line.

Three ways of saying it are read: a command (`NAME=VALUE ... torchrun ...`, `export NAME=VALUE`, over as many lines as
it takes), a list or table of settings and nothing else, and a mention in a sentence. Only the first two say what a
run had; a mention may speak of any run, and so may whatever stands below a heading about ablations.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

LINE_LIMIT_CHARACTERS = 4_000
TEXT_LIMIT_CHARACTERS = 1_000_000
ASSIGNMENTS_LIMIT = 2_000

# A comma belongs to a list of values; the one behind a value does not, nor one before another assignment.
_ASSIGNMENT = re.compile(
    r"""(?<![\w$./{-])([A-Z][A-Z0-9_]{1,60})=(?:"([^"]{0,300})"|'([^']{0,300})'"""
    r"""|((?:[^\s"'`\\|;&,)]|,(?=[\w.+-])(?![A-Z][A-Z0-9_]{1,60}=)){0,300}))"""
)
_FALLBACK = re.compile(r"\$\{\w+:?[-=]([^}]*)\}")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+")
_HEADING = re.compile(r"#{1,6}\s+(.*)")
_OTHER_RUNS = re.compile(r"\bablat", re.IGNORECASE)
_FENCE = re.compile(r"\s*(?:>\s*)?(```|~~~)")
# On a line without leading space: blanks that two parts of a pattern may share are tried in every division.
_SETTINGS_ONLY = re.compile(
    r"(?:(?:[-*+]|\d+[.)])\s*)?(?:`\s*)?(?:export\s+)?[A-Z][A-Z0-9_]+=[^`\s]*`?\s*(?:$|[-—–(#:])"  # noqa: RUF001 - people type all three dashes
)
_COMMAND = re.compile(r"\b(?:torchrun|python3?|bash|sh|accelerate|export|env|modal|uv)\b")
# A shard of the validation split under a name of the training split.
_RENAMING = re.compile(
    r"(?:^|[\s;&$`])(?:ln|cp|mv|rsync)\s(?:-\S+\s+)*[\"']?\S*fineweb_val_?\S*\s+[\"']?\S*fineweb_train_?\S*"
    r"\s*(?:$|[;&|)#`])"
)
_ROW = re.compile(r"\s*\|\s*`?([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)`?\s*\|\s*`?\*{0,2}([^|`*]{1,80}?)\*{0,2}`?\s*\|")
# Columns of a table of settings: those of another run, and those of this one.
_ANOTHERS = re.compile(
    r"#\d|\b(?:default|base|baseline|prior|previous|before|old|parent|original|stock|upstream|from)\b", re.IGNORECASE
)
_OURS = re.compile(r"\b(?:this|ours?|new|mine|submitted|here|now|after)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Assignment:
    """One environment variable with a value.

    Attributes:
        name: as written.
        value: without quotes; of `${NAME:-value}` the value.
        line: 1-based line.
        commanded: True when it is part of a command, or of a list or table of settings; False for a mention.
        listed: True when it stands alone in a line of such a list, which may name what can be set.
    """

    name: str
    value: str
    line: int
    commanded: bool
    listed: bool = False


def read(text: str, *, script: bool = False) -> tuple[Assignment, ...]:
    """The assignments of a README, or of a shell script, where every one is a command."""
    found: list[Assignment] = []
    fenced = continued = aside = False
    heads: list[str] = []
    for number, line in enumerate(text[:TEXT_LIMIT_CHARACTERS].split("\n"), start=1):
        content = line[:LINE_LIMIT_CHARACTERS].rstrip()
        if not script and _FENCE.match(content):
            fenced = not fenced
            continue
        if not script and not fenced and (heading := _HEADING.match(content)):
            aside = _OTHER_RUNS.search(heading[1]) is not None
        heads = (heads or _cells(content)) if content.lstrip().startswith("|") else []
        commanded = (script or fenced or continued or _is_command(content)) and not aside
        found += (replace(each, commanded=each.commanded and not aside) for each in _of_row(content, number, heads))
        code = content.partition(" #")[0] if commanded else content
        listed = not (script or fenced or continued) and _SETTINGS_ONLY.match(content.lstrip()) is not None
        commanded_here = commanded and not content.lstrip().startswith("#")
        found += (replace(each, listed=listed) for each in _assignments(code, number, commanded=commanded_here))
        continued = content.endswith("\\") and commanded
        if len(found) > ASSIGNMENTS_LIMIT:
            break
    return tuple(found[:ASSIGNMENTS_LIMIT])


def _is_command(line: str) -> bool:
    """Whether a line outside a code block still is a command, or settings and nothing else."""
    if _SETTINGS_ONLY.match(line.lstrip()):
        return True
    start = _ASSIGNMENT.match(line.lstrip(" \t$>`"))
    return start is not None and (line.endswith("\\") or _COMMAND.search(line) is not None)


def _cells(line: str) -> list[str]:
    return [cell.strip().strip("`*").strip() for cell in line.strip().strip("|").split("|")]


def _of_row(line: str, number: int, heads: Sequence[str]) -> Iterator[Assignment]:
    """The setting of a table's row: the column of this run, where the first is headed as that of another one."""
    row = _ROW.match(line)
    if row is None:
        return
    value, commanded = row[2], True
    if len(heads) > 1 and _ANOTHERS.search(heads[1]) and not _OURS.search(heads[1]):
        cells = dict(zip(heads, _cells(line), strict=False))
        ours = [cell for head, cell in cells.items() if _OURS.search(head)]
        value, commanded = (ours[0], True) if len(ours) == 1 else (value, False)
    value = value.partition(" (")[0].strip()
    yield Assignment(row[1], value.replace(",", "") if _THOUSANDS.fullmatch(value) else value, number, commanded)


def _assignments(line: str, number: int, *, commanded: bool) -> Iterator[Assignment]:
    if "=" not in line:
        return
    for match in _ASSIGNMENT.finditer(line):
        value = next((each for each in match.groups()[1:] if each is not None), "")
        fallback = _FALLBACK.fullmatch(value)
        value = fallback[1] if fallback is not None else value
        if not commanded and _THOUSANDS.fullmatch(value.rstrip(".:*")):
            value = value.replace(",", "")
        if "$" not in value:
            yield Assignment(match[1], value if commanded else value.rstrip(".:*"), number, commanded)


def renamings(text: str) -> Iterator[tuple[int, str]]:
    """Lines that link or copy a validation shard to the name of a training shard, with their 1-based numbers."""
    for number, line in enumerate(text[:TEXT_LIMIT_CHARACTERS].split("\n"), start=1):
        content = line[:LINE_LIMIT_CHARACTERS].strip()
        if "fineweb_val" in content and _RENAMING.search(content):
            yield number, content
