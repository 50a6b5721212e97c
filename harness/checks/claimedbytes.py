"""Bytes per token by the claimed numbers alone, where no log tells them."""

from __future__ import annotations

from harness.challenge import VALIDATION_SPLITS, bytes_per_token
from harness.checks.common import known, listed, places
from harness.checks.splits import known_constants, likely_cause
from harness.checks.textsize import PATH_SPREAD
from harness.facts.build_curves import decimals
from harness.facts.submission import Submission
from harness.model import Located, Outcome, Value, Verdict

# A loss may be of another evaluation than the bits beside it: one pair tells nothing, several with one ratio do.
LEAST_PAIRS = 2
SAME_RATIO = 2e-5
DECIMALS = 6


def strange_claims(submission: Submission) -> Outcome | None:
    """A warning where the claimed pairs of loss and bits have one ratio, and no known split has it; else None."""
    claims = submission.claims
    if isinstance(claims.validation_split, Located):
        return None
    named = [(f"seed {known(seed.seed)}", seed.val_loss, seed.val_bpb) for seed in claims.seeds]
    pairs = [
        (name, bytes_per_token(loss.value, bits.value), bits)
        for name, loss, bits in named
        if isinstance(loss, Located) and isinstance(bits, Located) and loss.value > 0 and bits.value > 0
    ]
    ratios = [ratio for _, ratio, _ in pairs]
    different = len({bits.value for _, _, bits in pairs})
    # Rounded numbers tell no ratio to five digits.
    exact = all(decimals(bits.value) >= DECIMALS for _, _, bits in pairs)
    if different < LEAST_PAIRS or not exact or max(ratios) > min(ratios) * (1 + SAME_RATIO):
        return None
    if any(_near(ratios[0], value) for split in VALIDATION_SPLITS for value in split.bytes_per_token):
        return None
    cause = likely_cause(lambda constant: _near(ratios[0], constant))
    whose = listed([name for name, _, _ in pairs])
    message = (
        f"Bytes per token of no known validation split, by the claimed numbers of {whose}: {ratios[0]:.5f}{cause}; "
        f"known are {known_constants()}. No log tells the score."
    )
    values: dict[str, Value] = {"bytes_per_token": [round(ratio, 6) for ratio in ratios]}
    return Outcome(Verdict.WARN, message, values, places(*(bits for _, _, bits in pairs)))


def _near(ratio: float, constant: float) -> bool:
    return abs(ratio - constant) <= (PATH_SPREAD + SAME_RATIO) * constant
