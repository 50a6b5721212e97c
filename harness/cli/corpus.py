"""The `corpus` command: audit what many pull requests of a clone add, to review rules and to find crashes."""

from __future__ import annotations

import argparse
import itertools
import json
import sys

from harness.cli import arguments, output
from harness.cli.audit import selected

SECONDS_FOR_A_HEAD = 60.0


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "corpus",
        help="audit what the pull requests of a clone add, many at once",
        description="Audit the record folders that pull requests of a clone add, each head in a process of its own.",
        epilog="Exit status: 0 every head was audited, 2 usage, 3 the harness itself failed on one, or hung.",
    )
    parser.add_argument(
        "clone", type=arguments.place, metavar="CLONE", help="a clone that holds the pull requests' heads"
    )
    parser.add_argument("--base", default="main", metavar="REF", help="the branch they are for (default: main)")
    parser.add_argument("--refs", default="refs/pull/", metavar="PREFIX", help="where heads are (default: refs/pull/)")
    parser.add_argument("--head", action="append", default=[], metavar="REF", help="only this head; repeatable")
    parser.add_argument("--sample", type=arguments.positive, metavar="N", help="only N heads, chosen at random")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the choice (default: 0)")
    parser.add_argument(
        "--results", type=arguments.place, metavar="FILE", help="append rows to this file, and go on with it"
    )
    parser.add_argument(
        "--seconds", type=arguments.duration, default=SECONDS_FOR_A_HEAD, help="kill a head after so long"
    )
    parser.add_argument(
        "--workers", type=arguments.positive, metavar="N", help="processes at a time (default: all cores)"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="what to print (default: text)")
    parser.add_argument("--select", action="append", default=[], metavar="CODES", help="only these rules: PG101,PG3")
    parser.add_argument("--ignore", action="append", default=[], metavar="CODES", help="all but these rules")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Audit the heads, print the survey, and return the exit status."""
    from harness import corpus
    from harness.audit import Options
    from harness.model import HarnessError
    from harness.report import survey
    from harness.sources import pullrequest
    from harness.sources.gitprogram import open_repository

    corpus.check_results(parsed.results)
    repository = open_repository(parsed.clone)
    for name in (parsed.base, *parsed.head):
        pullrequest.commit_id(repository, name)
    names = parsed.head or corpus.sampled(corpus.references(repository, parsed.refs), parsed.seed)
    found = corpus.adding(repository, parsed.base, names, Options(selected(parsed.select, parsed.ignore)))
    heads = list(itertools.islice(found, parsed.sample))
    if not heads:
        raise HarnessError(f"{parsed.clone}: none of {len(names)} heads adds a record folder to {parsed.base}")
    rows = []
    for number, row in enumerate(corpus.survey(heads, parsed.results, parsed.seconds, parsed.workers or 0), 1):
        rows.append(row)
        if sys.stderr.isatty():
            print(f"\r{number}/{len(heads)}", end="" if number < len(heads) else "\n", file=sys.stderr, flush=True)
    rows.sort(key=lambda row: row["reference"])
    output.say(survey.render(rows) if parsed.format == "text" else json.dumps(rows, indent=1, allow_nan=False) + "\n")
    return output.EXIT_INTERNAL if survey.problems(rows) else output.EXIT_PASS
