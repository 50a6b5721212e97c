"""The protocol: distributions out, tokens in, and one clear error for what does not keep to it."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from reference_model.config import ModelConfig
from reference_model.evalconfig import EvalConfig
from reference_model.model import HymbaLM
from reference_model.predictor import Predictor, predicting
from reference_model.serve import protocol_streams, serve
from reference_model.settings import ConfigError
from reference_model.storage import RunError

VOCAB = 16
CONFIG = ModelConfig(vocab_size=VOCAB, num_layers=1, model_dim=8, num_heads=1, num_kv_heads=1, bigram_buckets=8)
TOKENS = [1, 5, 7, 5]


@contextmanager
def open_predictor(tokens: int) -> Iterator[Predictor]:
    model = HymbaLM(CONFIG, torch.Generator().manual_seed(0))
    with predicting(model, tokens, EvalConfig(eval_stride=0), 8) as predictor:
        yield predictor


def told(told_tokens: list[int], /, **changes: object) -> io.BytesIO:
    start = {"protocol": "predict/1", "tokens": len(told_tokens)} | changes
    return io.BytesIO(json.dumps(start).encode() + b"\n" + np.array(told_tokens, "<u4").tobytes())


def test_it_answers_with_distributions() -> None:
    sink = io.BytesIO()
    assert serve(open_predictor, VOCAB, told(TOKENS), sink) == 4
    line, _, body = sink.getvalue().partition(b"\n")
    assert json.loads(line) == {"protocol": "predict/1", "vocab_size": VOCAB, "dtype": "float32"}
    rows = np.frombuffer(body, "<f4").reshape(3, VOCAB)
    assert np.exp(rows.astype(float)).sum(1) == pytest.approx(1, abs=1e-5)
    with open_predictor(4) as predictor:
        for row, token in zip(rows, TOKENS, strict=False):
            predictor.observe(token)
            assert np.array_equal(row, predictor.predict().numpy())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (io.BytesIO(b""), "not a line that begins predict/1"),
        (io.BytesIO(b"[1]\n"), "not a line that begins predict/1"),
        (io.BytesIO(b'{"tokens": 3}\n'), "not a line that begins predict/1"),
        (told(TOKENS, protocol="predict/2"), "'predict/2': only predict/1 is spoken here"),
        (told(TOKENS, tokens=1), "1: no number of tokens with anything to predict"),
        (told(TOKENS, tokens="4"), "4: no number of tokens"),
        (told(TOKENS, tokens=9), "the tokens ended early"),
        (told([1, 16, 3]), "token 16 is outside the vocabulary of 16"),
    ],
)
def test_what_does_not_keep_to_it_is_refused(source: io.BytesIO, message: str) -> None:
    with pytest.raises(RunError) as caught:
        serve(open_predictor, VOCAB, source, io.BytesIO())
    assert message in str(caught.value)


def test_answers_go_to_the_channel_and_prints_to_standard_error(tmp_path: Path) -> None:
    kept = [os.dup(number) for number in (0, 1, 2)]
    files = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("in", "out", "err", "channel")]
    try:
        for number in (0, 1, 2):
            os.dup2(files[number], number)
        for environ in ({"PROBE_CHANNEL_FD": str(files[3])}, dict[str, str]()):
            os.dup2(files[1], 1)
            with protocol_streams(environ) as (_, sink):
                os.write(1, b"printed")
                sink.write(b"answer")
    finally:
        for number in (0, 1, 2):
            os.dup2(kept[number], number)
    contents = {name: (tmp_path / name).read_bytes() for name in ("out", "err", "channel")}
    assert contents == {"out": b"answer", "err": b"printedprinted", "channel": b"answer"}
    for number in (*kept, *files[:3]):
        os.close(number)


@pytest.mark.parametrize("number", ["999", "1e3", "-1", "9" * 30, "{}"])
def test_a_channel_that_is_none_is_one_clear_error(number: str, tmp_path: Path) -> None:
    with (tmp_path / "in").open("wb"), (tmp_path / "in").open("rb") as unwritable:
        number = number.format(unwritable.fileno())
        with pytest.raises(ConfigError, match=f"^PROBE_CHANNEL_FD: .?{number}"):
            protocol_streams({"PROBE_CHANNEL_FD": number}).__enter__()


def test_serving_is_predicting() -> None:
    model = HymbaLM(CONFIG)
    opened = partial(predicting, model, config=EvalConfig(eval_stride=0), seq_len=8)
    assert serve(opened, VOCAB, told(TOKENS), io.BytesIO()) == len(TOKENS)
