"""Reproduction behind walls: the same evidence as without, and nothing of the machine in reach."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.facts import reproduction
from harness.model import HarnessError, Located
from harness.reproduce import dataset, run
from harness.reproduce.executors import sandboxed
from harness.reproduce.executors.base import Caps, Ending, Job
from harness.reproduce.executors.choose import choose
from harness.reproduce.executors.local import LocalExecutor
from harness.reproduce.executors.sandboxed import SandboxExecutor
from harness.reproduce.seed import Machine
from harness.sandbox.backend import Sandbox
from harness.sandbox.bubblewrap import Bubblewrap
from harness.sandbox.establish import BACKENDS
from harness.sandbox.landlock import Landlock
from harness.sandbox.levels import Level
from harness.sandbox.plain import Plain
from harness.sources.folder import walk
from tests import fakescript
from tests.fakescript import make_data, make_folder, make_plan
from tests.test_reproduce_executors import Watch

WALLED = [backend for backend in BACKENDS if backend.level > Level.L1]


@pytest.fixture(params=WALLED, ids=lambda backend: str(backend.level))
def executor(request: pytest.FixtureRequest, usable: dict[Level, str]) -> SandboxExecutor:
    backend = request.param
    if usable[backend.level]:
        pytest.skip(f"{backend.name}: {usable[backend.level]}")
    return SandboxExecutor(Sandbox(backend, backend.level))


def execute(
    executor: SandboxExecutor,
    root: Path,
    code: str,
    watch: Watch | None = None,
    data: Path | None = None,
    caps: Any = None,
) -> Ending:
    directory = root / "train"
    directory.mkdir()
    (directory / "job.py").write_text(code, encoding="utf-8")
    environment = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    job = Job(
        (sys.executable, "job.py"), directory, environment, root / "log", root / "times", Caps(**(caps or {})), data
    )
    return executor.execute(job, watch or Watch())


def test_a_seed_is_the_same_behind_walls(executor: SandboxExecutor, tmp_path: Path) -> None:
    folder, out = make_folder(tmp_path), tmp_path / "evidence"
    made = make_plan(folder, data=make_data(tmp_path))
    machine = Machine(executor, Caps(), {"PATH": os.environ["PATH"]}, 0)
    fakescript.reproduce(made, out, machine)
    facts = reproduction.read(out, walk(folder))
    [seed] = facts.seeds
    assert (seed.outcome, seed.detail, facts.isolation) == ("ok", "", executor.isolation)
    assert isinstance(seed.repacked, Located)
    assert seed.repacked.value
    assert isinstance(seed.rescored_val_bpb, Located)
    assert isinstance(seed.val_bpb, Located)
    assert seed.rescored_val_bpb.value == seed.val_bpb.value
    left = {path.name for path in (out / "seed-1" / "train").iterdir()}
    assert left == {"train_gpt.py", "final_model.pt", "final_model.ptz"}
    assert not [path for path in (out / "seed-1").iterdir() if "sandbox" in path.name or path.name == "data"]


def test_training_data_is_out_of_reach_of_scoring_again(executor: SandboxExecutor, tmp_path: Path) -> None:
    folder, out = make_folder(tmp_path, "evaluation needs training data"), tmp_path / "evidence"
    machine = Machine(executor, Caps(), {"PATH": os.environ["PATH"]}, 0)
    fakescript.reproduce(make_plan(folder, data=make_data(tmp_path)), out, machine)
    [seed] = reproduction.read(out, walk(folder)).seeds
    assert seed.outcome == "ok"
    assert "no training shards" in str(seed.rescored_val_bpb)


REACHING = """
import os, pathlib, socket
def tried(what):
    try:
        what()
    except OSError as error:
        return type(error).__name__
    return "reached"
print(tried(lambda: open({secret!r}).read()), tried(lambda: os.listdir({home!r})))
print(tried(lambda: open("/submission/job.py", "a")) if os.path.exists("/submission") else "PermissionError")
print(tried(lambda: socket.create_connection(("192.0.2.1", 80), 1)))
print(sorted(os.listdir("../data/datasets/tiny_sp1024")), open("../data/tokenizers/tiny_1024_bpe.model").read())
print(tried(lambda: open("../data/tokenizers/tiny_1024_bpe.model", "w")), os.environ.get("SECRET"))
pathlib.Path("logs").mkdir()
pathlib.Path("logs/a.txt").write_text("left")
os.symlink({secret!r}, "link")
open("job.py", "a").write("# changed")
"""


def test_a_job_sees_its_code_and_its_data_only(executor: SandboxExecutor, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("mine", encoding="utf-8")
    made = dataset.locate(make_data(tmp_path / "root"), None)
    dataset.without_validation(made, tmp_path / "data")
    watch = Watch()
    code = REACHING.format(secret=str(secret), home=str(tmp_path))
    ending = execute(executor, tmp_path, code, watch, data=tmp_path / "data")
    lines = [text for _, text in watch.lines]
    assert (ending.exit_code, ending.killed) == (0, ""), lines
    assert not any("reached" in line for line in lines)
    assert lines[3] == "['fineweb_train_000000.bin'] model"
    assert lines[4].endswith("None")
    # Links are not brought out, and the code that was given stays as it was.
    left = sorted(path.relative_to(tmp_path / "train").as_posix() for path in (tmp_path / "train").rglob("*"))
    assert left == ["job.py", "logs", "logs/a.txt"]
    assert (tmp_path / "train" / "job.py").read_text("utf-8") == code
    assert (tmp_path / "log").read_text("utf-8").splitlines() == lines


def test_lines_are_stamped_when_they_arrive(executor: SandboxExecutor, tmp_path: Path) -> None:
    watch = Watch()
    ending = execute(executor, tmp_path, "import time\nprint('a')\ntime.sleep(0.5)\nprint('b', end='')", watch)
    assert [text for _, text in watch.lines] == ["a", "b"]
    assert 0.4 < watch.lines[1][0] - watch.lines[0][0] < 5
    assert watch.lines[1][0] <= ending.seconds + 0.1


@pytest.mark.parametrize(
    ("code", "caps", "limit", "killed", "overdue"),
    [
        ("import time\ntime.sleep(60)", {}, 1.0, "late", True),
        ("while True:\n    print('x' * 1000)", {"output_bytes": 100_000}, 20.0, "printed more than", False),
        (
            "x = bytearray(600_000_000)\nimport time\ntime.sleep(9)",
            {"memory_bytes": 300_000_000},
            20.0,
            "memory",
            False,
        ),
    ],
)
def test_limits_end_a_job(
    executor: SandboxExecutor,
    tmp_path: Path,
    code: str,
    caps: dict[str, int],
    limit: float,
    killed: str,
    overdue: bool,  # noqa: FBT001 - a case
) -> None:
    ending = execute(executor, tmp_path, code, Watch(limit), caps=caps)
    assert killed in ending.killed
    assert ending.overdue is overdue
    assert ending.exit_code != 0


def test_a_failing_job_says_how(executor: SandboxExecutor, tmp_path: Path) -> None:
    ending = execute(executor, tmp_path, "import sys\nsys.exit('sorry')")
    assert (ending.exit_code, ending.killed, ending.tail) == (1, "", ("sorry",))


def test_a_sandbox_that_cannot_start_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandboxed, "SUBMISSION", "/proc/here")
    with pytest.raises(HarnessError, match="keeps this path for itself"):
        execute(SandboxExecutor(Sandbox(Plain(), Level.L1)), tmp_path, "print(1)")


def found(backend: Bubblewrap | Landlock | Plain) -> Sandbox:
    return Sandbox(backend, backend.level, (), (("bubblewrap", "bwrap is not installed"),))


@pytest.mark.parametrize(
    ("processes", "accelerators", "backend", "isolation", "why"),
    [
        (None, 0, Bubblewrap(), "L3 (bubblewrap)", ""),
        (8, 0, Bubblewrap(), "L3 (bubblewrap)", ""),
        (None, 0, Landlock(), "L2 (landlock)", ""),
        (8, 0, Landlock(), "L1 (not isolated)", "no network at all"),
        (None, 0, Plain(), "L1 (not isolated)", "bwrap is not installed"),
        (8, 8, Bubblewrap(), "L1 (not isolated)", "CUDA devices"),
    ],
)
def test_the_strongest_walls_that_let_the_job_work(
    processes: int | None, accelerators: int, backend: Bubblewrap | Landlock | Plain, isolation: str, why: str
) -> None:
    executor, reason = choose(processes, accelerators, lambda: found(backend))
    assert executor.isolation == isolation
    assert (why in reason) if why else not reason
    assert isinstance(executor, LocalExecutor) == isolation.startswith("L1")


def test_foreign_code_is_refused_with_the_reason(tmp_path: Path) -> None:
    made = make_plan(make_folder(tmp_path))
    with pytest.raises(HarnessError, match=r"isolation here is L1 \(not isolated\): no walls here"):
        run.refuse_untrusted(made, "L1 (not isolated): no walls here", allow_unsafe=False)
    run.refuse_untrusted(made, "L3 (bubblewrap): ", allow_unsafe=False)


def test_data_without_validation_holds_links_to_the_rest(tmp_path: Path) -> None:
    made = dataset.locate(make_data(tmp_path), None)
    view = dataset.without_validation(made, tmp_path / "view")
    assert [path.name for path in view.shards.iterdir()] == ["fineweb_train_000000.bin"]
    assert view.tokenizer is not None
    assert view.tokenizer.read_bytes() == b"model"
