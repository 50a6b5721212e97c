"""Token folders in the competition's layout, small, with a tokenizer of their own."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.data import tokenizer
from harness.data.corpus import write_shard
from harness.data.results import Verification
from harness.data.verify import Request, verify
from harness.sources import shards

TEXT = "the quick brown fox jumps over a lazy dog and reads 12 long books about naïve wizards — every day again"
TRAIN = [f"{TEXT[k:]} number {k} of the training documents" for k in range(12)]
VALIDATION = [f"validation document {k} says that {TEXT[2 * k :]}" for k in range(5)]


@functools.cache
def model_bytes() -> bytes:
    """A tokenizer of 320 pieces that knows these texts."""
    return tokenizer.train_bpe([*TRAIN, *VALIDATION] * 3, 320)


class Folder:
    """A folder in the competition's layout, small."""

    def __init__(self, root: Path, name: str = "mini_sp320") -> None:
        self.root = root
        self.dataset = root / "datasets" / name
        self.model = root / "tokenizers" / "fineweb_320_bpe.model"
        self.model.parent.mkdir(parents=True)
        self.model.write_bytes(model_bytes())
        self.pieces = tokenizer.load(self.model)

    def shard(self, split: str, number: int) -> Path:
        return self.dataset / f"fineweb_{split}_{number:06d}.bin"

    def tokens(self, texts: Sequence[str]) -> shards.Tokens:
        return np.concatenate(self.pieces.encode(tokenizer.normalize(texts)))

    def write(self, split: str, number: int, tokens: shards.Tokens) -> Path:
        write_shard(self.shard(split, number), tokens)
        return self.shard(split, number)

    def verify(self, **options: Any) -> Verification:
        return verify(Request(self.root, **options))
