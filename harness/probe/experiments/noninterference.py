"""Non-interference: the artifact must be the same, byte for byte, whatever the validation text is.

The script runs a second time in a world whose validation shard holds other text in documents of the same lengths, so
that an evaluation takes as many batches and draws as many random numbers; everything else, the seed and the virtual
clock included, is the same. Where the two artifacts differ, both runs are repeated: only where each gives its artifact
again does the difference come from the validation text. The artifact is the file whose size the script prints as the
size of its model; one that was found by a number of another kind clears and does not accuse.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from harness.challenge import BOS_TOKEN
from harness.probe import world
from harness.probe.miniature import Miniature
from harness.probe.session import MiniatureRun
from harness.probe.world import World

OTHER: Final = "other-validation"
AGAIN: Final = "again"
OTHER_AGAIN: Final = "other-validation-again"
RUNS: Final = (OTHER, AGAIN, OTHER_AGAIN)
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
    """The same world with other validation text in documents of the same numbers of tokens.

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
    begins, others = (world.read_shard(each.shards / world.VALIDATION_SHARD) == BOS_TOKEN for each in (moved, source))
    for path in sorted(source.shards.glob(VALIDATION)):
        # A byte count goes where its token goes.
        old, new = (world.read_shard(each.shards / path.name) for each in (moved, source))
        changed = old.copy()
        changed[~begins] = new[~others][: int((~begins).sum())]
        world.replace_everywhere(folder, (moved.shards / path.name).read_bytes(), world.shard_bytes(changed))
    shutil.rmtree(source.folder)
    return moved


def judge(bare: MiniatureRun, other: MiniatureRun, again: Callable[[str], MiniatureRun]) -> NonInterference:
    """Compare the artifacts.

    Args:
        bare: the first run.
        other: the run with the other text.
        again: repeats one of them, by the name of the repeated run; called only where the artifacts differ.
    """
    first, second = bare.artifact(), other.artifact()
    if first is None or second is None:
        which = "first run" if first is None else "run with other text"
        return NonInterference(UNCLEAR, f"the {which} left no file of the size that it printed for its model")
    if first[1] == second[1]:
        return NonInterference(SAME, "the artifact is the same with other validation text", first[0])
    for name, before in ((AGAIN, first), (OTHER_AGAIN, second)):
        repeated = again(name).artifact()
        if repeated is None or repeated[1] != before[1]:
            return NonInterference(UNCLEAR, "the same run made twice gives two artifacts", first[0])
    if bare.printed.model_bytes is None:
        reason = "it changes with the text, and no size was printed that is clearly that of the model"
        return NonInterference(UNCLEAR, reason, first[0])
    return NonInterference(DEPENDS, "it is the same when the run is repeated, and another with other text", first[0])
