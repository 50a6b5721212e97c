"""Where things lie as the program sees them.

With namespaces a view lies at its target. Without them the program sees the machine's own paths: a target then
stands for the view's source, and `/scratch` for a folder in the run directory. `Places.translate` turns the
former into the latter in any text, at the boundaries of paths.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.sandbox.job import SCRATCH, View


@dataclass(frozen=True, slots=True)
class Places:
    """Paths that mean something else to the program.

    Attributes:
        moved: target and the path at which it really lies, the longest target first.
        scratch: the scratch as the program sees it.
    """

    moved: tuple[tuple[str, str], ...] = ()
    scratch: str = SCRATCH

    def translate(self, text: str) -> str:
        """The text with every path below a target put right.

        Example:
            >>> Places((("/scratch", "/run/7/scratch"),), "/run/7/scratch").translate("--out=/scratch/a:/scratches")
            '--out=/run/7/scratch/a:/scratches'
        """
        if not self.moved:
            return text
        table = dict(self.moved)
        names = "|".join(re.escape(target) for target, _ in self.moved)
        return re.sub(rf"(?<![\w./-])(?:{names})(?=/|[^\w.-]|$)", lambda found: table[found[0]], text)


def of_this_machine(views: Iterable[View], scratch: Path) -> Places:
    """The places without namespaces; a view below the scratch lies there, as a link."""
    moved = {SCRATCH: str(scratch)}
    for view in views:
        if not below_scratch(view.target) and str(view.source) != view.target:
            moved[view.target] = str(view.source.absolute())
    ordered = sorted(moved.items(), key=lambda item: -len(item[0]))
    return Places(tuple(ordered), str(scratch))


def below_scratch(path: str) -> bool:
    """Whether a path lies in the scratch."""
    return path == SCRATCH or path.startswith(f"{SCRATCH}/")
