"""Folders under the names of the competition's: against published numbers and the exporter's manifest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import challenge
from harness.data import canonical
from tests.datafolders import TRAIN, VALIDATION, Folder


@pytest.fixture
def fineweb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A FineWeb folder whose published numbers are made to be those of five documents."""
    made = Folder(tmp_path / "data", "fineweb10B_sp320")
    made.write("train", 0, made.tokens(TRAIN))
    validation = made.tokens(VALIDATION)
    made.write("val", 0, validation)
    split = challenge.ValidationSplit(
        "sp320", 320, validation.size, None, sum(len(text.encode()) for text in VALIDATION), (), "test"
    )
    monkeypatch.setattr(canonical, "VALIDATION_SPLITS", (split,))
    monkeypatch.setattr(canonical, "VAL_DOCUMENTS", 5)
    return made


def test_published_numbers_that_fit(fineweb: Folder) -> None:
    assert fineweb.verify().problems == ()


def test_published_numbers_that_do_not_fit(fineweb: Folder) -> None:
    shortened = fineweb.tokens(VALIDATION[:4])
    size = fineweb.tokens(VALIDATION).size
    fineweb.write("val", 0, shortened)
    texts = [sum(len(text.encode()) for text in VALIDATION[:count]) for count in (4, 5)]
    where = f"{fineweb.dataset}: validation"
    assert fineweb.verify().problems == (
        f"{where} documents: found 4, expected 5 for fineweb10B_sp320",
        f"{where} tokens: found {shortened.size:,}, expected {size:,} for fineweb10B_sp320",
        f"{where} bytes by table: found {texts[0]:,}, expected {texts[1]:,} for fineweb10B_sp320",
    )


def test_canonical_names() -> None:
    names = {
        "fineweb10B_sp1024": "sp1024",
        "fineweb10B_sp8192": "sp8192",
        "fineweb10B_byte260": "byte260",
        "fineweb10B_sp8192_caseops": "sp8192 CaseOps",
        "fineweb10B_sp8192_lossless_caps_caseops_v1_reserved": "sp8192 CaseOps",
        "fineweb10B_sp777": None,
        "demo_sp1024": None,
    }
    for name, expected in names.items():
        split = canonical.canonical_split(name)
        assert (None if split is None else split.name) == expected


def test_exporter_manifests_are_compared(fineweb: Folder) -> None:
    stats = {
        "docs_val": 5,
        "tokens_val": fineweb.tokens(VALIDATION).size,
        "files_val": 1,
        "docs_train": 999,  # of more shards than were downloaded: says nothing
        "files_train": 80,
    }
    path = fineweb.root / "manifest.json"
    path.write_text(json.dumps({"datasets": [{"name": "fineweb10B_sp320", "stats": stats}, {"name": "other"}, 3]}))
    assert fineweb.verify().problems == ()
    stats |= {"docs_val": 6, "files_train": 1}
    path.write_text(json.dumps({"datasets": [{"name": "fineweb10B_sp320", "stats": stats}]}))
    where = f"{path}: fineweb10B_sp320"
    assert set(fineweb.verify().problems) == {
        f"{where}: docs_val says 6, found 5",
        f"{where}: docs_train says 999, found 12",
    }


def test_manifests_that_cannot_be_used(fineweb: Folder) -> None:
    path = fineweb.root / "manifest.json"
    for content in ("{", "[" * 100_000, '{"schema": "corpus/1"}'):
        path.write_text(content)
        (problem,) = fineweb.verify().problems
        assert problem.startswith(f"{path}: not a readable manifest")
    path.write_text("[]")
    found = fineweb.verify()
    assert found.problems == ()
    assert "not compared" in found.notes[0]
