"""What a README or a shell script sets for a run."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.sources.commands import Assignment, read, renamings

README = textwrap.dedent(
    """\
    # A run with `TTT_ENABLED=1`, once.

    ```bash
    export SEED=42  # the first
    A_B=1 CC="two words" \\
      DD='x' torchrun --nproc_per_node=8 train_gpt.py
    # OLD=1 python train_gpt.py
    ```

    - `E_F=0.5`
    - No `G_H=1` here.

    | Setting | Value |
    |---|---|
    | `CHUNK_TOKENS` | 262,144 |
    | TTT_ENABLED | 0 (off) |

    II=3 python train_gpt.py
    """
)


def test_commands_lists_and_tables_are_told_from_sentences() -> None:
    found = read(README)
    commanded = {each.name: (each.value, each.line) for each in found if each.commanded}
    assert commanded == {
        "SEED": ("42", 4),
        "A_B": ("1", 5),
        "CC": ("two words", 5),
        "DD": ("x", 6),
        "E_F": ("0.5", 10),
        "CHUNK_TOKENS": ("262144", 15),
        "TTT_ENABLED": ("0", 16),
        "II": ("3", 18),
    }
    assert [(each.name, each.value) for each in found if not each.commanded] == [
        ("TTT_ENABLED", "1"),
        ("OLD", "1"),
        ("G_H", "1"),
    ]


def test_lines_of_a_list_are_marked() -> None:
    assert [each.name for each in read(README) if each.listed] == ["E_F"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("LAYERS=4,5 NAMES=a,b python train_gpt.py", {"LAYERS": "4,5", "NAMES": "a,b"}),
        ("It ran with AA=1, BB=2,CC=3, and TOKENS=524,288.", {"AA": "1", "BB": "2", "CC": "3", "TOKENS": "524288"}),
        ("AA=1,BB=2 python train_gpt.py", {"AA": "1", "BB": "2"}),
    ],
)
def test_a_comma_belongs_to_a_list_of_values(line: str, found: dict[str, str]) -> None:
    assert {each.name: each.value for each in read(line)} == found


def test_every_line_of_a_script_is_a_command_and_fallbacks_are_values() -> None:
    found = read('X_Y="${X_Y:-5}"\nZ=$HOME/data\n', script=True)
    assert found == (Assignment("X_Y", "5", 1, commanded=True),)


@pytest.mark.parametrize("text", ["", "```\n", "| A_B |", "=" * 10_000, "A=" * 5_000])
def test_odd_texts_are_read(text: str) -> None:
    assert isinstance(read(text), tuple)


@given(st.text(alphabet="AB_=`|\\\n \"'${}:-1#", max_size=200))
def test_any_text_is_read(text: str) -> None:
    assert all(each.name.isupper() or each.name for each in read(text))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("ln -s /d/fineweb_val_000000.bin /e/fineweb_train_000000.bin", True),
        ("mkdir e && cp -r -v d/fineweb_val_* 'e/fineweb_train_000001.bin'", True),
        ("ln -s /d/fineweb_val_000000.bin /e/fineweb_val_000000.bin", False),
        ("ln -s /d/fineweb_train_000000.bin /e/fineweb_val_000000.bin", False),
        ("The link from fineweb_val_000000.bin to fineweb_train_000000.bin", False),
        ("VAL_FILES=fineweb_val_* TRAIN_FILES=fineweb_train_* python train_gpt.py", False),
    ],
)
def test_a_validation_shard_under_the_name_of_a_training_shard(line: str, *, found: bool) -> None:
    told = list(renamings(f"First\n  {line}\nlast"))
    assert told == ([(2, line)] if found else [])


@pytest.mark.parametrize(
    ("head", "row", "found"),
    [
        ("| Setting | Value | Why |", "| `TTT_STEPS` | **24** | more |", ("24", True)),
        ("| Parameter | PR #1303 | This PR |", "| TTT_STEPS | 16 | **24** |", ("24", True)),
        ("| Variable | Default | Ours |", "| TTT_STEPS | 0 | 8 (at night) |", ("8", True)),
        # Whose run it was, the table does not say.
        ("| Variable | Default | Effect |", "| TTT_STEPS | 0 | slower |", ("0", False)),
        ("Settings:", "| TTT_STEPS | 12 |", ("12", True)),
    ],
)
def test_the_column_of_this_run(head: str, row: str, found: tuple[str, bool]) -> None:
    table = f"{head}\n|---|---|---|\n{row}\n"
    assert [(each.value, each.commanded) for each in read(table)] == [found]


def test_what_stands_below_a_heading_about_ablations_is_of_other_runs() -> None:
    block = "```bash\nMIXER=0  # off\n# not a heading\nLAYERS=3 python train_gpt.py\n```\n\n| WIDTH_A | 5 |\n"
    below = read(f"# Title\n\n## Ablation variables\n\n{block}")
    assert [(each.name, each.commanded) for each in below] == [("MIXER", False), ("LAYERS", False), ("WIDTH_A", False)]
    after = read(f"## Ablations\n\n## Running\n\n{block}")
    assert all(each.commanded for each in after)
    assert len(after) == 3
