"""The attack suite: every hostile script at every level that this machine offers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.sandbox import table
from harness.sandbox.attacks import NOT_RUN, Attack, attempt, load
from harness.sandbox.backend import Backend, Sandbox
from harness.sandbox.establish import BACKENDS
from harness.sandbox.levels import Level
from harness.sandbox.tree import snapshot

ATTACKS = load(Path(__file__).parent / "attacks")
PAGE = Path(__file__).parents[1] / "docs/sandbox.md"


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: str(backend.level))
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.path.stem)
def test_attack_ends_as_expected(attack: Attack, backend: Backend, tmp_path: Path, usable: dict[Level, str]) -> None:
    if usable[backend.level]:
        pytest.skip(f"{backend.name}: {usable[backend.level]}")
    expected = attack.expected[backend.level]
    if expected == (NOT_RUN,):
        pytest.skip("would reach every process of this machine")
    before = _below_us()
    result = attempt(attack, tmp_path / "run", Sandbox(backend, backend.level))
    printed = result.outcome.output.read_bytes()[-2000:].decode("utf-8", "backslashreplace")
    assert result.word in expected, (result.reached, result.outcome, printed)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    assert _below_us() <= before


def _below_us() -> set[int]:
    """Children of the test runner: other tests may have left a server of theirs."""
    return {one.pid for one in snapshot().values() if one.parent == os.getpid() and one.alive}


def test_suite_is_large_and_says_what_it_does() -> None:
    assert len(ATTACKS) >= 25
    for attack in ATTACKS:
        assert attack.says.endswith(".")
        assert set(attack.expected) == {Level.L1, Level.L2, Level.L3}, attack.path


def test_walls_contain_every_attack_but_the_documented_one() -> None:
    through = {
        (attack.path.stem, level)
        for attack in ATTACKS
        for level in (Level.L2, Level.L3)
        if "reached" in attack.expected[level]
    }
    assert through == {("network_unix_view", Level.L3)}


def test_page_shows_the_table() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert table.put(page, table.render(ATTACKS)) == page


def test_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="no marks"):
        table.put("text", "| a |")


def test_table_is_written_into_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one.py").write_text('"""Tries.\n\nL1: reached\nL3: contained|stopped disk\n"""\n', encoding="ascii")
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.START}\nold\n{table.END}\nafter\n", encoding="utf-8")
    row = "| one | Tries. | reached | not run | contained or stopped disk |"
    monkeypatch.setattr("sys.argv", ["table", str(tmp_path)])
    table.main()
    assert row in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["table", str(tmp_path), "--write", str(page)])
    table.main()
    text = page.read_text(encoding="utf-8")
    assert row in text
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
