"""One job to its end: lines, limits, the whole process tree."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.reproduce.executors.base import Caps, Ending, Job
from harness.reproduce.executors.lines import LineSplitter
from harness.reproduce.executors.local import LocalExecutor


class Watch:
    """Collects lines and asks for the end after some seconds."""

    def __init__(self, limit: float = 20.0) -> None:
        self.limit = limit
        self.lines: list[tuple[float, str]] = []

    def line(self, seconds: float, text: str) -> None:
        self.lines.append((seconds, text))

    def overdue(self, seconds: float) -> str:
        return "late" if seconds > self.limit else ""


def execute(directory: Path, code: str, watch: Watch | None = None, **caps: int) -> Ending:
    (directory / "job.py").write_text(code, encoding="utf-8")
    environment = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"}
    job = Job((sys.executable, "job.py"), directory, environment, directory / "log", directory / "times", Caps(**caps))
    return LocalExecutor().execute(job, watch or Watch())


def pids(path: Path) -> list[int]:
    return [int(text) for text in path.read_text(encoding="utf-8").split()]


def test_lines_are_stamped_when_they_arrive(tmp_path: Path) -> None:
    watch = Watch()
    ending = execute(tmp_path, "import time\nprint('a')\ntime.sleep(0.3)\nprint('b', end='')", watch)
    assert (ending.exit_code, ending.killed, ending.survivors) == (0, "", 0)
    assert [text for _, text in watch.lines] == ["a", "b"]
    assert 0.25 < watch.lines[1][0] - watch.lines[0][0] < 5
    assert (tmp_path / "log").read_text(encoding="utf-8") == "a\nb\n"
    times = [float(text) for text in (tmp_path / "times").read_text(encoding="utf-8").split()]
    assert times == pytest.approx([seconds for seconds, _ in watch.lines], abs=1e-3)


def test_exit_status_and_standard_error(tmp_path: Path) -> None:
    ending = execute(tmp_path, "import sys\nsys.exit('sorry')")
    assert (ending.exit_code, ending.tail) == (1, ("sorry",))


def test_closed_output_does_not_end_the_job(tmp_path: Path) -> None:
    ending = execute(tmp_path, "import os, time\nos.close(1)\nos.close(2)\ntime.sleep(0.3)\nos._exit(7)")
    assert ending.exit_code == 7
    assert ending.seconds > 0.3


DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open("pids", "a").write(f"{os.getpid()} ")
        time.sleep(60)
    os._exit(0)
time.sleep(0.3)
"""


def test_daemons_are_swept_after_the_end(tmp_path: Path) -> None:
    ending = execute(tmp_path, DAEMON)
    assert (ending.exit_code, ending.survivors) == (0, 1)
    assert not any(psutil.pid_exists(pid) for pid in pids(tmp_path / "pids"))


def test_everything_is_ended_when_overdue(tmp_path: Path) -> None:
    ending = execute(tmp_path, DAEMON + "time.sleep(60)", Watch(1.0))
    assert (ending.exit_code, ending.killed, ending.overdue) == (-9, "late", True)
    assert ending.seconds < 10
    assert not any(psutil.pid_exists(pid) for pid in pids(tmp_path / "pids"))


def test_processes_of_others_are_left_alone(tmp_path: Path) -> None:
    with psutil.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        execute(tmp_path, "print()")
        assert other.is_running()
        other.kill()


@pytest.mark.parametrize(
    "code", ["while True: print('x' * 1000)", "while True: print()", "while True: print('x' * 1000, end='')"]
)
def test_a_flood_is_ended(tmp_path: Path, code: str) -> None:
    ending = execute(tmp_path, code, output_bytes=200_000, line_bytes=1_000)
    assert ending.killed == "printed more than 200,000 bytes"
    assert not ending.overdue
    # What was in the pipe when the cap was reached may come on top; each line's time takes less than ten bytes.
    written = (tmp_path / "log").stat().st_size
    assert written < 200_000 + 2**17
    assert (tmp_path / "times").stat().st_size < 10 * written


def test_too_much_memory_is_ended(tmp_path: Path) -> None:
    code = "import time\nheld = bytearray(150 * 2**20)\ntime.sleep(60)"
    ending = execute(tmp_path, code, memory_bytes=100 * 2**20)
    assert "the limit is 104,857,600" in ending.killed
    assert ending.peak_memory_bytes > 100 * 2**20


def test_one_file_may_not_grow_for_ever(tmp_path: Path) -> None:
    code = "file = open('big', 'wb', buffering=0)\nwhile True: file.write(bytes(1000))"
    ending = execute(tmp_path, code, file_bytes=10_000)
    assert ending.exit_code != 0
    assert (tmp_path / "big").stat().st_size == 10_000


@given(pieces=st.lists(st.binary(max_size=30)), lines=st.lists(st.sampled_from([b"", b"ab", b"c"]), max_size=8))
def test_splitting_does_not_depend_on_the_pieces(pieces: list[bytes], lines: list[bytes]) -> None:
    whole = b"".join(pieces) + b"\r\n".join(lines)
    bytewise, at_once = LineSplitter(10), LineSplitter(10)
    split = [text for byte in whole for text in bytewise.feed(bytes([byte]))] + bytewise.close()
    assert split == at_once.feed(whole) + at_once.close()
    assert all(len(text.encode("utf-8", "replace")) <= 30 for text in split)
