"""The `data` command: build the demo corpus, verify a folder of token shards."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import arguments

DEFAULT_OUTPUT = "demo-data"
DECODE_CHOICES = ("none", "validation", "all")


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("data", help="build the demo corpus, verify token shards")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_demo(actions)
    _add_verify(actions)


def _add_demo(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "Build the demo corpus from the installed botocore package, or re-use it when every hash is right."
    parser = actions.add_parser("demo", help="build the demo corpus", description=about)
    parser.add_argument(
        "--output", type=arguments.place, default=Path(DEFAULT_OUTPUT), metavar="DIR", help="default: %(default)s"
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="only compare what is there with the pinned hashes")
    mode.add_argument("--rebuild", action="store_true", help="build even if there is a corpus, and replace it")
    parser.add_argument("--unpinned", action="store_true", help="accept other hashes than the pinned ones")
    parser.add_argument("--json", action="store_true", help="print the manifest instead of a table")
    parser.set_defaults(run=_run_demo)


def _add_verify(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "Check token shards: headers, sizes, ids, documents, bytes, overlap of the two sides, unexpected files."
    parser = actions.add_parser("verify", help="check a folder of token shards", description=about)
    parser.add_argument("directory", type=arguments.place, metavar="DIR", help="a folder of datasets, or one dataset")
    parser.add_argument(
        "--tokenizer", type=arguments.place, metavar="FILE", help="instead of the one that the dataset's name means"
    )
    parser.add_argument(
        "--decode",
        choices=DECODE_CHOICES,
        default="validation",
        help="which splits to decode for a second byte count (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.set_defaults(run=_run_verify)


def _run_demo(parsed: argparse.Namespace) -> int:
    from harness.cli import data_actions

    return data_actions.run_demo(parsed)


def _run_verify(parsed: argparse.Namespace) -> int:
    from harness.cli import data_actions

    return data_actions.run_verify(parsed)
