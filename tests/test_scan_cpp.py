"""The compiled scan against float64 steps; and what happens where nothing can be compiled."""

from __future__ import annotations

import shutil
from typing import get_args, get_type_hints

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reference_model.config import ModelConfig
from reference_model.scan import SCAN_BACKENDS, ScanInputs, selective_scan, selective_scan_reference
from reference_model.scan_cpp import KERNEL_STATES, scan_kernel
from reference_model.settings import Setting

compiled = pytest.mark.skipif(
    shutil.which("g++") is None or shutil.which("ninja") is None, reason="no g++ or ninja: nothing can be compiled"
)


def random_leaves(batch: int, time: int, channels: int, state: int) -> tuple[ScanInputs, Tensor]:
    generator = torch.Generator().manual_seed(batch + 10 * time + 100 * channels)

    def draw(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator)

    inputs = ScanInputs(
        draw(batch, time, channels),
        F.softplus(draw(batch, time, channels)),
        -torch.arange(1.0, state + 1).repeat(channels, 1),
        draw(batch, time, state),
        draw(batch, time, state),
    )
    return ScanInputs(*(tensor.requires_grad_() for tensor in inputs)), draw(batch, channels, state).requires_grad_()


def results(inputs: ScanInputs, state: Tensor, backend: str) -> list[Tensor]:
    """Outputs, last state, and the gradients of all six inputs."""
    y, last = selective_scan(inputs, state, backend=backend)
    generator = torch.Generator().manual_seed(9)
    weights = [torch.randn(out.shape, generator=generator) for out in (y, last)]
    loss = (y * weights[0]).sum() + (last * weights[1]).sum()
    return [y, last, *torch.autograd.grad(loss, (*inputs, state))]


@compiled
@pytest.mark.slow
@pytest.mark.parametrize("state", KERNEL_STATES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 64, 16), (3, 65, 17), (1, 200, 40), (2, 130, 5)])
def test_the_compiled_scan_equals_float64_steps(shape: tuple[int, int, int], state: int) -> None:
    inputs, initial = random_leaves(*shape, state)
    assert scan_kernel() is not None
    for mine, exact in zip(results(inputs, initial, "cpp"), results(inputs, initial, "reference"), strict=True):
        assert (mine - exact).abs().max() <= 2e-6 * exact.abs().max()


@compiled
@pytest.mark.slow
def test_the_result_does_not_depend_on_the_number_of_threads() -> None:
    inputs, initial = random_leaves(2, 100, 70, 4)
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(results(inputs, initial, "cpp"))
    finally:
        torch.set_num_threads(threads)
    for one, three in zip(*found, strict=True):
        torch.testing.assert_close(one, three, rtol=1e-6, atol=1e-5)


@compiled
@pytest.mark.slow
def test_without_gradients_nothing_is_kept() -> None:
    kernel = scan_kernel()
    assert kernel is not None
    inputs, initial = random_leaves(2, 100, 20, 4)
    tensors = [tensor.detach().contiguous() for tensor in (*inputs[:2], inputs.A_DN.t(), *inputs[3:])]
    last = initial.detach().transpose(1, 2).contiguous()
    _, _, saved = kernel.forward([*tensors, last], keep=False)
    assert saved.numel() == 0
    _, _, saved = kernel.forward([*tensors, last], keep=True)
    # Two chunks, two blocks of 16 channels.
    assert saved.numel() == 2 * 2 * 2 * 4 * 16


def test_without_a_compiler_it_says_so_and_takes_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    scan_kernel.cache_clear()
    inputs, initial = random_leaves(1, 5, 3, 2)
    with pytest.warns(UserWarning, match=r"no compiled scan: g\+\+ and ninja not found"):
        found = results(inputs, initial, "cpp")
    scan_kernel.cache_clear()
    assert all(torch.equal(one, other) for one, other in zip(found, results(inputs, initial, "torch"), strict=True))


@pytest.mark.parametrize(("state", "dtype"), [(3, torch.float32), (2, torch.float64)])
def test_what_has_no_kernel_is_computed_by_torch(
    state: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reference_model.scan.scan_kernel", lambda: pytest.fail("the kernel cannot serve this"))
    inputs, initial = random_leaves(1, 5, 3, state)
    inputs = ScanInputs(*(tensor.detach().to(dtype) for tensor in inputs))
    found, _ = selective_scan(inputs, initial.detach().to(dtype), backend="cpp")
    exact, _ = selective_scan_reference(inputs, initial.detach())
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-6)


def test_the_setting_offers_the_backends_that_there_are() -> None:
    hint = get_type_hints(ModelConfig, include_extras=True)["scan_backend"]
    [setting] = [each for each in get_args(hint) if isinstance(each, Setting)]
    assert setting.choices == SCAN_BACKENDS
    with pytest.raises(ValueError, match="'abacus' is none of"):
        selective_scan(random_leaves(1, 2, 2, 2)[0], backend="abacus")
