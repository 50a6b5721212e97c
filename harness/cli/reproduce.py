"""The `reproduce` command: train, rebuild and score a submission again, seed by seed, then judge it."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.cli import arguments, files, output
from harness.model import HarnessError
from harness.report.plain import plain

if TYPE_CHECKING:
    from harness.facts.reproduction import ReproductionFacts
    from harness.reproduce.executors.base import Caps
    from harness.reproduce.plan import Plan, Request

CACHE: Final = Path(".cache")
DEMO_PREFIX: Final = "demo_"
REPORT_NAME: Final = "report.json"
MEMORY_SHARE: Final = 0.9


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "reproduce",
        help="train, rebuild and score a submission again, and compare with its claim",
        description="Run a submission's script for each seed in a clean directory, pack its weights again, score its "
        "artifact again without training data, and compare everything with what the submission claims.",
        epilog="Exit status: 0 nothing failed, 1 a rule or a seed failed, 2 usage, 3 the harness itself failed, "
        "4 undecided under --strict.",
    )
    parser.add_argument("folder", type=arguments.place, metavar="FOLDER", help="a record folder")
    parser.add_argument("--seeds", type=_seeds, metavar="N,N,...", help="default: the seeds of the claim")
    parser.add_argument("--steps", type=arguments.positive, metavar="N", help="ITERATIONS for the script")
    parser.add_argument("--nproc", type=arguments.positive, metavar="N", help="start N processes by torchrun")
    parser.add_argument(
        "--data", type=arguments.place, metavar="DIR", help="data root (datasets/, tokenizers/) or a dataset in it"
    )
    parser.add_argument("--env", action="append", default=[], metavar="KEY=VALUE", help="a setting; repeatable")
    parser.add_argument(
        "--evidence", "--output-dir", type=arguments.place, metavar="DIR", help="where logs and results go"
    )
    parser.add_argument("--fresh", action="store_true", help="repeat finished seeds too")
    parser.add_argument("--no-rescore", action="store_true", help="do not pack and score the artifact again")
    parser.add_argument("--allow-unsafe", action="store_true", help="run code that is not ours without isolation")
    _add_limits(parser)
    output.declare(parser)
    parser.set_defaults(run=run)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("limits, in seconds")
    limits.add_argument(
        "--wallclock", type=arguments.limit, metavar="S", help="training (MAX_WALLCLOCK_SECONDS; default: the claim's)"
    )
    limits.add_argument(
        "--eval-wallclock", type=arguments.limit, default=600.0, metavar="S", help="evaluation (default: 600)"
    )
    limits.add_argument("--startup", type=arguments.limit, default=600.0, metavar="S", help="until the first step")
    limits.add_argument(
        "--grace", type=arguments.limit, default=60.0, metavar="S", help="beyond each limit, before the kill"
    )


def run(parsed: argparse.Namespace) -> int:
    """Reproduce the folder, print the report, and return the exit status."""
    output.check(parsed, parsed.evidence)
    try:
        directory = _measure(parsed)
    except KeyboardInterrupt:
        print("harness reproduce: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return output.EXIT_INTERRUPTED
    return _judge(parsed, directory)


def _measure(parsed: argparse.Namespace) -> Path:
    """Plan and run; returns the evidence directory."""
    from harness import audit
    from harness.cli.progress import display
    from harness.reproduce import plan, run
    from harness.reproduce.executors.choose import choose
    from harness.reproduce.seed import Machine
    from harness.sources.folder import walk

    facts = audit.read(parsed.folder, None)
    made = plan.make(walk(parsed.folder), facts, _request(parsed))
    accelerators = run.accelerators(os.environ)
    executor, why = choose(parsed.nproc, accelerators)
    run.refuse_untrusted(made, f"{executor.isolation}: {why}", allow_unsafe=parsed.allow_unsafe)
    directory: Path = parsed.evidence or run.default_directory(made, CACHE / "reproduce")
    if parsed.fresh:
        run.remove(directory)
    machine = Machine(executor, _caps(), dict(os.environ), accelerators)
    _announce(made, directory, executor.isolation)
    with display(sys.stderr) as progress:
        run.run(made, directory, machine, progress)
    return directory


def _judge(parsed: argparse.Namespace, directory: Path) -> int:
    """Audit the folder with its evidence, print, and write the report beside the evidence."""
    from harness import audit
    from harness.checks import RULES
    from harness.facts import reproduction
    from harness.report import json
    from harness.sources.folder import walk

    options = audit.Options(frozenset(rule.code for rule in RULES), evidence=directory, excerpts=output.quoting(parsed))
    audited = audit.audit_folder(parsed.folder, options)
    if audited.refused:
        raise HarnessError(audited.refused)
    report = audit.report_of([audited])
    files.write(directory / REPORT_NAME, json.render(report))
    measured = reproduction.read(directory, walk(parsed.folder))
    if parsed.format == "text":
        _print_table(measured, directory)
    status = output.exit_status(report, strict=parsed.strict, crashed=bool(audited.crashes))
    failed = any(seed.outcome != "ok" for seed in measured.seeds)
    status = output.EXIT_FAIL if failed and status in {output.EXIT_PASS, output.EXIT_UNDECIDED} else status
    output.emit(report, parsed, status)
    for crash in audited.crashes:
        print(f"harness reproduce: the harness itself failed: {crash}", file=sys.stderr)
    return status


def _print_table(measured: ReproductionFacts, directory: Path) -> None:
    from harness.cli import seedtable

    width = shutil.get_terminal_size((output.FALLBACK_COLUMNS, 24)).columns
    output.say(seedtable.render(measured, width))
    output.say(f"evidence: {directory}\n\n")


def _announce(made: Plan, directory: Path, isolation: str) -> None:
    """Say on standard error what will be run, and where it can be watched."""
    limits = made.limits
    data = "no data" if made.data is None else made.data.name
    told = f"{made.script} of {made.folder.name} on {data}, training at most {limits.train_seconds:g} s"
    print(f"{told}, evaluation {limits.eval_seconds:g} s; evidence in {directory}", file=sys.stderr)
    print(f"isolation: {isolation}", file=sys.stderr)
    settings = " ".join(f"{name}={value}" for name, value in sorted(made.environment.items()))
    print(plain(f"settings: {settings}"), file=sys.stderr)


def _request(parsed: argparse.Namespace) -> Request:
    from harness.reproduce.environment import parse_pairs
    from harness.reproduce.plan import Request

    return Request(
        seeds=parsed.seeds,
        wallclock_seconds=parsed.wallclock,
        eval_seconds=parsed.eval_wallclock,
        startup_seconds=parsed.startup,
        grace_seconds=parsed.grace,
        steps=parsed.steps,
        processes=parsed.nproc,
        data=parsed.data,
        environment=parse_pairs(parsed.env),
        rebuild=not parsed.no_rescore,
        demo=demo_corpus,
    )


def demo_corpus(name: str, root: Path | None) -> Path | None:
    """The demo corpus: built where it is missing, checked where it is; None for data that nobody can build."""
    if not name.startswith(DEMO_PREFIX):
        return None
    from harness.data.demo import ensure

    root = root or CACHE / "demo"
    root.parent.mkdir(parents=True, exist_ok=True)
    ensure(root, report=lambda line: print(line, file=sys.stderr))
    return root


def _caps() -> Caps:
    import psutil

    from harness.reproduce.executors.base import Caps

    return Caps(memory_bytes=int(MEMORY_SHARE * psutil.virtual_memory().total))


def _seeds(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: expected whole numbers separated by commas")
    return tuple(dict.fromkeys(int(part) for part in parts))
