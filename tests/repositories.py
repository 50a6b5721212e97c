"""Small git repositories, made object by object so that they can be as strange as objects allow."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.sources.gitprogram import Repository, open_repository

FILE, LINK, TREE, SUBMODULE = "100644", "120000", "040000", "160000"
Content = bytes | tuple[str, str]
ABSENT_COMMIT = "1" * 40
DATE = "2026-04-01T12:00:00+00:00"


def git(directory: Path, *arguments: str, given: bytes = b"", date: str = DATE) -> str:
    """Run git as a user with a name and a clock, and nothing of the machine's settings."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@example.org",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@example.org",
        "GIT_AUTHOR_DATE": date,
        "GIT_COMMITTER_DATE": date,
    }
    program = shutil.which("git")
    assert program is not None
    done = subprocess.run(
        [program, "-C", str(directory), *arguments], input=given, capture_output=True, check=True, env=environment
    )
    return done.stdout.decode().strip()


@dataclass(frozen=True)
class Made:
    """A repository under construction."""

    path: Path

    @property
    def repository(self) -> Repository:
        return open_repository(self.path)

    def blob(self, data: bytes) -> str:
        return git(self.path, "hash-object", "-w", "--stdin", given=data)

    def tree(self, files: Mapping[str, Content]) -> str:
        """A tree of paths; a content is bytes, or (mode, object id or link target)."""
        lines: list[bytes] = []
        below: dict[str, dict[str, Content]] = {}
        for path, content in files.items():
            name, slash, rest = path.partition("/")
            if slash:
                below.setdefault(name, {})[rest] = content
            else:
                lines.append(self._line(name, content))
        lines += [self._line(name, (TREE, self.tree(inner))) for name, inner in below.items()]
        return git(self.path, "mktree", "-z", "--missing", given=b"".join(lines))

    def _line(self, name: str, content: Content) -> bytes:
        if isinstance(content, bytes):
            mode, object_id = FILE, self.blob(content)
        else:
            mode, object_id = content
            object_id = self.blob(object_id.encode()) if mode == LINK else object_id
        kind = {TREE: "tree", SUBMODULE: "commit"}.get(mode, "blob")
        return f"{mode} {kind} {object_id}\t".encode() + os.fsencode(name) + b"\0"

    def commit(self, files: Mapping[str, Content], *parents: str, branch: str = "", date: str = DATE) -> str:
        options = [part for parent in parents for part in ("-p", parent)]
        made = git(self.path, "commit-tree", *options, "-m", "a commit", self.tree(files), date=date)
        if branch:
            git(self.path, "update-ref", f"refs/heads/{branch}", made)
        return made


def make(path: Path, *, bare: bool = True) -> Made:
    path.mkdir(parents=True)
    git(path, "init", "--quiet", "--initial-branch=main", *(["--bare"] if bare else []))
    return Made(path)
