"""The built wheel works outside the checkout: schemas, pinned manifests and rules travel inside it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the unpacked wheel and nothing of the checkout."""
    built = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(built), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = built.glob("*.whl")
    target = built / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def run(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the unpacked wheel first on its path, outside the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=installed.parent, env=environment)


@pytest.mark.slow
def test_the_wheel_audits_a_folder(installed: Path) -> None:
    where = run(installed, "-c", "import harness; print(harness.__file__)")
    assert where.stdout.startswith(str(installed))
    folder = ROOT / "submissions" / "hymba_demo"
    audited = run(installed, "-m", "harness", "audit", str(folder))
    assert audited.returncode == 0, audited.stderr + audited.stdout
    assert "hymba_demo" in audited.stdout
    page = run(installed, "-m", "harness", "audit", str(folder), "--format", "html")
    assert page.stdout.startswith("<!DOCTYPE html>"), page.stderr


@pytest.mark.slow
def test_the_wheel_counts_parameters(installed: Path) -> None:
    counted = run(installed, "-m", "reference_model", "params", "--preset", "pr599")
    assert counted.stdout.split()[-1].replace(",", "") == "27161151"
