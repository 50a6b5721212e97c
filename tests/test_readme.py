"""Tables and sentences of READMEs."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.checks.common import unit_of
from harness.facts.build_readme import build_readme
from harness.facts.claims import ReadmeClaims, SeedClaim
from harness.model import Located, Missing
from harness.sources.readme import plain, read
from tests.records import value


def claims(text: str) -> ReadmeClaims:
    return build_readme(read(text), "README.md", "")


def rows(found: tuple[SeedClaim, ...]) -> list[tuple[float | int | None, ...]]:
    return [
        tuple(
            value(fact)
            for fact in (row.seed, row.val_bpb, row.val_loss, row.artifact_bytes, row.steps, row.train_seconds)
        )
        for row in found
    ]


TABLE = """# Title

| Seed | Steps | Pre-quant BPB | **Post-TTT BPB** | val_loss (nats) | Train time | Artifact |
|------|------:|---------------|------------------|-----------------|:----------:|----------|
| 1337 | 6,242 | 1.1232 | **1.1066** | 1.8684 | 596.1s | 15,942,395 |
| **42** | ~6,200 | 1.1235 | 1.1077 | 1.8704 | 10 min | 15.92 MB |
| **Mean** | 6,221 | 1.1233 | **1.1072** | 1.8694 | | |
| Std | | | 0.0008 | | | |
"""


def test_a_table_of_seeds() -> None:
    found = claims(TABLE)
    assert rows(found.seeds) == [
        (1337, 1.1066, 1.8684, 15942395, 6242, 596.1),
        (42, 1.1077, 1.8704, None, None, None),
    ]
    assert isinstance(found.seeds[1].steps, Missing)
    assert isinstance(found.seeds[0].val_bpb, Located)
    assert found.seeds[0].val_bpb.location.line == 5
    assert value(found.val_bpb_std) == 0.0008


def test_without_a_sentence_the_mean_of_the_table_is_the_headline() -> None:
    found = claims(TABLE).val_bpb
    assert isinstance(found, Located)
    assert (found.value, found.location.line) == (1.1072, 7)


def test_a_later_table_fills_gaps_only_for_the_same_scores() -> None:
    text = (
        "|Seed|Sliding BPB|\n|-|-|\n|1|1.1066|\n|2|1.2077|\n\n"
        "|Seed|Sliding BPB|Train time|Eval ms|\n|-|-|-|-|\n|1|1.10662|590.5s|83,000|\n|2|1.3077|591s|84,000|\n"
    )
    found = claims(text).seeds
    assert [value(row.train_seconds) for row in found] == [590.5, None]
    assert [value(row.eval_seconds) for row in found] == [83.0, None]


def test_tables_without_seeds_are_passed_over() -> None:
    assert claims("| Config | BPB | Seeds |\n|---|---|---|\n| best | 1.2 | 1337 |\n").seeds == ()
    assert claims("| Seed | Color |\n|---|---|\n| 1 | red |\n").seeds == ()


def test_counts_and_steps_are_no_scores_and_no_times() -> None:
    found = claims(
        "| Run | TTT Epochs | Seed | Static BPB | Final BPB | Train step |\n|---|---|---|---|---|---|\n"
        "| a | 1 | 7 | 1.31 | 1.2767 | 4927 |\n| b | **2** | 8 | 1.3087 | **1.2744** | 4931 |\n"
    ).seeds
    assert [value(row.val_bpb) for row in found] == [1.2767, 1.2744]
    assert [value(row.train_seconds) for row in found] == [None, None]
    assert [value(row.steps) for row in found] == [4927, 4931]


def test_a_better_score_in_a_later_column_leaves_the_final_one_open() -> None:
    table = "| Seed | Post-TTT | Quantized+Slide+X |\n|---|---|---|\n| 7 | 1.2788 | {} |\n"
    assert isinstance(claims(table.format("1.2736")).seeds[0].val_bpb, Missing)
    assert value(claims(table.format("1.2836")).seeds[0].val_bpb) == 1.2788


def test_a_column_called_bpb_with_impossible_values_is_missing() -> None:
    found = claims("| Seed | BPB |\n|---|---|\n| 1 | 45 |\n").seeds
    assert isinstance(found[0].val_bpb, Missing)


def test_code_blocks_hold_no_tables_and_no_sentences() -> None:
    assert claims("```\n| Seed | BPB |\n|---|---|\n| 1 | 1.2 |\nval_bpb: 1.25\n```\n") == claims("")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("**val_bpb: 1.1194** (3-seed mean, std 0.0006) | 15.9 MB", (1.1194, 0.0006)),
        (r"**val\_bpb = 1.0822** (3-seed mean ± 0.0005)", (1.0822, 0.0005)),
        ("# Ours (val_bpb: 1.1271)", (1.1271, None)),
        ("# Notable: 1.1570 BPB — ternary", (1.157, None)),
        ("### Score\n\nmean val_bpb = 1.1458", (1.1458, None)),
        ("# Title\n\n- Pre-quant `val_bpb:1.2172`\n- **val bpb**: 1.2244", (1.2244, None)),
    ],
)
def test_headlines(text: str, expected: tuple[float, float | None]) -> None:
    found = claims(text)
    assert (value(found.val_bpb), value(found.val_bpb_std)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "We improve on the baseline val_bpb: 1.2244.",
        "**val_bpb: 1.1898** (first) → **1.1554** (now)",
        "Pre-quant eval: `val_bpb: 1.2172`",
        "A README that says nothing.",
        "",
    ],
)
def test_what_is_no_headline(text: str) -> None:
    assert isinstance(claims(text).val_bpb, Missing)


def test_contradicting_sentences_are_missing_with_both_values() -> None:
    padding = "\n" * 12
    found = claims(f"{padding}val_bpb: 1.20\n\nval_bpb: 1.30\n").val_bpb
    assert isinstance(found, Missing)
    assert "1.2 at line 13, 1.3 at line 15" in found.reason


def test_repeated_sentences_give_the_most_exact_print() -> None:
    padding = "\n" * 12
    found = claims(f"{padding}val_bpb: 1.2244\nval_bpb: 1.22436570\n").val_bpb
    assert isinstance(found, Located)
    assert (found.value, found.location.line) == (1.2243657, 14)


def test_sentences_that_name_seeds_make_rows() -> None:
    found = claims("- `a.log`: run, `SEED=7`, `val_bpb=1.20576485`\n- `b.log`: rerun, `SEED=8`, `val_bpb=1.2061`\n")
    assert [row[:2] for row in rows(found.seeds)] == [(7, 1.20576485), (8, 1.2061)]


def test_no_readme_is_missing_with_the_reason() -> None:
    found = build_readme(None, "", "the folder has no README")
    assert found.val_bpb == Missing("the folder has no README")


def test_markup_is_removed() -> None:
    assert plain(r"**val\_bpb**: `1.15`  <br> *x*") == "val_bpb: 1.15 x"


@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    built = claims(text)
    assert all(isinstance(seed.seed, Located) for seed in built.seeds)


@given(
    st.lists(
        st.sampled_from(["| Seed | BPB |", "|---|---|", "| 1 | 1.2 |", "val_bpb: 1.2", "#", "```", "|", "", "± 0.1"])
    )
)
def test_shuffled_lines_are_read(lines: list[str]) -> None:
    built = claims("\n".join(lines))
    assert isinstance(built.val_bpb, Missing) or math.isfinite(built.val_bpb.value)


def test_a_deviation_too_long_to_be_finite_and_commas_for_seconds_are_no_numbers() -> None:
    head = "| Seed | val_bpb | train_time |\n|---|---|---|\n"
    table = f"{head}| 1 | 1.2 | ,, |\n| 2 | 1.3 | 600 |\n| Std | {'9' * 400} | |\n"
    built = claims(table)
    assert isinstance(built.val_bpb_std, Missing)
    assert [isinstance(seed.train_seconds, Missing) for seed in built.seeds] == [True, False]


def test_zeros_at_the_end_of_a_score_are_kept() -> None:
    built = claims("**val_bpb: 1.2030** (mean)\n\n| Seed | val_bpb |\n|---|---|\n| 1 | 1.2100 |\n| 2 | 1.1960 |\n")
    scores = [built.val_bpb, *(row.val_bpb for row in built.seeds)]
    assert [value(score) for score in scores] == [1.203, 1.21, 1.196]
    assert [unit_of(score.value) for score in scores if isinstance(score, Located)] == [1e-4] * 3


def test_rows_and_columns_may_be_named_after_seeds() -> None:
    rows_named = claims(
        "| Metric | Value |\n|---|---|\n| Seed 1337 | 1.1868 |\n| **Seed 42** | 1.1818 |\n| Layers | 7 |\n"
    )
    assert [(value(row.seed), value(row.val_bpb)) for row in rows_named.seeds] == [(1337, 1.1868), (42, 1.1818)]
    columns = claims(
        "| Metric | Seed 1 | Seed 2 |\n|---|---|---|\n| pre-quant val_bpb | 1.15 | 1.16 |\n| val_bpb | 1.17 | 1.18 |\n"
    )
    assert [(value(row.seed), value(row.val_bpb)) for row in columns.seeds] == [(1, 1.17), (2, 1.18)]


@pytest.mark.parametrize(
    "text",
    [
        "| Metric | Time |\n|---|---|\n| Seed 1337 | 600.5 |\n",
        "| Metric | Value |\n|---|---|\n| Seed 1337 | about 1.2 to 7 |\n| Seed 2 | 900 |\n",
        "| Metric | Seed 1 | Seed 2 |\n|---|---|---|\n| steps | 7000 | 7001 |\n",
    ],
)
def test_tables_named_after_seeds_that_hold_no_scores(text: str) -> None:
    assert claims(text).seeds == ()
