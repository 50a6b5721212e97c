"""What a script says of itself: the module `audit` that a submission may ship (docs/adapter.md), here with a voice."""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .tracer.positions import ranges

NAME = "audit"
PROTOCOL = "audit/1"
# A submission's own module is ours to replace only where it says that it is this one.
MARK = 'PROTOCOL = "audit/1"'
TEXT_LIMIT = 100_000


def install(folder: str, emit: Callable[..., None], at: Callable[[], int]) -> bool:
    """Put a module in place of the one that does nothing; returns whether it was.

    Args:
        folder: the script's.
        emit: writes an event: its kind, and its fields by name.
        at: the number of the last computation or update.
    """
    if not _free(folder):
        return False
    module = types.ModuleType(NAME)

    def score(positions: Any, nll: Any, logits: Any = None) -> None:
        values = _numbers(nll)
        sums = None if logits is None else _numbers(logits).reshape(values.size, -1).size // max(values.size, 1)
        emit(
            "told",
            what="score",
            at=at(),
            positions=ranges(_numbers(positions).astype(np.int64), again=True),
            sum=_finite(float(values.sum())),
            vocabulary=sums,
        )

    def update(positions: Any) -> None:
        places = ranges(_numbers(positions).astype(np.int64))
        emit("told", what="update", at=at(), positions=places, sum=None, vocabulary=None)

    vars(module).update(PROTOCOL=PROTOCOL, score=score, update=update)
    sys.modules[NAME] = module
    return True


def _free(folder: str) -> bool:
    """Whether the name is this module's: the submission ships it as such, or nobody has it."""
    path = os.path.join(folder, f"{NAME}.py")
    if os.path.isfile(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            return MARK in file.read(TEXT_LIMIT)
    return importlib.util.find_spec(NAME) is None


def _numbers(values: Any) -> Any:
    """Numbers of any kind in one row; the tracer does not take the look at them for a score."""
    with torch.no_grad(), torch._C.DisableTorchFunction():
        if isinstance(values, torch.Tensor):
            return values.detach().cpu().double().reshape(-1).numpy()
    return np.asarray(values, dtype=np.float64).reshape(-1)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
