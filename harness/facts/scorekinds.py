"""What kind of evaluation a score is of, by its label: adaptation, sliding windows, a cache; not how a model is packed.

A miniature run under settings that nobody states may leave the claimed evaluation out and print another one's score.
What the experiments show of that one says nothing about the claim.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from harness.facts.build_stated import SAME_SCORE, Claimed, counted
from harness.facts.probe import ProbeFacts
from harness.facts.runs import Run, Score
from harness.model import Located, Location, Missing

BARE: Final = "bare"
Kind: TypeAlias = frozenset[str]
# Words of a label that name the model's form, its coder, or nothing.
_PLAIN: Final = frozenset(
    """
    final exact last best result results score scores metric metrics val validation eval evaluation bpb bits byte loss
    int fp bf float nf q b bit bits mixed quant quantized quantised quantization dequantized gptq ptq awq roundtrip
    round trip rt zlib lzma zstd zst brotli xz gzip ans s stride w seed done total model artifact submission export
    """.split()  # noqa: SIM905 - one word a line would hide the list
)


def kind(label: str) -> Kind:
    """The words of a label that say what was evaluated, and how.

    Example:
        >>> sorted(kind("final_int6_sliding_window_s64_exact")), sorted(kind("final_int8_zlib_roundtrip"))
        (['sliding', 'window'], [])
    """
    return frozenset(re.findall(r"[a-z]+", label.lower())) - _PLAIN


def held_against(probe: ProbeFacts | Missing, runs: Sequence[Run], claimed: Claimed) -> ProbeFacts | Missing:
    """A probe's facts, without those about the reported score where that is of no kind that the claim is of.

    Args:
        probe: what was seen.
        runs: every run that a log of the folder holds.
        claimed: what is claimed.
    """
    if isinstance(probe, Missing):
        return probe
    labels = next((run.labels for run in probe.runs if run.name == BARE), ())
    wanted = {label: kind(label) for label in _claimed(runs, claimed)}
    if not labels or not wanted or {kind(label) for label in labels} & set(wanted.values()):
        return probe
    told = f"the claim is the score of {_shown(wanted)}, and the miniature run printed {_shown(labels)} alone"
    reason = f"{told}: what makes the claimed score was not run"
    other = Missing(reason, Location(probe.script))
    return replace(probe, ledger=other, flips=other, two_ranks=other)


def _claimed(runs: Sequence[Run], claimed: Claimed) -> list[str]:
    """Labels of the claimed scores in the logs that print them, and of these logs' headlines."""
    scores = claimed.scores()
    chosen = counted(runs, claimed)
    heads = [run.headline.value for run in chosen if isinstance(run.headline, Located)]
    found = [score for run in chosen for score in run.scores if _is_one_of(score, scores)]
    return list(dict.fromkeys(score.label for score in (*heads, *found)))


def _is_one_of(score: Score, claims: Iterable[float]) -> bool:
    value = score.val_bpb
    if score.diagnostic or not isinstance(value, Located):
        return False
    return any(abs(value.value - claim) <= SAME_SCORE for claim in claims)


def _shown(labels: Collection[str]) -> str:
    return " and ".join(f"`{label.strip()[:60]}`" for label in list(labels)[:2])
