"""Bytes of the artifact in every accounting in use.

Accountings (all three have been accepted): `shipped` counts the entry script's file bytes, `compressed_code`
counts the code as the log's own compressed or minified figure, `all_helpers` counts every shipped code file.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.model import Fact


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
    """

    entry_code_bytes: Fact[int]
    all_code_bytes: Fact[int]
    code_files: tuple[str, ...]
    per_seed: tuple[SeedSize, ...]
    data_files: tuple[str, ...] = ()
