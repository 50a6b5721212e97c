"""The command line: the only place of `harness` that prints or exits.

Each command is a module of this package with `add(subparsers)`, which declares its arguments and sets `run` to a
function from the parsed arguments to an exit status (0 nothing failed, 1 a rule failed, 2 usage, 3 the harness
itself failed, 4 undecided under --strict).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from harness import __version__
from harness.cli import audit, data, reproduce, rules
from harness.model import HarnessError

EXIT_USAGE = 2
EXIT_INTERNAL = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(prog="harness", description="Reproduce and audit Parameter Golf submissions.")
    parser.add_argument("--version", action="version", version=f"harness {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (audit, data, reproduce, rules):
        command.add(subparsers)
    parsed = parser.parse_args(arguments)
    try:
        status: int = parsed.run(parsed)
    except HarnessError as error:
        print(f"harness {parsed.command}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:
        # The reader of our output went away (`| head`): not an error of anybody's.
        sys.stderr.close()
        return 0
    return status


def entry() -> None:
    """Console script."""
    sys.exit(main())
