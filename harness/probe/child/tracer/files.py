"""Files, sockets and programs that the script reaches for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

LIMIT = 2_000
PROGRAMS = frozenset({"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn"})
REMOVALS = frozenset({"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink"})
WRITING = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC


class Files:
    """Reports each path once for each way of opening and phase.

    Args:
        emit: writes an event.
        phase: the phase that the run is in, and the number of the last computation.
    """

    def __init__(self, emit: Callable[..., None], phase: Callable[[], tuple[str, int]]) -> None:
        self._emit, self._phase = emit, phase
        self._seen: set[tuple[str, ...]] = set()
        self._busy = self.ended = False
        self._skipped = tuple({os.path.realpath(each) for each in (sys.prefix, sys.base_prefix, *_libraries())})

    def install(self) -> None:
        """Listen from now on."""
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self._busy or self.ended:
            return
        kind = event.partition(".")[0]
        if event != "open" and kind != "socket" and event not in PROGRAMS and event not in REMOVALS:
            return
        self._busy = True
        try:
            self._heard(event, kind, args)
        except Exception:  # noqa: BLE001, S110 - a listener must not end what it hears
            pass
        finally:
            self._busy = False

    def _heard(self, event: str, kind: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path = _text(args[0])
            if isinstance(args[0], (str, bytes)) and not self._uninteresting(path):
                self._once("file", path, path=path, mode=mode_of(args))
        elif kind == "socket":
            if event in {"socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto"}:
                name = _text(args[1] if event != "socket.getaddrinfo" else args[0])
                self._once("socket", name, what=event, address=name)
        elif event in PROGRAMS:
            name = _text(args[1] if event == "subprocess.Popen" else args[0])
            self._once("process", name, what=event, command=name)
        else:
            self._once("file", _text(args[0]), path=_text(args[0]), mode=event)

    def _once(self, kind: str, name: str, **fields: Any) -> None:
        phase, at = self._phase()
        key = (kind, name, phase, str(fields.get("mode", fields.get("what"))))
        if key in self._seen or len(self._seen) >= LIMIT:
            return
        self._seen.add(key)
        self._emit(kind, **fields, phase=phase, at=at)

    def _uninteresting(self, path: str) -> bool:
        """Code and libraries of the interpreter."""
        if path.endswith((".py", ".pyc", ".so")) or path.startswith(("/proc/self", "/sys/", "/dev/")):
            return True
        return os.path.abspath(path).startswith(self._skipped)


def _libraries() -> list[str]:
    return [os.path.dirname(os.path.dirname(os.__file__)), "/usr/lib", "/usr/share/zoneinfo", "/etc/ld"]


def mode_of(args: tuple[Any, ...]) -> str:
    """How the arguments of the audit event `open` open a file: its mode, or `read` or `write`."""
    mode, flags = args[1], args[2] if len(args) > 2 else 0
    if isinstance(mode, str):
        return mode
    return "write" if isinstance(flags, int) and flags & WRITING else "read"


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return os.fsdecode(value)[:500]
    return str(value)[:500]
