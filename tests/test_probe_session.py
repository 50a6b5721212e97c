"""Whole probes of small folders of our own, in the strongest sandbox that this machine offers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness import audit
from harness.facts import submission
from harness.facts.settings import Setting
from harness.facts.submission import Submission
from harness.model import HarnessError, Verdict
from harness.probe import claimed, probing, session, unique, world
from harness.probe.experiments import flips, ledger, ranks, variants
from harness.probe.experiments.variants import Variant
from harness.probe.printed import Printed
from harness.probe.session import MiniatureRun, Request
from harness.sandbox.backend import Backend, Sandbox
from harness.sandbox.establish import BACKENDS
from harness.sandbox.levels import Level
from harness.sources import ledgerfile, probeevidence
from harness.sources.cache import user_directory
from tests import factories
from tests.compose import Case, every_case, write_folder
from tests.factories import at
from tests.proberuns import ENDED

# Cases whose artifact depends on the validation text; their legal twins' does not.
INTERFERING = ("calibration", "paid_prefix", "validation_in_training")
# Cases in which weights learn from tokens before these are scored.
LEARNING = ("gradient_in_place", "later_epoch", "sgd_before_score", "slot", "slot_shared", "two_passes", "warm_up")
# What each case of scores that are no distribution is caught by.
MIXED = {
    "byte_mixture": ("helper", "PG709", Verdict.WARN),
    "hint_tilt": ("packed", "PG708", Verdict.FAIL),
    "minimum_of_two": ("renamed", "PG709", Verdict.FAIL),
}
CODES = ("PG701", "PG702", "PG703", "PG704", "PG711")
# Packs what it finds in some files; no model, so that a run takes no longer than its start.
SCRIPT = """
import glob, os, sys, zlib
print("settings", os.environ.get("EXTRA", "none"), os.environ.get("ITERATIONS"))
parts = [open(path, "rb").read()[1024:3000] for path in sorted(glob.glob("data/datasets/*/fineweb_{files}_*.bin"))]
packed = zlib.compress(b"".join(parts))
open("final_model.ptz", "wb").write(packed)
print(f"Serialized model int8+zlib: {{len(packed)}} bytes")
print("final_int8_zlib_roundtrip_exact val_loss:2.01770734 val_bpb:1.19500001 eval_time:70123ms")
"""


@pytest.fixture
def sandbox(usable: dict[Level, str]) -> Sandbox:
    backend = next(each for each in BACKENDS if not usable[each.level])
    return Sandbox(backend, backend.level)


def probe(folder: Path, evidence: Path, sandbox: Sandbox, codes: Iterable[str] = CODES) -> dict[str, Verdict]:
    """Probe a folder; returns the verdicts of the rules of behaviour."""
    told: list[str] = []
    probing.run(probing.prepare(folder, submission.read(folder)), evidence, sandbox, told.append, 180)
    assert told[0].startswith("bare: ")
    audited = audit.audit_folder(folder, audit.Options(frozenset(codes), probe=evidence))
    assert audited.report is not None, audited
    return {finding.rule: finding.verdict for finding in audited.report.findings}


def write(folder: Path, script: str) -> Path:
    folder.mkdir()
    (folder / "train_gpt.py").write_text(script, encoding="utf-8")
    (folder / "README.md").write_text("# A run\n", encoding="utf-8")
    return folder


@pytest.mark.slow
def test_an_artifact_made_of_training_data_alone_passes(tmp_path: Path, sandbox: Sandbox) -> None:
    folder = write(tmp_path / "run", SCRIPT.format(files="train"))
    verdicts = probe(folder, tmp_path / "evidence", sandbox)
    assert [verdicts[code] for code in ("PG701", "PG702", "PG703")] == [Verdict.PASS] * 3
    document = probeevidence.read(tmp_path / "evidence")
    assert [run["name"] for run in document["runs"]] == ["bare", "other-validation", "ledger", "flips"]
    assert document["runs"][0]["val_bpb"] == 1.19500001
    assert document["shrunk"]["ITERATIONS"] == ["", "8"]
    header, *lines = ledgerfile.read(tmp_path / "evidence" / ledgerfile.NAME)
    assert (header["rejected"], header["lines"], header["script"]) == (0, len(lines), "train_gpt.py")
    assert any(line["kind"] == "file" and line["path"].startswith("data/") for line in lines)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "train_gpt.py"]
    with pytest.raises(HarnessError, match="not empty"):
        probing.run(
            probing.prepare(folder, submission.read(folder)), tmp_path / "evidence", sandbox, lambda _: None, 60
        )
    probing.remove(tmp_path / "evidence")
    assert not (tmp_path / "evidence").exists()


# A curriculum that begins at 128 tokens, and a loader that does not begin again at the end of its files.
LENGTHS = """
stages, length = [], 128
while length <= int(os.environ.get("TRAIN_SEQ_LEN", 1024)):
    stages.append(length)
    length *= 2
print("last stage", stages[-1])
"""
FILES = """
held = sum(os.path.getsize(path) - 1024 for path in glob.glob("data/datasets/*/fineweb_train_*.bin")) // 2
if held < 2 * int(os.environ.get("TRAIN_SEQ_LEN", 1024)) * 80:
    raise RuntimeError("no shards are left")
print("last stage 128")
"""


@pytest.mark.slow
@pytest.mark.parametrize("needs", [LENGTHS, FILES])
def test_a_script_that_ends_on_short_sequences_is_given_longer_ones(
    needs: str, tmp_path: Path, sandbox: Sandbox
) -> None:
    folder = write(tmp_path / "run", SCRIPT.format(files="train") + needs)
    verdicts = probe(folder, tmp_path / "evidence", sandbox)
    assert [verdicts[code] for code in ("PG701", "PG702", "PG703")] == [Verdict.PASS] * 3
    document = probeevidence.read(tmp_path / "evidence")
    assert document["shrunk"]["TRAIN_SEQ_LEN"] == ["1024", "128"]
    assert document["runs"][0]["crash"] is None
    assert "last stage 128" in (tmp_path / "evidence" / "bare" / "output.log").read_text(encoding="utf-8")


# Writes a module beside itself and imports it, as scripts do that compile a helper.
BESIDE = """
import pathlib, torch
(pathlib.Path(__file__).parent / "made_here.py").write_text("VALUE = 2")
import made_here
print(torch.zeros(made_here.VALUE).cuda().sum().item())
class A:
    pass
A().missing_thing
"""


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: str(backend.level))
def test_a_run_may_write_beside_its_script_at_every_level(
    tmp_path: Path, backend: Backend, usable: dict[Level, str]
) -> None:
    if usable[backend.level]:
        pytest.skip(f"{backend.name}: {usable[backend.level]}")
    folder = write(tmp_path / "run", BESIDE)
    verdicts = probe(folder, tmp_path / "evidence", Sandbox(backend, backend.level))
    assert (verdicts["PG701"], verdicts["PG702"]) == (Verdict.FAIL, Verdict.UNDECIDED)
    crash = probeevidence.read(tmp_path / "evidence")["runs"][0]["crash"]
    assert (crash["type"], crash["path"], crash["line"]) == ("AttributeError", "train_gpt.py", 8)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "train_gpt.py"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: str(backend.level))
def test_copies_of_the_process_are_made_at_every_level(
    tmp_path: Path, backend: Backend, usable: dict[Level, str]
) -> None:
    if usable[backend.level]:
        pytest.skip(f"{backend.name}: {usable[backend.level]}")
    folder = write(tmp_path / "run", SCRIPT.format(files="val") + "print(len(open('final_model.ptz', 'rb').read()))\n")
    probe = probing.prepare(folder, submission.read(folder))
    made = world.write_world(tmp_path / "data", probe.miniature.spec, user_directory("tokenizers") or tmp_path / "kept")
    chosen = (Variant("nothing", "nothing"), Variant("self-9", "self", 9, {"flip": 9, "token": 77}))
    order = variants.order(chosen, "work/final_model.ptz", 60, reading=True)
    shard = (made.shards / "fineweb_val_000000.bin").relative_to(made.folder).as_posix()
    request = Request(folder, probe.script, probe.miniature, made, 120, (shard,), order)
    done = session.run(request, tmp_path / "out", Sandbox(backend, backend.level))
    assert [(event["name"], event["status"]) for event in done.of("variant")] == [("nothing", 0), ("self-9", 0)]
    assert done.outcome.returncode == 0


@pytest.mark.slow
def test_an_artifact_that_holds_validation_text_fails(tmp_path: Path, sandbox: Sandbox) -> None:
    folder = write(tmp_path / "run", SCRIPT.format(files="val"))
    assert probe(folder, tmp_path / "evidence", sandbox)["PG703"] is Verdict.FAIL
    names = [run["name"] for run in probeevidence.read(tmp_path / "evidence")["runs"]]
    assert names == ["bare", "other-validation", "again", "other-validation-again", "ledger", "flips"]


@pytest.mark.parametrize(
    ("script", "first", "second"),
    [
        ("class A:\n    pass\nA().missing_thing\n", Verdict.FAIL, Verdict.UNDECIDED),
        ("print('hello')\n", Verdict.PASS, Verdict.WARN),
        ("raise ValueError('too small')\n", Verdict.UNDECIDED, Verdict.UNDECIDED),
    ],
)
def test_crashes_and_silence(tmp_path: Path, sandbox: Sandbox, script: str, first: Verdict, second: Verdict) -> None:
    verdicts = probe(write(tmp_path / "run", script), tmp_path / "evidence", sandbox)
    assert verdicts == {"PG701": first, "PG702": second} | dict.fromkeys(("PG703", "PG704", "PG711"), Verdict.UNDECIDED)


def test_what_cannot_be_probed_is_one_clear_error(tmp_path: Path, sandbox: Sandbox) -> None:
    folder = write(tmp_path / "run", "print(1)\n")
    made = probing.prepare(folder, submission.read(folder))
    with pytest.raises(HarnessError, match="may not lie inside"):
        probing.run(made, folder / "evidence", sandbox, lambda _: None, 60)
    (folder / "train_gpt.py").unlink()
    with pytest.raises(HarnessError, match="no script to probe"):
        probing.prepare(folder, submission.read(folder))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(HarnessError, match="not removed"):
        probing.remove(tmp_path / "mine")


def configured(**changes: object) -> Submission:
    script = factories.script(
        environment=(at(("TTT_ENABLED", "0")), at(("DATA_PATH", "x")), at(("WIDTH", None)), at(("TTT_ENABLED", None)))
    )
    package = factories.package(scripts=(script,))
    runs = tuple(
        factories.run(seed, config={name.lower(): at(str(value)) for name, value in changes.items()}) for seed in (1, 2)
    )
    return dataclasses.replace(factories.submission(runs=runs), package=package)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        *[(name, True) for name in ("FP16_EMBED_EXPORT", "LORA_RANK", "LQER_RANK", "RUN_PROFILE", "DIRICHLET_ALPHA")],
        *[(name, False) for name in ("DATA_PATH", "DATADIR", "CKPT_DIR", "TRAIN_FILES", "LOCAL_RANK", "RANK", "SEED")],
        *[
            (name, False)
            for name in ("TTT_EVAL_ONLY", "EVAL_ONLY_PATH", "SKIP_TRAINING", "RESUME_FROM", "LOAD_SNAPSHOT")
        ],
        *[(name, True) for name in ("SKIP_GATES_ENABLED", "TTT_MLP_ONLY", "SKIP_SLIDING", "NGRAM_ONLY")],
        *[(name, False) for name in ("MASTER_PORT", "MASTER_ADDR", "WORLD_SIZE", "MAX_WALLCLOCK_SECONDS", "RUN_ID")],
    ],
)
def test_places_of_a_machine_are_no_settings(name: str, kept: bool) -> None:  # noqa: FBT001
    told = dataclasses.replace(configured(), commanded={name: "1"})
    assert claimed.environment(told, {name}) == ({name: "1"} if kept else {})


def test_switches_that_a_log_shows_stand_before_a_command() -> None:
    told = dataclasses.replace(configured(), commanded={"TTT_ENABLED": "0"}, switched={"TTT_ENABLED": "1"})
    assert claimed.environment(told) == {"TTT_ENABLED": "1"}
    guessed = dataclasses.replace(configured(), guessed={"WIDTH": "2", "UNREAD": "2"})
    assert claimed.environment(guessed) == {"WIDTH": "2"}


def test_words_of_a_command_are_settings_too() -> None:
    told = {"WIDTH": "'wide'", "TTT_ENABLED": "0", "UNREAD": "1"}
    found = dataclasses.replace(configured(TTT_ENABLED=True), commanded=told)
    assert claimed.environment(found) == {"TTT_ENABLED": "1", "WIDTH": "wide"}
    told_alone = (at(Setting("width", 64.0)),)
    withdrawn = dataclasses.replace(found, runs=(), commanded={}, settings=told_alone)
    assert claimed.environment(withdrawn) == {}
    assert claimed.environment(dataclasses.replace(withdrawn, commanded={"OTHER": "1"})) == {"WIDTH": "64"}
    strange = dataclasses.replace(configured(), commanded={"WIDTH": "$(cat x)", "TTT_ENABLED": "1,2"})
    assert claimed.environment(strange) == {}


def test_the_environment_is_that_of_the_claimed_run() -> None:
    assert claimed.environment(configured(TTT_ENABLED=True, DATA_PATH="/x", WIDTH=64)) == {
        "TTT_ENABLED": "1",
        "WIDTH": "64",
    }
    assert claimed.environment(configured(TTT_ENABLED="[1, 2]")) == {}
    assert claimed.environment(configured(KIND="lora"), {"KIND", "OTHER"}) == {"KIND": "lora"}
    assert claimed.environment(configured(TTT_ENABLED="disabled", WIDTH="wide")) == {"WIDTH": "wide"}


@pytest.fixture
def without_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """No copies of the process and no sums: the tests of the cases on copies make them, at a fraction of the time."""
    left_out = probing._plain(flips.nothing("left out")), None
    monkeypatch.setattr(probing, "_flips", lambda *_, **_options: left_out)


@pytest.mark.slow
@pytest.mark.usefixtures("without_copies")
@pytest.mark.parametrize("case", every_case("legal"), ids=str)
def test_no_legal_case_is_accused(case: Case, tmp_path: Path, sandbox: Sandbox) -> None:
    verdicts = probe(write_folder(case, tmp_path / "run", "plain"), tmp_path / "evidence", sandbox)
    assert [verdicts[code] for code in ("PG701", "PG702", "PG703")] == [Verdict.PASS] * 3
    assert {verdicts["PG704"], verdicts["PG711"]} <= {Verdict.PASS, Verdict.UNDECIDED}


@pytest.mark.slow
@pytest.mark.usefixtures("without_copies")
@pytest.mark.parametrize("case", [case for case in every_case("illegal") if case.name in LEARNING], ids=str)
@pytest.mark.parametrize("disguise", ["renamed"])
def test_learning_before_the_score_fails(case: Case, disguise: str, tmp_path: Path, sandbox: Sandbox) -> None:
    verdicts = probe(write_folder(case, tmp_path / "run", disguise), tmp_path / "evidence", sandbox)
    # The warm-up learns from two windows alone, fewer than a tenth of the text.
    assert verdicts["PG704"] is (Verdict.WARN if case.name == "warm_up" else Verdict.FAIL)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "disguise", "verdict"), [("illegal", "renamed", Verdict.FAIL), ("legal", "plain", Verdict.PASS)]
)
def test_the_order_of_scores_that_numpy_makes_is_seen_where_copies_are_made(
    kind: str, disguise: str, verdict: Verdict, tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Sums take a minute, and say nothing of the order.
    monkeypatch.setattr(flips, "needs_sum", lambda _: False)
    folder = write_folder(Case("segmented_updates", kind), tmp_path / "run", disguise)
    verdicts = probe(folder, tmp_path / "evidence", sandbox, ("PG704", "PG705"))
    assert (verdicts["PG704"], verdicts["PG705"]) == (verdict, Verdict.PASS)
    found = probeevidence.read(tmp_path / "evidence")["experiments"]["ledger"]
    assert "on the text whose phrases repeat" in found["reason"]


@pytest.mark.slow
@pytest.mark.usefixtures("without_copies")
@pytest.mark.parametrize(
    ("kind", "disguise", "verdict"), [("illegal", "renamed", Verdict.FAIL), ("legal", "plain", Verdict.PASS)]
)
def test_what_only_two_processes_do_is_seen(
    kind: str, disguise: str, verdict: Verdict, tmp_path: Path, sandbox: Sandbox
) -> None:
    if sandbox.level is Level.L2:
        pytest.skip("no network at all")
    case = Case("two_ranks", kind)
    verdicts = probe(write_folder(case, tmp_path / "run", disguise), tmp_path / "evidence", sandbox)
    assert (verdicts["PG704"], verdicts["PG711"]) == (Verdict.PASS, verdict)
    header, *lines = ledgerfile.read(tmp_path / "evidence" / ledgerfile.TWO_RANKS_NAME)
    assert (header["ranks"], header["rejected"], {line["rank"] for line in lines}) == (2, 0, {0, 1})


@pytest.mark.slow
@pytest.mark.usefixtures("without_copies")
@pytest.mark.parametrize("case", [case for case in every_case("illegal") if case.name in INTERFERING], ids=str)
@pytest.mark.parametrize("disguise", ["packed"])
def test_an_illegal_case_interferes(case: Case, disguise: str, tmp_path: Path, sandbox: Sandbox) -> None:
    verdicts = probe(write_folder(case, tmp_path / "run", disguise), tmp_path / "evidence", sandbox)
    assert verdicts["PG703"] is Verdict.FAIL


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXED)
def test_scores_of_no_distribution_are_shown(name: str, tmp_path: Path, sandbox: Sandbox) -> None:
    disguise, code, verdict = MIXED[name]
    verdicts = probe(write_folder(Case(name, "illegal"), tmp_path / "run", disguise), tmp_path / "e", sandbox, [code])
    assert verdicts == {code: verdict}


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXED)
def test_scores_of_a_distribution_are_not_accused(
    name: str, tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A sum that is no more than one cannot end before its last token.
    monkeypatch.setattr(probing, "SUMS_SECONDS", 4.0)
    monkeypatch.setattr(probing, "SUMS_RUNS", 0)
    codes = ("PG707", "PG708", "PG709")
    verdicts = probe(write_folder(Case(name, "legal"), tmp_path / "run", "plain"), tmp_path / "e", sandbox, codes)
    assert set(verdicts.values()) <= {Verdict.PASS, Verdict.UNDECIDED}
    assert name != "hint_tilt" or set(verdicts.values()) == {Verdict.PASS}


@pytest.mark.parametrize(
    ("artifact", "learned", "later", "certain"),
    [
        ("same", 0, "same", False),
        ("unclear", 10, "unclear", False),
        ("depends", 0, "same", True),
        ("same", 11, "same", True),
        ("same", 0, "depends", True),
    ],
)
def test_dear_experiments_are_left_out_where_another_has_shown_a_violation(
    artifact: str, learned: int, later: str, *, certain: bool
) -> None:
    found = {
        "non_interference": {"result": artifact},
        "ledger": {"result": "bound", "learned_before": learned, "count": 100},
        "flips": {"later": {"result": later}, "target": {"result": "same"}},
    }
    assert probing._certain(found) is certain


@pytest.mark.parametrize(("score", "names"), [(2.5, [ranks.TRACED]), (None, [ranks.TRACED, ranks.RUN])])
def test_the_untraced_run_of_two_is_made_where_the_traced_one_has_no_score(
    score: float | None, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    alone = MiniatureRun(ENDED, (), Printed(2.5, 4.0))

    def go(name: str, *_: object, **__: object) -> MiniatureRun:
        made.append(name)
        return MiniatureRun(ENDED, (), Printed(score if name == ranks.TRACED else 2.4))

    runs = SimpleNamespace(
        probe=SimpleNamespace(ranked=True, miniature=None, script="train_gpt.py"),
        sandbox=SimpleNamespace(level=Level.L3),
        directory=tmp_path,
        done={probing.BARE: alone, ledger.RUN: alone},
        go=go,
        tell=lambda _: None,
    )
    monkeypatch.setattr(unique, "unique_world", lambda *_: (SimpleNamespace(val_tokens=100), ()))
    found = probing._two_ranks(cast("Any", runs), cast("Any", None), tmp_path, certain=False)
    assert made == names
    assert (found["result"], found["val_bpb"]) == ("reached", score or 2.4)
