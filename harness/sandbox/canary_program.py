"""The canaries themselves: run inside of a sandbox, they try what must not work there. Standard library only.

Each writes a line to the channel: its name, whether it got through, and what happened. The outside does not take
their word where it can look itself (`canaries.py`).
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

PTRACE_ATTACH: Final = 16
PTRACE_DETACH: Final = 17
DNS_SECONDS: Final = 2
NAME_OUTSIDE: Final = "example.com"
HOG_BYTES: Final = 512 << 20
HOG_PIECE: Final = 4 << 20
SWARM: Final = 48
HOLD_SECONDS: Final = 3.0

Bait = Mapping[str, str]


def main() -> None:
    """Run what the first argument names: `walls`, `hog` or `swarm`."""
    what = sys.argv[1]
    if what == "hog":
        _hog()
    elif what == "swarm":
        _swarm()
    else:
        _walls(json.loads(sys.argv[2]))


def _walls(bait: Bait) -> None:
    channel = int(os.environ["PROBE_CHANNEL_FD"])
    for name, attempt in ATTEMPTS.items():
        try:
            through, detail = True, attempt(bait)
        except Exception as error:  # noqa: BLE001 - every refusal counts, whatever it looks like
            through, detail = False, f"{type(error).__name__}: {error}"
        os.write(channel, json.dumps({"name": name, "through": through, "detail": detail}).encode("ascii") + b"\n")


def _secret(bait: Bait) -> str:
    return f"read {len(Path(bait['secret']).read_bytes())} bytes of a file outside"


def _symlink(bait: Bait) -> str:
    return f"read {len(Path(bait['link']).read_bytes())} bytes through a link in a view"


def _view(bait: Bait) -> str:
    (Path(bait["view"]) / "written").write_text("x", encoding="ascii")
    return "wrote into a view"


def _mode(bait: Bait) -> str:
    before = Path(bait["view"]).stat().st_mode
    Path(bait["view"]).chmod(0o711)
    if Path(bait["view"]).stat().st_mode == before:
        raise PermissionError("answered as done, and nothing done")
    return "changed the mode of a view"


def _tcp(bait: Bait) -> str:
    socket.create_connection(("127.0.0.1", int(bait["tcp"])), timeout=2).close()
    return "connected by TCP"


def _udp(bait: Bait) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.sendto(b"canary", ("127.0.0.1", int(bait["udp"])))
    # Sending into the void succeeds in a namespace too: only the outside knows.
    raise ConnectionError("sent; whether it arrived, the outside knows")


def _unix(bait: Bait) -> str:
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(bait["unix"])
    return "connected to a socket file"


def _abstract(bait: Bait) -> str:
    with socket.socket(socket.AF_UNIX) as made:
        made.connect("\0" + bait["abstract"])
    return "connected to an abstract socket"


def _dns(_bait: Bait) -> str:
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(DNS_SECONDS)
        try:
            socket.getaddrinfo(NAME_OUTSIDE, 80)
        except OSError:
            os._exit(1)
        os._exit(0)
    if os.waitpid(pid, 0)[1] != 0:
        raise ConnectionError("no name was resolved")
    return "resolved a name"


def _kill(bait: Bait) -> str:
    os.kill(int(bait["decoy"]), signal.SIGKILL)
    return "killed a process outside"


def _ptrace(bait: Bait) -> str:
    library = ctypes.CDLL(None, use_errno=True)
    pid = int(bait["decoy"])
    if library.ptrace(PTRACE_ATTACH, pid, None, None) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    time.sleep(0.05)
    library.ptrace(PTRACE_DETACH, pid, None, None)
    return "held a process outside by ptrace"


def _environment(bait: Bait) -> str:
    known = set(bait["known"].split())
    extra = sorted(os.environ.keys() - known)
    if not extra:
        raise LookupError("nothing but the job's own variables")
    return f"found {' '.join(extra)}"


def _process(bait: Bait) -> str:
    return f"read {len(Path('/proc', bait['decoy'], 'cmdline').read_bytes())} bytes about a process outside"


def _kernel(_bait: Bait) -> str:
    with Path("/proc/sys/kernel/core_pattern").open("r+b"):
        return "opened a setting of the kernel for writing"


def _survivor(bait: Bait) -> str:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)", bait["token"]])  # noqa: S606
        os._exit(0)
    os.wait()
    time.sleep(0.05)
    raise ChildProcessError("left a daemon behind; whether it lives, the outside knows")


def _hog() -> None:
    """Take memory, and hold it a moment."""
    held = []
    for _ in range(HOG_BYTES // HOG_PIECE):
        held.append(bytearray(b"x") * HOG_PIECE)
        time.sleep(0.0005)
    time.sleep(HOLD_SECONDS)


def _swarm() -> None:
    """Take processes, and hold them a moment."""
    for _ in range(SWARM):
        if os.fork() == 0:
            time.sleep(HOLD_SECONDS)
            os._exit(0)
    time.sleep(HOLD_SECONDS)


ATTEMPTS: Final[Mapping[str, Callable[[Bait], str]]] = {
    "secret": _secret,
    "symlink": _symlink,
    "view": _view,
    "mode": _mode,
    "tcp": _tcp,
    "udp": _udp,
    "unix": _unix,
    "abstract": _abstract,
    "dns": _dns,
    "ptrace": _ptrace,
    "kill": _kill,
    "process": _process,
    "kernel": _kernel,
    "environment": _environment,
    "survivor": _survivor,
}

if __name__ == "__main__":
    main()
