"""Jobs at every level that this machine offers: what comes out, what is brought out, what ends them."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.model import HarnessError
from harness.sandbox import ruleset
from harness.sandbox.backend import Sandbox
from harness.sandbox.establish import BACKENDS
from harness.sandbox.job import MIB, Job, Limits, Outcome, View
from harness.sandbox.levels import Level
from harness.sandbox.plain import Plain
from harness.sandbox.runner import run
from harness.sandbox.tree import snapshot

LIMITS = Limits(256 * MIB, 8, 16 * MIB, 8 * MIB, 20, 20, MIB)
Runner = Callable[..., Outcome]


@pytest.fixture(params=BACKENDS, ids=lambda backend: str(backend.level))
def sandbox(request: pytest.FixtureRequest, usable: dict[Level, str]) -> Sandbox:
    backend = request.param
    if usable[backend.level]:
        pytest.skip(f"{backend.name}: {usable[backend.level]}")
    return Sandbox(backend, backend.level)


@pytest.fixture
def submission(tmp_path: Path) -> Path:
    folder = tmp_path / "submission"
    folder.mkdir()
    return folder


@pytest.fixture
def start(tmp_path: Path, submission: Path, sandbox: Sandbox) -> Runner:
    """Run a script as the submission's."""

    def runner(script: str, **changes: object) -> Outcome:
        (submission / "train_gpt.py").write_text(textwrap.dedent(script), encoding="utf-8")
        job = Job(
            argv=(sys.executable, "-B", "/submission/train_gpt.py"),
            views=(View(submission, "/submission"),),
            workdir="/scratch/work",
            environment={},
            limits=LIMITS,
        )
        return run(dataclasses.replace(job, **changes), tmp_path / "run", sandbox=sandbox)  # type: ignore[arg-type]

    return runner


def text(outcome: Outcome) -> str:
    return outcome.output.read_text(encoding="utf-8")


def test_program_runs_to_its_end(start: Runner, sandbox: Sandbox) -> None:
    outcome = start("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert (outcome.ended, outcome.returncode, outcome.reason) == ("exit", 3, "exit status 3")
    assert sorted(text(outcome).split()) == ["err", "out"]
    assert (outcome.level, outcome.backend) == (sandbox.level, sandbox.backend.name)
    assert outcome.channel is None
    assert outcome.survivors == 0
    assert 0 < outcome.cpu_s < 20
    assert 0 < outcome.seconds < 20
    assert {path.name for path in outcome.kept.parent.iterdir()} == {"output.log", "kept"}


def test_program_sees_its_views_scratch_and_environment(start: Runner, tmp_path: Path) -> None:
    data = tmp_path / "data.bin"
    data.write_bytes(b"tokens")
    (tmp_path / "submission/helper.py").write_text("VALUE = 7\n", encoding="utf-8")
    script = """
        import helper, json, os, pathlib, tempfile
        print(json.dumps({
            "cwd": os.path.basename(os.getcwd()),
            "home": os.environ["HOME"] == tempfile.gettempdir() == os.path.dirname(os.getcwd()),
            "data": pathlib.Path(os.environ["DATA_PATH"]).read_text(),
            "beside": pathlib.Path("data/val.bin").read_text(),
            "names": sorted(os.environ),
            "helper": helper.VALUE,
        }))
        """
    views = (
        View(tmp_path / "submission", "/submission"),
        View(data, "/data/train.bin"),
        View(data, "/scratch/work/data/val.bin"),
    )
    outcome = start(script, views=views, environment={"DATA_PATH": "/data/train.bin", "HOME": "/root"})
    said = json.loads(text(outcome))
    names = {"DATA_PATH", "HOME", "LC_CTYPE", "LOGNAME", "PATH", "TMPDIR", "USER"}
    assert set(said.pop("names")) <= names
    assert said == {"cwd": "work", "home": True, "data": "tokens", "beside": "tokens", "helper": 7}
    assert data.read_bytes() == b"tokens"


def test_ordinary_file_work_is_possible(start: Runner) -> None:
    script = """
        import os, pathlib, shutil, tempfile
        for name in ("a", "b"):
            os.mkdir(name)
        pathlib.Path("a/x").touch()
        os.rename("a/x", "b/x")
        os.link("b/x", "a/y")
        shutil.copy2("a/y", "z")
        shutil.copytree("a", "c")
        shutil.move("c", "b/c")
        os.chmod("z", 0o755)
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"x")
        shutil.rmtree("a")
        print(sorted(str(path) for path in pathlib.Path().rglob("*")))
        """
    outcome = start(script)
    assert text(outcome) == "['b', 'b/c', 'b/c/y', 'b/x', 'z']\n"


def test_ordinary_processes_are_possible(start: Runner, sandbox: Sandbox) -> None:
    if sandbox.level == Level.L2 and ruleset.version() < ruleset.SCOPE_ABI:
        pytest.skip("before its sixth version, Landlock cannot tell a program's children from other processes")
    script = """
        import multiprocessing as mp, subprocess, sys, threading
        print(subprocess.run(["sh", "-c", "echo $((6 * 7)) | cat"], capture_output=True, text=True).stdout.strip())
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        threading.Thread(target=print, args=("thread",)).start()
        receiver, sender = mp.get_context("fork").Pipe()
        process = mp.get_context("fork").Process(target=sender.send, args=(7,))
        process.start()
        print(receiver.recv())
        process.join()
        child.terminate()
        print(child.wait())
        """
    assert set(text(start(script)).split()) == {"42", "thread", "7", "-15"}


def test_files_are_brought_out(start: Runner) -> None:
    script = """
        import os, pathlib
        pathlib.Path("logs/a").mkdir(parents=True)
        pathlib.Path("logs/a/run.txt").write_text("x" * 100_000)
        pathlib.Path("logs/empty.txt").touch()
        pathlib.Path("other.txt").write_text("no")
        os.symlink("/etc/passwd", "logs/link.txt")
        """
    outcome = start(script, keep=("work/logs/*",))
    found = {str(path.relative_to(outcome.kept)): path.stat().st_size for path in outcome.kept.rglob("*.txt")}
    assert found == {"work/logs/a/run.txt": 100_000, "work/logs/empty.txt": 0}
    assert outcome.skipped == ("work/logs/link.txt: a link",)


def test_files_are_brought_out_after_a_limit(start: Runner) -> None:
    script = "import time; open('log.txt', 'w').write('step 1'); time.sleep(60)"
    outcome = start(script, keep=("work/log.txt",), limits=dataclasses.replace(LIMITS, wall_s=0.5))
    assert (outcome.ended, outcome.returncode) == ("wall", None)
    assert (outcome.kept / "work/log.txt").read_text(encoding="ascii") == "step 1"
    assert outcome.seconds < 10


def test_channel_is_apart_from_the_output(start: Runner) -> None:
    script = """
        import os
        number = int(os.environ["PROBE_CHANNEL_FD"])
        print('{"kind": "printed"}')
        os.write(number, b'{"kind": "sent"}\\n')
        """
    outcome = start(script, channel=True, environment={"PROBE_CHANNEL_FD": "1"})
    assert outcome.channel is not None
    assert outcome.channel.read_text(encoding="ascii") == '{"kind": "sent"}\n'
    assert text(outcome) == '{"kind": "printed"}\n'


def test_output_is_cut_at_its_limit(start: Runner) -> None:
    outcome = start("while True: print('x' * 99)", limits=dataclasses.replace(LIMITS, output_bytes=5000))
    assert outcome.ended == "output"
    assert outcome.output.stat().st_size == 5000


def test_signal_is_told(start: Runner) -> None:
    outcome = start("import os; os.kill(os.getpid(), 15)")
    assert (outcome.ended, outcome.returncode) == ("signal", -15)


def test_daemons_are_counted(start: Runner) -> None:
    outcome = start("import os, time\nif os.fork() == 0:\n    os.setsid(); time.sleep(60)\ntime.sleep(0.1)")
    assert (outcome.ended, outcome.survivors) == ("exit", 1)
    assert outcome.seconds < 10


def test_memory_is_measured(start: Runner) -> None:
    outcome = start("import time; held = bytearray(b'x') * (64 << 20); time.sleep(1.5)")
    assert 64 * MIB < outcome.peak_memory_bytes < 128 * MIB


def test_program_that_is_not_there_is_refused(start: Runner) -> None:
    outcome = start("", argv=("/submission/nothing",))
    assert (outcome.ended, outcome.returncode) == ("refused", None)
    assert "FileNotFoundError" in outcome.reason


def test_second_run_into_the_same_directory_is_refused(start: Runner) -> None:
    start("")
    with pytest.raises(HarnessError, match="holds a run already"):
        start("")


def test_harness_that_dies_leaves_nothing_behind(
    sandbox: Sandbox, tmp_path: Path, submission: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = f"orphan-{tmp_path.name}-{sandbox.level}"
    (submission / "sleeper.py").write_text("import time; time.sleep(60)", encoding="ascii")
    program = f"""
import sys
from pathlib import Path
from harness.sandbox.backend import Sandbox
from harness.sandbox.establish import BACKENDS
from harness.sandbox.job import Job, Limits, View
from harness.sandbox.runner import run
backend = next(one for one in BACKENDS if one.name == {sandbox.backend.name!r})
limits = Limits(1 << 28, 8, 1 << 24, 1 << 23, 60, 60, 1 << 20)
views = (View(Path({str(submission)!r}), "/submission"),)
job = Job((sys.executable, "-S", "/submission/sleeper.py", {token!r}), views, "/scratch", {{}}, limits)
run(job, Path({str(tmp_path / "run")!r}), sandbox=Sandbox(backend, backend.level))
"""
    monkeypatch.chdir(Path(__file__).parents[1])
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        assert _wait_for(lambda: _running(token) > 0)
        process.send_signal(signal.SIGKILL)
    assert _wait_for(lambda: _running(token) == 0)


def _wait_for(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.05)
    return False


def _running(token: str) -> int:
    """Processes of the program itself (the interpreter that runs the script)."""
    found = 0
    for pid in snapshot():
        try:
            words = Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        found += token.encode() in words and any(word.endswith(b"sleeper.py") for word in words)
    return found


PLAIN = Sandbox(Plain(), Level.L1)


def job(tmp_path: Path, **changes: object) -> Job:
    made = Job(("true",), (View(tmp_path / "view", "/view"),), "/scratch", {}, LIMITS)
    (tmp_path / "view").mkdir(exist_ok=True)
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["relative", "/", "/a/../b", "/a/", "/proc/x", "/dev", "/etc/passwd", "/a\0b"])
def test_odd_targets_are_refused(tmp_path: Path, target: str) -> None:
    made = job(tmp_path, views=(View(tmp_path, target),))
    with pytest.raises(HarnessError, match=r"plain absolute path|keeps this path"):
        run(made, tmp_path / "run", sandbox=PLAIN)


def test_run_directory_inside_a_view_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="lies inside"):
        run(job(tmp_path), tmp_path / "view/run", sandbox=PLAIN)


def test_source_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="not there"):
        run(job(tmp_path, views=(View(tmp_path / "none", "/none"),)), tmp_path / "run", sandbox=PLAIN)


def test_no_command_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="no command"):
        run(job(tmp_path, argv=()), tmp_path / "run", sandbox=PLAIN)


def test_walls_that_do_not_stand_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n", encoding="ascii")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    backend = BACKENDS[0]
    outcome = run(job(tmp_path), tmp_path / "run", sandbox=Sandbox(backend, backend.level))
    assert outcome.ended == "refused"
    assert "No permissions to create new namespace" in outcome.reason
