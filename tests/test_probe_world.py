"""The miniature world and the configuration that fits into it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sentencepiece as spm

from harness.challenge import BOS_TOKEN
from harness.model import HarnessError
from harness.probe import miniature, sizes
from harness.probe.miniature import choose
from harness.probe.probing import _naming
from harness.probe.unique import unique_tokens
from harness.probe.world import Spec, World, replace_everywhere, write_world
from harness.sources.shards import document_starts, read_tokens


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def world(folder: Path, kept: Path, **spec: object) -> World:
    return write_world(folder / "data", Spec(**{"train_tokens": 5_000, **spec}), kept)  # type: ignore[arg-type]


@pytest.mark.parametrize("vocabulary", [1024, 260, 256])
def test_shards_are_the_challenge_s(tmp_path: Path, kept: Path, vocabulary: int) -> None:
    made = world(tmp_path, kept, vocabulary=vocabulary)
    tokens = read_tokens(made.shards / "fineweb_val_000000.bin")
    assert tokens.size == made.val_tokens > 1_024
    assert int(tokens.max()) < vocabulary
    if vocabulary != 256:
        assert tokens[0] == BOS_TOKEN
        assert document_starts(tokens).size == 24
    assert [path.name for path in sorted(made.shards.glob("fineweb_train_*"))] == [
        "fineweb_train_000000.bin",
        "fineweb_train_000001.bin",
    ]


def test_the_sidecar_counts_the_bytes_of_the_text(tmp_path: Path, kept: Path) -> None:
    made = world(tmp_path, kept, caseops=True)
    sizes = read_tokens(made.shards / "fineweb_val_bytes_000000.bin")
    tokens = read_tokens(made.shards / "fineweb_val_000000.bin")
    assert sizes.size == tokens.size
    model = spm.SentencePieceProcessor(model_file=str(made.tokenizer))
    text = model.decode(tokens.tolist())
    operators = [part for part in text if "\ue000" <= part <= "\uf8ff"]
    assert operators
    assert abs(int(sizes.sum()) - len(text.encode()) + 3 * len(operators)) <= 24


def test_a_world_is_the_same_again(tmp_path: Path, kept: Path) -> None:
    first, second = (world(tmp_path / name, kept, seed=5) for name in "ab")
    other = world(tmp_path / "c", kept, seed=6)
    tokens = [read_tokens(each.shards / "fineweb_val_000000.bin") for each in (first, second, other)]
    assert np.array_equal(tokens[0], tokens[1])
    assert not np.array_equal(tokens[0][:100], tokens[2][:100])


def test_places_that_a_script_names_exist_and_none_outside(tmp_path: Path, kept: Path) -> None:
    names = ("tokenizers/mine.model", "other/shards", "../escaped")
    made = world(tmp_path, kept, also=names)
    assert (made.folder / "tokenizers/mine.model").read_bytes() == made.tokenizer.read_bytes()
    assert (made.folder / "other/shards/fineweb_val_000000.bin").is_file()
    assert not (tmp_path / "escaped").exists()


def test_names_that_no_file_can_have_are_left_out(tmp_path: Path, kept: Path) -> None:
    names = ("x" * 300, "/".join("y" * 150 for _ in range(40)), "mine.model/deeper", "mine.model", "mine.model/below")
    made = world(tmp_path, kept, vocabulary=256, also=(*names, "fineweb_val_sp256.bin/below"))
    assert not list(made.folder.rglob("x*"))
    assert (made.folder / "fineweb_val_sp256.bin").is_file()


@pytest.mark.parametrize("vocabulary", [300, 70_000])
def test_a_vocabulary_that_no_tokenizer_has_is_told(tmp_path: Path, kept: Path, vocabulary: int) -> None:
    with pytest.raises(HarnessError, match=f"VOCAB_SIZE={vocabulary}: no tokenizer of that size"):
        world(tmp_path, kept, vocabulary=vocabulary)


@pytest.mark.parametrize("value", ["8192,1024", "many", "nan", "inf", "-1", "10.5"])
def test_a_vocabulary_that_is_no_number_is_told(tmp_path: Path, value: str) -> None:
    text = 'import os\nprint(os.environ.get("VOCAB_SIZE", "1024"))\n'
    with pytest.raises(HarnessError, match=f"VOCAB_SIZE={value}: not a whole number"):
        choose(text, {"VOCAB_SIZE": value})
    with pytest.raises(HarnessError, match=rf"{tmp_path}/train_gpt\.py: VOCAB_SIZE"), _naming(tmp_path, "train_gpt.py"):
        choose(text, {"VOCAB_SIZE": value})
    assert choose(text, {"VOCAB_SIZE": "1024.0"}).spec.vocabulary == 1024


TEXT = """
import os
SEQ_LEN, LR = 2048, 0.1
TRAIN_STEPS = 4
class Hyperparameters:
    iterations = int(os.environ.get("ITERATIONS", 20000))
    vocab_size = int(os.environ.get("VOCAB_SIZE", 8192))
    ttt_epochs = int(os.environ.get("TTT_EPOCHS", 3))
    num_layers, model_dim = 11, 512
    data = "./data/datasets/mine"
"""


def test_only_what_the_script_consults_is_shrunk() -> None:
    made = choose(TEXT, {"TTT_EPOCHS": "25", "SEED": "7"})
    assert made.environment == {"ITERATIONS": "8", "TTT_EPOCHS": "2", "SEED": "7", "VOCAB_SIZE": "1024"}
    assert made.classes == {"Hyperparameters": {"model_dim": 128}}
    assert made.module == {"SEQ_LEN": 64}
    assert made.shrunk["ITERATIONS"] == ("20000", "8")
    assert made.shrunk["VOCAB_SIZE"] == ("8192", "1024")
    # Its name for the data may be spelled out.
    names = ("datasets/fineweb10B_sp8192", "tokenizers/fineweb_8192_bpe.model")
    assert (made.spec.vocabulary, made.spec.also) == (1024, ("datasets/mine", *names))
    whole = choose(TEXT, length=128)
    assert (whole.spec.vocabulary, whole.spec.also, "VOCAB_SIZE" in whole.shrunk) == (8192, ("datasets/mine",), False)


def test_what_counts_tokens_grows_with_the_length() -> None:
    text = (
        'import os\nA, B = os.environ["TRAIN_SEQ_LEN"], os.environ.get("EVAL_STRIDE", 512)\nTRAIN_BATCH_TOKENS = 4096\n'
    )
    usual, longer = choose(text), choose(text, length=128)
    assert usual.environment == {"TRAIN_SEQ_LEN": "64", "EVAL_STRIDE": "32"}
    assert longer.environment == {"TRAIN_SEQ_LEN": "128", "EVAL_STRIDE": "64"}
    assert (usual.module, longer.module) == ({"TRAIN_BATCH_TOKENS": 512}, {"TRAIN_BATCH_TOKENS": 1024})


def test_windows_are_no_farther_apart_than_they_are_long() -> None:
    text = 'import os\nA = os.environ.get("NGRAM_EVAL_STRIDE", 128)\nB = os.environ.get("CONV_STRIDE", 2)\n'
    assert choose(text).environment == {"NGRAM_EVAL_STRIDE": "32"}
    assert choose(text, length=128).environment == {"NGRAM_EVAL_STRIDE": "64"}


def test_what_begins_after_so_many_tokens_begins() -> None:
    text = 'import os\nA = int(os.environ.get("NGRAM_MIN_TOKENS", "5000"))\ndef mixed(min_tokens=4096):\n    pass\n'
    made = choose(text)
    assert (made.environment, made.everywhere) == ({"NGRAM_MIN_TOKENS": "64"}, {"min_tokens": (64, 65)})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def keep(t):\n    return t.numel() <= 65536\n", {"numel()": (4_096, 4_097)}),
        ("def keep(t):\n    return 65_536 > t.numel()\n", {"numel()": (4_096, 4_097)}),
        ("INT8_KEEP_FLOAT_MAX_NUMEL = 65_536\n", {"INT8_KEEP_FLOAT_MAX_NUMEL": (4_096, 4_097)}),
        ("def keep(t):\n    return t.numel() <= 1024 or t.size(0) > 65536\n", {}),
    ],
)
def test_matrices_of_a_small_model_are_quantized_too(text: str, expected: dict[str, tuple[int, int]]) -> None:
    assert choose(text).everywhere == expected
    # Where a script may have ended for that, they are left as they are.
    assert choose(text, length=128).everywhere == {}


def test_a_temperature_is_chosen_by_few_tokens() -> None:
    text = "best = search(model, loader.stream.take(65_536))\nfew = stream.take(4_096)\n"
    assert choose(text).everywhere == {"take()": (2_048, 16_384)}
    assert choose(text, length=128).everywhere == {"take()": (4_096, 16_384)}
    assert choose("few = stream.take(4_096)\n").everywhere == {}


def test_embeddings_are_as_wide_as_the_model_where_they_were() -> None:
    text = 'import os\nA = os.environ.get("MODEL_DIM", 512)\nB = int(os.environ.get("EMBEDDING_DIM", 512))\n'
    assert choose(text).environment == {"MODEL_DIM": "128", "EMBEDDING_DIM": "128"}
    assert choose(text, {"EMBEDDING_DIM": "254"}).environment == {"MODEL_DIM": "128", "EMBEDDING_DIM": "254"}
    assert "EMBEDDING_DIM" not in choose(text.replace("MODEL_DIM", "WIDTH")).environment


def test_a_model_writes_few_sequences_to_be_calibrated_on() -> None:
    text = "def written(model, num_seqs=64):\n    pass\nwritten(model, num_seqs=32)\ntotal_calib_seqs = 4\n"
    made = choose(text)
    assert (made.everywhere, made.shrunk) == ({"num_seqs": (8, 9)}, {"num_seqs": ("in the script", "8")})


@pytest.mark.parametrize(
    ("default", "claimed", "expected"),
    [
        ('"0"', None, None),
        ("0", None, None),
        ("64", None, "32"),
        ("str(64)", None, "32"),
        ("8 * 64", None, "32"),
        ("STRIDE", None, "32"),
        ('"64"', "0", "0"),
        ('"0"', "64", "32"),
        ("16", None, None),
    ],
)
def test_what_is_off_stays_off(default: str, claimed: str | None, expected: str | None) -> None:
    text = f'import os\nS = int(os.environ.get("EVAL_STRIDE", {default}))\n'
    made = choose(text, {} if claimed is None else {"EVAL_STRIDE": claimed})
    assert made.environment.get("EVAL_STRIDE") == expected


@pytest.mark.parametrize(
    ("default", "expected"), [("str(DEFAULT)", None), ("DEFAULT", None), ('"0"', None), ("3", "2")]
)
def test_repetitions_that_are_not_known_are_not_set(default: str, expected: str | None) -> None:
    text = f'import os\nDEFAULT = 0\nS = int(os.environ.get("SLOT_STEPS", {default}))\n'
    assert choose(text).environment.get("SLOT_STEPS") == expected


def test_the_claimed_vocabulary_and_operators_win() -> None:
    text = 'import os\nV = int(os.environ.get("VOCAB_SIZE", 8192))\nC = os.environ.get("CASEOPS_ENABLED", "0")\n'
    spec = choose(text, {"VOCAB_SIZE": "512", "CASEOPS_ENABLED": "1"}).spec
    assert (spec.vocabulary, spec.caseops) == (512, True)


@pytest.mark.parametrize("caseops", ["0", "1"])
def test_a_script_without_places_of_its_own_is_told_the_data_s(tmp_path: Path, kept: Path, caseops: str) -> None:
    text = """
import os
P, T = os.environ["DATA_PATH"], os.environ.get("TOKENIZER_PATH", "")
C = os.environ.get("CASEOPS_ENABLED", "0")
"""
    told = choose(text, {"CASEOPS_ENABLED": caseops})
    made = write_world(tmp_path / "data", told.spec, kept)
    assert (tmp_path / told.environment["TOKENIZER_PATH"]).samefile(made.tokenizer)
    assert (tmp_path / told.environment["DATA_PATH"]).samefile(made.shards)
    assert "DATA_PATH" not in choose('import os\nP = os.environ.get("DATA_PATH", "./data/mine")\n').environment


def test_a_script_that_is_no_program_is_left_alone() -> None:
    assert choose("def (").overrides() == {"class": {}, "module": {}, "everywhere": {}}


@pytest.mark.parametrize(("written", "expected"), [("2, 131072", 1024), ("255", 1024), ("256", 256), ("8192", 8192)])
def test_a_vocabulary_smaller_than_the_bytes_is_no_default(written: str, expected: int) -> None:
    text = f'import os\nA = read("VOCAB_SIZE", {written})(os.environ)\n'
    assert choose(text, length=128).spec.vocabulary == expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("args.val_loss_every > 0 and step % args.val_loss_every == 0", "0"),
        ("args.val_loss_every and step % args.val_loss_every == 0", "0"),
        ("step % args.val_loss_every == 0 or step == args.iterations", "1000000"),
    ],
)
def test_a_script_that_divides_by_an_interval_unasked_gets_none_that_is_zero(condition: str, expected: str) -> None:
    text = f'import os\nclass A:\n    val_loss_every = int(os.environ.get("VAL_LOSS_EVERY", 100))\nx = {condition}\n'
    assert choose(text).environment["VAL_LOSS_EVERY"] == expected


@pytest.mark.parametrize(
    ("name", "default", "claimed", "expected"),
    [
        ("NGRAM_TABLE_BITS", "26", {}, "18"),
        ("NGRAM_TABLE_BITS", "26", {"NGRAM_TABLE_BITS": "12"}, "12"),
        ("RECUR_START_STEP", "0", {"RECUR_START_STEP": "3000"}, "4"),
        ("RECUR_START_STEP", "-1", {}, None),
        ("XNOR_GROUP_SIZE", "64", {"XNOR_GROUP_SIZE": "256"}, "128"),
        ("GROUP_SIZE", "256", {}, "128"),
        ("QUANT_GROUP_SIZES", "256", {}, None),
        ("NGRAM_EVAL_BUCKETS", "4194304", {}, "256"),
        ("NGRAM_EVAL_BUCKETS", "64", {"NGRAM_EVAL_BUCKETS": "16777216"}, "256"),
        ("COUNT_TABLE_SIZE", "128", {}, None),
    ],
)
def test_what_is_too_large_for_a_small_run_is_cut(
    name: str, default: str, claimed: dict[str, str], expected: str | None
) -> None:
    made = choose(f'import os\nvalue = int(os.environ.get("{name}", "{default}"))\n', claimed)
    assert made.environment.get(name) == expected


TABLES = """
import os
NUM_BUCKETS = 1 << 22
HASH_SIZE = 2 ** 20
DIGEST_HASH_SIZE = 64
_B = 4194304
M = 1 << 20
SEED_MODULUS = 1 << 32
STEP = 1 << 20
PERIOD = 1.5
slot, row, rest, phase = key % _B, key & (M - 1), key % SEED_MODULUS, angle % PERIOD
chunk_size = 32768
class Counts:
    chunk_size = 256
    BUCKETS, ORDER = 4_194_304, 9
    bucket_size = 1024
    def __init__(self, table_size=1 << 20, *, order=9, chunk_tokens=1_048_576):
        self.full_buckets = 4_194_304
        self.other = make(row_buckets=65536, rows=65536)
class Hyperparameters:
    env_buckets = int(os.environ.get("ENV_BUCKETS", 1 << 22))
    ngram_chunk_tokens = int(os.environ.get("NGRAM_CHUNK_TOKENS", "65536"))
"""


@pytest.mark.parametrize(("length", "places"), [(sizes.LENGTH, 256), (sizes.LONGER, 1 << 18)])
def test_tables_of_counts_are_as_full_as_in_the_real_run(length: int, places: int) -> None:
    made = choose(TABLES, {}, length)
    large = {"NUM_BUCKETS", "HASH_SIZE", "BUCKETS", "table_size", "full_buckets"}
    tables = dict.fromkeys(large | ({"row_buckets"} if places < 65536 else set()), places)
    expected = {name: (value, value + 1) for name, value in (tables | {"chunk_tokens": 8 * length}).items()}
    expected |= {"chunk_size": (8 * length, 4096), "_B": (places, 1 << 18), "M": (places, 1 << 18)}
    assert made.everywhere == expected
    assert made.overrides()["everywhere"] == {name: list(pair) for name, pair in expected.items()}
    assert made.shrunk["BUCKETS"] == ("in the script", str(places))
    assert made.shrunk["ENV_BUCKETS"] == ("1 << 22", str(places))
    assert made.shrunk["NGRAM_CHUNK_TOKENS"] == ("65536", str(8 * length))


HANDED_ON = """
import os
class A:
    ttt_epochs: Annotated[int, Setting("TTT_EPOCHS", 0, 10_000)] = 3
    kind: Annotated[str, Setting("KIND", choices=("sgd", "lora"))] = "sgd"
main(os.environ)
"""


def test_settings_of_an_environment_that_is_handed_on_have_the_default_behind_their_type() -> None:
    assert miniature.handed_on(HANDED_ON) == {"TTT_EPOCHS", "KIND"}
    assert miniature.handed_on(HANDED_ON.replace("os.environ", "os.environ['X']")) == frozenset()
    assert "TTT_EPOCHS" not in choose(HANDED_ON.replace("] = 3", "] = 1")).environment
    assert choose(HANDED_ON).environment["TTT_EPOCHS"] == "2"


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
