"""The coder: whole numbers that sum to what they should, and what goes in comes out; the file of a stream."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.certify.coder import TOTAL, Decoder, DistributionError, Encoder, cost_bits, counts, probabilities
from harness.certify.conversation import LARGEST_VOCABULARY, Conversation, PredictorError
from harness.certify.text import read_stream
from harness.model import HarnessError

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(2, 300)


def some_logs(size: int, seed: int, spread: float = 8.0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(0.0, spread, size)
    return np.asarray(values - np.log(np.exp(values).sum()))


@given(size=sizes, seed=seeds)
def test_counts_are_a_distribution_of_whole_numbers(size: int, seed: int) -> None:
    distribution = probabilities(some_logs(size, seed))
    shares = counts(distribution)
    assert int(shares.sum()) == TOTAL
    assert int(shares.min()) >= 1
    best = int(distribution.argmax())
    assert cost_bits(shares, best) == pytest.approx(-math.log2(distribution[best]), abs=1e-3)


@settings(max_examples=20)
@given(size=sizes, seed=seeds, length=st.integers(1, 60))
def test_what_goes_in_comes_out_at_its_cost(size: int, seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, size, length).astype(np.uint16)
    shares = [counts(probabilities(some_logs(size, seed + place, rng.uniform(0, 20)))) for place in range(length)]
    encoder = Encoder(tokens)
    assert [encoder.code(each) for each in shares] == tokens.tolist()
    decoder = Decoder(encoder.stream())
    assert [decoder.code(each) for each in shares] == tokens.tolist() == decoder.tokens
    ideal = sum(cost_bits(each, int(token)) for each, token in zip(shares, tokens, strict=True))
    # Behind its end a stream reads as zeros, which is all that the lowest tokens need, however improbable they are.
    assert -96 <= 8 * len(encoder.stream()) - ideal <= 64


@pytest.mark.parametrize(
    ("logs", "message"),
    [
        ([math.nan, 0.0], "token 0's probability is NaN"),
        ([-1.0, math.inf], "token 1 has the probability exp"),
        ([-math.inf, -math.inf], "sum to 0, not to 1"),
        ([-0.5, -0.5], "sum to 1.21306, not to 1"),
        ([-1.0, -1.0], "sum to 0.735759, not to 1"),
    ],
)
def test_what_is_no_distribution_is_refused(logs: list[float], message: str) -> None:
    with pytest.raises(DistributionError) as caught:
        probabilities(np.array(logs))
    assert message in str(caught.value)


def test_a_token_without_a_chance_still_has_a_code() -> None:
    shares = counts(probabilities(np.array([0.0, -math.inf])))
    assert cost_bits(shares, 1) == 24.0


@given(cut=st.lists(st.integers(1, 40), max_size=30))
def test_distributions_may_arrive_in_any_pieces(cut: list[int]) -> None:
    tokens = np.array([1, 2, 0, 1], np.uint16)
    logs = [some_logs(3, seed).astype("<f8") for seed in range(3)]
    said = b'{"protocol": "predict/1", "vocab_size": 3, "dtype": "float64"}\n' + b"".join(map(np.ndarray.tobytes, logs))
    talk = Conversation(1, 4, 3, Encoder(tokens[1:]))
    told = talk.begin()
    for size in [*cut, len(said)]:
        told += talk.hear(said[:size]) if said[:size] else b""
        said = said[size:]
    assert talk.complete
    assert told == b'{"protocol": "predict/1", "tokens": 4}\n' + tokens.astype("<u4").tobytes()
    assert talk.nats == pytest.approx(-sum(row[token] for row, token in zip(logs, tokens[1:], strict=True)))
    with pytest.raises(PredictorError, match="goes on after the last of 4 tokens"):
        talk.hear(b"x")


def test_a_conversation_has_an_end() -> None:
    talk = Conversation(1, 4, 3, Encoder(np.array([2, 0, 1], np.uint16)))
    assert 3 * LARGEST_VOCABULARY * 8 < talk.limit_bytes < 5 * LARGEST_VOCABULARY * 8


@pytest.mark.parametrize("data", [b"", b"PGC1", b"PGC2" + bytes(12), b"PGC1" + bytes(13)])
def test_other_files_are_no_streams(data: bytes) -> None:
    with pytest.raises(HarnessError, match="no compressed text"):
        read_stream(data)
