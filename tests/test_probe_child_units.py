"""Parts of the child that need no process of their own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from harness.probe.child import crash, events, launcher
from harness.probe.child.overrides import Overrides
from harness.probe.child.shims import amp, attention, fla, flex, mamba, modules, triton, triton_language
from harness.probe.child.source import Sources
from tests.heard import Heard

tl: Any = SimpleNamespace(**triton_language.NAMES)


def blame(folder: Path, text: str, heard: Heard) -> tuple[str, str]:
    script = folder / "train_gpt.py"
    script.write_text(text)
    sources = Sources(folder, Overrides({}), None)
    try:
        exec(sources.code(text, str(script)), {"__name__": "__main__"})  # noqa: S102 - our own text
    except Exception as error:  # noqa: BLE001 - any is wanted
        crash.report(error, sources)
    return heard.events[-1]["blame"], heard.events[-1]["reason"]


CRASHES = {
    "class A: pass\nA().depth\n": "script",
    "class A: pass\nif False: A().depth = 1\nA().depth\n": "unknown",
    "class A: pass\nsetattr(A, input, 1) if False else A().input\n": "script",
    "from harness.probe.child.shims.mamba_modules import RMSNormGated as B\nclass A(B): pass\nA(4).depth\n": "shim",
    "print(undefined_name)\n": "script",
    "if False: from flash_attn import *\nprint(flash_attn_of_theirs)\n": "unknown",
    "from math import *\nprint(undefined_name)\n": "script",
    "if False: from train_gpt import *\nprint(undefined_name)\n": "script",
    "def f():\n    for x in (): y = 1\n    return y\nf()\n": "unknown",
    "import own_helper_of_ours\n": "script",
    "import tiktoken_of_nobody.bpe\n": "script",
    "import transformer_engine\n": "unknown",
    "import torch\ntorch.zeros(2) @ torch.zeros(3)\n": "unknown",
    "raise RuntimeError('CUDA out of memory')\n": "shim",
    "x = [1]\nx.shape\n": "unknown",
}


@pytest.mark.parametrize(("text", "wanted"), CRASHES.items())
def test_blame(tmp_path: Path, heard: Heard, text: str, wanted: str) -> None:
    assert blame(tmp_path, text, heard)[0] == wanted


def test_a_module_that_the_readme_names_is_no_fault(tmp_path: Path, heard: Heard) -> None:
    (tmp_path / "requirements.txt").write_text("fast-kernels>=1\n")
    assert blame(tmp_path, "import fast_kernels\n", heard)[0] == "unknown"


def test_autocast_runs_in_float32_what_cuda_s_does() -> None:
    logits = torch.randn(4, 1024, requires_grad=True)
    weight = torch.eye(1024)
    library = amp.widen()
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            product = logits @ weight
            wide = [product.log_softmax(-1), F.softmax(product, dim=-1), torch.logsumexp(product, -1), product**2]
            assert torch.softmax(product, -1, dtype=torch.bfloat16).dtype == torch.bfloat16
        assert product.dtype == torch.bfloat16
        assert {each.dtype for each in wide} == {torch.float32}
        assert torch.allclose(wide[0].exp().sum(-1), torch.ones(4), atol=1e-5)
        wide[0].sum().backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        # Outside of it everything is as it was.
        assert product.log_softmax(-1).dtype == torch.bfloat16
    finally:
        library._destroy()  # type: ignore[no-untyped-call]


def naive(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, left: int, *, causal: bool, cap: float) -> torch.Tensor:
    out = torch.zeros_like(q)
    rows, columns = q.shape[1], k.shape[1]
    for head in range(q.shape[2]):
        other = head // (q.shape[2] // k.shape[2])
        for row in range(rows):
            place = row + columns - rows
            keys = [j for j in range(columns) if not (causal and j > place) and not (0 <= left < place - j)]
            if not keys:
                continue
            scores = (k[0, keys, other] @ q[0, row, head]) / q.shape[-1] ** 0.5
            scores = cap * torch.tanh(scores / cap) if cap else scores
            out[0, row, head] = scores.softmax(0) @ v[0, keys, other]
    return out


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("left", "columns", "cap"), [(-1, 6, 0.0), (2, 6, 0.0), (2, 9, 0.0), (-1, 6, 5.0), (1, 3, 0.0)]
)
def test_attention_is_flash_attention(left: int, columns: int, cap: float, *, causal: bool) -> None:
    torch.manual_seed(left + columns)
    q, k, v = (torch.randn(1, n, h, 8) for n, h in ((6, 4), (columns, 2), (columns, 2)))
    out = attention.attend(q, k, v, scale=None, causal=causal, window=(left, 0 if causal else -1), softcap=cap)
    torch.testing.assert_close(out, naive(q, k, v, left, causal=causal, cap=cap))


def test_lengths_separate_documents() -> None:
    torch.manual_seed(0)
    three: Any = attention._variant(attention.THREE)
    q, k, v = torch.randn(10, 4, 8), torch.randn(10, 2, 8), torch.randn(10, 2, 8)
    starts = torch.tensor([0, 3, 3, 8, 8], dtype=torch.int32)
    out = three.flash_attn_varlen_func(q, k, v, starts, starts, 5, 5, causal=True)
    torch.testing.assert_close(out[3:8], naive(q[None, 3:8], k[None, 3:8], v[None, 3:8], -1, causal=True, cap=0.0)[0])
    assert torch.equal(out[8:], torch.zeros(2, 4, 8))


def test_selective_scan_is_the_recurrence() -> None:
    torch.manual_seed(0)
    u, dt, z = (torch.randn(2, 3, 7, dtype=torch.float64) for _ in range(3))
    a, b, c = -torch.rand(3, 4), torch.randn(2, 4, 7), torch.randn(2, 4, 7)
    d, bias = torch.randn(3), torch.randn(3)
    out, last = mamba.selective_scan_fn(u, dt, a, b, c, d, z, bias, delta_softplus=True, return_last_state=True)
    state = torch.zeros(2, 3, 4, dtype=torch.float64)
    step = F.softplus(dt + bias[:, None])
    for t in range(7):
        state = state * torch.exp(step[:, :, t, None] * a) + step[:, :, t, None] * b[:, None, :, t] * u[:, :, t, None]
        wanted = ((state * c[:, None, :, t]).sum(-1) + d * u[:, :, t]) * F.silu(z[:, :, t])
        torch.testing.assert_close(out[:, :, t], wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(last.double(), state, rtol=1e-4, atol=1e-5)


def test_scans_go_on_from_a_state() -> None:
    torch.manual_seed(1)
    q, k, v = torch.randn(1, 8, 1, 6), torch.randn(1, 8, 1, 6), torch.randn(1, 8, 2, 4)
    dt, trap = torch.rand(1, 2, 8), torch.randn(1, 2, 8)
    adt, bias, angles = -dt, torch.randn(2, 6), torch.randn(1, 8, 2, 2)

    def part(where: slice, states: Any = None) -> Any:
        return mamba.mamba3_siso_combined(
            q[:, where], k[:, where], v[:, where], adt[..., where], dt[..., where], trap[..., where], bias, bias,
            angles[:, where], Input_States=states, return_final_states=True,
        )  # fmt: skip

    whole, first = part(slice(0, 8)), part(slice(0, 3))
    second = part(slice(3, 8), first[1:])
    torch.testing.assert_close(torch.cat([first[0], second[0]], 1), whole[0])


def test_the_gated_delta_rule_is_its_recurrence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fla, "CHUNK", 3)
    torch.manual_seed(4)
    q, k, v = torch.randn(2, 8, 2, 5), torch.randn(2, 8, 2, 5), torch.randn(2, 8, 4, 3)
    g, beta, state = -torch.rand(2, 8, 4), torch.rand(2, 8, 4), torch.randn(2, 4, 5, 3)
    out, last = fla.chunk_gated_delta_rule(q, k, v, g, beta, initial_state=state, output_final_state=True)
    q, k = (part.repeat_interleave(2, 2) for part in (q, k))
    for t in range(8):
        state = state * g[:, t].exp()[..., None, None]
        error = beta[:, t, :, None] * (v[:, t] - torch.einsum("bhk,bhkv->bhv", k[:, t], state))
        state = state + k[:, t, :, :, None] * error[:, :, None]
        torch.testing.assert_close(out[:, t], torch.einsum("bhk,bhkv->bhv", q[:, t], state) * 5**-0.5)
    torch.testing.assert_close(last, state)
    assert fla.chunk_gated_delta_rule(v, v, v)[0].shape == v.shape


@pytest.mark.parametrize(("name", "value"), [("use_gate_in_kernel", True), ("A_log", torch.ones(2)), ("head_first", 1)])
def test_the_gated_delta_rule_refuses_what_would_change_its_result(name: str, value: object) -> None:
    v, unlike = torch.randn(1, 4, 2, 3), {name: value}
    with pytest.raises(NotImplementedError, match=f"{name}=.*no equivalent"):
        fla.chunk_gated_delta_rule(v, v, v, **unlike)  # type: ignore[arg-type]


@pytest.mark.parametrize("convolved", [True, False])
def test_gated_delta_net_has_the_weights_of_the_original_and_looks_back_alone(*, convolved: bool) -> None:
    torch.manual_seed(5)
    layer = fla.GatedDeltaNet(32, expand_v=2, head_dim=8, num_heads=3, use_short_conv=convolved, allow_neg_eigval=True)
    keys, values = 3 * 8, 3 * 16
    wanted = 32 * (2 * keys + 3 * values + 2 * 3) + 2 * 3 + 16 + (4 * (2 * keys + values) if convolved else 0)
    assert sum(weight.numel() for weight in layer.parameters()) == wanted
    x = torch.randn(2, 7, 32)
    out, attention_weights, cache = layer(x)
    assert (out.shape, attention_weights, cache) == (x.shape, None, None)
    x[:, 5] += 1.0
    changed = layer(x)[0]
    torch.testing.assert_close(changed[:, :5], out[:, :5])
    assert (changed[:, 5:] - out[:, 5:]).abs().amax(-1).min() > 1e-4
    with pytest.raises(RuntimeError, match="caches"):
        layer(x, use_cache=True)


def test_mamba_two_is_its_recurrence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mamba, "CHUNK", 3)
    torch.manual_seed(2)
    x, dt, a = torch.randn(2, 8, 4, 3), torch.rand(2, 8, 4), -torch.rand(4)
    b, c = torch.randn(2, 8, 2, 5), torch.randn(2, 8, 2, 5)
    out, last = mamba.mamba_chunk_scan_combined(x, dt, a, b, c, 64, return_final_states=True)
    state = torch.zeros(2, 4, 3, 5)
    for t in range(8):
        decay = torch.exp(dt[:, t] * a)[..., None, None]
        update = (dt[:, t, :, None] * x[:, t])[..., None] * b[:, t].repeat_interleave(2, 1)[:, :, None]
        state = decay * state + update
        wanted = (state * c[:, t].repeat_interleave(2, 1)[:, :, None]).sum(-1)
        torch.testing.assert_close(out[:, t], wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(last, state, rtol=1e-4, atol=1e-5)


def test_flex_attention_leaves_blind_rows_at_zero() -> None:
    torch.manual_seed(3)
    q, k, v = (torch.randn(1, 2, 5, 4, requires_grad=True) for _ in range(3))
    mask: Any = SimpleNamespace(mask_mod=lambda _b, _h, row, column: (row > column) & (row - column < 3))
    out = flex.flex_attention(q, k, v, block_mask=mask)
    out.sum().backward()
    assert torch.equal(out[:, :, 0], torch.zeros(1, 2, 4))
    assert q.grad is not None
    assert bool(torch.isfinite(q.grad).all())
    seen = torch.ones(5, 5).tril(-1).triu(-2).bool()
    wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)[:, :, 1:]
    torch.testing.assert_close(out[:, :, 1:], wanted)


def test_convolution_sees_no_later_step() -> None:
    x, weight = torch.randn(1, 3, 6), torch.randn(3, 4)
    out = mamba.causal_conv1d_fn(x, weight, activation="silu")
    changed = x.clone()
    changed[..., 4:] = 9
    assert torch.equal(mamba.causal_conv1d_fn(changed, weight, activation="silu")[..., :4], out[..., :4])


def softcapped(logits: Any, losses: Any, targets: Any, stride: Any, columns: Any, cap: Any, block: Any) -> None:
    """Loss of a row, in blocks: the shape of kernel that fuses softcap and cross-entropy."""
    row = tl.program_id(0).to(tl.int64)
    highest, total = -float("inf"), 0.0
    for start in range(0, columns, block):
        places = start + tl.arange(0, block)
        inside = places < columns
        z = tl.load(logits + row * stride + places, mask=inside, other=-float("inf")).to(tl.float32)
        z = tl.where(inside, 2.0 * cap * tl.sigmoid(2.0 / cap * z), -float("inf"))
        higher = tl.maximum(highest, tl.max(z, axis=0))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(z - higher), axis=0)
        highest = higher
    target = tl.load(targets + row).to(tl.int32)
    wanted = tl.load(logits + row * stride + target).to(tl.float32)
    tl.store(losses + row, highest + tl.log(total) - 2.0 * cap * tl.sigmoid(2.0 / cap * wanted))


def product(a: Any, b: Any, c: Any, rows: Any, columns: Any, BLOCK: Any, SMS: Any) -> None:  # noqa: N803 - as in kernels
    """Persistent tiles: how far the loop goes depends on the program's number."""
    tiles = tl.cdiv(columns, BLOCK)
    for tile in tl.range(tl.program_id(0), tl.cdiv(rows, BLOCK) * tiles, SMS, flatten=True):
        left, right = tile // tiles * BLOCK, tile % tiles * BLOCK
        block = tl.dot(a.load([left, 0]), b.load([right, 0]).T, tl.zeros((BLOCK, BLOCK), dtype=tl.float32))
        c.store([left, right], tl.where(block > 0, block, 0.5 * block).to(tl.bfloat16))


@pytest.mark.parametrize("rows", [3, 300])
def test_kernels_compute_what_their_text_says(rows: int) -> None:
    torch.manual_seed(rows)
    logits, targets = torch.randn(rows, 37).bfloat16(), torch.randint(37, (rows,))
    losses = torch.empty(rows)
    kernel = triton.Kernel(softcapped)
    kernel[(rows,)](logits, losses, targets, logits.stride(0), 37, 30.0, block=16, num_warps=4)
    capped = 30 * torch.tanh(logits.float() / 30)
    torch.testing.assert_close(losses, F.cross_entropy(capped - 30, targets, reduction="none"), rtol=1e-4, atol=1e-4)


def test_kernels_with_descriptors_and_persistent_tiles() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(20, 8).bfloat16(), torch.randn(13, 8).bfloat16()
    c = torch.empty(20, 13, dtype=torch.bfloat16)
    blocks = [triton.Descriptor.from_tensor(x, size) for x, size in ((a, [8, 8]), (b, [8, 8]), (c, [8, 8]))]
    triton.Kernel(product)[lambda meta: (min(meta["SMS"], 6),)](*blocks, 20, 13, BLOCK=8, SMS=4)
    torch.testing.assert_close(c, F.leaky_relu(a.float() @ b.float().T, 0.5).bfloat16())


@pytest.mark.parametrize("rows", [2, 9])
def test_kernels_that_leave_their_tensor_are_refused(heard: Heard, rows: int) -> None:
    def outside(x: Any) -> None:
        tl.store(x + tl.program_id(0) + 5, 1.0)

    with pytest.raises(events.RefusedError, match="outside"):
        triton.Kernel(outside)[(rows,)](torch.zeros(3))
    assert heard.events[-1]["kind"] == "refusal"


def test_kernels_count_bits_of_signed_words() -> None:
    def counted(x: Any, y: Any) -> None:
        row = tl.program_id(0)
        tl.store(y + row, triton_language.DEVICE["popc"](tl.load(x + row)))

    words = torch.tensor([0, 1, -1, 2**31 - 1, -(2**31), 0x0F0F0F0F, -559038737, 1 << 30], dtype=torch.int32)
    counts = torch.empty(8, dtype=torch.int32)
    triton.Kernel(counted)[(8,)](words, counts)
    assert counts.tolist() == [(int(word) & 0xFFFFFFFF).bit_count() for word in words]


def test_kernels_with_unknown_words_are_refused(heard: Heard) -> None:
    def unknown(x: Any) -> None:
        tl.inline_asm_elementwise("popc", x)

    with pytest.raises(events.RefusedError, match="cannot be run"):
        triton.Kernel(unknown)[(8,)](torch.zeros(8))
    assert "inline_asm" in heard.events[-1]["why"]


def test_sums_of_adds_in_kernels_make_new_values(tmp_path: Path) -> None:
    text = "import triton\n@triton.jit\ndef k(a):\n    b = a\n    b += 1\n    return a\nr = k\n"
    space: dict[str, Any] = {"triton": SimpleNamespace(jit=lambda f: f)}
    code = Sources(tmp_path, Overrides({}), None).code(text.replace("import triton\n", "# triton\n"), "s.py")
    exec(code, space)  # noqa: S102 - our own text
    value = torch.zeros(2)
    assert torch.equal(space["r"](value), torch.zeros(2))


def test_rearrange() -> None:
    x = torch.arange(24).reshape(2, 3, 4)
    assert torch.equal(modules._rearranged(x, "b l (h p) -> b h l p", p=2), x.view(2, 3, 2, 2).transpose(1, 2))
    assert torch.equal(modules._rearranged(x, "b l d -> (b l) d"), x.view(6, 4))
    assert torch.equal(modules._rearranged(x[0], "l d -> l r d", r=2), x[0][:, None].expand(3, 2, 4))
    assert torch.equal(modules._rearranged(x[:, :1], "b 1 d -> b d"), x[:, 0])


def test_what_cannot_tell_what_it_has_seen_keeps_nobody_from_telling(heard: Heard) -> None:
    def failing() -> None:
        raise ValueError("no number")

    launcher._finished(("flips", failing), ("tracer", lambda: heard.emit("pass")))
    assert heard.events == [
        {"kind": "unfinished", "name": "flips", "error": "ValueError: no number"},
        {"kind": "pass"},
    ]
