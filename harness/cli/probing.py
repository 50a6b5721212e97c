"""What the commands that probe share: their flags, what they need, and where evidence is kept."""

from __future__ import annotations

import argparse
import importlib.util
from typing import TYPE_CHECKING, Final

from harness.cli import arguments
from harness.model import HarnessError
from harness.probe.bounds import TOTAL_SECONDS

if TYPE_CHECKING:
    from harness.probe.store import Store
    from harness.sandbox.backend import Sandbox

NEEDED: Final = ("torch", "sentencepiece")


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a command that probes folders if it is asked to."""
    parser.add_argument(
        "--probe",
        type=arguments.place,
        metavar="DIR",
        help="run the scripts in miniature too, and keep the evidence there: what is there already is not run again",
    )
    bounds(parser)


def bounds(parser: argparse.ArgumentParser) -> None:
    """Add what bounds the probe of a folder."""
    parser.add_argument(
        "--probe-seconds",
        type=seconds,
        default=TOTAL_SECONDS,
        metavar="N",
        help=f"wall time of all miniature runs of one folder (default: {TOTAL_SECONDS:.0f})",
    )
    parser.add_argument(
        "--allow-unsafe", action="store_true", help="run the code although the sandbox is weaker than L2"
    )


def sandboxed(parsed: argparse.Namespace) -> Sandbox:
    """The sandbox in force, once all that a probe needs is here.

    Raises:
        HarnessError: a package is missing, or no sandbox is strong enough.
    """
    from harness.sandbox.establish import establish, require

    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        told = "pip install 'parameter-golf-harness[torch]'"
        raise HarnessError(f"the probe runs scripts with {' and '.join(missing)}, not installed here: {told}")
    return require(establish(), allow_unsafe=parsed.allow_unsafe)


def store(parsed: argparse.Namespace) -> Store | None:
    """Where probes go, by the flags; None when none is asked for.

    Raises:
        HarnessError: a package is missing, or no sandbox is strong enough.
    """
    if parsed.probe is None:
        return None
    from harness.probe.store import Store

    return Store(parsed.probe.resolve(), sandboxed(parsed), total_seconds=parsed.probe_seconds)


def seconds(text: str) -> float:
    """A number of seconds, from 1 to a day."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds from 1 to 86400")
    return value
