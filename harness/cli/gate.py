"""The `gate` command: a pull request, from git alone, judged by the rules."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.challenge import EDITIONS
from harness.cli import arguments, output
from harness.cli.audit import selected
from harness.report.plain import plain

if TYPE_CHECKING:
    from harness.audit import Audited, Options
    from harness.model import Report

# A change of more record folders than this is no submission; the first ones show what is wrong.
FOLDERS_LIMIT: Final = 20
STEP_SUMMARY: Final = "GITHUB_STEP_SUMMARY"


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "gate",
        help="judge a pull request: does it add one record folder and nothing else, and what is in it",
        description="Read a pull request from a git repository, check nothing out, run nothing of it, and judge the "
        "record folder that it adds.",
        epilog="Exit status: 0 nothing failed, 1 a rule failed, 2 usage, 3 the harness itself failed, "
        "4 undecided under --strict.",
    )
    parser.add_argument("--base", required=True, metavar="REF", help="the branch or commit that the change is for")
    parser.add_argument("--head", default="HEAD", metavar="REF", help="the change's last commit (default: HEAD)")
    parser.add_argument(
        "--repo", type=arguments.place, default=Path(), metavar="DIR", help="the repository (default: here)"
    )
    parser.add_argument(
        "--edition", choices=[edition.name for edition in EDITIONS], default="", help="default: by each folder's date"
    )
    parser.add_argument("--select", action="append", default=[], metavar="CODES", help="only these rules: PG101,PG3")
    parser.add_argument("--ignore", action="append", default=[], metavar="CODES", help="all but these rules")
    output.declare(parser)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Judge the pull request, print the report, and return the exit status."""
    from harness.audit import report_of
    from harness.model import HarnessError

    output.check(parsed)
    codes = selected(parsed.select, parsed.ignore)
    if not codes:
        raise HarnessError("--select and --ignore leave no rule to run")
    audited = _audited(parsed, codes)
    report = report_of(audited)
    refused = [one.refused for one in audited if one.refused]
    crashes = [crash for one in audited for crash in one.crashes]
    status = output.exit_status(report, strict=parsed.strict, refused=bool(refused), crashed=bool(crashes))
    if report.submissions:
        output.emit(report, parsed, status)
        _step_summary(report)
    for problem in refused:
        print(f"harness gate: {plain(problem)}", file=sys.stderr)
    for crash in crashes:
        print(f"harness gate: the harness itself failed: {plain(crash)}", file=sys.stderr)
    return status


def _audited(parsed: argparse.Namespace, codes: frozenset[str]) -> list[Audited]:
    """The audits of every record folder that the change leaves, or of the change alone."""
    from harness.atcommit import audit_commit, audit_nothing
    from harness.audit import Options
    from harness.facts.build_change import build_change, record_folders
    from harness.model import HarnessError
    from harness.sources import pullrequest
    from harness.sources.gitprogram import open_repository

    repository = open_repository(parsed.repo)
    pull = pullrequest.read(repository, parsed.base, parsed.head)
    if not pull.changes:
        raise HarnessError(f"{parsed.head} changes nothing that {parsed.base} does not have already")
    change = build_change(repository, pull)
    left = [folder for folder in record_folders(pull) if pullrequest.holds(repository, pull.head, folder)]
    if len(left) > FOLDERS_LIMIT:
        print(f"harness gate: {len(left)} record folders change; {FOLDERS_LIMIT} are audited", file=sys.stderr)
    quotes = output.quoting(parsed) or bool(os.environ.get(STEP_SUMMARY))
    options = Options(codes, parsed.edition, excerpts=quotes)
    found = [audit_commit(repository, pull.head, folder, options, change) for folder in left[:FOLDERS_LIMIT]]
    return found or [audit_nothing(_for_changes(options), change)]


def _for_changes(options: Options) -> Options:
    """The options with those rules only that judge a change, since there is no folder to judge."""
    import dataclasses

    from harness.checks import RULES
    from harness.model import Evidence

    codes = {rule.code for rule in RULES if rule.needs is Evidence.PULL_REQUEST}
    return dataclasses.replace(options, codes=options.codes & codes)


def _step_summary(report: Report) -> None:
    """Append the report to the summary of a GitHub job, where there is one."""
    from harness.model import HarnessError
    from harness.report import markdown

    path = os.environ.get(STEP_SUMMARY)
    if not path:
        return
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{markdown.render(report)}\n")
    except OSError as error:
        raise HarnessError(f"{path}: the job's summary cannot be written ({error.strerror})") from error
