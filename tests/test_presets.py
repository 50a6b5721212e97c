"""Every preset's parameters, module by module, against the published tables; and the settings of the newer ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reference_model.cli import command_line
from reference_model.config import Config, ModelConfig
from reference_model.params import parameter_counts
from reference_model.presets import PRESETS
from reference_model.settings import ConfigError

TOTALS = {
    "pr599": 27_161_151,
    "pr914": 27_161_151,
    "pr1245": 31_357_512,
    "mini1961": 17_209_542,
    "mini1961_3": 16_984_514,
    "pr852_records": 35_491_938,
    # Ours: nobody published these.
    "pr852": 35_172_450,
    "paper": 20_764_216,
    "demo": 2_635_786,
    # As many to a tenth of a percent: compared with each other.
    "demo_attention": 2_635_016,
    "demo_baseline": 2_637_348,
}
CONTROLS = {"attn_scale": 512, "mlp_scale": 512, "resid_mix": 2 * 512}
MLP_4 = {"mlp.fc.weight": 2048 * 512, "mlp.proj.weight": 512 * 2048}
MLP_3 = {"mlp.fc.weight": 1536 * 512, "mlp.proj.weight": 512 * 1536}
MLP_2 = {"mlp.fc.weight": 1024 * 512, "mlp.proj.weight": 512 * 1024}
EMBEDDED = {
    "tok_emb.weight": 1024 * 512,
    "smeargate.gate": 512,
    "bigram_hash.table.weight": 4096 * 128,
    "bigram_hash.proj.weight": 512 * 128,
}


def inside(layer: int, block: dict[str, int]) -> dict[str, int]:
    return {f"blocks.{layer}.{name}": count for name, count in block.items()}


def scan_part(state: int, taps: int = 4) -> dict[str, int]:
    """Convolution and scan without their matrices from the stream and back."""
    return {
        "attn.conv1d.weight": 512 * taps,
        "attn.conv1d.bias": 512,
        "attn.A_log": 512 * state,
        "attn.D": 512,
        "attn.x_proj.weight": (32 + 2 * state) * 512,
        "attn.dt_proj.weight": 512 * 32,
        "attn.dt_proj.bias": 512,
    }


def hymba_block(state: int, *, fused: bool) -> dict[str, int]:
    projections = (
        {"attn.in_proj.weight": 1536 * 512}
        if fused
        else {"attn.kv_proj.weight": 512 * 512, "attn.mamba_proj.weight": 1024 * 512}
    )
    return {
        **CONTROLS,
        **MLP_4,
        **scan_part(state),
        **projections,
        "attn.q_gain": 8,
        "attn.c_q.weight": 512 * 512,
        "attn.proj.weight": 512 * 512,
        "attn.mamba_out_proj.weight": 512 * 512,
        "attn.merge_alpha": 1,
    }


def heads_block(*, owns_keys: bool) -> dict[str, int]:
    head = {
        "log_A": 16,
        "B_proj.weight": 16 * 64,
        "C_proj.weight": 16 * 64,
        "dt_proj.weight": 16 * 64,
        "dt_proj.bias": 16,
        "out_proj.weight": 64 * 16,
    }
    assert sum(head.values()) == 4_128
    keys = {"attn.c_k.weight": 256 * 512, "attn.c_v.weight": 256 * 512} if owns_keys else {}
    return {
        **CONTROLS,
        **MLP_2,
        **keys,
        "attn.c_q.weight": 512 * 512,
        "attn.proj.weight": 512 * 512,
        "attn.q_gain": 4,
        "attn.ssm_in.weight": 256 * 512,
        **{f"attn.ssm_heads.{head_number}.{n}": c for head_number in range(4) for n, c in head.items()},
        "attn.meta_tokens": 4 * 512,
        "attn.attn_scale": 1,
        "attn.ssm_scale": 1,
    }


PLAIN_BLOCK = {
    **CONTROLS,
    **MLP_2,
    "attn.c_q.weight": 512 * 512,
    "attn.c_k.weight": 256 * 512,
    "attn.c_v.weight": 256 * 512,
    "attn.proj.weight": 512 * 512,
    "attn.q_gain": 8,
}
MINI_OUTSIDE = {"tok_emb.weight": 1024 * 512, "skip_weights": 4 * 512}
BANKED_BLOCK = {
    **CONTROLS,
    "attn.q_gain": 8,
    "attn.conv1d.weight": 512 * 3,
    "attn.conv1d.bias": 512,
    "attn.A_log": 512 * 8,
    "attn.D": 512,
    "attn.merge_alpha": 1,
}
PAPER_BLOCK = {
    **CONTROLS,
    **MLP_3,
    **scan_part(16),
    "attn.q_gain": 8,
    "attn.c_q.weight": 512 * 512,
    "attn.proj.weight": 512 * 512,
    "attn.attention_norm": 512,
    "attn.mamba_norm": 512,
}
OWN_KEYS, OTHERS_KEYS = {"attn.in_proj.weight": 1536 * 512}, {"attn.mamba_proj.weight": 1024 * 512}


def rest(layers: range | tuple[int, ...], block: dict[str, int]) -> dict[str, int]:
    return {f"blocks.{layer}": sum(block.values()) for layer in layers}


TABLES = {
    "pr599": EMBEDDED
    | {"skip_weights": 3 * 512}
    | inside(0, hymba_block(8, fused=True))
    | rest(range(1, 7), hymba_block(8, fused=True)),
    "pr914": EMBEDDED
    | {"skip_weights": 3 * 512}
    | inside(0, hymba_block(8, fused=False))
    | rest(range(1, 7), hymba_block(8, fused=False)),
    "pr1245": EMBEDDED
    | {"skip_weights": 4 * 512, "lm_head.weight": 1024 * 512}
    | inside(0, hymba_block(4, fused=False))
    | rest(range(1, 8), hymba_block(4, fused=False)),
    "mini1961": MINI_OUTSIDE
    | inside(0, PLAIN_BLOCK)
    | inside(4, heads_block(owns_keys=True))
    | rest((1, 2, 3, 5, 6, 7, 8), PLAIN_BLOCK),
    "mini1961_3": MINI_OUTSIDE
    | inside(0, PLAIN_BLOCK)
    | inside(3, heads_block(owns_keys=True))
    | inside(4, heads_block(owns_keys=False))
    | rest((5,), heads_block(owns_keys=False))
    | rest((1, 2, 6, 7, 8), PLAIN_BLOCK),
    "pr852_records": {
        "tok_emb.weight": 1024 * 512,
        "banks.qo": 11 * 512 * 512,
        "banks.kv": 11 * 256 * 512,
        "banks.mlp_up": 11 * 1536 * 512,
        "banks.mlp_down": 11 * 512 * 1536,
        "banks.ssm_in": 11 * 1536 * 512,
        "banks.ssm_gate": 11 * 256 * 512,
        "banks.ssm_x": 11 * 48 * 512,
        "banks.ssm_out": 11 * 512 * 512,
    }
    | inside(0, {**BANKED_BLOCK, "attn.dt_bias": 512})
    | rest(range(1, 10), {**BANKED_BLOCK, "attn.dt_bias": 512})
    | inside(10, {**CONTROLS, "attn.q_gain": 8}),
    "pr852": {
        "tok_emb.weight": 1024 * 512,
        "bigram_hash.table.weight": 2048 * 128,
        "bigram_hash.proj.weight": 512 * 128,
        "banks.qo": 22 * 512 * 512,
        "banks.kv": 22 * 256 * 512,
        "banks.mlp_up": 11 * 1536 * 512,
        "banks.mlp_down": 11 * 512 * 1536,
        "banks.ssm_in": 10 * 1024 * 512,
        "banks.ssm_x": 10 * 48 * 512,
        "banks.ssm_dt": 10 * 512 * 32,
        "banks.ssm_out": 10 * 512 * 512,
    }
    | inside(0, {**BANKED_BLOCK, "attn.dt_proj.bias": 512})
    | rest(range(1, 10), {**BANKED_BLOCK, "attn.dt_proj.bias": 512})
    | inside(10, {**CONTROLS, "attn.q_gain": 8}),
    "paper": {"tok_emb.weight": 1024 * 512, "meta_tokens": 256 * 512}
    | inside(0, PAPER_BLOCK | OWN_KEYS)
    | rest((1, 3, 4, 6), PAPER_BLOCK | OWN_KEYS)
    | inside(2, PAPER_BLOCK | OTHERS_KEYS)
    | rest((5,), PAPER_BLOCK | OTHERS_KEYS),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_the_total_stands_on_the_last_line(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["params", "--preset", preset]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"total {TOTALS[preset]}"
    # Modules at the margin add up to it: what stands under a block is part of it.
    assert sum(int(line.split()[-1].replace(",", "")) for line in lines[:-1] if line[0] != " ") == TOTALS[preset]


@pytest.mark.parametrize("preset", TABLES)
def test_every_module_has_the_published_number_of_parameters(preset: str) -> None:
    assert dict(parameter_counts(PRESETS[preset].model)) == TABLES[preset]


def test_published_blocks() -> None:
    assert sum(hymba_block(8, fused=True).values()) == 3_720_713
    assert sum(hymba_block(4, fused=False).values()) == 3_714_569
    mixer = {name: count for name, count in heads_block(owns_keys=True).items() if name.startswith("attn.")}
    assert sum(mixer.values()) == 936_070


def test_who_uses_whose_keys_and_values() -> None:
    def sources(model: ModelConfig) -> list[int]:
        return [model.kv_source(layer) for layer in range(model.num_layers)]

    assert sources(PRESETS["mini1961"].model) == list(range(9))
    assert sources(PRESETS["mini1961_3"].model) == [0, 1, 2, 3, 3, 3, 6, 7, 8]
    assert sources(PRESETS["paper"].model) == [0, 1, 1, 3, 4, 4, 6]
    assert sources(replace(PRESETS["paper"].model, global_layers=())) == [0, 0, 2, 2, 4, 4, 6]
    assert sources(replace(PRESETS["paper"].model, kv_share=False)) == list(range(7))


def test_hybrid_layers_beyond_the_last_are_left_out() -> None:
    model = Config.from_environment({"NUM_LAYERS": "4", "HYMBA_LAYERS": "3,4,5"}, PRESETS["mini1961"]).model
    assert [model.is_hybrid(layer) for layer in range(4)] == [False, False, False, True]
    assert "blocks.3.attn.meta_tokens" in dict(parameter_counts(model))


@pytest.mark.parametrize(
    ("preset", "names", "expected"),
    [
        ("pr599", {"ROPE_DIMS": "15"}, "ROPE_DIMS: 15 is no even part of a head of 64"),
        ("pr599", {"ROPE_DIMS": "66"}, "ROPE_DIMS: 66 is no even part of a head of 64"),
        (
            "mini1961",
            {"NUM_KV_HEADS": "8"},
            "HYMBA_FUSION: half of NUM_HEADS (8) is no multiple of NUM_KV_HEADS (8)",
        ),
        ("paper", {"HYMBA_EXPAND": "2"}, "HYMBA_FUSION: norms need branches of one width, HYMBA_EXPAND is 2"),
        (
            "pr852",
            {"HYMBA_KV_SHARE": "1"},
            "PARAMETER_BANKS: separate excludes HYMBA_FUSION=heads and HYMBA_KV_SHARE=1",
        ),
        ("pr599", {"HYMBA_ENABLED": "2"}, "HYMBA_ENABLED: '2' is not 0 or 1"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(preset: str, names: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_environment(names, PRESETS[preset])
    assert str(caught.value) == expected
