"""One copy of the process for each variant, made where the script opens its artifact."""

from __future__ import annotations

import gc
import os
import re
import select
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy.ma  # noqa: F401 - else each copy imports it
import torch

from ..events import Channel
from ..tracer.files import mode_of
from ..tracer.ledger import Ledger
from ..tracer.positions import Shard
from ..tracer.rows import Rows
from .accounts import Accounts
from .holders import Holders
from .scratch import Scratch
from .sums import Sum, now, tell
from .texts import changed
from .weights import Trained, damage

# Bytes of scores that a copy may tell.
BYTES = 6_000_000
PRINTED_CHARACTERS = 6_000
TICK_S = 0.02


def install(plan: Any, ledger: Ledger, channel: Channel) -> Callable[[], None]:
    """Begin to wait for the artifact; returns what ends it.

    Args:
        plan: the plan; `experiment["flips"]` has a pattern for the artifact's name, when to fork, and the variants.
        ledger: the tracer's.
        channel: where events go.
    """
    torch.set_num_threads(1)
    # Threads of the library do not come along into a copy.
    torch.set_num_threads = lambda count: None  # type: ignore[assignment]
    forks = Forks(plan, ledger, channel)
    sys.addaudithook(forks.hook)
    return forks.finish


class Forks:
    """Waits for the artifact to be opened, then runs every variant to its end, one after the other.

    Args:
        plan: the plan.
        ledger: the tracer's.
        channel: where events go.
    """

    def __init__(self, plan: Any, ledger: Ledger, channel: Channel) -> None:
        self._order: Mapping[str, Any] = plan.experiment["flips"]
        self._paths = list(plan.experiment["validation"])
        self._folder = Path(plan.workdir).resolve()
        self._ledger, self._channel = ledger, channel
        self._accounts: Accounts | None = None
        self._done = self._busy = False
        self._trained = Trained()
        tokens = ledger.shard.tokens
        # What a cache holds of a token shows in that token's own entry of the row.
        texts = [tokens, *(changed(tokens, each) for each in self._order["variants"])]
        watched = {place: sorted({int(text[place]) for text in texts}) for place in self._order["watched"]}
        self._ledger.rows = Rows(watched, channel.emit)
        self._ledger.bytes_limit = BYTES

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        """An audit hook."""
        if self._done or self._busy or event != "open" or not isinstance(args[0], (str, bytes)):
            return
        self._busy = True
        try:
            if self._is_time(os.fsdecode(args[0]), mode_of(args)):
                self._done = True
                with torch._C.DisableTorchFunction(), torch.no_grad():
                    self._fork(Path(os.fsdecode(args[0])))
        finally:
            self._busy = False

    def finish(self) -> None:
        """Tell what the accounts came to."""
        self._done = True
        if self._accounts is not None:
            self._accounts.finish()

    def _is_time(self, path: str, mode: str) -> bool:
        if re.fullmatch(self._order["artifact"], os.path.basename(path)) is None:
            return False
        reading = mode.startswith("r") and "+" not in mode
        return reading and os.path.exists(path) if self._order["when"] == "read" else not reading

    def _fork(self, artifact: Path) -> None:
        """Run the variants; returns in the copies, which go on, and at last in the process itself."""
        began, limit = now(), float(self._order["seconds"])
        holders = Holders(self._ledger.shard, self._paths, str(self._folder / "data"))
        scratch = Scratch(self._folder)
        # What is looked at by the collector is written to, and so copied, in every copy.
        gc.freeze()
        self._channel.emit("forks", at=self._ledger.at, holders=len(holders), artifact=artifact.name)
        for variant in self._order["variants"]:
            left = limit - (now() - began)
            if left <= 1:
                self._channel.emit("variant", name=variant["name"], ended="left out", seconds=0.0)
                continue
            if self._copy(variant, left):
                if "sum" in variant:
                    self._account()
                    self._sum(variant["sum"], holders)
                else:
                    self._become(variant, holders, artifact)
                return
            scratch.restore()
        self._account()

    def _copy(self, variant: Mapping[str, Any], seconds: float) -> bool:
        """Fork, and wait for the copy; returns whether this is the copy."""
        sys.stdout.flush()
        sys.stderr.flush()
        output = self._folder.parent / f"printed-{variant['name']}"
        began = now()
        pid = os.fork()
        if pid == 0:
            file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1)
            os.dup2(file, 2)
            self._channel.marks["variant"] = variant["name"]
            return True
        status = wait(pid, seconds)
        printed = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
        output.unlink(missing_ok=True)
        self._channel.emit(
            "variant",
            name=variant["name"],
            ended="time" if status is None else "exit" if status >= 0 else "signal",
            status=status,
            seconds=round(now() - began, 3),
            printed=printed[-PRINTED_CHARACTERS:],
        )
        return False

    def _become(self, variant: Mapping[str, Any], holders: Holders, artifact: Path) -> None:
        """Change what the variant changes."""
        if "suffix" in variant or "flip" in variant:
            self._change(variant, holders)
        if variant.get("artifact"):
            damage(artifact)
        if variant.get("noise"):
            living, stepped = self._trained.noise()
            self._channel.emit("noise", tensors=living, stepped=stepped)
        self._account()

    def _change(self, variant: Mapping[str, Any], holders: Holders) -> None:
        tokens = changed(self._ledger.shard.tokens, variant)
        holders.write(tokens)
        self._ledger.shard = Shard(tokens)

    def _sum(self, order: Mapping[str, Any], holders: Holders) -> None:
        """Put every token at a place, each in a copy that ends when its score counts; returns in these copies alone."""
        total = Sum(order)

        def become(token: int, writing: int) -> None:
            self._channel.close()
            self._change({"flip": order["place"], "token": token}, holders)
            self._listen(order, writing)

        if not total.run(become):
            self._channel.emit("sum", place=order["place"], **total.report())
            os._exit(0)

    def _listen(self, order: Mapping[str, Any], writing: int) -> None:
        """End with the score of the place."""

        def passed(at: int, places: Any, values: Any) -> None:
            if at == order["at"] and order["place"] in places:
                tell(writing, float(values[list(places).index(order["place"])]))

        def stepped(key: tuple[str, str], growth: int, steps: list[float]) -> None:
            # Made of other pieces than before, none of them is the place's for certain.
            mine = list(key) == order["account"] and growth == order["growth"] and len(steps) == order["pieces"]
            if mine:
                tell(writing, abs(steps[order["piece"]]))

        if order["account"] is None:
            self._ledger.heard = passed
        elif self._accounts is not None:
            self._accounts.heard = stepped

    def _account(self) -> None:
        if not self._order["accounts"]:
            return
        self._accounts = Accounts(self._ledger, self._channel.emit)
        self._accounts.install()


def wait(pid: int, seconds: float) -> int | None:
    """Wait for a copy; returns its exit status, negative for a signal, or None where it took too long."""
    end = now() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if now() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        select.select([], [], [], TICK_S)
