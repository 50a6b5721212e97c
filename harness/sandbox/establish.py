"""Find the strongest sandbox that holds here, by trying."""

from __future__ import annotations

import platform
from typing import Final

from harness.model import HarnessError
from harness.sandbox.backend import Backend, Sandbox
from harness.sandbox.bubblewrap import Bubblewrap
from harness.sandbox.canaries import fallen, fly
from harness.sandbox.landlock import Landlock
from harness.sandbox.plain import Plain

BACKENDS: Final[tuple[Backend, ...]] = (Bubblewrap(), Landlock(), Plain())


def establish(backends: tuple[Backend, ...] = BACKENDS) -> Sandbox:
    """The first of these whose canaries hold, with their results and the reasons against the ones before it.

    Raises:
        HarnessError: none of them works here.
    """
    passed_over: list[tuple[str, str]] = []
    for backend in backends:
        missing = backend.missing()
        if missing:
            passed_over.append((backend.name, missing))
            continue
        found = fly(backend)
        bad = fallen(backend, found)
        if not bad:
            return Sandbox(backend, backend.level, found, tuple(passed_over))
        passed_over.append((backend.name, "; ".join(f"{one.name} did not hold ({one.detail})" for one in bad)))
    told = "; ".join(f"{name}: {why}" for name, why in passed_over)
    raise HarnessError(f"no sandbox works on this machine ({platform.system()}): {told}")


def require(sandbox: Sandbox, *, allow_unsafe: bool = False) -> Sandbox:
    """The same sandbox, if untrusted code may be run in it.

    Raises:
        HarnessError: it is too weak, and the user did not insist.
    """
    if sandbox.level.trusted_only and not allow_unsafe:
        told = "; ".join(f"{name}: {why}" for name, why in sandbox.passed_over)
        raise HarnessError(
            f"untrusted code is not run at level {sandbox.level} ({sandbox.level.text}); {told}. "
            "Install bubblewrap, or run in a container or virtual machine of your own and add --allow-unsafe"
        )
    return sandbox
