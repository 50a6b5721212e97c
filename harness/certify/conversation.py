"""The protocol `predict/1` (docs/certify.md): distributions come, tokens go, each only once the other is complete.

A predictor cannot look ahead, since the token is told after its distribution is here; it cannot name the probability
of the realized token only, since it does not know which one that is; and it cannot change its mind.
"""

from __future__ import annotations

import json
import math
import struct
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from harness.certify.coder import Coder, DistributionError, cost_bits, counts, probabilities
from harness.model import HarnessError
from harness.report.plain import plain

PROTOCOL: Final = "predict/1"
REPLY_LIMIT_BYTES: Final = 4096
DTYPES: Final = {"float32": "<f4", "float64": "<f8"}
LARGEST_VOCABULARY: Final = 1 << 17
TOKEN_FORMAT: Final = "<I"  # noqa: S105 - no secret


class PredictorError(HarnessError):
    """The predictor does not keep to the protocol, or predicts what is no distribution."""


class Conversation:
    """One text, told token by token.

    Attributes:
        told: tokens told so far.
        coded_bits: code length of the told ones under the whole-number distributions, the first not counted.
        nats: minus the natural logarithms of their probabilities, summed.
    """

    def __init__(
        self, first: int, tokens: int, vocabulary: int, coder: Coder, progress: Callable[[int], None] = lambda _: None
    ) -> None:
        """Tell a text.

        Args:
            first: its first token, which is not predicted.
            tokens: how many it has.
            vocabulary: size of its alphabet; the predictor's may be larger.
            coder: knows the other tokens.
            progress: called with the number of tokens told, now and then.
        """
        self._first, self._tokens, self._vocabulary = first, tokens, vocabulary
        self._coder, self._progress = coder, progress
        self._buffer = bytearray()
        self._frame_bytes, self._dtype = 0, ""
        self._shown = time.monotonic()
        self.told, self.coded_bits, self.nats = 0, 0.0, 0.0

    @property
    def complete(self) -> bool:
        """Whether the whole text was told."""
        return self.told == self._tokens

    @property
    def limit_bytes(self) -> int:
        """What the largest vocabulary takes, with one distribution more than is asked for: who goes on is told so."""
        largest = max(np.dtype(name).itemsize for name in DTYPES.values())
        return REPLY_LIMIT_BYTES + self._tokens * LARGEST_VOCABULARY * largest

    def begin(self) -> bytes:
        """The line that begins it, and the first token."""
        self.told = 1
        return json.dumps({"protocol": PROTOCOL, "tokens": self._tokens}).encode() + b"\n" + self._packed(self._first)

    def hear(self, data: bytes) -> bytes:
        """Take what the predictor said, and tell it the next token for each whole distribution.

        Raises:
            PredictorError: it is no distribution, or not the protocol.
        """
        self._buffer += data
        if not self._frame_bytes and not self._reply():
            return b""
        answer = b""
        while len(self._buffer) >= self._frame_bytes:
            frame = bytes(self._buffer[: self._frame_bytes])
            del self._buffer[: self._frame_bytes]
            answer += self._next(frame)
        if self.complete and self._buffer:
            raise PredictorError(f"the predictor goes on after the last of {self._tokens:,} tokens")
        return answer

    def _next(self, frame: bytes) -> bytes:
        if self.complete:
            raise PredictorError(f"the predictor goes on after the last of {self._tokens:,} tokens")
        logs = np.frombuffer(frame, self._dtype).astype(np.float64)
        try:
            distribution = probabilities(logs)
            shares = counts(distribution)
            token = self._coder.code(shares)
        except DistributionError as error:
            raise PredictorError(f"at token {self.told:,}: {error}") from error
        self.coded_bits += cost_bits(shares, token)
        probability = float(distribution[token])
        self.nats -= math.log(probability) if probability > 0 else -math.inf
        self.told += 1
        if time.monotonic() - self._shown > 1.0:
            self._shown = time.monotonic()
            self._progress(self.told)
        return self._packed(token)

    def _packed(self, token: int) -> bytes:
        return struct.pack(TOKEN_FORMAT, token)

    def _reply(self) -> bool:
        """Take the predictor's first line if it is whole; returns whether it was."""
        line, end, rest = bytes(self._buffer).partition(b"\n")
        if len(line) > REPLY_LIMIT_BYTES or (end and not line):
            raise PredictorError("the predictor's first line is too long or empty")
        if not end:
            return False
        self._buffer = bytearray(rest)
        self._agree(_parsed(line))
        return True

    def _agree(self, reply: dict[str, Any]) -> None:
        protocol, size, dtype = (reply.get(name) for name in ("protocol", "vocab_size", "dtype"))
        if protocol != PROTOCOL:
            raise PredictorError(f"the predictor speaks {plain(str(protocol)[:80])}, expected {PROTOCOL}")
        if type(size) is not int or not self._vocabulary <= size <= LARGEST_VOCABULARY:
            told = f"{plain(str(size)[:80])} tokens, expected {self._vocabulary} to {LARGEST_VOCABULARY}"
            raise PredictorError(f"the predictor's vocabulary has {told}")
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise PredictorError(f"the predictor's numbers are {plain(str(dtype)[:80])}, expected float32 or float64")
        self._dtype = DTYPES[dtype]
        self._frame_bytes = size * np.dtype(self._dtype).itemsize


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        reply = json.loads(line)
    except (ValueError, RecursionError):
        reply = None
    if not isinstance(reply, dict):
        raise PredictorError(f"the predictor's first line is no JSON object: {plain(repr(line[:80]))}")
    return reply
