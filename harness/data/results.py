"""What looking through a folder of shards finds: plain values, ready for a table or for JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.data.overlap import Overlap
from harness.model import Value


@dataclass(frozen=True, slots=True)
class ShardScan:
    """What one shard holds.

    Attributes:
        path: the file.
        size_bytes: its size.
        tokens: number of tokens.
        documents: number of BOS tokens.
        largest_token: largest id in it.
        first_token: its first id.
        bytes_by_table: bytes of text by the tokenizer's table; None without a tokenizer or with ids out of range.
        problem: what is wrong with its ids, or an empty string.
    """

    path: Path
    size_bytes: int
    tokens: int
    documents: int
    largest_token: int
    first_token: int
    bytes_by_table: int | None
    problem: str


@dataclass(frozen=True, slots=True)
class SplitScan:
    """What the readable shards of one side of a dataset hold together.

    Attributes:
        shards: each of them.
        bytes_by_decoding: bytes of the decoded documents; None where nothing was decoded.
        bytes_by_sidecar: sum of the byte counts shipped beside the tokens; None where there are none.
    """

    shards: tuple[ShardScan, ...]
    bytes_by_decoding: int | None = None
    bytes_by_sidecar: int | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(shard.size_bytes for shard in self.shards)

    @property
    def tokens(self) -> int:
        """Tokens in all shards."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def documents(self) -> int:
        """BOS tokens in all shards."""
        return sum(shard.documents for shard in self.shards)

    @property
    def largest_token(self) -> int:
        """Largest id in all shards."""
        return max(shard.largest_token for shard in self.shards)

    @property
    def bytes_by_table(self) -> int | None:
        """Bytes of text by the tokenizer's table, where every shard has a count."""
        counts = [shard.bytes_by_table for shard in self.shards]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def to_json(self) -> dict[str, Value]:
        """The totals."""
        return {
            "shards": len(self.shards),
            "size_bytes": self.size_bytes,
            "tokens": self.tokens,
            "documents": self.documents,
            "largest_token": self.largest_token,
            "bytes_by_table": self.bytes_by_table,
            "bytes_by_decoding": self.bytes_by_decoding,
            "bytes_by_sidecar": self.bytes_by_sidecar,
        }


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """One dataset.

    Attributes:
        name: the folder's name.
        directory: the folder.
        tokenizer: the tokenizer's file; None when none was found.
        vocab_size: number of its ids.
        train: None without a readable training shard.
        validation: None without a readable validation shard.
        overlap: against the training shards of every dataset here with the same tokenizer; None without both sides.
    """

    name: str
    directory: Path
    tokenizer: Path | None
    vocab_size: int | None
    train: SplitScan | None
    validation: SplitScan | None
    overlap: Overlap | None

    @property
    def splits(self) -> tuple[tuple[str, SplitScan], ...]:
        """The sides that are there, named as in the files' names."""
        return tuple((name, scan) for name, scan in (("train", self.train), ("val", self.validation)) if scan)

    def to_json(self) -> dict[str, Value]:
        """Everything found."""
        overlap: Value = None
        if self.overlap is not None:
            overlap = {
                "train_documents": self.overlap.train_documents,
                "validation_documents": self.overlap.validation_documents,
                "validation_repeats": self.overlap.validation_repeats,
            }
        return {
            "name": self.name,
            "directory": self.directory.as_posix(),
            "tokenizer": None if self.tokenizer is None else self.tokenizer.as_posix(),
            "vocab_size": self.vocab_size,
            "splits": {name: scan.to_json() for name, scan in self.splits},
            "overlap": overlap,
        }


@dataclass(frozen=True, slots=True)
class Verification:
    """A whole folder.

    Attributes:
        root: the folder.
        datasets: what each dataset holds.
        problems: what is wrong, one sentence each; empty when the folder is good.
        notes: what is worth knowing and not wrong.
    """

    root: Path
    datasets: tuple[DatasetReport, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Value]:
        """The document that `harness data verify --json` prints."""
        return {
            "schema": "verification/1",
            "root": self.root.as_posix(),
            "ok": not self.problems,
            "datasets": [dataset.to_json() for dataset in self.datasets],
            "problems": list(self.problems),
            "notes": list(self.notes),
        }
