"""A process's place: what is no place is one clear error."""

from __future__ import annotations

import pytest
import torch

from reference_model.launch import started_worker
from reference_model.settings import ConfigError

PAIR = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MASTER_ADDR": ""}, "MASTER_ADDR: missing, but WORLD_SIZE is 2; torchrun sets it"),
        ({"MASTER_PORT": ""}, "MASTER_PORT: missing, but WORLD_SIZE is 2; torchrun sets it"),
        ({"MASTER_PORT": "here"}, "MASTER_PORT: 'here' is not a number from 0"),
        ({"MASTER_PORT": "65536"}, "MASTER_PORT: 65536 is not below 65536"),
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK: 1 is not below the number of GPUs (1)"),
    ],
)
def test_no_place_is_one_clear_error(changes: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError) as caught, started_worker(PAIR | changes):
        pass
    assert str(caught.value) == message
