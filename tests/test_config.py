"""Settings: published run commands, refusals by name, and the way through the environment and back."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference_model.config import (
    Config,
    ModelConfig,
    TrainConfig,
    config_settings,
)
from reference_model.evalconfig import EvalConfig
from reference_model.presets import PRESETS
from reference_model.published import PUBLISHED, environment_of
from reference_model.settings import ConfigError, Setting

PACKAGE = Path(__file__).parent.parent / "reference_model"
RUN_COMMANDS = {preset: published.environment for preset, published in PUBLISHED.items() if published.environment}
BASELINE_NAMES = """
DATA_PATH TOKENIZER_PATH RUN_ID SEED VAL_BATCH_SIZE VAL_LOSS_EVERY TRAIN_LOG_EVERY ITERATIONS WARMDOWN_ITERS
WARMUP_STEPS TRAIN_BATCH_TOKENS TRAIN_SEQ_LEN MAX_WALLCLOCK_SECONDS QK_GAIN_INIT VOCAB_SIZE NUM_LAYERS NUM_KV_HEADS
MODEL_DIM NUM_HEADS MLP_MULT TIE_EMBEDDINGS ROPE_BASE LOGIT_SOFTCAP EMBED_LR HEAD_LR TIED_EMBED_LR
TIED_EMBED_INIT_STD MATRIX_LR SCALAR_LR MUON_MOMENTUM MUON_BACKEND_STEPS MUON_MOMENTUM_WARMUP_START
MUON_MOMENTUM_WARMUP_STEPS BETA1 BETA2 ADAM_EPS GRAD_CLIP_NORM
"""


@pytest.mark.parametrize("preset", RUN_COMMANDS)
def test_a_published_command_describes_its_own_preset(preset: str) -> None:
    assert Config.from_environment(environment_of(PUBLISHED[preset]), PRESETS[preset]) == PRESETS[preset]


@pytest.mark.parametrize("source", RUN_COMMANDS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_takes_every_published_command(source: str, preset: str) -> None:
    names = environment_of(PUBLISHED[source])
    if PRESETS[preset].model.banks != "none":
        # Banks hold the keys and values of every layer.
        names.pop("HYMBA_KV_SHARE", None)
    base = dataclasses.replace(PRESETS[preset], train=TrainConfig())
    configured = Config.from_environment(names, base).to_environment()
    configured["HYMBA_ENABLED"] = configured["USE_HYMBA"]
    assert {name: float(configured[name]) for name in names if _is_number(names[name])} == {
        name: float(value) for name, value in names.items() if _is_number(value)
    }
    assert all(configured[name] == value for name, value in names.items() if not _is_number(value))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_the_baselines_names_are_all_known() -> None:
    assert set(BASELINE_NAMES.split()) <= {setting.name for _, _, setting, _ in config_settings()}


def test_no_environment_name_stands_for_two_fields() -> None:
    names = [setting.name for _, _, setting, _ in config_settings()]
    assert len(names) == len(set(names))


def test_every_setting_has_an_effect_or_the_page_says_that_it_has_none() -> None:
    code = [path.read_text(encoding="utf-8") for path in PACKAGE.glob("*.py") if path.name != "presets.py"]
    read = {match for text in code for match in re.findall(r"\.([a-z]\w*)\b(?!\()", text)}
    unread = [setting.name for _, name, setting, _ in config_settings() if name not in read]
    page = (PACKAGE.parent / "docs" / "evaluation.md").read_text(encoding="utf-8").replace("\n", " ")
    assert unread == ["VAL_BATCH_SIZE"]
    assert re.search(r"`VAL_BATCH_SIZE`, [^.]* is accepted without effect\.", page)


@pytest.mark.parametrize("base", PRESETS)
@pytest.mark.parametrize("preset", PRESETS)
def test_the_environment_of_a_preset_gives_it_back(preset: str, base: str) -> None:
    assert Config.from_environment(PRESETS[preset].to_environment(), PRESETS[base]) == PRESETS[preset]


@given(
    rate=st.floats(0, 100),
    layers=st.integers(1, 256),
    seed=st.integers(0, (1 << 63) - 1),
    shape=st.sampled_from(["linear", "cosine"]),
    tied=st.booleans(),
    path=st.text(st.characters(codec="utf-8", exclude_characters="\0")),
)
def test_values_survive_the_environment(
    *, rate: float, layers: int, seed: int, shape: str, tied: bool, path: str
) -> None:
    base = PRESETS["pr599"]
    config = dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, num_layers=layers, tie_embeddings=tied),
        optim=dataclasses.replace(base.optim, matrix_lr=rate),
        train=dataclasses.replace(base.train, seed=seed, warmdown_shape=shape),
        data=dataclasses.replace(base.data, data_path=path),
    )
    assert Config.from_environment(config.to_environment(), base) == config


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("NUM_LAYERS", "0", "NUM_LAYERS: 0 is outside 1 .. 256"),
        ("NUM_LAYERS", "seven", "NUM_LAYERS: 'seven' is not an integer"),
        ("NUM_LAYERS", "7.5", "NUM_LAYERS: '7.5' is not an integer"),
        ("NUM_LAYERS", "", "NUM_LAYERS: '' is not an integer"),
        ("MATRIX_LR", "nan", "MATRIX_LR: nan is not a finite number"),
        ("MATRIX_LR", "inf", "MATRIX_LR: inf is not a finite number"),
        ("MATRIX_LR", "-0.1", "MATRIX_LR: -0.1 is outside 0 .. 100"),
        ("MATRIX_LR", "fast", "MATRIX_LR: 'fast' is not a number"),
        ("WARMDOWN_SHAPE", "square", "WARMDOWN_SHAPE: 'square' is not one of linear, cosine"),
        ("QUANT_BITS", "5", "QUANT_BITS: 5 is not one of 4, 6, 8"),
        ("TTT_ENABLED", "yes", "TTT_ENABLED: 'yes' is not 0 or 1"),
        ("HYMBA_LAYERS", "-1", "HYMBA_LAYERS: -1 is outside 0 .. 255"),
        ("HYMBA_LAYERS", "4,256", "HYMBA_LAYERS: 256 is outside 0 .. 255"),
        ("SWA_GLOBAL_LAYERS", "0,-1", "SWA_GLOBAL_LAYERS: -1 is outside 0 .. 255"),
        ("SWA_GLOBAL_LAYERS", "0,9", "SWA_GLOBAL_LAYERS: 0,9 is outside the 7 layers"),
        ("SWA_GLOBAL_LAYERS", "first", "SWA_GLOBAL_LAYERS: 'first' is not auto, none or integers separated by commas"),
        ("MODEL_DIM", "500", "MODEL_DIM: 500 is not a multiple of 2 * NUM_HEADS (8)"),
        ("NUM_KV_HEADS", "3", "NUM_KV_HEADS: 3 does not divide NUM_HEADS (8)"),
        ("TRAIN_SEQ_LEN", "1000", "TRAIN_BATCH_TOKENS: 524288 is not a multiple of TRAIN_SEQ_LEN (1000)"),
        ("TTT_FREEZE_BLOCKS", "8", "TTT_FREEZE_BLOCKS: 8 is more than NUM_LAYERS (7)"),
        ("EVAL_STRIDE", "4096", "EVAL_STRIDE: 4096 is longer than the 2048 scored"),
    ],
)
def test_a_bad_value_is_refused_by_name(name: str, value: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_environment({name: value}, PRESETS["pr599"])
    assert str(caught.value) == expected


def _out_of_range() -> list[tuple[str, str]]:
    cases = []
    for _, _, setting, kind in config_settings():
        if kind not in {int, float} or setting.choices:
            continue
        step = 1 if kind is int else 1e-3 * max(1.0, abs(setting.high))
        cases += [(setting.name, str(limit)) for limit in (setting.low - step, setting.high + step)]
    return cases


@pytest.mark.parametrize(("name", "value"), _out_of_range())
def test_every_range_is_enforced(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name}: .* is outside "):
        Config.from_environment({name: value}, PRESETS["demo"])


def test_sections_are_checked_when_made_directly_too() -> None:
    with pytest.raises(ConfigError, match=r"^QUANT_BITS"):
        dataclasses.replace(PRESETS["demo"].quant, bits=3)
    with pytest.raises(ConfigError, match=r"^TTT_FREEZE_BLOCKS"):
        Config(model=ModelConfig(num_layers=2), evaluation=EvalConfig(ttt_freeze_blocks=3))


def test_unknown_variables_are_left_alone() -> None:
    assert Config.from_environment({"PATH": "/bin", "HOME": "x"}, PRESETS["demo"]) == PRESETS["demo"]


@pytest.mark.parametrize(
    ("names", "activation", "slope"),
    [
        ({}, "relu2", 0.9),
        ({"LEAKY_RELU_SLOPE": "0.5"}, "leaky_relu2", 0.5),
        ({"LEAKY_RELU_SLOPE": "0.5", "ACTIVATION": "silu"}, "silu", 0.5),
    ],
)
def test_a_slope_alone_selects_the_leaky_activation(names: Mapping[str, str], activation: str, slope: float) -> None:
    model = Config.from_environment(names, PRESETS["pr599"]).model
    assert (model.activation, model.leaky_relu_slope) == (activation, slope)


@pytest.mark.parametrize(
    ("layers", "windows"),
    [("none", [64, 64, 64, 64, 64]), ("auto", [0, 64, 0, 64, 0]), ("1,3", [64, 0, 64, 0, 64])],
)
def test_windows_by_layer(layers: str, windows: list[int]) -> None:
    names = {"NUM_LAYERS": "5", "SLIDING_WINDOW": "64", "SWA_GLOBAL_LAYERS": layers}
    model = Config.from_environment(names, PRESETS["pr599"]).model
    assert [model.layer_window(layer) for layer in range(5)] == windows


@pytest.mark.parametrize(
    ("names", "enabled"),
    [
        ({}, True),
        ({"HYMBA_ENABLED": "0"}, False),
        ({"HYMBA_ENABLED": "1", "USE_HYMBA": "0"}, False),
        ({"USE_HYMBA": "0"}, False),
    ],
)
def test_the_scan_has_two_switches_and_the_competitions_own_wins(names: Mapping[str, str], *, enabled: bool) -> None:
    assert Config.from_environment(names, PRESETS["pr599"]).model.use_hymba is enabled


def test_evaluated_length_follows_training_unless_given() -> None:
    assert PRESETS["pr914"].eval_seq_len == 32_768
    assert Config.from_environment({"EVAL_SEQ_LEN": "4096"}, PRESETS["pr914"]).eval_seq_len == 4_096


def test_settings_and_presets_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PRESETS["demo"].model.num_layers = 3  # type: ignore[misc]  # the point of the test
    with pytest.raises(dataclasses.FrozenInstanceError):
        Setting("X").low = 0  # type: ignore[misc]  # the point of the test
