"""Sessions of the project. Run it with nox, or as a script: it then makes its own environment for nox first.

`python3 noxfile.py -s reproduce` needs Python 3.11+ and nothing else: on systems whose Python refuses
`pip install`, and on those without nox, it installs nox into `.venv/nox` and hands over.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
CONSTRAINTS = ROOT / "constraints.txt"
NOX_HOME = ROOT / ".venv" / "nox"


def _bootstrap() -> int:
    """Make an environment that holds nox, once, and run this file's sessions with it; returns the exit status."""
    if sys.version_info < (3, 11):  # noqa: UP036 - run by whatever `python3` is
        return _say(f"needs Python 3.11 or newer, this is {sys.version.split()[0]} ({sys.executable})")
    python = NOX_HOME / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = NOX_HOME / "ready"
    if not stamp.is_file():
        problem = _make_environment(python)
        if problem:
            shutil.rmtree(NOX_HOME, ignore_errors=True)
            return _say(problem)
        stamp.touch()
    arguments = [str(python), "-m", "nox", "-f", str(ROOT / "noxfile.py"), *sys.argv[1:]]
    return subprocess.run(arguments, check=False).returncode


def _make_environment(python: Path) -> str:
    """Create the environment and install nox; returns what is missing, or an empty string."""
    shutil.rmtree(NOX_HOME, ignore_errors=True)
    made = subprocess.run([sys.executable, "-m", "venv", str(NOX_HOME)], capture_output=True, text=True, check=False)
    install = [str(python), "-m", "pip"]
    if made.returncode != 0:
        # Debian without python3-venv: a bare environment plus the system's own pip, if there is one.
        bare = [sys.executable, "-m", "venv", "--without-pip", "--clear", str(NOX_HOME)]
        has_pip = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False)
        if has_pip.returncode != 0 or subprocess.run(bare, check=False).returncode != 0:
            return "no venv module with pip here: install it (Debian and Ubuntu: apt install python3-venv)"
        install = [sys.executable, "-m", "pip", "--python", str(python)]
    command = [*install, "install", "--quiet", "--disable-pip-version-check", "-c", str(CONSTRAINTS), "nox"]
    if subprocess.run(command, check=False).returncode != 0:
        return "could not install nox: the package index did not answer (see the lines above)"
    return ""


def _say(problem: str) -> int:
    print(f"noxfile.py: {problem}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(_bootstrap())

import nox  # the sessions below exist only under nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["reproduce"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True

# One environment for every session that needs torch: it is large, and installing it is most of the waiting.
MAIN = str(ROOT / ".venv" / "main")
