"""Family significance, against the previous record."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from harness import audit
from harness.challenge import EDITIONS
from harness.checks import record as checks
from harness.cli import main
from harness.facts.previous import Previous, Row, Sample, sample_of
from harness.facts.submission import Submission
from harness.model import HarnessError, Missing, Outcome, Value, Verdict
from harness.sources import schemas
from tests import factories
from tests.factories import UNSTATED, at

OLD = (1.23, 1.231, 1.232)
README, WELCH = EDITIONS


def row(*values: float, name: str = "2026-03-30_Before", **changes: Any) -> Row:
    made = Row(name, dt.date(2026, 3, 30), sample_of(values or OLD))
    return dataclasses.replace(made, **changes)


def against(*rows: Row, edition: int = 1, chosen: bool = True, **changes: Any) -> Submission:
    return factories.submission(previous=Previous(rows, EDITIONS[edition], chosen), **changes)


def decided(submission: Submission, rule: factories.AnyRule = checks.record_not_significant) -> Outcome:
    outcome = rule.check(submission)
    assert outcome is not None
    return outcome


def with_scores(*values: float) -> dict[str, Any]:
    """A submission with these scores in its logs and claims."""
    seeds = range(1, len(values) + 1)
    return {
        "runs": tuple(factories.run(seed, bits=bits) for seed, bits in zip(seeds, values, strict=True)),
        "claims": factories.manifest_with(
            factories.manifest(), *(factories.claim(s, bits=b) for s, b in zip([1, 2, 3], values, strict=False))
        ),
    }


def test_without_a_previous_record_the_rules_say_nothing() -> None:
    assert all(rule.check(factories.submission()) is None for rule in checks.RULES)


def test_a_clear_win_passes_in_every_edition() -> None:
    scores = with_scores(1.19, 1.191, 1.192)
    for edition in (0, 1):
        outcome = decided(against(row(), edition=edition, **scores))
        assert outcome.verdict is Verdict.PASS, outcome.message
        assert any("systems" in note for note in outcome.notes)


def test_a_small_win_is_one_edition_s_only_and_says_so() -> None:
    scores = with_scores(1.229, 1.2295, 1.23)
    outcome = decided(against(row(), edition=0, **scores))
    assert outcome.verdict is Verdict.WARN
    assert "the edition of 2026-04-28 is met" in outcome.message
    assert decided(against(row(), edition=1, **scores)).verdict is Verdict.PASS


def test_units_that_disagree_warn() -> None:
    outcome = decided(against(row(1.23, 1.2301, 1.2302), edition=0, **with_scores(1.226, 1.2261, 1.2262)))
    assert outcome.verdict is Verdict.WARN
    assert "in one unit and not in another" in outcome.message
    readings = outcome.values["readings"]
    assert isinstance(readings, list)
    assert [one["met"] for one in readings if isinstance(one, dict)][:3] == [True, False, False]


def test_a_worse_score_is_not_met_either_way() -> None:
    outcome = decided(against(row(), edition=1, **with_scores(1.24, 1.241, 1.242)))
    assert outcome.verdict is Verdict.WARN
    assert "not met either" in outcome.message


def test_one_run_is_undecided_with_what_would_be_needed() -> None:
    single: dict[str, Any] = {"runs": (factories.run(1),), "claims": factories.manifest(seeds=(1,))}
    silent = dataclasses.replace(factories.submission().readme, seeds=())
    outcome = decided(against(row(), readme=silent, **single))
    assert outcome.verdict is Verdict.UNDECIDED
    assert "would need a mean of" in outcome.message
    outcome = decided(against(row(1.23), readme=silent, **single))
    assert "two more runs of each" in outcome.message
    outcome = decided(against(row(1.23)))
    assert "two more runs of it" in outcome.message


def test_scores_without_deviation_are_undecided() -> None:
    outcome = decided(against(row(1.23, 1.23), **with_scores(1.2, 1.2, 1.2)))
    assert outcome.verdict is Verdict.UNDECIDED
    assert "deviate" in outcome.message


def test_reproductions_are_pooled_on_both_sides() -> None:
    own = row(name=factories.submission().name, reproductions=(("#1", sample_of([1.2])),))
    old = row(reproductions=(("#2", sample_of([1.24])), ("#3", Sample(3, 1.25, 0.001))))
    outcome = decided(against(old, own, chosen=False))
    assert outcome.values["run_count"] == 4
    assert outcome.values["previous_run_count"] == 7
    assert "1 reproduction pooled" in outcome.message


def test_the_best_row_of_the_date_is_the_previous_record() -> None:
    rows = (
        row(1.25, name="older"),
        row(1.23, name="better"),
        row(1.10, name="later", date=dt.date(2026, 4, 2)),
        row(1.0, name="undated", date=None),
        row(1.0, name=factories.submission().name),
    )
    previous = Previous(rows, WELCH, chosen=False)
    found = checks.previous_row(factories.submission(), previous)
    assert isinstance(found, Row)
    assert found.name == "better"
    by_name = factories.submission(claims=factories.manifest(date=UNSTATED))
    assert checks.previous_row(by_name, previous) == found, "the folder's name begins with a date"
    undated = dataclasses.replace(by_name, name="ours")
    assert isinstance(checks.previous_row(undated, previous), Missing)
    assert decided(dataclasses.replace(undated, previous=previous)).verdict is Verdict.UNDECIDED
    assert isinstance(checks.previous_row(factories.submission(), Previous(rows[2:], README, chosen=False)), Missing)


def test_rows_of_the_same_day_are_noted_and_not_compared() -> None:
    twin = row(1.0, 1.1, name="twin", date=dt.date(2026, 4, 1))
    outcome = decided(against(row(), twin, chosen=False))
    assert "2026-03-30_Before" in outcome.message
    assert any("twin" in note for note in outcome.notes)


def test_a_later_record_is_noted() -> None:
    outcome = decided(against(row(date=dt.date(2026, 4, 20))))
    assert any("after the submission" in note for note in outcome.notes)


def test_without_any_score_the_claim_is_undecided() -> None:
    assert (
        decided(dataclasses.replace(factories.blank(), previous=against(row()).previous)).verdict is Verdict.UNDECIDED
    )
    only_claim = factories.submission(runs=(), claims=factories.manifest(seeds=()))
    only_claim = dataclasses.replace(only_claim, readme=dataclasses.replace(only_claim.readme, seeds=()))
    found = checks.row_of(only_claim)
    assert isinstance(found, Row)
    assert found.sample == Sample(1, 1.203, None, (1.203,))


def test_more_stated_scores_than_logs_are_taken() -> None:
    fewer = factories.submission(runs=(factories.run(1),))
    assert [score.value for score in checks.scores(fewer)[0]] == list(factories.BITS.values())


def test_the_previous_record_s_scores_among_the_own_warn() -> None:
    rule = checks.scores_of_previous_record
    assert decided(against(row(1.2345678, 1.19500001)), rule).verdict is Verdict.WARN
    assert decided(against(row(1.2345678)), rule).verdict is Verdict.PASS
    assert decided(against(row(sample=Sample(3, 1.2, 0.1))), rule).verdict is Verdict.UNDECIDED
    assert decided(against(chosen=False), rule).verdict is Verdict.UNDECIDED
    coarse = tuple(
        factories.run(seed, headline=at(factories.score(1.2, digits=4), "train.log", 9)) for seed in (1, 2, 3)
    )
    assert decided(against(row(), runs=coarse), rule).verdict is Verdict.UNDECIDED


def document(*rows: dict[str, Value]) -> dict[str, Value]:
    return {"schema": "leaderboard/1", "rows": [dict(one) for one in rows]}


SHORT: dict[str, Value] = {"name": "Before", "date": "2026-03-30", "scores_bpb": [1.23, 1.231, 1.232]}
SUMMARY: dict[str, Value] = {
    "name": "Summary",
    "date": "2026-03-29",
    "mean_bpb": 1.3,
    "deviation_bpb": 0.001,
    "count": 3,
    "ddof": 0,
    "reproductions": [{"source": "#7", "scores_bpb": [1.31]}],
}
ORDINARY = Path(__file__).parent / "rules" / "ordinary"


def test_a_leaderboard_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "board.json"
    file.write_text(json.dumps(document(SHORT, SUMMARY)), encoding="utf-8")
    first, second = audit.read_previous(file)
    assert first.sample == sample_of([1.23, 1.231, 1.232])
    assert second.sample.deviation == pytest.approx(0.001 * 1.5**0.5)
    assert second.pooled.count == 4


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[" * 10_000,
        "[]",
        "null",
        '{"schema": "leaderboard/1", "rows": []}',
        '{"schema": "leaderboard/1", "rows": [{"name": "a"}]}',
        '{"schema": "leaderboard/1", "rows": [{"name": "a", "scores_bpb": []}]}',
        '{"schema": "leaderboard/1", "rows": [{"name": "a", "scores_bpb": [NaN]}]}',
        '{"schema": "leaderboard/1", "rows": [{"name": "a", "scores_bpb": [1.2], "date": "2026-02-31"}]}',
    ],
)
def test_a_bad_leaderboard_file_is_one_clear_error(text: str, tmp_path: Path) -> None:
    file = tmp_path / "board.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(HarnessError, match=r"board\.json"):
        audit.read_previous(file)


def test_an_absent_or_scoreless_previous_record_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="cannot be read"):
        audit.read_previous(tmp_path / "none.json")
    (tmp_path / "README.md").write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(HarnessError, match="no previous record"):
        audit.read_previous(tmp_path)


def test_the_command_runs_the_rules_against_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["audit", str(ORDINARY), "--format", "json", "--select", "PG404,PG405"]
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    skipped = report["submissions"][0]["not_exercised"]
    assert [item["rule"] for item in skipped] == ["PG404", "PG405"]
    assert skipped[0]["command"].startswith("harness audit --previous PREVIOUS ")
    assert main([*arguments, "--previous", str(ORDINARY)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert schemas.problems("report", report) == []
    ends = {finding["rule"]: finding["verdict"] for finding in report["submissions"][0]["findings"]}
    assert ends == {"PG404": "warn", "PG405": "warn"}
