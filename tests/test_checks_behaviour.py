"""The rules on what a probe saw, with evidence of our own making."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.checks import RULES, behaviour, behaviour_bytes, behaviour_order
from harness.facts import probe
from harness.facts.package import ShippedFile
from harness.facts.probe import ProbeFacts
from harness.model import Evidence, Missing, Outcome, Verdict
from harness.sources.folder import walk
from tests import factories
from tests.probefacts import CRASH, LEDGER, facts, script_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return script_folder(tmp_path)


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
    ("bits", "ledger", "verdict", "words"),
    [
        # 4.2 nats and 4 bytes a token are 1.5149 bits per byte.
        (1.5149, {}, Verdict.PASS, "counts 3.9998 bytes per token, the text has 4.0024"),
        (1.5149 / 1.05, {}, Verdict.WARN, "+4.9%"),
        (1.5149 / 1.2, {}, Verdict.FAIL, "+19.9%"),
        (1.5149 / 1.35, {}, Verdict.FAIL, "+34.9%"),
        (1.5149 / 1.5, {}, Verdict.UNDECIDED, "no known error counts so many"),
        (1.5149 * 1.2, {}, Verdict.WARN, "-16.7%"),
        (1.5149 / 1.2, {"missing": [[100, 900]]}, Verdict.UNDECIDED, "it scored a part of the text"),
        (1.5149 / 1.2, {"result": "unbound"}, Verdict.WARN, "whole text is not known"),
        (1.5149 / 1.05, {"result": "unbound"}, Verdict.UNDECIDED, "it may have scored a part of the text"),
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
