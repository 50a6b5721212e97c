"""The bootstrap in noxfile.py: the README's commands on systems that miss something."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def fake_python(folder: Path, *refused: str) -> Path:
    """A `python3` that refuses the given modules (`-m NAME` exactly so) and is the real one otherwise."""
    script = folder / "python3"
    cases = "\n".join(f'  *" {arguments} "*) echo "No module" >&2; exit 1;;' for arguments in refused)
    script.write_text(f'#!/bin/sh\ncase " $* " in\n{cases}\nesac\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return script


def bootstrap(tmp_path: Path, python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a copy of noxfile.py as a script whose `sys.executable` is the given one."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("noxfile.py", "constraints.txt"):
        (checkout / name).write_bytes((ROOT / name).read_bytes())
    code = (
        "import runpy, sys; "
        f"sys.executable = {str(python)!r}; sys.argv = ['noxfile.py', *{list(arguments)!r}]; "
        f"runpy.run_path({str(checkout / 'noxfile.py')!r}, run_name='__main__')"
    )
    environment = {**os.environ, "PYTHONPATH": ""}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=checkout, env=environment
    )


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_without_venv_and_pip_one_line_says_what_to_install(tmp_path: Path) -> None:
    python = fake_python(tmp_path, f"-m venv {tmp_path}/checkout/.venv/nox", "-m pip --version")
    result = bootstrap(tmp_path, python, "--list")
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].endswith("(Debian and Ubuntu: apt install python3-venv)")
    assert not (tmp_path / "checkout" / ".venv" / "nox").exists(), "nothing partial is left"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_without_ensurepip_the_systems_pip_serves(tmp_path: Path) -> None:
    python = fake_python(tmp_path, f"-m venv {tmp_path}/checkout/.venv/nox")
    result = bootstrap(tmp_path, python, "--list")
    assert result.returncode == 0, result.stderr
    assert "reproduce" in result.stdout
    assert (tmp_path / "checkout" / ".venv" / "nox" / "ready").is_file()


@pytest.mark.slow
def test_the_second_run_installs_nothing(tmp_path: Path) -> None:
    first = bootstrap(tmp_path, Path(sys.executable), "--list")
    assert first.returncode == 0, first.stderr
    ready = tmp_path / "checkout" / ".venv" / "nox" / "ready"
    stamp = ready.stat().st_mtime_ns
    again = subprocess.run(
        [sys.executable, str(tmp_path / "checkout" / "noxfile.py"), "--list"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert ready.stat().st_mtime_ns == stamp
