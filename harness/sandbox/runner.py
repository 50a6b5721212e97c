"""Run one job in a sandbox: start, watch, stop, sweep, bring out.

The watcher stands outside of the walls. Whatever the program does to the stage inside (kill it, stop it, take it
over), its limits and its end do not depend on it.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from harness.model import HarnessError
from harness.sandbox import cgroup, disk
from harness.sandbox.backend import Launch, Sandbox, tasks
from harness.sandbox.job import CHANNEL_VARIABLE, Job, Listener, Outcome, Partner, check
from harness.sandbox.pipes import POLL_SECONDS, Pipes, Pump
from harness.sandbox.pump import Answers, Bounded, Dialogue, Sink, fresh, printable
from harness.sandbox.runtime import interpreter
from harness.sandbox.spec import STOP
from harness.sandbox.tree import Tree, first_to_die, send
from harness.sandbox.watch import Watch

CODE: Final = "import sys; sys.path[:0] = [sys.argv.pop(1)]; from harness.sandbox.stage import main; main()"
START_SECONDS: Final = 20.0
GRACE_SECONDS: Final = 12.0
LONGEST_GRACE_SECONDS: Final = 180.0
OUTPUT: Final = "output.log"
CHANNEL: Final = "channel.jsonl"
KEPT: Final = "kept"
SIGNALS_OF_LIMITS: Final = {-getattr(signal, "SIGXCPU", 24): "cpu", -getattr(signal, "SIGXFSZ", 25): "disk"}


def run(
    job: Job, into: Path, *, sandbox: Sandbox, partner: Partner | None = None, listener: Listener | None = None
) -> Outcome:
    """Run a job to its end; nothing of it is alive afterwards, and only the run directory has changed.

    Args:
        job: what to run.
        into: its run directory; it must not hold an earlier run.
        sandbox: what `establish` gave.
        partner: talks with the program through the channel, which the job must have then, and its standard input.
        listener: follows the job while it runs, and may end it.

    Raises:
        HarnessError: the job cannot be run as it is meant, or the run directory is not new; or the partner's own.
        RuntimeError: a process of it could not be ended.
    """
    check(job, into)
    try:
        into.mkdir(parents=True, exist_ok=True)
        (into / KEPT).mkdir()
    except FileExistsError as error:
        raise HarnessError(f"{into}: holds a run already") from error
    launch = sandbox.backend.launch(job, into)
    try:
        with _files(job, into, partner) as (output, channel):
            output.hear = None if listener is None else listener.hear
            return _Run(job, into, sandbox, launch, Tree(0), listener).go(output, channel)
    finally:
        for file in launch.files:
            file.close()
        if launch.scratch is not None and not disk.remove(launch.scratch):
            raise RuntimeError(f"{launch.scratch}: cannot be removed")


@contextlib.contextmanager
def _files(job: Job, into: Path, partner: Partner | None) -> Iterator[tuple[Bounded, Sink | None]]:
    with contextlib.ExitStack() as stack:
        output = Bounded(stack.enter_context(fresh(into / OUTPUT)), job.limits.output_bytes)
        channel: Sink | None = None
        if partner is not None:
            channel = Dialogue(partner, job.limits.channel_bytes)
        elif job.channel:
            channel = Bounded(stack.enter_context(fresh(into / CHANNEL)), job.limits.channel_bytes)
        yield output, channel


@dataclass(slots=True)
class _Run:
    """One job while it runs."""

    job: Job
    into: Path
    sandbox: Sandbox
    launch: Launch
    tree: Tree
    listener: Listener | None = None
    started: float = 0.0
    group: cgroup.Group = field(default_factory=cgroup.Group)

    def go(self, output: Bounded, channel: Sink | None) -> Outcome:
        """From start to end."""
        limits = self.job.limits
        self.group = cgroup.create(limits.memory_bytes, tasks(self.job))
        pipes = Pipes.make(channel)
        process: subprocess.Popen[bytes] | None = None
        try:
            talks = isinstance(channel, Dialogue)
            process = self._start(pipes, talks=talks)
            answers = Answers(self.into / KEPT, limits.disk_bytes, limits.files)
            pump = Pump.make(process, pipes, answers, (output, channel))
            self.tree.root = process.pid
            watch = Watch(limits, self.tree, self.launch.scratch)
            self._begin(pump, pipes, listens=talks)
            if isinstance(channel, Dialogue) and process.stdin is not None:
                channel.begin(process.stdin.fileno())
            ended, reason = self._follow(pump, pipes, watch)
        finally:
            left = self._end(process)
            pipes.close()
        if left:
            raise RuntimeError(f"processes that cannot be ended: {list(left)}")
        return self._outcome(watch, pump, ended, reason)

    def _start(self, pipes: Pipes, *, talks: bool) -> subprocess.Popen[bytes]:
        theirs = [pipes.control[0], pipes.answer[1], *([pipes.channel[1]] if pipes.channel else [])]
        numbers = [*map(str, theirs), *([] if pipes.channel else ["-1"])]
        command = [*self.launch.prefix, interpreter(), "-I", "-S", "-c", CODE, self.launch.package, *numbers]
        process = subprocess.Popen(
            command,
            cwd="/",
            env={"LC_ALL": "C.UTF-8"},
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[*theirs, *(file.fileno() for file in self.launch.files)],
            start_new_session=True,
            bufsize=0,
        )
        pipes.started()
        return process

    def _begin(self, pump: Pump, pipes: Pipes, *, listens: bool) -> None:
        """Wait for the stage, put it into its group, and give the orders."""
        deadline = time.monotonic() + START_SECONDS
        while not pump.answers.ready and not pump.ended and time.monotonic() < deadline:
            pump.turn()
        self.started = time.monotonic()
        if not pump.answers.ready:
            return
        self.tree.look()
        self.tree.staff = frozenset(self.tree.alive)
        self.group.join(self.tree.alive)
        first_to_die(self.tree.alive)
        spec = replace(self.launch.spec, listens=listens)
        if pipes.channel:
            spec = replace(spec, environment=spec.environment | {CHANNEL_VARIABLE: str(pipes.number)})
        if self.listener is not None:
            self.listener.begin()
        pipes.tell(spec.dump())

    def _follow(self, pump: Pump, pipes: Pipes, watch: Watch) -> tuple[str, str]:
        """Watch until the stage has answered and gone; returns what ended it, if it was a limit."""
        if not pump.answers.ready:
            return "refused", "the sandbox could not be started"
        over = ("", "")
        while not pump.stage_gone and not over[0] and not pump.answers.report:
            pump.turn()
            over = self._over(pump, watch)
        if over[0]:
            # Held from outside at once: the stage may itself have been stopped by the program.
            send(self.tree.guests, signal.SIGSTOP)
            send(self.tree.staff, signal.SIGCONT)
            pipes.tell(STOP)
        if pump.stage_gone and not pump.answers.report:
            self.tree.kill()
        self._finish(pump)
        return over

    def _over(self, pump: Pump, watch: Watch) -> tuple[str, str]:
        """The limit that has been passed, or what the listener says."""
        over = pump.over() or watch.over(time.monotonic() - self.started)
        told = "" if over[0] or self.listener is None else self.listener.overdue()
        return ("wall", told) if told else over

    def _finish(self, pump: Pump) -> None:
        """Take what still comes: files that are brought out, and the rest of the output."""
        first = last = time.monotonic()
        while not pump.ended and time.monotonic() - last < GRACE_SECONDS and last - first < LONGEST_GRACE_SECONDS:
            if pump.turn():
                last = time.monotonic()
            elif pump.stage_gone:
                return

    def _end(self, process: subprocess.Popen[bytes] | None) -> tuple[int, ...]:
        """End whatever is left of it."""
        if process is None:
            self.group.close()
            return ()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)
        left = self.tree.kill()
        process.kill()
        process.wait()
        self.group.close()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        return left

    def _outcome(self, watch: Watch, pump: Pump, ended: str, reason: str) -> Outcome:
        pump.close()
        report = pump.answers.report
        code = report.get("returncode")
        code = code if isinstance(code, int) else None
        if not ended:
            ended, reason = self._by_itself(report, code)
        if ended == "refused":
            reason = f"{reason}: {printable(_tail(self.into / OUTPUT))}".removesuffix(": ")
        seconds, told, survivors = time.monotonic() - self.started, report.get("cpu_s"), report.get("survivors")
        return Outcome(
            level=self.sandbox.level,
            backend=self.sandbox.backend.name,
            ended=ended,
            reason=reason,
            returncode=code,
            seconds=seconds,
            cpu_s=max(self.tree.cpu_s, told if isinstance(told, float) else 0.0),
            peak_memory_bytes=watch.peak_memory_bytes,
            output=self.into / OUTPUT,
            channel=self.into / CHANNEL if (self.into / CHANNEL).exists() else None,
            kept=self.into / KEPT,
            skipped=tuple(pump.answers.skipped),
            survivors=survivors if isinstance(survivors, int) else 0,
        )

    def _by_itself(self, report: dict[str, object], code: int | None) -> tuple[str, str]:
        """What the end of a program means that was not stopped."""
        if report.get("refused"):
            return "refused", printable(str(report["refused"]))
        if code is None:
            return "signal", "the stage was ended before it could report"
        if code in SIGNALS_OF_LIMITS:
            return SIGNALS_OF_LIMITS[code], f"ended by signal {-code}"
        if code == -signal.SIGKILL and "memory" in self.group.controls:
            return "memory", f"used more than {self.job.limits.memory_bytes:,} bytes of memory"
        if report.get("full") is True and self.launch.scratch is None:
            return "disk", f"filled the scratch of {self.job.limits.disk_bytes:,} bytes, then ended with status {code}"
        return ("exit", f"exit status {code}") if code >= 0 else ("signal", f"ended by signal {-code}")


def _tail(path: Path) -> str:
    """The last line of what was printed: bubblewrap's own complaint, when it could not start."""
    lines = path.read_bytes()[-2000:].decode("utf-8", "replace").splitlines()
    return lines[-1] if lines else ""
