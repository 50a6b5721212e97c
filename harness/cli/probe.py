"""The `probe` command: run a submission's script in miniature, in a sandbox, and judge what it does."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.cli import output
from harness.model import HarnessError, Located
from harness.report.plain import plain

if TYPE_CHECKING:
    from harness.facts.probe import MiniatureRun, ProbeFacts

CACHE: Final = Path(".cache") / "probe"
REPORT_NAME: Final = "report.json"
SHOWN: Final = 12
NEEDED: Final = ("torch", "sentencepiece")


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "probe",
        help="run a submission's script in miniature, in a sandbox, and judge what it does",
        description="Run the unmodified training script of a record folder on a CPU: the configuration of the claimed "
        "run with small sizes, a small world of data, stand-ins for CUDA and its libraries, in the strongest sandbox "
        "that holds here. Then audit the folder together with what was seen.",
        epilog="Exit status: 0 nothing failed, 1 a rule failed, 2 usage, 3 the harness itself failed, "
        "4 undecided under --strict.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a record folder")
    parser.add_argument("--evidence", type=Path, metavar="DIR", help="where the runs go (default: below .cache/probe)")
    parser.add_argument("--seconds", type=_seconds, default=240.0, metavar="N", help="wall time of one run")
    parser.add_argument("--fresh", action="store_true", help="remove what an earlier probe left in the directory")
    parser.add_argument(
        "--allow-unsafe", action="store_true", help="run the code although the sandbox is weaker than L2"
    )
    output.declare(parser)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Run and judge; returns the exit status."""
    directory = _probe(parsed)
    return _judge(parsed, directory)


def _probe(parsed: argparse.Namespace) -> Path:
    from harness import audit
    from harness.probe import probing
    from harness.sandbox.establish import establish, require

    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        told = "pip install 'parameter-golf-harness[torch]'"
        raise HarnessError(f"the probe runs scripts with {' and '.join(missing)}, not installed here: {told}")
    folder: Path = parsed.folder
    facts = audit.read(folder, None)
    sandbox = require(establish(), allow_unsafe=parsed.allow_unsafe)
    made = probing.prepare(folder, facts)
    directory: Path = parsed.evidence or CACHE / folder.resolve().name
    if parsed.fresh or parsed.evidence is None:
        probing.remove(directory)
    _tell(f"{folder.name} at {sandbox.level} ({sandbox.backend.name}): {sandbox.level.text}")
    probing.run(made, directory, sandbox, _tell, parsed.seconds)
    return directory


def _judge(parsed: argparse.Namespace, directory: Path) -> int:
    from harness import audit
    from harness.checks import RULES
    from harness.facts import probe
    from harness.report import json
    from harness.sources.folder import walk

    codes = frozenset(rule.code for rule in RULES)
    audited = audit.audit_folder(parsed.folder, audit.Options(codes, probe=directory, excerpts=output.quoting(parsed)))
    if audited.refused:
        raise HarnessError(audited.refused)
    report = audit.report_of([audited])
    output.write(directory / REPORT_NAME, json.render(report))
    if parsed.format == "text":
        output.say(summary(probe.read(directory, walk(parsed.folder))))
        output.say(f"evidence: {directory}\n\n")
    status = output.exit_status(report, strict=parsed.strict, crashed=bool(audited.crashes))
    output.emit(report, parsed, status)
    for crash in audited.crashes:
        print(f"harness probe: the harness itself failed: {crash}", file=sys.stderr)
    return status


def summary(facts: ProbeFacts) -> str:
    """What ran, what was shrunk, what was replaced and what was not exercised."""
    lines = [f"{facts.script} in miniature, {facts.isolation}"]
    for each in facts.runs:
        lines += _run_lines(each)
    lines += _listed("shrunk", facts.shrunk)
    lines += [f"ledger: {facts.ledger.value.reason}"] if isinstance(facts.ledger, Located) else []
    lines.append(
        "not exercised: more than one process; caches and mixtures that are no weights; sums over the vocabulary"
    )
    return "".join(f"{plain(line)}\n" for line in lines) + "\n"


def _run_lines(run: MiniatureRun) -> list[str]:
    score = f"val_bpb {run.val_bpb.value:.4f}" if isinstance(run.val_bpb, Located) else "no final score"
    lines = [f"{run.name}: {score}, {run.seconds:.0f} s, {run.peak_memory_bytes / 1e6:,.0f} MB, {run.reason}"]
    if run.crash is not None:
        crash = run.crash.value
        lines.append(f"  ended by {crash.error} at {run.crash.location} (blame: {crash.blame}; {crash.reason})")
    return [*lines, *_listed("  approximated", run.approximated), *_listed("  refused", run.refused)]


def _listed(title: str, items: tuple[str, ...]) -> list[str]:
    if not items:
        return []
    more = f"; {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return [f"{title}: {'; '.join(items[:SHOWN])}{more}"]


def _tell(line: str) -> None:
    print(plain(line), file=sys.stderr)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds from 1 to 86400")
    return value
