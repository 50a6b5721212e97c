"""Every preset's bundled script, run in seconds: a tiny corpus, tiny sizes, the real program.

It shows that the bundler and the modules still fit together and that every mode of the script works; the numbers
mean nothing.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reference_model.data import SHARD_MAGIC, SHARD_VERSION, map_shard
from reference_model.serve import PREDICT_PROTOCOL

MINIATURE_VOCAB_SIZE = 300
MINIATURE_WORDS = (
    *("the", "a", "of", "to", "and", "request", "response", "table", "index"),
    *("bucket", "key", "value", "returns", "creates", "deletes", "lists"),
)
RUN_TIMEOUT_S = 300
# Float32 on another path through the same model: nats per token.
SERVED_TOLERANCE_NATS = 1e-3
# Counts stay those of the preset where they are part of its character (tying, fused projections, activation, bits).
MINIATURE_SETTINGS = {
    "VOCAB_SIZE": str(MINIATURE_VOCAB_SIZE),
    "RUN_ID": "miniature",
    "SEED": "7",
    "MODEL_DIM": "32",
    "NUM_LAYERS": "2",
    "NUM_HEADS": "2",
    "NUM_KV_HEADS": "1",
    "BIGRAM_BUCKETS": "64",
    "BIGRAM_HASH_DIM": "16",
    "SLIDING_WINDOW": "16",
    "TRAIN_BATCH_TOKENS": "128",
    "TRAIN_SEQ_LEN": "32",
    "GRAD_ACCUM_STEPS": "2",
    "MAX_WALLCLOCK_SECONDS": "0",
    "ITERATIONS": "6",
    "WARMUP_STEPS": "1",
    "WARMDOWN_FRAC": "0.5",
    "EVAL_SEQ_LEN": "0",
    "EVAL_STRIDE": "0",
    "TTT_CHUNK_TOKENS": "128",
    "TTT_EPOCHS": "1",
    "TTT_FREEZE_BLOCKS": "0",
    "TTT_CHUNK_SIZE": "8",
    "TTT_BATCH_SIZE": "4",
    "PHASED_TTT_PREFIX_DOCS": "4",
    "QUANT_KEEP_FLOAT_MAX_NUMEL": "256",
}
# What two layers leave of a preset's character.
MINIATURE_LAYERS = {
    "mini1961": {"HYMBA_LAYERS": "1"},
    "mini1961_3": {"HYMBA_LAYERS": "0,1"},
    "pr852_records": {"HYMBA_LAYERS": "0"},
    "pr852": {"HYMBA_LAYERS": "0"},
    # A global layer and two that share keys and values under a window.
    "paper": {"NUM_LAYERS": "3", "SWA_GLOBAL_LAYERS": "0", "HYMBA_META_TOK": "8"},
}


class MiniatureError(RuntimeError):
    """A script failed in miniature; the message holds its last lines."""


def miniature_text(seed: int, documents: int) -> list[str]:
    """Documents of random words."""
    draw = random.Random(seed)  # noqa: S311 - text, no secret
    return [" ".join(draw.choices(MINIATURE_WORDS, k=draw.randint(20, 60))) + "." for _ in range(documents)]


def write_shard(path: Path, tokens: Sequence[int]) -> None:
    """Write one token shard."""
    header = np.zeros(256, dtype="<i4")
    header[:3] = SHARD_MAGIC, SHARD_VERSION, len(tokens)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.tobytes() + np.asarray(tokens, dtype="<u2").tobytes())


def write_miniature_corpus(root: Path) -> Path:
    """Write a train shard, validation (short and full) and a tokenizer in the demo's layout; returns `root`."""
    import sentencepiece

    train, validation = miniature_text(1, 300), miniature_text(2, 30)
    prefix = root / "tokenizers" / f"demo_{MINIATURE_VOCAB_SIZE}_bpe"
    prefix.parent.mkdir(parents=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(train),
        model_prefix=str(prefix),
        vocab_size=MINIATURE_VOCAB_SIZE,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    model = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    train_tokens, tokens = (
        [token for text in part for token in (model.bos_id(), *model.encode(text))] for part in (train, validation)
    )
    folder = root / "datasets" / f"demo_sp{MINIATURE_VOCAB_SIZE}"
    write_shard(folder / "fineweb_train_000000.bin", train_tokens)
    write_shard(folder / "fineweb_val_000000.bin", tokens[:300])
    write_shard(folder.with_name(f"{folder.name}_fullval") / "fineweb_val_000000.bin", tokens)
    return root


def miniature_environment(root: Path, preset: str = "") -> dict[str, str]:
    """Settings of a run of six steps over the corpus at `root`."""
    return {
        **MINIATURE_SETTINGS,
        **MINIATURE_LAYERS.get(preset, {}),
        "DATA_PATH": str(root / "datasets" / f"demo_sp{MINIATURE_VOCAB_SIZE}"),
        "TOKENIZER_PATH": str(root / "tokenizers" / f"demo_{MINIATURE_VOCAB_SIZE}_bpe.model"),
    }


@dataclass(frozen=True)
class MiniatureRun:
    """One script in a folder of its own.

    Attributes:
        script: The bundled script.
        preset: What it was bundled with.
        corpus: What `write_miniature_corpus` wrote.
        environ: The surrounding environment; the script's settings are added.
    """

    script: Path
    preset: str
    corpus: Path
    environ: Mapping[str, str]

    def check(self) -> str:
        """Train, pack and score; score, predict and pack again in fresh processes; returns the headline.

        Raises:
            MiniatureError: The script fails, or scores, predicts or packs otherwise the second time.
        """
        headline = self._headline({})
        artifact = next(self.script.parent.glob("final_model.int*.ptz"))
        first = artifact.read_bytes()
        again = self._headline({"EVAL_ONLY": "1"})
        if again != headline:
            raise MiniatureError(f"{self.script}: scored {headline!r}, then {again!r} from disk")
        scored, served = float(re.findall(r"val_loss:([\d.]+)", headline)[-1]), self._served()
        if not abs(served - scored) < SERVED_TOLERANCE_NATS:
            raise MiniatureError(f"{self.script}: scored {scored} nats per token, predicted {served}")
        artifact.unlink()
        self._run({"REPACK_ONLY": "1"})
        if artifact.read_bytes() != first:
            raise MiniatureError(f"{self.script}: the saved weights pack into other bytes")
        return headline

    def _served(self) -> float:
        """Nats per token of the validation text by the served distributions."""
        tokens = map_shard(next(Path(miniature_environment(self.corpus)["DATA_PATH"]).glob("fineweb_val_*.bin")))
        start = json.dumps({"protocol": PREDICT_PROTOCOL, "tokens": tokens.size}).encode() + b"\n"
        answers = self._run({"SERVE_ONLY": "1"}, start + tokens.astype("<u4").tobytes())
        rows = np.frombuffer(answers.partition(b"\n")[2], "<f4").reshape(tokens.size - 1, MINIATURE_VOCAB_SIZE)
        return float(-rows[np.arange(len(rows)), tokens[1:]].mean(dtype=np.float64))

    def _headline(self, changes: Mapping[str, str]) -> str:
        return [line for line in self._run(changes).decode().splitlines() if "val_bpb:" in line][-1]

    def _run(self, changes: Mapping[str, str], told: bytes = b"") -> bytes:
        settings = miniature_environment(self.corpus, self.preset)
        environ = {**self.environ, "OMP_NUM_THREADS": "1", **settings, **changes}
        # Isolated from the package: the script must stand alone.
        done = subprocess.run(
            [sys.executable, "-I", self.script.name],
            cwd=self.script.parent,
            env=environ,
            input=told,
            capture_output=True,
            check=False,
            timeout=RUN_TIMEOUT_S,
        )
        if done.returncode != 0:
            said = done.stderr[-2000:].decode("utf-8", "replace")
            raise MiniatureError(f"{self.script}: status {done.returncode}\n{said}")
        return done.stdout


def run_bundled(folder: Path, scripts: Mapping[str, str]) -> dict[str, str]:
    """Check every preset's script inside `folder`; returns preset -> headline.

    Args:
        folder: Empty.
        scripts: Preset -> text of its script.

    Raises:
        MiniatureError: See `MiniatureRun.check`.
    """
    corpus = write_miniature_corpus(folder / "corpus")
    runs = []
    for preset, text in scripts.items():
        script = folder / preset / "train_gpt.py"
        script.parent.mkdir()
        script.write_text(text, encoding="utf-8")
        runs.append(MiniatureRun(script, preset, corpus, os.environ))
    # Each has one thread, and waits much for Python to start.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(scripts, pool.map(MiniatureRun.check, runs), strict=True))
