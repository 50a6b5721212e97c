"""Documents split by service: no service stands on both sides, so neither does its vocabulary."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.data.text import Document
from harness.model import HarnessError


@dataclass(frozen=True, slots=True)
class Split:
    """The two sides, each in its shuffled order.

    Attributes:
        train: documents to train on.
        validation: documents of the held-out services.
        short_validation: the first of them, for evaluations of seconds.
        validation_services: names of the held-out services, sorted.
    """

    train: tuple[Document, ...]
    validation: tuple[Document, ...]
    short_validation: tuple[Document, ...]
    validation_services: tuple[str, ...]


def split_by_service(documents: Sequence[Document], *, services: int, short_bytes: int, seed: int) -> Split:
    """Hold out so many services, and shuffle both sides.

    Args:
        documents: all of them, in any order.
        services: number of services to hold out.
        short_bytes: the short validation ends before its text would exceed this.
        seed: orders services and documents by SHA-256, which no Python version changes.

    Raises:
        HarnessError: not more services than are to be held out.
    """
    names = sorted({document.service for document in documents}, key=lambda name: _rank(seed, name))
    if len(names) <= services:
        raise HarnessError(f"the corpus has {len(names)} services: cannot hold out {services}")
    held_out = frozenset(names[:services])
    order = sorted(documents, key=lambda document: _rank(seed, document.text))
    validation = tuple(document for document in order if document.service in held_out)
    return Split(
        train=tuple(document for document in order if document.service not in held_out),
        validation=validation,
        short_validation=_first_bytes(validation, short_bytes),
        validation_services=tuple(sorted(held_out)),
    )


def _rank(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{text}".encode()).digest()


def _first_bytes(documents: Iterable[Document], limit_bytes: int) -> tuple[Document, ...]:
    """The longest prefix of whole documents whose text fits; at least one document."""
    chosen: list[Document] = []
    total = 0
    for document in documents:
        total += document.size_bytes
        if chosen and total > limit_bytes:
            break
        chosen.append(document)
    return tuple(chosen)
