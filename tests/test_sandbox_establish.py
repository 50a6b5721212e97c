"""Which sandbox is in force, and that a machine without one says so."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from harness.cli import main
from harness.model import HarnessError
from harness.sandbox import bubblewrap, canaries, ruleset
from harness.sandbox.backend import Backend, Canary, Sandbox
from harness.sandbox.bubblewrap import Bubblewrap
from harness.sandbox.canaries import fallen, fly
from harness.sandbox.establish import BACKENDS, establish, require
from harness.sandbox.landlock import Landlock
from harness.sandbox.levels import Level
from harness.sandbox.plain import Plain


def test_strongest_that_holds_is_taken(usable: dict[Level, str]) -> None:
    found = establish()
    best = max(level for level, missing in usable.items() if not missing)
    assert found.level == best
    assert len(found.passed_over) == Level.L3 - best
    assert all(one.held for one in found.canaries) or best == Level.L1


def test_plain_admits_what_it_cannot_hold() -> None:
    found = {one.name: one for one in fly(Plain())}
    assert not fallen(Plain(), tuple(found.values()))
    assert not any(found[name].held for name in ("secret", "view", "tcp", "udp", "unix"))
    assert all(found[name].held for name in ("environment", "survivor", "memory", "processes"))


def test_level_that_only_claims_its_walls_falls() -> None:
    @dataclasses.dataclass(frozen=True)
    class Boaster(Plain):
        level: Level = Level.L3

    names = {one.name for one in fallen(Boaster(), fly(Boaster()))}
    assert {"secret", "symlink", "view", "mode", "tcp", "udp", "unix"} <= names


def test_machine_without_anything_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "_program", lambda: "")
    monkeypatch.setattr(ruleset, "version", lambda: 1)
    found = establish()
    assert found.level == Level.L1
    assert found.passed_over == (
        ("bubblewrap", "bwrap is not installed (package bubblewrap)"),
        ("landlock", "needs Landlock version 3 (Linux 6.2), here is version 1"),
    )
    with pytest.raises(HarnessError, match=r"not run at level L1.*bwrap is not installed.*--allow-unsafe"):
        require(found)
    assert require(found, allow_unsafe=True) is found


def test_bubblewrap_that_may_not_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n", encoding="ascii")
    broken.chmod(0o755)
    monkeypatch.setattr(bubblewrap, "_program", lambda: str(broken))
    found = establish((Bubblewrap(), Plain()))
    assert found.backend == Plain()
    [(name, why)] = found.passed_over
    assert name == "bubblewrap"
    assert "setting up uid map: Permission denied" in why


def test_canary_that_falls_passes_a_backend_over(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.sandbox import establish as module

    monkeypatch.setattr(
        module, "fly", lambda backend: (Canary("tcp", held=backend.level < Level.L2, detail="it arrived"),)
    )
    backends: tuple[Backend, ...] = (Bubblewrap("first"), Plain())
    monkeypatch.setattr(Bubblewrap, "missing", lambda _self: "")
    found = establish(backends)
    assert found.level == Level.L1
    assert found.passed_over == (("first", "tcp did not hold (it arrived)"),)


def test_nothing_at_all_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plain, "missing", lambda _self: "no fork on this system")
    with pytest.raises(HarnessError, match=r"no sandbox works on this machine.*no fork"):
        establish((Plain(),))


def test_walls_are_enough() -> None:
    for backend in BACKENDS[:2]:
        sandbox = Sandbox(backend, backend.level)
        assert require(sandbox) is sandbox


def test_backends_stand_in_order() -> None:
    assert [one.level for one in BACKENDS] == [Level.L3, Level.L2, Level.L1]
    assert canaries.EVERYWHERE.issuperset({"survivor", "memory", "processes"})


def test_command_prints_level_and_canaries(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sandbox", "--backend", "plain"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("level L1: ")
    assert "untrusted code is refused here" in printed
    assert "  FELL  secret " in printed
    assert "  held  survivor " in printed


def test_command_prints_json_and_attacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nothing.py").write_text('"""Does nothing.\n\nL1: reached\n"""\n', encoding="ascii")
    assert main(["sandbox", "--backend", "plain", "--format", "json", "--attacks", str(tmp_path)]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["level"], told["backend"], told["untrusted_code"]) == ("L1", "plain", False)
    assert told["attacks"] == [{"name": "nothing", "result": "contained", "reached": [], "expected": False}]
    assert {"name": "secret", "held": False, "detail": "read 23 bytes of a file outside"} in told["canaries"]


def test_landlock_needs_a_known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ruleset, "version", lambda: 7)
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert Landlock().missing() == "no system call filter for riscv64"
    monkeypatch.setattr(ruleset, "version", lambda: 0)
    assert Landlock().missing().endswith("here is none")
