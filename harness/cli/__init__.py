"""The command line: the only place of `harness` that prints or exits.

Each command is a module of this package with `add(subparsers)`, which declares its arguments and sets `run` to a
function from the parsed arguments to an exit status (0 nothing failed, 1 a rule failed, 2 usage, 3 the harness
itself failed, 4 undecided under --strict).
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from harness import __version__
from harness.cli import audit, calibrate, certify, corpus, data, gate, leaderboard, probe, reproduce, rules, sandbox
from harness.cli.output import EXIT_INTERNAL, EXIT_USAGE
from harness.model import HarnessError
from harness.report.plain import plain


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(prog="harness", description="Reproduce and audit Parameter Golf submissions.")
    parser.add_argument("--version", action="version", version=f"harness {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (audit, calibrate, certify, corpus, data, gate, leaderboard, probe, reproduce, rules, sandbox):
        command.add(subparsers)
    parsed = parser.parse_args(arguments)
    try:
        status: int = parsed.run(parsed)
    except HarnessError as error:
        print(f"harness {parsed.command}: {plain(str(error))}", file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:
        # The reader of our output went away (`| head`): not an error of anybody's. What is still buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:  # noqa: BLE001 - Python would exit with 1, which says that a rule failed
        lines = traceback.format_exc().splitlines()
        print(
            "\n".join(map(plain, lines)),
            f"harness {parsed.command}: this is our own mistake",
            sep="\n",
            file=sys.stderr,
        )
        return EXIT_INTERNAL
    return status


def entry() -> None:
    """Console script."""
    sys.exit(main())
