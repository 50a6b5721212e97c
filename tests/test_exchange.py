"""Messages among processes: which failure makes all of them take another one."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from reference_model.exchange import Exchange
from reference_model.worker import Worker


class Done:
    """A message that is there."""

    def wait(self) -> None:
        """Nothing to wait for."""


@pytest.mark.parametrize(
    ("backend", "message", "falls_back"),
    [
        ("gloo", "ProcessGroupGloo does not support reduce_scatter", True),
        ("gloo", "Backend gloo does not support reduce_scatter", True),
        ("gloo", "Connection closed by peer", False),
        ("nccl", "NCCL error: unhandled system error", False),
        ("nccl", "Backend nccl does not support reduce_scatter", False),
    ],
)
def test_only_what_no_process_can_do_is_done_otherwise(
    backend: str, message: str, monkeypatch: pytest.MonkeyPatch, *, falls_back: bool
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError(message)

    def doubled(tensor: Tensor, **_: object) -> Done:
        tensor.mul_(2)
        return Done()

    monkeypatch.setattr(dist, "get_backend", lambda: backend)
    monkeypatch.setattr(dist, "reduce_scatter", fails)
    monkeypatch.setattr(dist, "all_reduce", doubled)
    exchange = Exchange(Worker(1, 2))
    if falls_back:
        assert exchange.share_of_total(torch.arange(4.0))().tolist() == [4.0, 6.0]
    else:
        with pytest.raises(RuntimeError, match=message):
            exchange.share_of_total(torch.arange(4.0))
