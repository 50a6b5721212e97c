"""What a certificate says: whether the text came back, and whether its compressed size is the claimed score."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from harness import __version__
from harness.certify.text import HEADER, Text

SCHEMA: Final = "certificate/1"
# Of the claimed size. However short the text: what the coder adds is judged apart from it.
TOLERANCE: Final = 0.001
# The coder ends on whole words. Before that it rounds its range, of 8 bits more than the precision at least.
END_BITS: Final = 64
ROUNDING_BITS_PER_TOKEN: Final = math.log2(1 + 2**-8)
PASS, FAIL, UNDECIDED = "pass", "fail", "undecided"


@dataclass(slots=True)
class Proof:
    """What was found, as far as it went.

    Attributes:
        text: what was compressed.
        problem: why the predictor was refused, or "".
        stream: the coder's words.
        decoded: the tokens that came back, the first included; None where decoding did not end.
        same_bytes: whether the decoded text is the same; None where the tokenizer cannot decode.
        coded_bits: ideal size under the whole-number distributions.
        nats: the same under the distributions themselves.
        claimed_bpb: bits per byte by the submission's own evaluation.
        claim: its place in the log.
        unclaimed: why there is no claim, or "".
        seconds: of each phase.
    """

    text: Text
    problem: str = ""
    stream: bytes = b""
    decoded: list[int] | None = None
    same_bytes: bool | None = None
    coded_bits: float = 0.0
    nats: float = 0.0
    claimed_bpb: float | None = None
    claim: dict[str, Any] = field(default_factory=dict)
    unclaimed: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def stream_bits(self) -> int:
        """Size of the stream, without the header of its file."""
        return 8 * len(self.stream)

    @property
    def stream_excess_bits(self) -> float:
        """What the coder added to the ideal size."""
        return self.stream_bits - self.coded_bits

    @property
    def stream_room_bits(self) -> float:
        """What it may add."""
        return END_BITS + ROUNDING_BITS_PER_TOKEN * self.text.tokens.size

    @property
    def predicted_bits(self) -> float:
        """Ideal size under the distributions as they came; infinite where a token had probability zero."""
        return self.nats / math.log(2)

    @property
    def difference(self) -> int | None:
        """Position of the first token that came back wrong or not at all; None where all are right."""
        if self.decoded is None:
            return None
        told = self.text.tokens.tolist()
        pairs = enumerate(zip(told, self.decoded, strict=False))
        short = min(len(told), len(self.decoded)) if len(told) != len(self.decoded) else None
        return next((place for place, (one, other) in pairs if one != other), short)

    @property
    def claimed_bits(self) -> float | None:
        """What the claim says that the text costs."""
        return None if self.claimed_bpb is None else self.claimed_bpb * self.text.byte_count


def judge(proof: Proof) -> tuple[str, str]:
    """Verdict and the sentence for it."""
    if problem := proof.problem or _lost(proof):
        return FAIL, problem
    if proof.claimed_bits is None:
        return UNDECIDED, f"the text came back; nothing to compare its size with: {proof.unclaimed}"
    if proof.stream_excess_bits > proof.stream_room_bits:
        added = f"{proof.stream_excess_bits:,.1f} bits, {proof.stream_room_bits:,.1f} are expected at most"
        return UNDECIDED, f"the text came back, but the coder added {added}: that says nothing of the submission"
    # Whole numbers make a distribution cost a little more, and tokens of less than 2^-24 less: the claim may be either.
    sizes = [size for size in (proof.coded_bits, proof.predicted_bits) if math.isfinite(size)]
    room = TOLERANCE * proof.claimed_bits
    told = f"{proof.coded_bits:,.1f} bits, the claim is {proof.claimed_bits:,.1f} ({_percent(proof):+.3f}%)"
    if max(sizes) < proof.claimed_bits - room:
        return UNDECIDED, f"the text came back, and predictions cost less than is claimed: {told}; others are scored"
    if min(sizes) <= proof.claimed_bits + room:
        stream = f"{proof.stream_bits:,} bits"
        return PASS, f"the text came back bit for bit from {stream}; its predictions cost {told}"
    return FAIL, f"the text came back, but predictions cost more than is claimed: {told}"


def _lost(proof: Proof) -> str:
    """What did not come back, or ""."""
    if proof.decoded is None:
        return "the text did not come back"
    if proof.difference is not None:
        where = f"token {proof.difference:,} of {proof.text.tokens.size:,}"
        return f"{where} did not come back: the predictor does not repeat itself in a fresh process"
    return "the tokens came back, the text did not" if proof.same_bytes is False else ""


def _percent(proof: Proof) -> float:
    return 100.0 * (proof.coded_bits / (proof.claimed_bits or math.nan) - 1.0)


def document(proof: Proof, named: Mapping[str, Any]) -> dict[str, Any]:
    """The certificate (schemas/certificate.schema.json).

    Args:
        proof: what was found.
        named: who and where: submission, predictor, dataset, isolation, versions.
    """
    verdict, message = judge(proof)
    whole = proof.decoded is not None and proof.difference is None
    return {
        "schema": SCHEMA,
        "tool": {"name": "harness", "version": __version__},
        "verdict": verdict,
        "message": message,
        **named,
        "text": named["text"] | _text(proof.text),
        "stream": _stream(proof) if proof.stream else None,
        "decoded": {"tokens_equal": whole, "bytes_equal": proof.same_bytes, "first_difference": proof.difference},
        "claim": None if proof.claimed_bits is None else _claim(proof),
        "seconds": {name: round(value, 3) for name, value in proof.seconds.items()},
    }


def _text(text: Text) -> dict[str, Any]:
    normalized = text.normalized
    return {
        "tokens": int(text.tokens.size),
        "bytes": text.byte_count,
        "tokens_sha256": text.sha256(),
        "normalized_bytes": None if normalized is None else len(normalized),
        "normalized_sha256": None if normalized is None else hashlib.sha256(normalized).hexdigest(),
    }


def _stream(proof: Proof) -> dict[str, Any]:
    return {
        "bits": proof.stream_bits,
        "header_bytes": HEADER.size,
        "sha256": hashlib.sha256(proof.stream).hexdigest(),
        "bits_per_byte": round(proof.stream_bits / proof.text.byte_count, 8),
        "ideal_bits": round(proof.coded_bits, 3),
        "predicted_bits": _finite(proof.predicted_bits),
        "excess_bits": round(proof.stream_excess_bits, 3),
        "tolerance_bits": round(proof.stream_room_bits, 3),
    }


def _claim(proof: Proof) -> dict[str, Any]:
    return {
        "val_bpb": _finite(proof.claimed_bpb),
        "bits": _finite(proof.claimed_bits),
        **proof.claim,
        "excess_percent": _finite(_percent(proof)),
        "tolerance_percent": 100 * TOLERANCE,
    }


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 6)
