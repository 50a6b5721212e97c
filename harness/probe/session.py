"""One miniature run of a submission's script: a copy of its folder, a small world and the child, put into a sandbox."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from harness.facts.scorekinds import Kinds
from harness.model import HarnessError
from harness.probe import eventlines
from harness.probe.miniature import Miniature
from harness.probe.printed import NOT_KNOWN, Printed, printed
from harness.probe.world import World
from harness.sandbox import runner
from harness.sandbox.backend import Sandbox
from harness.sandbox.job import MIB, Job, Limits, Outcome, View
from harness.sandbox.runtime import interpreter

CHILD: Final = Path(__file__).parent / "child"
# The reader of newer f-strings and what it needs; both use the standard library alone.
PARSER: Final = tuple(Path(__file__).parents[1] / "sources" / name for name in ("fstrings.py", "textlines.py"))
SHIPPED: Final = "/probe/submission"
# The script runs in a copy: some compile a helper beside themselves.
SUBMISSION: Final = "/scratch/submission"
WORK: Final = "/scratch/work"
WORLD: Final = "/probe/world"
LOG_LIMIT_BYTES: Final = 16 * MIB
EVENTS_LIMIT: Final = 200_000
EVENT_LIMIT_CHARACTERS: Final = 4_000_000
# Files that may be the artifact; the data stands below the same folder.
KEPT: Final = tuple(
    f"{folder}/*.{ending}"
    for folder in ("work", "submission")
    for ending in "ptz pt pth bin zst zstd xz lzma br gz zip zlib npz npy safetensors pkl int8 int6".split()  # noqa: SIM905
)
# Seconds of the virtual clock: when it starts, and how far a look at it and a step move it on.
CLOCK: Final[Mapping[str, float]] = {"start_s": 1_767_225_600.0, "per_call_s": 0.0005, "per_step_s": 0.05}


@dataclass(frozen=True, slots=True)
class Request:
    """What is run.

    Attributes:
        folder: the record folder; nothing is written into it.
        script: the training script's path in it.
        miniature: the configuration.
        world: the data.
        seconds: wall time that it may take.
        traced: validation shards below the world's folder by which scores and updates are followed; empty: they are
            not.
        flips: where to fork and what to change in each copy, as the child reads it; None: nothing.
        ranks: processes of the world; more than one meet over gloo.
        wanted: what is done in the evaluation whose score is claimed.
    """

    folder: Path
    script: str
    miniature: Miniature
    world: World
    seconds: float
    traced: tuple[str, ...] = ()
    flips: Mapping[str, Any] | None = None
    ranks: int = 1
    wanted: Kinds = NOT_KNOWN


@dataclass(frozen=True, slots=True)
class MiniatureRun:
    """What one run came to.

    Attributes:
        outcome: how the sandboxed command ended.
        events: what the child told, in order.
        printed: its score, loss and sizes, as it printed them.
        files: SHA-256 and size in bytes of each file that it left and that may be the artifact, by path.
        damaged: events that could not be read.
        wanted: what is done in the evaluation whose score is claimed.
    """

    outcome: Outcome
    events: tuple[Mapping[str, Any], ...]
    printed: Printed = field(default_factory=Printed)
    files: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    damaged: int = 0
    wanted: Kinds = NOT_KNOWN

    def artifact(self) -> tuple[str, str] | None:
        """Path and SHA-256 of the one file that has the printed size of the model; None where that is not clear.

        Where no size is told as that of the model, it is the smallest file, if its size was printed at all.
        """
        told = self.printed.model_bytes
        least = min((size for _, size in self.files.values()), default=None)
        wanted = told if told is not None else least if least in self.printed.sizes else None
        found = [(path, digest) for path, (digest, size) in self.files.items() if size == wanted]
        return found[0] if len(found) == 1 else None

    @property
    def val_bpb(self) -> float | None:
        """The headline that the script printed; None when it printed none."""
        return self.printed.val_bpb

    @property
    def val_loss(self) -> float | None:
        """The loss beside it, in nats per token."""
        return self.printed.val_loss

    @property
    def crash(self) -> Mapping[str, Any] | None:
        """The error that ended it; not one that ended a copy of the process, which an experiment makes."""
        return next((event for event in self.of("crash") if "variant" not in event), None)

    def shipped(self, path: object) -> str | None:
        """The path in the submission's folder of a file that the child names; None for one that lies elsewhere."""
        told = next(iter(self.of("begin")), {}).get("folders")
        for folder in told if isinstance(told, list) else ():
            if isinstance(path, str) and folder and path.startswith(f"{folder}/"):
                return path.removeprefix(f"{folder}/")
        return None

    def of(self, kind: str) -> tuple[Mapping[str, Any], ...]:
        """The events of one kind."""
        return tuple(event for event in self.events if event.get("kind") == kind)


@dataclass(slots=True)
class _Events:
    found: list[Mapping[str, Any]] = field(default_factory=list)
    damaged: int = 0


def run(request: Request, into: Path, sandbox: Sandbox) -> MiniatureRun:
    """Run a script once.

    Args:
        request: what to run.
        into: the run directory, which must be new and outside of the record folder.
        sandbox: what `establish` gave.

    Raises:
        HarnessError: the run directory is not new, or lies in the folder.
    """
    if into.resolve().is_relative_to(request.folder.resolve()):
        raise HarnessError(f"{into}: a run directory may not lie inside of the submission's folder")
    with tempfile.TemporaryDirectory(prefix="harness-child-") as place:
        outcome = runner.run(_job(request, _packages(Path(place))), into, sandbox=sandbox)
    events = _read_events(outcome.channel, request.world.val_tokens)
    return MiniatureRun(
        outcome,
        tuple(events.found),
        _printed(outcome, request.wanted),
        _files(outcome.kept),
        events.damaged,
        request.wanted,
    )


def _packages(place: Path) -> Path:
    """A folder with the child as a package, and with the parser beside it: levels without namespaces see real paths."""
    shutil.copytree(CHILD, place / "packages" / "pgchild", ignore=shutil.ignore_patterns("__pycache__"))
    for path in PARSER:
        (place / "packages" / "pgchild_parser").mkdir(exist_ok=True)
        shutil.copyfile(path, place / "packages" / "pgchild_parser" / path.name)
    return place / "packages"


def _job(request: Request, packages: Path) -> Job:
    plan = {
        "script": f"{SUBMISSION}/{request.script}",
        "folder": SUBMISSION,
        "workdir": WORK,
        "environment": request.miniature.environment,
        "overrides": request.miniature.overrides(),
        "clock": dict(CLOCK),
        "rank": 0 if request.ranks == 1 else -1,
        "world_size": request.ranks,
        "trace": bool(request.traced),
        "lines": bool(request.traced) and request.flips is None and request.ranks == 1,
        "experiment": {"validation": [f"{WORK}/data/{shard}" for shard in request.traced], "flips": request.flips},
        "newer_parser": "/probe/packages/pgchild_parser",
    }
    # Copies of the process change the data; only what lies in the scratch can be changed.
    data = WORLD if request.flips else f"{WORK}/data"
    plan["copied"] = {SHIPPED: SUBMISSION} | ({WORLD: f"{WORK}/data"} if request.flips else {})
    views = (
        View(request.folder.resolve(), SHIPPED),
        View(packages, "/probe/packages"),
        View(request.world.folder.resolve(), data),
    )
    limits = Limits(
        memory_bytes=6_000 * MIB,
        processes=48,
        disk_bytes=2_000 * MIB,
        file_bytes=1_000 * MIB,
        cpu_s=4 * request.seconds,
        wall_s=request.seconds,
        output_bytes=LOG_LIMIT_BYTES,
    )
    # The plan stands in the command: paths in it are put right for the level in force.
    command = (interpreter(), "-P", "-m", "pgchild", json.dumps(plan))
    environment = {
        "PYTHONPATH": "/probe/packages",
        # The threads of a library do not come along into a copy of the process.
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return Job(command, views, WORK, environment, limits, keep=KEPT, channel=True)


def _read_events(channel: Path | None, tokens: int) -> _Events:
    """The events; what the script itself wrote into the channel is data like any other and may be damaged."""
    events = _Events()
    reader = eventlines.Reader(tokens)
    for line in _lines(channel):
        event = reader.event(line)
        if event is None:
            events.damaged += 1
        else:
            events.found.append(event)
    return events


def _lines(channel: Path | None) -> Iterator[str]:
    if channel is None or not channel.exists():
        return
    with channel.open(encoding="utf-8", errors="replace") as file:
        for _ in range(EVENTS_LIMIT):
            line = file.readline(EVENT_LIMIT_CHARACTERS)
            if not line:
                return
            yield line


def _printed(outcome: Outcome, wanted: Kinds) -> Printed:
    with outcome.output.open("rb") as file:
        return printed(file.read(LOG_LIMIT_BYTES), outcome.output.name, wanted)


def _files(kept: Path) -> dict[str, tuple[str, int]]:
    """The files that were brought out, without those of the world."""
    found: dict[str, tuple[str, int]] = {}
    for path in sorted(kept.rglob("*")):
        name = path.relative_to(kept).as_posix()
        if path.is_file() and not path.is_symlink() and not name.startswith("work/data/"):
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size
    return found
