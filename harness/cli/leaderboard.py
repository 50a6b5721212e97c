"""The `leaderboard` command: record folders ranked by what their logs say."""

from __future__ import annotations

import argparse
import json
import shutil

from harness.challenge import EDITIONS
from harness.cli import arguments, files, output

FORMATS = ("text", "json", "markdown")


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "leaderboard",
        help="rank record folders by their logs, with tests between the rows",
        description="Read record folders, run nothing of them, and rank them by the mean val_bpb of the runs that "
        "each claim is about.",
        epilog="The JSON document is what `harness audit --previous FILE.json` reads.",
    )
    parser.add_argument(
        "directories", nargs="+", type=arguments.place, metavar="DIR", help="a record folder, or a directory of them"
    )
    parser.add_argument(
        "--edition", choices=[edition.name for edition in EDITIONS], default="", help="default: by each folder's date"
    )
    parser.add_argument("--format", choices=FORMATS, default="text", help="what to print (default: text)")
    parser.add_argument("--output", type=arguments.place, metavar="PATH", help="write it to a file instead")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Rank, print, and return the exit status."""
    from harness.audit import Options
    from harness.checks import RULES
    from harness.leaderboard import CRASHED, find_folders, rank

    files.check([parsed.output] if parsed.output is not None else [])
    options = Options(frozenset(rule.code for rule in RULES), parsed.edition)
    document = rank(find_folders(parsed.directories), options)
    text = _rendered(document, parsed)
    if parsed.output is None:
        output.say(text)
    else:
        files.write(parsed.output, text)
    crashed = any(row["verdict"] == CRASHED for row in (*document["rows"], *document["unranked"]))
    return output.EXIT_INTERNAL if crashed else output.EXIT_PASS


def _rendered(document: dict[str, object], parsed: argparse.Namespace) -> str:
    from harness.report import standings

    if parsed.format == "json":
        return json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False) + "\n"
    if parsed.format == "markdown":
        return standings.markdown(document)
    screen = parsed.output is None
    width = shutil.get_terminal_size((output.FALLBACK_COLUMNS, 24)).columns if screen else output.FALLBACK_COLUMNS
    return standings.text(document, width, color=screen and output.colored())
