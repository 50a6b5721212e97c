"""Probes of many folders, kept by what was probed and by the probe that did it: a batch goes on where it ended."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from harness import audit
from harness.probe import bounds, probing
from harness.probe.document import Probe
from harness.sandbox.backend import Sandbox
from harness.sources import evidence, probeevidence
from harness.sources.folder import walk

HERE: Final = Path(__file__).parent
NAME_LIMIT_CHARACTERS: Final = 80
KEY_CHARACTERS: Final = 16
_UNSAFE = re.compile(r"[^\w.-]")


def _nothing(_: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Store:
    """Evidence of probes below one directory; a call probes a folder, unless its evidence is there already.

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
        place = self.directory / _name(made)
        if self.fresh or not probeevidence.has_evidence(place):
            # What an interruption left is begun anew.
            probing.remove(place)
            probing.run(made, place, self.sandbox, self.tell, self.run_seconds, total_seconds=self.total_seconds)
        return place


def _name(made: Probe) -> str:
    """A name that changes with the code of the folder, the configuration that is run, and the probe."""
    code = evidence.code_sha256(evidence.code_files(walk(made.folder)))
    settings = json.dumps([made.script, made.miniature.environment, made.miniature.overrides()], sort_keys=True)
    key = hashlib.sha256(f"{code}\n{settings}\n{_probe_sha256()}".encode()).hexdigest()
    return f"{_UNSAFE.sub('_', made.folder.resolve().name)[:NAME_LIMIT_CHARACTERS]}-{key[:KEY_CHARACTERS]}"


@functools.cache
def _probe_sha256() -> str:
    """Hash of the probe's own code."""
    found = hashlib.sha256()
    for path in sorted(HERE.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()
