"""A miniature of the challenge's data: shards, byte sidecars and tokenizers, from seeded pseudo-text of our own."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.challenge import BOS_TOKEN, SHARD_HEADER_BYTES, SHARD_MAGIC, SHARD_VERSION
from harness.model import HarnessError

Tokens = NDArray[np.uint16]
# The control symbols that the vocabulary with case operators reserves.
CASE_OPERATORS = ("\ue001", "\ue002", "\ue003", "\ue004")
# A byte is its own token after so many reserved ones, by size of the vocabulary.
BYTE_OFFSETS = {256: 0, 260: 4}
# Tokens of a shard have 16 bits.
TOKENS_LIMIT = 1 << 16
NAME_LIMIT_CHARACTERS = 200
_VERSION = 3
VALIDATION_SHARD = "fineweb_val_000000.bin"
_CASEOPS = "_lossless_caps_caseops_v1_reserved"
_SYLLABLES = 220


@dataclass(frozen=True, slots=True)
class Spec:
    """Which world.

    Attributes:
        vocabulary: tokens of the SentencePiece model; 256 and 260 are one token per byte.
        caseops: case operators, with a sidecar of byte counts.
        documents: how many documents validation has.
        words: words of a document, at most.
        train_tokens: tokens of one training shard.
        train_shards: how many.
        seed: of all texts.
        also: further places below `data` where the script looks, as it names them.
    """

    vocabulary: int = 1024
    caseops: bool = False
    documents: int = 24
    words: int = 90
    train_tokens: int = 60_000
    train_shards: int = 2
    seed: int = 0
    also: tuple[str, ...] = ()

    @property
    def shards(self) -> str:
        """The folder of the shards, below `data`."""
        if self.vocabulary in BYTE_OFFSETS:
            return f"datasets/fineweb10B_byte{self.vocabulary}"
        name = f"fineweb10B_sp{self.vocabulary}"
        return f"datasets/{name}_caseops/datasets/datasets/{name}{_CASEOPS}" if self.caseops else f"datasets/{name}"

    @property
    def tokenizer(self) -> str:
        """The SentencePiece model, below `data`; there is none where tokens are bytes."""
        name = f"fineweb_{self.vocabulary}_bpe"
        base = f"datasets/fineweb10B_sp{self.vocabulary}_caseops/datasets/tokenizers/{name}{_CASEOPS}.model"
        return base if self.caseops else f"tokenizers/{name}.model"


@dataclass(frozen=True, slots=True)
class World:
    """Where a world's files are.

    Attributes:
        folder: what a script finds as `./data`.
        shards: folder of the shards.
        tokenizer: the SentencePiece model, or the folder where none is needed.
        val_tokens: tokens of the validation shard.
        val_bytes: bytes of text that these stand for.
    """

    folder: Path
    shards: Path
    tokenizer: Path
    val_tokens: int
    val_bytes: int = 0


def write_world(folder: Path, spec: Spec, cache: Path) -> World:
    """Write a world below a folder, under the names that the challenge uses.

    Args:
        folder: becomes `data` of the run's working directory.
        spec: which world.
        cache: folder of trained tokenizers.

    Raises:
        HarnessError: there is no tokenizer of that vocabulary.
    """
    rng = np.random.default_rng(spec.seed)
    lexicon = _lexicon(np.random.default_rng(7))
    texts = [_text(rng, lexicon, spec.words) for _ in range(spec.documents)]
    shards = folder / spec.shards
    shards.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(folder, spec, cache, lexicon)
    validation, sizes = _encoded(texts, spec, tokenizer)
    write_shard(shards / VALIDATION_SHARD, validation)
    if spec.caseops:
        write_shard(shards / "fineweb_val_bytes_000000.bin", sizes)
    for number in range(spec.train_shards):
        parts: list[Tokens] = []
        while sum(part.size for part in parts) < spec.train_tokens:
            parts.append(_encoded([_text(rng, lexicon, spec.words) for _ in range(50)], spec, tokenizer)[0])
        write_shard(shards / f"fineweb_train_{number:06d}.bin", np.concatenate(parts)[: spec.train_tokens])
    for split in ("train", "val"):
        flat = folder / f"fineweb_{split}_sp{spec.vocabulary}.bin"
        flat.write_bytes((shards / f"fineweb_{split}_000000.bin").read_bytes())
    _also(folder, spec.also, shards, tokenizer)
    return World(folder, shards, tokenizer, validation.size, int(sizes.sum()))


def _also(folder: Path, names: Iterable[str], shards: Path, tokenizer: Path) -> None:
    """Give the shards and the tokenizer the names that a script has for them."""
    for name in names:
        place = (folder / name).absolute()
        if not _is_free(place, folder):
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.suffix == ".model" and tokenizer.is_file():
            place.write_bytes(tokenizer.read_bytes())
        elif not place.suffix:
            place.mkdir()
            for shard in shards.iterdir():
                (place / shard.name).write_bytes(shard.read_bytes())


def _is_free(place: Path, folder: Path) -> bool:
    """Whether a file or folder of that name can be made below a folder."""
    try:
        above = [each for each in place.resolve().parents if each != folder.resolve()]
        inside = place.resolve().is_relative_to(folder.resolve())
        short = all(len(os.fsencode(part)) <= NAME_LIMIT_CHARACTERS for part in place.parts)
        return inside and short and not place.exists() and not any(each.is_file() for each in above)
    except (OSError, RuntimeError, ValueError):
        return False


def moved_to(made: World, folder: Path) -> World:
    """A copy of a world in another folder."""
    shutil.copytree(made.folder, folder)
    return dataclasses.replace(
        made,
        folder=folder,
        shards=folder / made.shards.relative_to(made.folder),
        tokenizer=folder / made.tokenizer.relative_to(made.folder),
    )


def replace_everywhere(folder: Path, old: bytes, new: bytes) -> None:
    """Give every file that holds some bytes, and nothing else, other ones: a shard may stand under several names."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.stat().st_size == len(old) and path.read_bytes() == old:
            path.write_bytes(new)


def with_validation(made: World, folder: Path, tokens: Tokens) -> tuple[World, tuple[str, ...]]:
    """A copy of a world with other validation tokens, as many as it has.

    Args:
        made: the world.
        folder: where the copy goes.
        tokens: what its validation shard holds.

    Returns:
        The world, and its validation shards as paths below its folder.
    """
    moved = moved_to(made, folder)
    shard, sizes = moved.shards / VALIDATION_SHARD, moved.shards / "fineweb_val_bytes_000000.bin"
    replace_everywhere(folder, shard.read_bytes(), shard_bytes(tokens))
    if sizes.exists():
        lengths = np.where(tokens == BOS_TOKEN, 0, 2).astype(np.uint16)
        replace_everywhere(folder, sizes.read_bytes(), shard_bytes(lengths))
    return moved, (shard.relative_to(folder).as_posix(),)


def read_shard(path: Path) -> Tokens:
    """The tokens of a shard that was written here."""
    return np.frombuffer(path.read_bytes(), dtype="<u2", offset=SHARD_HEADER_BYTES).astype(np.uint16)


def write_shard(path: Path, tokens: Tokens) -> None:
    """Write tokens in the challenge's format."""
    path.write_bytes(shard_bytes(tokens))


def shard_bytes(tokens: Tokens) -> bytes:
    """Tokens in the challenge's format."""
    header = np.zeros(SHARD_HEADER_BYTES // 4, dtype="<i4")
    header[:3] = SHARD_MAGIC, SHARD_VERSION, tokens.size
    return header.tobytes() + tokens.astype("<u2").tobytes()


def _lexicon(rng: np.random.Generator) -> list[str]:
    """Pseudo-words of syllables, the commonest first."""
    onsets, vowels, codas = (
        ["b", "c", "d", "f", "g", "h", "l", "m", "n", "p", "r", "s", "t", "v", "w", "br", "st", "tr", "pl", "ch"],
        ["a", "e", "i", "o", "u", "ea", "ou"],
        ["n", "r", "s", "t", "l"],
    )
    syllables = sorted({a + b + c for a in onsets for b in vowels for c in ["", *codas]})
    chosen = [str(part) for part in rng.permutation(syllables)[:_SYLLABLES]]
    words = {"".join(rng.choice(chosen, rng.integers(1, 4))) for _ in range(9_000)}
    ordered = sorted(words, key=lambda word: (len(word), word))
    return [word.capitalize() if index % 17 == 5 else word for index, word in enumerate(ordered)]


def _text(rng: np.random.Generator, lexicon: list[str], words: int) -> str:
    """One document: words by Zipf's law in sentences, with figures and accents now and then."""
    count = int(rng.integers(max(words // 6, 4), words))
    ranks = np.minimum(rng.zipf(1.25, count) - 1, len(lexicon) - 1)
    parts = [lexicon[int(rank)] for rank in ranks]
    for place in range(0, count, 11):
        parts[place] = parts[place].capitalize()
        if place:
            parts[place - 1] += "." if place % 2 else ","
    if count > 20:
        parts[7], parts[13] = str(int(rng.integers(10, 3_000))), "caf\u00e9"
    return " ".join(parts)


def _tokenizer(folder: Path, spec: Spec, cache: Path, lexicon: list[str]) -> Path:
    """The model under the challenge's name; trained once and kept."""
    if spec.vocabulary in BYTE_OFFSETS:
        return folder
    target = folder / spec.tokenizer
    kept = cache / f"probe-{_VERSION}-{spec.vocabulary}{'-caseops' if spec.caseops else ''}.model"
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        trained = kept.with_suffix(f".{os.getpid()}")
        trained.write_bytes(_train(spec, lexicon))
        trained.replace(kept)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(kept.read_bytes())
    return target


def _train(spec: Spec, lexicon: list[str]) -> bytes:
    import sentencepiece as spm

    if not 0 < spec.vocabulary <= TOKENS_LIMIT:
        raise HarnessError(_unfit(spec, f"tokens of a shard have 16 bits: at most {TOKENS_LIMIT:,} of them"))
    rng = np.random.default_rng(11)
    texts = [_text(rng, lexicon, 200) for _ in range(600)]
    texts += [" ".join(lexicon[start : start + 100]) for start in range(0, len(lexicon), 100)]
    model = io.BytesIO()
    try:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=spec.vocabulary,
            byte_fallback=True,
            pad_id=0,
            bos_id=1,
            eos_id=2,
            unk_id=3,
            split_digits=True,
            normalization_rule_name="nmt_nfkc",
            add_dummy_prefix=False,
            num_threads=1,
            user_defined_symbols=list(CASE_OPERATORS) if spec.caseops else [],
            minloglevel=2,
        )
    except RuntimeError as error:
        raise HarnessError(_unfit(spec, str(error).rpartition("] ")[2][:200])) from error
    return model.getvalue()


def _unfit(spec: Spec, why: str) -> str:
    return f"VOCAB_SIZE={spec.vocabulary}: no tokenizer of that size can be made of the small world's text ({why})"


def _encoded(texts: Iterable[str], spec: Spec, tokenizer: Path) -> tuple[Tokens, Tokens]:
    """Tokens of documents, each after its BOS, and the bytes of text that each stands for."""
    if spec.vocabulary in BYTE_OFFSETS:
        offset = BYTE_OFFSETS[spec.vocabulary]
        start = [BOS_TOKEN] if offset else []
        parts = [np.array([*start, *(byte + offset for byte in text.encode())]) for text in texts]
        tokens = np.concatenate(parts).astype(np.uint16)
        return tokens, (tokens >= offset).astype(np.uint16)
    import sentencepiece as spm

    model = spm.SentencePieceProcessor(model_file=str(tokenizer))
    numbers = [[BOS_TOKEN, *model.encode(_cased(text) if spec.caseops else text)] for text in texts]
    tokens = np.array([token for each in numbers for token in each], dtype=np.uint16)
    pieces = [model.id_to_piece(token) for token in range(model.vocab_size())]
    sizes = np.array([_bytes(piece) for piece in pieces], dtype=np.uint16)
    return tokens, sizes[tokens]


def _cased(text: str) -> str:
    """Capitals as an operator before the small letter."""
    return "".join(CASE_OPERATORS[0] + letter.lower() if letter.isupper() else letter for letter in text)


def _bytes(piece: str) -> int:
    if piece.startswith("<") and piece.endswith(">"):
        return 1 if piece.startswith("<0x") else 0
    text = piece.replace("\u2581", " ")
    return len("".join(letter for letter in text if letter not in CASE_OPERATORS).encode())
