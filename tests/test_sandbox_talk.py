"""Programs that are talked with, at every level that this machine offers; and folders that are hidden from them."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.model import HarnessError
from harness.sandbox.backend import Sandbox
from harness.sandbox.establish import BACKENDS
from harness.sandbox.job import MIB, Job, Limits, Outcome, Partner, View
from harness.sandbox.levels import Level
from harness.sandbox.runner import run

LIMITS = Limits(256 * MIB, 8, 16 * MIB, 8 * MIB, 20, 20, MIB, channel_bytes=1000)
Talker = Callable[..., Outcome]
CHANNEL = "import os; channel = int(os.environ['PROBE_CHANNEL_FD'])\n"
# Doubles every number that it is told, and says so on standard output too.
DOUBLING = (
    CHANNEL
    + """
import sys
for line in sys.stdin:
    print("told", line.strip())
    os.write(channel, b"%d\\n" % (2 * int(line)))
    if int(line) > 100:
        break
"""
)


@pytest.fixture(params=BACKENDS, ids=lambda backend: str(backend.level))
def sandbox(request: pytest.FixtureRequest, usable: dict[Level, str]) -> Sandbox:
    backend = request.param
    if usable[backend.level]:
        pytest.skip(f"{backend.name}: {usable[backend.level]}")
    return Sandbox(backend, backend.level)


@pytest.fixture
def talk(tmp_path: Path, sandbox: Sandbox) -> Talker:
    """Talk with a script."""
    folder = tmp_path / "submission"
    folder.mkdir()

    def talker(script: str, partner: Partner | None, hidden: tuple[Path, ...] = ()) -> Outcome:
        (folder / "script.py").write_text(textwrap.dedent(script), encoding="utf-8")
        argv = (sys.executable, "-B", "/submission/script.py")
        views = (View(folder, "/submission"),)
        job = Job(argv, views, "/scratch/work", {}, LIMITS, channel=True, hidden=hidden)
        return run(job, tmp_path / "run", sandbox=sandbox, partner=partner)

    return talker


class Teller:
    """Tells what it hears, from 1 on."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def begin(self) -> bytes:
        return b"1\n"

    def hear(self, data: bytes) -> bytes:
        self.heard += map(int, data.split())
        return data


class Refusing(Teller):
    def hear(self, data: bytes) -> bytes:
        raise HarnessError(f"heard {data!r}")


class Flooding(Teller):
    def hear(self, data: bytes) -> bytes:
        return data * 10_000_000


class Silent(Teller):
    def hear(self, data: bytes) -> bytes:
        return data[:0]


def test_a_program_is_talked_with_and_its_prints_stay_apart(talk: Talker) -> None:
    teller = Teller()
    outcome = talk(DOUBLING, teller)
    assert (outcome.ended, outcome.returncode, outcome.channel) == ("exit", 0, None), outcome
    assert teller.heard == [2, 4, 8, 16, 32, 64, 128, 256]
    assert outcome.output.read_text(encoding="utf-8").splitlines()[:2] == ["told 1", "told 2"]


def test_a_partner_that_refuses_ends_the_program(talk: Talker) -> None:
    with pytest.raises(HarnessError, match=r"heard b'2\\n'"):
        talk(DOUBLING + "\nimport time; time.sleep(60)", Refusing())


def test_a_program_that_does_not_read_is_no_dead_end(talk: Talker) -> None:
    with pytest.raises(HarnessError, match="does not read what it is told"):
        talk(CHANNEL + "os.write(channel, b'1\\n'); import time; time.sleep(60)", Flooding())


def test_a_program_that_never_stops_talking_is_ended(talk: Talker) -> None:
    outcome = talk(CHANNEL + "while True: os.write(channel, b'1\\n')", Silent())
    assert outcome.ended == "output", outcome


def test_without_a_partner_standard_input_is_empty(talk: Talker) -> None:
    outcome = talk("import sys; print(repr(sys.stdin.read()))", None)
    assert outcome.output.read_text(encoding="utf-8") == "''\n"


LOOK = """
import importlib
for name in ("botocore.session", "numpy"):
    try:
        importlib.import_module(name)
        print(name, "imported")
    except (ImportError, PermissionError):
        print(name, "closed")
"""


def test_hidden_packages_are_closed_and_their_neighbours_are_not(talk: Talker, sandbox: Sandbox) -> None:
    botocore = pytest.importorskip("botocore")
    outcome = talk(LOOK, None, (Path(botocore.__file__).parent,))
    state = "imported" if sandbox.level == Level.L1 else "closed"
    assert outcome.output.read_text(encoding="utf-8").splitlines() == [f"botocore.session {state}", "numpy imported"]
