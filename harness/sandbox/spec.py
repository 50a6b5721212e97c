"""What the harness tells the stage, the small supervisor that starts the program from inside. Standard library only."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Final

STOP: Final = b"S"


@dataclass(frozen=True, slots=True)
class Spec:
    """One program, as the stage sees it.

    Attributes:
        argv: the command.
        environment: all of it.
        workdir: where it starts.
        folders: made before.
        links: made before: the path and what it points to.
        rlimits: resource limits by name (`CPU`): soft and hard.
        calls: which system calls are refused: `none`, `shared` (the machine's own network and processes are in
            reach), `own` (they are not).
        landlock: whether files are closed by Landlock.
        readable: paths that stay readable then.
        writable: paths that stay writable then.
        listable: folders whose names stay readable then, and nothing more.
        listens: whether standard input stays what it is; it is empty otherwise.
        scratch: the scratch.
        keep: patterns of what is brought out of it.
        keep_bytes: at most so much.
        keep_files: at most so many.
    """

    argv: list[str]
    environment: dict[str, str]
    workdir: str
    scratch: str
    folders: list[str] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    rlimits: dict[str, tuple[int, int]] = field(default_factory=dict)
    calls: str = "none"
    landlock: bool = False
    readable: list[str] = field(default_factory=list)
    writable: list[str] = field(default_factory=list)
    listable: list[str] = field(default_factory=list)
    listens: bool = False
    keep: list[str] = field(default_factory=list)
    keep_bytes: int = 0
    keep_files: int = 0

    def dump(self) -> bytes:
        """As bytes for the control pipe: the length in eight digits, then JSON."""
        body = json.dumps(dataclasses.asdict(self)).encode("ascii")
        return b"%08d" % len(body) + body


def load(body: bytes) -> Spec:
    """The other direction."""
    return Spec(**json.loads(body))
