"""Putting one thing in the place of another, and making modules that do not exist."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from .events import refuse

# Roots of modules that stand in for libraries: an import that fails below them is ours.
STANDINS: set[str] = set()


def put(owner: Any, **values: Any) -> None:
    """Set attributes of a module or class."""
    for name, value in values.items():
        setattr(owner, name, value)


def module(name: str, **values: Any) -> ModuleType:
    """Register a module with some attributes, and its parents as packages.

    A name that it does not hold is an ImportError or AttributeError, as it would be, and a refusal besides.
    """
    made = sys.modules.get(name)
    if made is None or not getattr(made, "__standin__", False):
        made = ModuleType(name, f"Stand-in for {name}.")
        made.__standin__ = True  # type: ignore[attr-defined]
        made.__path__ = []
        made.__spec__ = importlib.util.spec_from_loader(name, loader=None, is_package=True)
        made.__getattr__ = _missing(name)  # type: ignore[method-assign]
        made.__version__ = "0.0.0"  # type: ignore[attr-defined]
        sys.modules[name] = made
        STANDINS.add(name.partition(".")[0])
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(module(parent), child, made)
    put(made, **values)
    return made


def _missing(name: str) -> Callable[[str], Any]:
    def look(attribute: str) -> Any:
        if not attribute.startswith("__"):
            refuse(f"{name}.{attribute}", "has no equivalent here")
        raise AttributeError(f"module {name!r} has no attribute {attribute!r}")

    return look


def present(name: str) -> bool:
    """Whether a module can really be imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
