"""The `calibrate` command: how often the rules are right about submissions with known verdicts."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time

from harness.cli import arguments, files, output, probing
from harness.cli.audit import selected

SECONDS_FOR_AN_AUDIT = 60.0


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "calibrate",
        help="count how often the rules are right about submissions with known verdicts",
        description="Audit the labelled submissions of a clone and count verdicts against labels; with --probe, run "
        "their scripts in miniature too.",
        epilog="Exit status: 0 it was measured, 1 a --require is not met, 2 usage, 3 the harness itself failed.",
    )
    parser.add_argument(
        "labels", type=arguments.place, metavar="LABELS", help="JSON lines, by schemas/labels.schema.json"
    )
    parser.add_argument(
        "--repo", type=arguments.place, required=True, metavar="CLONE", help="a clone that holds their commits"
    )
    parser.add_argument(
        "--seconds", type=arguments.duration, default=SECONDS_FOR_AN_AUDIT, help="kill an audit after so long"
    )
    parser.add_argument(
        "--workers",
        type=arguments.positive,
        metavar="N",
        help="processes at a time (default: all cores, one with --probe)",
    )
    probing.declare(parser)
    parser.add_argument("--format", choices=("text", "json"), default="text", help="what to print (default: text)")
    parser.add_argument("--output", type=arguments.place, metavar="PATH", help="write the JSON document to a file too")
    parser.add_argument("--select", action="append", default=[], metavar="CODES", help="only these rules: PG101,PG3")
    parser.add_argument("--ignore", action="append", default=[], metavar="CODES", help="all but these rules")
    parser.add_argument(
        "--require",
        action="append",
        default=[],
        type=_requirement,
        metavar="NAME=NUMBER",
        help="exit with 1 below a share (caught, caught_clusters, noticed, broken, pairs) or above a count "
        "(accusations, unavailable, crashed); repeatable",
    )
    parser.set_defaults(run=run)


def _requirement(value: str) -> tuple[str, float]:
    from harness.calibrate.tally import MAXIMA, MINIMA

    name, _, number = value.partition("=")
    names = ", ".join(sorted(MINIMA | MAXIMA))
    problem = argparse.ArgumentTypeError(f"{value!r}: expected NAME=NUMBER with NAME one of {names}")
    try:
        limit = float(number)
    except ValueError:
        raise problem from None
    if name not in MINIMA | MAXIMA or not math.isfinite(limit):
        raise problem
    return name, limit


def run(parsed: argparse.Namespace) -> int:
    """Measure, print, and return the exit status."""
    from harness.audit import Options
    from harness.calibrate import labels, measure, tally
    from harness.report import calibration
    from harness.sources.gitprogram import open_repository

    files.check([parsed.output] if parsed.output is not None else [])
    known = labels.read(parsed.labels)
    repository = open_repository(parsed.repo)
    options = Options(selected(parsed.select, parsed.ignore))
    started = time.monotonic()
    prober = probing.store(parsed)
    seconds = parsed.seconds + (prober.total_seconds if prober is not None else 0.0)
    workers = parsed.workers or (1 if prober is not None else 0)
    judged = []
    for one in measure.measure(known, repository, options, seconds, workers, prober=prober):
        judged.append(one)
        if prober is not None:
            output.tell(f"{len(judged)}/{len(known)} {one.label.id} ({one.label.label}): {one.outcome}")
    found = tally.document(judged, time.monotonic() - started)
    text = json.dumps(found, indent=1, allow_nan=False) + "\n"
    if parsed.output is not None:
        files.write(parsed.output, text)
    output.say(calibration.render(found) if parsed.format == "text" else text)
    unmet = tally.unmet(found, dict(parsed.require))
    for sentence in unmet:
        print(f"harness calibrate: not met: {sentence}", file=sys.stderr)
    return output.EXIT_FAIL if unmet else output.EXIT_PASS
