"""Certificates: an honest predictor's text comes back, and nothing else is certified."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import audit
from harness.certify import certifying
from harness.certify import text as texts
from harness.certify.certifying import Request
from harness.certify.conversation import LARGEST_VOCABULARY
from harness.cli import main
from harness.model import HarnessError
from harness.reproduce import plan
from harness.sandbox import runner
from harness.sandbox.backend import Backend, Sandbox
from harness.sandbox.establish import BACKENDS, establish
from harness.sandbox.job import Job
from harness.sandbox.levels import Level
from harness.sources import schemas
from harness.sources.folder import walk
from reference_model.miniature import MINIATURE_VOCAB_SIZE, write_miniature_corpus
from tests.certify_script import SCRIPT

TOKENS = 200
SERVE = {"SERVE_ONLY": "1"}
EVALUATE = {"EVAL_ONLY": "1"}


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    found = establish()
    if found.level == Level.L1:
        pytest.skip("no isolation here")
    return found


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sentencepiece")
    return write_miniature_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def dataset(corpus: Path) -> Path:
    return corpus / "datasets" / f"demo_sp{MINIATURE_VOCAB_SIZE}"


def make_folder(root: Path, behaviour: str = "", **changes: Any) -> Path:
    folder = root / "record"
    folder.mkdir()
    (folder / "train_gpt.py").write_text(SCRIPT, encoding="utf-8")
    (folder / "model.bin").write_bytes((1 + np.arange(MINIATURE_VOCAB_SIZE) % 5).astype("<f8").tobytes())
    reproduction = {
        "script": "train_gpt.py",
        "environment": {"VOCAB_SIZE": str(MINIATURE_VOCAB_SIZE), "BEHAVIOUR": behaviour},
        "artifact": "model.bin",
        "evaluate": EVALUATE,
        "serve": SERVE,
    }
    reproduction = {key: value for key, value in (reproduction | changes).items() if value is not None}
    manifest = {"name": "counting", "author": "a", "github_id": "a", "date": "2026-04-01", "val_bpb": 1.5}
    (folder / "submission.json").write_text(json.dumps(manifest | {"reproduction": reproduction}), encoding="utf-8")
    return folder


def request(folder: Path, dataset: Path, **changes: Any) -> Request:
    made = plan.make(walk(folder), audit.read(folder, None), plan.Request(data=dataset))
    return replace(Request(made, None, token_count=TOKENS, seconds=20.0, threads=1), **changes)


def certified(asked: Request, into: Path, sandbox: Sandbox) -> dict[str, Any]:
    found = certifying.certify(asked, into, sandbox, lambda _: None)
    assert schemas.problems("certificate", found) == []
    return found


def test_an_honest_predictor_is_certified(tmp_path: Path, dataset: Path, sandbox: Sandbox) -> None:
    folder, into = make_folder(tmp_path), tmp_path / "evidence"
    found = certified(request(folder, dataset), into, sandbox)
    assert found["verdict"] == "pass", found["message"]
    assert found["decoded"] == {"tokens_equal": True, "bytes_equal": True, "first_difference": None}
    assert -32 <= found["stream"]["bits"] - found["stream"]["ideal_bits"] <= 64
    assert found["stream"]["ideal_bits"] == pytest.approx(found["stream"]["predicted_bits"], rel=1e-4)
    assert found["stream"]["predicted_bits"] == pytest.approx(found["claim"]["bits"], rel=1e-6)
    assert found["text"]["normalized_bytes"] == found["text"]["bytes"]
    count, _, payload = texts.read_stream((into / "text.stream").read_bytes())
    assert (count, 8 * len(payload)) == (TOKENS, found["stream"]["bits"])
    # It looked for the text on its disk, and for what the demo corpus is made of.
    for phase in ("encode", "decode"):
        assert (into / f"{phase}.log").read_text(encoding="utf-8") == "texts found: []\n"
    again = certified(request(folder, dataset), tmp_path / "again", sandbox)
    assert again["stream"] == found["stream"]


@pytest.mark.parametrize("backend", [one for one in BACKENDS if one.level > Level.L1], ids=lambda one: one.name)
def test_no_text_is_found_at_any_level(
    backend: Backend, usable: dict[Level, str], tmp_path: Path, dataset: Path
) -> None:
    if usable[backend.level]:
        pytest.skip(f"{backend.name}: {usable[backend.level]}")
    into = tmp_path / "evidence"
    found = certified(request(make_folder(tmp_path), dataset), into, Sandbox(backend, backend.level))
    assert (found["verdict"], found["isolation"]["level"]) == ("pass", str(backend.level)), found["message"]
    assert (into / "decode.log").read_text(encoding="utf-8") == "texts found: []\n"


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("nan", r"at token 3: the logarithm of token 7's probability is NaN"),
        ("above", r"at token 1: token 7 has the probability exp\(0\.5\), above 1"),
        ("heavy", r"at token 1: the probabilities sum to 1\.64872, not to 1"),
        ("light", r"at token 1: the probabilities sum to 0\.606531, not to 1"),
        ("crash", r"ended after 1 tokens: exit status 1 \(it said: RuntimeError: something broke\)"),
        ("quits", r"ended after \d tokens: exit status 0"),
        ("endless", r"goes on after the last of 200 tokens"),
        ("ends badly", r"did not end well: exit status 3"),
        ("rude", r"first line is no JSON object: b'hello'"),
        ("stranger", r"speaks other, expected predict/1"),
        ("small", r"vocabulary has 3 tokens, expected 300 to 131072"),
        ("odd", r"numbers are int8, expected float32 or float64"),
        ("random", r"the stream does not fit|token \d+ of 200 did not come back"),
    ],
)
def test_others_are_not_certified(
    behaviour: str, message: str, tmp_path: Path, dataset: Path, sandbox: Sandbox
) -> None:
    found = certified(request(make_folder(tmp_path, behaviour), dataset), tmp_path / "evidence", sandbox)
    assert found["verdict"] == "fail"
    assert re.search(message, found["message"]), found["message"]
    assert not found["decoded"]["tokens_equal"]


@pytest.mark.parametrize("behaviour", ["peeks", "short"])
def test_who_waits_for_the_token_first_waits_for_ever(
    behaviour: str, tmp_path: Path, dataset: Path, sandbox: Sandbox
) -> None:
    asked = request(make_folder(tmp_path, behaviour), dataset, seconds=3.0)
    found = certified(asked, tmp_path / "evidence", sandbox)
    assert found["verdict"] == "fail"
    assert "ended after 1 tokens: ran for more than 3 s" in found["message"]


@pytest.mark.parametrize(
    ("behaviour", "verdict", "message"),
    [
        ("rounded", "pass", "came back bit for bit"),
        ("boasts", "fail", r"cost more than is claimed: [\d,.]+ bits, the claim is [\d,.]+ \(\+(100|99)\.\d+%\)"),
        ("modest", "undecided", "cost less than is claimed"),
        ("numberless", "undecided", r"its size with: the submission's own score of the text is nan \(line \d+"),
        ("free", "undecided", r"its size with: the submission's own score of the text is 0.0 \(line \d+"),
        ("mute", "undecided", "nothing to compare its size with: the submission's own evaluation of the text failed"),
    ],
)
def test_the_size_is_held_against_the_claim(
    behaviour: str, verdict: str, message: str, tmp_path: Path, dataset: Path, sandbox: Sandbox
) -> None:
    found = certified(request(make_folder(tmp_path, behaviour), dataset), tmp_path / "evidence", sandbox)
    assert found["verdict"] == verdict, found["message"]
    assert re.search(message, found["message"]), found["message"]
    assert found["decoded"]["tokens_equal"]


def test_what_a_program_may_say_is_bounded(
    tmp_path: Path, dataset: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Job] = []
    run = runner.run

    def seen(job: Job, *rest: Any, **named: Any) -> Any:
        jobs.append(job)
        return run(job, *rest, **named)

    monkeypatch.setattr(runner, "run", seen)
    certified(request(make_folder(tmp_path), dataset, token_count=20), tmp_path / "evidence", sandbox)
    told = 20 * LARGEST_VOCABULARY * 8
    assert [(job.channel, job.limits.channel_bytes // told) for job in jobs[:2]] == [(True, 1)] * 2
    assert not jobs[2].channel


def test_a_file_named_predictor_is_found_and_no_evaluation_is_no_claim(
    tmp_path: Path, dataset: Path, sandbox: Sandbox
) -> None:
    folder = make_folder(tmp_path, serve=None, evaluate=None)
    (folder / "predictor.py").write_text("import runpy\nrunpy.run_path('train_gpt.py')\n", encoding="utf-8")
    found = certified(request(folder, dataset), tmp_path / "evidence", sandbox)
    assert (found["verdict"], found["predictor"]["script"]) == ("undecided", "predictor.py"), found["message"]
    assert "declares no settings that score an artifact" in found["message"]


def test_another_predictor_can_be_named(tmp_path: Path, dataset: Path, sandbox: Sandbox) -> None:
    folder, other = make_folder(tmp_path, serve=None), tmp_path / "other.py"
    other.write_text(SCRIPT, encoding="utf-8")
    asked = request(folder, dataset, predictor=other, settings=SERVE, token_count=0, byte_count=150)
    found = certified(asked, tmp_path / "evidence", sandbox)
    assert (found["verdict"], found["predictor"]["own"]) == ("pass", False), found["message"]
    assert 150 <= found["text"]["bytes"] < 170


@pytest.mark.parametrize(
    ("changes", "asked", "message"),
    [
        ({"serve": None}, {}, r"nothing in it predicts: .* --predictor"),
        ({"artifact": "none.bin"}, {}, r"no compressed model in it; give it as --artifact FILE"),
        ({}, {"artifact": Path("nowhere")}, "nowhere: no such artifact"),
        ({}, {"predictor": Path("nowhere.py")}, "nowhere.py: no such script"),
        ({}, {"token_count": 10**6}, r"1,000,000 tokens wanted, the validation split has 300 tokens"),
        ({}, {"token_count": 0, "byte_count": 10**6}, r"1,000,000 bytes wanted, the validation split has"),
    ],
)
def test_what_cannot_begin_is_one_clear_error(
    changes: dict[str, Any], asked: dict[str, Any], message: str, tmp_path: Path, dataset: Path, sandbox: Sandbox
) -> None:
    folder, into = make_folder(tmp_path, **changes), tmp_path / "evidence"
    with pytest.raises(HarnessError, match=message):
        certifying.certify(request(folder, dataset, **asked), into, sandbox, lambda _: None)
    assert not into.exists()


def test_the_command(tmp_path: Path, dataset: Path, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    assert sandbox.level > Level.L1
    folder, into = make_folder(tmp_path), tmp_path / "evidence"
    command = ["certify", str(folder), "--tokens", "50", "--data", str(dataset), "--evidence", str(into)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "record: pass: the text came back bit for bit" in said
    code_bytes = (folder / "train_gpt.py").stat().st_size
    held = (folder / "model.bin").stat().st_size + code_bytes
    assert f"  beside it  {held:,} bytes: artifact and {code_bytes:,} of code\n" in said
    assert json.loads((into / "certificate.json").read_text(encoding="utf-8"))["verdict"] == "pass"
    assert main([*command, "--env", "BEHAVIOUR=heavy", "--format", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["verdict"] == "fail"
    (tmp_path / "modest").mkdir()
    folder = make_folder(tmp_path / "modest", "modest")
    assert main(["certify", str(folder), *command[2:], "--strict"]) == 4
    assert main(["certify", str(tmp_path)]) == 2
