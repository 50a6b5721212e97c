"""What a run says: one grammar of log lines, and the file they go to.

The grammar is the common one of the competition's logs, so that whatever reads those reads ours. The last
`val_loss:... val_bpb:...` line is the run's headline.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import zstandard

RULE_LINE = "=" * 100


@dataclass(frozen=True)
class Progress:
    """How far training is: finished steps of the planned ones, and the training time they took in milliseconds."""

    step: int
    steps: int
    train_ms: float

    def timing(self) -> str:
        """Training time and its mean per step."""
        return f"train_time:{self.train_ms:.0f}ms step_avg:{self.train_ms / max(self.step, 1):.2f}ms"


def train_line(progress: Progress, loss: float) -> str:
    """One training step: loss in nats per token."""
    return f"step:{progress.step}/{progress.steps} train_loss:{loss:.4f} {progress.timing()}"


def validation_line(progress: Progress, val_loss: float, val_bpb: float) -> str:
    """One validation during training: nats per token and bits per byte."""
    head = f"step:{progress.step}/{progress.steps}"
    return f"{head} val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f} {progress.timing()}"


def resume_line(name: str, progress: Progress) -> str:
    """Training goes on from a checkpoint."""
    return f"resumed:{name} step:{progress.step}/{progress.steps} {progress.timing()}"


def stop_line(progress: Progress) -> str:
    """The wallclock limit ended training."""
    time_and_step = f"train_time:{progress.train_ms:.0f}ms step:{progress.step}/{progress.steps}"
    return f"stopping_early: wallclock_cap {time_and_step}"


def score_lines(label: str, scores: tuple[float, float], mode: str, seconds: float) -> tuple[str, str]:
    """A scored evaluation, rounded with its mode and time, then exact.

    Args:
        label: For instance "legal_ttt"; the exact line's label ends in "_exact".
        scores: Nats per token, bits per byte.
        mode: How the tokens were scored.
        seconds: What it took.
    """
    val_loss, val_bpb = scores
    rounded = f"val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f} eval_mode:{mode} eval_time:{1000.0 * seconds:.0f}ms"
    return f"{label} {rounded}", f"{label}_exact val_loss:{val_loss:.8f} val_bpb:{val_bpb:.8f}"


def diagnostic_line(name: str, scores: tuple[float, float], seconds: float) -> str:
    """A score that is not the headline, of weights that are not in the artifact."""
    val_loss, val_bpb = scores
    return f"DIAGNOSTIC {name} val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f} eval_time:{1000.0 * seconds:.0f}ms"


def size_lines(quantizer: str, code_bytes: int, model_bytes: int) -> tuple[str, str, str]:
    """The bytes that count: code, compressed model, both; `quantizer` is for instance "int6+zstd-22"."""
    return (
        f"Code size: {code_bytes} bytes",
        f"Serialized model {quantizer}: {model_bytes} bytes",
        f"Total submission size {quantizer}: {code_bytes + model_bytes} bytes",
    )


def packing_line(quantizer: str, seconds: float) -> str:
    """What quantizing and compressing took, beside all limits."""
    return f"Serialize: {quantizer} done in {seconds:.3f}s"


def reserve_line(reserved_s: float, left_s: float) -> str:
    """Seconds that are kept of the training time for calibration, and those that are left for steps."""
    return f"gptq:reserving {reserved_s:g}s, effective={1000.0 * left_s:.0f}ms"


def calibration_line(train_s: float, spent_s: float) -> str:
    """Training and calibration together, which one limit holds."""
    train_ms, spent_ms = round(1000.0 * train_s), round(1000.0 * spent_s)
    return f"gptq:budget_check train:{train_ms}ms + gptq:{spent_ms}ms = {train_ms + spent_ms}ms"


def version_lines() -> tuple[str, ...]:
    """The versions that a run's numbers depend on."""
    return (
        f"Running Python {sys.version.split()[0]} on {platform.system()} {platform.machine()}",
        f"Running PyTorch {torch.__version__} numpy {np.__version__} zstandard {zstandard.__version__}",
        f"threads:{torch.get_num_threads()}",
    )


@dataclass
class RunLog:
    """Where a run's lines go: console and file on the first rank, nowhere on the others.

    Attributes:
        path: The log file, made new with its folders; None keeps the log on the console.
        console: Writes one line where a person sees it.
        enabled: False on every rank but the first.
        goes_on: Whether the file keeps the lines that it has.
    """

    path: Path | None
    console: Callable[[str], object] = print
    enabled: bool = True
    goes_on: bool = False
    _started: bool = field(default=False, init=False)

    def say(self, *lines: str) -> None:
        """Write lines to the console and to the file."""
        if self.enabled:
            for line in lines:
                self.console(line)
            self.record(*lines)

    def record(self, *lines: str) -> None:
        """Write lines to the file only; each call appends and closes, so that a killed run keeps its lines."""
        if not self.enabled or self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a" if self._started or self.goes_on else "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        self._started = True

    def record_header(self, hyperparameters: Mapping[str, object], code: str, versions: Sequence[str]) -> None:
        """Open the log: settings for everybody, the script's own source and the versions in the file only.

        Each part ends with a line of "=", so that readers can strip the source before they search the log.
        """
        settings = (f"  {name}: {value}" for name, value in sorted(hyperparameters.items()))
        self.say(RULE_LINE, "Hyperparameters:", *settings, RULE_LINE)
        self.record(code.rstrip("\n"), RULE_LINE, *versions, RULE_LINE)
