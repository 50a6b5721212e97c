"""The per-seed claims of submission.json: tables of seeds, and columns of values beside a list of seeds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from harness.facts.claims import SeedClaim
from harness.facts.claimvalues import BPB, BYTES, EVAL_TIME, LOSS, STEPS, TRAIN_TIME, Unusable, as_fact, integer, number
from harness.model import Fact, Located, Location, Missing, Value
from harness.sources.manifest import Manifest, pointer

NumberT = TypeVar("NumberT", int, float)

_SEED_NAME = re.compile(r"(?:seed[ _=-]?)?(\d{1,18})", re.IGNORECASE | re.ASCII)
_IN_MILLISECONDS = re.compile(r"_ms(?:_by_seed|_per_seed|_seeds)?(?:/[^/]*)?$")
SEED_TABLES = ("seed_results", "seeds", "seed_scores", "per_seed", "per_seed_results", "results")


def build_seeds(manifest: Manifest) -> tuple[SeedClaim, ...]:
    """Per-seed claims: the first table of seeds that holds values, else the seeds that are merely listed."""
    document = manifest.document or {}
    return tuple(
        _filled(manifest, _row(manifest, seed, fields, place), index)
        for index, (seed, fields, place) in enumerate(_stated_rows(manifest, document))
    )


Row = tuple[int, Mapping[str, Value], str]


def _stated_rows(manifest: Manifest, document: Mapping[str, Value]) -> list[Row]:
    """(seed, fields, pointer) of each seed, from the fullest statement of them."""
    for name in SEED_TABLES:
        rows = _rows(document.get(name), pointer(name))
        if rows:
            return rows
    tables: dict[str, Value] = {
        name: fields for name, fields in document.items() if name.startswith("seed") and isinstance(fields, dict)
    }
    seeds = document.get("seeds")
    if rows := _rows(tables, ""):
        return rows
    if isinstance(seeds, list):
        return [
            (number, {}, pointer("seeds", i)) for i, seed in enumerate(seeds) if (number := _seed(seed)) is not None
        ]
    for name in _column_names(BPB):
        if rows := _rows(document.get(name), pointer(name)):
            return rows
    single = manifest.first(("seed",))
    number = _seed(single.value) if isinstance(single, Located) else None
    return [] if number is None else [(number, {}, pointer("seed"))]


def _seed(value: Value) -> int | None:
    """The seed that a value or a key names: `42`, `"42"`, `"seed_42"`."""
    if isinstance(value, str):
        match = _SEED_NAME.fullmatch(value)
        return int(match[1]) if match else None
    plain = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
    return value if plain and isinstance(value, int) else None


def _rows(table: Value, place: str) -> list[Row]:
    """(seed, fields, pointer) of each row; tables are objects by seed, or lists of objects with a `seed`."""
    if isinstance(table, dict):
        return [
            (seed, fields if isinstance(fields, dict) else {"val_bpb": fields}, place + pointer(name))
            for name, fields in table.items()
            if (seed := _seed(name)) is not None
            and (isinstance(fields, dict) or not isinstance(number(fields), Unusable))
        ]
    if isinstance(table, list):
        return [
            (seed, row, place + pointer(index))
            for index, row in enumerate(table)
            if isinstance(row, dict) and (seed := _seed(row.get("seed"))) is not None
        ]
    return []


def _row(manifest: Manifest, seed: int, fields: Mapping[str, Value], place: str) -> SeedClaim:
    def pick(names: Sequence[str]) -> Located[Value] | Missing:
        for name in names:
            if fields.get(name) is not None and not isinstance(fields[name], (list, dict)):
                inner = place + pointer(name)
                return Located(fields[name], manifest.at(inner if inner in manifest.lines else place))
        return Missing(f"{manifest.path} gives no {names[0]} for this seed", manifest.at(place))

    return SeedClaim(
        seed=Located(seed, manifest.at(place)),
        val_bpb=as_fact(pick(BPB), number),
        val_loss=as_fact(pick((*LOSS, "loss")), number),
        artifact_bytes=as_fact(pick(BYTES), integer),
        steps=as_fact(pick(STEPS), integer),
        train_seconds=_seconds(pick(TRAIN_TIME)),
        eval_seconds=_seconds(pick(EVAL_TIME)),
    )


def _seconds(found: Located[Value] | Missing) -> Fact[float]:
    fact = as_fact(found, number)
    if isinstance(fact, Located) and _IN_MILLISECONDS.search(fact.location.pointer or ""):
        return Located(fact.value / 1_000, fact.location)
    return fact


def _filled(manifest: Manifest, row: SeedClaim, index: int) -> SeedClaim:
    """A seed's row with its gaps filled from columns beside the table: objects by seed, or lists in its order."""

    def column(
        names: Sequence[str], own: Fact[NumberT], convert: Callable[[Value], NumberT | Unusable]
    ) -> Fact[NumberT]:
        if isinstance(own, Located):
            return own
        found = as_fact(_in_column(manifest, names, row.seed, index), convert)
        return found if isinstance(found, Located) else own

    def seconds(names: Sequence[str], own: Fact[float]) -> Fact[float]:
        if isinstance(own, Located):
            return own
        found = _seconds(_in_column(manifest, names, row.seed, index))
        return found if isinstance(found, Located) else own

    return SeedClaim(
        seed=row.seed,
        val_bpb=column(("seed_scores", "seed_bpbs", *BPB), row.val_bpb, number),
        val_loss=column(LOSS, row.val_loss, number),
        artifact_bytes=column(BYTES, row.artifact_bytes, integer),
        steps=column(STEPS, row.steps, integer),
        train_seconds=seconds(TRAIN_TIME, row.train_seconds),
        eval_seconds=seconds(EVAL_TIME, row.eval_seconds),
    )


def _column_names(names: Sequence[str]) -> list[str]:
    return [name + ending for name in names for ending in ("", "_by_seed", "_per_seed", "_seeds")]


def _in_column(manifest: Manifest, names: Sequence[str], seed: Fact[int], index: int) -> Located[Value] | Missing:
    """A seed's value in the first of several columns at the top level."""
    document = manifest.document or {}
    seeds = document.get("seeds")
    for name in _column_names(names):
        values = document.get(name)
        if isinstance(values, list) and isinstance(seeds, list) and len(values) == len(seeds):
            if index < len(seeds) and isinstance(seed, Located) and _seed(seeds[index]) == seed.value:
                return Located(values[index], manifest.at(pointer(name, index)))
        elif isinstance(values, dict):
            for key, value in values.items():
                if isinstance(seed, Located) and _seed(key) == seed.value:
                    return Located(value, manifest.at(pointer(name, key)))
    return Missing(f"{manifest.path} has no column {names[0]}", Location(manifest.path))
