from __future__ import annotations

import json
import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reference_model.artifact import ArtifactError, pack
from reference_model.model import HymbaLM
from reference_model.presets import PRESETS
from reference_model.storage import RunError, load_rounded, load_state, pack_model, state_bytes, unpack_model

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


# Of some damage torch warns, and of some once in a process only, which must not be what is refused.
@pytest.mark.filterwarnings("ignore")
def test_any_damage_of_a_weight_file_is_one_error_that_names_it(tmp_path: Path) -> None:
    path, whole = tmp_path / "final_model.pt", state_bytes({"w": torch.ones(3, 4), "b": torch.ones(2)})
    draw, said = random.Random(0), list[str]()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] = draw.randrange(256)
        path.write_bytes(damaged)
        # Damage of padding is none.
        try:
            load_state(path)
        except RunError as error:
            said.append(str(error))
    assert len(said) > 100
    assert all(line.startswith(f"{path}: not saved weights (") for line in said)


@pytest.mark.parametrize("error", [AttributeError, IndexError, TypeError, AssertionError, KeyError, OverflowError])
def test_whatever_torch_raises_is_said(error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error("odd")

    monkeypatch.setattr(torch, "load", fails)
    (tmp_path / "final_model.pt").write_bytes(b"x")
    with pytest.raises(RunError, match=rf"final_model\.pt: not saved weights \({error.__name__}: .*odd"):
        load_state(tmp_path / "final_model.pt")


@pytest.mark.parametrize(
    "beside",
    [
        {"w:int6": torch.ones(2, 2, dtype=torch.int8)},
        {"w:int6": torch.ones(2, 2), "w:scale": torch.ones(2).half()},
        {"w:int6": torch.ones(2, 2, dtype=torch.int8), "w:scale": torch.ones(2)},
        {"w:int": torch.ones(2, 2, dtype=torch.int8), "w:scale": torch.ones(2).half()},
        {"w:intsix": torch.ones(2, 2, dtype=torch.int8), "w:scale": torch.ones(2).half()},
    ],
)
def test_rounded_weights_without_their_parts_are_named(tmp_path: Path, beside: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "final_model.pt"
    torch.save({"w": torch.ones(2, 2), **beside}, path)
    with pytest.raises(RunError, match=r"final_model\.pt: (not saved weights|holds no rounded weights)"):
        load_rounded(path)


@pytest.mark.parametrize("content", [[1, 2], {"w": 1}, {1: torch.ones(1)}])
def test_saved_objects_that_are_no_weights_are_named(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "final_model.pt")
    with pytest.raises(RunError, match="no tensors by name"):
        load_state(tmp_path / "final_model.pt")
