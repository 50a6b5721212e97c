"""Reading alone, on scripts the rules were not written with: no legal one accused, one verdict in every disguise."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import audit
from harness.checks import RULES
from harness.model import Evidence, Verdict
from tests.compose import DISGUISES, Case, every_case, write_folder

# What reading proves; the other illegal cases are for the probe.
PROVED = {
    "later_epoch": "PG606",
    "segmented_cache": "PG620",
    "segmented_updates": "PG601",
    "sgd_before_score": "PG601",
    "slot": "PG603",
    "warm_up": "PG601",
}
# Where nothing names the target, reading does not know it: that is for the probe.
NAMED = frozenset({"segmented_cache"})
LEGALITY = frozenset(rule.code for rule in RULES if rule.code[:3] in {"PG3", "PG6"} and rule.needs is Evidence.FOLDER)


def failed(case: Case, where: Path) -> set[tuple[str, ...]]:
    """The rules that fail, once for each set of them that some disguise leads to."""
    found = set()
    for disguise in DISGUISES:
        audited = audit.audit_folder(write_folder(case, where / disguise, disguise), audit.Options(LEGALITY))
        assert audited.report is not None, audited.crashes or audited.refused
        findings = audited.report.findings
        found.add(tuple(finding.rule for finding in findings if finding.verdict is Verdict.FAIL))
    return found


@pytest.mark.parametrize("case", every_case("legal"), ids=str)
def test_no_legal_case_fails_in_any_disguise(case: Case, tmp_path: Path) -> None:
    assert failed(case, tmp_path) == {()}


@pytest.mark.parametrize("case", every_case("illegal"), ids=str)
def test_an_illegal_case_fails_alike_in_every_disguise(case: Case, tmp_path: Path) -> None:
    expected: set[tuple[str, ...]] = {(PROVED[case.name],) if case.name in PROVED else ()}
    assert failed(case, tmp_path) == (expected | {()} if case.name in NAMED else expected)
