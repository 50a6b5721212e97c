"""The bundler: what it refuses, what it writes, and that its script works on its own."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import reference_model
from reference_model.bundle import BundleError, bundle, compact, in_dependency_order, package_texts
from reference_model.cli import bundled_script
from reference_model.miniature import run_bundled
from reference_model.presets import PRESETS

MAIN = """\
'''The entry.'''

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from reference_model.low import DEPTH, fall


def main(environ: Mapping[str, str], script: Path, preset: str) -> int:
    print(preset, fall(DEPTH), script.name, len(sys.argv))
    return 3
"""
LOW = """\
'''The bottom.'''

from __future__ import annotations

import math
from collections.abc import (
    Mapping,
    Sequence,
)

# How deep it is.
DEPTH: int = 4


def fall(depth: int) -> float:
    '''Fall.'''
    return math.sqrt(depth)
"""
TEXTS = {"main": MAIN, "low": LOW, "other": "def unused() -> None:\n    '''Nothing.'''\n"}


def _bundle(**changes: str) -> str:
    return bundle({**TEXTS, **changes}, preset="demo", version="1.2")


def test_script_runs_without_the_package(tmp_path: Path) -> None:
    script = tmp_path / "train_gpt.py"
    script.write_text(_bundle())
    done = subprocess.run([sys.executable, "-I", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "demo 2.0 train_gpt.py 1\n"), done.stderr


def test_compact_script_is_smaller_and_does_the_same(tmp_path: Path) -> None:
    script = tmp_path / "train_gpt.py"
    script.write_text(compact(_bundle()))
    assert "Fall" not in script.read_text()
    assert script.read_text().startswith('"""Hymba')
    assert script.stat().st_size < len(_bundle())
    done = subprocess.run([sys.executable, "-I", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "demo 2.0 train_gpt.py 1\n"), done.stderr


def test_text_is_deterministic_readable_and_minimal() -> None:
    text = _bundle()
    assert text == bundle(dict(reversed(TEXTS.items())), preset="demo", version="1.2")
    assert text.index("# --- low ---") < text.index("# --- main ---")
    assert "# How deep it is." in text
    assert "'''Fall.'''" in text
    assert "unused" not in text
    assert text.count("from __future__") == 1
    assert text.count("from collections.abc import Mapping, Sequence\n") == 1
    assert not any(line.startswith(("from reference_model", "import reference_model")) for line in text.splitlines())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low": LOW + "\n\ndef main() -> None: ...\n"}, r"main\.py:\d+: main is a name of low too"),
        ({"low": LOW.replace("import math", "import reference_model.other")}, r"low\.py:5: import names"),
        ({"low": LOW.replace("import math", "from reference_model import other")}, r"low\.py:5: import as"),
        ({"low": LOW.replace("import math", "from .other import unused")}, r"low\.py:5: import as"),
        ({"low": LOW.replace("import math", "from reference_model.other import unused as u")}, "keep their names"),
        ({"low": LOW.replace("import math", "from reference_model.gone import x")}, r"low needs reference_model\.gone"),
        ({"low": LOW.replace("import math", "from reference_model.main import main")}, "main -> low -> main"),
        ({"low": LOW + "\nprint(DEPTH)\n"}, "only definitions"),
        ({"low": LOW + "\nif DEPTH:\n    X = 1\n"}, "only definitions"),
        ({"low": LOW.replace("import math", "from os import Path")}, "name Path is imported from"),
        (
            {"low": LOW.replace("    return", "    from reference_model.other import unused\n    return")},
            r"low\.py:\d+: siblings are imported at the top level",
        ),
    ],
)
def test_what_cannot_stand_in_one_file_is_refused(changes: dict[str, str], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        _bundle(**changes)


def test_order_puts_every_module_after_what_it_imports() -> None:
    assert [module.name for module in in_dependency_order(TEXTS, "main")] == ["low", "main"]


def test_the_package_bundles_for_every_preset() -> None:
    texts = package_texts(Path(reference_model.__file__).parent)
    scripts = {preset: bundle(texts, preset, reference_model.__version__) for preset in ("demo", "pr852")}
    script = scripts["demo"]
    imported = {
        alias.name if isinstance(node, ast.Import) else str(node.module)
        for node in ast.walk(ast.parse(script))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not any(name.startswith("reference_model") for name in imported)
    assert 0 < script.index('setdefault("OMP_WAIT_POLICY", "PASSIVE")') < script.index("import torch")
    assert len(script.encode()) < 400_000
    # Presets differ in their name alone; each is run in miniature by a slow test.
    lines = (text.splitlines() for text in scripts.values())
    assert {pair for pair in zip(*lines, strict=True) if pair[0] != pair[1] and "demo" not in pair[0]} == set()


@pytest.mark.slow
def test_the_demo_script_trains_scores_and_packs_again_alone(tmp_path: Path) -> None:
    texts = package_texts(Path(reference_model.__file__).parent)
    script = compact(bundle(texts, "demo", reference_model.__version__))
    assert run_bundled(tmp_path, {"demo": script})["demo"].startswith("legal_ttt_exact val_loss:")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "carry"), [("lora", 0), ("phased", 0), ("phased_lora", 0), ("sgd", 1), ("phased_lora", 1)]
)
def test_every_kind_of_training_at_test_time_works_in_miniature(
    kind: str, carry: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTT_KIND", kind)
    monkeypatch.setenv("EVAL_CARRY_STATE", str(carry))
    script = bundle(package_texts(Path(reference_model.__file__).parent), "demo", "0")
    assert run_bundled(tmp_path, {"demo": script})["demo"].startswith("legal_ttt_exact val_loss:")


@pytest.mark.slow
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_works_in_miniature(preset: str, tmp_path: Path) -> None:
    assert "val_bpb:" in run_bundled(tmp_path, {preset: bundled_script(preset)})[preset]
