"""Documents that stand on both sides of a split, compared token by token.

Billions of training tokens are read once. A document's key is a hash of its length, its first and its last tokens;
only training documents whose key some validation document has are compared in full, so a hash never decides alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from harness.sources.shards import Offsets, Tokens, document_starts

EDGE_TOKENS = 16
KEY_SEED = 20240520
# No document of a real split comes near; one BOS in a whole set of shards must not fill the memory.
DOCUMENT_CAP_TOKENS = 1 << 26

Keys: TypeAlias = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Documents:
    """Whole documents in one array of tokens: each begins with its BOS at `starts` and ends before `ends`."""

    tokens: Tokens
    starts: Offsets
    ends: Offsets

    def content(self, index: int) -> bytes:
        """The tokens of one document, as bytes that compare."""
        return self.tokens[self.starts[index] : self.ends[index]].tobytes()


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many documents the two sides share.

    Attributes:
        train_documents: training documents that equal a validation document.
        validation_documents: different validation documents that stand in the training data too.
        validation_repeats: validation documents that equal an earlier validation document.
    """

    train_documents: int
    validation_documents: int
    validation_repeats: int


class OverlapCounter:
    """Counts documents shared with one validation split, while training shards go by in their order."""

    def __init__(self, validation: Iterable[Tokens]) -> None:
        """Index the documents of the validation shards; empty documents are left out."""
        self._contents: dict[int, set[bytes]] = {}
        self._repeats = 0
        longest = 0
        for documents in whole_documents(validation):
            longest = max(longest, self._index(documents))
        self._keys = np.array(sorted(self._contents), dtype=np.uint64)
        self._joiner = Joiner(longest)
        self._train_documents = 0
        self._shared: set[bytes] = set()

    def _index(self, documents: Documents) -> int:
        """Remember documents by key; returns the length of the longest in tokens."""
        for index, key in enumerate(document_keys(documents).tolist()):
            content = documents.content(index)
            if len(content) > documents.tokens.itemsize:
                same_key = self._contents.setdefault(key, set())
                self._repeats += content in same_key
                same_key.add(content)
        return int((documents.ends - documents.starts).max(initial=0))

    def add(self, tokens: Tokens) -> None:
        """Compare the documents of the next training shard."""
        for documents in self._joiner.add(tokens):
            self._compare(documents)

    def finish(self) -> Overlap:
        """Compare the last document, which ends with the last shard, and return all counts."""
        for documents in self._joiner.rest():
            self._compare(documents)
        return Overlap(self._train_documents, len(self._shared), self._repeats)

    def _compare(self, documents: Documents) -> None:
        keys = document_keys(documents)
        if not self._keys.size or not keys.size:
            return
        nearest = np.minimum(np.searchsorted(self._keys, keys), self._keys.size - 1)
        for index in np.flatnonzero(self._keys[nearest] == keys):
            content = documents.content(int(index))
            if content in self._contents[int(keys[index])]:
                self._train_documents += 1
                self._shared.add(content)


def document_keys(documents: Documents) -> Keys:
    """A 64-bit key for each document, shape (documents,): equal documents have equal keys.

    Hashes the length, the first and the last tokens; a shorter document repeats its edge.
    """
    lengths = documents.ends - documents.starts
    weights = np.random.default_rng(KEY_SEED).integers(1, 2**63, 2 * EDGE_TOKENS + 1, dtype=np.uint64) * 2 + 1
    keys: Keys = lengths.astype(np.uint64) * weights[0]
    for k in range(EDGE_TOKENS):
        reach = np.minimum(k, lengths - 1)
        keys += documents.tokens[documents.starts + reach].astype(np.uint64) * weights[1 + 2 * k]
        keys += documents.tokens[documents.ends - 1 - reach].astype(np.uint64) * weights[2 + 2 * k]
    return keys


class Joiner:
    """Cuts consecutive shards into documents and puts those together that cross from one shard to the next."""

    def __init__(self, longest_tokens: int = DOCUMENT_CAP_TOKENS) -> None:
        """Begin before the first shard.

        Args:
            longest_tokens: a crossing document is cut off one token past this, which bounds memory: it is then
                longer than whatever it is to be compared with.
        """
        self._limit = longest_tokens + 1
        self._pending: Tokens = np.zeros(0, dtype=np.uint16)

    def add(self, tokens: Tokens) -> Iterator[Documents]:
        """The documents that this shard completes. Tokens before the very first BOS belong to none."""
        starts = document_starts(tokens)
        if self._pending.size:
            head = tokens[: starts[0]] if starts.size else tokens
            self._pending = np.concatenate([self._pending, head[: self._limit]])[: self._limit]
        if starts.size:
            yield from self.rest()
            yield Documents(tokens, starts[:-1], starts[1:])
            self._pending = np.array(tokens[starts[-1] :][: self._limit])

    def rest(self) -> Iterator[Documents]:
        """The document that is open at the end of the shards so far."""
        if self._pending.size:
            yield Documents(self._pending, np.zeros(1, dtype=np.int64), np.array([self._pending.size]))


def whole_documents(shards: Iterable[Tokens]) -> Iterator[Documents]:
    """All documents of consecutive shards, whole (up to `DOCUMENT_CAP_TOKENS` where one crosses)."""
    joiner = Joiner()
    for tokens in shards:
        yield from joiner.add(tokens)
    yield from joiner.rest()
