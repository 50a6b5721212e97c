"""The parts of the work that a training script shows: from words of its text, which no reader has to walk."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.analysis.parameters import Dead, dead_parameters, swapped_parameters
from harness.facts.build_names import own_modules
from harness.facts.code import Code, CodeBase
from harness.facts.pipeline import METRIC, SCORING, PipelineFacts, Untrained
from harness.model import Located, Missing

_LIBRARY = re.compile(
    r"^[ \t]*(?:import|from)\s+(?:torch|jax|tensorflow|mlx|tinygrad)\b|__import__\(.torch", re.MULTILINE
)
# A part is there when its pattern occurs anywhere in the lower-case text; each is wide: what is missing is a finding.
PARTS = {
    "an optimizer step": re.compile(r"\.step\(|\.update\(|apply_gradients|\.backward\(|optim"),
    "serialization or compression of the model": re.compile(
        r"\bsave\w{0,60}\(|\.write\w{0,60}\(|\bdump\w{0,60}\(|tofile\(|tobytes\(|quant|zlib|lzma|zstd|zstandard|brotli|compress",
    ),
    SCORING: re.compile(r"inference_mode|\.eval\(|(?:eval|valid|score)\w{0,60}\("),
    METRIC: re.compile(r"bpb|bits.?per.?byte|val_loss|eval_loss"),
}


def build_pipeline(code: CodeBase) -> PipelineFacts:
    """The facts about the parts of the work; with a reason where the code cannot be looked at."""
    if code.main is None:
        known = code.entry in code.scripts
        return PipelineFacts(unread=Missing(f"{code.entry} was not parsed" if known else "no training script is known"))
    modules = list(own_modules(code))
    unread = next((one.script.path for one in modules if not one.parses), None)
    # Patterns that ignore case are searched much more slowly.
    lowered = [(one, one.script.text.lower()) for one in modules]
    steps = [found for part in PARTS if (found := _first(part, lowered)) is not None]
    return PipelineFacts(
        unread=Missing(f"{unread} was not parsed") if unread else None,
        trains=any(_LIBRARY.search(one.script.text) for one in modules),
        steps=tuple(steps),
        missing=tuple(part for part in PARTS if part not in {step.value for step in steps}),
        untrained=tuple(each for one in modules for each in _untrained(one, modules)),
    )


def _first(part: str, modules: Sequence[tuple[Code, str]]) -> Located[str] | None:
    for one, text in modules:
        match = PARTS[part].search(text)
        if match:
            return Located(part, one.at(text.count("\n", 0, match.start()) + 1))
    return None


def _untrained(one: Code, modules: Sequence[Code]) -> list[Located[Untrained]]:
    """Parameters that the groups of one module leave out: its own, and those of layers that others put in."""
    found = [(one, dead) for dead in dead_parameters(one.index, one.script.text)]
    for other in modules:
        if other is not one and ".blocks[" in other.script.text:
            found += [(other, dead) for dead in swapped_parameters(one.index, one.script.text, other.index)]
    return [Located(_described(dead, one), where.at(dead.definition.lineno)) for where, dead in found]


def _described(dead: Dead, one: Code) -> Untrained:
    return Untrained(dead.name, dead.reason, Located("optimizer groups", one.at(dead.groups.lineno)))
