"""The attack table of docs/sandbox.md, made from the hostile scripts.

`python -m harness.sandbox.table tests/attacks` prints what is expected of each script at each level;
`--write docs/sandbox.md` puts it between the marks of that page. `harness sandbox --attacks tests/attacks` runs them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from harness.sandbox.attacks import Attack, load
from harness.sandbox.levels import Level

START: Final = "<!-- attacks: made by `python -m harness.sandbox.table tests/attacks --write docs/sandbox.md` -->"
END: Final = "<!-- /attacks -->"
LEVELS: Final = (Level.L1, Level.L2, Level.L3)


def render(attacks: Iterable[Attack]) -> str:
    """The table in Markdown."""
    lines = ["| attack | what it tries | " + " | ".join(map(str, LEVELS)) + " |", "|---" * (2 + len(LEVELS)) + "|"]
    for attack in attacks:
        cells = (" or ".join(attack.expected.get(level, ("not run",))) for level in LEVELS)
        lines.append(f"| {attack.path.stem} | {attack.says} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def put(page: str, table: str) -> str:
    """The page with the table between its marks.

    Raises:
        ValueError: the page has no marks.
    """
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError("the page has no marks for the attack table")
    return f"{before}{START}\n\n{table}\n{END}{after}"


def main() -> None:
    """Print the table, or put it into a page."""
    parser = argparse.ArgumentParser(prog="python -m harness.sandbox.table", description=__doc__)
    parser.add_argument("folder", type=Path, help="hostile scripts")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="the page to put the table into")
    parsed = parser.parse_args()
    table = render(load(parsed.folder))
    if parsed.write is None:
        sys.stdout.write(table)
    else:
        page = parsed.write.read_text(encoding="utf-8")
        parsed.write.write_text(put(page, table), encoding="utf-8")


if __name__ == "__main__":
    main()
