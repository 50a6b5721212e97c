"""Uses of the realized target, found in the code and asked whether they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.analysis import reach, targets
from harness.analysis.labels import Label, Step
from harness.analysis.reach import Reach, Reached
from harness.facts.code import CodeBase
from harness.facts.targets import Life, TargetFacts, TargetUse, UseKind
from harness.model import Located, Location, Missing

_KINDS: Mapping[Label, UseKind] = {
    Label.COUNT: UseKind.HASHED_LOOKUP,
    Label.PAIR: UseKind.PAIR_LOOKUP,
    Label.CHOSEN: UseKind.CHOSEN_LOSS,
}
_LIVES: Mapping[reach.Life, Life] = {
    reach.Life.LIVE: Life.LIVE,
    reach.Life.DEAD: Life.DEAD,
    reach.Life.UNKNOWN: Life.UNKNOWN,
}


def build_targets(code: CodeBase, reached: Reach | None) -> TargetFacts:
    """The uses of the target in a folder's code.

    Args:
        code: the scripts.
        reached: what of the program runs; None where there is no program.
    """
    program = code.program
    if program is None or reached is None:
        if not code.entry:
            return TargetFacts(Missing("which script is the training script cannot be told", Location(".")), ())
        return TargetFacts(Missing("the training script cannot be parsed", Location(code.entry)), ())
    texts = {path: each.script.text for path, each in code.scripts.items()}
    uses = [_use(use, reached) for use in targets.target_uses(program, texts)]
    return TargetFacts(Located(value=True, location=program.entry.at(None)), tuple(uses))


def _use(use: targets.TargetUse, reached: Reach) -> TargetUse:
    found = _life(use.steps, reached)
    steps = tuple(Located(step.what, step.location) for step in use.steps)
    return TargetUse(_KINDS[use.kind], steps, _LIVES[found.life], _because(found))


def _life(steps: Sequence[Step], reached: Reach) -> Reached:
    """Whether all the steps run: dead when one is, live when all are."""
    found = [reached.of(step.node, step.module) for step in steps]
    for life in (reach.Life.DEAD, reach.Life.UNKNOWN):
        for each in found:
            if each.life is life:
                return each
    return next((each for each in found if each.reasons), found[-1])


def _because(found: Reached) -> str:
    if found.unclear:
        return f"it depends on {', '.join(found.unclear[:3])}, of which no log, command or default tells the value"
    return "; ".join(str(reason) for reason in found.reasons[:3])
