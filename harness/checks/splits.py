"""What a number of bytes per token is, in words: the known splits, and miscounts that give it."""

from __future__ import annotations

from collections.abc import Callable

from harness.challenge import KNOWN_MISCOUNTS, VALIDATION_SPLITS
from harness.checks.common import listed


def likely_cause(fits: Callable[[float], bool]) -> str:
    """The known miscounts whose constant fits, in brackets; empty when none does."""
    causes = [f"{cause}, {source}" for constant, cause, source in KNOWN_MISCOUNTS if fits(constant)]
    return f" (as {listed(causes)})" if causes else ""


def known_constants() -> str:
    """The known splits with their bytes per token."""
    return ", ".join(f"{split.name} {split.bytes_per_token[0]:.5f}" for split in VALIDATION_SPLITS)
