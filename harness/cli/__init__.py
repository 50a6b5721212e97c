"""The command line: the only place of `harness` that prints or exits.

Each command is a module of this package with `add(subparsers)`, which declares its arguments and sets `run` to a
function from the parsed arguments to an exit status (0 nothing failed, 1 a rule failed, 2 usage, 3 the harness
itself failed, 4 undecided under --strict).
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from harness import __version__
from harness.cli import audit, calibrate, certify, corpus, data, gate, leaderboard, probe, reproduce, rules, sandbox
from harness.cli.interrupts import terminated_like_interrupted
from harness.cli.output import EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_PASS, EXIT_USAGE
from harness.model import HarnessError
from harness.report.plain import plain

# Conditions of the machine that no file name comes with: no room, a quota, a device that fails.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(prog="harness", description="Reproduce and audit Parameter Golf submissions.")
    parser.add_argument("--version", action="version", version=f"harness {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (audit, calibrate, certify, corpus, data, gate, leaderboard, probe, reproduce, rules, sandbox):
        command.add(subparsers)
    parsed = parser.parse_args(arguments)
    try:
        with terminated_like_interrupted():
            return _run(parsed)
    except HarnessError as error:
        return _told(parsed, str(error), EXIT_USAGE)
    except KeyboardInterrupt:
        return _told(parsed, "interrupted", EXIT_INTERRUPTED)
    except OSError as error:
        return _refused_by_system(parsed, error)
    except Exception:  # noqa: BLE001 - Python would exit with 1, which says that a rule failed
        return _crashed(parsed)
    finally:
        _drop_unwritten()


def _run(parsed: argparse.Namespace) -> int:
    """Run the command and see its output off.

    Raises:
        HarnessError: standard output is closed.
    """
    # Python has no stream for a descriptor that is closed; the next file opened would get its number.
    if sys.stdout is None:
        raise HarnessError("standard output is closed")
    status: int = parsed.run(parsed)
    sys.stdout.flush()
    return status


def _told(parsed: argparse.Namespace, text: str, status: int) -> int:
    print(f"harness {parsed.command}: {plain(text)}", file=sys.stderr)
    return status


def _crashed(parsed: argparse.Namespace) -> int:
    """Print the error under way."""
    print("\n".join(map(plain, traceback.format_exc().splitlines())), file=sys.stderr)
    return _told(parsed, "this is our own mistake", EXIT_INTERNAL)


def _refused_by_system(parsed: argparse.Namespace, error: OSError) -> int:
    """Tell an error of the system: about a place that the user named, the machine, or, by mistake, a file of ours."""
    if isinstance(error, BrokenPipeError):
        # The reader of our output went away (`| head`): not an error of anybody's.
        return EXIT_PASS
    named = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    own = bool(named) and Path(named).absolute().is_relative_to(Path(__file__).parents[1])
    if own or (not named and error.errno not in _FULL):
        return _crashed(parsed)
    return _told(parsed, f"{named}: {error.strerror}" if named else str(error.strerror), EXIT_USAGE)


def _drop_unwritten() -> None:
    """What standard output refuses goes nowhere: Python would try again at its end, and complain again."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def entry() -> None:
    """Console script."""
    sys.exit(main())
