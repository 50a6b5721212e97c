"""Verdicts of a certificate: the size under the predictions against the claim, the coder's share apart from it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from harness.certify.certificate import END_BITS, FAIL, PASS, UNDECIDED, Proof, judge
from harness.certify.text import Text

BYTES = 400


def made(tokens: int = 12, bits: float = 352.0, claimed_bits: float = 352.0, stream_bits: int = 0) -> Proof:
    """Everything came back; the stream takes what it should unless that is given."""
    text = Text(np.ones(tokens, np.uint16), 300, BYTES, None)
    stream = bytes((stream_bits or math.ceil(bits / 32) * 32) // 8)
    return Proof(
        text,
        stream=stream,
        decoded=text.tokens.tolist(),
        coded_bits=bits,
        nats=bits * math.log(2),
        claimed_bpb=claimed_bits / BYTES,
    )


@pytest.mark.parametrize(
    ("claimed", "verdict"),
    [(4.0, FAIL), (300.0, FAIL), (351.6, FAIL), (351.7, PASS), (352.3, PASS), (352.4, UNDECIDED), (416.0, UNDECIDED)],
)
def test_a_short_text_has_no_more_room_than_a_long_one(claimed: float, verdict: str) -> None:
    assert judge(made(claimed_bits=claimed))[0] == verdict


@pytest.mark.parametrize(("added", "verdict"), [(0, PASS), (END_BITS, PASS), (2 * END_BITS, UNDECIDED)])
def test_the_coder_s_share_is_judged_apart(added: int, verdict: str) -> None:
    found, message = judge(made(stream_bits=352 + added))
    assert found == verdict
    assert ("the coder added 128.0 bits" in message) == (verdict == UNDECIDED)


def test_the_claim_may_be_of_the_distributions_or_of_their_whole_numbers() -> None:
    whole = made(bits=352.0, claimed_bits=360.0)
    assert judge(replace(whole, nats=360.0 * math.log(2)))[0] == PASS  # tokens below 2^-24 cost 24 bits
    assert judge(replace(whole, coded_bits=362.0, nats=360.0 * math.log(2)))[0] == PASS  # a large vocabulary
    assert judge(replace(whole, coded_bits=362.0, nats=math.inf))[0] == FAIL
    assert judge(replace(whole, coded_bits=360.0, nats=math.inf))[0] == PASS
