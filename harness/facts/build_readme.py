"""README -> claims: its headline and its table of seeds, where it states them plainly."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from harness.facts.claims import ReadmeClaims, SeedClaim
from harness.model import Fact, Located, Location, Missing, Printed
from harness.sources.readme import Readme, Statement, Table
from harness.sources.scorelabels import Kind, kind_of

NumberT = TypeVar("NumberT", int, float)

# Bits per byte of a language model that learned anything; other numbers in a column of scores are something else.
PLAUSIBLE_BPB = (0.2, 10.0)

_NUMBER = re.compile(r"(?<![\d.,])(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?")
_NOT_A_SCORE = re.compile(
    r"loss|nats|time|gain|gap|size|artifact|bytes?\b|code|Δ|delta|total|\beval\b(?! bpb)|\bms\b|std|tok|speed|improve"
    r"|vs\b|fits|gptq|epochs?\b|\blr\b|rate\b|rank\b|chunk|layers?\b",
    re.IGNORECASE,
)
_MEAN_ROW = re.compile(r"(?:mean|average|avg\.?)(?: ?± ?std)?", re.IGNORECASE)
_STD_ROW = re.compile(r"std(?:ev|\.)?(?: dev\w*)?", re.IGNORECASE)
_DURATION = re.compile(r"(\d[\d,]{0,20}(?:\.\d+)?)\s*(?:ms|s|sec|seconds)?")
_NAMED_SEED = re.compile(r"[*`]*seed[ =#:_]*(\d{1,18})[*`]*", re.IGNORECASE)
_NAMES_BPB = re.compile(r"\bbp[bp]\b|_bpb|bits", re.IGNORECASE)
_APPROXIMATE = re.compile(r"[~≈<>≤≥]")


def build_readme(readme: Readme | None, path: str, reason: str) -> ReadmeClaims:
    """The claims of a parsed README.

    Args:
        readme: None when the folder has none.
        path: its relative path.
        reason: why there is none.
    """
    if readme is None:
        missing = Missing(reason)
        return ReadmeClaims(missing, missing, ())
    headline = _headline(readme.statements, path)
    if isinstance(headline, Missing):
        headline = _summary(readme.tables, _MEAN_ROW, path) or headline
    readers = (_seed_table, _rows_named_after_seeds, _columns_named_after_seeds)
    tables = [found for reader in readers for table in readme.tables if (found := reader(table, path)) is not None]
    rows = _merged(tables) or tuple(_stated_seed(s, path) for s in readme.statements if s.seed is not None and s.plain)
    return ReadmeClaims(val_bpb=headline, val_bpb_std=_std(readme, headline, path), seeds=rows)


def _headline(statements: Sequence[Statement], path: str) -> Fact[float]:
    """The score stated in title or lead; else the one value on which the later statements agree."""
    plain = [s for s in statements if s.plain and _plausible(s.val_bpb) and kind_of(s.before) != Kind.DIAGNOSTIC]
    lead = [s for s in plain if s.lead]
    if lead:
        return _most_exact([s for s in lead if _same(s, lead[0])], path)
    unseeded = [s for s in plain if s.seed is None]
    if not unseeded:
        return Missing("the README states no exact score under the name val_bpb outside its tables", Location(path))
    best = max(kind_of(s.before) for s in unseeded)
    last = [s for s in unseeded if kind_of(s.before) == best]
    if all(_same(s, last[0]) for s in last):
        return _most_exact(last, path)
    values = ", ".join(f"{s.val_bpb} at line {s.line}" for s in last[:4])
    return Missing(f"the README states several scores ({values})", Location(path, last[0].line))


def _plausible(value: float) -> bool:
    return PLAUSIBLE_BPB[0] < value < PLAUSIBLE_BPB[1]


def _same(first: Statement, second: Statement) -> bool:
    slack = 10.0 ** -min(first.digits, second.digits)
    return abs(first.val_bpb - second.val_bpb) <= slack * (1 + 1e-9)


def _most_exact(statements: Sequence[Statement], path: str) -> Located[float]:
    best = max(statements, key=lambda statement: statement.digits)
    return Located(Printed(best.val_bpb, best.digits), Location(path, best.line))


def _std(readme: Readme, headline: Fact[float], path: str) -> Fact[float]:
    """The deviation beside the headline, else in the row `Std` of the table of seeds."""
    if isinstance(headline, Located):
        for statement in readme.statements:
            beside = statement.plain and kind_of(statement.before) != Kind.DIAGNOSTIC
            if (
                statement.std is not None
                and beside
                and abs(statement.val_bpb - headline.value) <= 10.0**-statement.digits
            ):
                return Located(statement.std, Location(path, statement.line))
    in_table = _summary(readme.tables, _STD_ROW, path)
    return in_table or Missing("the README states no standard deviation beside its score", Location(path))


def _summary(tables: Sequence[Table], name: re.Pattern[str], path: str) -> Located[float] | None:
    """The score in the row `Mean` or `Std` of the first table of seeds that has one."""
    for table in tables:
        columns = _columns(table)
        if columns is None:
            continue
        for line, cells in table.rows:
            number = _number(_cell(cells, columns.score)) if name.fullmatch(_cell(cells, columns.seed)) else None
            if number is not None:
                return Located(number, Location(path, line))
    return None


@dataclass(frozen=True, slots=True)
class _Columns:
    """Indices of the columns of a table of seeds; -1 where there is none."""

    seed: int
    score: int
    later: tuple[int, ...]
    loss: int
    size: int
    steps: int
    train: int
    evaluation: int


def _columns(table: Table) -> _Columns | None:
    """The columns of a table that has one row for each seed; None for any other table."""
    header = [cell.lower() for cell in table.header]
    seed = next((index for index, cell in enumerate(header) if cell == "seed"), -1)
    named = [index for index, cell in enumerate(header) if index != seed and _is_score(cell)]
    scores = [index for index in named if _holds_scores(table, index)] or named
    if seed < 0 or not scores:
        return None
    best = max(kind_of(header[index]) for index in scores)
    # The last of the most final kind: tables go from the first evaluation to the last.
    chosen = [index for index in scores if kind_of(header[index]) == best][-1]
    return _Columns(
        seed=seed,
        score=chosen,
        later=tuple(index for index in scores if index > chosen),
        loss=_column(header, r"(?!.*(?:pre|train|delta|gain)).*(?:loss|nats).*"),
        size=_column(header, r"(?:artifact|submission|total)(?!.*time).*|size.*"),
        steps=_column(header, r"(?:train(?:ing)? )?steps?"),
        train=_column(header, r"train(?:ing)?[ _](?:timer?|ms|s|seconds|wallclock)\b.*"),
        evaluation=_column(header, r"(?:total |ttt )?eval[ _](?:timer?|ms|s|seconds)\b.*"),
    )


def _is_score(cell: str) -> bool:
    if _NOT_A_SCORE.search(cell) or kind_of(cell) == Kind.DIAGNOSTIC:
        return False
    return _NAMES_BPB.search(cell) is not None or kind_of(cell) != Kind.UNNAMED


def _holds_scores(table: Table, index: int) -> bool:
    """Whether no number of a column is a count: `TTT epochs` names no score, whatever else its name says."""
    texts = [match[0] for _, cells in table.rows if (match := _NUMBER.match(_cell(cells, index).lstrip("~≈")))]
    return not texts or any("." in text for text in texts)


def _column(header: Sequence[str], pattern: str) -> int:
    return next((index for index, cell in enumerate(header) if re.fullmatch(pattern, cell)), -1)


def _seed_table(table: Table, path: str) -> tuple[SeedClaim, ...] | None:
    columns = _columns(table)
    if columns is None:
        return None
    rows = []
    for line, cells in table.rows:
        seed = re.fullmatch(r"(?:seed[ =]*)?(\d{1,18})", _cell(cells, columns.seed), re.IGNORECASE)
        if seed is not None:
            rows.append(_row(table, columns, (int(seed[1]), line, cells), path))
    return tuple(rows) or None


def _rows_named_after_seeds(table: Table, path: str) -> tuple[SeedClaim, ...] | None:
    """Rows `| Seed 42 | 1.1818 |` of a table with two columns; None for any other table."""
    if len(table.header) != 2 or _NOT_A_SCORE.search(table.header[1]):
        return None
    pairs = [(_NAMED_SEED.fullmatch(_cell(cells, 0)), _cell(cells, 1), line) for line, cells in table.rows]
    return _scores_only([(int(seed[1]), text, line) for seed, text, line in pairs if seed is not None], path)


def _columns_named_after_seeds(table: Table, path: str) -> tuple[SeedClaim, ...] | None:
    """The row of the most final score of a table with a column for each seed; None for any other table."""
    columns = [(index, _NAMED_SEED.fullmatch(cell.strip("* "))) for index, cell in enumerate(table.header)]
    seeds = {index: int(match[1]) for index, match in columns if match is not None}
    rows = [(kind_of(_cell(cells, 0)), line, cells) for line, cells in table.rows if _is_score(_cell(cells, 0))]
    if len(seeds) < 2 or 0 in seeds or not rows:
        return None
    best = max(kind for kind, _, _ in rows)
    _, line, cells = [row for row in rows if row[0] == best][-1]
    return _scores_only([(seed, _cell(cells, index), line) for index, seed in seeds.items()], path)


def _scores_only(found: Sequence[tuple[int, str, int]], path: str) -> tuple[SeedClaim, ...] | None:
    """Claims of (seed, cell, line), where every cell is a plausible score with decimals."""
    claims: list[SeedClaim] = []
    for seed, text, line in found:
        number, place = _number(text), Location(path, line)
        if number is None or not _plausible(number) or "." not in text:
            return None
        claims.append(_score_only(Located(seed, place), Located(number, place)))
    return tuple(claims) or None


def _row(table: Table, columns: _Columns, row: tuple[int, int, tuple[str, ...]], path: str) -> SeedClaim:
    seed, line, cells = row
    place = Location(path, line)

    def fact(index: int, what: str) -> Fact[float]:
        if index < 0:
            return Missing(f"the README's table has no column for {what}", place)
        number = _number(_cell(cells, index))
        return Missing(f"the README's table gives no exact {what}", place) if number is None else Located(number, place)

    score = fact(columns.score, "val_bpb")
    if isinstance(score, Located) and not _plausible(score.value):
        score = Missing(f"the README's table gives {score.value} as val_bpb", place)
    # A better score further to the right may be the final one, whatever its column is called.
    further = [number for index in columns.later if (number := _number(_cell(cells, index))) is not None]
    if isinstance(score, Located) and any(_plausible(number) and number < score.value for number in further):
        score = Missing("the README's table gives several scores, and which is final cannot be told", place)
    return SeedClaim(
        seed=Located(seed, place),
        val_bpb=score,
        val_loss=fact(columns.loss, "val_loss"),
        artifact_bytes=_whole(_cell(cells, columns.size), "artifact bytes", place),
        steps=_whole(_cell(cells, columns.steps), "steps", place),
        train_seconds=_seconds(_cell(cells, columns.train), _cell(table.header, columns.train), place),
        eval_seconds=_seconds(_cell(cells, columns.evaluation), _cell(table.header, columns.evaluation), place),
    )


def _cell(cells: Sequence[str], index: int) -> str:
    return cells[index].strip() if 0 <= index < len(cells) else ""


def _number(cell: str) -> float | None:
    """The number of a cell; None when it is absent, only approximate, or longer than a number is."""
    match = _NUMBER.search(cell)
    if match is None or _APPROXIMATE.search(cell):
        return None
    decimals = match[2] or ""
    number = Printed(float(match[1].replace(",", "") + decimals), max(len(decimals) - 1, 0))
    return number if math.isfinite(number) else None


def _whole(cell: str, what: str, place: Location) -> Fact[int]:
    """A whole number; sizes rounded to MB and approximate values are Missing."""
    match = re.fullmatch(r"(\d{1,3}(?:,\d{3})+|\d{1,15})\s*(?:bytes|B)?", cell)
    if match is None:
        return Missing(f"the README's table gives no exact {what}", place)
    return Located(int(match[1].replace(",", "")), place)


def _seconds(cell: str, title: str, place: Location) -> Fact[float]:
    """A duration in seconds; approximate ones, and minutes or hours, are Missing."""
    match = _DURATION.fullmatch(cell)
    if match is None:
        return Missing("the README's table gives no exact time in seconds", place)
    seconds = float(match[1].replace(",", ""))
    in_milliseconds = cell.endswith("ms") or re.search(r"\bms\b|_ms", title, re.IGNORECASE) is not None
    return Located(seconds / 1_000 if in_milliseconds else seconds, place)


def _merged(tables: Sequence[tuple[SeedClaim, ...]]) -> tuple[SeedClaim, ...]:
    """The first table, its gaps filled from later tables that give the same seeds the same scores."""
    if not tables:
        return ()
    return tuple(_filled(row, [other for table in tables[1:] for other in table]) for row in tables[0])


def _filled(row: SeedClaim, others: Sequence[SeedClaim]) -> SeedClaim:
    for other in others:
        if _value(other.seed) == _value(row.seed) and _close(other.val_bpb, row.val_bpb):
            row = replace(
                row,
                val_loss=_either(row.val_loss, other.val_loss),
                artifact_bytes=_either(row.artifact_bytes, other.artifact_bytes),
                steps=_either(row.steps, other.steps),
                train_seconds=_either(row.train_seconds, other.train_seconds),
                eval_seconds=_either(row.eval_seconds, other.eval_seconds),
            )
    return row


def _value(fact: Fact[int]) -> int | None:
    return fact.value if isinstance(fact, Located) else None


def _close(first: Fact[float], second: Fact[float]) -> bool:
    """Whether two prints are one score, as far as the coarser of them tells."""
    if isinstance(first, Missing) or isinstance(second, Missing):
        return False
    digits = min(len(repr(fact.value).partition(".")[2]) for fact in (first, second))
    return round(abs(first.value - second.value), 10) <= 10.0**-digits


def _either(first: Fact[NumberT], second: Fact[NumberT]) -> Fact[NumberT]:
    return first if isinstance(first, Located) else second


def _stated_seed(statement: Statement, path: str) -> SeedClaim:
    place = Location(path, statement.line)
    return _score_only(
        Located(statement.seed or 0, place), Located(Printed(statement.val_bpb, statement.digits), place)
    )


def _score_only(seed: Located[int], score: Located[float]) -> SeedClaim:
    missing = Missing("the README gives only the score there", score.location)
    return SeedClaim(
        seed=seed,
        val_bpb=score,
        val_loss=missing,
        artifact_bytes=missing,
        steps=missing,
        train_seconds=missing,
        eval_seconds=missing,
    )
