"""Probes of many folders, kept by what was probed and by the probe that did it: a batch goes on where it ended."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from harness import audit
from harness.model import HarnessError
from harness.probe import bounds, probing
from harness.probe.document import Probe
from harness.sandbox.backend import Sandbox
from harness.sources import evidence, probeevidence
from harness.sources.folder import walk

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent
# What makes the runs, and what reads their output, with all that this imports.
CODE: Final = ("probe", "sandbox")
READER: Final = "harness.probe.printed"
# How much time a probe had, beside its evidence.
TIMES: Final = "times.json"
OUT_OF_TIME: Final = frozenset({"wall", "cpu"})
NAME_LIMIT_CHARACTERS: Final = 80
KEY_CHARACTERS: Final = 16
_UNSAFE = re.compile(r"[^\w.-]")


def _nothing(_: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Store:
    """Evidence of probes below one directory; a call probes a folder, unless its evidence is there already.

    Where a run was cut by its limit, evidence is made again once there is more time.

    Attributes:
        directory: where each folder's evidence directory goes.
        sandbox: what `establish` gave.
        run_seconds: wall time of one run.
        total_seconds: wall time of all runs of one folder.
        fresh: whether evidence that is there is removed first.
        tell: gets one line for each run.
    """

    directory: Path
    sandbox: Sandbox
    run_seconds: float = bounds.RUN_SECONDS
    total_seconds: float = bounds.TOTAL_SECONDS
    fresh: bool = False
    tell: Callable[[str], None] = field(default=_nothing, compare=False)

    def __call__(self, folder: Path) -> Path:
        """The evidence directory of a folder.

        Raises:
            HarnessError: the folder cannot be probed, or evidence cannot be written.
        """
        made = probing.prepare(folder, audit.read(folder, None))
        place = self.directory / _name(made, self.sandbox)
        if self.fresh or not probeevidence.has_evidence(place) or self._cut(place):
            # What an interruption left is begun anew.
            probing.remove(place)
            probing.run(made, place, self.sandbox, self.tell, self.run_seconds, total_seconds=self.total_seconds)
            times = {"run_seconds": self.run_seconds, "total_seconds": self.total_seconds}
            (place / TIMES).write_text(json.dumps(times) + "\n", encoding="ascii")
        return place

    def _cut(self, place: Path) -> bool:
        """Whether evidence is of runs that were cut, and there is more time now."""
        try:
            ends = {run["ended"] for run in probeevidence.read(place)["runs"]}
            times = json.loads((place / TIMES).read_text(encoding="ascii"))
            run_seconds, total_seconds = float(times["run_seconds"]), float(times["total_seconds"])
        except (HarnessError, OSError, ValueError, TypeError, KeyError):
            return True
        return bool(ends & OUT_OF_TIME) and (self.run_seconds > run_seconds or self.total_seconds > total_seconds)


def _name(made: Probe, sandbox: Sandbox) -> str:
    """A name that changes with the code of the folder, the configuration that is run, where, and the probe."""
    code = evidence.code_sha256(evidence.code_files(walk(made.folder)))
    chosen = [made.script, made.miniature.environment, made.miniature.overrides(), sorted(made.wanted)]
    settings = json.dumps(chosen, sort_keys=True)
    where = f"{sandbox.level} {sandbox.backend.name} {_torch()}"
    key = hashlib.sha256(f"{code}\n{settings}\n{where}\n{_probe_sha256()}".encode()).hexdigest()
    return f"{_UNSAFE.sub('_', made.folder.resolve().name)[:NAME_LIMIT_CHARACTERS]}-{key[:KEY_CHARACTERS]}"


def _torch() -> str:
    """The version of torch, which is not imported."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("torch")
    return ""


@functools.cache
def _probe_sha256() -> str:
    """Hash of the code that runs scripts, and of that which reads their output."""
    found = hashlib.sha256()
    paths = {path for folder in CODE for path in (ROOT / folder).rglob("*.py")} | set(_imported(READER))
    for path in sorted(paths):
        found.update(path.read_bytes())
    return found.hexdigest()


def _imported(name: str) -> Iterator[Path]:
    """The file of a module of ours, and of all that it imports."""
    todo, seen = [name], set()
    while todo:
        each = todo.pop()
        path = ROOT.joinpath(*each.split(".")[1:])
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if each in seen or not path.is_file():
            continue
        seen.add(each)
        yield path
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("harness"):
                todo += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
