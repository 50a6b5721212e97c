"""READMEs: their Markdown tables and the plain sentences that state a score. Nothing else is understood."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.model import Printed

CELLS_LIMIT = 60
LINE_LIMIT_CHARACTERS = 4_000
TEXT_LIMIT_CHARACTERS = 1_000_000

_RULE = re.compile(r"\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?")
_FENCE = re.compile(r"\s*(```|~~~)")
_CELL_END = re.compile(r"(?<!\\)\|")
_MARKUP = re.compile(r"\*\*|__(?=\W|$)|(?<!\w)__|`|\*(?=\S)|(?<=\S)\*|</?\w+>|~~")
_SCORE = re.compile(
    r"(?<![\w-])(?:mean[ _])?val[ _]bpb\s*(?:\([^()]{0,40}\))?\s*[:=≈—]*\s*(\d\.\d{2,10})(?![\d.])", re.IGNORECASE
)
_TITLE_SCORE = re.compile(r"(?<![\d.])(\d\.\d{3,10})\s+bpb\b", re.IGNORECASE)
_STD = re.compile(
    r"(?:\bstd(?:ev)?\b[ .]*(?:dev(?:iation)?)?\s*[:=~≈]*\s*|±\s*|\+/-\s*)(\d?\.\d{2,10})(?!\d)", re.IGNORECASE
)
_SEED = re.compile(r"\bseed\s*[=: ]\s*`?(\d{1,10})\b", re.IGNORECASE)
# A sentence with one of these speaks of something else than this submission's score.
_OTHER = re.compile(
    r"baseline|sota\b|leaderboard|previous|prior\b|beats?\b|delta|improve|penalty|gap\b|vs\b|versus|compar|reduc|gain"
    r"|worse|better|sav(?:es|ing)|initial|threshold|extrapolat|merged|#\d",
    re.IGNORECASE,
)
# Two values joined by an arrow are a history, not a statement.
_HISTORY = re.compile(r"\d[^\n]{0,60}(?:→|->)\W{0,10}\d")
LEAD_LINES = 8


@dataclass(frozen=True, slots=True)
class Table:
    """One Markdown table.

    Attributes:
        line: line of its header.
        header: cells of the header, without markup.
        rows: (line, cells) of each row.
    """

    line: int
    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence that states a score under the name `val_bpb`, or a title that states one in BPB.

    Attributes:
        line: 1-based line.
        before: the words of the line before the value.
        val_bpb: the value.
        digits: its decimals.
        std: the standard deviation on the same line, or None.
        seed: the seed that the line names, or None.
        lead: True in the title and in the first lines, where a submission states its result.
        plain: True when nothing before the value speaks of another score.
    """

    line: int
    before: str
    val_bpb: float
    digits: int
    std: Printed | None
    seed: int | None
    lead: bool
    plain: bool


@dataclass(frozen=True, slots=True)
class Readme:
    """The parts of a README that can be read by rule."""

    tables: tuple[Table, ...]
    statements: tuple[Statement, ...]


def read(text: str) -> Readme:
    """Tables and statements of a README; code blocks are passed over."""
    lines = _outside_code(text)
    tables: list[Table] = []
    statements: list[Statement] = []
    index = 0
    while index < len(lines):
        number, line = lines[index]
        if (
            "|" in line
            and index + 1 < len(lines)
            and "|" in lines[index + 1][1]
            and _RULE.fullmatch(lines[index + 1][1].strip())
        ):
            end = index + 2
            while end < len(lines) and "|" in lines[end][1] and lines[end][1].strip():
                end += 1
            tables.append(Table(number, _cells(line), tuple((n, _cells(row)) for n, row in lines[index + 2 : end])))
            index = end
        else:
            statements += _statements(line, number)
            index += 1
    return Readme(tuple(tables), tuple(statements))


def plain(text: str) -> str:
    r"""Text without Markdown's marks and escapes.

    Example:
        >>> plain(r"**val\_bpb**: `1.15`")
        'val_bpb: 1.15'
    """
    return " ".join(_MARKUP.sub("", re.sub(r"\\([_*|~\[\]()])", r"\1", text)).split())


def _outside_code(text: str) -> list[tuple[int, str]]:
    lines: list[tuple[int, str]] = []
    fenced = False
    for number, line in enumerate(text[:TEXT_LIMIT_CHARACTERS].split("\n"), start=1):
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            lines.append((number, line[:LINE_LIMIT_CHARACTERS].rstrip("\r")))
    return lines


def _cells(line: str) -> tuple[str, ...]:
    inner = line.strip().removeprefix("|")
    cells = _CELL_END.split(inner)
    if cells and not cells[-1].strip():
        cells.pop()
    return tuple(plain(cell) for cell in cells[:CELLS_LIMIT])


def _statements(line: str, number: int) -> list[Statement]:
    clean = plain(line)
    match = _SCORE.search(clean) or (_TITLE_SCORE.search(clean) if clean.startswith("#") else None)
    if match is None:
        return []
    before, value = clean[: match.start()], match[1]
    std, seed = _STD.search(clean, match.end()), _SEED.search(clean)
    return [
        Statement(
            line=number,
            before=before.strip(),
            val_bpb=float(value),
            digits=len(value.partition(".")[2]),
            std=Printed(float(std[1]), len(std[1].partition(".")[2])) if std else None,
            seed=int(seed[1]) if seed else None,
            lead=number <= LEAD_LINES,
            plain=_OTHER.search(before) is None and _HISTORY.search(clean) is None,
        )
    ]
