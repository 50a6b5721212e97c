"""Probes of many folders, some at a time: one that cannot be probed, or ends the harness, ends nothing else."""

from __future__ import annotations

import dataclasses
import functools
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from harness import audit
from harness.audit import Audited, Options
from harness.model import HarnessError
from harness.probe.store import Store
from harness.workers import each

# Beyond the runs: reading the folder, making the worlds, judging.
MARGIN_SECONDS: Final = 300.0


def probe_each(
    folders: Sequence[Path], store: Store, options: Options, *, workers: int, tell: Callable[[str], None]
) -> Iterator[Audited]:
    """Probe and audit folders, and yield each end in the folders' order.

    Args:
        folders: record folders.
        store: where evidence is kept, and how long it may take.
        options: how folders are audited; the evidence is added.
        workers: folders at a time; more than one run in processes of their own.
        tell: a module's function; gets one line for each run and each end, which names the folder where several run.
    """
    if workers <= 1:
        for number, folder in enumerate(folders, 1):
            tell(f"{number}/{len(folders)}: {folder}")
            yield _one(dataclasses.replace(store, tell=tell), options, folder)
        return
    ended: dict[Path, Audited] = {}
    waiting = list(folders)
    told = dataclasses.replace(store, tell=tell)
    work = functools.partial(_named, told, options)
    for number, done in enumerate(
        each(work, folders, workers=workers, seconds=store.total_seconds + MARGIN_SECONDS), 1
    ):
        crashed = Audited(crashes=(f"{done.task}: {done.failure}",))
        ended[done.task] = done.result if done.result is not None else crashed
        tell(f"{number}/{len(folders)}: {done.task} ended after {done.seconds:.0f} s")
        while waiting and waiting[0] in ended:
            yield ended.pop(waiting.pop(0))


def _named(store: Store, options: Options, folder: Path) -> Audited:
    """Probe one folder among several, each of whose lines says whose it is."""
    tell = store.tell
    return _one(dataclasses.replace(store, tell=lambda line: tell(f"{folder.name}: {line}")), options, folder)


def _one(store: Store, options: Options, folder: Path) -> Audited:
    try:
        directory = store(folder)
    except HarnessError as problem:
        return Audited(refused=str(problem))
    except Exception as error:  # noqa: BLE001 - one folder's end is not that of the others
        told = "".join(traceback.format_exception_only(error)).strip()
        return Audited(crashes=(f"{folder}: the probe ended with {told}",))
    return audit.audit_folder(folder, dataclasses.replace(options, probe=directory))
