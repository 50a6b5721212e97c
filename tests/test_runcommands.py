"""Commands of READMEs that run a script."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.sources.runcommands import Command, read

FENCED = """# Run

```bash
SEED=1 NUM_LAYERS=9 \\
  TTT_ENABLED=1 \\
torchrun --standalone --nproc_per_node=8 train_gpt.py
# python old.py
pip install zstandard
python data/prepare.py --variant sp1024  # later
```
"""


def test_a_command_over_several_lines_is_one() -> None:
    assert read(FENCED) == (
        Command("train_gpt.py", ("SEED", "NUM_LAYERS", "TTT_ENABLED"), 4),
        Command("data/prepare.py", (), 9, (("variant", "sp1024"),)),
    )


def test_options_are_those_behind_the_script() -> None:
    line = "python -X dev --quiet train.py --eval-only --rate=0.1 --name 'a' --path $HOME --epochs 3 | tee --x 1"
    (command,) = read(line)
    assert dict(command.options) == {"eval_only": "True", "rate": "0.1", "name": "a", "epochs": "3"}


def test_outside_of_code_blocks_only_what_begins_as_a_command_is_one() -> None:
    assert read("SEED=1 python3 train.py\n") == (Command("train.py", ("SEED",), 1),)
    assert read("- `torchrun records/a/b/train.py`\n") == (Command("records/a/b/train.py", (), 1),)
    assert read("We ran python train.py with SEED=1 twice.\n") == ()
    assert read("The script train_gpt.py is python.\n") == ()


@given(st.text(alphabet="ABC=_ \\\n`python trun.py/-#", max_size=300))
def test_any_text_is_read(text: str) -> None:
    for command in read(text):
        assert command.script.endswith(".py")
        assert 1 <= command.line <= text.count("\n") + 1
