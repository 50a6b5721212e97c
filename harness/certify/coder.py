"""Distributions turned into whole numbers, and the arithmetic coder (a range coder of the library `constriction`).

Encoder and decoder must agree on every bit of every distribution. So a distribution is first turned into whole
numbers that sum to 2^24, by the same arithmetic on both sides; the coder sees nothing else.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from harness.model import HarnessError

PRECISION_BITS: Final = 24
TOTAL: Final = 1 << PRECISION_BITS
# Rounding of a softmax over a large vocabulary in float32 stays far below; the probe's Kraft sum has the same limit.
SUM_TOLERANCE: Final = 1e-4
WORD_BITS: Final = 32

Counts: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]


class DistributionError(HarnessError):
    """Numbers that are no logarithms of a distribution."""


def probabilities(logs: Floats) -> Floats:
    """The distribution whose natural logarithms these are, shape (vocabulary,); its sum is made 1 exactly.

    Raises:
        DistributionError: a value is NaN or above zero, or the sum is not 1 within `SUM_TOLERANCE`.
    """
    if np.isnan(logs).any():
        raise DistributionError(f"the logarithm of token {int(np.isnan(logs).argmax())}'s probability is NaN")
    highest = int(logs.argmax())
    if logs[highest] > SUM_TOLERANCE:
        raise DistributionError(f"token {highest} has the probability exp({float(logs[highest]):.6g}), above 1")
    values = np.exp(logs)
    total = float(values.sum())
    if not abs(total - 1.0) <= SUM_TOLERANCE:
        raise DistributionError(f"the probabilities sum to {total:.6g}, not to 1 within {SUM_TOLERANCE:g}")
    return values / total


def counts(distribution: Floats) -> Counts:
    """Whole numbers that sum to 2^24, at least 1 for every token; the most probable one takes the rest."""
    shares = np.floor(distribution * (TOTAL - distribution.size)).astype(np.int64) + 1
    shares[shares.argmax()] += TOTAL - int(shares.sum())
    return shares


def cost_bits(shares: Counts, token: int) -> float:
    """Ideal code length of a token."""
    return PRECISION_BITS - math.log2(int(shares[token]))


class Coder(Protocol):
    """Knows the next token once its distribution is fixed."""

    def code(self, shares: Counts) -> int:
        """Take the distribution of the next token; returns that token."""
        ...


class Encoder:
    """Knows the tokens, and writes them down."""

    def __init__(self, tokens: NDArray[np.uint16]) -> None:
        self._waiting = iter(tokens.tolist())
        self._coder = _library().stream.queue.RangeEncoder()

    def code(self, shares: Counts) -> int:
        """Write the next token down."""
        token: int = next(self._waiting)
        self._coder.encode(token, _model(shares))
        return token

    def stream(self) -> bytes:
        """What was written."""
        return bytes(self._coder.get_compressed().astype("<u4").tobytes())


class Decoder:
    """Knows what was written down, and nothing else."""

    def __init__(self, stream: bytes) -> None:
        self._coder = _library().stream.queue.RangeDecoder(np.frombuffer(stream, "<u4").astype(np.uint32))
        self.tokens: list[int] = []

    def code(self, shares: Counts) -> int:
        """Read the next token.

        Raises:
            DistributionError: no token fits: the distributions are not those that the stream was written with.
        """
        try:
            token = int(self._coder.decode(_model(shares)))
        except AssertionError as error:
            told = (
                f"the stream does not go on after {len(self.tokens):,} tokens: other distributions than when encoding"
            )
            raise DistributionError(told) from error
        self.tokens.append(token)
        return token


def _model(shares: Counts) -> Any:  # noqa: ANN401 - the library has no types
    return _library().stream.model.Categorical(shares / TOTAL, perfect=False)


def _library() -> ModuleType:
    try:
        import constriction
    except ImportError as error:
        raise HarnessError(
            "the arithmetic coder is not installed: pip install 'parameter-golf-harness[certify]'"
        ) from error
    module: ModuleType = constriction
    return module
