"""Everything known about one record folder."""

from __future__ import annotations

from dataclasses import dataclass

from harness.facts.claims import ManifestClaims, ReadmeClaims
from harness.facts.package import PackageFacts
from harness.facts.reproduction import ReproductionFacts
from harness.facts.runs import Run
from harness.facts.size import SizeFacts
from harness.model import Missing


@dataclass(frozen=True, slots=True)
class Submission:
    """One record folder as facts; `reproduction` is Missing when no evidence directory was given."""

    folder: str
    name: str
    package: PackageFacts
    claims: ManifestClaims
    readme: ReadmeClaims
    runs: tuple[Run, ...]
    size: SizeFacts
    reproduction: ReproductionFacts | Missing
