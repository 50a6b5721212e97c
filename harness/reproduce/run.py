"""Run a plan, seed by seed, into an evidence directory that can be resumed."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from harness.model import HarnessError
from harness.reproduce import seed, trusted
from harness.reproduce.plan import Plan
from harness.reproduce.progress import Progress
from harness.reproduce.rebuild import Rebuilder
from harness.reproduce.seed import Machine
from harness.sources import evidence

UNSAFE_LEVELS: Final = ("L0", "L1")
LOCK_NAME: Final = ".lock"


def run(plan: Plan, directory: Path, machine: Machine, progress: Progress) -> None:
    """Run every seed of a plan that has not been run yet.

    A seed whose `run.json` exists is kept, whatever its outcome; one that was interrupted is repeated from nothing.

    Raises:
        HarnessError: the directory lies inside the submission, or holds the evidence of another plan.
    """
    prepare(plan, directory, machine)
    with _locked(directory):
        _run_waiting(plan, directory, machine, progress)


def _run_waiting(plan: Plan, directory: Path, machine: Machine, progress: Progress) -> None:
    """Run the seeds that have no `run.json`."""
    kept = tuple(number for number in plan.seeds if _is_finished(directory, number))
    waiting = tuple(number for number in plan.seeds if number not in kept)
    progress.planned(waiting, kept)
    for number in waiting:
        document = run_seed(plan, number, directory, machine, progress)
        progress.finished(number, summary(document))


def run_seed(plan: Plan, number: int, directory: Path, machine: Machine, progress: Progress) -> dict[str, Any]:
    """Run one seed and write its `run.json` as the last thing."""
    target = seed.fresh_directory(plan, number, directory)
    trained = seed.train(plan, number, target, machine, progress)
    rebuilt = Rebuilder(plan, number, target, machine, progress).run(trained)
    document = seed.document(plan, number, trained, rebuilt)
    for name in (seed.HOME, seed.SCRATCH, seed.DATA):
        shutil.rmtree(target / name, ignore_errors=True)
    evidence.write(target / evidence.RUN_NAME, document)
    return document


def refuse_untrusted(plan: Plan, isolation: str, *, allow_unsafe: bool) -> None:
    """Refuse to run other people's code without isolation.

    Raises:
        HarnessError: the code is not this project's own, isolation is weak, and the user does not insist.
    """
    if allow_unsafe or not isolation.startswith(UNSAFE_LEVELS) or trusted.is_trusted(plan.code):
        return
    raise HarnessError(
        f"{plan.folder.root}: not one of this project's own submissions, and the isolation here is {isolation}: the "
        "script would run as you, with your files and your network. Run it in a container or a virtual machine, "
        "with --allow-unsafe"
    )


def prepare(plan: Plan, directory: Path, machine: Machine) -> None:
    """Make the evidence directory, or check that it belongs to this plan.

    Raises:
        HarnessError: it does not, or it lies inside the submission's folder.
    """
    root, target = plan.folder.root.resolve(), directory.resolve()
    if target == root or target.is_relative_to(root):
        raise HarnessError(f"{directory}: evidence may not lie inside the submission's folder")
    settings = plan.settings()
    if evidence.has_plan(directory):
        _check_same(directory, settings)
        return
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise HarnessError(f"{directory}: neither empty nor an evidence directory")
    directory.mkdir(parents=True, exist_ok=True)
    document = {
        "schema": "plan/1",
        "folder": plan.folder.name,
        "folder_sha256": evidence.code_sha256(plan.code),
        "plan_sha256": evidence.canonical_sha256(settings),
        "settings": settings,
        "differences": list(plan.differences),
        "unknown": plan.unknown,
        "isolation": machine.executor.isolation,
        "accelerators": machine.accelerators,
    }
    evidence.write(directory / evidence.PLAN_NAME, document)


def summary(document: dict[str, Any]) -> str:
    """One line on a finished seed."""
    if document["outcome"] != "ok":
        return f"{document['outcome']}: {document['detail']}"
    bytes_total = document["code_bytes"] + document["artifact"]["bytes"]
    told = f"val_bpb {document['val_bpb']:.4f}, {document['steps'] or 0} steps, {bytes_total:,} bytes"
    return f"{told}, {document['seconds']:.0f} s"


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keep a second command off the directory; the lock goes with the process, however it ends."""
    with (directory / LOCK_NAME).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise HarnessError(f"{directory}: another harness is running in it") from error
        yield


def accelerators(caller: Mapping[str, str]) -> int:
    """How many CUDA devices a run can see."""
    if caller.get("CUDA_VISIBLE_DEVICES", "all") in {"", "-1"}:
        return 0
    return sum(1 for _ in Path("/dev").glob("nvidia[0-9]*"))


def default_directory(plan: Plan, parent: Path) -> Path:
    """Where a plan's evidence goes when the user does not say: another plan gets another directory."""
    return parent / f"{plan.folder.name}-{evidence.canonical_sha256(plan.settings())[:12]}"


def remove(directory: Path) -> None:
    """Remove an evidence directory, to start over.

    Raises:
        HarnessError: it holds something else.
    """
    if directory.exists() and any(directory.iterdir()) and not evidence.has_plan(directory):
        raise HarnessError(f"{directory}: not an evidence directory, not removed")
    if directory.exists():
        shutil.rmtree(directory)


def _is_finished(directory: Path, number: int) -> bool:
    return (evidence.seed_directory(directory, number) / evidence.RUN_NAME).is_file()


def _check_same(directory: Path, settings: dict[str, Any]) -> None:
    before = evidence.read(directory).plan["settings"]
    changed = sorted(name for name, value in settings.items() if before[name] != value)
    if changed:
        raise HarnessError(
            f"{directory}: holds evidence of another plan ({', '.join(changed)} differ); choose another directory, "
            "or start over with --fresh"
        )
