"""Runs a piece of a script under the tracer in this process."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.challenge import SHARD_HEADER_BYTES

tracer = importlib.import_module("harness.probe.child.tracer")
VOCABULARY = 512


@dataclass
class Seen:
    """What the tracer wrote."""

    events: list[dict[str, Any]] = field(default_factory=list)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["kind"] == kind]

    def emit(self, kind: str, **fields: Any) -> None:
        self.events.append({"kind": kind, **fields})

    def bound(self, printed: str) -> list[dict[str, Any]]:
        """The passes whose mean is the printed one."""
        value = float(re.findall(r"val_loss:([\d.]+)", printed)[-1])
        return [each for each in self.of("pass") if abs(each["mean"] - value) < 1e-6]


def unlike(size: int, seed: int = 0, every: int = 50) -> NDArray[np.uint16]:
    """A text in which each trigram stands once."""
    rng = np.random.default_rng(seed)
    tokens, seen = [1], set()
    while len(tokens) < size:
        token = 1 if len(tokens) % every == 0 else int(rng.integers(8, VOCABULARY))
        key = (*tokens[-2:], token)
        if key not in seen:
            seen.add(key)
            tokens.append(token)
    return np.array(tokens, dtype=np.uint16)


def write_tokens(path: Path, tokens: NDArray[Any]) -> Path:
    path.write_bytes(b"\0" * SHARD_HEADER_BYTES + tokens.astype("<u2").tobytes())
    return path


TEXT = unlike(300)
WHOLE = torch.from_numpy(TEXT.astype(np.int64))


def write_text(folder: Path) -> Path:
    """The text as a shard; what is random begins anew."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return write_tokens(folder / "val.bin", TEXT)


def table() -> torch.Tensor:
    return torch.randn(VOCABULARY, VOCABULARY)


def batch(*begins: int, length: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.stack([WHOLE[begin : begin + length + 1] for begin in begins])
    return rows[:, :-1], rows[:, 1:]


def traced(shard: Path, run: Callable[[], Any], script: str = __file__) -> Seen:
    """Run something and return the events."""
    seen = Seen()
    plan = SimpleNamespace(script=script, experiment={"validation": [str(shard)]})
    tracer.install(plan, seen.emit)
    try:
        run()
    finally:
        tracer.finish()
    return seen
