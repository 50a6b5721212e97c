"""What the commands share: output flags, exit status, and what is printed."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import quote

from harness.cli import arguments, files
from harness.model import HarnessError, Location, Report, SubmissionReport, Verdict
from harness.report.plain import plain

if TYPE_CHECKING:
    from harness.report.rulepages import AnyRule

EXIT_PASS = 0
EXIT_FAIL = 1
EXIT_USAGE = 2
EXIT_INTERNAL = 3
EXIT_UNDECIDED = 4
EXIT_INTERRUPTED = 130
FALLBACK_COLUMNS = 100


@dataclass(frozen=True, slots=True)
class Setting:
    """What renderers need beside the report.

    Attributes:
        rules: the catalogue, for help texts.
        folders: each folder's path relative to the repository's root, by the folder as it was named.
        status: exit status of the command.
        links: what a path below the root is appended to, to make an address; or "".
        width: columns of the terminal.
        color: whether it wants colour.
    """

    rules: tuple[AnyRule, ...] = ()
    folders: Mapping[str, str] = field(default_factory=dict)
    status: int = EXIT_PASS
    links: str = ""
    width: int = FALLBACK_COLUMNS
    color: bool = False

    def url(self, report: SubmissionReport, place: Location) -> str:
        """The address of a place, or "" where it has none."""
        from harness.report.quotes import shipped_line

        if not self.links or report.folder not in self.folders:
            return ""
        path = "/".join(part for part in (self.folders[report.folder], place.path) if part != ".")
        line = shipped_line(report, place)
        return f"{self.links.rstrip('/')}/{quote(path, safe='/', errors='replace')}" + (f"#L{line}" if line else "")


def _text(report: Report, setting: Setting) -> str:
    from harness.report import text

    return text.render(report, setting.width, color=setting.color)


def _json(report: Report, _setting: Setting) -> str:
    from harness.report import json

    return json.render(report)


def _summary(report: Report, _setting: Setting) -> str:
    from harness.report import summary

    return summary.render(report)


def _markdown(report: Report, setting: Setting) -> str:
    from harness.report import markdown

    return markdown.render(report, place_url=setting.url)


def _sarif(report: Report, setting: Setting) -> str:
    from harness.report import sarif

    return sarif.render(report, setting.rules, setting.folders, setting.status)


def _html(report: Report, setting: Setting) -> str:
    from harness.report import html

    return html.render(report, setting.rules, setting.url)


# Each renderer imports its library when it is used, so that other commands start fast.
FORMATS: Mapping[str, Callable[[Report, Setting], str]] = MappingProxyType(
    {"text": _text, "json": _json, "markdown": _markdown, "sarif": _sarif, "html": _html, "summary": _summary}
)
# Formats that quote lines of the submission.
QUOTING = frozenset({"text", "markdown", "sarif", "html"})


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
    parser.add_argument(
        "--root",
        type=arguments.place,
        default=Path(),
        metavar="DIR",
        help="the repository's root: paths in SARIF and links count from it (default: the current directory)",
    )
    parser.add_argument(
        "--links",
        default=None,
        type=_address,
        metavar="URL",
        help="make places links: URL and the path below the root, such as https://HOST/OWNER/REPO/blob/COMMIT",
    )
    parser.add_argument("--strict", action="store_true", help="exit with 4 when a submission is undecided")


def _destination(value: str) -> tuple[str, Path]:
    name, equals, path = value.partition("=")
    if name not in FORMATS or not equals or not path:
        raise argparse.ArgumentTypeError(f"{value!r}: expected FORMAT=PATH with FORMAT one of {', '.join(FORMATS)}")
    return name, Path(path)


def _address(value: str) -> str:
    if not re.fullmatch(r"https?://[\w.:/@%~+-]+", value):
        raise argparse.ArgumentTypeError(f"{value!r}: expected an address that begins with https://")
    return value


def quoting(parsed: argparse.Namespace) -> bool:
    """Whether an asked-for format quotes lines, so that they must be read."""
    return bool(QUOTING.intersection([parsed.format, *(name for name, _ in parsed.output)]))


def check(parsed: argparse.Namespace, made: Path | None = None) -> None:
    """Refuse files that cannot be written and a root that is not there, before the work begins.

    Args:
        parsed: the command's arguments.
        made: a directory that the command itself makes.

    Raises:
        HarnessError: one of them cannot be used.
    """
    files.check((path for _, path in parsed.output), made)
    if not parsed.root.is_dir():
        raise HarnessError(f"--root {parsed.root}: not a folder")


def emit(report: Report, parsed: argparse.Namespace, status: int | None = None) -> None:
    """Write the files asked for and print the report.

    Args:
        report: the report.
        parsed: the command's arguments.
        status: its exit status; by default what the report alone says.

    Raises:
        HarnessError: a file cannot be written.
    """
    from harness.checks import RULES

    told = exit_status(report, strict=parsed.strict) if status is None else status
    folders = {one.folder: relative(one.folder, parsed.root) for one in report.submissions}
    setting = Setting(RULES, folders, told, parsed.links or "")
    for name, path in parsed.output:
        files.write(path, FORMATS[name](report, setting))
    terminal = replace(setting, width=shutil.get_terminal_size((FALLBACK_COLUMNS, 24)).columns, color=colored())
    say(FORMATS[parsed.format](report, terminal))


def relative(folder: str, root: Path) -> str:
    """The folder's path below the root, POSIX style; its own name when it lies elsewhere."""
    real = os.path.realpath(folder)
    path = (
        os.path.relpath(real, os.path.realpath(root)) if Path(real).is_relative_to(root.resolve()) else Path(real).name
    )
    return path.replace(os.sep, "/")


def say(text: str) -> None:
    """Print to standard output, whatever its encoding can hold.

    Raises:
        BrokenPipeError: its reader went away.
        HarnessError: it takes nothing, such as a file on a disk that is full.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise HarnessError(f"standard output cannot be written ({error.strerror})") from error


def tell(line: str) -> None:
    """Print one line about what is going on to standard error."""
    print(plain(line), file=sys.stderr, flush=True)


def colored() -> bool:
    """Whether standard output is a terminal that wants colour."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


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
