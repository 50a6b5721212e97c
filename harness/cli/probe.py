"""The `probe` command: run a submission's script in miniature, in a sandbox, and judge what it does."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.cli import arguments, files, output, probing
from harness.cli.audit import found
from harness.model import HarnessError, Located, Missing, Report
from harness.probe.bounds import RUN_SECONDS
from harness.report.plain import plain

if TYPE_CHECKING:
    from harness.audit import Options
    from harness.facts.experiments import RanksFacts
    from harness.facts.probe import MiniatureRun, ProbeFacts
    from harness.sandbox.backend import Sandbox

CACHE: Final = Path(".cache") / "probe"
REPORT_NAME: Final = "report.json"
SHOWN: Final = 12
TABLE_COLUMNS: Final = 150


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "probe",
        help="run a submission's script in miniature, in a sandbox, and judge what it does",
        description="Run the unmodified training script of a record folder on a CPU: the configuration of the claimed "
        "run with small sizes, a small world of data, stand-ins for CUDA and its libraries, in the strongest sandbox "
        "that holds here. Then audit the folder together with what was seen. Of several folders each one's evidence "
        "is kept below one directory, and what is there already is not run again.",
        epilog="Exit status: 0 nothing failed, 1 a rule failed, 2 usage, 3 the harness itself failed, "
        "4 undecided under --strict.",
    )
    parser.add_argument(
        "folders", nargs="+", type=arguments.place, metavar="FOLDER", help="a record folder, or a directory of them"
    )
    parser.add_argument(
        "--evidence", type=arguments.place, metavar="DIR", help="where the runs go (default: below .cache/probe)"
    )
    parser.add_argument(
        "--seconds",
        type=probing.seconds,
        default=RUN_SECONDS,
        metavar="N",
        help=f"wall time of one run (default: {RUN_SECONDS:.0f})",
    )
    parser.add_argument("--fresh", action="store_true", help="remove what an earlier probe left in the directory")
    probing.bounds(parser)
    parser.add_argument(
        "--workers",
        type=arguments.positive,
        default=1,
        metavar="N",
        help="folders at a time, a core and 1 to 2 GB each (default: 1)",
    )
    output.declare(parser)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Run and judge; returns the exit status."""
    output.check(parsed, parsed.evidence)
    folders = found(parsed.folders)
    sandbox = probing.sandboxed(parsed)
    output.tell(f"sandbox: {sandbox.level} ({sandbox.backend.name}): {sandbox.level.text}")
    if len(folders) > 1:
        return _many(parsed, folders, sandbox)
    return _judge(parsed, folders[0], _probe(parsed, folders[0], sandbox))


def _probe(parsed: argparse.Namespace, folder: Path, sandbox: Sandbox) -> Path:
    from harness import audit
    from harness.probe import probing as runs

    made = runs.prepare(folder, audit.read(folder, None))
    directory: Path = parsed.evidence or CACHE / folder.resolve().name
    if parsed.fresh or parsed.evidence is None:
        runs.remove(directory)
    runs.run(made, directory, sandbox, output.tell, parsed.seconds, total_seconds=parsed.probe_seconds)
    return directory


def _judge(parsed: argparse.Namespace, folder: Path, directory: Path) -> int:
    from harness import audit
    from harness.facts import probe
    from harness.report import json
    from harness.sources.folder import walk

    audited = audit.audit_folder(folder, _options(parsed, directory))
    if audited.refused:
        raise HarnessError(audited.refused)
    report = audit.report_of([audited])
    files.write(directory / REPORT_NAME, json.render(report))
    if parsed.format == "text":
        found = probe.read(directory, walk(folder))
        output.say(f"probe: {found.reason}\n" if isinstance(found, Missing) else summary(found))
        output.say(f"evidence: {directory}\n{_ledger(directory)}\n")
    return _end(parsed, report, [], audited.crashes)


def _many(parsed: argparse.Namespace, folders: Sequence[Path], sandbox: Sandbox) -> int:
    """Probe folders; one that cannot be probed is told and ends nothing else."""
    from harness import audit
    from harness.probe.store import Store
    from harness.probebatch import probe_each
    from harness.report import probes

    place = (parsed.evidence or CACHE).resolve()
    store = Store(place, sandbox, parsed.seconds, parsed.probe_seconds, parsed.fresh)
    audits = list(probe_each(folders, store, _options(parsed, None), workers=parsed.workers, tell=output.tell))
    report = audit.report_of(audits)
    if parsed.format in {"text", "summary"}:
        output.say(probes.render(report, max(shutil.get_terminal_size((TABLE_COLUMNS, 24)).columns, TABLE_COLUMNS)))
    refused = [one.refused for one in audits if one.refused]
    return _end(parsed, report, refused, [crash for one in audits for crash in one.crashes])


def _options(parsed: argparse.Namespace, directory: Path | None) -> Options:
    from harness.audit import Options
    from harness.checks import RULES

    codes = frozenset(rule.code for rule in RULES)
    return Options(codes, probe=directory, excerpts=output.quoting(parsed))


def _end(parsed: argparse.Namespace, report: Report, refused: Sequence[str], crashes: Sequence[str]) -> int:
    """Print the report and what went wrong; returns the exit status."""
    status = output.exit_status(report, strict=parsed.strict, refused=bool(refused), crashed=bool(crashes))
    if report.submissions:
        output.emit(report, parsed, status)
    for problem in refused:
        output.tell(f"harness probe: {problem}")
    for crash in crashes:
        output.tell(f"harness probe: the harness itself failed: {crash}")
    return status


def _ledger(directory: Path) -> str:
    """Where the ledger is, and how many lines it has."""
    from harness.sources import ledgerfile

    path = directory / ledgerfile.NAME
    if not path.exists():
        return ""
    header = next(ledgerfile.read(path))
    left_out = header["rejected"] + header["unreadable"]
    return f"ledger: {path} ({header['lines']:,} lines, {left_out:,} damaged events left out)\n"


def summary(facts: ProbeFacts) -> str:
    """What ran, what was shrunk, what was replaced and what was not exercised."""
    lines = [f"{facts.script} in miniature, {facts.isolation}"]
    for each in facts.runs:
        lines += _run_lines(each)
    lines += _listed("shrunk", facts.shrunk)
    lines += [f"ledger: {facts.ledger.value.reason}"] if isinstance(facts.ledger, Located) else []
    lines += [f"two ranks: {_two_ranks(facts.two_ranks.value)}"] if isinstance(facts.two_ranks, Located) else []
    lines += _listed("not exercised: functions that the traced run never entered", facts.not_run)
    return "".join(f"{plain(line)}\n" for line in lines) + "\n"


def _two_ranks(found: RanksFacts) -> str:
    """Whether the script came to its score in a world of two."""
    return found.reason if found.result == "reached" else f"not exercised there: {found.reason}"


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
