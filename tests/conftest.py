"""What every test shares: the bounded hypothesis profile and the switches `--run-slow` and `--update-golden`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from harness.probe.child import events
from harness.sandbox.canaries import fly
from harness.sandbox.establish import BACKENDS
from harness.sandbox.levels import Level
from tests.heard import Heard

settings.register_profile("bounded", max_examples=30, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=500, deadline=None)


@pytest.fixture(autouse=True)
def terminal_of_100_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output does not depend on the terminal in which the tests are run."""
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's cache. All workers share one: kernels and tokenizers are made once."""
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(directory))
    return directory


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    """What the probe's child writes into its channel."""
    channel = Heard()
    monkeypatch.setattr(events, "_channel", channel)
    return channel


@pytest.fixture(scope="session")
def usable() -> dict[Level, str]:
    """Why a level's sandbox cannot be used on this machine, or ""."""
    found = {}
    for backend in BACKENDS:
        missing = backend.missing()
        if not missing and backend.level > Level.L1:
            missing = "; ".join(one.detail for one in fly(backend) if one.name == "start" and not one.held)
        found[backend.level] = missing
    return found


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="run tests marked slow too")
    parser.addoption("--update-golden", action="store_true", help="write the kept reports of tests/golden/ anew")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("thorough" if config.getoption("--run-slow") else "bounded")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--run-slow"):
        return
    skip = pytest.mark.skip(reason="slow: run with --run-slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)
