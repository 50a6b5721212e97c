"""Building a corpus: reproducible, pinned, whole or not there. A small recipe stands in for the demo's."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import random
import shutil
from pathlib import Path

import pytest

from harness.cli import main
from harness.data import corpus, demo, tokenizer
from harness.data.corpus import Recipe, Source
from harness.data.demo import Plan
from harness.data.manifest import Manifest
from harness.data.scan import Decode
from harness.data.verify import Request, verify
from harness.model import HarnessError
from harness.sources import shards

SMALL = Recipe(
    name="small",
    vocab_sizes=(300,),
    min_characters=40,
    shingle_words=8,
    shingle_share=0.2,
    validation_services=2,
    short_validation_bytes=600,
    seed=1,
)
WORDS = [
    "request bucket policy returns the list of each Amazon key when an optional value specifies more than it may",
    "a role attached instance cannot delete its name because this operation requires permission ﬁrst … and then",
]


def service_models(directory: Path, *, extra_word: str = "") -> Source:
    """Eight services of ten documents, of a small vocabulary."""
    generator = random.Random(5)
    words = " ".join(WORDS).split()
    for service in range(8):
        folder = directory / f"service{service}" / "2020-01-01"
        folder.mkdir(parents=True)
        bodies = [" ".join(generator.choices(words, k=30)) for _ in range(10)]
        shapes = {f"S{k}": {"documentation": f"<p>{body}&lt;b&gt;</p>"} for k, body in enumerate(bodies)}
        shapes["Short"] = {"documentation": "too short"}
        shapes["Again"] = dict(shapes["S0"])
        if extra_word:
            shapes["S1"]["documentation"] += extra_word
        (folder / "service-2.json").write_text(json.dumps({"shapes": shapes}), encoding="utf-8")
    return Source("models", "1.0", directory)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(SMALL, service_models(tmp_path / "models"), None)


@pytest.fixture
def pinned_plan(tmp_path: Path, plan: Plan) -> Plan:
    return dataclasses.replace(plan, expected=demo.build(tmp_path / "first", plan))


def test_two_builds_are_the_same_bytes(tmp_path: Path, plan: Plan) -> None:
    manifests = [demo.build(tmp_path / name, plan) for name in ("one", "two")]
    assert manifests[0] == manifests[1]
    for name in (*manifests[0].files, "manifest.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_layout_and_manifest(tmp_path: Path, plan: Plan) -> None:
    manifest = demo.build(tmp_path / "out", plan)
    assert sorted(manifest.files) == [
        "datasets/small_sp300/fineweb_train_000000.bin",
        "datasets/small_sp300/fineweb_val_000000.bin",
        "datasets/small_sp300_fullval/fineweb_val_000000.bin",
        "tokenizers/small_300_bpe.model",
        "tokenizers/small_300_bpe.vocab",
    ]
    assert demo.read_manifest(tmp_path / "out") == manifest
    assert manifest.inputs == {"models": "1.0", "sentencepiece": importlib.metadata.version("sentencepiece")}
    # 8 services of 10 documents; the short one and the repeated one of each are gone.
    assert (manifest.text.unique_documents, manifest.text.documents) == (80, 80)
    assert len(manifest.text.validation_services) == 2
    counts = {name: entry.counts for name, entry in manifest.files.items() if entry.counts}
    train, short, full = (counts[name] for name in sorted(counts))
    assert (train.documents, full.documents) == (60, 20)
    assert short.documents < 20
    assert short.bytes_by_table <= 600
    assert train.bytes_by_table == train.bytes_by_decoding
    assert train.bytes_by_table + full.bytes_by_table == manifest.text.size_bytes


def test_shards_decode_to_normalized_text(tmp_path: Path, plan: Plan) -> None:
    demo.build(tmp_path / "out", plan)
    pieces = tokenizer.load(tmp_path / "out/tokenizers/small_300_bpe.model")
    tokens = shards.read_tokens(tmp_path / "out/datasets/small_sp300_fullval/fineweb_val_000000.bin")
    starts = shards.document_starts(tokens)
    assert starts[0] == 0
    texts = [pieces.decode([tokens[a:b]])[0] for a, b in zip(starts, [*starts[1:], tokens.size], strict=True)]
    assert len(texts) == 20
    assert all(text == tokenizer.normalize([text])[0] and text.endswith("<b>") for text in texts)
    joined = " ".join(texts)
    assert "first" in joined
    assert "..." in joined
    assert "ﬁ" not in joined


def test_a_good_corpus_is_used_again(tmp_path: Path, pinned_plan: Plan) -> None:
    output = tmp_path / "first"
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    absent = dataclasses.replace(pinned_plan, source=Source("gone", "0", tmp_path / "gone"))
    assert demo.ensure(output, absent) == pinned_plan.expected
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before


def test_ensure_builds_into_an_empty_folder(tmp_path: Path, pinned_plan: Plan) -> None:
    (tmp_path / "empty").mkdir()
    assert demo.ensure(tmp_path / "empty", pinned_plan) == pinned_plan.expected
    assert demo.check(tmp_path / "empty", pinned_plan) == []


def test_another_text_is_refused_with_both_hashes_and_leaves_nothing(tmp_path: Path, pinned_plan: Plan) -> None:
    source = dataclasses.replace(service_models(tmp_path / "other", extra_word=" changed"), version="2.0")
    with pytest.raises(HarnessError) as caught:
        demo.build(tmp_path / "out", dataclasses.replace(pinned_plan, source=source))
    message = str(caught.value)
    expected = pinned_plan.expected
    assert expected is not None
    name = "datasets/small_sp300/fineweb_train_000000.bin"
    found = demo.build(tmp_path / "unpinned", Plan(SMALL, source, None))
    assert f"{name}: found sha256 {found.files[name].sha256}, pinned {expected.files[name].sha256}" in message
    assert "models 2.0 (pinned 1.0)" in message
    assert "the text before tokenization is different" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "models", "other", "unpinned"]


def test_another_sentencepiece_is_named(tmp_path: Path, pinned_plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    train = tokenizer.train_bpe
    monkeypatch.setattr(tokenizer, "train_bpe", lambda texts, size: train(texts, size) + b"\x9a\x3f\x00")
    monkeypatch.setattr(tokenizer, "sentencepiece_version", lambda: "0.0.1")
    with pytest.raises(HarnessError, match=r"sentencepiece 0\.0\.1 \(pinned .*text before tokenization is the same"):
        demo.build(tmp_path / "out", pinned_plan)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("flip", "fineweb_val_000000.bin: found sha256 "),
        ("shorten", "fineweb_val_000000.bin: found 1,024 bytes, expected "),
        ("remove", "fineweb_val_000000.bin: missing"),
        ("add", "fineweb_val_000001.bin: unexpected file"),
        ("manifest", "manifest.json: lists other sizes"),
    ],
)
def test_damage_is_found_and_not_repaired_in_secret(
    tmp_path: Path, pinned_plan: Plan, damage: str, message: str
) -> None:
    output = tmp_path / "first"
    shard = output / "datasets/small_sp300/fineweb_val_000000.bin"
    content = shard.read_bytes()
    if damage == "flip":
        shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "shorten":
        shard.write_bytes(content[:1024])
    elif damage == "remove":
        shard.unlink()
    elif damage == "add":
        shutil.copy(shard, shard.with_name("fineweb_val_000001.bin"))
    else:
        path = output / "manifest.json"
        path.write_text(path.read_text().replace('"documents": 60', '"documents": 61'))
    assert message in demo.check(output, pinned_plan)[0]
    with pytest.raises(HarnessError, match="--rebuild"):
        demo.ensure(output, pinned_plan)
    assert demo.build(output, pinned_plan, replace=True) == pinned_plan.expected
    assert demo.check(output, pinned_plan) == []


def test_folders_of_others_are_never_touched(tmp_path: Path, plan: Plan) -> None:
    output = tmp_path / "thesis"
    output.mkdir()
    (output / "chapter.txt").write_text("mine")
    with pytest.raises(HarnessError, match="thesis"):
        demo.ensure(output, plan)
    for replace in (False, True):
        with pytest.raises(HarnessError, match="thesis"):
            demo.build(output, plan, replace=replace)
    assert [path.name for path in output.iterdir()] == ["chapter.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(HarnessError, match="not a folder"):
        demo.build(tmp_path / "file", plan)


def test_an_interrupted_build_leaves_nothing(tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(corpus, "_text_entry", interrupt)
    with pytest.raises(KeyboardInterrupt):
        demo.build(tmp_path / "out", plan)
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_a_failed_replacement_keeps_the_old_corpus(tmp_path: Path, pinned_plan: Plan) -> None:
    source = service_models(tmp_path / "other", extra_word=" changed")
    with pytest.raises(HarnessError, match="not the pinned one"):
        demo.build(tmp_path / "first", dataclasses.replace(pinned_plan, source=source), replace=True)
    assert demo.check(tmp_path / "first", pinned_plan) == []


def test_a_document_that_does_not_survive_is_an_error(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "normalize", list)
    with pytest.raises(HarnessError, match="does not decode to its text"):
        demo.build(tmp_path / "out", plan)


def test_unreadable_manifests(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    for content in ("", "[]", "{}", '{"schema": "corpus/1"}', '{"schema": "corpus/9"}', "[" * 100_000):
        with pytest.raises(HarnessError, match=r"manifest\.json"):
            Manifest.from_json(content, path)


def test_the_pinned_manifest_is_the_recipe_s() -> None:
    pinned = demo.pinned()
    assert pinned.recipe == json.loads(json.dumps(dataclasses.asdict(demo.DEMO)))
    assert pinned.inputs["botocore"] == "1.44.5"
    for size in demo.DEMO.vocab_sizes:
        paths = demo.demo_paths(Path(), size)
        names = {Path(name) for name in pinned.files}
        assert {
            paths.tokenizer,
            *(path / "fineweb_val_000000.bin" for path in (paths.data, paths.full_validation)),
        } <= names
    with pytest.raises(HarnessError, match="no tokenizer of 8192"):
        demo.demo_paths(Path(), 8192)


def test_without_botocore_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(HarnessError, match=r"parameter-golf-harness\[demo\]"):
        demo.installed_source()


def test_command_line_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "demo", "--output", str(tmp_path / "none"), "--check"]) == 1
    assert "not a corpus" in capsys.readouterr().out
    (tmp_path / "file.txt").write_text("")
    assert main(["data", "demo", "--output", str(tmp_path)]) == 2
    assert "not a corpus" in capsys.readouterr().err


def test_command_line_builds_and_uses_again(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "demo_plan", lambda **_: plan)
    output = str(tmp_path / "out")
    assert main(["data", "demo", "--output", output, "--unpinned"]) == 0
    first = capsys.readouterr()
    assert "datasets/small_sp300/fineweb_train_000000.bin" in first.out
    assert "reading the service models" in first.err
    assert main(["data", "demo", "--output", output, "--json"]) == 0
    again = capsys.readouterr()
    assert again.err == ""
    assert json.loads(again.out) == json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert main(["data", "demo", "--output", output, "--rebuild"]) == 0
    assert main(["data", "demo", "--output", output, "--check"]) == 0


def test_a_corpus_verifies_against_its_manifest(tmp_path: Path, plan: Plan) -> None:
    output = tmp_path / "out"
    demo.build(output, plan)
    assert verify(Request(output, decode=Decode.ALL)).problems == ()
    path = output / "manifest.json"
    path.write_text(path.read_text().replace('"documents": 60', '"documents": 61'))
    (output / "notes.txt").write_text("")
    shard = output / "datasets/small_sp300/fineweb_train_000000.bin"
    assert verify(Request(output)).problems == (
        f"{output / 'notes.txt'}: unexpected file",
        f"{shard}: documents: found 60, manifest.json says 61",
    )


def test_a_demo_with_a_manifest_of_its_own_answers_to_the_pinned_hashes(tmp_path: Path, plan: Plan) -> None:
    output = tmp_path / "out"
    demo.build(output, dataclasses.replace(plan, recipe=dataclasses.replace(SMALL, name="demo")))
    problems = verify(Request(output)).problems
    assert f"{output / 'datasets/demo_sp1024/fineweb_train_000000.bin'}: missing" in problems
    assert f"{output / 'datasets/demo_sp300/fineweb_train_000000.bin'}: unexpected file" in problems


@pytest.mark.slow
def test_the_demo_is_as_pinned(tmp_path: Path) -> None:
    manifest = demo.build(tmp_path / "demo")
    assert manifest == demo.pinned()
    assert main(["data", "verify", str(tmp_path / "demo"), "--decode", "all"]) == 0
