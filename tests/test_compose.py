"""The probe's cases: pairs of scripts that differ in one thing, in every disguise valid Python."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.compose import DISGUISES, Case, compose, every_case, write_folder

CASES = every_case("legal", "illegal", "broken")


def test_every_illegal_case_has_its_legal_twin_and_another_text() -> None:
    illegal, legal = every_case("illegal"), every_case("legal")
    assert [case.name for case in illegal] == [case.name for case in legal]
    assert all(compose(bad) != compose(good) for bad, good in zip(illegal, legal, strict=True))
    assert len(illegal) >= 20


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_case_is_valid_python_in_this_disguise(tmp_path: Path, disguise: str) -> None:
    for case in CASES:
        folder = write_folder(case, tmp_path / str(case), disguise)
        for path in folder.glob("*.py"):
            ast.parse(path.read_text(encoding="utf-8"), str(path))
        assert (folder / "README.md").is_file()


def test_a_disguise_hides_what_it_says(tmp_path: Path) -> None:
    case = Case("sgd_before_score", "illegal")
    texts = {
        name: (write_folder(case, tmp_path / name, name) / "train_gpt.py").read_text("utf-8") for name in DISGUISES
    }
    assert "def evaluate" in texts["plain"]
    assert all("def evaluate" not in texts[name] for name in ("renamed", "packed", "helper"))
    assert (tmp_path / "helper" / "pieces_of_it.py").is_file()
