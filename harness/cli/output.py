"""What the commands share: output flags, exit status, and files that are written whole or not at all."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from harness.model import HarnessError, Report, Verdict

EXIT_PASS = 0
EXIT_FAIL = 1
EXIT_USAGE = 2
EXIT_INTERNAL = 3
EXIT_UNDECIDED = 4
FALLBACK_COLUMNS = 100


def _text(report: Report) -> str:
    from harness.report import text

    return text.render(report, FALLBACK_COLUMNS, color=False)


def _json(report: Report) -> str:
    from harness.report import json

    return json.render(report)


def _summary(report: Report) -> str:
    from harness.report import summary

    return summary.render(report)


# Renderers for files; each imports its library when it is used, so that other commands start fast.
FORMATS: Mapping[str, Callable[[Report], str]] = MappingProxyType({"text": _text, "json": _json, "summary": _summary})


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say where the report goes and when undecided rules count."""
    parser.add_argument("--format", choices=FORMATS, default="text", help="what to print (default: text)")
    parser.add_argument(
        "--output",
        action="append",
        default=[],
        type=_destination,
        metavar="FORMAT=PATH",
        help=f"write the report to a file too; repeatable; formats: {', '.join(FORMATS)}",
    )
    parser.add_argument("--strict", action="store_true", help="exit with 4 when a submission is undecided")


def _destination(value: str) -> tuple[str, Path]:
    name, equals, path = value.partition("=")
    if name not in FORMATS or not equals or not path:
        raise argparse.ArgumentTypeError(f"{value!r}: expected FORMAT=PATH with FORMAT one of {', '.join(FORMATS)}")
    return name, Path(path)


def emit(report: Report, parsed: argparse.Namespace) -> None:
    """Write the files asked for and print the report.

    Raises:
        HarnessError: a file cannot be written.
    """
    for name, path in parsed.output:
        write(path, FORMATS[name](report))
    if parsed.format == "text":
        from harness.report import text

        width = shutil.get_terminal_size((FALLBACK_COLUMNS, 24)).columns
        say(text.render(report, width, color=colored()))
    else:
        say(FORMATS[parsed.format](report))


def say(text: str) -> None:
    """Print to standard output, whatever its encoding can hold."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def colored() -> bool:
    """Whether standard output is a terminal that wants colour."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def write(path: Path, text: str) -> None:
    """Write a file whole: to a temporary name beside it, then renamed.

    Raises:
        HarnessError: the folder does not exist or cannot be written.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise HarnessError(f"{path}: cannot be written ({error.strerror})") from error


def exit_status(report: Report, *, strict: bool, refused: bool = False, crashed: bool = False) -> int:
    """The first that applies of 3 (harness failed), 2 (usage), 1 (a rule failed), 4 (undecided under --strict), 0."""
    verdicts = {submission.verdict for submission in report.submissions}
    ends = (
        (crashed, EXIT_INTERNAL),
        (refused, EXIT_USAGE),
        (Verdict.FAIL in verdicts, EXIT_FAIL),
        (strict and Verdict.UNDECIDED in verdicts, EXIT_UNDECIDED),
    )
    return next((status for applies, status in ends if applies), EXIT_PASS)
