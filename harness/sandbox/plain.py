"""L1: limits, an own session and a clean environment. It stops accidents, not malice, and runs everywhere."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from harness.sandbox.backend import Launch, shared_launch, shared_places
from harness.sandbox.job import Job
from harness.sandbox.levels import Level
from harness.sandbox.places import Places


@dataclass(frozen=True, slots=True)
class Plain:
    """No walls."""

    name: str = "plain"
    level: Level = Level.L1

    def missing(self) -> str:
        """It needs processes as Unix has them."""
        return "" if hasattr(os, "fork") else "no fork on this system"

    def places(self, job: Job, into: Path) -> Places:
        """The machine's own paths."""
        return shared_places(job, into)

    def launch(self, job: Job, into: Path) -> Launch:
        """The stage, and nothing around it."""
        return shared_launch(job, into, calls="none", landlock=None)
