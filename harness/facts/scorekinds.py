"""Which evaluation a score is of, by its label: adaptation, a cache, sliding windows, or the plain one.

A miniature run under settings that nobody states may leave the claimed evaluation out and print another one's score.
What the experiments show of that one says nothing about the claim.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from harness.facts.build_stated import Claimed, counted, is_claim
from harness.facts.probe import ProbeFacts
from harness.facts.runs import Run
from harness.model import Located, Location, Missing
from harness.sources.scorelabels import Kind, kind_of, named

BARE: Final = "bare"
Kinds: TypeAlias = frozenset[str]
PLAIN: Final = frozenset({"plain"})
_ADAPTED: Final = {
    "slot": re.compile(r"slot(?![a-z])", re.IGNORECASE),
    "cache": re.compile(r"n[-_ ]?gram|dirichlet|hedge|backoff|cache|knn|tilt|(?<![a-z])(?:ppm|mix)", re.IGNORECASE),
}


def kinds(label: str) -> Kinds:
    """What was done in the evaluation that a label names; several, where it names several.

    Example:
        >>> sorted(kinds("legal_ttt_ngram")), sorted(kinds("final_int6_sliding_window_s64")), sorted(kinds("val_bpb"))
        (['cache', 'training'], ['sliding'], ['plain'])
    """
    kind = kind_of(label)
    if kind != Kind.ADAPTED:
        return frozenset({kind.name.lower()}) if kind in {Kind.SLIDING, Kind.DIAGNOSTIC} else PLAIN
    words = named(label)
    found = {name for name, pattern in _ADAPTED.items() if pattern.search(words)}
    left = words
    for pattern in _ADAPTED.values():
        left = pattern.sub(" ", left)
    return frozenset(found | ({"training"} if kind_of(left) == Kind.ADAPTED else set()))


def claimed_labels(runs: Sequence[Run], claimed: Claimed) -> tuple[str, ...]:
    """Labels of the claimed scores in the logs that print them.

    Where a log's headline is a claimed score it is the headline's; else that of the most final score which is one, and
    where none is, that of the headlines.

    Args:
        runs: every run that a log of the folder holds.
        claimed: what is claimed.
    """
    claims = claimed.scores()
    chosen = counted(runs, claimed)
    heads = [run.headline.value for run in chosen if isinstance(run.headline, Located)]
    near = [score for score in heads if any(is_claim(score, each) for each in claims)]
    found = [score for run in chosen for score in run.scores if any(is_claim(score, each) for each in claims)]
    final = max((kind_of(score.label) for score in found), default=Kind.DIAGNOSTIC)
    best = near or [score for score in found if kind_of(score.label) == final] or heads
    return tuple(dict.fromkeys(score.label for score in best))


def wanted(runs: Sequence[Run], claimed: Claimed) -> Kinds:
    """What is done in the evaluations whose score is claimed; nothing where no log tells."""
    return frozenset().union(*(kinds(label) for label in claimed_labels(runs, claimed)))


def held_against(probe: ProbeFacts | Missing, runs: Sequence[Run], claimed: Claimed) -> ProbeFacts | Missing:
    """A probe's facts, without those about the reported score where that is of another evaluation than the claim.

    Args:
        probe: what was seen.
        runs: every run that a log of the folder holds.
        claimed: what is claimed.
    """
    if isinstance(probe, Missing):
        return probe
    # The first is that of the score which the experiments judge.
    judged = next((run.labels[0] for run in probe.runs if run.name == BARE and run.labels), "")
    labels = claimed_labels(runs, claimed)
    if not judged or not labels or kinds(judged) & wanted(runs, claimed):
        return probe
    told = (
        f"the claim is the score of `{labels[0].strip()[:60]}`, and the miniature run printed none of that evaluation"
    )
    other = Missing(f"{told}, but `{judged.strip()[:60]}`", Location(probe.script))
    return replace(probe, ledger=other, flips=other, two_ranks=other)
