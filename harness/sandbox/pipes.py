"""The pipes between the harness and the stage, and what moves their bytes."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
from dataclasses import dataclass
from typing import Final, Self

from harness.sandbox.pump import READ_BYTES, Answers, Bounded, Sink

POLL_SECONDS: Final = 0.02


@dataclass(slots=True)
class Pipes:
    """Pipes between harness and stage: reading end and writing end of each.

    Attributes:
        control: orders to the stage.
        answer: its answers.
        channel: the program's own, if it asked for one.
        number: what the program knows the channel as.
    """

    control: tuple[int, int]
    answer: tuple[int, int]
    channel: tuple[int, int] | None
    number: int = -1

    @classmethod
    def make(cls, channel: Sink | None) -> Self:
        """Open them."""
        found = cls(os.pipe(), os.pipe(), os.pipe() if channel else None)
        found.number = found.channel[1] if found.channel else -1
        return found

    def started(self) -> None:
        """The stage has its ends now."""
        for number in (self.control[0], self.answer[1], *((self.channel[1],) if self.channel else ())):
            os.close(number)

    def tell(self, data: bytes) -> None:
        """Say something to the stage, if it still listens."""
        view = memoryview(data)
        with contextlib.suppress(BrokenPipeError):
            while view:
                view = view[os.write(self.control[1], view) :]

    def close(self) -> None:
        """Close ours."""
        for number in (self.control[1], self.answer[0], *((self.channel[0],) if self.channel else ())):
            with contextlib.suppress(OSError):
                os.close(number)


@dataclass(slots=True)
class Pump:
    """Moves what comes out to where it belongs.

    Attributes:
        selector: what is listened to.
        answers: takes what the stage says.
        answer: the pipe that they come through.
        output: takes what is printed.
        channel: takes what comes through the channel.
    """

    selector: selectors.BaseSelector
    answers: Answers
    answer: int
    output: Bounded
    channel: Sink | None

    @classmethod
    def make(
        cls,
        process: subprocess.Popen[bytes],
        pipes: Pipes,
        answers: Answers,
        files: tuple[Bounded, Sink | None],
    ) -> Self:
        """Listen to everything."""
        selector = selectors.DefaultSelector()
        if process.stdout is None:
            raise RuntimeError("the stage was started without a pipe")
        selector.register(process.stdout, selectors.EVENT_READ, files[0].feed)
        selector.register(pipes.answer[0], selectors.EVENT_READ, answers.feed)
        if pipes.channel and files[1]:
            selector.register(pipes.channel[0], selectors.EVENT_READ, files[1].feed)
        return cls(selector, answers, pipes.answer[0], *files)

    @property
    def ended(self) -> bool:
        """Whether nobody can say anything any more."""
        return not self.selector.get_map()

    @property
    def stage_gone(self) -> bool:
        """Whether the stage can say nothing any more."""
        return self.answer not in self.selector.get_map()

    def turn(self) -> bool:
        """Wait a moment and take what there is; returns whether there was anything."""
        ready = self.selector.select(POLL_SECONDS)
        for key, _ in ready:
            data = os.read(key.fd, READ_BYTES)
            if data:
                key.data(data)
            else:
                self.selector.unregister(key.fileobj)
        return bool(ready)

    def over(self) -> tuple[str, str] | None:
        """The limit that what came out has passed."""
        if self.output.full:
            return "output", "printed more than the limit"
        if self.channel is not None and self.channel.full:
            return "output", "sent more through the channel than the limit"
        return None

    def close(self) -> None:
        """No more."""
        self.selector.close()
        self.answers.close()
