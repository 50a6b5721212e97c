"""The ledger: the order of scores and updates, and which tokens the reported score counts.

The tracer tells, for each pass of counted scores, how many tokens were scored with weights that had learned from them,
and which tokens are missing or counted twice. The pass that the script reports is the one whose mean is the loss that
the script prints (see `binding`); where several have about that mean, they all have to agree. Scores that are mixed
outside of torch are in no pass: there the account of the run that forks tells the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from harness.probe.experiments import binding
from harness.probe.experiments.events import pairs, ranges
from harness.probe.experiments.flips import Flips
from harness.probe.experiments.scores import ACCOUNT, BASE, spread, views
from harness.probe.experiments.timeline import Block, timeline
from harness.probe.session import MiniatureRun

RUN: Final = "ledger"
RANGES_LIMIT: Final = 40
BOUND, UNBOUND, NOTHING = "bound", "unbound", "nothing"


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the traced run shows of the reported pass.

    Attributes:
        result: `bound` when a pass has the reported loss, `unbound` when none has, `nothing` where none was followed.
        reason: why, as a clause.
        where: the line that adds the scores up.
        count: tokens counted.
        learned_before: tokens that were scored with weights that had learned from them.
        learned: ranges of these tokens, some of them.
        missing: ranges of tokens that were not counted.
        doubled: ranges of tokens that were counted more than once.
        tokens: tokens of the validation text that can be predicted.
        passes: all passes that were followed.
        timeline: its scores and all updates, in order.
        left_out: blocks of the timeline beyond what is kept.
    """

    result: str
    reason: str
    where: str = ""
    count: int = 0
    learned_before: int = 0
    learned: tuple[tuple[int, int], ...] = ()
    missing: tuple[tuple[int, int], ...] = ()
    doubled: tuple[tuple[int, int], ...] = ()
    tokens: int = 0
    passes: int = 0
    timeline: tuple[Block, ...] = ()
    left_out: int = 0


def judge(run: MiniatureRun, val_tokens: int) -> Ledger:
    """Find the reported pass of a traced run.

    Args:
        run: the traced run.
        val_tokens: tokens of its validation text.
    """
    passes = [event for event in run.of("pass") if isinstance(event.get("mean"), (int, float))]
    if run.printed.loss is None:
        return Ledger(UNBOUND, "the traced run printed no loss to find its scores by", passes=len(passes))
    if not passes:
        return Ledger(NOTHING, "no score of the traced run could be followed")
    loss = run.printed.loss
    chosen = binding.reported(passes, loss)
    if len({_count(event.get("learned_before")) > 0 for event in chosen}) > 1:
        reason = f"several passes have about the reported loss of {loss:.6f}, and they differ in what had been learned"
        return Ledger(UNBOUND, reason, passes=len(passes))
    if not chosen:
        reason = f"the reported loss of {loss:.6f} is the mean of none of {len(passes)} passes that were followed"
        nearest = min((event["mean"] for event in passes), key=lambda mean: binding.apart(mean, loss))
        reason += f": the nearest has {nearest:.6f}, so what is reported may be another score"
        return Ledger(UNBOUND, reason, passes=len(passes))
    found = chosen[-1]
    blocks, left_out = timeline(run, found.get("pass"))
    return Ledger(
        BOUND,
        f"the reported loss of {loss:.6f} is the mean of the scores added up at {_text(found.get('where'))}",
        where=_text(found.get("where")),
        count=_count(found.get("count")),
        learned_before=_count(found.get("learned_before")),
        learned=_learned(run, found),
        missing=pairs(found.get("missing"))[:RANGES_LIMIT],
        doubled=pairs(found.get("doubled"))[:RANGES_LIMIT],
        tokens=max(val_tokens - 1, 0),
        passes=len(passes),
        timeline=blocks,
        left_out=left_out,
    )


def of_account(run: MiniatureRun, copies: Flips, val_tokens: int) -> Ledger | None:
    """The reported pass of a run that forks, where its scores are an account of the script's own; None where not.

    Only where every step of the account found the places that it is the score of, by losses that were computed before.

    Args:
        run: the run that forks.
        copies: what it shows.
        val_tokens: tokens of its validation text.
    """
    bound, units = copies.bound, copies.units
    if bound is None or bound.by != ACCOUNT or not units:
        return None
    view = views(run)[BASE]
    account = next((each for each in view.of("account") if (each["function"], each["name"]) == bound.keys[-1]), None)
    if account is None or binding.apart(sum(unit.nats for unit in units), abs(account["total"])) > binding.CLEAR:
        return None
    told = next(iter(view.of("sources")), {}).get("sources")
    if not told:
        # No computation of losses was seen, so that nobody knows what its weights had learned.
        return None
    early = {at: set(spread(learned)) for at, _, learned in told}
    first: dict[int, int] = {}
    for at, targets, _ in told:
        first |= {place: at for place in spread(targets) if place not in first}
    counted = np.zeros(val_tokens, dtype=np.int64)
    learned: list[int] = []
    for unit in units:
        counted[list(unit.places)] += 1
        # Of several places that were counted at once, some may have been scored long before the last one.
        single = len(unit.places) == 1
        learned += [place for place in unit.places if place in early.get(unit.at if single else first[place], ())]
    return Ledger(
        BOUND,
        f"{bound.reason}, on the text whose phrases repeat",
        where=bound.where,
        count=int(counted.sum()),
        learned_before=len(learned),
        learned=pairs(ranges(np.unique(np.array(learned, dtype=np.int64))))[:RANGES_LIMIT],
        missing=pairs(ranges(1 + np.flatnonzero(counted[1:] == 0)))[:RANGES_LIMIT],
        doubled=pairs(ranges(np.flatnonzero(counted > 1)))[:RANGES_LIMIT],
        tokens=max(val_tokens - 1, 0),
        passes=len(run.of("pass")),
    )


def _learned(run: MiniatureRun, chosen: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """Some of the tokens that had been learned before they were scored."""
    found: list[tuple[int, int]] = []
    for event in run.of("score"):
        if event.get("pass") == chosen.get("pass"):
            found += pairs(event.get("learned"))
        if len(found) >= RANGES_LIMIT:
            break
    return tuple(found[:RANGES_LIMIT])


def _count(value: object) -> int:
    return value if type(value) is int and value >= 0 else 0


def _text(value: object) -> str:
    return str(value or "")[:200]
