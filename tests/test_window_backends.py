"""Window attention by flex_attention and under a dense mask; how a backend is chosen."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import flex_attention as flex_module

from reference_model.attention import attention_after_meta, causal_attention, choose_window
from reference_model.settings import ConfigError
from tests.test_attention import dense, heads

# As it is for a GPU, the operator wants to be compiled.
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")


@given(
    length=st.integers(1, 300),
    window=st.integers(0, 260),
    kv_heads=st.sampled_from([1, 2, 4]),
    before=st.sampled_from([0, 0, 1, 130]),
)
def test_a_dense_mask_equals_a_softmax_written_out(length: int, window: int, kv_heads: int, before: int) -> None:
    inputs = heads(length, kv_heads=kv_heads, before=before)
    both = (causal_attention(*inputs, window, "sdpa"), dense(*inputs, window))
    results = [(mixed, *torch.autograd.grad((mixed * mixed.detach().cos()).sum(), inputs)) for mixed in both]
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("length", "window", "kv_heads", "before"),
    [(1, 0, 2, 0), (7, 3, 4, 0), (40, 5, 2, 1), (129, 128, 1, 0), (257, 100, 2, 3), (300, 1, 4, 130), (300, 299, 2, 0)],
)
def test_flex_attention_equals_a_softmax_written_out(
    monkeypatch: pytest.MonkeyPatch, length: int, window: int, kv_heads: int, before: int
) -> None:
    inputs = heads(length, kv_heads=kv_heads, before=before)
    with torch.no_grad():
        torch.testing.assert_close(causal_attention(*inputs, window, "flex"), dense(*inputs, window))
    # The operator written out has a backward pass on a CPU too; only its front door refuses.
    monkeypatch.setattr(flex_module, "_validate_device", lambda *_: None)
    monkeypatch.setattr("reference_model.attention.flex_problem", lambda *_: "")
    both = (causal_attention(*inputs, window, "flex"), dense(*inputs, window))
    results = [torch.autograd.grad((mixed * mixed.detach().cos()).sum(), inputs) for mixed in both]
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("backend", ["flex", "sdpa"])
def test_meta_tokens_stay_visible(backend: str) -> None:
    q, k, v = (x.detach() for x in heads(155))
    found = attention_after_meta(q, k, v, window=4, meta=5, backend=backend)
    torch.testing.assert_close(found, attention_after_meta(q, k, v, window=4, meta=5, backend="blocked"))


def test_a_backend_is_chosen_by_the_device_and_an_impossible_one_says_why() -> None:
    q, k, v = heads(20)
    assert choose_window("auto", q, k, v) == "blocked"
    on_a_gpu = torch.empty(0, device="meta")
    assert choose_window("auto", on_a_gpu) == "blocked"
    with pytest.raises(
        ConfigError, match=r"^SLIDING_WINDOW_BACKEND: flex cannot .*: it has no backward pass on a CPU$"
    ):
        causal_attention(q, k, v, 4, "flex")
    with pytest.raises(ConfigError, match="'abacus' is not one of auto, flex"):
        causal_attention(q, k, v, 4, "abacus")
