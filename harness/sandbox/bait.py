"""What the canaries peck at: a secret, a view, listeners and a process, all outside, and what became of them."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.sandbox.job import CHANNEL_VARIABLE
from harness.sandbox.tree import PROC

MACOS: Final = "__CF_USER_TEXT_ENCODING"  # the system itself adds it there
KNOWN: Final = ("PATH", "USER", "LOGNAME", "HOME", "TMPDIR", "LC_CTYPE", "LC_ALL", "BAIT", MACOS, CHANNEL_VARIABLE)
MODE: Final = 0o755
VIEW: Final = "/submission"
IN_VIEW: Final = {"link", "ordinary", "unix"}
OUTSIDE: Final = {"secret", "labels", "view", "unix"}


@dataclass(slots=True)
class Bait:
    """Everything laid out for one round.

    Attributes:
        folder: where it lies.
        token: a word that nothing else on the machine contains.
        listeners: sockets by name; the ones without files are reachable by the network.
        decoy: a process that only sleeps, with the token in its environment.
        stopped: one that has been stopped; it goes on when it is signalled.
    """

    folder: Path
    token: str
    listeners: dict[str, socket.socket]
    decoy: subprocess.Popen[bytes]
    stopped: subprocess.Popen[bytes]

    @property
    def view(self) -> Path:
        """A folder that is shown to the program, read only; a link in it leads to the secret."""
        return self.folder / "view"

    def told(self) -> dict[str, str]:
        """What the program is told."""
        return {
            "secret": str(self.folder / "secret"),
            "labels": str(self.folder / "labels"),
            "link": f"{VIEW}/link",
            "view": VIEW,
            "tcp": str(self.listeners["tcp"].getsockname()[1]),
            "udp": str(self.listeners["udp"].getsockname()[1]),
            "unix": str(self.folder / "unix"),
            "abstract": self.token,
            "decoy": str(self.decoy.pid),
            "known": " ".join(KNOWN),
            "token": self.token,
        }

    def reached(self) -> dict[str, str]:
        """What got through, as seen from outside, by the canary's name."""
        found = {name: "it arrived" for name, listener in self.listeners.items() if _heard(listener)}
        if self.decoy.poll() is not None:
            found["kill"] = "a process outside was killed"
        if _state(self.stopped.pid) not in {"T", ""}:
            found["signal"] = "a process outside was signalled"
        if _names(self.view) != IN_VIEW or _names(self.folder) != OUTSIDE:
            found["view"] = "a folder outside of the scratch has changed"
        if self.view.stat().st_mode & 0o777 != MODE:
            found["mode"] = "the view's mode has changed"
        if any(self.token.encode() in _content(path) for path in PROC.glob("[0-9]*/cmdline")):
            found["survivor"] = "a daemon has survived"
        return found


@contextlib.contextmanager
def laid_out() -> Iterator[Bait]:
    """Lay everything out, and clear it away again."""
    token = f"canary-{secrets.token_hex(8)}"
    with tempfile.TemporaryDirectory(prefix="harness-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        for path in ("secret", "labels"):
            (folder / path).write_text(token, encoding="ascii")
        (folder / "view").mkdir()
        (folder / "view").chmod(MODE)
        (folder / "view/link").symlink_to(folder / "secret")
        (folder / "view/ordinary").write_text("ordinary", encoding="ascii")
        listeners = {name: stack.enter_context(one) for name, one in _listeners(folder, token).items()}
        decoy, stopped = stack.enter_context(_sleeping(token)), stack.enter_context(_sleeping(token))
        stopped.send_signal(signal.SIGSTOP)
        yield Bait(folder, token, listeners, decoy, stopped)


@contextlib.contextmanager
def _sleeping(token: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [shutil.which("sleep") or "/bin/sleep", "120"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd="/", env={"TOKEN": token}) as process:
        try:
            yield process
        finally:
            process.kill()


def _listeners(folder: Path, token: str) -> dict[str, socket.socket]:
    tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
    for made in (tcp, udp):
        made.bind(("127.0.0.1", 0))
    found = {"tcp": tcp, "udp": udp}
    for name, path in (("unix", "unix"), ("unix_view", "view/unix")):
        found[name] = socket.socket(socket.AF_UNIX)
        found[name].bind(str(folder / path))
    if sys.platform.startswith("linux"):
        found["abstract"] = socket.socket(socket.AF_UNIX)
        found["abstract"].bind("\0" + token)
    for name, made in found.items():
        made.settimeout(0)
        if name != "udp":
            made.listen()
    return found


def _heard(listener: socket.socket) -> bool:
    try:
        if listener.type == socket.SOCK_DGRAM:
            return bool(listener.recv(64))
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _state(pid: int) -> str:
    """The letter of the process table (T: stopped), or "" where there is none."""
    return _content(PROC / str(pid) / "stat").rpartition(b")")[2].strip()[:1].decode("ascii")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
