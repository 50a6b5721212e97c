"""The `git` program, used to read objects of a repository that somebody else may have prepared.

A clone can carry configuration, hooks, filters, replacement objects and remotes of its maker's choice. Only plumbing
that reads objects is run here, with an environment of our own, no network protocol allowed, and bounded time and
output; the work tree and the index are neither read nor written.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from harness.model import HarnessError
from harness.sources.folder import shown

SECONDS_LIMIT: Final = 120.0
OUTPUT_LIMIT_BYTES: Final = 64 * 1024 * 1024
COMPLAINT_LIMIT_BYTES: Final = 4_096
# Reading commands only: none of them runs a hook, a filter, a pager or a signature check.
COMMANDS: Final = frozenset({"cat-file", "diff-tree", "for-each-ref", "ls-tree", "merge-base", "rev-list", "rev-parse"})
_SETTINGS: Final = (
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.attributesFile=/dev/null",
    # A commit-graph file can tell another history than the commits themselves.
    "core.commitGraph=false",
    "protocol.allow=never",
    "gc.auto=0",
    "maintenance.auto=false",
    # Safe because of all that is switched off here; without it, a clone of another user's could not be read at all.
    "safe.directory=*",
)


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository by its git directory, which may be bare or belong to a linked work tree."""

    git_dir: Path

    def output(self, command: str, *arguments: str, limit_bytes: int = OUTPUT_LIMIT_BYTES) -> bytes:
        """What a reading command prints.

        Raises:
            HarnessError: it failed, printed more than the cap, or took too long.
        """
        with self.stream(command, *arguments) as stdout:
            data = stdout.read(limit_bytes + 1)
            if len(data) > limit_bytes:
                raise HarnessError(f"{self.git_dir}: git {command} says more than {limit_bytes:,} bytes")
        return data

    @contextlib.contextmanager
    def stream(self, command: str, *arguments: str, given: bytes = b"") -> Iterator[IO[bytes]]:
        """The standard output of a reading command that is given some bytes on its standard input.

        Raises:
            HarnessError: it failed or took too long; raised when the block ends.
        """
        if command not in COMMANDS:
            raise ValueError(f"git {command} is not among the reading commands")
        options = [part for setting in _SETTINGS for part in ("-c", setting)]
        line = [
            _program(),
            "--no-pager",
            "--no-optional-locks",
            "--no-replace-objects",
            "--literal-pathspecs",
            f"--git-dir={self.git_dir}",
        ]
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stderr:
            stdin.write(given)
            stdin.seek(0)
            process = subprocess.Popen(
                [*line, *options, command, *arguments],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=self.git_dir,
                env=_environment(self.git_dir),
                start_new_session=True,
            )
            with _ended(process, SECONDS_LIMIT) as late:
                assert process.stdout is not None  # noqa: S101 - it was asked for
                yield process.stdout
                # What is left unread must not keep the program waiting.
                process.stdout.close()
                status = process.wait()
            _check(status, command, self.git_dir, _complaint(stderr), late=late.is_set())


def open_repository(directory: Path) -> Repository:
    """The repository that a directory belongs to.

    Raises:
        HarnessError: there is none, or no git program.
    """
    if not directory.is_dir():
        raise HarnessError(f"{directory}: not a folder")
    options = [part for setting in _SETTINGS for part in ("-c", setting)]
    found = subprocess.run(
        [_program(), *options, "-C", str(directory.resolve()), "rev-parse", "--absolute-git-dir"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=SECONDS_LIMIT,
        env=_environment(None),
    )
    if found.returncode != 0:
        raise HarnessError(f"{directory}: no git repository ({_first(found.stderr)})")
    return Repository(Path(os.fsdecode(found.stdout.removesuffix(b"\n"))))


def _program() -> str:
    program = shutil.which("git")
    if program is None:
        raise HarnessError("there is no git program on the PATH; pull requests are read with it")
    return program


def _environment(git_dir: Path | None) -> Mapping[str, str]:
    """Nothing of the caller's environment but what finds programs; nothing of the machine's or user's settings."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP") if name in os.environ}
    fixed = {
        "LC_ALL": "C",
        "HOME": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        # Older versions know no switch for lazy fetches of a partial clone, but obey this list, which is empty.
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_GRAFT_FILE": os.devnull,
    }
    if git_dir is not None:
        fixed["GIT_INDEX_FILE"] = str(git_dir / "harness-reads-no-index")
    return {**kept, **fixed}


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes], seconds: float) -> Iterator[threading.Event]:
    """Let a program run for some time at most, and never longer than the block; the event says that it was late."""
    late = threading.Event()

    def stop() -> None:
        late.set()
        _kill(process)

    timer = threading.Timer(seconds, stop)
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
        _kill(process)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _check(status: int, command: str, git_dir: Path, complaint: str, *, late: bool) -> None:
    if late:
        raise HarnessError(f"{git_dir}: git {command} took longer than {SECONDS_LIMIT:.0f} s")
    if status != 0:
        raise HarnessError(f"{git_dir}: git {command} failed ({complaint or f'status {status}'})")


def _complaint(stderr: IO[bytes]) -> str:
    stderr.seek(0)
    return _first(stderr.read(COMPLAINT_LIMIT_BYTES))


def _first(text: bytes) -> str:
    """The first line of a complaint, fit for output."""
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return shown(lines[0]) if lines else ""
