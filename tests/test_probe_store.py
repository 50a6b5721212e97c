"""Probes of many folders: kept, not made again, and told in one table."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import pytest

from harness import audit, probebatch
from harness.checks import RULES
from harness.cli import main
from harness.model import Report, Value, Verdict
from harness.probe import probing, store
from harness.probe.document import Probe
from harness.report import probes
from harness.sandbox.establish import establish
from harness.sandbox.levels import Level
from harness.sources import probeevidence
from harness.workers import Done
from tests.probefacts import document
from tests.repositories import make
from tests.test_probe_session import write

# Chosen once: each choice tries every canary in every backend.
strongest = functools.cache(establish)
OPTIONS = audit.Options(frozenset({"PG701"}))
QUICK = "import os\nprint(os.environ.get('EXTRA', 1))\n"


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    made = tmp_path / "records"
    made.mkdir()
    found = [write(made / "first", QUICK), write(made / "second", "class A:\n    pass\nA().missing_thing\n")]
    (made / "third").mkdir()
    (made / "third" / "README.md").write_text("# No script\n", encoding="utf-8")
    return [*found, made / "third"]


def test_what_was_probed_is_not_probed_again_unless_something_changed(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Path] = []

    def run(_made: object, place: Path, *_: object, **__: object) -> None:
        ran.append(place)
        place.mkdir(parents=True)
        probeevidence.write(place, document(folders[0]))

    monkeypatch.setattr(probing, "run", run)
    kept = store.Store(tmp_path / "kept", strongest())
    first = kept(folders[0])
    assert first.name.startswith("first-")
    assert kept(folders[0]) == first
    assert ran == [first]
    (folders[0] / "README.md").write_text("# x\n\n```\nEXTRA=9 python train_gpt.py\n```\n", encoding="utf-8")
    claimed = kept(folders[0])
    (folders[0] / "train_gpt.py").write_text(f"{QUICK}\n", encoding="utf-8")
    assert len({first, claimed, kept(folders[0])}) == len(ran) == 3


@pytest.mark.parametrize(("ended", "times"), [("wall", 3), ("exit", 1)])
def test_what_was_cut_is_run_again_once_there_is_more_time(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: str, times: int
) -> None:
    ran: list[float] = []

    def run(_made: object, place: Path, *rest: object, **__: object) -> None:
        ran.append(float(str(rest[-1])))
        place.mkdir(parents=True)
        probeevidence.write(place, document(folders[0], {"ended": ended}))

    monkeypatch.setattr(probing, "run", run)
    for seconds, total in ((30.0, 100.0), (30.0, 100.0), (20.0, 100.0), (60.0, 100.0), (60.0, 200.0), (30.0, 100.0)):
        store.Store(tmp_path / "kept", strongest(), seconds, total)(folders[0])
    assert len(ran) == times


def test_what_a_probe_stands_on_is_in_its_name(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    made = probing.prepare(folders[0], audit.read(folders[0], None))
    sandbox = strongest()
    names = {store._name(made, dataclasses.replace(sandbox, level=level)) for level in (Level.L1, Level.L2)}
    monkeypatch.setattr(store, "_torch", lambda: "0.0")
    names.add(store._name(made, dataclasses.replace(sandbox, level=Level.L1)))
    assert len(names) == 3
    read = {path.relative_to(store.ROOT).as_posix() for path in store._imported(store.READER)}
    assert {"probe/printed.py", "facts/build_runs.py", "sources/loggrammar.py"} <= read
    assert not {path for path in read if path.startswith(("checks/", "report/", "cli/"))}


def test_a_probe_out_of_time_ends_and_is_undecided(folders: list[Path], tmp_path: Path) -> None:
    (folders[0] / "train_gpt.py").write_text("import time\nwhile True: pass\n", encoding="utf-8")
    kept = store.Store(tmp_path / "kept", strongest(), total_seconds=1.0)
    audited = audit.audit_folder(folders[0], audit.Options(frozenset({"PG701"}), probe=kept(folders[0])))
    assert audited.report is not None
    [finding] = audited.report.findings
    assert finding.verdict is Verdict.UNDECIDED
    assert "1 s" in finding.message


@pytest.mark.slow
def test_several_folders_give_a_table_and_what_cannot_be_probed_ends_nothing(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["probe", *map(str, folders), "--evidence", str(tmp_path / "kept"), "--seconds", "60", "--allow-unsafe"]
    assert main([*command, "--format", "summary"]) == 2
    printed = capsys.readouterr()
    assert "third: no script to probe" in printed.err
    first, second = (line for line in printed.out.splitlines() if line.split()[:1] in (["first"], ["second"]))
    assert "PG702 warn" in first
    assert "PG701 fail" in second
    assert "0 of 2 reached their score" in printed.out
    assert "2 folders: " in printed.out
    assert main([*command, "--format", "json"]) == 2
    again = capsys.readouterr()
    assert "bare: train_gpt.py" not in again.err
    names = [each["name"] for each in json.loads(again.out)["submissions"]]
    assert main([*command, "--format", "json", "--fresh", "--workers", "2"]) == 2
    together = capsys.readouterr()
    assert [each["name"] for each in json.loads(together.out)["submissions"]] == names == ["first", "second"]
    assert f"{folders[1]} ended after" in together.err
    assert "third: no script to probe" in together.err


def test_a_worker_that_dies_is_a_crash_of_the_harness_and_ends_nothing_else(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead: Done[Path, audit.Audited] = Done(folders[0], None, "killed after 9 s", 9.0, None)
    alive = Done(folders[1], audit.Audited(refused="no script"), "", 1.0, None)
    monkeypatch.setattr(probebatch, "each", lambda *_, **__: iter((alive, dead)))
    kept = store.Store(tmp_path / "kept", strongest())
    found = list(probebatch.probe_each(folders[:2], kept, OPTIONS, workers=2, tell=lambda _: None))
    assert [one.crashes for one in found] == [(f"{folders[0]}: killed after 9 s",), ()]
    assert found[1].refused == "no script"


def test_an_error_of_the_probe_itself_ends_one_folder_alone(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(made: Probe, *_: object, **__: object) -> None:
        raise OverflowError(f"{made.folder.name} is too large")

    monkeypatch.setattr(probing, "run", run)
    kept = store.Store(tmp_path / "kept", strongest())
    found = list(probebatch.probe_each(folders, kept, OPTIONS, workers=1, tell=lambda _: None))
    assert [one.crashes for one in found[:2]] == [
        (f"{folder}: the probe ended with OverflowError: {folder.name} is too large",) for folder in folders[:2]
    ]
    assert "no script to probe" in found[2].refused


def test_the_table_counts_runs_time_and_stand_ins(folders: list[Path]) -> None:
    audited = audit.audit_folder(folders[0], audit.Options(frozenset({RULES[0].code})))
    run: dict[str, Value] = {"name": "bare", "seconds": 4.0, "peak_memory_bytes": 5e8, "val_bpb": 2.5}
    runs: list[Value] = [run | {"approximated": ["torch.compile: runs uncompiled"]}, run | {"seconds": 8.0}]
    [one] = audit.report_of([audited]).submissions
    made = dataclasses.replace(one, facts={**one.facts, "probe": {"script": "train_gpt.py", "runs": runs}})
    text = probes.render(Report("0", "x", (made,)), 150)
    assert text.splitlines()[3].split() == ["first", "2.5000", "4", "12", "3.0", "500", "1", "pass"]
    assert "1 of 1 reached their score; all runs cost 3.0 bare runs in the median" in text


def test_a_calibration_probes_what_it_audits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clone = make(tmp_path / "clone.git")
    folder = "records/track_10min_16mb/run"
    commit = clone.commit(
        {f"{folder}/train_gpt.py": b"class A:\n    pass\nA().missing_thing\n", f"{folder}/README.md": b"# x\n"}
    )
    row = {"id": "a", "label": "broken", "classes": ["crash"], "commit": commit, "path": f"{folder}/train_gpt.py"}
    labels = tmp_path / "labels.jsonl"
    labels.write_text(json.dumps(row) + "\n", encoding="utf-8")
    command = ["calibrate", str(labels), "--repo", str(clone.path), "--format", "json"]
    assert main([*command, "--probe", str(tmp_path / "kept"), "--allow-unsafe"]) == 0
    printed = capsys.readouterr()
    assert "1/1 a (broken): " in printed.err
    [found] = json.loads(printed.out)["rows"]
    assert [kept.name.rpartition("-")[0] for kept in (tmp_path / "kept").iterdir()] == ["run"]
    assert found["outcome"] == "fail"
