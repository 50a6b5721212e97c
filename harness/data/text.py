"""Service models in, documents out: the text of the demo corpus before any tokenizer sees it.

The models are the JSON files that the `botocore` package carries (Apache-2.0), one folder per service and API
version. Every `documentation` string in them is English prose with HTML tags.
"""

from __future__ import annotations

import gzip
import html
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from harness.model import HarnessError

MODEL_NAMES = ("service-2.json", "service-2.json.gz")
HASH_SEED = 8  # of the shingles' multipliers; any value gives the same documents unless two shingles collide


@dataclass(frozen=True, slots=True)
class Document:
    """One piece of prose and the service that it describes."""

    service: str
    text: str

    @property
    def size_bytes(self) -> int:
        """Length in UTF-8."""
        return len(self.text.encode())


def service_models(directory: Path) -> list[Path]:
    """The model files under `directory/<service>/<version>/`, by service and version.

    Raises:
        HarnessError: there is none.
    """
    found = [path for name in MODEL_NAMES for path in directory.glob(f"*/*/{name}")]
    if not found:
        raise HarnessError(f"{directory}: no service model ({' or '.join(MODEL_NAMES)}) in it")
    return sorted(found, key=lambda path: path.relative_to(directory).parts)


def documentation(model: Path) -> list[str]:
    """Every `documentation` string of one model, in the file's order, as it stands.

    Raises:
        HarnessError: not a JSON file.
    """
    try:
        raw = model.read_bytes()
        tree = json.loads(gzip.decompress(raw) if model.suffix == ".gz" else raw)
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise HarnessError(f"{model}: not a readable service model: {error}") from error
    return list(_documentation_strings(tree))


def _documentation_strings(root: object) -> Iterator[str]:
    """Depth first, with a stack of our own: depth is the file's choice."""
    stack = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            text = node.get("documentation")
            if isinstance(text, str):
                yield text
            stack.extend(value for value in reversed(node.values()) if isinstance(value, dict | list))
        elif isinstance(node, list):
            stack.extend(reversed(node))


def plain(markup: str) -> str:
    """Tags to spaces, entities to characters, white space folded.

    Example:
        >>> plain("<p>Lists &lt;all&gt;  keys.</p>")
        'Lists <all> keys.'
    """
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", markup)).split())


def unique(documents: Iterable[Document]) -> list[Document]:
    """The first of each set of documents with the same text, in order."""
    first: dict[str, Document] = {}
    for document in documents:
        first.setdefault(document.text, document)
    return list(first.values())


def without_near_duplicates(documents: Iterable[Document], words: int, share: float) -> list[Document]:
    """Drop each document of whose shingles of `words` words at least `share` stood in documents kept before.

    A document's shingles form a set; a document shorter than one shingle is one shingle. Shingles are compared by
    64-bit hashes that are the same in every process.
    """
    identities: dict[str, int] = {}
    multipliers = np.random.default_rng(HASH_SEED).integers(1, 2**63, words, dtype=np.uint64) * 2 + 1
    seen: set[int] = set()
    kept = []
    for document in documents:
        ids = [identities.setdefault(word, len(identities) + 1) for word in document.text.split(" ")]
        shingles = set(_shingles(np.array(ids, dtype=np.uint64), multipliers).tolist())
        if len(shingles & seen) < share * len(shingles):
            seen |= shingles
            kept.append(document)
    return kept


def _shingles(ids: NDArray[np.uint64], multipliers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A hash for each window of as many words as there are multipliers; arithmetic modulo 2^64."""
    if ids.size < multipliers.size:
        ids = np.concatenate([ids, np.zeros(multipliers.size - ids.size, dtype=np.uint64)])
    hashes: NDArray[np.uint64] = (sliding_window_view(ids, multipliers.size) * multipliers).sum(axis=1, dtype=np.uint64)
    return hashes
