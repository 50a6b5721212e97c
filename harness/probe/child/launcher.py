"""Runs the script of a plan as `__main__`, on a machine that looks like one with CUDA."""

from __future__ import annotations

import os
import random
import shutil
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path

from .clock import Clock
from .crash import report
from .events import channel, open_channel
from .lines import Lines
from .overrides import Overrides
from .plan import Plan, read_plan
from .ranks import launch
from .source import Sources, newer_parser


def main() -> None:
    """Run the plan that the command line names; the exit status is the script's."""
    plan = read_plan(sys.argv[1])
    for source, target in plan.copied.items():
        shutil.copytree(source, target, symlinks=True)
    if plan.rank < 0:
        sys.exit(launch(plan))
    clock = Clock(plan.clock)
    open_channel(clock.now).marks["rank"] = plan.rank
    channel().emit("begin", folders=[plan.folder, os.path.realpath(plan.folder)])
    os.environ.update(plan.environment)
    _ranks(plan)
    os.chdir(plan.workdir)
    script = Path(plan.script).resolve()
    overrides = Overrides(plan.overrides)
    sources = Sources(script.parent, overrides, newer_parser(plan.newer_parser))
    _install(plan, clock, sources)
    finishers = _traced(plan)
    lines = Lines(sources.own)
    sys.argv = [str(plan.script), *plan.argv]
    # The script's folder comes first, as it would; this package has been imported already.
    sys.path.insert(0, str(script.parent))
    if plan.lines:
        lines.install()
    status = _run(plan, sources)
    _finished(("lines", lambda: lines.report(channel().emit)), *finishers, ("overrides", overrides.report))
    channel().emit("end", status=status)
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads that a script forgets must not keep the process.
    os._exit(status)


def _traced(plan: Plan) -> list[tuple[str, Callable[[], None]]]:
    """Begin to watch scores and updates where the plan says so; returns what ends it, by name and in order."""
    if not plan.trace:
        return []
    from . import told, tracer

    follower = tracer.install(plan, channel().emit)
    ledger = follower.ledger
    told.install(os.path.dirname(os.path.realpath(plan.script)), channel().emit, lambda: ledger.at)
    if (plan.experiment or {}).get("flips"):
        from . import flips

        return [("flips", flips.install(plan, ledger, channel())), ("tracer", tracer.finish)]
    return [("tracer", tracer.finish)]


def _finished(*finishers: tuple[str, Callable[[], None]]) -> None:
    """Let each tell what it has seen; one that cannot must not keep the others from it."""
    for name, finish in finishers:
        try:
            finish()
        except Exception as error:  # noqa: BLE001 - the run has ended, and its other events are needed
            channel().emit("unfinished", name=name, error=f"{type(error).__name__}: {error}"[:300])


def _ranks(plan: Plan) -> None:
    """What torchrun would say."""
    os.environ.update(
        RANK=str(plan.rank),
        LOCAL_RANK=str(plan.rank),
        WORLD_SIZE=str(plan.world_size),
        LOCAL_WORLD_SIZE=str(plan.world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(plan.port),
        GLOO_SOCKET_IFNAME="lo",
    )


def _install(plan: Plan, clock: Clock, sources: Sources) -> None:
    import numpy as np
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from .shims import (
        amp,
        attention,
        compile,
        compressors,
        cuda,
        distributed,
        fla,
        flex,
        mamba_modules,
        modules,
        several,
        triton,
    )

    random.seed(plan.seed)  # noqa: TID251 - the script's own generator
    np.random.default_rng(plan.seed)
    torch.manual_seed(plan.seed)
    cuda.install(plan.world_size, plan.rank, clock, sources)
    amp.install()
    compile.install()
    attention.install()
    flex.install()
    mamba_modules.install()
    fla.install()
    triton.install()
    modules.install()
    compressors.install()
    if plan.world_size == 1:
        distributed.install()
    else:
        several.install(plan.rank, plan.world_size, plan.store)
    if plan.clock:
        register_optimizer_step_post_hook(clock.step)
        clock.install()
    sources.install()


def _run(plan: Plan, sources: Sources) -> int:
    """Run the script; returns the exit status."""
    module = types.ModuleType("__main__")
    module.__file__ = plan.script
    module.__builtins__ = __builtins__  # type: ignore[attr-defined]
    sys.modules["__main__"] = module
    try:
        code = sources.code(Path(plan.script).read_bytes(), plan.script)
        exec(code, module.__dict__)  # noqa: S102 - this is what the sandbox is for
    except SystemExit as error:
        return _status(error)
    except BaseException as error:  # noqa: BLE001 - whatever a script raises is reported
        traceback.print_exc()
        report(error, sources)
        return 1
    return 0


def _status(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)  # noqa: T201 - as the interpreter does
    return 1
