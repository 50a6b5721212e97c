"""Artifact: the reported score comes from the file that is submitted, and from nothing beside it.

Two copies of the process go on from where the artifact is read back. One finds it damaged: it has to end with an error,
or to print another score. The other finds noise in every parameter that an optimizer has stepped and whose numbers are
still in memory: what was trained must not matter any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.probe.experiments.variants import DAMAGED, NOISE
from harness.probe.printed import printed
from harness.probe.session import MiniatureRun

SAME, DEPENDS, UNCLEAR = "same", "depends", "unclear"


def judge(run: MiniatureRun) -> tuple[str, str]:
    """Whether the score comes from the artifact alone: `same` when it does, else `depends` on other things.

    Args:
        run: the run that forked.
    """
    told = {str(event.get("name")): event for event in run.of("variant")}
    damaged, noisy = told.get(DAMAGED), told.get(NOISE)
    if damaged is None or noisy is None:
        return UNCLEAR, "the artifact is not read back in the run that forks"
    if run.printed.loss is None:
        return UNCLEAR, "the run that forks printed no loss"
    if _ended(damaged) and _loss(damaged, run) == run.printed.loss:
        return DEPENDS, "with every byte of the artifact changed, the printed loss is the same"
    return _noise(run, noisy, run.printed.loss)


def _noise(run: MiniatureRun, noisy: Mapping[str, Any], base: float) -> tuple[str, str]:
    """What noise in the trained weights does to the score."""
    told = run.of("noise")
    count, stepped = (told[0].get("tensors"), told[0].get("stepped")) if len(told) == 1 else (0, 0)
    if not stepped:
        return UNCLEAR, "no parameter was stepped by an optimizer of torch before the artifact is read"
    loss = _loss(noisy, run)
    if not _ended(noisy) or loss is None:
        return UNCLEAR, "with noise in the trained weights, the script did not come to a score"
    if not count:
        gone = f"of {stepped} trained parameters none is left in memory when the artifact is read"
        if loss != base:
            return UNCLEAR, f"{gone}, and yet the printed loss is {loss:.6f}, not {base:.6f}: it is another each time"
        return SAME, f"a damaged artifact changes the score, and {gone}"
    if loss == base:
        return SAME, f"a damaged artifact changes the score, and noise in {count} trained parameters does not"
    return DEPENDS, (
        f"with noise in the {count} parameters that an optimizer has stepped, and the artifact as it was, the printed "
        f"loss is {loss:.6f}, not {base:.6f}"
    )


def _ended(event: Mapping[str, Any]) -> bool:
    return event.get("ended") == "exit" and event.get("status") == 0


def _loss(event: Mapping[str, Any], run: MiniatureRun) -> float | None:
    return printed(str(event.get("printed")).encode(), "printed", run.wanted).loss
