"""L3: namespaces of its own by bubblewrap: no other process, no network, and no file but the views."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from harness.sandbox.backend import PACKAGE, Launch, specify
from harness.sandbox.job import SCRATCH, SHARED_MEMORY, Job, View
from harness.sandbox.levels import Level
from harness.sandbox.places import Places, below_scratch
from harness.sandbox.runtime import python_runtime_views

HOME_OF_STAGE: Final = "/.harness"
ETC: Final = ("passwd", "group", "hosts", "nsswitch.conf")
SHARED_MEMORY_PART: Final = 4
WALLS: Final = (
    ("--unshare-all", "--unshare-user", "--die-with-parent", "--new-session", "--clearenv"),
    ("--cap-drop", "ALL", "--uid", "1000", "--gid", "1000", "--hostname", "sandbox"),
)
# Newer versions can do more; without it the system call filter and the watcher stand alone.
NO_MORE_USERS: Final = "--disable-userns"
SIZE: Final = "--size"


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """Namespaces by `bwrap`."""

    name: str = "bubblewrap"
    level: Level = Level.L3

    def missing(self) -> str:
        """It needs the program; whether it works here, the canaries find out."""
        if not sys.platform.startswith("linux"):
            return "namespaces exist on Linux only"
        return "" if _program() else "bwrap is not installed (package bubblewrap)"

    def places(self, job: Job, into: Path) -> Places:
        """Everything lies at its target."""
        del job, into
        return Places()

    def launch(self, job: Job, into: Path) -> Launch:
        """The stage behind bubblewrap; its arguments go through a file, so that /proc shows none of our paths."""
        handed = _argument_file(_arguments(job))
        prefix = (_program(), "--args", str(handed.fileno()), "--")
        return Launch(prefix, specify(job, self.places(job, into), calls="own"), HOME_OF_STAGE, files=(handed,))


def _program() -> str:
    return shutil.which("bwrap") or ""


@functools.cache
def _options(program: str) -> frozenset[str]:
    """The options that this version knows."""
    said = subprocess.run([program, "--help"], capture_output=True, text=True, check=False).stdout
    return frozenset(re.findall(r"--[a-z-]+", said))


def _argument_file(arguments: Iterable[str]) -> IO[bytes]:
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - lives until the stage has started
    file.write(b"".join(argument.encode("utf-8", "surrogateescape") + b"\0" for argument in arguments))
    file.seek(0)
    return file


def _arguments(job: Job) -> list[str]:
    """Mounts in the order in which they are made; what is mounted later lies over what came before."""
    found = [argument for group in WALLS for argument in group]
    found += [NO_MORE_USERS] if NO_MORE_USERS in _options(_program()) else []
    found += ["--proc", "/proc", "--dev", "/dev", *_sized(SHARED_MEMORY, job.limits.disk_bytes // SHARED_MEMORY_PART)]
    # User 0 outside stays the owner of /proc/sys here, whatever it is called inside.
    found += ["--remount-ro", "/dev", "--remount-ro", "/proc"]
    for name in ETC:
        found += _bound(PACKAGE / "etc" / name, f"/etc/{name}")
    stage = Path(HOME_OF_STAGE) / "harness"
    found += _bound(PACKAGE.parent / "__init__.py", str(stage / "__init__.py"))
    found += _bound(PACKAGE, str(stage / "sandbox"))
    outside = [view for view in job.views if not below_scratch(view.target)]
    for view in sorted((*python_runtime_views(), *outside), key=_depth):
        found += _bound(view.source, view.target)
    for path in job.hidden:
        found += ["--tmpfs", str(path.absolute()), "--remount-ro", str(path.absolute())]
    found += _sized(SCRATCH, job.limits.disk_bytes)
    for view in sorted((view for view in job.views if below_scratch(view.target)), key=_depth):
        found += _bound(view.source, view.target)
    # An environment that is installed below /tmp is viewed there; TMPDIR is the scratch in any case.
    taken = any(view.target.startswith("/tmp/") for view in (*python_runtime_views(), *job.views))  # noqa: S108
    found += [] if taken else ["--symlink", SCRATCH, "/tmp"]  # noqa: S108
    return [*found, "--remount-ro", "/"]


def _depth(view: View) -> int:
    return view.target.count("/")


def _bound(source: Path, target: str) -> list[str]:
    return ["--ro-bind", str(source.absolute()), target]


def _sized(path: str, size: int) -> list[str]:
    sized = [SIZE, str(max(size, 1 << 16))] if SIZE in _options(_program()) else []
    return [*sized, "--tmpfs", path]
