"""A channel of the probe's child that keeps what is written."""

from __future__ import annotations

from typing import Any


class Heard:
    """A channel that keeps what is written."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def emit(self, kind: str, **fields: Any) -> None:
        self.events.append({"kind": kind, **fields})

    def once(self, kind: str, name: str, **fields: Any) -> None:
        self.emit(kind, name=name, **fields)
