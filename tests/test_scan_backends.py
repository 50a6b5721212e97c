"""Every backend of the scan against float64 steps; how one is chosen, and what is said where it cannot serve."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from reference_model.cuda import package_problem
from reference_model.native import native_library, rows
from reference_model.scan import BARE_SCAN, ScanFrame, ScanInputs, choose_scan, selective_scan
from reference_model.scan_cpp import KERNEL_STATES, SCAN_SOURCE, CppScanInputs, scan_states
from reference_model.settings import ConfigError
from tests.standins import install
from tests.test_memory import random_model, random_tokens, small

compiled = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++: nothing can be compiled")
# Of the largest value, or of 1; the kernels add up in float32.
TOLERANCE = 4e-6


@pytest.fixture(autouse=True)
def forget_what_is_installed() -> Iterator[None]:
    package_problem.cache_clear()
    yield
    package_problem.cache_clear()


def random_scan(
    shape: tuple[int, int, int, int], *, skip: bool = True, gate: bool = True
) -> tuple[ScanInputs, Tensor, ScanFrame]:
    """Inputs, initial state and frame, all of which want gradients; dt is what the softplus is taken of."""
    batch, time, channels, state = shape
    generator = torch.Generator().manual_seed(sum(shape))

    def draw(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator)

    inputs = ScanInputs(
        draw(batch, time, channels),
        2 * draw(batch, time, channels),
        -torch.arange(1.0, state + 1).repeat(channels, 1),
        draw(batch, time, state),
        draw(batch, time, state),
    )
    initial, frame = draw(batch, channels, state), ScanFrame(draw(channels), draw(batch, time, channels), softplus=True)
    for tensor in (*inputs, initial, frame.skip_D, frame.gate_BTD):
        assert tensor is not None
        tensor.requires_grad_()
    return inputs, initial, ScanFrame(frame.skip_D if skip else None, frame.gate_BTD if gate else None, softplus=True)


def results(inputs: ScanInputs, initial: Tensor | None, frame: ScanFrame, backend: str) -> list[Tensor]:
    """Outputs, last state, and the gradients of everything; the state's own weight is none where it has no gradient."""
    y, last = selective_scan(inputs, initial, frame, backend=backend)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(9))
    loss = (y * weight).sum()
    if initial is not None:
        loss = loss + (last * last.detach().sin()).sum()
    leaves = [t for t in (*inputs, initial, frame.skip_D, frame.gate_BTD) if t is not None]
    return [y, last, *torch.autograd.grad(loss, leaves)]


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float = TOLERANCE) -> None:
    for mine, exact in zip(found, expected, strict=True):
        assert mine.shape == exact.shape
        assert (mine - exact).abs().max() <= tolerance * exact.abs().max().clamp(min=1)


shapes = st.tuples(st.integers(1, 3), st.integers(1, 150), st.integers(1, 40), st.integers(1, 16))


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=compiled)])
@given(shape=shapes, parts=st.sets(st.sampled_from(["state", "skip", "gate"])))
def test_forward_and_backward_equal_float64_steps(
    backend: str, shape: tuple[int, int, int, int], parts: set[str]
) -> None:
    inputs, state, frame = random_scan(shape, skip="skip" in parts, gate="gate" in parts)
    before = state if "state" in parts else None
    assert_close(results(inputs, before, frame, backend), results(inputs, before, frame, "reference"))


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=compiled)])
@pytest.mark.parametrize("state", KERNEL_STATES)
def test_a_bare_scan_of_every_kernel(backend: str, state: int) -> None:
    inputs, initial, _ = random_scan((2, 130, 17, state))
    inputs = inputs._replace(dt_BTD=inputs.dt_BTD.detach().abs().requires_grad_())
    assert_close(results(inputs, initial, BARE_SCAN, backend), results(inputs, initial, BARE_SCAN, "reference"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_results_have_the_computing_type(backend: str, dtype: torch.dtype) -> None:
    inputs, initial, frame = random_scan((1, 5, 3, 2))
    low = ScanInputs(*(tensor.detach().to(dtype) for tensor in inputs))
    assert frame.gate_BTD is not None
    frame = replace(frame, gate_BTD=frame.gate_BTD.detach().to(dtype))
    expected = torch.promote_types(dtype, torch.float32)
    assert [found.dtype for found in selective_scan(low, initial, frame, backend=backend)] == [expected] * 2


@pytest.mark.parametrize("preset", ["pr599", "mini1961_3", "pr852_records", "paper"])
def test_a_whole_model_in_single_steps_equals_one_in_chunks(preset: str) -> None:
    found = []
    for backend in ("reference", "torch"):
        model = random_model(small(preset, scan_backend=backend), torch.float32)
        tokens = random_tokens(model.config, 2, 20)
        losses = model.token_losses(tokens[:, :-1], tokens[:, 1:])
        used = [weight for weight in model.parameters() if weight.requires_grad]
        gradients = torch.autograd.grad(losses.sum(), used, allow_unused=True, materialize_grads=True)
        memory = model.new_memory()
        with torch.no_grad():
            logits = torch.cat([model(tokens[:, :7], memory), model(tokens[:, 7:], memory)], 1)
        found.append([losses.detach(), logits, *gradients])
        assert losses.dtype == torch.float32
    steps, chunks = found
    assert_close(steps, chunks, 1e-5)


@compiled
def test_extreme_steps_and_gates_stay_exact() -> None:
    inputs, initial, frame = random_scan((1, 70, 16, 4))
    wide = torch.linspace(-60, 60, 70 * 16).view(1, 70, 16)
    inputs = inputs._replace(dt_BTD=wide.clone().requires_grad_())
    frame = replace(frame, gate_BTD=wide.flip(1).requires_grad_())
    # Large terms cancel here.
    assert_close(results(inputs, initial, frame, "cpp"), results(inputs, initial, frame, "reference"), 2e-5)


@given(shape=st.tuples(st.integers(1, 2), st.integers(1, 30), st.integers(1, 9), st.integers(1, 5)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_stand_in_of_mamba_ssm_agrees(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int, int]) -> None:
    called = install(monkeypatch)
    inputs, _, frame = random_scan(shape, gate=shape[0] == 1)
    assert_close(results(inputs, None, frame, "cuda"), results(inputs, None, frame, "reference"))
    assert called == ["selective_scan_fn"]


def test_mamba_ssm_takes_no_initial_state_and_gives_the_last_one_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    called = install(monkeypatch)
    inputs, initial, frame = random_scan((2, 9, 8, 4))
    with_state = results(inputs, initial, frame, "cuda")
    assert not called, "a scan that goes on from a state is computed by PyTorch's operators"
    assert all(torch.equal(*pair) for pair in zip(with_state, results(inputs, initial, frame, "torch"), strict=True))
    _, last = selective_scan(inputs, None, frame, backend="cuda")
    assert called == ["selective_scan_fn"]
    with pytest.raises(RuntimeError, match="last state of mamba-ssm's scan has no gradient"):
        torch.autograd.grad(last.sum(), inputs.x_BTD)


def test_autocast_and_low_precision_reach_mamba_ssm_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    inputs, _, frame = random_scan((1, 6, 8, 2))
    low = ScanInputs(*(tensor.detach().bfloat16() for tensor in inputs))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, last = selective_scan(low, None, replace(frame, gate_BTD=low.x_BTD), backend="cuda")
    assert y.dtype == last.dtype == torch.float32


@compiled
def test_rows_of_a_wider_tensor_are_read_where_they_are() -> None:
    inputs, initial, frame = random_scan((2, 40, 24, 4))
    assert frame.gate_BTD is not None
    together = torch.cat((inputs.x_BTD, frame.gate_BTD, inputs.B_BTN, inputs.C_BTN), -1).detach()
    x, gate, b, c = torch.split(together, [24, 24, 4, 4], -1)
    assert rows(x)[0] is x
    sliced = ScanInputs(x, inputs.dt_BTD, inputs.A_DN, b, c)
    apart = ScanInputs(x.contiguous(), inputs.dt_BTD, inputs.A_DN, b.contiguous(), c.contiguous())
    found = selective_scan(sliced, initial, replace(frame, gate_BTD=gate), backend="cpp")
    expected = selective_scan(apart, initial, replace(frame, gate_BTD=gate.contiguous()), backend="cpp")
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@compiled
def test_the_result_depends_neither_on_the_threads_nor_on_the_other_rows_of_the_batch() -> None:
    inputs, initial, frame = random_scan((3, 100, 70, 4))
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(results(inputs, initial, frame, "cpp"))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
    assert frame.gate_BTD is not None
    last = ScanInputs(*(tensor if tensor is inputs.A_DN else tensor[2:] for tensor in inputs))
    y, _ = selective_scan(last, initial[2:], replace(frame, gate_BTD=frame.gate_BTD[2:]), backend="cpp")
    assert torch.equal(y, found[0][0][2:])


def test_what_the_compiled_scan_keeps_is_linear_in_time() -> None:
    x, rates, b = torch.zeros(2, 130, 20), torch.zeros(4, 20), torch.zeros(2, 130, 4)
    # Three chunks, two blocks of 16 channels.
    assert scan_states(CppScanInputs(x, x, rates, b, b, torch.zeros(2, 4, 20))).shape == (2, 2, 3, 4, 16)


def test_auto_prefers_the_gpu_kernel_then_the_compiled_scan_then_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, *_ = random_scan((1, 5, 8, 2))
    assert choose_scan("auto", inputs) == ("torch" if shutil.which("g++") is None else "cpp")
    assert choose_scan("auto", ScanInputs(*(tensor.double() for tensor in inputs))) == "torch"
    assert choose_scan("auto", random_scan((1, 2, 1, 17))[0]) == "torch"
    install(monkeypatch)
    assert choose_scan("auto", inputs) == "cuda"


def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)


def with_failing_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise subprocess.CalledProcessError(1, "g++", stderr="note\nkernels.cpp:1: error: no such header\n")

    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/g++")
    monkeypatch.setattr(subprocess, "run", fails)


def with_slow_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(command: Any, **_: object) -> None:
        # As Python raises it: bytes, whatever was asked for.
        raise subprocess.TimeoutExpired(command, 300, stderr=b"kernels.cpp:1: error: no such header\n")

    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/g++")
    monkeypatch.setattr(subprocess, "run", waits)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (without_compiler, r"g\+\+ not found"),
        *((broken, r"kernels\.cpp:1: error: no such header") for broken in (with_failing_compiler, with_slow_compiler)),
    ],
)
def test_where_nothing_compiles_auto_warns_and_takes_torch_and_cpp_is_an_error(
    broken: Any, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    broken(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native_library.cache_clear()
    scan = random_scan((1, 5, 3, 2))
    try:
        with pytest.warns(UserWarning, match=f"no compiled kernels: {reason}; using PyTorch's operators"):
            found = results(*scan, "auto")
        with pytest.raises(ConfigError, match=f"^HYMBA_SCAN_BACKEND: cpp cannot compute this scan: {reason}"):
            results(*scan, "cpp")
    finally:
        native_library.cache_clear()
    assert all(torch.equal(*pair) for pair in zip(found, results(*scan, "torch"), strict=True))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "nothing partial is left"


@pytest.mark.parametrize(
    ("backend", "shape", "dtype", "reason"),
    [
        ("cuda", (1, 2, 8, 2), torch.float32, "the tensors are on cpu, not on a GPU"),
        ("cuda", (1, 2, 1, 257), torch.float32, "257 states, at most 256"),
        ("cpp", (1, 2, 1, 17), torch.float32, "17 states, at most 16"),
        ("cpp", (1, 2, 1, 2), torch.float64, "float64"),
        ("cpp", (0, 2, 1, 2), torch.float32, "no elements"),
    ],
)
def test_a_backend_that_cannot_serve_says_why(
    backend: str, shape: tuple[int, int, int, int], dtype: torch.dtype, reason: str
) -> None:
    inputs = ScanInputs(*(tensor.detach().to(dtype) for tensor in random_scan(shape)[0]))
    with pytest.raises(ConfigError, match=f"^HYMBA_SCAN_BACKEND: {backend} cannot compute this scan: {reason}$"):
        selective_scan(inputs, backend=backend)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reference_model.cuda.CUDA_DEVICES", ("cpu",))
    with pytest.raises(ConfigError, match=r"mamba-ssm cannot be imported \(No module named 'mamba_ssm'\)"):
        selective_scan(random_scan((1, 2, 8, 2))[0], backend="cuda")


def test_a_backend_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="'abacus' is not one of"):
        selective_scan(random_scan((1, 2, 2, 2))[0], backend="abacus")


@compiled
def test_the_source_compiles_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert native_library(SCAN_SOURCE)[1] == ""
    native_library.cache_clear()
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("compiled again"))
    assert native_library(SCAN_SOURCE)[0] is not None
    native_library.cache_clear()
