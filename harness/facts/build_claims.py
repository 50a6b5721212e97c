"""submission.json -> claims, under every published synonym of a field, each value at its JSON pointer and line."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from harness.facts.claims import NO_OWN_SPLIT, DeclaredSplit, ManifestClaims, SeedClaim
from harness.model import Fact, Located, Location, Missing, Value
from harness.sources.folder import shown
from harness.sources.manifest import Manifest, is_finite_number, pointer

T = TypeVar("T")

BPB = ("val_bpb", "mean_val_bpb", "mean_bpb", "val_bpb_mean", "bpb")
LOSS = ("val_loss", "mean_val_loss", "val_loss_nats", "mean_val_loss_nats", "val_loss_mean")
BPB_STD = ("val_bpb_std", "std_val_bpb", "std_bpb", "bpb_std")
BYTES = (
    "bytes_total",
    "artifact_bytes",
    "artifact_size_bytes",
    "total_bytes",
    "total_submission_bytes",
    "artifact_bytes_max",
    "artifact_bytes_mean",
)
CODE_BYTES = ("bytes_code", "code_bytes", "code_size_bytes")
STEPS = ("steps", "step_stop", "train_steps", "steps_completed", "stop_step")
TRAIN_TIME = (
    "train_time_s",
    "train_time_seconds",
    "train_seconds",
    "training_time_s",
    "wallclock_seconds",
    "train_time_ms",
)
EVAL_TIME = (
    "eval_time_s",
    "eval_time_seconds",
    "eval_seconds",
    "eval_time_ms",
    "ttt_eval_time_s",
    "ttt_eval_seconds",
    "ttt_eval_time_ms",
)
SEED_TABLES = ("seed_results", "seeds", "seed_scores", "per_seed", "per_seed_results", "results")


def build_claims(manifest: Manifest | None, reason: str) -> ManifestClaims:
    """The claims of a parsed submission.json.

    Args:
        manifest: None when the folder has none.
        reason: why there is none.
    """
    if manifest is None:
        return _nothing(Missing(reason))
    if manifest.document is None:
        return _nothing(Missing(f"{manifest.path} does not parse", manifest.at("")))
    return ManifestClaims(
        name=_as(manifest.first(("name", "run_name", "title")), _text),
        author=_as(manifest.first(("author", "authors")), _text),
        github_id=_as(manifest.first(("github_id", "github", "github_user")), _text),
        date=_as(manifest.first(("date",)), _date),
        track=_as(manifest.first(("track",)), _text),
        val_bpb=_as(manifest.first(BPB), _number),
        val_loss=_as(manifest.first((*LOSS, "val_loss_sliding")), _number),
        val_bpb_std=_as(manifest.first(BPB_STD), _number),
        bytes_total=_as(manifest.first(BYTES), _integer),
        bytes_code=_as(manifest.first(CODE_BYTES), _integer),
        seeds=_seeds(manifest),
        validation_split=_split(manifest),
    )


def _nothing(missing: Missing) -> ManifestClaims:
    return ManifestClaims(
        name=missing,
        author=missing,
        github_id=missing,
        date=missing,
        track=missing,
        val_bpb=missing,
        val_loss=missing,
        val_bpb_std=missing,
        bytes_total=missing,
        bytes_code=missing,
        seeds=(),
    )


@dataclass(frozen=True, slots=True)
class _Unusable:
    """Why a value cannot be used."""

    reason: str


def _as(found: Located[Value] | Missing, convert: Callable[[Value], T | _Unusable]) -> Fact[T]:
    """A value converted, or the reason why it cannot be."""
    if isinstance(found, Missing):
        return found
    value = convert(found.value)
    if isinstance(value, _Unusable):
        return Missing(value.reason, found.location)
    return Located(value, found.location)


def _text(value: Value) -> str | _Unusable:
    if isinstance(value, list):
        value = ", ".join(item for item in value if isinstance(item, str))
    if not isinstance(value, str):
        return _Unusable("the value is no text")
    return shown(value) if value.strip() else _Unusable("the value is empty")


def _number(value: Value) -> float | _Unusable:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not is_finite_number(value):
        return _Unusable("the value is no finite number")
    return float(value)


def _integer(value: Value) -> int | _Unusable:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not is_finite_number(value):
        return _Unusable("the value is no finite number")
    # Means of bytes are printed with decimals; half a byte changes nothing.
    return round(value)


def _date(value: Value) -> dt.date | _Unusable:
    if not isinstance(value, str):
        return _Unusable("the value is no text")
    try:
        return dt.datetime.fromisoformat(value.strip()).date()
    except ValueError:
        return _Unusable("the value is no ISO date")


def _seeds(manifest: Manifest) -> tuple[SeedClaim, ...]:
    """Per-seed claims: the first table of seeds that holds values, else a bare list of seeds."""
    document = manifest.document or {}
    for name in SEED_TABLES:
        rows = _rows(document.get(name), pointer(name))
        if rows:
            return tuple(_row(manifest, seed, fields, place) for seed, fields, place in rows)
    seeds = document.get("seeds")
    if isinstance(seeds, list):
        return tuple(_listed(manifest, seed, index) for index, seed in enumerate(seeds) if _is_seed(seed))
    single = manifest.first(("seed",))
    if isinstance(single, Located) and _is_seed(single.value):
        return (_row(manifest, single.value, {}, pointer("seed")),)
    return ()


def _is_seed(value: Value) -> bool:
    if isinstance(value, str):
        return value.isascii() and value.isdecimal() and len(value) < 20
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _rows(table: Value, place: str) -> list[tuple[Value, Mapping[str, Value], str]]:
    """(seed, fields, pointer) of each row; tables are objects by seed, or lists of objects with a `seed`."""
    if isinstance(table, dict):
        return [
            (seed, fields if isinstance(fields, dict) else {"val_bpb": fields}, place + pointer(seed))
            for seed, fields in table.items()
            if _is_seed(seed) and (isinstance(fields, dict) or is_finite_number(fields))
        ]
    if isinstance(table, list):
        return [
            (row["seed"], row, place + pointer(index))
            for index, row in enumerate(table)
            if isinstance(row, dict) and _is_seed(row.get("seed"))
        ]
    return []


def _row(manifest: Manifest, seed: Value, fields: Mapping[str, Value], place: str) -> SeedClaim:
    def pick(names: Sequence[str]) -> Located[Value] | Missing:
        for name in names:
            if fields.get(name) is not None:
                inner = place + pointer(name)
                return Located(fields[name], manifest.at(inner if inner in manifest.lines else place))
        return Missing(f"{manifest.path} gives no {names[0]} for this seed", manifest.at(place))

    return SeedClaim(
        seed=Located(int(str(seed)), manifest.at(place)),
        val_bpb=_as(pick(BPB), _number),
        val_loss=_as(pick((*LOSS, "loss")), _number),
        artifact_bytes=_as(pick(BYTES), _integer),
        steps=_as(pick(STEPS), _integer),
        train_seconds=_seconds(pick(TRAIN_TIME)),
        eval_seconds=_seconds(pick(EVAL_TIME)),
    )


def _seconds(found: Located[Value] | Missing) -> Fact[float]:
    fact = _as(found, _number)
    if isinstance(fact, Located) and (fact.location.pointer or "").endswith("_ms"):
        return Located(fact.value / 1_000, fact.location)
    return fact


def _listed(manifest: Manifest, seed: Value, index: int) -> SeedClaim:
    """One seed of a bare list, with the values of parallel lists (`seed_scores`, `eval_time_seconds`)."""
    document = manifest.document or {}
    seeds = document.get("seeds")
    length = len(seeds) if isinstance(seeds, list) else 0
    fields: dict[str, Value] = {}
    places: dict[str, Location] = {}
    for target, names in (("val_bpb", ("seed_scores",)), ("eval_time_s", EVAL_TIME), ("train_time_s", TRAIN_TIME)):
        for name in names:
            column = document.get(name)
            if isinstance(column, list) and len(column) == length:
                fields[target], places[target] = column[index], manifest.at(pointer(name, index))
    row = _row(manifest, seed, {}, pointer("seeds", index))

    def placed(name: str, otherwise: Fact[float]) -> Fact[float]:
        return _as(Located(fields[name], places[name]), _number) if name in fields else otherwise

    return SeedClaim(
        seed=row.seed,
        val_bpb=placed("val_bpb", row.val_bpb),
        val_loss=row.val_loss,
        artifact_bytes=row.artifact_bytes,
        steps=row.steps,
        train_seconds=placed("train_time_s", row.train_seconds),
        eval_seconds=placed("eval_time_s", row.eval_seconds),
    )


def _split(manifest: Manifest) -> Fact[DeclaredSplit]:
    found = manifest.first(("validation_split",))
    if isinstance(found, Missing):
        return NO_OWN_SPLIT
    value = found.value
    if not isinstance(value, dict):
        return Missing("validation_split is no object", found.location)
    name, tokens, size = value.get("name"), value.get("tokens"), value.get("bytes")
    if not isinstance(name, str) or not isinstance(tokens, int) or not isinstance(size, int):
        return Missing("validation_split lacks name, tokens or bytes", found.location)
    return Located(DeclaredSplit(shown(name), tokens, size), found.location)
