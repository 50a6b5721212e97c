"""Bytes of the artifact in every accounting in use.

Accountings (all three have been accepted): `shipped` counts the entry script's file bytes, `compressed_code`
counts the code as the log's own compressed or minified figure (recounted where the log has none), `all_helpers`
counts every shipped code file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.model import Fact, Location, Missing

NOT_RECOUNTED = Missing("the compressed code was not recounted, which takes seconds: `harness audit --recount` does")


@dataclass(frozen=True, slots=True)
class Margin:
    """One run under one accounting.

    Attributes:
        seed: the run's seed.
        accounting: `script as shipped`, `code compressed` or `all code files`.
        total_bytes: code and model.
        margin_bytes: what is left below the cap; negative above it.
    """

    seed: Fact[int]
    accounting: str
    total_bytes: Fact[int]
    margin_bytes: Fact[int]


@dataclass(frozen=True, slots=True)
class Recount:
    """The training script minified, compressed and put into the usual two-line wrapper.

    Attributes:
        method: how the script says that it counts itself, else how the published scripts do.
        code_bytes: the size by that method.
        others_bytes: the size by every way of packing in use.
        stated: whether the script itself says how it counts.
    """

    method: str
    code_bytes: int
    others_bytes: Mapping[str, int]
    stated: bool


@dataclass(frozen=True, slots=True)
class SeedSize:
    """One run's artifact under the three accountings, in bytes."""

    seed: Fact[int]
    model_bytes: Fact[int]
    logged_total_bytes: Fact[int]
    shipped_bytes: Fact[int]
    compressed_code_bytes: Fact[int]
    all_helpers_bytes: Fact[int]


@dataclass(frozen=True, slots=True)
class SizeFacts:
    """Sizes over all runs.

    Attributes:
        entry_code_bytes: bytes of the entry script on disk.
        all_code_bytes: bytes of every code file on disk that a run needs (scripts, kernels).
        code_files: the paths that `all_code_bytes` sums.
        per_seed: one entry for each run, in the order of the runs.
        data_files: shipped data that the script names (tokenizers, tables); in no accounting.
        recount: the compressed code worked out anew; Missing unless it was asked for or the verdict hangs on it.
        margins: every run under every accounting against the cap.
        named_at: where each of `code_files` other than the entry is imported, run or named.
    """

    entry_code_bytes: Fact[int]
    all_code_bytes: Fact[int]
    code_files: tuple[str, ...]
    per_seed: tuple[SeedSize, ...]
    data_files: tuple[str, ...] = ()
    recount: Fact[Recount] = NOT_RECOUNTED
    margins: tuple[Margin, ...] = ()
    named_at: Mapping[str, Location] = field(default_factory=dict)
