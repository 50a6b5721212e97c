"""Evidence directories: whole documents, about the code they say, or one clear error."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.facts import reproduction
from harness.model import HarnessError, Located, Missing
from harness.sources import evidence
from harness.sources.folder import walk
from tests import fakescript

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder and the evidence of one seed, made once."""
    root = tmp_path_factory.mktemp("finished")
    fakescript.reproduce(fakescript.make_plan(fakescript.make_folder(root)), root / "evidence")
    return root


def copy_of(finished: Path, target: Path) -> Path:
    """The evidence's documents, to be spoiled."""
    for name in ("plan.json", "seed-1/run.json"):
        path = target / "evidence" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((finished / "evidence" / name).read_bytes())
    return target / "evidence"


def test_both_documents_fit_the_schema(finished: Path) -> None:
    found = evidence.read(finished / "evidence")
    assert found.plan["schema"] == "plan/1"
    assert [run["seed"] for run in found.runs] == [1]


def test_facts_carry_their_places(finished: Path) -> None:
    facts = reproduction.read(finished / "evidence", walk(finished / "record"))
    (seed,) = facts.seeds
    assert isinstance(seed.train_seconds, Located)
    assert str(seed.train_seconds.location) == "seed-1/run.json#/train_seconds"
    assert isinstance(seed.rescored_val_bpb, Located)
    assert str(seed.rescored_val_bpb.location).startswith("seed-1/rescore.log:")
    assert isinstance(facts.comparable, Located)
    assert not facts.comparable.value
    assert "no data folder was given" in facts.differences


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda run: run | {"outcome": "fine"}, "#/outcome"),
        (lambda run: {key: value for key, value in run.items() if key != "seed"}, "lacks `seed`"),
        (lambda run: run | {"seed": 2}, "is about seed 2"),
        (lambda run: run | {"plan_sha256": "0" * 64}, "belongs to another plan"),
        (lambda run: run | {"val_bpb": float("nan")}, "#/val_bpb: is not a finite number"),
        (lambda run: run | {"schema": "plan/1"}, "run.json"),
    ],
)
def test_spoiled_run_documents(
    finished: Path, tmp_path: Path, spoil: Callable[[dict[str, Any]], dict[str, Any]], told: str
) -> None:
    directory = copy_of(finished, tmp_path)
    path = directory / "seed-1" / "run.json"
    path.write_text(json.dumps(spoil(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
    with pytest.raises(HarnessError, match=told.replace(".", r"\.")):
        evidence.read(directory)


def test_a_changed_plan_is_noticed(finished: Path, tmp_path: Path) -> None:
    directory = copy_of(finished, tmp_path)
    plan = json.loads((directory / "plan.json").read_text(encoding="utf-8"))
    plan["settings"]["train_limit_seconds"] = 1.0
    (directory / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    with pytest.raises(HarnessError, match="settings were changed"):
        evidence.read(directory)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b" " * (evidence.DOCUMENT_CAP_BYTES + 1)])
def test_unreadable_documents(finished: Path, tmp_path: Path, data: bytes) -> None:
    directory = copy_of(finished, tmp_path)
    (directory / "seed-1" / "run.json").write_bytes(data)
    with pytest.raises(HarnessError, match=r"seed-1/run\.json"):
        evidence.read(directory)


@given(document=JSON)
def test_any_json_ends_in_one_error(tmp_path_factory: pytest.TempPathFactory, document: Any) -> None:
    directory = tmp_path_factory.mktemp("any")
    (directory / "plan.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(HarnessError, match=r"plan\.json"):
        evidence.read(directory)


def test_an_empty_directory_holds_no_evidence(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="no evidence of a reproduction"):
        evidence.read(tmp_path)


def test_what_the_schema_rejects_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lacks"):
        evidence.write(tmp_path / "run.json", {"schema": "run/1"})
    assert list(tmp_path.iterdir()) == []


def test_code_is_what_runs_and_nothing_else(tmp_path: Path) -> None:
    for name in ("train_gpt.py", "kernel.cu", "train.log", "README.md", "submission.json", "final.ptz", ".hidden.py"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    (tmp_path / "requirements.txt").write_text("numpy", encoding="utf-8")
    (tmp_path / "outside.py").symlink_to("/etc/hostname")
    found = evidence.code_files(walk(tmp_path))
    assert [file.path for file in found] == ["kernel.cu", "requirements.txt", "train_gpt.py"]
    assert found[0].sha256 == hashlib.sha256(b"kernel.cu").hexdigest()


def test_the_hash_of_code_follows_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1", encoding="utf-8")
    first = evidence.code_sha256(evidence.code_files(walk(tmp_path)))
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    second = evidence.code_sha256(evidence.code_files(walk(tmp_path)))
    (tmp_path / "b.py").write_text("2", encoding="utf-8")
    third = evidence.code_sha256(evidence.code_files(walk(tmp_path)))
    assert len({first, second, third}) == 3


def test_missing_values_have_reasons(tmp_path: Path) -> None:
    fakescript.reproduce(fakescript.make_plan(fakescript.make_folder(tmp_path, "crash")), tmp_path / "evidence")
    (seed,) = reproduction.read(tmp_path / "evidence", walk(tmp_path / "record")).seeds
    missing = (seed.val_bpb, seed.steps, seed.train_seconds, seed.artifact_bytes, seed.repacked, seed.logged_bytes)
    assert all(isinstance(fact, Missing) and fact.reason for fact in missing)
