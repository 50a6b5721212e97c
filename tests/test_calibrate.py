"""Calibration: label files, which rules fit which class, counting, and the command on a small clone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from harness import cli
from harness.calibrate import classes, labels, tally
from harness.calibrate.judge import Judged, Outcome, judge, without_report
from harness.calibrate.labels import Label
from harness.cli import output
from harness.model import Finding, HarnessError, Location, Status, Verdict
from harness.report import calibration
from tests.repositories import Made, make

FOLDER = "records/track_10min_16mb/run"
ROW: dict[str, Any] = {
    "id": "a",
    "label": "illegal",
    "classes": ["preeval_ttt"],
    "commit": "1" * 40,
    "path": f"{FOLDER}/train_gpt.py",
}


def written(tmp_path: Path, *rows: dict[str, Any] | str | bytes) -> Path:
    path = tmp_path / "labels.jsonl"
    texts = [row if isinstance(row, (str, bytes)) else json.dumps(row) for row in rows]
    path.write_bytes(b"".join((text if isinstance(text, bytes) else text.encode()) + b"\n" for text in texts))
    return path


def label(**changes: Any) -> Label:
    return labels._made(ROW | changes)


def finding(rule: str, verdict: Verdict = Verdict.FAIL, line: int | None = 10, path: str = "train_gpt.py") -> Finding:
    return Finding(rule, "name", "family", verdict, "It is so.", {}, (Location(path, line),), "x", Status.SETTLED)


def judged(*findings: Finding, twin: Label | None = None, **changes: Any) -> Judged:
    return judge(label(**changes), twin, findings, 0.5)


def test_a_row_is_read_with_what_is_absent_filled_in(tmp_path: Path) -> None:
    rich = ROW | {
        "id": "b",
        "pair": "a",
        "cluster": "c1",
        "key_lines": [{"line": 3, "what": "x"}],
        "decidable": "NOT from code",
        "pr": 7,
        "more": 1,
    }
    first, second = labels.read(written(tmp_path, "\ufeff" + json.dumps(ROW), "", rich))
    assert first.cluster == "a"
    assert first.readable
    assert first.folder == FOLDER
    assert (second.cluster, second.key_lines, second.pair, second.readable) == ("c1", (3,), "a", False)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", ":2: not a JSON object"),
        ("[" * 100_000, ":2: "),
        (b"\xff\xfe{}", ":2: not a JSON object"),
        ("[1]", ":2: the row is"),
        ({**ROW, "label": "guilty"}, ":2: /label is"),
        ({**ROW, "commit": "HEAD"}, ":2: /commit is"),
        ({**ROW, "path": "/etc/passwd"}, ":2: /path is"),
        ({**ROW, "key_lines": [{"line": 0}]}, ":2: /key_lines/0/line is"),
        ({key: ROW[key] for key in ROW if key != "classes"}, ":2: the row lacks `classes`"),
        ({**ROW, "id": "first"}, ":1: the id 'first' stands in 2 lines"),
        ({**ROW, "pair": "a"}, ":2: 'a' is its own pair"),
    ],
)
def test_a_bad_row_is_one_error_with_its_line(tmp_path: Path, row: Any, said: str) -> None:
    with pytest.raises(HarnessError) as caught:
        labels.read(written(tmp_path, ROW | {"id": "first"}, row))
    assert f"labels.jsonl{said}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_or_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="holds no label"):
        labels.read(written(tmp_path, ""))
    with pytest.raises(HarnessError, match="cannot be read"):
        labels.read(tmp_path / "absent")


@pytest.mark.parametrize(
    ("text", "readable"),
    [
        ("static", True),
        ("behavioural (sum over vocab)", False),
        ("behavioral", False),
        ("NOT decidable from code", False),
        ("static pattern, not hard", True),
        (None, True),
    ],
)
def test_what_is_beyond_reading_is_told_from_its_words(text: str | None, readable: bool) -> None:  # noqa: FBT001
    assert label(decidable=text).readable is readable


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("ngram_target_key", classes.TARGETS),
        ("unnormalized", classes.TARGETS),
        ("tilt_target_gate", classes.TARGETS),
        ("preeval_ttt", classes.ORDER),
        ("two_pass_rescore", classes.ORDER),
        ("slot_shared_delta", classes.ORDER),
        ("train_on_val", classes.ORDER),
        ("byte_lut_double_space", classes.BYTES),
        ("missing_module", classes.PACKAGE),
        ("syntax_error", classes.PACKAGE),
        ("artifact_over_cap", ("PG1",)),
        ("packed", ()),
        ("dead_illegal_code", ()),
        ("not_visible_in_code", ()),
        ("interval_arithmetic", None),
    ],
)
def test_rules_fit_classes_by_their_words(name: str, rules: tuple[str, ...] | None) -> None:
    assert classes.rules_for(name) == rules


def test_unknown_classes_and_bare_circumstances_leave_every_rule_on_legality() -> None:
    assert classes.fitting(["astrology", "packed"]) == classes.LEGALITY
    assert classes.fitting(["astrology", "preeval_ttt"]) == classes.ORDER
    assert classes.unknown(["astrology", "packed"]) == ("astrology",)


def test_only_a_fail_of_the_right_family_is_a_catch() -> None:
    right = judged(finding("PG601"), key_lines=[{"line": 13}, {"line": 90}])
    assert (right.outcome, right.distance, right.others) == (Outcome.FAIL, 3, ())
    wrong = judged(finding("PG620"), finding("PG003"), finding("PG601", Verdict.UNDECIDED))
    assert (wrong.outcome, wrong.pointed, wrong.distance) == (Outcome.UNDECIDED, True, None)
    assert [one.rule for one in wrong.others] == ["PG620", "PG003"]
    assert judged(finding("PG601", Verdict.PASS)).outcome is Outcome.SILENT
    assert judged(finding("PG601", Verdict.WARN, path="other.py")).pointed is False


def test_an_accusation_of_a_legal_row_is_any_of_legality_or_of_its_twins_class() -> None:
    legal: dict[str, Any] = {"label": "legal", "classes": ["plain_eval"]}
    assert judged(finding("PG620"), **legal).caught
    assert not judged(finding("PG003"), finding("PG301"), **legal).caught
    twin = label(id="t", classes=["byte_lut_double_space"])
    assert judged(finding("PG306"), twin=twin, **legal).caught
    assert judged(finding("PG008"), label="broken", classes=["missing_module"]).caught


@given(st.integers(1, 400).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_intervals_are_those_of_clopper_and_pearson(counts: tuple[int, int]) -> None:
    expected = binomtest(*counts).proportion_ci(0.95, method="exact")
    assert tally.interval(*counts) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_no_rows_say_nothing_of_the_share() -> None:
    assert tally.interval(0, 0) == (0.0, 1.0)


def some_rows() -> list[Judged]:
    """Two illegal rows of one cluster, one caught; a legal twin that is accused; rows of every other end."""
    return [
        judged(finding("PG601"), id="a", cluster="c1", pair="b"),
        judged(finding("PG620"), id="b", cluster="c1", pair="a", label="legal", classes=["plain_eval"]),
        judged(id="c", cluster="c1", classes=["astrology"], env_needed="X=1"),
        judged(id="d", cluster="c2", decidable="NOT"),
        judged(finding("PG003"), id="e", cluster="c3", label="legal", classes=["plain_eval"], pair="gone"),
        without_report(label(id="f"), Outcome.ABSENT, "the clone does not hold commit 111"),
        without_report(label(id="g"), Outcome.CRASHED, "killed after 60 s"),
        judged(finding("PG601"), id="h", label="disputed"),
        judged(finding("PG008", Verdict.WARN), id="i", label="broken", classes=["missing_module"]),
    ]


def test_rows_clusters_and_pairs_are_counted() -> None:
    found = tally.document(some_rows(), 1.5)
    summary = found["summary"]
    counts = {name: (value["count"], value["of"]) for name, value in summary.items() if isinstance(value, dict)}
    assert counts == {
        "caught": (1, 3),  # the crash counts as not caught
        "caught_clusters": (0, 2),
        "noticed": (1, 4),  # those beyond reading count too
        "pointed": (0, 3),
        "broken": (0, 1),
        "accusations": (1, 2),
        "accused_clusters": (1, 2),
        "pairs": (0, 1),
    }
    assert (summary["unavailable"], summary["crashed"]) == (1, 1)
    assert found["unknown_classes"] == ["astrology"]
    assert [pair["absent"] for pair in found["pairs"]] == ["", "gone"]
    assert json.loads(json.dumps(found)) == found


def test_the_text_names_every_row_that_needs_a_look() -> None:
    text = calibration.render(tally.document(some_rows(), 1.5))
    for part in (
        "1 of 3, 33% (1-91%)",
        "FALSE ACCUSATIONS of legal submissions (1)",
        "Legal, failing rules that accuse nobody (1)",
        "Disputed, failing (1)",
        "Beyond reading (1)",
        "Not audited (1)\n  f ",
        "the clone does not hold commit 111",
        "killed after 60 s",
        "the label says of the environment: X=1",
        "unknown class: any rule on legality",
        "pair  wrong     a (illegal) fail; b (legal) fail",
        "gone is not in the file",
    ):
        assert part in text


def test_requirements_bound_shares_from_below_and_counts_from_above() -> None:
    found = tally.document(some_rows(), 1.0)
    assert tally.unmet(found, {"caught": 0.3, "accusations": 1, "unavailable": 1}) == []
    unmet = tally.unmet(found, {"caught": 0.75, "accusations": 0, "crashed": 0, "broken": 1.0})
    assert [sentence.partition(":")[0] for sentence in unmet] == ["caught", "accusations", "crashed", "broken"]


@pytest.fixture
def clone(tmp_path: Path) -> Made:
    return make(tmp_path / "clone.git")


def test_the_command_audits_the_folders_of_a_clone(
    clone: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = clone.commit({f"{FOLDER}/train_gpt.py": b"x = 1)\n", f"{FOLDER}/README.md": b"# x\n", "train_gpt.py": b""})
    row = ROW | {"label": "broken", "classes": ["syntax_error"], "commit": commit, "key_lines": [{"line": 1}]}
    path = written(
        tmp_path,
        row,
        row | {"id": "gone", "commit": "2" * 40},
        row | {"id": "root", "path": "train_gpt.py"},
        row | {"id": "nofile", "path": f"{FOLDER}/other.py"},
        row | {"id": "same"},
    )
    command = ["calibrate", str(path), "--repo", str(clone.path), "--output", str(tmp_path / "out.json")]
    assert cli.main(command) == output.EXIT_PASS
    text = capsys.readouterr().out
    assert "broken that fail:                          2 of 2" in text
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    problems = {one["id"]: one["problem"] for one in found["rows"]}
    assert problems["a"] == problems["same"] == ""
    assert "does not hold commit 222222222222" in problems["gone"]
    assert "lies in no record folder" in problems["root"]
    assert "has no file" in problems["nofile"]
    assert next(one for one in found["rows"] if one["id"] == "a")["line_distance"] == 0
    assert cli.main([*command, "--format", "json", "--require", "unavailable=0"]) == output.EXIT_FAIL
    captured = capsys.readouterr()
    assert json.loads(captured.out)["schema"] == "calibration/1"
    assert "not met: unavailable: 3, at most 0 is allowed" in captured.err


@pytest.mark.parametrize("value", ["caught", "caught=x", "caught=nan", "luck=1"])
def test_a_requirement_that_means_nothing_is_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["calibrate", str(tmp_path / "x"), "--repo", str(tmp_path), "--require", value])
    assert caught.value.code == output.EXIT_USAGE
