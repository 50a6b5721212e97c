"""Sessions of the project. Run it with nox, or as a script: it then makes its own environment for nox first.

`python3 noxfile.py -s reproduce` needs Python 3.11+ and nothing else: on systems whose Python refuses
`pip install`, and on those without nox, it installs nox into `.venv/nox` and hands over.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

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

import nox  # noqa: E402 - the sessions below exist only under nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["reproduce"]
nox.options.error_on_missing_interpreters = True

# One environment for every session: torch is large, and installing it once is most of the waiting.
MAIN = ROOT / ".venv" / f"main-{sys.version_info.major}.{sys.version_info.minor}"
BIN = MAIN / ("Scripts" if os.name == "nt" else "bin")
EVERYTHING = ("bench", "certify", "demo", "dev", "study", "torch")
DEMO = "submissions/hymba_demo"
DEMO_DATA = ".cache/demo"


def _run(session: nox.Session, program: str, *arguments: str, **options: Any) -> None:  # noqa: ANN401 - nox's options
    """Run a program of the shared environment."""
    session.run(str(BIN / program), *arguments, external=True, **options)


def _prepare(session: nox.Session, *extras: str) -> None:
    """Install the project with these extras into the shared environment, unless they are there already.

    The stamp holds what was installed and a hash of what decides it, so that a second run starts at once.
    """
    # A second pool of spinning threads makes two processes on two cores many times slower.
    session.env["OMP_WAIT_POLICY"] = "PASSIVE"
    key = hashlib.sha256(sys.version.encode())
    for name in ("pyproject.toml", "constraints.txt"):
        key.update((ROOT / name).read_bytes())
    stamp = MAIN / "installed.json"
    known = json.loads(stamp.read_text(encoding="utf-8")) if stamp.is_file() else {"key": "", "extras": []}
    have = set(known["extras"]) if known["key"] == key.hexdigest() else set()
    if have.issuperset(extras) and known["key"] == key.hexdigest():
        return
    union = sorted(have.union(extras))
    session.run(sys.executable, "-m", "virtualenv", "--quiet", str(MAIN), external=True)
    project = f".[{','.join(union)}]" if union else "."
    install = ("install", "--quiet", "--disable-pip-version-check", "-c", str(CONSTRAINTS), "-e", project)
    _run(session, "python", "-m", "pip", *install)
    partial = stamp.with_suffix(".partial")
    partial.write_text(json.dumps({"key": key.hexdigest(), "extras": union}), encoding="utf-8")
    partial.replace(stamp)


@nox.session(venv_backend="none")
def reproduce(session: nox.Session) -> None:
    """Reproduce a record folder (the demo by default): train each seed, rebuild, score again, audit, report."""
    _prepare(session, "torch", "demo")
    if session.posargs:
        _run(session, "harness", "reproduce", *session.posargs)
        return
    evidence = "runs/hymba_demo"
    _run(session, "harness", "reproduce", DEMO, "--evidence", evidence, "--data", DEMO_DATA)
    compare = ("reference_model", "compare", "--data", DEMO_DATA, "--run", f"{evidence}/seed-1337/train")
    _run(session, "python", "-m", *compare)


@nox.session(venv_backend="none")
def audit(session: nox.Session) -> None:
    """Audit record folders (the bundled ones by default): `nox -s audit -- FOLDER... [options]`."""
    _prepare(session)
    _run(session, "harness", "audit", *(session.posargs or [DEMO]))


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Run the tests in parallel and hold the coverage of harness/ at 90% or more; with arguments, run what they say."""
    _prepare(session, *EVERYTHING)
    session.env["OMP_NUM_THREADS"] = "1"
    if session.posargs:
        _run(session, "pytest", "-n", "2", *session.posargs)
        return
    if sys.version_info >= (3, 12):
        # Python's own monitoring: a tenth more time than without, where the tracer of older ones nearly doubles it.
        session.env["COVERAGE_CORE"] = "sysmon"
    _run(session, "pytest", "-n", "2", "--cov", "--cov-report=")
    _run(session, "coverage", "report", "--include=reference_model/*")
    _run(session, "coverage", "report", "--include=harness/*", "--fail-under=90")


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Check style, format and the import contracts."""
    _prepare(session, *EVERYTHING)
    _run(session, "ruff", "check", ".")
    _run(session, "ruff", "format", "--check", ".")
    _run(session, "lint-imports", "--no-cache")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    _prepare(session, *EVERYTHING)
    _run(session, "mypy")


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """Check that the generated rule pages are current; `nox -s docs -- --write` renews them."""
    _prepare(session)
    _run(session, "harness", "rules", "--write-docs" if "--write" in session.posargs else "--check-docs", "docs/rules")


@nox.session(venv_backend="none")
def bundle(session: nox.Session) -> None:
    """Build every preset's script into a temporary folder and run it in miniature, so that drift cannot hide."""
    _prepare(session, "torch", "demo")
    _run(session, "python", "-m", "reference_model", "check-bundles", *session.posargs)


@nox.session(venv_backend="none")
def refresh(session: nox.Session) -> None:
    """Make submissions' scripts, logs and numbers together, from real runs: `nox -s refresh -- hymba_demo hymba_pr599`.

    A preset's folder takes its full-size numbers from docs/fullsize.json: `python -m reference_model fullsize PRESET
    --json docs/fullsize.json` renews them.
    """
    _prepare(session, "torch", "demo")
    for slug in session.posargs or ["hymba_demo"]:
        folder, evidence = f"submissions/{slug}", f"runs/refresh-{slug}"
        shutil.rmtree(ROOT / evidence, ignore_errors=True)
        _run(session, "python", "-m", "reference_model", "release", "prepare", folder)
        _run(
            session,
            "harness",
            "reproduce",
            folder,
            "--evidence",
            evidence,
            "--data",
            DEMO_DATA,
            "--allow-unsafe",
            success_codes=[0, 1],
        )
        finish = ("release", "finish", folder, "--evidence", evidence, "--data", DEMO_DATA)
        _run(session, "python", "-m", "reference_model", *finish)
        _run(session, "python", "-m", "harness.reproduce.trusted", "submissions")
        _run(session, "harness", "audit", folder, "--strict")


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """Print speed and memory ratios, each measured in one run."""
    _prepare(session, *EVERYTHING)
    for script in sorted((ROOT / "benchmarks").glob("bench_*.py")):
        if not session.posargs or script.stem.removeprefix("bench_") in session.posargs:
            _run(session, "python", str(script.relative_to(ROOT)))


@nox.session(venv_backend="none")
def study(session: nox.Session) -> None:
    """Try published claims at the demo's scale and write docs/hymba.md: `nox -s study -- [EXPERIMENT...] [options]`.

    An interrupted study goes on where it ended.
    """
    _prepare(session, "torch", "demo", "study")
    if not (ROOT / DEMO_DATA / "manifest.json").is_file():
        _run(session, "harness", "data", "demo", "--output", DEMO_DATA)
    # 1: a run failed, which is told; the others stand.
    options = ("--data", DEMO_DATA, *session.posargs)
    _run(session, "python", "-m", "reference_model", "study", "run", *options, success_codes=[0, 1])
    _run(session, "python", "-m", "reference_model", "study", "page")


@nox.session(venv_backend="none")
def oracle(session: nox.Session) -> None:
    """Hold scan and convolution against mamba-ssm's and causal-conv1d's own reference functions, on a CPU."""
    _prepare(session, *EVERYTHING)
    home = ROOT / ".venv" / "oracle"
    # Nothing of CUDA is built, and what the packages depend on for the GPU is not installed.
    for package in ("MAMBA", "CAUSAL_CONV1D"):
        session.env[f"{package}_SKIP_CUDA_BUILD"] = session.env[f"{package}_FORCE_BUILD"] = "TRUE"
    packages = ("mamba-ssm", "causal-conv1d", "einops")
    options = ("--quiet", "--no-build-isolation", "--no-deps", "--upgrade", "--target", str(home))
    _run(session, "python", "-m", "pip", "install", *options, "-c", str(CONSTRAINTS), *packages)
    session.env["PYTHONPATH"] = str(home)
    _run(session, "python", "-m", "tests.oracle")


@nox.session(venv_backend="none")
def corpus(session: nox.Session) -> None:
    """Audit every record of a checkout of the competition: `nox -s corpus -- PATH [options]`.

    `nox -s corpus -- PATH --probe [options]` runs each record's script in miniature too; an interrupted run goes on
    where it ended.
    `nox -s corpus -- --pull-requests N CLONE [options]` audits what N random pull requests of a clone add.
    """
    _prepare(session)
    if not session.posargs:
        session.error("give the path of a checkout of the competition: nox -s corpus -- PATH [options]")
    if session.posargs[0] == "--pull-requests":
        _run(session, "harness", "corpus", "--sample", *session.posargs[1:])
        return
    checkout, *options = session.posargs
    folders = sorted(path for path in Path(checkout).glob("records/*/*") if path.is_dir())
    if not folders:
        session.error(f"{checkout} holds no records/*/*/ folders")
    command = "audit"
    if "--probe" in options:
        options.remove("--probe")
        _prepare(session, "torch")
        command = "probe"
    # 2: a folder without a script cannot be probed, which is said.
    codes = [0, 1] if command == "audit" else [0, 1, 2]
    _run(session, "harness", command, *map(str, folders), "--format", "summary", *options, success_codes=codes)


@nox.session(venv_backend="none")
def calibrate(session: nox.Session) -> None:
    """Count verdicts against known ones: `nox -s calibrate -- LABELS CLONE [--probe DIR] [options]`."""
    _prepare(session, *(["torch"] if "--probe" in session.posargs else []))
    if len(session.posargs) < 2:
        session.error("give a labels file and a clone of the competition: nox -s calibrate -- LABELS CLONE [options]")
    labels, clone, *options = session.posargs
    _run(session, "harness", "calibrate", labels, "--repo", clone, *options)
