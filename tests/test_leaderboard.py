"""`harness leaderboard`: folders found, ranked, tested against each other, and shown."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness import audit, leaderboard
from harness.cli import main
from harness.facts.previous import Row, sample_of
from harness.model import HarnessError, Missing
from harness.report import standings
from harness.sources import schemas

ORDINARY = Path(__file__).parent / "rules" / "ordinary"
NO_RULES = audit.Options(frozenset())


def entry(name: str, *values: float, date: str = "2026-04-01", track: str = "record") -> leaderboard.Entry:
    row = Row(name, dt.date.fromisoformat(date) if date else None, sample_of(values))
    return leaderboard.Entry(f"records/{name}", track, row, "pass", {"failed": [], "artifact_bytes": 15_000_000})


def ranked(*entries: leaderboard.Entry) -> list[dict[str, Any]]:
    document = leaderboard.document(entries)
    assert schemas.problems("leaderboard", document) == []
    rows: list[dict[str, Any]] = document["rows"]
    return rows


def folder(where: Path, name: str, scale: float = 1.0) -> Path:
    """The ordinary folder with every score scaled, under the record track."""
    made = where / "track_10min_16mb" / name
    shutil.copytree(ORDINARY, made)
    for path in made.iterdir():
        text = path.read_text(encoding="utf-8")
        for bits in ("1.19500001", "1.20600001", "1.20800001", "1.20300001"):
            text = text.replace(bits, f"{float(bits) * scale:.8f}")
        path.write_text(text, encoding="utf-8")
    return made


def test_the_best_mean_is_first_and_every_row_is_tested() -> None:
    worst = entry("naive", 1.25, 1.251, 1.252, date="2026-03-18")
    better = entry("better", 1.24, 1.241, 1.242, date="2026-03-20")
    best = entry("best", 1.2, 1.201, 1.202, date="2026-03-22")
    rows = ranked(worst, best, better)
    assert [row["name"] for row in rows] == ["best", "better", "naive"]
    assert rows[0]["against_row_above"] is None
    assert rows[1]["against_row_above"]["name"] == "best"
    assert rows[1]["against_row_above"]["difference_bpb"] == pytest.approx(-0.04)
    assert rows[0]["against_record"]["name"] == "better"
    assert rows[0]["against_record"]["p_value"] < 0.001
    assert rows[2]["against_record"] is None


def test_rows_of_one_day_and_rows_without_a_date_are_no_earlier_record() -> None:
    rows = ranked(entry("a", 1.2, 1.21), entry("b", 1.3, 1.31), entry("c", 1.1, date=""))
    assert all(row["against_record"] is None for row in rows)
    assert rows[1]["against_row_above"]["p_value"] is None, "one run has no p-value"


def test_tracks_are_ranked_apart_and_scoreless_folders_stand_below() -> None:
    lacking = leaderboard.Entry("records/none", "record", Missing("nothing was read"), "fail", {})
    document = leaderboard.document(
        [entry("a", 1.3), lacking, entry("b", 1.1, track="non-record"), entry("c", 1.2, track="")]
    )
    assert schemas.problems("leaderboard", document) == []
    assert [(row["track"], row["rank"]) for row in document["rows"]] == [("record", 1), ("non-record", 1), ("", 1)]
    assert document["unranked"][0]["reason"] == "nothing was read"


def test_folders_are_found_at_any_depth(tmp_path: Path) -> None:
    one = folder(tmp_path / "records", "2026-04-01_One")
    bare = tmp_path / "records" / "track_10min_16mb" / "2026-04-02_LogOnly"
    bare.mkdir()
    (bare / "train.log").write_text("seed:1\n", encoding="utf-8")
    (tmp_path / "records" / "README.md").write_text("# all records\n", encoding="utf-8")
    (tmp_path / "records" / ".hidden").mkdir()
    (one / "logs").mkdir()
    assert leaderboard.find_folders([tmp_path / "records", one]) == [one, bare]
    with pytest.raises(HarnessError, match="no record folder"):
        leaderboard.find_folders([tmp_path / "records" / ".hidden"])
    with pytest.raises(HarnessError, match="no directory"):
        leaderboard.find_folders([tmp_path / "none"])


def test_a_folder_is_ranked_by_the_mean_of_its_counted_runs(tmp_path: Path) -> None:
    found = leaderboard.entry_of(folder(tmp_path, "2026-04-01_One"), NO_RULES)
    assert isinstance(found.row, Row)
    assert found.row.sample.mean == pytest.approx(1.20300001)
    assert (found.track, found.details["basis"], found.details["artifact_bytes"]) == ("record", "3 logs", 15_000_502)
    bare = tmp_path / "empty"
    bare.mkdir()
    (bare / "README.md").write_text("# nothing\n", encoding="utf-8")
    assert isinstance(leaderboard.entry_of(bare, NO_RULES).row, Missing)
    (bare / "README.md").unlink()
    assert "not a record folder" in str(leaderboard.entry_of(bare, NO_RULES).row)


def test_a_mistake_of_ours_is_named_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(leaderboard, "track", broken)
    found = leaderboard.entry_of(folder(tmp_path, "2026-04-01_One"), NO_RULES)
    assert found.verdict == leaderboard.CRASHED


@pytest.fixture
def board(tmp_path: Path) -> Path:
    for index, scale in enumerate((1.0, 0.99, 0.98, 1.01), start=1):
        manifest = folder(tmp_path, f"2026-04-0{index}_Run", scale) / "submission.json"
        manifest.write_text(manifest.read_text(encoding="utf-8").replace("2026-04-01", f"2026-04-0{index}"), "utf-8")
    return tmp_path


def test_the_command_prints_every_format(
    board: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["leaderboard", str(board)]) == 0
    text = capsys.readouterr().out
    assert "Record track: 4 folders" in text
    assert text.index("2026-04-03_Run") < text.index("2026-04-02_Run") < text.index("2026-04-01_Run")
    assert main(["leaderboard", str(board), "--format", "markdown"]) == 0
    assert "| 1 | 1.17894 | 3 |" in capsys.readouterr().out
    assert main(["leaderboard", str(board), "--format", "json"]) == 0
    assert schemas.problems("leaderboard", json.loads(capsys.readouterr().out)) == []


def test_the_json_document_is_what_previous_reads(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = board / "board.json"
    assert main(["leaderboard", str(board), "--format", "json", "--output", str(file)]) == 0
    arguments = ["audit", str(board / "track_10min_16mb" / "2026-04-03_Run"), "--previous", str(file)]
    assert main([*arguments, "--select", "PG404", "--format", "json"]) == 0
    [finding] = json.loads(capsys.readouterr().out)["submissions"][0]["findings"]
    assert "2026-04-02_Run" in finding["message"]


def test_a_narrow_terminal_keeps_the_columns_that_matter() -> None:
    document = leaderboard.document([entry("a" * 40, 1.2, 1.21), entry("b", 1.3, 1.31)])
    narrow, wide = standings.text(document, 60, color=False), standings.text(document, 160, color=False)
    assert max(map(len, narrow.splitlines())) <= 60
    assert "15,000,000" in wide
    assert "15,000,000" not in narrow
    assert "\x1b" not in wide
    assert "\x1b" in standings.text(document, 160, color=True)


def test_names_are_no_markup() -> None:
    hostile = entry("<b>|@you|](http://x)", 1.2)
    text = standings.markdown(leaderboard.document([hostile]))
    assert "<b>" not in text.replace("\\<", "")
    assert "@you" not in text
    lacking = leaderboard.Entry("a*b", "", Missing("because *not*"), "", {})
    assert "a\\*b: because \\*not\\*" in standings.markdown(leaderboard.document([lacking]))
    assert "without a score: a*b" in standings.text(leaderboard.document([lacking]), 80, color=False)
