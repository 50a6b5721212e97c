"""Non-interference: the artifact must be the same, byte for byte, whatever the validation text is.

The script runs a second time in a world whose validation shard holds other text of the same length; everything else,
the seed and the virtual clock included, is the same. Where the two artifacts differ, the first run is repeated: only
where that gives the first artifact again does the difference come from the validation text. The artifact is the file
whose size the script prints as the size of its model.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from harness.challenge import SHARD_HEADER_BYTES
from harness.probe import world
from harness.probe.miniature import Miniature
from harness.probe.session import MiniatureRun
from harness.probe.world import World

OTHER: Final = "other-validation"
AGAIN: Final = "again"
SAME, DEPENDS, UNCLEAR = "same", "depends", "unclear"
VALIDATION: Final = "fineweb_val_*.bin"


@dataclasses.dataclass(frozen=True, slots=True)
class NonInterference:
    """What the comparison says.

    Attributes:
        result: `same`, `depends` or `unclear`.
        reason: why, as a clause.
        artifact: the file compared, or "".
    """

    result: str
    reason: str
    artifact: str = ""


def other_world(made: World, miniature: Miniature, folder: Path, kept: Path) -> World:
    """The same world with other validation text of the same number of tokens.

    Args:
        made: the world.
        miniature: whose `spec` it was made from.
        folder: where the other one goes.
        kept: folder of trained tokenizers.
    """
    moved = world.moved_to(made, folder)
    # Long enough to be cut to the same length.
    spec = dataclasses.replace(miniature.spec, seed=miniature.spec.seed + 1, documents=4 * miniature.spec.documents)
    source = world.write_world(folder.with_name(f"{folder.name}-source"), spec, kept)
    for path in sorted(source.shards.glob(VALIDATION)):
        old = (moved.shards / path.name).read_bytes()
        # The header of the old shard says how many tokens there are.
        new = old[:SHARD_HEADER_BYTES] + path.read_bytes()[SHARD_HEADER_BYTES : len(old)]
        world.replace_everywhere(folder, old, new)
    shutil.rmtree(source.folder)
    return moved


def judge(bare: MiniatureRun, other: MiniatureRun, again: Callable[[], MiniatureRun]) -> NonInterference:
    """Compare the artifacts.

    Args:
        bare: the first run.
        other: the run with the other text.
        again: repeats the first run; called only where the artifacts differ.
    """
    first, second = bare.artifact(), other.artifact()
    if first is None or second is None:
        which = "first run" if first is None else "run with other text"
        return NonInterference(UNCLEAR, f"the {which} left no file of the size that it printed for its model")
    if first[1] == second[1]:
        return NonInterference(SAME, "the artifact is the same with other validation text", first[0])
    repeated = again().artifact()
    if repeated is None or repeated[1] != first[1]:
        return NonInterference(UNCLEAR, "the same run made twice gives two artifacts", first[0])
    return NonInterference(DEPENDS, "it is the same when the run is repeated, and another with other text", first[0])
