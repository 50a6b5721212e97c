"""How far a program is kept apart from the machine: four levels, of which the one in force is in every report."""

from __future__ import annotations

import enum
from types import MappingProxyType
from typing import Final


class Level(enum.IntEnum):
    """The levels of isolation, the strongest last.

    Example:
        >>> Level.L3 > Level.L2, Level.L1.trusted_only
        (True, True)
    """

    L1 = 1
    L2 = 2
    L3 = 3
    L4 = 4

    @property
    def text(self) -> str:
        """One line for people."""
        return _TEXTS[self]

    @property
    def trusted_only(self) -> bool:
        """Whether untrusted code is refused here."""
        return self < LOWEST_FOR_UNTRUSTED

    def __str__(self) -> str:
        """`L3`."""
        return self.name


LOWEST_FOR_UNTRUSTED: Final = Level.L2
_TEXTS: Final = MappingProxyType(
    {
        Level.L1: "resource limits, own process group, clean environment: not isolated",
        Level.L2: "Landlock, system call filter, resource limits, no survivor: files and network are closed",
        Level.L3: "own namespaces (files, processes, network, users), system call filter, sized scratch",
        Level.L4: "a container or virtual machine of the operator's around the harness",
    }
)
