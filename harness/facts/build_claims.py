"""submission.json -> claims, under every published synonym of a field, each value at its JSON pointer and line."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence

from harness.facts.build_seedclaims import build_seeds
from harness.facts.claims import NO_OWN_SPLIT, DeclaredSplit, ManifestClaims
from harness.facts.claimvalues import BPB, BPB_STD, BYTES, CODE_BYTES, LOSS, Unusable, as_fact, integer, number, text
from harness.model import Fact, Located, Missing, Value
from harness.sources.folder import shown
from harness.sources.manifest import Manifest


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
        name=as_fact(manifest.first(("name", "run_name", "title")), text),
        author=as_fact(manifest.first(("author", "authors")), _people("name")),
        github_id=_github(manifest),
        date=as_fact(manifest.first(("date",)), _date),
        track=as_fact(manifest.first(("track",)), text),
        val_bpb=as_fact(_single(manifest, BPB), number),
        val_loss=as_fact(_single(manifest, (*LOSS, "val_loss_sliding")), number),
        val_bpb_std=as_fact(_single(manifest, BPB_STD), number),
        bytes_total=as_fact(_single(manifest, BYTES), integer),
        bytes_code=as_fact(_single(manifest, CODE_BYTES), integer),
        seeds=build_seeds(manifest),
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


def _single(manifest: Manifest, names: Sequence[str]) -> Located[Value] | Missing:
    """The first of several synonyms that holds one value; a list or an object under the name is a table of seeds."""
    found = manifest.first(names)
    if isinstance(found, Missing) or not isinstance(found.value, (list, dict)):
        return found
    later = [name for name in names if not isinstance((manifest.document or {}).get(name), (list, dict))]
    other = manifest.first(later)
    return found if isinstance(other, Missing) else other


def _people(*keys: str) -> Callable[[Value], str | Unusable]:
    """Reads one person or several, each a text or an object that holds the text under one of the keys."""

    def read(value: Value) -> str | Unusable:
        people = value if isinstance(value, list) else [value]
        texts = [
            next((person[key] for key in keys if person.get(key)), None) if isinstance(person, dict) else person
            for person in people
        ]
        return text([text for text in texts if isinstance(text, str)] if texts else value)

    return read


def _github(manifest: Manifest) -> Fact[str]:
    found = as_fact(manifest.first(("github_id", "github", "github_user")), text)
    if isinstance(found, Missing):
        # Some name author and account in one object.
        inside = as_fact(manifest.first(("author", "authors")), _account)
        return inside if isinstance(inside, Located) else found
    return found


def _account(value: Value) -> str | Unusable:
    people: list[Value] = [
        person for person in (value if isinstance(value, list) else [value]) if isinstance(person, dict)
    ]
    return _people("github_id", "github", "github_user")(people) if people else Unusable("no account is named")


def _date(value: Value) -> dt.date | Unusable:
    if not isinstance(value, str):
        return Unusable("the value is no text")
    try:
        return dt.datetime.fromisoformat(value.strip()).date()
    except ValueError:
        return Unusable("the value is no ISO date")


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
