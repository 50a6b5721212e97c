"""Which executor a reproduction gets: behind the strongest walls that hold here and let its jobs work."""

from __future__ import annotations

from collections.abc import Callable

from harness.reproduce.executors.base import Executor
from harness.reproduce.executors.local import LocalExecutor
from harness.reproduce.executors.sandboxed import SandboxExecutor
from harness.sandbox.backend import Sandbox
from harness.sandbox.establish import establish
from harness.sandbox.levels import Level


def choose(processes: int | None, accelerators: int, find: Callable[[], Sandbox] = establish) -> tuple[Executor, str]:
    """The executor, and why it is a weaker one than the sandbox here, or "".

    Args:
        processes: torchrun's number; None for plain `python`.
        accelerators: CUDA devices of the machine.
        find: finds the sandbox.
    """
    if accelerators:
        return LocalExecutor(), "the sandbox does not pass CUDA devices on"
    sandbox = find()
    if sandbox.level.trusted_only:
        told = "; ".join(f"{name}: {why}" for name, why in sandbox.passed_over)
        return LocalExecutor(), told or "no stronger level works here"
    if processes is not None and sandbox.level is Level.L2:
        return LocalExecutor(), f"at {sandbox.level} several processes cannot meet: there is no network at all"
    return SandboxExecutor(sandbox), ""
