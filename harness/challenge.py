"""The challenge's constants: caps, margins, validation splits, tokenizers. Imports nothing of ours.

An *edition* is one dated set of rule constants. Each number stands beside its source; `#n` is an issue or pull
request of openai/parameter-golf.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass

ARTIFACT_CAP_BYTES = 16_000_000  # README FAQ: decimal megabytes, code plus compressed model
TRAIN_CAP_SECONDS = 600.0  # README: ten minutes on 8xH100
EVAL_CAP_SECONDS = 600.0  # README FAQ: evaluation may take another ten minutes
H100_PEAK_FLOPS = 989e12  # H100 SXM data sheet: dense bfloat16, operations per second
TRAINING_FLOPS_PER_PARAMETER = 6  # Kaplan et al. 2020, section 2.1: forward and backward, for each token
VAL_DOCUMENTS = 50_000  # README: the first 50,000 documents of the frozen shuffle
# #1902, #2146: what is judged had to be there by then.
SUBMISSIONS_CLOSE = dt.datetime(2026, 5, 2, tzinfo=dt.UTC)
BOS_TOKEN = 1
SHARD_MAGIC = 20240520
SHARD_VERSION = 1
SHARD_HEADER_BYTES = 1024
MARGIN_NATS = 0.005  # README: a new record is at least this much better; per token or per byte was never said


@dataclass(frozen=True, slots=True)
class Edition:
    """One dated set of rule constants.

    Attributes:
        name: how `--edition` names it.
        since: first day on which it was enforced.
        significance: the test of a record claim, in words.
        p_value: the cut-off of that test.
        margin_nats: the null margin in nats per token; zero where the test is against equality.
        source: who said so.
    """

    name: str
    since: dt.date
    significance: str
    p_value: float
    margin_nats: float
    source: str


EDITIONS = (
    Edition(
        name="2026-03-18",
        since=dt.date(2026, 3, 18),
        significance="at least 0.005 nats better than the record",
        p_value=0.01,
        margin_nats=MARGIN_NATS,
        source="README",
    ),
    Edition(
        name="2026-04-28",
        since=dt.date(2026, 4, 28),
        significance="one-sided Welch two-sample t-test on per-seed val_bpb against the previous accepted row",
        p_value=0.25,
        margin_nats=0.0,
        source="#1899, #1900, #1902, #2146",
    ),
)


def edition_on(day: dt.date | None) -> Edition:
    """The edition in force on a day; the latest one when there is no day, the first one before any."""
    if day is None:
        return EDITIONS[-1]
    return max((edition for edition in EDITIONS if edition.since <= day), key=lambda e: e.since, default=EDITIONS[0])


def edition_named(name: str) -> Edition:
    """The edition of that name.

    Raises:
        KeyError: there is none; the message lists those that exist.
    """
    for edition in EDITIONS:
        if edition.name == name:
            return edition
    raise KeyError(f"no edition {name!r}; known: {', '.join(e.name for e in EDITIONS)}")


@dataclass(frozen=True, slots=True)
class ValidationSplit:
    """One tokenization of the validation text.

    Attributes:
        name: the tokenizer variant.
        vocab_size: size of the token alphabet.
        tokens: targets in the whole split, or None where unpublished.
        scored_tokens: targets that whole sequences of 1,024 or 2,048 tokens cover, or None.
        bytes: bytes of the whole split, or None where unpublished.
        bytes_per_token: what `val_loss / ln 2 / val_bpb` gives on it, one entry for each known evaluation path.
        source: where the numbers come from.
        scored_bytes: bytes of the scored targets, or None.
    """

    name: str
    vocab_size: int
    tokens: int | None
    scored_tokens: int | None
    bytes: int | None
    bytes_per_token: tuple[float, ...]
    source: str
    scored_bytes: int | None = None


# Bytes of the 50,000 documents, as the byte tables of the published tokenizers count them.
VALIDATION_TEXT_BYTES = 151_080_891
VALIDATION_SPLITS = (
    ValidationSplit(
        "sp1024",
        1024,
        62_021_846,
        62_021_632,
        VALIDATION_TEXT_BYTES,
        (2.43593,),
        "measured on the published split",
        scored_bytes=151_080_363,
    ),
    ValidationSplit(
        "sp1024 (first export)",
        1024,
        None,
        63_779_840,
        None,
        (2.4423,),
        "log of the naive baseline",
        scored_bytes=155_769_746,
    ),
    ValidationSplit("sp4096", 4096, None, None, None, (3.31968,), "logs of accepted records"),
    ValidationSplit(
        "sp8192", 8192, 40_540_803, None, VALIDATION_TEXT_BYTES, (3.72663, 3.72675), "logs of accepted records"
    ),
    ValidationSplit(
        "sp8192 CaseOps",
        8192,
        47_853_344,
        47_851_520,
        None,
        (3.15715, 3.15736),
        "logs of accepted records",
        scored_bytes=151_074_309,
    ),
    ValidationSplit(
        "byte260",
        260,
        None,
        151_130_112,
        None,
        (1.0, 0.9997),
        "log of an accepted record",
        scored_bytes=151_080_113,
    ),
)

# The published training text, in whole shards of 100 million tokens: 195 of sp1024, 143 of sp4096, 128 of sp8192 and
# 476 of byte260 are each 47.5 to 47.7 billion bytes.
TRAIN_SHARD_TOKENS = 100_000_000
TRAIN_TEXT_BYTES = 47_700_000_000

# Values that the fingerprint takes when bytes are miscounted: a number near one of them names its likely cause.
KNOWN_MISCOUNTS = (
    (4.3495, "sp8192 with leading spaces counted twice", "#1719, #1734"),
    (4.3864, "sp8192 with leading spaces counted twice and another count of some tokens", "#1734"),
    (3.4397, "sp8192 CaseOps counted without its raw-byte sidecar", "#1729"),
)


def bytes_per_token(val_loss_nats: float, val_bpb: float) -> float:
    """Bytes per scored token implied by a loss and a bits-per-byte value.

    Example:
        >>> round(bytes_per_token(2.07269931, 1.2243657), 4)
        2.4423
    """
    return val_loss_nats / math.log(2) / val_bpb


@dataclass(frozen=True, slots=True)
class Envelope:
    """What accepted records reach: ln(val_bpb) = base + per_log_day ln(1 + days) + per_log_parameter ln(parameters).

    Days count from `ENVELOPE_START`; `deviation` is the residuals' standard deviation, in the same logarithms.
    """

    base: float
    per_log_day: float
    per_log_parameter: float
    deviation: float
    records: int

    def expected_bpb(self, days: int, parameters: int | None) -> float:
        """What accepted records of that day and size reach on the average."""
        grown = self.per_log_parameter * math.log(parameters) if parameters else 0.0
        return math.exp(self.base + self.per_log_day * math.log1p(days) + grown)


# Least squares over the accepted record-track folders; `python benchmarks/envelope.py RECORDS` prints them. Steps are
# left out: among records they fall as models grow, so a fit would take longer training for a worse score.
ENVELOPE_START = dt.date(2026, 3, 17)
ENVELOPE_BY_DATE = Envelope(0.20837, -0.041427, 0.0, 0.013943, 46)
ENVELOPE_BY_SIZE = Envelope(0.46330, -0.037642, -0.015369, 0.013970, 45)
ENVELOPE_DEVIATIONS = 3.0
