"""Whole record folders of our own making, read into facts and written as JSON."""

from __future__ import annotations

import base64
import datetime as dt
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.facts.claims import DeclaredSplit
from harness.facts.jsonready import as_value
from harness.facts.submission import as_json, read
from harness.model import HarnessError, Located, Location, Missing
from harness.sources.trainlog import source_sha256
from tests.records import MANIFEST, SCRIPT, log, record, value


def test_a_whole_folder(tmp_path: Path) -> None:
    submission = record(
        tmp_path,
        README_DOT_md="# A\n\n**val_bpb: 1.25**\n",
        submission_DOT_json=MANIFEST,
        train_gpt_DOT_py=SCRIPT,
        train_seed42_DOT_log=log(source=SCRIPT),
        logs__seed43_DOT_txt=log(43, source=SCRIPT),
        requirements_DOT_txt="torch\n",
    )
    package = submission.package
    assert [location.path for location in package.logs] == ["logs/seed43.txt", "train_seed42.log"]
    assert [value(run.seed) for run in submission.runs] == [43, 42]
    entry = value(package.entry)
    assert (entry.path, entry.texts) == ("train_gpt.py", (source_sha256(SCRIPT),))
    assert {value(run.source) for run in submission.runs} == set(entry.texts)
    assert value(entry.parsed) is True
    assert entry.environment == (Located(("SEED", "1337"), Location("train_gpt.py", 3)),)
    assert value(submission.size.entry_code_bytes) == len(SCRIPT)
    sizes = submission.size.per_seed[0]
    assert [value(fact) for fact in (sizes.shipped_bytes, sizes.all_helpers_bytes)] == [5000 + len(SCRIPT)] * 2
    assert isinstance(sizes.compressed_code_bytes, Missing)
    assert (value(submission.readme.val_bpb), value(submission.claims.val_bpb)) == (1.25, 1.25)
    assert package.manifest_problems == ()
    assert submission.name == tmp_path.name
    assert isinstance(submission.reproduction, Missing)


def test_an_empty_folder_is_all_reasons(tmp_path: Path) -> None:
    submission = read(tmp_path)
    assert submission.runs == ()
    for fact in (submission.package.readme, submission.package.manifest, submission.package.entry):
        assert isinstance(fact, Missing)
    assert isinstance(submission.claims.val_bpb, Missing)
    assert isinstance(submission.size.entry_code_bytes, Missing)
    json.dumps(as_json(submission), allow_nan=False)


def test_no_folder_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="not a folder"):
        read(tmp_path / "absent")


def test_the_entry_is_declared_or_embedded_or_named(tmp_path: Path) -> None:
    other = SCRIPT + "# other\n"
    files: dict[str, str | bytes] = {"train_a_DOT_py": SCRIPT, "train_b_DOT_py": other}
    assert isinstance(record(tmp_path, **files).package.entry, Missing)
    commanded = record(tmp_path, README_DOT_md="Run `SEED=1 torchrun --nproc_per_node=8 train_b.py`.", **files)
    assert value(commanded.package.entry).path == "train_b.py"
    embedded = record(tmp_path, train_DOT_log=log(source=SCRIPT))
    assert value(embedded.package.entry).path == "train_a.py"
    declared = json.dumps({"reproduction": {"script": "train_b.py"}})
    assert value(record(tmp_path, submission_DOT_json=declared).package.entry).path == "train_b.py"


def test_helpers_count_when_the_script_needs_them(tmp_path: Path) -> None:
    main = "import os\nif os: from helper import f\nkernel = 'native/fast.cpp'\nprint('tok/own.model')\n"
    submission = record(
        tmp_path,
        train_gpt_DOT_py=main,
        helper_DOT_py="import deeper\n",
        deeper_DOT_py="x = 1\n",
        prepare_DOT_py="# used before training: train_gpt.py\n",
        native__fast_DOT_cpp="int f;\n",
        tok__own_DOT_model=b"123",
    )
    size = submission.size
    assert size.code_files == ("deeper.py", "helper.py", "native/fast.cpp", "train_gpt.py")
    assert size.data_files == ("tok/own.model",)
    assert value(size.all_code_bytes) == len(main) + len("import deeper\n") + len("x = 1\n") + len("int f;\n")


def test_packed_scripts_are_unpacked_for_helpers_and_hashes(tmp_path: Path) -> None:
    packed = base64.b85encode(zlib.compress(b"import helper, gone_missing\n")).decode()
    stub = f"import zlib,base64\nexec(zlib.decompress(base64.b85decode('{packed}')))\n"
    submission = record(tmp_path, train_gpt_DOT_py=stub, helper_DOT_py="x = 1\n")
    entry = value(submission.package.entry)
    assert entry.layers == ("base85", "zlib")
    assert entry.texts == (source_sha256(stub), source_sha256("import helper, gone_missing\n"))
    assert entry.missing_modules == (Located("gone_missing", Location("train_gpt.py", 1, layer="zlib(base85)")),)
    assert submission.size.code_files == ("helper.py", "train_gpt.py")


def test_scripts_that_do_not_parse(tmp_path: Path) -> None:
    submission = record(
        tmp_path, train_gpt_DOT_py="x = 1\n| 0 N/A |\n", stub_DOT_py="exec(open('gone.py').read())", empty_DOT_py=""
    )
    by_path = {script.path: script for script in submission.package.scripts}
    assert by_path["train_gpt.py"].parsed == Located(value=False, location=Location("train_gpt.py", 2))
    assert isinstance(by_path["stub.py"].parsed, Missing)
    assert value(by_path["empty.py"].parsed) is False


def test_manifest_problems_have_places(tmp_path: Path) -> None:
    submission = record(tmp_path, submission_DOT_json='{\n"name": "A",\n"name": "B",\n"val_bpb": NaN\n}')
    texts = {(str(problem.location), problem.value) for problem in submission.package.manifest_problems}
    assert ("submission.json", "has the key 'name' twice") in texts
    assert any(place == "submission.json#/val_bpb:4" for place, _ in texts)
    broken = record(tmp_path, submission_DOT_json="{")
    assert broken.package.manifest_problems[0].value.startswith("is no JSON")
    assert isinstance(broken.claims.val_bpb, Missing)


def test_manifests_under_other_names(tmp_path: Path) -> None:
    assert value(record(tmp_path, submission_ternary_DOT_json=MANIFEST).package.manifest) == "submission_ternary.json"
    several = record(tmp_path, submission_two_DOT_json=MANIFEST).package.manifest
    assert isinstance(several, Missing)
    assert "several" in several.reason


def test_facts_as_json() -> None:
    place = Location("a.log", 3)
    assert as_value(Located(1.5, place)) == {"value": 1.5, "path": "a.log", "line": 3}
    assert as_value(Missing("why", Location("s.json", 1, "/x", "lzma"))) == {
        "missing": "why",
        "path": "s.json",
        "line": 1,
        "pointer": "/x",
        "layer": "lzma",
    }
    assert as_value(DeclaredSplit("demo", 1, 2)) == {"name": "demo", "tokens": 1, "bytes": 2}
    assert as_value({"k": (1, None, True)}) == {"k": [1, None, True]}
    assert as_value(float("nan")) == "nan"
    assert as_value(dt.date(2026, 3, 1)) == "2026-03-01"
    assert as_value("\ud800") == "?"


def test_the_json_of_a_folder_names_every_fact(tmp_path: Path) -> None:
    submission = record(tmp_path, train_gpt_DOT_py=SCRIPT, train_DOT_log=log(), submission_DOT_json=MANIFEST)
    document: Any = json.loads(json.dumps(as_json(submission), allow_nan=False))
    assert list(document) == [
        "package",
        "claims",
        "readme",
        "runs",
        "size",
        "targets",
        "byte_tables",
        "legality",
        "reproduction",
        "names",
        "pipeline",
        "settings",
        "statements",
    ]
    assert document["claims"]["val_bpb"] == {"value": 1.25, "path": "submission.json", "line": 1, "pointer": "/val_bpb"}
    assert document["runs"][0]["headline"]["value"]["val_bpb"] == {"value": 1.25, "path": "train.log", "line": 19}
    assert document["runs"][0]["config"]["lr"] == {"value": "0.1", "path": "train.log", "line": 5}
    assert document["claims"]["track"]["missing"] == "submission.json has no track"


@settings(max_examples=15)
@given(st.binary(max_size=400), st.binary(max_size=400), st.binary(max_size=400), st.binary(max_size=400))
def test_any_bytes_in_any_file_are_read(
    tmp_path_factory: pytest.TempPathFactory, text: bytes, script: bytes, document: bytes, output: bytes
) -> None:
    submission = record(
        tmp_path_factory.mktemp("record"),
        README_DOT_md=text,
        train_gpt_DOT_py=script,
        submission_DOT_json=document,
        train_DOT_log=output,
    )
    assert json.loads(json.dumps(as_json(submission), allow_nan=False)).keys() >= {"package", "claims", "runs", "size"}


@settings(max_examples=25)
@given(st.data())
def test_damaged_folders_are_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    def damaged(text: str) -> bytes:
        raw = bytearray(text.encode())
        for _ in range(data.draw(st.integers(0, 4))):
            start = data.draw(st.integers(0, len(raw)))
            raw[start : start + data.draw(st.integers(0, 60))] = data.draw(st.binary(max_size=6))
        return bytes(raw)

    submission = record(
        tmp_path_factory.mktemp("record"),
        README_DOT_md=damaged("# A\n\n**val_bpb: 1.25**\n\n| Seed | BPB |\n|---|---|\n| 42 | 1.25 |\n"),
        train_gpt_DOT_py=damaged(SCRIPT),
        submission_DOT_json=damaged(MANIFEST),
        train_DOT_log=damaged(log(source=SCRIPT)),
    )
    assert json.loads(json.dumps(as_json(submission), allow_nan=False)).keys() >= {"package", "claims", "runs", "size"}
