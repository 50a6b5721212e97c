"""A tiny corpus in the layout of `harness data demo`, made in a second, and settings that train on it at once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import sentencepiece

VOCAB_SIZE = 300
WORDS = [
    "the",
    "a",
    "of",
    "to",
    "and",
    "request",
    "response",
    "table",
    "index",
    "bucket",
    "key",
    "value",
    "returns",
    "creates",
    "deletes",
    "lists",
]


def make_text(seed: int, documents: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(20, 60))) + "." for _ in range(documents)]


def write_shard(path: Path, tokens: Sequence[int]) -> None:
    header = np.zeros(256, dtype="<i4")
    header[:3] = 20240520, 1, len(tokens)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.tobytes() + np.asarray(tokens, dtype="<u2").tobytes())


def make_corpus(root: Path) -> Path:
    """Train shards, validation (short and full) and tokenizer under `root`; returns it."""
    train, validation = make_text(1, 300), make_text(2, 30)
    (root / "tokenizers").mkdir(parents=True)
    prefix = root / "tokenizers" / f"demo_{VOCAB_SIZE}_bpe"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(train),
        model_prefix=str(prefix),
        vocab_size=VOCAB_SIZE,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    model = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    folder = root / "datasets" / f"demo_sp{VOCAB_SIZE}"
    tokens = [[t for text in part for t in (model.bos_id(), *model.encode(text))] for part in (train, validation)]
    write_shard(folder / "fineweb_train_000000.bin", tokens[0])
    write_shard(folder / "fineweb_val_000000.bin", tokens[1][:300])
    write_shard(folder.with_name(f"{folder.name}_fullval") / "fineweb_val_000000.bin", tokens[1])
    return root


def tiny_environment(root: Path) -> dict[str, str]:
    """Settings of a run of six steps that takes less than a second."""
    return {
        "DATA_PATH": str(root / "datasets" / f"demo_sp{VOCAB_SIZE}"),
        "TOKENIZER_PATH": str(root / "tokenizers" / f"demo_{VOCAB_SIZE}_bpe.model"),
        "VOCAB_SIZE": str(VOCAB_SIZE),
        "RUN_ID": "tiny",
        "SEED": "7",
        "MODEL_DIM": "32",
        "NUM_LAYERS": "2",
        "NUM_HEADS": "2",
        "NUM_KV_HEADS": "1",
        "BIGRAM_BUCKETS": "64",
        "BIGRAM_HASH_DIM": "16",
        "TRAIN_BATCH_TOKENS": "128",
        "TRAIN_SEQ_LEN": "32",
        "GRAD_ACCUM_STEPS": "2",
        "MAX_WALLCLOCK_SECONDS": "0",
        "ITERATIONS": "6",
        "WARMUP_STEPS": "1",
        "WARMDOWN_FRAC": "0.5",
        "TTT_CHUNK_TOKENS": "128",
        "TTT_EPOCHS": "1",
        "EVAL_SEQ_LEN": "0",
        "EVAL_STRIDE": "0",
        "QUANT_KEEP_FLOAT_MAX_NUMEL": "256",
    }
