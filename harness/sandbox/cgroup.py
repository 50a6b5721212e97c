"""A control group of our own, where that is ours to make: a hard limit on memory and tasks, and a sure end.

A group that somebody else made for this process is not ours to divide, unless it was handed over (systemd marks
such groups) or the process stands at the root of the hierarchy as it sees it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.sandbox.tree import PROC, send

ROOT: Final = Path("/sys/fs/cgroup")
OWN: Final = Path("/proc/self/cgroup")
DELEGATED: Final = ("user.delegate", "trusted.delegate")
KILL_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Group:
    """Folders of the control file system, one for each hierarchy.

    Attributes:
        folders: where the group lies.
        controls: what it limits: `memory`, `pids`.
    """

    folders: tuple[Path, ...] = ()
    controls: tuple[str, ...] = ()

    def join(self, pids: Iterable[int]) -> None:
        """Put processes into it; their children follow."""
        for folder in self.folders:
            for pid in pids:
                with contextlib.suppress(OSError):
                    (folder / "cgroup.procs").write_text(str(pid), encoding="ascii")

    def close(self) -> None:
        """End what is still in it, and remove it."""
        deadline = time.monotonic() + KILL_SECONDS
        for folder in self.folders:
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError):
                    send(map(int, (folder / "cgroup.procs").read_text(encoding="ascii").split()), signal.SIGKILL)
                with contextlib.suppress(OSError):
                    folder.rmdir()
                if not folder.exists():
                    break
                time.sleep(0.01)


def create(memory_bytes: int, tasks: int) -> Group:
    """A group with these limits, in as many hierarchies as are ours to divide; an empty one otherwise."""
    name = f"{_prefix()}{os.getpid()}-{secrets.token_hex(4)}"
    values = {"memory.limit_in_bytes": memory_bytes, "memory.max": memory_bytes, "pids.max": tasks}
    folders, controls = [], []
    for folder, names in _homes():
        _sweep(folder)
        group = folder / name
        with contextlib.suppress(OSError):
            group.mkdir()
            made = [file for file, value in values.items() if _set(group / file, value)]
            folders.append(group)
            controls += [file.partition(".")[0] for file in made if file.partition(".")[0] in names]
    return Group(tuple(folders), tuple(controls))


def _prefix() -> str:
    """Process numbers mean something in their own namespace only, so that its number belongs to the name."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - a link that is none
    except OSError:
        space = 0
    return f"harness-{space}-"


def _sweep(folder: Path) -> None:
    """Remove what a killed harness has left here: empty groups of processes that are gone."""
    for group in folder.glob(f"{_prefix()}*"):
        maker = group.name.removeprefix(_prefix()).partition("-")[0]
        if not (PROC / maker).exists():
            with contextlib.suppress(OSError):
                group.rmdir()


def _set(file: Path, value: int) -> bool:
    try:
        file.write_text(str(value), encoding="ascii")
    except OSError:
        return False
    return True


def _homes() -> list[tuple[Path, tuple[str, ...]]]:
    """Groups of this process that are ours to divide, with what they control."""
    try:
        lines = OWN.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, names, path = line.split(":", 2)
        wanted = tuple(name for name in names.split(",") if name in {"memory", "pids"})
        folder = ROOT / names if names else ROOT
        if names and not wanted:
            continue
        controls = wanted or _second_version(folder / path.lstrip("/"))
        home = folder / path.lstrip("/")
        if controls and os.access(home, os.W_OK) and (path == "/" or _handed_over(home)):
            found.append((home, controls))
    return found


def _second_version(home: Path) -> tuple[str, ...]:
    """Controllers that a group of the unified hierarchy passes on to its children."""
    try:
        names = (home / "cgroup.subtree_control").read_text(encoding="ascii").split()
    except OSError:
        return ()
    return tuple(name for name in names if name in {"memory", "pids"})


def _handed_over(home: Path) -> bool:
    for name in DELEGATED:
        with contextlib.suppress(OSError, AttributeError):
            if os.getxattr(home, name) == b"1":
                return True
    return False
