"""Everything known about one record folder."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.analysis.answers import Stated
from harness.analysis.program import Program
from harness.analysis.reach import Reach
from harness.analysis.switches import Switch, switched
from harness.facts.build_bytetable import build_bytetable
from harness.facts.build_claims import build_claims
from harness.facts.build_names import build_names
from harness.facts.build_package import Texts, build_package, find_manifest, find_readme, read_scripts
from harness.facts.build_pipeline import build_pipeline
from harness.facts.build_readme import build_readme
from harness.facts.build_runs import build_runs
from harness.facts.build_scorers import follow, joined, scorers
from harness.facts.build_size import build_size
from harness.facts.build_stated import Claimed, build_stated, renamed_shards
from harness.facts.build_statements import build_statements
from harness.facts.bytetable import ByteTableFacts
from harness.facts.change import NO_CHANGE, ChangeFacts
from harness.facts.claims import ManifestClaims, ReadmeClaims
from harness.facts.code import code_base
from harness.facts.jsonready import as_value
from harness.facts.legality import LegalityFacts
from harness.facts.logfile import LogFile, named_bits, named_seed, read_log
from harness.facts.logged import Logged
from harness.facts.names import NamesFacts
from harness.facts.package import PackageFacts
from harness.facts.pipeline import PipelineFacts
from harness.facts.previous import NO_PREVIOUS, Previous
from harness.facts.probe import NO_PROBE, ProbeFacts
from harness.facts.reproduction import ReproductionFacts
from harness.facts.runs import Run
from harness.facts.settings import Setting, stated_settings
from harness.facts.size import SizeFacts
from harness.facts.statements import NO_STATEMENTS, StatementFacts
from harness.facts.targets import TargetFacts
from harness.model import Fact, HarnessError, Located, Location, Missing, Value
from harness.sources import manifest, readme
from harness.sources.folder import LOG_LIMIT_BYTES, PATH_SHOWN_CHARACTERS, Folder, decode, shown, walk

LOG_ENDINGS = (".log", ".txt", ".out")
LOGS_LIMIT = 400
# Text files that no run writes.
NEVER_LOGS = ("requirements", "readme", "license", "notes", "constraints")


@dataclass(frozen=True, slots=True)
class Submission:
    """One record folder as facts.

    `reproduction` is Missing when no evidence directory was given, `previous` when no previous record was, `change`
    when no pull request was. `commanded` has the variables that a command of the README or of a shell script sets,
    `switched` those that the logs show to have had another value than the default, `guessed` those of which they show
    only that it was not 0, `strays` the numbers that logs without a run call bits per byte.
    """

    folder: str
    name: str
    package: PackageFacts
    claims: ManifestClaims
    readme: ReadmeClaims
    runs: tuple[Run, ...]
    size: SizeFacts
    targets: TargetFacts
    byte_tables: ByteTableFacts
    legality: LegalityFacts
    reproduction: ReproductionFacts | Missing
    names: NamesFacts
    pipeline: PipelineFacts
    settings: tuple[Located[Setting], ...]
    statements: StatementFacts = NO_STATEMENTS
    strays: tuple[Located[float], ...] = ()
    probe: ProbeFacts | Missing = NO_PROBE
    commanded: Mapping[str, str] = field(default_factory=dict)
    switched: Mapping[str, str] = field(default_factory=dict)
    guessed: Mapping[str, str] = field(default_factory=dict)
    previous: Previous | Missing = NO_PREVIOUS
    change: ChangeFacts | Missing = NO_CHANGE


def read(folder: Path, *, recount: bool = False) -> Submission:
    """Read a record folder, whatever it holds.

    Args:
        folder: the record folder; nothing in it is executed.
        recount: work the compressed size of the code out anew, which takes a second or two.

    Raises:
        HarnessError: it is no folder, or cannot be listed.
    """
    walked = walk(folder)
    refused: list[Located[str]] = []
    found = find_manifest(walked)
    document = _manifest(walked, found, refused)
    text, readme_path = _readme(walked, find_readme(walked), refused)
    logs, log_paths, strays = _logs(walked, refused)
    scripts, unread = read_scripts(walked)
    texts = Texts(text or "", document, tuple(logs), tuple(log_paths), (*refused, *unread))
    package = build_package(walked, scripts, texts)
    runs = build_runs(logs)
    claims = build_claims(document, found.reason if isinstance(found, Missing) else "submission.json cannot be read")
    readme_claims = build_readme(
        readme.read(text) if text is not None else None, readme_path, "the folder has no README"
    )
    code = code_base(scripts, package.entry.value.path if isinstance(package.entry, Located) else "")
    written = Located(text, Location(readme_path)) if text is not None else None
    claimed = Claimed(claims, readme_claims)
    stated = build_stated(walked, written, runs, claimed)
    own = follow(walked, code, package, stated, Logged(walked, logs, runs, claimed, code.program))
    others = [
        (each, follow(walked, each.code, package, each.stated, Logged(walked, logs, runs, claimed, each.code.program)))
        for each in scorers(walked, code, stated, text or "", (log_paths, claimed.scores()))
    ]
    followed = joined(own, others)
    switches = _switched(code.program, stated, own.reached)
    submission = Submission(
        folder=shown(str(folder), PATH_SHOWN_CHARACTERS),
        name=walked.name,
        package=package,
        claims=claims,
        readme=readme_claims,
        runs=runs,
        strays=strays,
        size=build_size(walked, package, scripts, runs, always=recount),
        targets=followed.targets,
        byte_tables=build_bytetable(code, followed.reached),
        legality=dataclasses.replace(followed.legality, renamed=renamed_shards(walked, written)),
        reproduction=Missing("no evidence of a reproduction was given"),
        names=build_names(code),
        pipeline=build_pipeline(code),
        settings=stated_settings(text or "", readme_path),
        commanded={name: setting.value for name, setting in stated.commanded.items()},
        switched={each.name: each.value for each in switches if each.exact},
        guessed={each.name: each.value for each in switches if not each.exact},
        statements=build_statements(document, written, scripts, code),
    )
    for each in (code, *(other.code for other, _ in others)):
        each.release()
    return submission


def _switched(program: Program | None, stated: Stated, reached: Reach | None) -> list[Switch]:
    return [] if program is None or reached is None else [*switched(program, stated, reached).values()]


def as_json(submission: Submission) -> dict[str, Value]:
    """Every fact as JSON, each with its place: `{"value", "path", "line"}` or `{"missing"}`."""
    facts: dict[str, Value] = {
        "package": as_value(submission.package),
        "claims": as_value(submission.claims),
        "readme": as_value(submission.readme),
        "runs": as_value(submission.runs),
        "size": as_value(submission.size),
        "targets": as_value(submission.targets),
        "byte_tables": as_value(submission.byte_tables),
        "legality": as_value(submission.legality),
        "reproduction": as_value(submission.reproduction),
        "names": as_value(submission.names),
        "pipeline": as_value(submission.pipeline),
        "settings": as_value(submission.settings),
        "statements": as_value(submission.statements),
    }
    if isinstance(submission.probe, ProbeFacts):
        facts["probe"] = as_value(submission.probe)
    if isinstance(submission.previous, Previous):
        facts["previous"] = as_value(submission.previous)
    if isinstance(submission.change, ChangeFacts):
        facts["change"] = as_value(submission.change)
    return facts


def _manifest(walked: Folder, found: Fact[str], refused: list[Located[str]]) -> manifest.Manifest | None:
    if isinstance(found, Missing):
        return None
    data = _read(walked, found.value, refused)
    return None if data is None else manifest.read(data, found.value)


def _readme(walked: Folder, found: Fact[str], refused: list[Located[str]]) -> tuple[str | None, str]:
    if isinstance(found, Missing):
        return None, ""
    data = _read(walked, found.value, refused)
    return (None if data is None else decode(data)), found.value


def _logs(walked: Folder, refused: list[Located[str]]) -> tuple[list[LogFile], list[str], tuple[Located[float], ...]]:
    """The logs with a run in them, the paths of all files that are logs, and the scores that the others name."""
    logs: list[LogFile] = []
    paths: list[str] = []
    strays: list[Located[float]] = []
    known: dict[tuple[bytes, int | None], tuple[LogFile, ...]] = {}
    for path in walked.files:
        name = path.rpartition("/")[2].lower()
        if not name.endswith(LOG_ENDINGS) or name.startswith(NEVER_LOGS):
            continue
        if len(paths) >= LOGS_LIMIT:
            refused.append(Located(f"more than {LOGS_LIMIT} logs: the rest is not read", Location(path)))
            break
        found = _log(walked, path, refused, known)
        logs += found
        paths += [path] if found or name.endswith(".log") else []
        if not found and name.endswith(".log"):
            strays += _strays(walked, path)
    return logs, paths, tuple(strays)


def _strays(walked: Folder, path: str) -> list[Located[float]]:
    """Numbers that a log calls bits per byte in which no run was found."""
    try:
        text = decode(walked.read(path, LOG_LIMIT_BYTES))
    except HarnessError:  # it was refused before
        return []
    return [Located(value, Location(path, line)) for value, line in named_bits(text)]


def _log(
    walked: Folder, path: str, refused: list[Located[str]], known: dict[tuple[bytes, int | None], tuple[LogFile, ...]]
) -> tuple[LogFile, ...]:
    """Read a log; a copy of one that was read before, under another name, is not read again."""
    try:
        data = walked.read(path, LOG_LIMIT_BYTES)
        key = (hashlib.sha256(data).digest(), named_seed(path))
        if key not in known:
            known[key] = read_log(data, path)
        return tuple(dataclasses.replace(each, path=path) for each in known[key])
    except HarnessError as error:
        refused.append(Located(str(error), Location(path)))
        return ()


def _read(walked: Folder, path: str, refused: list[Located[str]]) -> bytes | None:
    try:
        return walked.read(path)
    except HarnessError as error:
        refused.append(Located(str(error), Location(path)))
        return None
