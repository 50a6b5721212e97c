"""The protocol `predict/1`: distributions out, tokens in, over two byte streams (docs/certify.md).

    in:   one line of JSON   {"protocol": "predict/1", "tokens": N}
    out:  one line of JSON   {"protocol": "predict/1", "vocab_size": V, "dtype": "float32"}
    in:   the first token; then for each of the others
    out:      V numbers, the logarithms of its probabilities
    in:       the token itself

Tokens are unsigned, of 4 bytes; everything is little-endian.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import IO, TypeAlias

from reference_model.config import Config
from reference_model.model import HymbaLM
from reference_model.predictor import Predictor, predicting
from reference_model.settings import ConfigError
from reference_model.storage import RunError, artifact_path, read_whole, unpack_model
from reference_model.worker import Worker

PREDICT_PROTOCOL = "predict/1"
# Names the file that answers go to; without it they go to standard output.
CHANNEL_VARIABLE = "PROBE_CHANNEL_FD"
START_LINE_BYTES = 4096
WIRE_FORMAT = "<I"

# Takes the number of tokens of the text.
OpenPredictor: TypeAlias = Callable[[int], AbstractContextManager[Predictor]]


def serve_artifact(config: Config, worker: Worker, environ: Mapping[str, str]) -> None:
    """Load the artifact on disk and predict one text with it, as the settings say that it is evaluated.

    Raises:
        ConfigError: there are several processes, or no file has the channel's number.
        ArtifactError: the artifact is damaged, or was packed under other settings of the model.
        RunError: there is no artifact, or the other side does not keep to the protocol.
    """
    if worker.world_size > 1:
        raise ConfigError(f"SERVE_ONLY: is for one process, not for {worker.world_size}")
    model = HymbaLM(config.model).to(worker.device)
    model.load_state_dict(unpack_model(read_whole(artifact_path(config)), config.model))
    open_predictor = partial(predicting, model, config=config.evaluation, seq_len=config.eval_seq_len, worker=worker)
    with protocol_streams(environ) as (source, sink):
        serve(open_predictor, config.model.vocab_size, source, sink)


@contextmanager
def protocol_streams(environ: Mapping[str, str]) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Standard input, and the channel or standard output; what is printed meanwhile goes to standard error.

    Raises:
        ConfigError: the channel's variable names no file to write to.
    """
    number = environ.get(CHANNEL_VARIABLE, "")
    answers = _channel(number) if number else os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(os.dup(0), "rb") as source, os.fdopen(answers, "wb") as sink:
        yield source, sink


def _channel(number: str) -> int:
    try:
        mode = fcntl.fcntl(int(number), fcntl.F_GETFL) & os.O_ACCMODE
    except (ValueError, OverflowError, OSError):
        raise ConfigError(f"{CHANNEL_VARIABLE}: {number!r} is not the number of an open file") from None
    if mode == os.O_RDONLY:
        raise ConfigError(f"{CHANNEL_VARIABLE}: {number} is a file that cannot be written to")
    return int(number)


def serve(open_predictor: OpenPredictor, vocab_size: int, source: IO[bytes], sink: IO[bytes]) -> int:
    """Predict one text to its end; returns its number of tokens.

    Raises:
        RunError: the other side does not keep to the protocol.
    """
    count = _read_start(source)
    reply = {"protocol": PREDICT_PROTOCOL, "vocab_size": vocab_size, "dtype": "float32"}
    sink.write(json.dumps(reply).encode() + b"\n")
    sink.flush()
    with open_predictor(count) as predictor:
        _observe(predictor, source)
        for _ in range(count - 1):
            sink.write(predictor.predict().numpy().astype("<f4").tobytes())
            sink.flush()
            _observe(predictor, source)
    return count


def _read_start(source: IO[bytes]) -> int:
    line = source.readline(START_LINE_BYTES)
    try:
        start = json.loads(line)
        protocol, count = start["protocol"], start["tokens"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise RunError(f"{line[:80]!r}: not a line that begins {PREDICT_PROTOCOL}") from None
    if protocol != PREDICT_PROTOCOL:
        raise RunError(f"{str(protocol)[:80]!r}: only {PREDICT_PROTOCOL} is spoken here")
    if not isinstance(count, int) or not 2 <= count < 1 << 40:
        raise RunError(f"{str(count)[:80]}: no number of tokens with anything to predict")
    return count


def _observe(predictor: Predictor, source: IO[bytes]) -> None:
    data = source.read(struct.calcsize(WIRE_FORMAT))
    if len(data) < struct.calcsize(WIRE_FORMAT):
        raise RunError("the tokens ended early")
    try:
        predictor.observe(*struct.unpack(WIRE_FORMAT, data))
    except ValueError as error:
        raise RunError(str(error)) from error
