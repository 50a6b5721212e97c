"""Files of a run: saved weights and the artifact, written whole or not at all."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reference_model.artifact import ArtifactError, pack, unpack
from reference_model.config import Config, ModelConfig
from reference_model.model import HymbaLM
from reference_model.quantize import QuantizedTensor

# Between a tensor's name and what is saved beside it; no name of a tensor holds it.
ROUNDED_MARK = ":"
# How things are computed, not what: an artifact serves every one of them.
COMPUTING_SETTINGS = frozenset({"scan_backend", "scan_chunk", "conv_backend", "window_backend", "elementwise_backend"})


class RunError(RuntimeError):
    """The run cannot go on, or cannot give a valid submission."""


def pack_model(
    state: Mapping[str, Tensor], config: Config, rounded: Mapping[str, QuantizedTensor] | None = None
) -> bytes:
    """The artifact of a model's weights, with the settings that rebuild it; raises ArtifactError.

    Args:
        state: The weights.
        config: How they are stored.
        rounded: Tensors in integers already; the others are rounded to nearest.
    """
    return pack(state, json.dumps(asdict(config.model), sort_keys=True), config.quant, rounded)


def unpack_model(blob: bytes, config: ModelConfig) -> dict[str, Tensor]:
    """The weights of an artifact.

    Raises:
        ArtifactError: It is damaged, or was packed under other settings of the model.
    """
    return unpack(blob, expect=partial(refuse_other_model, config))[1]


def refuse_other_model(config: ModelConfig, header: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse settings or tensors that are not those of the model; raises ArtifactError that names them.

    A setting that an older artifact does not have has its default there, which is what it was before it was one.
    """
    expected, default = (json.loads(json.dumps(asdict(one))) for one in (config, ModelConfig()))
    held = default | header["config"]
    keys = (expected | held).keys() - COMPUTING_SETTINGS
    differing = sorted(key for key in keys if expected.get(key) != held.get(key))
    if differing:
        raise ArtifactError(f"the artifact was packed under other settings of {', '.join(differing)}")
    with torch.device("meta"):  # shapes only
        model = {name: tuple(tensor.shape) for name, tensor in HymbaLM(config).state_dict().items()}
    if odd := sorted(name for name in {*model, *shapes} if model.get(name) != shapes.get(name)):
        raise ArtifactError(f"the artifact's tensors are not those of the model: {', '.join(odd[:5])}")


def cpu_state(model: HymbaLM) -> dict[str, Tensor]:
    """A copy of the weights by name."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def artifact_path(config: Config) -> Path:
    """Where the artifact stands, from the working directory."""
    return Path(config.data.artifact_path or f"final_model.int{config.quant.bits}.ptz")


def raw_path(weights: Path) -> Path:
    """Where the last weights stand beside the averaged ones: final_model.raw.pt beside final_model.pt."""
    return weights.with_suffix(f".raw{weights.suffix}")


def state_bytes(state: Mapping[str, Tensor], rounded: Mapping[str, QuantizedTensor] | None = None) -> bytes:
    """Weights as torch saves them, and beside them integers and scales of those that are rounded already."""
    beside = {
        f"{name}{ROUNDED_MARK}{part}": tensor
        for name, one in (rounded or {}).items()
        for part, tensor in ((f"int{one.bits}", one.values), ("scale", one.scale))
    }
    buffer = io.BytesIO()
    torch.save({**state, **beside}, buffer)
    return buffer.getvalue()


def load_state(path: Path) -> dict[str, Tensor]:
    """Weights that `state_bytes` made; raises RunError when there are none."""
    return {name: tensor for name, tensor in _load(path).items() if ROUNDED_MARK not in name}


def load_rounded(path: Path) -> dict[str, QuantizedTensor]:
    """What was rounded already; raises RunError when nothing was, or when integers or scales are missing."""
    saved, rounded = _load(path), dict[str, QuantizedTensor]()
    for key, values in saved.items():
        name, _, kind = key.partition(f"{ROUNDED_MARK}int")
        if kind:
            scale = saved.get(f"{name}{ROUNDED_MARK}scale")
            if not kind.isdecimal() or scale is None or (values.dtype, scale.dtype) != (torch.int8, torch.float16):
                raise RunError(f"{path}: not saved weights ({key} is no integers with a scale)")
            rounded[name] = QuantizedTensor(values, scale, int(kind), torch.float32)
    if not rounded:
        raise RunError(f"{path}: holds no rounded weights, as QUANT_METHOD=gptq leaves them after training")
    return rounded


def _load(path: Path) -> dict[str, Tensor]:
    content = io.BytesIO(read_whole(path))
    try:
        state: Any = torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:
        # A damaged pickle makes torch raise whatever its steps run into.
        raise RunError(f"{path}: not saved weights ({type(error).__name__}: {error})") from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise RunError(f"{path}: not saved weights (no tensors by name)")
    return dict(state)


def read_whole(path: Path) -> bytes:
    """A file's bytes; raises RunError that names it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}") from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename it: nobody ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.partial")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        # Otherwise the name may be on disk before the bytes, should the machine stop.
        os.fsync(file.fileno())
    temporary.replace(path)
