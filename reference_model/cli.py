"""The command line: the only place of `reference_model` that prints.

Each command is a pair of functions, one that declares its arguments and one that runs it and returns an exit status.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from reference_model import __version__
from reference_model.artifact import ArtifactError, coding_of, read_content
from reference_model.baselines import Comparer, DemoData
from reference_model.bundle import BundleError, bundle, compact, package_texts
from reference_model.byteaccount import account_text, artifact_account, coder_sizes, script_account
from reference_model.config import Config
from reference_model.fullsize import measure, read_rows, table, trained_artifact, write_rows
from reference_model.likeforlike import FURTHER, FURTHER_BY_DEFAULT, like_for_like
from reference_model.miniature import MiniatureError, run_bundled
from reference_model.params import parameter_table
from reference_model.presets import PRESETS
from reference_model.release import ReleaseError, finish, prepare
from reference_model.releases import RELEASES, presets_table
from reference_model.settings import ConfigError
from reference_model.storage import RunError, read_whole, write_whole
from reference_model.study.design import StudyError
from reference_model.study.experiments import EXPERIMENTS
from reference_model.study.publish import listing, publish
from reference_model.study.runner import Study, chosen

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - it has no public name

STATUS_FAILED = 1
STATUS_USAGE = 2
DEMO_SECONDS = 60.0
FULLSIZE_FILE = Path("docs/fullsize.json")
STUDY_PAGE = Path("docs/hymba.md")
STUDY_RESULTS = Path("docs/hymba/results.jsonl")
STUDY_SEEDS = 3
STUDY_SECONDS = 20.0


def bundled_script(preset: str) -> str:
    """The preset's script, from the sources of this very package."""
    return bundle(package_texts(Path(__file__).parent), preset, __version__)


def add_bundle(subparsers: Subparsers) -> None:
    """Declare `bundle`."""
    parser = subparsers.add_parser("bundle", help="write a preset as one self-contained script")
    parser.add_argument("--preset", required=True, choices=sorted(PRESETS))
    parser.add_argument("--output", type=Path, default=Path("train_gpt.py"))
    parser.add_argument("--compact", action="store_true", help="drop comments and docstrings: they count as code")
    parser.set_defaults(run=run_bundle)


def run_bundle(arguments: argparse.Namespace) -> int:
    """Write the script whole and say how large it is."""
    text = bundled_script(arguments.preset)
    content = (compact(text) if arguments.compact else text).encode()
    write_whole(arguments.output, content)
    print(f"{arguments.output}: preset {arguments.preset}, {len(content)} bytes")
    return 0


def known_presets(names: Sequence[str]) -> Sequence[str]:
    """The names themselves; raises ConfigError for those that are no presets."""
    if unknown := sorted(set(names) - set(PRESETS)):
        raise ConfigError(f"no such preset: {', '.join(unknown)} (there are {', '.join(sorted(PRESETS))})")
    return names


def add_check_bundles(subparsers: Subparsers) -> None:
    """Declare `check-bundles`."""
    parser = subparsers.add_parser("check-bundles", help="run every preset's bundled script in miniature")
    parser.add_argument("presets", nargs="*", metavar="PRESET", help="these only")
    parser.set_defaults(run=run_check_bundles)


def run_check_bundles(arguments: argparse.Namespace) -> int:
    """Train, pack, score, score again and pack again, each preset in seconds."""
    presets = known_presets(arguments.presets or sorted(PRESETS))
    with tempfile.TemporaryDirectory() as folder:
        for preset, headline in run_bundled(Path(folder), {name: bundled_script(name) for name in presets}).items():
            print(f"{preset}: {headline}")
    return 0


def add_compare(subparsers: Subparsers) -> None:
    """Declare `compare`."""
    parser = subparsers.add_parser("compare", help="set a finished run beside simple coders and plain transformers")
    parser.add_argument("--data", required=True, type=Path, help="folder that `harness data demo` wrote")
    parser.add_argument("--run", required=True, type=Path, dest="run_folder", help="working folder of a finished run")
    parser.add_argument("--preset", default="demo", choices=sorted(PRESETS), help="settings of that run")
    parser.add_argument("--seconds", type=float, default=DEMO_SECONDS, help="training time of the plain transformer")
    parser.add_argument("--json", type=Path, help="write the table here too")
    parser.set_defaults(run=run_compare)


def run_compare(arguments: argparse.Namespace) -> int:
    """Measure and print the table."""
    progress = Comparer(
        arguments.data,
        arguments.run_folder,
        arguments.preset,
        arguments.seconds,
        say=lambda line: print(f"compare: {line}", file=sys.stderr, flush=True),
        processes=os.cpu_count() or 1,
    )
    comparison = progress.compare()
    if arguments.json is not None:
        write_whole(arguments.json, (json.dumps(comparison.as_json(), indent=2) + "\n").encode())
    print(comparison.as_text())
    return 0


def add_table(subparsers: Subparsers) -> None:
    """Declare `table`."""
    parser = subparsers.add_parser("table", help="score every form of a finished run on the same tokens")
    parser.add_argument("--run", required=True, type=Path, dest="run_folder", help="working folder of a finished run")
    parser.add_argument("--preset", default="demo", choices=sorted(PRESETS), help="settings of that run")
    parser.add_argument("--data", type=Path, help="folder that `harness data demo` wrote; else DATA_PATH says")
    parser.add_argument("--rows", nargs="*", default=FURTHER_BY_DEFAULT, choices=sorted(FURTHER), metavar="ROW")
    parser.add_argument("--processes", type=int, default=1, help="rows that are scored side by side")
    parser.add_argument("--json", type=Path, help="write the table here too")
    parser.set_defaults(run=run_table)


def run_table(arguments: argparse.Namespace) -> int:
    """Measure and print the table; the environment changes the settings, as it does those of the script."""
    config = Config.from_environment(os.environ, PRESETS[arguments.preset])
    if arguments.data is not None:
        config = DemoData(arguments.data, config.model.vocab_size).apply_full_validation(config)
    rows, processes = arguments.rows, arguments.processes
    found = like_for_like(arguments.preset, config, arguments.run_folder, rows, processes)
    if arguments.json is not None:
        write_whole(arguments.json, (json.dumps(found.as_json(), indent=2) + "\n").encode())
    print(found.as_text())
    return 0


def add_release(subparsers: Subparsers) -> None:
    """Declare `release prepare` and `release finish`."""
    parser = subparsers.add_parser("release", help="make a record folder out of real runs")
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    first = steps.add_parser("prepare", help="write the script and a manifest without numbers")
    last = steps.add_parser("finish", help="copy logs and numbers from the evidence of `harness reproduce`")
    for step in (first, last):
        step.add_argument("folder", type=Path, help=f"ends in a known name: {', '.join(sorted(RELEASES))}")
    last.add_argument("--evidence", required=True, type=Path)
    last.add_argument("--data", type=Path, default=Path(".cache/demo"))
    last.add_argument("--fullsize", type=Path, default=FULLSIZE_FILE, help="measurements of `fullsize --json`")
    parser.set_defaults(run=run_release)


def run_release(arguments: argparse.Namespace) -> int:
    """Run one step of a release."""
    plan = RELEASES.get(arguments.folder.name)
    if plan is None:
        raise ReleaseError(f"{arguments.folder}: no such release (there are {', '.join(sorted(RELEASES))})")
    if arguments.step == "prepare":
        text = bundled_script(plan.preset)
        script = compact(text) if plan.compact else text
        prepare(arguments.folder, plan, script, dt.datetime.now(dt.UTC).date())
    else:
        measured = read_rows(arguments.fullsize).get(plan.preset)
        further = {} if measured is None else {"full_size": measured.as_json()}
        finish(arguments.folder, plan, arguments.evidence, arguments.data, further)
    return 0


def add_params(subparsers: Subparsers) -> None:
    """Declare `params`."""
    parser = subparsers.add_parser("params", help="count a preset's parameters; the total stands on the last line")
    parser.add_argument("--preset", required=True, choices=sorted(PRESETS))
    parser.set_defaults(run=run_params)


def run_params(arguments: argparse.Namespace) -> int:
    """Print the table."""
    print(parameter_table(PRESETS[arguments.preset].model))
    return 0


def add_fullsize(subparsers: Subparsers) -> None:
    """Declare `fullsize`."""
    parser = subparsers.add_parser("fullsize", help="one training step at full size, and the artifact's bytes")
    parser.add_argument("presets", nargs="+", metavar="PRESET")
    parser.add_argument("--tokens", type=int, default=1_024, help="of the step and of the scored window")
    parser.add_argument("--json", type=Path, help="add the measurements to this file, and print all that it holds")
    parser.set_defaults(run=run_fullsize)


def run_fullsize(arguments: argparse.Namespace) -> int:
    """Measure presets one after the other and print the table."""
    rows = {} if arguments.json is None else read_rows(arguments.json)
    for preset in known_presets(arguments.presets):
        code_bytes = len(bundled_script(preset).encode())
        rows[preset] = measure(preset, PRESETS[preset], tokens=arguments.tokens, code_bytes=code_bytes)
        if arguments.json is not None:
            write_rows(arguments.json, rows)
    print(table(rows[preset] for preset in sorted(rows)))
    return 0


def add_bytes(subparsers: Subparsers) -> None:
    """Declare `bytes`."""
    parser = subparsers.add_parser("bytes", help="where the bytes of an artifact and of the script go")
    parser.add_argument("what", metavar="ARTIFACT_OR_PRESET", help="a preset: weights of a trained scale at full size")
    parser.add_argument("--preset", default="demo", choices=sorted(PRESETS), help="whose script goes with an artifact")
    parser.add_argument("--compact", action="store_true", help="count the script without comments and docstrings")
    parser.set_defaults(run=run_bytes)


def run_bytes(arguments: argparse.Namespace) -> int:
    """Print the account."""
    is_preset = arguments.what in PRESETS and not Path(arguments.what).is_file()
    preset = arguments.what if is_preset else arguments.preset
    blob = trained_artifact(PRESETS[preset]) if is_preset else read_whole(Path(arguments.what))
    script = script_account(package_texts(Path(__file__).parent), preset, __version__, small=arguments.compact)
    print(account_text(artifact_account(blob), script, coder_sizes(read_content(blob)), coding_of(blob)))
    return 0


def add_presets(subparsers: Subparsers) -> None:
    """Declare `presets`."""
    parser = subparsers.add_parser("presets", help="print the published presets beside what their authors claim")
    parser.set_defaults(run=run_presets)


def run_presets(_arguments: argparse.Namespace) -> int:
    """Print the table."""
    print(presets_table())
    return 0


def add_study(subparsers: Subparsers) -> None:
    """Declare `study run`, `study page` and `study list`."""
    parser = subparsers.add_parser("study", help="try published claims at the demo's scale: docs/hymba.md")
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    run = steps.add_parser("run", help="do the runs that are not done yet; an interrupted study goes on")
    run.add_argument("--data", type=Path, default=Path(".cache/demo"), help="folder that `harness data demo` wrote")
    run.add_argument("--workers", type=int, default=1, help="runs beside each other, one thread each")
    run.add_argument("--minutes", type=float, default=float("inf"), help="no run starts after so many")
    page = steps.add_parser("page", help="write the page and its plots from the results")
    page.add_argument("--page", type=Path, default=STUDY_PAGE)
    listed = steps.add_parser("list", help="print the experiments, their runs and how long they train")
    for step in (run, listed):
        step.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help="these only")
        step.add_argument("--seconds", type=float, default=STUDY_SECONDS, help="of training, in one thread")
        step.add_argument("--seeds", type=int, default=STUDY_SEEDS)
    for step in (run, page):
        step.add_argument("--results", type=Path, default=STUDY_RESULTS)
    parser.set_defaults(run=run_study)


def run_study(arguments: argparse.Namespace) -> int:
    """Run one step of the study."""
    if arguments.step == "page":
        publish(EXPERIMENTS, arguments.results, arguments.page)
        return 0
    experiments = chosen(EXPERIMENTS, arguments.experiments)
    if arguments.step == "list":
        print(listing(experiments, arguments.seconds, arguments.seeds))
        return 0
    study = Study(
        experiments,
        arguments.seeds,
        arguments.seconds,
        arguments.data,
        arguments.results,
        arguments.workers,
        arguments.minutes,
        say=lambda line: print(line, flush=True),
    )
    return STATUS_FAILED if study.run() else 0


COMMANDS = (
    add_bundle,
    add_bytes,
    add_check_bundles,
    add_compare,
    add_fullsize,
    add_params,
    add_presets,
    add_release,
    add_study,
    add_table,
)


def command_line(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m reference_model", description="The reference Hymba.")
    parser.add_argument("--version", action="version", version=f"reference_model {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(subparsers)
    parsed = parser.parse_args(arguments)
    try:
        status: int = parsed.run(parsed)
    except (ConfigError, StudyError) as error:
        print(f"reference_model {parsed.command}: {error}", file=sys.stderr)
        return STATUS_USAGE
    except (ArtifactError, BundleError, MiniatureError, ReleaseError, RunError) as error:
        print(f"reference_model {parsed.command}: {error}", file=sys.stderr)
        return STATUS_FAILED
    return status
