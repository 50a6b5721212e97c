"""Evidence of probes, what they compare, and the command."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from harness.checks import RULES, behaviour, behaviour_bytes, behaviour_order
from harness.cli import main
from harness.cli.probe import summary
from harness.facts import probe
from harness.facts.package import ShippedFile
from harness.facts.probe import ProbeFacts
from harness.model import Evidence, HarnessError, Located, Missing, Outcome, Verdict
from harness.probe.experiments import ledger, reach
from harness.probe.notrun import functions_not_run
from harness.probe.printed import Printed
from harness.probe.session import MiniatureRun
from harness.probe.unique import unique_tokens
from harness.probe.world import replace_everywhere
from harness.sandbox.job import Outcome as Ended
from harness.sandbox.levels import Level
from harness.sources import evidence, probeevidence
from harness.sources.folder import walk
from tests import factories

RUN: dict[str, Any] = {
    "name": "bare",
    "ended": "exit",
    "reason": "exit status 0",
    "returncode": 0,
    "seconds": 3.5,
    "cpu_seconds": 4.0,
    "peak_memory_bytes": 300_000_000,
    "val_bpb": 2.5,
    "val_loss": 4.2,
    "unread": "",
    "replaced": [{"name": "torch.compile", "how": "runs uncompiled", "exact": False}],
    "refused": [],
    "crash": None,
    "damaged_events": 0,
}
CRASH = {"type": "AttributeError", "message": "no x", "blame": "script", "reason": "nothing defines x"}


def document(folder: Path, run: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    made = {
        "schema": "probe/1",
        "folder_sha256": evidence.code_sha256(evidence.code_files(walk(folder))),
        "script": "train_gpt.py",
        "isolation": {"level": "L3", "backend": "bubblewrap"},
        "world": {"vocabulary": 1024, "caseops": False, "val_tokens": 1700, "val_bytes": 6800, "seed": 0},
        "shrunk": {"ITERATIONS": ["20000", "8"]},
        "claimed": {},
        "runs": [RUN | (run or {})],
        "experiments": {},
    }
    return made | changes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "run"
    made.mkdir()
    (made / "train_gpt.py").write_text("print(1)\n", encoding="utf-8")
    return made


def facts(folder: Path, run: dict[str, Any] | None = None, **changes: Any) -> ProbeFacts:
    where = folder.with_name("evidence")
    where.mkdir(exist_ok=True)
    probeevidence.write(where, document(folder, run, **changes))
    found = probe.read(where, walk(folder))
    assert isinstance(found, ProbeFacts)
    return found


def decide(code: str, found: ProbeFacts | Missing) -> Outcome:
    [rule] = [each for each in behaviour.RULES if each.code == code]
    outcome = rule.check(factories.submission(probe=found))
    assert outcome is not None
    return outcome


@pytest.mark.parametrize(
    ("run", "verdict", "words"),
    [
        ({}, Verdict.PASS, "ran to its end"),
        (
            {"ended": "wall", "reason": "ran longer than 60 s", "returncode": None},
            Verdict.UNDECIDED,
            "longer than 60 s",
        ),
        ({"returncode": 1, "crash": CRASH | {"path": "train_gpt.py", "line": 1}}, Verdict.FAIL, "error of its own"),
        (
            {"returncode": 1, "crash": CRASH | {"type": "ModuleNotFoundError", "path": "train_gpt.py", "line": 1}},
            Verdict.UNDECIDED,
            "ModuleNotFoundError: no x",
        ),
        (
            {"returncode": 1, "crash": CRASH | {"blame": "shim", "path": None, "line": None}},
            Verdict.UNDECIDED,
            "AttributeError: no x",
        ),
        (
            {
                "returncode": 1,
                "refused": [["kernel k", "it has no equivalent"]],
                "crash": CRASH | {"blame": "unknown", "path": "/usr/lib/x.py", "line": 3},
            },
            Verdict.UNDECIDED,
            "it asks for kernel k: it has no equivalent",
        ),
    ],
)
def test_only_an_error_of_the_script_s_own_fails(
    folder: Path, run: dict[str, Any], verdict: Verdict, words: str
) -> None:
    outcome = decide("PG701", facts(folder, run))
    assert outcome.verdict is verdict
    assert words in outcome.message
    assert [place.path for place in outcome.locations] == ["train_gpt.py"]


def test_a_run_without_a_score_is_told_apart_from_one_that_did_not_end(folder: Path) -> None:
    assert decide("PG702", facts(folder)).verdict is Verdict.PASS
    assert decide("PG702", facts(folder, {"val_bpb": None})).verdict is Verdict.WARN
    assert decide("PG702", facts(folder, {"val_bpb": None, "ended": "memory"})).verdict is Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("result", "verdict"), [("same", Verdict.PASS), ("depends", Verdict.FAIL), ("unclear", Verdict.UNDECIDED)]
)
def test_the_artifact_may_not_depend_on_the_validation_text(folder: Path, result: str, verdict: Verdict) -> None:
    experiments = {"non_interference": {"result": result, "reason": "so it is", "artifact": "work/final_model.ptz"}}
    outcome = decide("PG703", facts(folder, experiments=experiments))
    assert outcome.verdict is verdict
    assert "so it is" in outcome.message
    if verdict is Verdict.FAIL:
        (folder / "train_gpt.py").write_text("print(2)\n", encoding="utf-8")
        stale = probe.read(folder.with_name("evidence"), walk(folder))
        assert isinstance(stale, Missing)
        assert decide("PG703", stale).verdict is Verdict.UNDECIDED


@pytest.mark.parametrize("code", ["PG701", "PG702", "PG703"])
def test_without_evidence_nothing_is_decided(code: str, folder: Path) -> None:
    assert decide(code, Missing("no evidence of a probe was given")).verdict is Verdict.UNDECIDED
    assert decide(code, facts(folder, runs=[])).verdict is Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "probe.json is missing"),
        ("{", "not readable as JSON"),
        ("[]", "probe.json"),
        ('{"schema": "probe/2"}', "probe.json"),
        ("[" * 100_000, "not readable as JSON"),
    ],
)
def test_broken_evidence_is_one_clear_error(tmp_path: Path, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / "probe.json").write_text(text, encoding="utf-8")
    with pytest.raises(HarnessError, match=told):
        probeevidence.read(tmp_path)


def test_evidence_beyond_the_cap_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probeevidence, "DOCUMENT_CAP_BYTES", 10)
    (tmp_path / "probe.json").write_text(" " * 11, encoding="utf-8")
    with pytest.raises(HarnessError, match="larger than 10 bytes"):
        probeevidence.read(tmp_path)


def test_a_document_that_the_schema_rejects_is_not_written(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"probe\.json"):
        probeevidence.write(folder, document(folder, {"ended": "somehow"}))
    assert not probeevidence.has_evidence(folder)


def ran(digest: str | None, size: int | None = 900, sizes: Iterable[int] = ()) -> MiniatureRun:
    ended = Ended(Level.L3, "bubblewrap", "exit", "exit status 0", 0, 1.0, 1.0, 1, Path("o"), None, Path("k"))
    files = {} if digest is None else {"work/final_model.ptz": (digest, 900), "work/other.pt": ("o", 7)}
    return MiniatureRun(ended, (), Printed(2.5, 4.2, size, frozenset(sizes)), files)


def test_the_error_of_a_copy_is_not_that_of_the_run() -> None:
    mine, copied = {"kind": "crash", "type": "A"}, {"kind": "crash", "type": "B", "variant": "damaged"}
    outcome = ran("a").outcome
    assert MiniatureRun(outcome, (copied,)).crash is None
    assert MiniatureRun(outcome, (copied, mine)).crash == mine


def test_functions_that_never_ran_are_named(folder: Path) -> None:
    text = "def alive():\n    return 1\n\nclass A:\n    def dead(self):\n        return 2\n\ndef gone():\n    pass\n"
    assert functions_not_run(text, [(1, 3), (4, 6), (8, 9)]) == ["A.dead", "gone"]
    assert functions_not_run("def (", []) == []
    told = summary(facts(folder, not_run=["A.dead", "gone"]))
    assert "not exercised: functions that the traced run never entered: A.dead; gone" in told


def test_two_files_of_the_printed_size_are_no_artifact() -> None:
    run = ran("a")
    files = dict(run.files) | {"work/copy.ptz": ("a", 900)}
    assert MiniatureRun(run.outcome, (), Printed(2.5, 4.2, 900), files).artifact() is None


def test_the_summary_says_what_ran_and_what_did_not(folder: Path) -> None:
    crash = CRASH | {"path": "train_gpt.py", "line": 1, "message": "no \x1b[31mx"}
    text = summary(facts(folder, {"returncode": 1, "val_bpb": None, "crash": crash}))
    assert "no final score, 4 s, 300 MB" in text
    assert "train_gpt.py:1 (blame: script; nothing defines x)" in text
    assert "shrunk: ITERATIONS: 20000 -> 8" in text
    assert "\x1b" not in text


def test_the_command_probes_and_prints_one_document(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["probe", str(folder), "--evidence", str(tmp_path / "out"), "--seconds", "60", "--allow-unsafe"]
    assert main([*arguments, "--format", "json"]) == 1  # the folder has no README
    printed = capsys.readouterr()
    report = json.loads(printed.out)["submissions"][0]
    verdicts = {row["rule"]: row["verdict"] for row in report["findings"]}
    assert (verdicts["PG701"], verdicts["PG702"]) == ("pass", "warn")
    assert report["facts"]["probe"]["script"] == "train_gpt.py"
    assert "bare: train_gpt.py on" in printed.err
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["submissions"] == [report]
    assert main([*arguments]) == 2
    assert "not empty" in capsys.readouterr().err
    assert main([*arguments, "--fresh"]) == 1
    assert "bare: no final score" in capsys.readouterr().out


def test_without_torch_the_command_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("harness.cli.probing.NEEDED", ("torch", "nothing_of_this_name"))
    assert main(["probe", str(folder)]) == 2
    assert "nothing_of_this_name, not installed here: pip install" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "x", "100000"])
def test_seconds_out_of_reach_are_refused(folder: Path, seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["probe", str(folder), "--seconds", seconds])
    assert "expected seconds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("bits", "ledger", "verdict", "words"),
    [
        # 4.2 nats and 4 bytes a token are 1.5149 bits per byte.
        (1.5149, {}, Verdict.PASS, "counts 3.9998 bytes per token, the text has 4.0024"),
        (1.5149 / 1.05, {}, Verdict.WARN, "+4.9%"),
        (1.5149 / 1.2, {}, Verdict.FAIL, "+19.9%"),
        (1.5149 / 1.35, {}, Verdict.FAIL, "+34.9%"),
        (1.5149 / 1.5, {}, Verdict.UNDECIDED, "no known error counts so many"),
        (1.5149 * 1.2, {}, Verdict.WARN, "-16.7%"),
        (1.5149 / 1.2, {"missing": [[100, 900]]}, Verdict.WARN, "whole text is not known"),
        (1.5149 / 1.2, {"result": "unbound"}, Verdict.WARN, "whole text is not known"),
        (None, {}, Verdict.UNDECIDED, "no loss beside its score"),
    ],
)
def test_bytes_are_those_of_the_text(
    folder: Path, bits: float | None, ledger: dict[str, Any], verdict: Verdict, words: str
) -> None:
    [rule] = behaviour_bytes.RULES
    found = facts(folder, {"val_bpb": bits}, experiments={"ledger": LEDGER | ledger})
    outcome = rule.check(factories.submission(probe=found))
    assert outcome is not None
    assert (outcome.verdict, words in outcome.message) == (verdict, True), outcome.message


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("fineweb_own_bpe.model", "", "ships fineweb_own_bpe.model"),
        ("tables/byte_lut.npy", "", "ships tables/byte_lut.npy"),
        ("own_tokenizer.json", "", "ships own_tokenizer.json"),
        ("notes.md", "TOTAL = 151_080_891\n", "holds 151_080_891"),
        ("notes.md", "bpb = loss / math.log(2) / 3.7266\n", "holds 3.7266"),
    ],
)
def test_bytes_of_another_text_accuse_nobody(folder: Path, file: str, text: str, words: str) -> None:
    [rule] = behaviour_bytes.RULES
    found = facts(folder, {"val_bpb": 1.5149 / 1.2}, experiments={"ledger": LEDGER})
    scripts = (factories.script(texts=("x = 1.5\n", text)),)
    package = factories.package(files=(ShippedFile(file, 100),), scripts=scripts)
    outcome = rule.check(factories.submission(probe=found, package=package))
    assert outcome is not None
    assert (outcome.verdict, words in outcome.message) == (Verdict.UNDECIDED, True), outcome.message


def test_facts_of_a_probe_have_places(folder: Path) -> None:
    found = facts(folder)
    [run] = found.runs
    assert isinstance(run.val_bpb, Located)
    assert str(run.val_bpb.location) == "probe.json#/runs/0/val_bpb"
    assert run.approximated == ("torch.compile: runs uncompiled",)


LEDGER: dict[str, Any] = {
    "result": "bound",
    "reason": "the printed loss is the mean of the scores added up at train_gpt.py:1 evaluate",
    "where": "train_gpt.py:1 evaluate",
    "count": 1000,
    "learned_before": 0,
    "learned": [],
    "missing": [],
    "doubled": [],
    "tokens": 1000,
    "passes": 1,
    "timeline": [],
    "left_out": 0,
}


def order(folder: Path, code: str, **changes: Any) -> Outcome:
    [rule] = [each for each in behaviour_order.RULES if each.code == code]
    found = facts(folder, experiments={"ledger": LEDGER | changes})
    outcome = rule.check(factories.submission(probe=found))
    assert outcome is not None
    return outcome


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, Verdict.PASS),
        ({"learned_before": 900, "learned": [[0, 900]]}, Verdict.FAIL),
        ({"learned_before": 60, "learned": [[1, 61]]}, Verdict.WARN),
        ({"learned_before": 3, "learned": [[64, 65], [128, 129], [192, 193]]}, Verdict.WARN),
        ({"learned_before": 200, "learned": [[64, 65]]}, Verdict.FAIL),
        ({"result": "unbound", "learned_before": 900}, Verdict.UNDECIDED),
        ({"result": "nothing"}, Verdict.UNDECIDED),
    ],
)
def test_tokens_learned_before_their_score(folder: Path, changes: dict[str, Any], verdict: Verdict) -> None:
    outcome = order(folder, "PG704", **changes)
    assert outcome.verdict is verdict
    assert [str(place) for place in outcome.locations] == [
        "train_gpt.py" if verdict is Verdict.UNDECIDED else "train_gpt.py:1"
    ]


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, Verdict.PASS),
        ({"missing": [[960, 1000]]}, Verdict.PASS),
        ({"missing": [[1, 400], [960, 1000]]}, Verdict.WARN),
        ({"doubled": [[0, 500]]}, Verdict.WARN),
        ({"result": "unbound"}, Verdict.UNDECIDED),
    ],
)
def test_tokens_left_out_or_counted_again(folder: Path, changes: dict[str, Any], verdict: Verdict) -> None:
    assert order(folder, "PG705", **changes).verdict is verdict


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({}, Verdict.PASS, "no network"),
        ({"programs": ["nvidia-smi"]}, Verdict.PASS, "It started nvidia-smi."),
        ({"network": ["('192.0.2.1', 80)"]}, Verdict.WARN, "192.0.2.1"),
        ({"training_data": ["data/fineweb_train_000000.bin"]}, Verdict.WARN, "fineweb_train_000000.bin"),
    ],
)
def test_what_a_script_reaches_for(folder: Path, changes: dict[str, Any], verdict: Verdict, words: str) -> None:
    [rule] = [each for each in behaviour_order.RULES if each.code == "PG706"]
    empty: dict[str, list[str]] = {"network": [], "programs": [], "training_data": []}
    outcome = rule.check(factories.submission(probe=facts(folder, experiments={"reach": empty | changes})))
    assert outcome is not None
    assert outcome.verdict is verdict
    assert words in outcome.message
    for unknown in (facts(folder), Missing("no evidence of a probe was given")):
        undecided = rule.check(factories.submission(probe=unknown))
        assert undecided is not None
        assert undecided.verdict is Verdict.UNDECIDED


def test_training_data_counts_only_after_the_artifact_was_read() -> None:
    def opened(path: str, mode: str = "r") -> dict[str, Any]:
        return {"kind": "file", "path": path, "mode": mode}

    first = opened("data/fineweb_train_000000.bin")
    later = opened("data/fineweb_train_000001.bin")
    events = (
        first,
        opened("final_model.ptz", "wb"),
        first,
        opened("./final_model.ptz", "rb"),
        later,
        opened("train.log", "a"),
        {"kind": "socket", "address": "('127.0.0.1', 80)"},
        {"kind": "socket", "address": "example.org"},
        {"kind": "socket", "what": "socket.bind", "address": "('0.0.0.0', 0)"},
        {"kind": "process", "command": "nvidia-smi"},
    )
    run = ran("a")
    found = reach.judge(MiniatureRun(run.outcome, events, run.printed, run.files))
    assert found.training_data == ("data/fineweb_train_000001.bin",)
    assert (found.network, found.programs) == (("example.org",), ("nvidia-smi",))
    assert reach.judge(MiniatureRun(run.outcome, events, Printed(2.5, 4.2))).training_data == ()


def test_a_score_in_a_form_that_is_not_read_is_not_called_missing(folder: Path) -> None:
    [rule] = [each for each in behaviour.RULES if each.code == "PG702"]
    line = "VARIATIONAL BPB: 2.1655"
    for unread, verdict in ((line, Verdict.UNDECIDED), ("", Verdict.WARN)):
        outcome = rule.check(factories.submission(probe=facts(folder, {"val_bpb": None, "unread": unread})))
        assert outcome is not None
        assert outcome.verdict is verdict
        assert unread in outcome.message


def test_evidence_of_other_code_says_nothing(folder: Path) -> None:
    facts(folder, experiments={"ledger": LEDGER | {"learned_before": 900, "learned": [[0, 900]]}})
    (folder / "train_gpt.py").write_text("print(3)\n", encoding="utf-8")
    stale = probe.read(folder.with_name("evidence"), walk(folder))
    rules = [each for each in RULES if each.needs is Evidence.PROBE]
    assert {"PG701", "PG702", "PG703", "PG706", "PG711", "PG712"} < {rule.code for rule in rules}
    for rule in rules:
        outcome = rule.check(factories.submission(probe=stale))
        assert outcome is not None
        assert outcome.verdict is Verdict.UNDECIDED
        assert "no longer what was run" in outcome.message


def test_a_ledger_that_is_not_there_accuses_nobody(folder: Path) -> None:
    [rule] = [each for each in behaviour_order.RULES if each.code == "PG704"]
    for found in (Missing("no evidence of a probe was given"), facts(folder)):
        outcome = rule.check(factories.submission(probe=found))
        assert outcome is not None
        assert outcome.verdict is Verdict.UNDECIDED


def traced(*events: dict[str, Any], loss: float | None = 4.2) -> MiniatureRun:
    return MiniatureRun(ran("a").outcome, events, Printed(2.5, loss))


def test_the_reported_pass_is_the_one_with_the_printed_loss() -> None:
    first = {"kind": "pass", "pass": 0, "mean": 4.5, "count": 99, "where": "a.py:1 f", "learned_before": 99}
    second = {"kind": "pass", "pass": 1, "mean": 4.20002, "count": 99, "where": "a.py:2 g", "learned_before": 2}
    scores = [
        {"kind": "score", "pass": 0, "learned": [[0, 50]]},
        {"kind": "score", "pass": 1, "learned": [[7, 9], "x", [1], [True, 2]]},
    ]
    found = ledger.judge(traced(first, second, *scores), 100)
    assert (found.result, found.where, found.learned_before, found.learned) == ("bound", "a.py:2 g", 2, ((7, 9),))
    assert ledger.judge(traced(first, second, loss=4.3), 100).result == "unbound"
    third = second | {"pass": 2, "mean": 4.20003, "learned_before": 0}
    assert ledger.judge(traced(second, third), 100).result == "unbound"
    assert ledger.judge(traced(second, third | {"mean": 4.2}), 100).learned_before == 0
    assert ledger.judge(traced(second, third | {"learned_before": 5}), 100).learned_before == 5
    assert ledger.judge(traced(first, loss=None), 100).result == "unbound"
    assert ledger.judge(traced({"kind": "pass", "mean": None}), 100).result == "nothing"


@pytest.mark.parametrize(
    ("mean", "learned", "result"),
    [
        (4.2, 0, "bound"),
        (4.20003, 0, "bound"),
        (4.2001, 0, "unbound"),
        (4.20003, 2, "bound"),
        (4.2001, 2, "unbound"),
    ],
)
def test_a_pass_with_about_the_printed_loss_neither_accuses_nor_clears(mean: float, learned: int, result: str) -> None:
    one = {"kind": "pass", "pass": 0, "mean": mean, "count": 99, "where": "a.py:1 f", "learned_before": learned}
    found = ledger.judge(traced(one), 100)
    assert found.result == result
    assert result == "bound" or "what is reported may be another score" in found.reason


@pytest.mark.parametrize(("count", "vocabulary"), [(1, 1024), (1_700, 1024), (3_000, 256)])
def test_no_trigram_of_the_unique_text_occurs_twice(count: int, vocabulary: int) -> None:
    tokens = unique_tokens(count, vocabulary, 3)
    trigrams = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
    assert tokens.size == count
    assert tokens.max() < vocabulary
    assert len(set(trigrams)) == len(trigrams)


def test_a_vocabulary_too_small_for_unique_trigrams_ends_all_the_same() -> None:
    assert unique_tokens(500, 6, 0).size == 500


def test_every_copy_of_a_shard_is_replaced(tmp_path: Path) -> None:
    for name, content in (("a.bin", b"old"), ("deep/b.bin", b"old"), ("c.bin", b"new but other")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    replace_everywhere(tmp_path, b"old", b"new")
    assert [(tmp_path / name).read_bytes() for name in ("a.bin", "deep/b.bin", "c.bin")] == [
        b"new",
        b"new",
        b"new but other",
    ]
