"""From service models to a corpus on disk: documents, tokenizers, shards, manifest."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.challenge import SHARD_HEADER_BYTES, SHARD_MAGIC, SHARD_VERSION
from harness.data import text, tokenizer
from harness.data.manifest import MANIFEST_NAME, Counts, FileEntry, Manifest, TextEntry, sha256_file
from harness.data.split import Split, split_by_service
from harness.data.text import Document
from harness.data.tokenizer import Tokenizer
from harness.model import HarnessError
from harness.sources.shards import Tokens

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """The numbers that a corpus is made by.

    Attributes:
        name: begins the names of its datasets and tokenizers.
        vocab_sizes: one tokenizer and one pair of datasets each.
        min_characters: shorter documents are dropped.
        shingle_words: words of a shingle, for near-duplicates.
        shingle_share: a document is a near-duplicate when this share of its shingles was seen before.
        validation_services: number of services held out.
        short_validation_bytes: the short validation's text is at most this long.
        seed: of the split and the shuffle.
    """

    name: str
    vocab_sizes: tuple[int, ...]
    min_characters: int
    shingle_words: int
    shingle_share: float
    validation_services: int
    short_validation_bytes: int
    seed: int


@dataclass(frozen=True, slots=True)
class Source:
    """Where the text comes from: a package's name and version, and the folder of its service models."""

    package: str
    version: str
    directory: Path


def read_documents(recipe: Recipe, source: Source) -> tuple[list[Document], int]:
    """The documents that the recipe keeps, in the order of services, and how many stood before near-duplicates went.

    Raises:
        HarnessError: no or unreadable models, or SentencePiece is not installed.
    """
    found = (
        Document(model.parent.parent.name, plain)
        for model in text.service_models(source.directory)
        for plain in map(text.plain, text.documentation(model))
        if len(plain) >= recipe.min_characters
    )
    documents = text.unique(found)
    normal = tokenizer.normalize([document.text for document in documents])
    documents = text.unique(Document(old.service, new) for old, new in zip(documents, normal, strict=True))
    kept = text.without_near_duplicates(documents, recipe.shingle_words, recipe.shingle_share)
    return kept, len(documents)


def write_corpus(directory: Path, recipe: Recipe, source: Source, report: Report) -> Manifest:
    """Make the whole corpus in an empty directory.

    Args:
        directory: exists and is empty; the caller renames it when this returns.
        recipe: the numbers.
        source: the text.
        report: called with a line before each step.

    Raises:
        HarnessError: the source, SentencePiece, or a document that does not survive its tokenizer.
    """
    report(f"reading the service models of {source.package} {source.version}")
    documents, unique_documents = read_documents(recipe, source)
    split = split_by_service(
        documents,
        services=recipe.validation_services,
        short_bytes=recipe.short_validation_bytes,
        seed=recipe.seed,
    )
    counts: dict[str, Counts] = {}
    for vocab_size in recipe.vocab_sizes:
        report(f"training and applying the tokenizer of {vocab_size} pieces")
        counts |= _write_variant(directory, recipe.name, vocab_size, split)
    manifest = Manifest(
        name=recipe.name,
        inputs={source.package: source.version, "sentencepiece": tokenizer.sentencepiece_version()},
        recipe={**dataclasses.asdict(recipe), "vocab_sizes": list(recipe.vocab_sizes)},
        text=_text_entry(split, unique_documents),
        files=file_entries(directory, counts),
    )
    (directory / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def _write_variant(directory: Path, name: str, vocab_size: int, split: Split) -> dict[str, Counts]:
    """Tokenizer and shards of one vocabulary; returns the counts by path relative to `directory`."""
    model = directory / "tokenizers" / f"{name}_{vocab_size}_bpe.model"
    model.parent.mkdir(exist_ok=True)
    # Trained on the training side only: the held-out services have no part in it.
    model.write_bytes(tokenizer.train_bpe((document.text for document in split.train), vocab_size))
    pieces = tokenizer.load(model)
    model.with_suffix(".vocab").write_text(tokenizer.vocabulary(pieces), encoding="utf-8")
    dataset = f"datasets/{name}_sp{vocab_size}"
    shards = {
        f"{dataset}/fineweb_train_000000.bin": split.train,
        f"{dataset}/fineweb_val_000000.bin": split.short_validation,
        f"{dataset}_fullval/fineweb_val_000000.bin": split.validation,
    }
    return {path: _write_documents(directory / path, pieces, documents) for path, documents in shards.items()}


def _write_documents(path: Path, pieces: Tokenizer, documents: Sequence[Document]) -> Counts:
    """One shard of whole documents.

    Raises:
        HarnessError: a document's tokens do not decode to its text.
    """
    encoded = pieces.encode([document.text for document in documents])
    decoded = pieces.decode(encoded)
    for document, back in zip(documents, decoded, strict=True):
        if document.text != back:
            raise HarnessError(f"{path}: a document of {document.service} does not decode to its text: {back[:60]!r}")
    tokens = np.concatenate(encoded)
    write_shard(path, tokens)
    return Counts(
        tokens=tokens.size,
        documents=len(documents),
        bytes_by_table=pieces.table.count(tokens),
        bytes_by_decoding=sum(len(back.encode()) for back in decoded),
    )


def write_shard(path: Path, tokens: Tokens) -> None:
    """Write one shard (see `harness.sources.shards` for the format); makes the folder.

    Args:
        path: the file; must not be read before this returns.
        tokens: ids, shape (tokens,).
    """
    header = np.zeros(SHARD_HEADER_BYTES // 4, dtype="<i4")
    header[:3] = SHARD_MAGIC, SHARD_VERSION, tokens.size
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.tobytes() + tokens.astype("<u2").tobytes())


def _text_entry(split: Split, unique_documents: int) -> TextEntry:
    documents = (*split.train, *split.validation)
    digest = hashlib.sha256()
    for document in documents:
        digest.update(document.text.encode() + b"\n")
    return TextEntry(
        unique_documents=unique_documents,
        documents=len(documents),
        size_bytes=sum(document.size_bytes for document in documents),
        sha256=digest.hexdigest(),
        validation_services=split.validation_services,
    )


def files_below(directory: Path) -> Iterable[str]:
    """POSIX paths of all files below a directory, sorted."""
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir())


def file_entries(directory: Path, counts: dict[str, Counts]) -> dict[str, FileEntry]:
    """Size and hash of every file below a directory."""
    return {
        name: FileEntry((directory / name).stat().st_size, sha256_file(directory / name), counts.get(name))
        for name in files_below(directory)
    }
