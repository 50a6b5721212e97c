"""One pass over the shards of a split: tokens, documents and bytes, without holding more than a chunk."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from harness.data.overlap import Documents, OverlapCounter, whole_documents
from harness.data.results import ShardScan
from harness.data.tokenizer import Tokenizer
from harness.model import HarnessError
from harness.sources.shards import ShardHeader, Tokens, chunks, document_starts, open_tokens, read_header

DECODE_BATCH_TOKENS = 1 << 22

Progress = Callable[[Path, int], None]


class Decode(enum.StrEnum):
    """Which splits are decoded to count bytes a second way; decoding is slow."""

    NONE = "none"
    VALIDATION = "validation"
    ALL = "all"


def read_headers(paths: Sequence[Path]) -> tuple[list[ShardHeader], list[str]]:
    """The shards that can be read, and a sentence for each that cannot."""
    headers: list[ShardHeader] = []
    problems: list[str] = []
    for path in paths:
        try:
            headers.append(read_header(path))
        except HarnessError as error:
            problems.append(str(error))
    return headers, problems


def scan_shards(
    headers: Sequence[ShardHeader], tokenizer: Tokenizer | None, counters: Sequence[OverlapCounter], progress: Progress
) -> tuple[ShardScan, ...]:
    """Scan shards in order, each of them once.

    Args:
        headers: the shards.
        tokenizer: None counts no bytes.
        counters: fed with every shard.
        progress: called with the file and the number of tokens after each shard.

    Raises:
        HarnessError: a shard shrank since its header was read.
    """
    scans: list[ShardScan] = []
    previous: int | None = None
    for header in headers:
        tokens = open_tokens(header)
        scans.append(_scan(header, tokens, tokenizer, previous))
        for counter in counters:
            counter.add(tokens)
        previous = int(tokens[-1])
        progress(header.path, header.tokens)
    return tuple(scans)


def _scan(header: ShardHeader, tokens: Tokens, tokenizer: Tokenizer | None, previous: int | None) -> ShardScan:
    largest = max(int(part.max()) for part in chunks(tokens))
    count, problem = None, ""
    if tokenizer is not None:
        before = previous if previous is not None and previous < tokenizer.vocab_size else None
        try:
            count = tokenizer.table.count(tokens, before)
        except HarnessError as error:
            problem = f"{header.path}: {error} ({tokenizer.path.name})"
    return ShardScan(
        path=header.path,
        size_bytes=header.size_bytes,
        tokens=header.tokens,
        documents=document_starts(tokens).size,
        largest_token=largest,
        first_token=int(tokens[0]),
        bytes_by_table=count,
        problem=problem,
    )


def decoded_bytes(headers: Sequence[ShardHeader], tokenizer: Tokenizer) -> int:
    """UTF-8 bytes of all documents, decoded in batches; tokens before the first BOS are left out.

    Raises:
        HarnessError: the tokenizer is no SentencePiece model.
    """
    total = 0
    for batch in _batches(whole_documents(open_tokens(header) for header in headers)):
        total += sum(len(text.encode()) for text in tokenizer.decode(batch))
    return total


def _batches(found: Iterable[Documents]) -> Iterator[list[Tokens]]:
    """Contents of documents, without BOS, in lists of about `DECODE_BATCH_TOKENS` tokens."""
    batch: list[Tokens] = []
    size = 0
    for documents in found:
        for start, end in zip(documents.starts.tolist(), documents.ends.tolist(), strict=True):
            batch.append(documents.tokens[start + 1 : end])
            size += end - start
            if size >= DECODE_BATCH_TOKENS:
                yield batch
                batch, size = [], 0
    yield batch


def sidecar_bytes(headers: Sequence[ShardHeader]) -> int:
    """Sum of the byte counts in sidecar shards."""
    return sum(int(part.sum(dtype="int64")) for header in headers for part in chunks(open_tokens(header)))
