"""What README and docs name exists: sessions, files, commands, presets, and the release's numbers."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from harness.checks import RULES
from reference_model.presets import PRESETS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "submissions").glob("*/README.md"))]


def sessions() -> set[str]:
    """Names of the functions that noxfile.py declares as sessions."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {node.name for node in functions if any("nox.session" in ast.unparse(d) for d in node.decorator_list)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_sessions_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    named = set(re.findall(r"(?:nox|noxfile\.py) -s ([a-z]+)", text))
    assert named <= sessions()


def test_readme_names_known_presets_and_rules() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"--preset (\w+)", text)) <= set(PRESETS)
    assert set(re.findall(r"PG\d{3}", text)) <= {rule.code for rule in RULES}


def test_readme_states_the_releases_numbers() -> None:
    manifest = json.loads((ROOT / "submissions" / "hymba_demo" / "submission.json").read_text(encoding="utf-8"))
    claimed = f"{manifest['val_bpb']:.4f} ± {manifest['val_bpb_std']:.4f}"
    assert claimed in (ROOT / "README.md").read_text(encoding="utf-8")
