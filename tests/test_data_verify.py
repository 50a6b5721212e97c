"""Verifying folders: the competition's layout and the demo's, good and damaged in every way that has been seen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import challenge
from harness.cli import data, main
from harness.data import canonical, tokenizer
from harness.data.corpus import write_shard
from harness.data.layout import Dataset, find_layout, missing_numbers, tokenizer_of
from harness.data.overlap import OverlapCounter, whole_documents
from harness.data.results import Verification
from harness.data.scan import Decode
from harness.data.verify import Request, verify
from harness.model import HarnessError
from harness.sources import shards

TEXT = "the quick brown fox jumps over a lazy dog and reads 12 long books about naïve wizards — every day again"
TRAIN = [f"{TEXT[k:]} number {k} of the training documents" for k in range(12)]
VALIDATION = [f"validation document {k} says that {TEXT[2 * k :]}" for k in range(5)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizers") / "fineweb_320_bpe.model"
    path.write_bytes(tokenizer.train_bpe([*TRAIN, *VALIDATION] * 3, 320))
    return path


class Folder:
    """A folder in the competition's layout, small."""

    def __init__(self, root: Path, model: Path, name: str = "mini_sp320") -> None:
        self.root = root
        self.dataset = root / "datasets" / name
        (root / "tokenizers").mkdir(parents=True)
        self.model = root / "tokenizers" / model.name
        shutil.copy(model, self.model)
        self.pieces = tokenizer.load(model)

    def shard(self, split: str, number: int) -> Path:
        return self.dataset / f"fineweb_{split}_{number:06d}.bin"

    def tokens(self, texts: Sequence[str]) -> shards.Tokens:
        return np.concatenate(self.pieces.encode(tokenizer.normalize(texts)))

    def write(self, split: str, number: int, tokens: shards.Tokens) -> Path:
        write_shard(self.shard(split, number), tokens)
        return self.shard(split, number)

    def verify(self, **options: Any) -> Verification:
        return verify(Request(self.root, **options))


@pytest.fixture
def folder(tmp_path: Path, model: Path) -> Folder:
    made = Folder(tmp_path / "data", model)
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


documents = st.lists(st.lists(st.integers(2, 4), max_size=40), max_size=8)


@given(documents, documents, st.integers(1, 30))
def test_overlap_agrees_with_sets(train: list[list[int]], validation: list[list[int]], cut: int) -> None:
    def flat(bodies: list[list[int]]) -> shards.Tokens:
        return np.array([token for body in bodies for token in (1, *body)], dtype=np.uint16)

    counter = OverlapCounter([flat(validation)])
    tokens = flat(train)
    for start in range(0, tokens.size, cut):
        counter.add(tokens[start : start + cut])
    result = counter.finish()
    known = {tuple(body) for body in validation if body}
    assert result.train_documents == sum(tuple(body) in known for body in train)
    assert result.validation_documents == len({tuple(body) for body in train} & known)
    assert result.validation_repeats == sum(1 for body in validation if body) - len(known)


@given(documents, st.integers(1, 20))
def test_documents_survive_any_cut_into_shards(bodies: list[list[int]], cut: int) -> None:
    tokens = np.array([token for body in bodies for token in (1, *body)], dtype=np.uint16)
    parts = [tokens[start : start + cut] for start in range(0, tokens.size, cut)]
    joined = [
        found.tokens[a + 1 : b].tolist()
        for found in whole_documents(parts)
        for a, b in zip(found.starts, found.ends, strict=True)
    ]
    assert joined == bodies


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


@pytest.fixture
def fineweb(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A FineWeb folder whose published numbers are made to be those of five documents."""
    made = Folder(tmp_path / "data", model, "fineweb10B_sp320")
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


def test_tokenizers_are_chosen_by_the_whole_name() -> None:
    paths = [
        Path("tokenizers") / name
        for name in ("fineweb_8192_bpe.model", "fineweb_8192_bpe_caps_v1.model", "fineweb_1024_bpe.model")
    ]

    def chosen(name: str) -> str | None:
        path = tokenizer_of(Dataset(Path("datasets") / name, (), (), ()), paths)
        return None if path is None else path.name

    assert chosen("fineweb10B_sp8192") == "fineweb_8192_bpe.model"
    assert chosen("fineweb10B_sp8192_caps_v1") == "fineweb_8192_bpe_caps_v1.model"
    assert chosen("demo_sp1024_fullval") == "fineweb_1024_bpe.model"
    assert chosen("fineweb10B_sp4096") is None
    assert chosen("tokens") is None


def test_layout_errors(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="no such folder"):
        find_layout(tmp_path / "none")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(HarnessError, match="not a folder"):
        find_layout(tmp_path / "file")
    with pytest.raises(HarnessError, match="no token shard"):
        find_layout(tmp_path)


def test_gaps_in_numbering() -> None:
    assert missing_numbers([Path(f"fineweb_train_{k:06d}.bin") for k in (1, 3)]) == [0, 2]
    assert missing_numbers([]) == []


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
