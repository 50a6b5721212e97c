"""What the canaries peck at: a secret, a view, listeners and a process, all outside, and what became of them."""

from __future__ import annotations

import contextlib
import secrets
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

KNOWN: Final = ("PATH", "USER", "LOGNAME", "HOME", "TMPDIR", "LC_CTYPE", "LC_ALL", "CANARY", CHANNEL_VARIABLE)
MODE: Final = 0o755


@dataclass(slots=True)
class Bait:
    """Everything laid out for one round.

    Attributes:
        folder: where it lies.
        token: a word that nothing else on the machine contains.
        listeners: sockets by name; the ones without files are reachable by the network.
        decoy: a process that only sleeps.
    """

    folder: Path
    token: str
    listeners: dict[str, socket.socket]
    decoy: subprocess.Popen[bytes]

    @property
    def view(self) -> Path:
        """A folder that is shown to the program, read only; a link in it leads to the secret."""
        return self.folder / "view"

    def told(self) -> dict[str, str]:
        """What the program is told."""
        return {
            "secret": str(self.folder / "secret"),
            "link": "/canary/link",
            "view": "/canary",
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
        if {path.name for path in self.view.iterdir()} != {"link"}:
            found["view"] = "the view has changed"
        if self.view.stat().st_mode & 0o777 != MODE:
            found["mode"] = "the view's mode has changed"
        if any(self.token.encode() in _command(path) for path in PROC.glob("[0-9]*/cmdline")):
            found["survivor"] = "a daemon has survived"
        return found


@contextlib.contextmanager
def laid_out() -> Iterator[Bait]:
    """Lay everything out, and clear it away again."""
    token = f"canary-{secrets.token_hex(8)}"
    with tempfile.TemporaryDirectory(prefix="harness-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "secret").write_text(token, encoding="ascii")
        (folder / "view").mkdir()
        (folder / "view").chmod(MODE)
        (folder / "view/link").symlink_to(folder / "secret")
        listeners = {name: stack.enter_context(one) for name, one in _listeners(folder, token).items()}
        sleeping = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(120)"]
        decoy = subprocess.Popen(sleeping, stdin=subprocess.DEVNULL)
        try:
            yield Bait(folder, token, listeners, decoy)
        finally:
            decoy.kill()
            decoy.wait()


def _listeners(folder: Path, token: str) -> dict[str, socket.socket]:
    tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
    for made in (tcp, udp):
        made.bind(("127.0.0.1", 0))
    file = socket.socket(socket.AF_UNIX)
    file.bind(str(folder / "unix"))
    found = {"tcp": tcp, "udp": udp, "unix": file}
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


def _command(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
