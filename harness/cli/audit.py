"""The `audit` command: facts of record folders, judged by the rules."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.challenge import EDITIONS
from harness.cli import arguments, output
from harness.report.plain import plain


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "audit",
        help="say whether record folders are complete, within the limits, and true to their logs",
        description="Read record folders, run nothing of them, and judge them by the rules.",
        epilog="Exit status: 0 nothing failed, 1 a rule failed, 2 usage, 3 the harness itself failed, "
        "4 undecided under --strict.",
    )
    parser.add_argument(
        "folders", nargs="+", type=arguments.place, metavar="FOLDER", help="a record folder, or a directory of them"
    )
    parser.add_argument(
        "--evidence", type=arguments.place, metavar="DIR", help="what `harness reproduce` wrote for the folder"
    )
    parser.add_argument(
        "--previous",
        type=arguments.place,
        metavar="PATH",
        help="test the claim against this record folder, or against the record of its date in a leaderboard file "
        "(`harness leaderboard --format json`)",
    )
    parser.add_argument(
        "--edition", choices=[edition.name for edition in EDITIONS], default="", help="default: by each folder's date"
    )
    parser.add_argument("--select", action="append", default=[], metavar="CODES", help="only these rules: PG101,PG3")
    parser.add_argument("--ignore", action="append", default=[], metavar="CODES", help="all but these rules")
    parser.add_argument(
        "--recount", action="store_true", help="minify and compress each script to check its compressed size (seconds)"
    )
    output.declare(parser)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Audit the folders, print the report, and return the exit status."""
    from harness.audit import Options, audit_folders, read_previous, report_of
    from harness.model import HarnessError

    output.check(parsed)
    folders = found(parsed.folders)
    if parsed.evidence is not None and len(folders) > 1:
        raise HarnessError("--evidence belongs to one folder; give one FOLDER")
    codes = selected(parsed.select, parsed.ignore)
    if not codes:
        raise HarnessError("--select and --ignore leave no rule to run")
    previous = read_previous(parsed.previous) if parsed.previous is not None else ()
    options = Options(
        codes,
        parsed.edition,
        parsed.evidence,
        excerpts=output.quoting(parsed),
        previous=previous,
        previous_chosen=parsed.previous is not None and parsed.previous.is_dir(),
        recount=parsed.recount,
    )
    audited = list(audit_folders(folders, options))
    report = report_of(audited)
    refused = [one.refused for one in audited if one.refused]
    crashes = [crash for one in audited for crash in one.crashes]
    status = output.exit_status(report, strict=parsed.strict, refused=bool(refused), crashed=bool(crashes))
    if report.submissions or not (refused or crashes):
        output.emit(report, parsed, status)
    for problem in refused:
        print(f"harness audit: {plain(problem)}", file=sys.stderr)
    for crash in crashes:
        print(f"harness audit: the harness itself failed: {plain(crash)}", file=sys.stderr)
    return status


def found(named: Sequence[Path]) -> list[Path]:
    """The record folders at or below the directories named; what was found and what not is said.

    A directory without any stays in the list, so that the audit says why it is none.
    """
    from harness.sources.discover import discover

    folders: list[Path] = []
    for directory in named:
        search = discover(directory) if directory.is_dir() else None
        for problem in search.unread if search else ():
            print(f"harness audit: {plain(problem)}", file=sys.stderr)
        below = search.folders if search else ()
        if below and below != (directory,):
            print(f"harness audit: {plain(str(directory))}: {len(below):,} record folders found in it", file=sys.stderr)
        folders += below or (directory,)
    return folders


def selected(select: Sequence[str], ignore: Sequence[str]) -> frozenset[str]:
    """The codes that `--select` and `--ignore` leave; both take codes and beginnings of codes, comma separated.

    Raises:
        HarnessError: a code names no rule.
    """
    from harness.checks import RULES

    every = [rule.code for rule in RULES]
    wanted = _matching(select, every) if select else set(every)
    return frozenset(wanted - _matching(ignore, every))


def _matching(options: Sequence[str], codes: Sequence[str]) -> set[str]:
    from harness.model import HarnessError

    found: set[str] = set()
    for prefix in (part.strip().upper() for option in options for part in option.split(",")):
        matching = {code for code in codes if prefix and code.startswith(prefix)}
        if not matching:
            raise HarnessError(f"no rule {prefix!r}; `harness rules` lists them")
        found |= matching
    return found
