"""What the words before a score say about it, and which score of a log is its headline.

Logs print several evaluations: diagnostics before quantization, a quick check after the round trip through the
artifact, a sliding window, test-time training. The last line is not always the one that counts, and the claim in
submission.json must not choose it. The order of evaluations does: adapted (where that helps), then sliding, then
round trip.
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Collection, Sequence

from harness.sources.logevents import ScoreEvent


class Kind(enum.IntEnum):
    """Kinds of scores, from the least to the most final."""

    DIAGNOSTIC = 0
    UNNAMED = 1
    ROUND_TRIP = 2
    SLIDING = 3
    ADAPTED = 4


_NEGATED = re.compile(r"\(?\b(?:no|without|w/o)[ _-]+\w+\)?", re.IGNORECASE)
_DIAGNOSTIC = re.compile(
    r"diagnos|pre[-_ ]?(?:quant|ttt|ema|slot|ngram|adapt)|post[-_ ]?(?:ema|train)|running|debug|probe|unquant"
    r"|full[-_ ]?precision|\b(?:raw|fp32|bf16|float|ema|swa|before|baseline|delta|gain|gap|diff|step)(?![a-z0-9])",
    re.IGNORECASE,
)
_ADAPTED = re.compile(
    r"ttt|tta\b|lora|slot(?![a-z])|n[-_]?gram|dirichlet|adapt|online|phased|hedge|backoff|cache|knn|tilt"
    r"|krause|dynamic[-_ ]?eval|(?<![a-z])ppm(?![a-z])|(?<![a-z])mix(?:er|ture)?(?![a-z])",
    re.IGNORECASE,
)
_SLIDING = re.compile(r"slid|stride|(?<![a-z])sw\d*(?![a-z])|window", re.IGNORECASE)
_ROUND_TRIP = re.compile(
    r"round[-_ ]?trip|quant|(?<![a-z])int\d|final|compress|(?<![a-z])rt(?![a-z])|artifact", re.IGNORECASE
)


@functools.lru_cache(maxsize=1_000)
def kind_of(label: str) -> Kind:
    """The kind of a score, from its label in a log or a table.

    Example:
        >>> kind_of("final_int6_sliding_window_exact").name, kind_of("pre-quantization post-ema").name
        ('SLIDING', 'DIAGNOSTIC')
    """
    words = named(label)
    if _DIAGNOSTIC.search(words) or _DIAGNOSTIC.search(label):
        return Kind.DIAGNOSTIC
    for kind, pattern in ((Kind.ADAPTED, _ADAPTED), (Kind.SLIDING, _SLIDING), (Kind.ROUND_TRIP, _ROUND_TRIP)):
        if pattern.search(words):
            return kind
    return Kind.UNNAMED


def named(label: str) -> str:
    """A label without what it says was not done, and with spaces between its words."""
    return _NEGATED.sub(" ", label).replace("_", " ")


def uncommon_kinds(logs: Sequence[Collection[Kind]]) -> frozenset[Kind]:
    """Kinds that fewer than half of the logs report: an experiment of one run, not the submission's metric.

    Args:
        logs: the kinds that each log reports; logs without any score do not count.
    """
    counted = [set(kinds) for kinds in logs if kinds]
    return frozenset(kind for kind in Kind if 2 * sum(kind in kinds for kinds in counted) < len(counted))


def choose(scores: Sequence[ScoreEvent], uncommon: Collection[Kind] = ()) -> ScoreEvent | None:
    """The headline among the scores of one log: the last of the most final kind, in its most exact print.

    Args:
        scores: all scores, in the order of the log.
        uncommon: kinds that are passed over where another is left.

    Returns:
        The headline; None when there are only diagnostics.
    """
    final = [score for score in scores if kind_of(score.label) != Kind.DIAGNOSTIC]
    common = [score for score in final if kind_of(score.label) not in uncommon] or final
    if not common:
        return None
    last = {kind_of(score.label): score for score in common}
    best = max(last)
    if best == Kind.ADAPTED and Kind.SLIDING in last and _better(last[Kind.SLIDING], last[Kind.ADAPTED]):
        # Training at test time that makes the score worse is an experiment; nobody submits it.
        best = Kind.SLIDING
    twins = [
        score
        for score in common
        if (kind_of(score.label) == best or _reprints(score, last[best])) and same_value(score, last[best])
    ]
    return max(twins, key=lambda score: (score.digits, score.val_loss is not None, score.line))


def _reprints(score: ScoreEvent, other: ScoreEvent) -> bool:
    """Whether a line is the exact print of the line before it, under a label that names less."""
    return score.line == other.line + 1 and score.label.endswith("exact") and score.digits > other.digits


def _better(first: ScoreEvent, second: ScoreEvent) -> bool:
    return first.val_bpb < second.val_bpb and not same_value(first, second)


def same_value(first: ScoreEvent, second: ScoreEvent) -> bool:
    """Whether two printed scores are one value, given the digits that each prints."""
    # Each print is off by at most half of its last digit.
    slack = 0.5 * (10.0**-first.digits + 10.0**-second.digits)
    return first is second or abs(first.val_bpb - second.val_bpb) <= slack * (1 + 1e-9)
