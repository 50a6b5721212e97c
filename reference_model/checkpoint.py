"""A training run on disk: everything that decides how it goes on, written whole or not at all.

    magic (6) | BLAKE2b-128 of the rest (16) | a dictionary as torch saves it

The batches need no state: they follow from the step and the shards. A checkpoint is for a run of the same settings over
the same shards; the number of processes may be another.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from reference_model.config import Config, config_settings
from reference_model.data import find_shards, shard_length
from reference_model.model import HymbaLM
from reference_model.optim import Optimizers
from reference_model.schedule import ExponentialAverage
from reference_model.storage import RunError, cpu_state, read_whole, write_whole

CHECKPOINT_MAGIC = b"HYMC1\n"
CHECKPOINT_DIGEST_BYTES = 16
DECIDING_SECTIONS = ("model", "optim", "train", "quant")
# What is said and saved while training, not what is learned.
REPORTING_SETTINGS = ("TRAIN_LOG_EVERY", "VAL_LOSS_EVERY", "CHECKPOINT_EVERY", "RESUME")


@dataclass
class RunState:
    """A run between two steps.

    Attributes:
        model: Its weights.
        optimizers: Their moments.
        average: The averaged weights.
        step: Finished steps.
        train_s: Seconds of training that count.
    """

    model: HymbaLM
    optimizers: Optimizers
    average: ExponentialAverage
    step: int = 0
    train_s: float = 0.0

    def content(self) -> dict[str, Any]:
        """Everything by name; every process must call it, since each may hold a share of Muon's momentum."""
        average = self.average
        return {
            "step": self.step,
            "train_s": self.train_s,
            "weights": cpu_state(self.model),
            "optimizers": self.optimizers.state(),
            "average": {"updates": average.updates, "names": list(average.names), "values": average.averages},
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        }

    def restore(self, content: Mapping[str, Any]) -> None:
        """Become what `content` gave; every process must call it."""
        self.step, self.train_s = int(content["step"]), float(content["train_s"])
        self.model.load_state_dict(content["weights"])
        self.optimizers.load_state(content["optimizers"])
        average, device = content["average"], next(self.model.parameters()).device
        self.average.updates, self.average.names = int(average["updates"]), tuple(average["names"])
        self.average.averages = [value.to(device) for value in average["values"]]
        torch.set_rng_state(content["random"])
        if content["random_cuda"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(content["random_cuda"])


@dataclass(frozen=True)
class Checkpoints:
    """Where and when a run saves itself.

    Attributes:
        path: The file.
        every: Steps between two savings; 0 never saves.
        resume: Whether the run goes on from the file.
        identity: What decides the run's result, by name: see `run_identity`.
    """

    path: Path = Path("checkpoint.pt")
    every: int = 0
    resume: bool = False
    identity: Mapping[str, str] = field(default_factory=dict)

    def is_due(self, step: int) -> bool:
        """Whether to save after `step` finished steps."""
        return self.every > 0 and step % self.every == 0

    def save(self, content: Mapping[str, Any]) -> None:
        """Write what `RunState.content` gave; the file before stays until the new one is whole."""
        buffer = io.BytesIO()
        torch.save({"identity": dict(self.identity), **content}, buffer)
        body = buffer.getvalue()
        write_whole(self.path, CHECKPOINT_MAGIC + _checksum(body) + body)

    def load(self) -> dict[str, Any]:
        """Read what was saved.

        Raises:
            RunError: There is no file, it is damaged, or it is of a run with other settings or shards.
        """
        blob, start = read_whole(self.path), len(CHECKPOINT_MAGIC) + CHECKPOINT_DIGEST_BYTES
        body = blob[start:]
        if blob[: len(CHECKPOINT_MAGIC)] != CHECKPOINT_MAGIC:
            raise RunError(f"{self.path}: not a checkpoint of this version")
        if blob[len(CHECKPOINT_MAGIC) : start] != _checksum(body):
            raise RunError(f"{self.path}: damaged checkpoint, the checksum does not match")
        try:
            content: dict[str, Any] = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
            held = content["identity"]
        except (RuntimeError, UnpicklingError, EOFError, KeyError, ValueError, TypeError) as error:
            raise RunError(f"{self.path}: unreadable checkpoint ({error})") from error
        differing = sorted(k for k in {*held, *self.identity} if held.get(k) != self.identity.get(k))
        if differing:
            raise RunError(f"{self.path}: checkpoint of a run with another {', '.join(differing)}")
        return content

    def restore(self, state: RunState, content: Mapping[str, Any]) -> None:
        """Let a run go on from what `load` gave; raises RunError when that does not fit it."""
        try:
            state.restore(content)
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            raise RunError(f"{self.path}: does not fit this run ({error})") from error

    def remove(self) -> None:
        """Remove the file of a run that has ended."""
        self.path.unlink(missing_ok=True)


def run_identity(config: Config, train_files: str) -> dict[str, str]:
    """Settings that decide what is learned, and the names and lengths of the shards that `train_files` matches.

    Raises:
        ShardError: No shards, or a damaged one.
    """
    values = config.to_environment()
    deciding = [setting.name for section, _, setting, _ in config_settings() if section in DECIDING_SECTIONS]
    shards = " ".join(f"{path.name}:{shard_length(path)}" for path in find_shards(train_files))
    return {**{name: values[name] for name in deciding if name not in REPORTING_SETTINGS}, "DATA_PATH": shards}


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=CHECKPOINT_DIGEST_BYTES).digest()
