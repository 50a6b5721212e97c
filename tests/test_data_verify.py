"""Verifying folders: good ones, and ones damaged in every way that has been seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cli import data, main
from harness.data import tokenizer
from harness.data.corpus import write_shard
from harness.data.scan import Decode
from harness.data.verify import Request, verify
from harness.sources import shards
from tests.datafolders import TRAIN, VALIDATION, Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "data")
    train = made.tokens(TRAIN)
    # Cut in the middle of a document, as the competition's exporter does.
    made.write("train", 0, train[:100])
    made.write("train", 1, train[100:])
    made.write("val", 0, made.tokens(VALIDATION))
    return made


def test_a_good_folder(folder: Folder) -> None:
    found = folder.verify(decode=Decode.ALL)
    assert found.problems == ()
    assert found.notes == ()
    (dataset,) = found.datasets
    assert dataset.train is not None
    assert dataset.validation is not None
    assert dataset.overlap is not None
    assert (dataset.name, dataset.vocab_size) == ("mini_sp320", 320)
    assert (len(dataset.train.shards), dataset.train.documents, dataset.validation.documents) == (2, 12, 5)
    assert dataset.validation.tokens == folder.tokens(VALIDATION).size
    assert dataset.overlap.validation_documents == 0
    for scan, texts in ((dataset.train, TRAIN), (dataset.validation, VALIDATION)):
        expected = sum(len(text.encode()) for text in tokenizer.normalize(texts))
        assert scan.bytes_by_table == scan.bytes_by_decoding == expected
    assert found.to_json()["ok"] is True


def test_one_dataset_alone_finds_the_tokenizer_beside_it(folder: Folder) -> None:
    found = verify(Request(folder.dataset))
    assert found.problems == ()
    assert found.datasets[0].tokenizer == folder.model.resolve()


def test_decoding_in_small_batches_counts_the_same(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = folder.verify(decode=Decode.ALL).to_json()
    monkeypatch.setattr("harness.data.scan.DECODE_BATCH_TOKENS", 20)
    assert folder.verify(decode=Decode.ALL).to_json() == whole


def test_decoding_can_be_left_out(folder: Folder) -> None:
    (dataset,) = folder.verify(decode=Decode.NONE).datasets
    assert dataset.validation is not None
    assert dataset.validation.bytes_by_decoding is None
    assert dataset.validation.bytes_by_table is not None


@pytest.mark.parametrize(
    ("split", "damage", "message"),
    [
        ("val", lambda raw: raw[:0], "empty file"),
        ("train", lambda raw: raw[:500], "truncated header"),
        ("train", lambda raw: b"\x01" + raw[1:], "magic at byte 0: found 20240385, expected 20240520"),
        ("val", lambda raw: raw[:-2], "truncated: token count"),
        ("val", lambda raw: raw[:-1], "odd size"),
        ("train", lambda raw: raw + b"\0\0", "oversized: token count"),
    ],
)
def test_a_bad_shard_is_one_problem_that_names_it(folder: Folder, split: str, damage: Any, message: str) -> None:
    path = folder.shard(split, 0)
    path.write_bytes(damage(path.read_bytes()))
    named = [problem for problem in folder.verify().problems if problem.startswith(f"{path}: ")]
    assert len(named) == 1
    assert message in named[0]


def test_ids_out_of_range_name_file_and_position(folder: Folder) -> None:
    tokens = folder.tokens(TRAIN)[:100].copy()
    tokens[17] = 320
    path = folder.write("train", 0, tokens)
    (problem,) = folder.verify(decode=Decode.ALL).problems
    assert problem == f"{path}: token 320 at position 17: expected ids from 0 to 319 (fineweb_320_bpe.model)"


def test_a_validation_split_that_begins_in_a_document(folder: Folder) -> None:
    path = folder.write("val", 0, folder.tokens(VALIDATION)[1:])
    assert any(f"{path}: token 0 is " in problem and "expected 1" in problem for problem in folder.verify().problems)


def test_missing_and_strange_files(folder: Folder) -> None:
    folder.shard("train", 0).rename(folder.shard("train", 2))
    (folder.dataset / "fineweb_val_extra.bin").write_bytes(b"")
    (folder.root / "README.txt").write_text("")
    (folder.root / "tokenizers" / "fineweb_320_bpe.vocab").write_text("")
    found = folder.verify()
    extra = folder.dataset / "fineweb_val_extra.bin"
    assert found.problems == (
        f"{extra}: unexpected file: not named like a shard (fineweb_train_000000.bin)",
        f"{folder.dataset}: before fineweb_train_000002.bin: missing number 000000",
    )
    assert found.notes == (f"{folder.root / 'README.txt'}: not part of the format, not read",)


def test_no_validation_shard(folder: Folder) -> None:
    folder.shard("val", 0).unlink()
    assert folder.verify().problems == (f"{folder.dataset}: no readable validation shard (fineweb_val_000000.bin)",)


def test_without_a_tokenizer_it_is_said(folder: Folder) -> None:
    folder.model.unlink()
    found = folder.verify()
    assert found.problems == ()
    assert found.notes == (
        f"{folder.dataset}: no tokenizer fits its name: ids and bytes are not checked (--tokenizer)",
    )
    assert found.datasets[0].validation is not None
    assert found.datasets[0].validation.bytes_by_table is None


def test_documents_on_both_sides(folder: Folder) -> None:
    # One document within a shard, one across the cut between two shards, and one of those twice.
    train = folder.tokens([TRAIN[0], VALIDATION[1], TRAIN[1], VALIDATION[3], VALIDATION[1], TRAIN[2]])
    cut = int(shards.document_starts(train)[3]) + 9
    folder.write("train", 0, train[:cut])
    folder.write("train", 1, train[cut:])
    found = folder.verify()
    shared = "2 of 5 validation documents stand in the training shards too (3 training documents)"
    assert found.problems == (f"{folder.dataset}: {shared}, expected at most 0",)


def test_a_training_document_at_the_very_end_counts(folder: Folder) -> None:
    folder.write("train", 1, folder.tokens([TRAIN[4], VALIDATION[4]]))
    overlap = folder.verify().datasets[0].overlap
    assert overlap is not None
    assert (overlap.train_documents, overlap.validation_documents) == (1, 1)


def test_a_separate_full_validation_meets_the_training_shards_of_its_tokenizer(folder: Folder) -> None:
    full = folder.dataset.with_name("mini_sp320_fullval")
    write_shard(full / "fineweb_val_000000.bin", folder.tokens([*VALIDATION, TRAIN[7], VALIDATION[0]]))
    found = folder.verify()
    shared = "1 of 7 validation documents stand in the training shards too (1 training documents)"
    assert found.problems == (f"{full}: {shared}, expected at most 0",)
    assert found.notes == (f"{full}: 1 validation documents repeat an earlier one",)


def test_byte_sidecars_are_counted_and_are_no_validation_shards(folder: Folder) -> None:
    folder.write("val_bytes", 0, np.full(folder.tokens(VALIDATION).size, 3, dtype=np.uint16))
    found = folder.verify()
    assert found.problems == ()
    assert found.notes == (
        f"{folder.dataset}: the byte sidecar sums up to {3 * folder.tokens(VALIDATION).size:,} bytes",
    )


def test_a_sidecar_of_another_length_is_a_problem(folder: Folder) -> None:
    folder.write("val_bytes", 0, np.full(7, 3, dtype=np.uint16))
    count = folder.tokens(VALIDATION).size
    assert folder.verify().problems == (
        f"{folder.dataset}: byte sidecar: found 7 entries, expected {count:,}, one for each validation token",
    )


def test_command_line(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "verify", str(folder.root)]) == 0
    captured = capsys.readouterr()
    assert captured.out.rstrip().endswith("ok")
    assert captured.err == ""
    assert "mini_sp320" in captured.out
    folder.shard("val", 0).write_bytes(b"")
    assert main(["data", "verify", str(folder.root), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert document["problems"][0].startswith(str(folder.shard("val", 0)))
    assert document["datasets"][0]["splits"]["train"]["documents"] == 12
    assert main(["data", "verify", str(folder.root)]) == 1
    assert capsys.readouterr().out.rstrip().endswith("2 problems")


def test_the_command_offers_every_way_to_decode() -> None:
    assert [Decode(choice) for choice in data.DECODE_CHOICES] == list(Decode)


def test_command_line_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "verify", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["data", "verify"])
    assert caught.value.code == 2


def test_pure_bytes(tmp_path: Path) -> None:
    tokens = np.array([1, *[4 + byte for byte in "naïve".encode()]], dtype=np.uint16)
    for name, split in (("train", tokens), ("val", tokens[:4])):
        write_shard(tmp_path / "datasets" / "mini_byte260" / f"fineweb_{name}_000000.bin", split)
    (tmp_path / "tokenizers").mkdir()
    (tmp_path / "tokenizers" / "fineweb_pure_byte_260.json").write_text("{}")
    found = verify(Request(tmp_path))
    assert found.problems == ()
    (dataset,) = found.datasets
    assert dataset.train is not None
    assert (dataset.vocab_size, dataset.train.bytes_by_table, dataset.train.bytes_by_decoding) == (260, 6, None)


def test_progress_counts_every_token_once(folder: Folder) -> None:
    calls: list[tuple[str, int, int]] = []
    verify(Request(folder.root), lambda name, done, total: calls.append((name, done, total)))
    total = folder.tokens(TRAIN).size + folder.tokens(VALIDATION).size
    assert [name.split("/")[1] for name, _, _ in calls] == [
        "fineweb_train_000000.bin",
        "fineweb_train_000001.bin",
        "fineweb_val_000000.bin",
    ]
    assert calls[-1][1:] == (total, total)
