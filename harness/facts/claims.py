"""What the submission says about itself: submission.json and the README's result tables."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from harness.model import Fact, Missing

NO_OWN_SPLIT = Missing("submission.json declares no validation split of its own")


@dataclass(frozen=True, slots=True)
class SeedClaim:
    """One seed's row, in submission.json or in a README table."""

    seed: Fact[int]
    val_bpb: Fact[float]
    val_loss: Fact[float]
    artifact_bytes: Fact[int]
    steps: Fact[int]
    train_seconds: Fact[float]
    eval_seconds: Fact[float]


@dataclass(frozen=True, slots=True)
class DeclaredSplit:
    """A validation split of the submission's own, declared as `validation_split` in submission.json."""

    name: str
    tokens: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ManifestClaims:
    """The fields of submission.json that rules read, under any of their published synonyms.

    `validation_split` is Missing for the challenge's own splits, which need no declaration.
    """

    name: Fact[str]
    author: Fact[str]
    github_id: Fact[str]
    date: Fact[dt.date]
    track: Fact[str]
    val_bpb: Fact[float]
    val_loss: Fact[float]
    val_bpb_std: Fact[float]
    bytes_total: Fact[int]
    bytes_code: Fact[int]
    seeds: tuple[SeedClaim, ...]
    validation_split: Fact[DeclaredSplit] = NO_OWN_SPLIT


@dataclass(frozen=True, slots=True)
class ReadmeClaims:
    """The README's headline and per-seed rows, where a table or a sentence states them plainly."""

    val_bpb: Fact[float]
    val_bpb_std: Fact[float]
    seeds: tuple[SeedClaim, ...]
