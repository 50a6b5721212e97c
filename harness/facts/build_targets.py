"""Uses of the realized target, found in the code and asked whether they run."""

from __future__ import annotations

import ast
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from harness.analysis import (
    bestof,
    choosing,
    experts,
    freehits,
    gates,
    onhits,
    pooled,
    quotients,
    reach,
    roots,
    shaping,
    sight,
    spread,
    targets,
    weights,
)
from harness.analysis.announced import announcements
from harness.analysis.answers import Stated, Unknown
from harness.analysis.labels import Label, Proven, Step
from harness.analysis.program import Module, Program
from harness.analysis.reach import Reach, Reached
from harness.analysis.scoreslice import score_slice
from harness.facts.build_stated import contradicted
from harness.facts.code import CodeBase
from harness.facts.logged import Logged
from harness.facts.targets import Life, TargetFacts, TargetUse, UseKind
from harness.model import HarnessError, Located, Location, Missing
from harness.sources.folder import Folder

C_ENDINGS = (".c", ".cc", ".cpp", ".cxx", ".cu", ".h", ".hpp", ".cuh")
HELPERS_LIMIT = 20
HELPER_LIMIT_BYTES = 400_000

_Found = TypeVar("_Found", targets.TargetUse, Proven)
_KINDS: Mapping[Label, UseKind] = {
    Label.COUNT: UseKind.HASHED_LOOKUP,
    Label.PRIOR: UseKind.SMOOTHED_LOOKUP,
    Label.PAIR: UseKind.PAIR_LOOKUP,
    Label.FOREIGN: UseKind.FOREIGN_SHARE,
    Label.CHOSEN: UseKind.CHOSEN_LOSS,
}
_LIVES: Mapping[reach.Life, Life] = {
    reach.Life.LIVE: Life.LIVE,
    reach.Life.DEAD: Life.DEAD,
    reach.Life.UNKNOWN: Life.UNKNOWN,
}


def build_targets(folder: Folder, code: CodeBase, stated: Stated, reached: Reach | None, logged: Logged) -> TargetFacts:
    """The uses of the target in a folder's code.

    Args:
        folder: the walked folder, for its C helpers.
        code: the scripts.
        stated: what is known of the runs' settings.
        reached: what of the program runs; None where there is no program.
        logged: what the claimed runs print.
    """
    program = code.program
    if program is None or reached is None:
        if not code.entry:
            return TargetFacts(Missing("which script is the training script cannot be told", Location(".")), ())
        return TargetFacts(Missing("the training script cannot be parsed", Location(code.entry)), ())
    texts = {path: each.script.text for path, each in code.scripts.items()}
    counted = functools.partial(_counted, program)
    uses = [_use(use, reached, logged, stated) for use in counted(targets.target_uses(program, texts))]
    if _hides(uses):
        other = counted(targets.target_uses(program, texts, reached.skipped))
        uses += [use for use in (_use(each, reached, logged, stated) for each in other) if use not in uses]
    hashed = any(use.kind in {UseKind.HASHED_LOOKUP, UseKind.SMOOTHED_LOOKUP, UseKind.FOREIGN_SHARE} for use in uses)
    uses += [_proved(UseKind.SPREAD, each, reached, logged, stated) for each in counted(spread.spreads(program))]
    uses += [_proved(UseKind.SPREAD, each, reached, logged, stated) for each in counted(roots.roots(program))]
    uses += [_proved(UseKind.ENTROPY, each, reached, logged, stated) for each in counted(experts.entropies(program))]
    uses += [_proved(UseKind.WEIGHT, each, reached, logged, stated) for each in counted(weights.weighted(program))]
    uses += [
        _proved(UseKind.WEIGHT, each, reached, logged, stated) for each in counted(quotients.self_weighted(program))
    ]
    uses += [_proved(UseKind.ON_HITS, each, reached, logged, stated) for each in counted(onhits.on_hits(program))]
    uses += [_proved(UseKind.SHAPED, each, reached, logged, stated) for each in counted(shaping.shaped(program))]
    uses += [_proved(UseKind.BOTH_WAYS, each, reached, logged, stated) for each in sight.both_ways(program)]
    layers = (*pooled.pooled(program), *choosing.chosen(program))
    uses += [_proved(UseKind.POOLED, each, reached, logged, stated, made=_made(each, reached)) for each in layers]
    uses += [_proved(UseKind.CHOSEN_SCORE, each, reached, logged, stated) for each in bestof.best_scores(program)]
    uses += [_proved(UseKind.FREE_HIT, each, reached, logged, stated) for each in counted(freehits.free_hits(program))]
    uses += [_gate(gate, reached, logged, stated) for gate in gates.gates(program, texts, _helpers(folder))]
    hashes = () if hashed else _hashes(targets.scoring_hashes(program, texts), reached)
    return TargetFacts(Located(value=True, location=program.entry.at(None)), tuple(uses), hashes)


def _counted(program: Program, found: Iterable[_Found]) -> Iterator[_Found]:
    """Those whose last step has a part in a printed score, as far as can be told."""
    for each in found:
        last = each.steps[-1]
        if not score_slice(program).leaves_out(last.node, last.module, program):
            yield each


def _hashes(found: Iterable[tuple[Module, ast.AST]], reached: Reach) -> tuple[Location, ...]:
    """The first place of each function whose keys may be made in this configuration."""
    places: dict[ast.AST | None, Location] = {}
    for module, node in found:
        function = module.index.function_of(node)
        home = function.node if function is not None else None
        if home not in places and reached.of(node, module).life is not reach.Life.DEAD:
            places[home] = module.at(getattr(node, "lineno", None))
    return tuple(places.values())


def _use(use: targets.TargetUse, reached: Reach, logged: Logged, stated: Stated) -> TargetUse:
    found = _life(use.steps, reached)
    steps = tuple(Located(step.what, step.location) for step in use.steps if step.what)
    silent = _silent(use.steps, reached, logged)
    made = TargetUse(_KINDS[use.kind], steps, _LIVES[found.life], _because(found), silent)
    return _doubted(made, found, stated)


def _hides(uses: Sequence[TargetUse]) -> bool:
    """Whether a use in a branch that never runs may hide the same one in the branch that does."""
    live = {use.kind for use in uses if use.life is not Life.DEAD}
    return any(use.kind not in live for use in uses)


def _made(found: Proven, reached: Reach) -> Reached | None:
    """Whether an object of the class is made that the first step stands in."""
    module = found.steps[0].module
    function = module.index.function_of(found.steps[0].node)
    owner = function.owner.rpartition(".")[2] if function is not None else ""
    modules = reached.program.modules.values()
    ways = [reached.of(call, each) for each in modules for name in each.names_of(owner) for call in each.calls(name)]
    order = [reach.Life.LIVE, reach.Life.UNKNOWN, reach.Life.DEAD]
    return min(ways, key=lambda way: order.index(way.life), default=None)


def _proved(
    kind: UseKind, found: Proven, reached: Reach, logged: Logged, stated: Stated, *, made: Reached | None = None
) -> TargetUse:
    """A use by the lines that prove it, and whether they run; nothing does in an object that is not made."""
    life = _life(found.steps, reached)
    life = made if made is not None and made.life is not reach.Life.LIVE else life
    steps = tuple(Located(step.what, step.location) for step in found.steps)
    silent = _silent(found.steps, reached, logged)
    return _doubted(TargetUse(kind, steps, _LIVES[life.life], _because(life), silent), life, stated)


def _doubted(use: TargetUse, found: Reached, stated: Stated) -> TargetUse:
    """The use; unknown where a default decides it and a sentence gives the setting another value."""
    other = contradicted(found.reasons, stated) if use.life is not Life.UNKNOWN else None
    if other is None:
        return use
    because = f"{use.because}, but the text at {other.location} says {other.value}"
    return dataclasses.replace(use, life=Life.UNKNOWN, because=because)


def _silent(steps: Sequence[Step], reached: Reach, logged: Logged) -> Located[str] | None:
    """What the first step that is bound to print something is bound to print, where no log shows it."""
    for step in dict.fromkeys(steps):
        found = reached.of(step.node, step.module)
        texts = announcements(step.node, step.module, reached.program, reached)
        lacking = logged.lacks(texts, found.reasons) if found.life is reach.Life.LIVE else None
        if lacking is not None:
            return lacking
    return None


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
    return "; ".join(str(reason) for reason in found.reasons[:3]) or "nothing that runs calls it"


def _helpers(folder: Folder) -> dict[str, str]:
    """The text of the folder's C and C++ files."""
    found: dict[str, str] = {}
    for path in [path for path in folder.files if path.lower().endswith(C_ENDINGS)][:HELPERS_LIMIT]:
        try:
            found[path] = folder.text(path, HELPER_LIMIT_BYTES)
        except HarnessError:  # the package family names what cannot be read
            continue
    return found


def _gate(gate: gates.Gate, reached: Reach, logged: Logged, stated: Stated) -> TargetUse:
    """A gate as a use of the target: it runs when some way to it does, and its hint has a strength."""
    ways = [reached.of(call.node, call.module) for call in gate.calls]
    order = [reach.Life.LIVE, reach.Life.UNKNOWN, reach.Life.DEAD]
    found = min(ways, key=lambda way: order.index(way.life))
    steps = tuple(Located(what, place) for what, place in gate.places)
    life, because = _strength(reached)
    if found.life is reach.Life.DEAD or life is Life.LIVE:
        way = gate.calls[ways.index(found)]
        use = TargetUse(UseKind.GATE, steps, _LIVES[found.life], _because(found), _silent([way], reached, logged))
        return _doubted(use, found, stated)
    return TargetUse(UseKind.GATE, steps, life, because)


def _strength(reached: Reach) -> tuple[Life, str]:
    """Whether hints inside words and at their start have a strength in this configuration, and why."""
    reasons: list[str] = []
    zeros = 0
    answers = [
        reached.configuration.value(node, module.scope_of(node)) for module, node in gates.strengths(reached.program)
    ]
    for answer in answers:
        if isinstance(answer, Unknown):
            names = ", ".join(answer.names[:3]) or "the strength of these hints"
            return Life.UNKNOWN, f"{names} has no one value in logs, command and defaults"
        zeros += answer.value == 0
        reasons += [str(reason) for reason in answer.reasons]
    off = bool(answers) and zeros == len(answers)
    return (Life.DEAD, "; ".join(dict.fromkeys(reasons))) if off else (Life.LIVE, "")
