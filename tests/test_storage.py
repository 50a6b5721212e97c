from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reference_model.artifact import ArtifactError, pack
from reference_model.model import HymbaLM
from reference_model.presets import PRESETS
from reference_model.storage import RunError, load_state, pack_model, state_bytes, unpack_model

CONFIG = replace(
    PRESETS["demo"],
    model=replace(
        PRESETS["demo"].model, vocab_size=64, num_layers=2, model_dim=32, num_heads=2, num_kv_heads=1, bigram_buckets=64
    ),
)


def test_an_artifact_of_the_model_comes_back() -> None:
    state = HymbaLM(CONFIG.model).state_dict()
    assert unpack_model(pack_model(state, CONFIG), CONFIG.model).keys() == state.keys()


def test_tensors_of_another_model_are_one_clear_error() -> None:
    settings = json.dumps(asdict(CONFIG.model))
    lying = pack({"x": torch.zeros(3)}, settings, CONFIG.quant)
    with pytest.raises(ArtifactError, match="tensors are not those of the model: bigram_hash"):
        unpack_model(lying, CONFIG.model)
    state = HymbaLM(CONFIG.model).state_dict()
    longer = pack({**state, "skip_weights": torch.zeros(1, 9, 32)}, settings, CONFIG.quant)
    with pytest.raises(ArtifactError, match="not those of the model: skip_weights"):
        unpack_model(longer, CONFIG.model)


def test_other_settings_are_named() -> None:
    other = replace(CONFIG.model, rope_base=5e3)
    with pytest.raises(ArtifactError, match="other settings of rope_base"):
        unpack_model(pack_model(HymbaLM(CONFIG.model).state_dict(), CONFIG), other)


def test_older_artifacts_and_other_ways_to_compute_are_served() -> None:
    state = HymbaLM(CONFIG.model).state_dict()
    held = {key: value for key, value in asdict(CONFIG.model).items() if key not in {"rope_base", "scan_backend"}}
    older = pack(state, json.dumps(held), CONFIG.quant)
    assert unpack_model(older, replace(CONFIG.model, scan_chunk=7)).keys() == state.keys()
    with pytest.raises(ArtifactError, match="other settings of rope_base"):
        unpack_model(older, replace(CONFIG.model, rope_base=5e3))


@pytest.mark.parametrize("content", [b"", b"hello", state_bytes({})[:40]])
def test_files_that_are_no_weights_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "final_model.pt").write_bytes(content)
    with pytest.raises(RunError, match=r"final_model\.pt: not saved weights"):
        load_state(tmp_path / "final_model.pt")


@pytest.mark.parametrize("content", [[1, 2], {"w": 1}])
def test_saved_objects_that_are_no_weights_are_named(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "final_model.pt")
    with pytest.raises(RunError, match="no tensors by name"):
        load_state(tmp_path / "final_model.pt")
