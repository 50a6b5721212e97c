"""What the actions of the `data` command do and print; apart from its arguments, so that other commands start fast."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from harness.data import demo, verify
from harness.data.manifest import Manifest
from harness.data.results import DatasetReport, SplitScan, Verification
from harness.data.scan import Decode

PLAIN_WIDTH_COLUMNS = 160
EXIT_OK = 0
EXIT_PROBLEM = 1


def run_demo(arguments: argparse.Namespace) -> int:
    """Build, re-use or check the demo corpus."""
    plan = demo.demo_plan(accept_any=arguments.unpinned)
    if arguments.check:
        return _check_demo(arguments.output, plan)
    started = time.monotonic()

    def report(line: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {line}", file=sys.stderr)

    if arguments.rebuild:
        manifest = demo.build(arguments.output, plan, report, replace=True)
    else:
        manifest = demo.ensure(arguments.output, plan, report)
    if arguments.json:
        print(manifest.to_json(), end="")
    else:
        _print_manifest(arguments.output, manifest, pinned=plan.expected is not None)
        print(f"{time.monotonic() - started:.1f} s")
    return EXIT_OK


def _check_demo(output: Path, plan: demo.Plan) -> int:
    problems = demo.check(output, plan)
    for problem in problems:
        print(problem)
    if not problems:
        print(f"ok: {output} is the pinned corpus")
    return EXIT_PROBLEM if problems else EXIT_OK


def _print_manifest(output: Path, manifest: Manifest, *, pinned: bool) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("file")
    for name in ("size in bytes", "tokens", "documents", "text bytes"):
        table.add_column(name, justify="right")
    table.add_column("sha256")
    for name, entry in manifest.files.items():
        counts = entry.counts
        numbers = ("", "", "") if counts is None else (counts.tokens, counts.documents, counts.bytes_by_table)
        cells = [f"{number:,}" if isinstance(number, int) else number for number in (entry.size_bytes, *numbers)]
        table.add_row(name, *cells, entry.sha256[:16])
    _console().print(table)
    text = manifest.text
    inputs = ", ".join(f"{package} {version}" for package, version in manifest.inputs.items())
    print(
        f"{text.documents:,} documents ({text.unique_documents:,} before near-duplicates went), {text.size_bytes:,} "
        f"bytes, {len(text.validation_services)} services held out; made with {inputs}"
    )
    print(f"ok: {output}, {'every hash as pinned' if pinned else 'hashes not compared with the pinned ones'}")


def run_verify(arguments: argparse.Namespace) -> int:
    """Verify a folder and print what was found."""
    with _progress() as progress:
        found = verify.verify(
            verify.Request(arguments.directory, arguments.tokenizer, Decode(arguments.decode)), progress
        )
    if arguments.json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        _print_verification(found)
    return EXIT_PROBLEM if found.problems else EXIT_OK


@contextlib.contextmanager
def _progress() -> Iterator[verify.Progress | None]:
    """A bar on standard error, on a terminal only."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("reading")
        yield lambda name, done, total: bar.update(task, description=name, completed=done, total=total)


def _print_verification(found: Verification) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("dataset")
    table.add_column("split")
    for name in ("shards", "tokens", "documents", "largest id", "of", "bytes by table", "by decoding", "in both sides"):
        table.add_column(name, justify="right")
    for dataset in found.datasets:
        for split, scan in dataset.splits:
            table.add_row(dataset.name, split, *_cells(dataset, split, scan))
    _console().print(table)
    for note in found.notes:
        print(f"note: {note}")
    for problem in found.problems:
        print(f"problem: {problem}")
    print(f"{len(found.problems)} problems" if found.problems else "ok")


def _cells(dataset: DatasetReport, split: str, scan: SplitScan) -> list[str]:
    overlap = dataset.overlap
    shared = None
    if overlap is not None:
        shared = overlap.train_documents if split == "train" else overlap.validation_documents
    numbers = (
        len(scan.shards),
        scan.tokens,
        scan.documents,
        scan.largest_token,
        dataset.vocab_size,
        scan.bytes_by_table,
        scan.bytes_by_decoding,
        shared,
    )
    return ["-" if number is None else f"{number:,}" for number in numbers]


def _console() -> Console:
    """Standard output: the terminal's width, or wide enough for our tables in a file."""
    console = Console(markup=False, highlight=False)
    return console if console.is_terminal else Console(markup=False, highlight=False, width=PLAIN_WIDTH_COLUMNS)
