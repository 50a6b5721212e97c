"""PG0xx: is the folder complete, readable and self-contained?"""

from __future__ import annotations

from harness.checks.common import known, listed, many, places, undecided
from harness.facts.package import PackageFacts, Script
from harness.facts.submission import Submission
from harness.model import Located, Location, Missing, Outcome, Status, Verdict, rule

FAMILY = "package"
README_RULE = "README, Submission Process"

# Text files that may hold a run's output under a name that no reader here takes for a log.
LOG_LIKE_ENDINGS = (".log", ".txt", ".out", ".tsv", ".csv", ".jsonl", ".md")
PACKED_ENDINGS = (".gz", ".xz", ".bz2", ".zst", ".zip", ".tar", ".tgz", ".7z")
NEVER_LOGS = ("readme", "requirements", "license")


@rule("PG001", "readme-missing", family=FAMILY, status=Status.SETTLED, authority=README_RULE)
def readme_missing(submission: Submission) -> Outcome | None:
    """The folder has no README.

    What it checks:
        A file README.md (in any case) stands in the record folder.

    Why it matters:
        "A README.md file that explains the submission in reasonable detail" is the first of the four things that
        the competition's README asks of every submission.

    Evidence:
        The folder's file list.

    How to fix:
        Add README.md: what is new, how to run it, a table with one row for each seed.
    """
    readme = submission.package.readme
    if isinstance(readme, Missing):
        return Outcome(Verdict.FAIL, f"The folder has no README.md: {readme.reason}.", locations=places(readme))
    return Outcome(Verdict.PASS, f"The README is {readme.value}.", locations=places(readme))


@rule("PG002", "manifest-missing", family=FAMILY, status=Status.SETTLED, authority=f"{README_RULE}; #8")
def manifest_missing(submission: Submission) -> Outcome | None:
    """The folder has no submission.json.

    What it checks:
        A submission.json (or a single submission_*.json) stands in the record folder.

    Why it matters:
        The README asks for "a submission.json file that includes your name, GitHub ID, val_bpb, and related
        metadata"; the leaderboard is made from it.

    Evidence:
        The folder's file list.

    How to fix:
        Add submission.json. `schemas/submission.schema.json` describes it.
    """
    manifest = submission.package.manifest
    if isinstance(manifest, Missing):
        return Outcome(
            Verdict.FAIL, f"The folder has no submission.json: {manifest.reason}.", locations=places(manifest)
        )
    notes: tuple[str, ...] = ()
    if manifest.value != "submission.json":
        notes = (f"The manifest is named {manifest.value}; the README asks for submission.json.",)
    return Outcome(Verdict.PASS, f"The manifest is {manifest.value}.", locations=places(manifest), notes=notes)


@rule("PG003", "log-missing", family=FAMILY, status=Status.SETTLED, authority=f"{README_RULE}; #496")
def log_missing(submission: Submission) -> Outcome | None:
    """The folder has no training log.

    What it checks:
        At least one file of the folder is a training log. Text files that might be one, but whose content is not
        recognised, leave the rule undecided, and so do compressed files that are named like logs: they are not
        opened.

    Why it matters:
        The README asks for "a train log, automatically produced by your script". Without it nothing else about
        the claim can be checked from the folder.

    Evidence:
        The folder's file list and the content of its text files.

    How to fix:
        Add the log of every seed, as the script wrote it.
    """
    package = submission.package
    if package.logs:
        names = [place.path for place in package.logs]
        return Outcome(Verdict.PASS, f"Logs: {listed(names)}.", {"log_count": len(names)}, package.logs)
    maybe = [file.path for file in package.files if _may_be_log(file.path)]
    if maybe:
        return undecided("No training log was recognised", f"{listed(maybe)} may hold one", *map(Location, maybe))
    return Outcome(Verdict.FAIL, "The folder has no training log.", {"log_count": 0})


def _may_be_log(path: str) -> bool:
    name = path.rsplit("/", 1)[-1].lower()
    packed = name.endswith(PACKED_ENDINGS) and ("log" in name or _unpacked(name).endswith(LOG_LIKE_ENDINGS))
    return (packed or name.endswith(LOG_LIKE_ENDINGS)) and not name.startswith(NEVER_LOGS)


def _unpacked(name: str) -> str:
    """The name without the endings of compression and archives: `train.log` of `train.log.gz`."""
    while name.endswith(PACKED_ENDINGS):
        name = name.rpartition(".")[0]
    return name


@rule("PG004", "script-missing", family=FAMILY, status=Status.SETTLED, authority=f"{README_RULE}; #545")
def script_missing(submission: Submission) -> Outcome | None:
    """The folder has no training script.

    What it checks:
        The folder ships a Python script that trains, train_gpt.py by convention.

    Why it matters:
        The README asks for "a train_gpt.py script and any other dependencies", and all counted code should live
        in it.

    Evidence:
        The folder's file list.

    How to fix:
        Add the script that wrote the logs, byte for byte, as train_gpt.py.
    """
    package = submission.package
    if isinstance(package.entry, Located):
        path = package.entry.value.path
        notes = () if path == "train_gpt.py" else (f"The training script is {path}; the README asks for train_gpt.py.",)
        return Outcome(Verdict.PASS, f"The training script is {path}.", locations=places(package.entry), notes=notes)
    if package.scripts:
        scripts = [Location(script.path) for script in package.scripts]
        return undecided("Which script trains cannot be told", package.entry.reason, *scripts)
    return Outcome(Verdict.FAIL, "The folder ships no Python script.", locations=places(package.entry))


@rule("PG005", "manifest-unreadable", family=FAMILY, status=Status.SETTLED, authority=README_RULE)
def manifest_unreadable(submission: Submission) -> Outcome | None:
    """The submission.json is not JSON.

    What it checks:
        The manifest parses as JSON.

    Why it matters:
        The README asks for "a submission.json file that includes your name, GitHub ID, val_bpb, and related
        metadata"; a file that does not parse includes nothing.

    Evidence:
        The line at which the JSON reader stops.

    How to fix:
        Check the file with `python -m json.tool submission.json`.
    """
    package = submission.package
    if isinstance(package.manifest, Missing):
        return undecided("Whether the manifest parses cannot be told", package.manifest.reason)
    broken = _parse_errors(package)
    if broken:
        message = f"{package.manifest.value} {broken[0].value}."
        return Outcome(Verdict.FAIL, message, locations=places(*broken))
    unread = _not_read(submission)
    if unread:
        return undecided("Whether the manifest parses cannot be told", unread, package.manifest)
    return Outcome(Verdict.PASS, f"{package.manifest.value} parses as JSON.", locations=places(package.manifest))


def _parse_errors(package: PackageFacts) -> list[Located[str]]:
    """Problems that stand at a line: the parser's; those of the schema stand at a pointer, others at the file."""
    places = ((problem, problem.location) for problem in package.manifest_problems)
    return [problem for problem, place in places if place.pointer is None and place.line is not None]


def _not_read(submission: Submission) -> str:
    """Why the manifest was refused as a whole (too large, too deep), as a clause; empty when it was read."""
    claims = submission.claims
    if any(isinstance(fact, Located) for fact in (claims.name, claims.author, claims.date, claims.val_bpb)):
        return ""
    problems = submission.package.manifest_problems
    return listed(
        [f"it {problem.value}" for problem in problems if problem.location == Location(problem.location.path)]
    )


@rule("PG006", "manifest-invalid", family=FAMILY, status=Status.POLICY, authority="schemas/submission.schema.json")
def manifest_invalid(submission: Submission) -> Outcome | None:
    """The submission.json does not fit the schema.

    What it checks:
        The manifest against `schemas/submission.schema.json`, which was made from what accepted records hold:
        name, author, github_id, date and val_bpb are there, and numbers are numbers.

    Why it matters:
        The README asks for "your name, GitHub ID, val_bpb, and related metadata" without fixing a format, and
        folders with gaps were accepted: hence a warning. A value of the wrong type reaches no leaderboard.

    Evidence:
        JSON pointers into the manifest.

    How to fix:
        Add the missing keys; write numbers as numbers and the date as 2026-04-01.
    """
    package = submission.package
    if isinstance(package.manifest, Missing):
        return undecided("Whether the manifest fits the schema cannot be told", package.manifest.reason)
    unread = "it does not parse" if _parse_errors(package) else _not_read(submission)
    if unread:
        return undecided("Whether the manifest fits the schema cannot be told", unread, package.manifest)
    if package.manifest_problems:
        clauses = [
            f"{problem.location.pointer or 'the document'} {problem.value}" for problem in package.manifest_problems
        ]
        message = f"{package.manifest.value} does not fit the schema: {listed(clauses)}."
        return Outcome(Verdict.WARN, message, {"problem_count": len(clauses)}, places(*package.manifest_problems))
    return Outcome(Verdict.PASS, f"{package.manifest.value} fits the schema.", locations=places(package.manifest))


@rule("PG007", "script-does-not-parse", family=FAMILY, status=Status.SETTLED, authority=f"{README_RULE}; #2013")
def script_does_not_parse(submission: Submission) -> Outcome | None:
    """The training script is not valid Python.

    What it checks:
        The training script, unpacked where it is packed, parses in a Python syntax of today, and its bytes are text
        in the encoding that it declares (UTF-8 where it declares none). A helper that does not parse is a warning,
        because a run may not need it.

    Why it matters:
        "This must successfully compile and run within the records folder. Broken scripts will not be accepted."

    Evidence:
        The line of the syntax error, and the unpacking layer that it counts in.

    How to fix:
        Run `python -m py_compile` on the file as shipped, in a fresh checkout.
    """
    package = submission.package
    if isinstance(package.entry, Missing):
        return undecided("Whether the training script parses cannot be told", package.entry.reason)
    entry = package.entry.value
    if isinstance(entry.parsed, Missing):
        return undecided(f"{entry.path} was not parsed", entry.parsed.reason, entry.parsed)
    if not entry.parsed.value:
        return Outcome(
            Verdict.FAIL, f"{entry.path} is no valid program: {entry.problem}.", locations=places(entry.parsed)
        )
    broken = [script for script in package.scripts if known(script.parsed) is False]
    if broken:
        clauses = [f"{script.path} ({script.problem})" for script in broken]
        message = f"{entry.path} parses, but these helpers do not: {listed(clauses)}."
        return Outcome(Verdict.WARN, message, locations=places(*(script.parsed for script in broken)))
    layers = f", unpacked from {' in '.join(reversed(entry.layers))}" if entry.layers else ""
    notes = (f"{entry.path} needs Python 3.12 or later (quotes or escapes inside f-strings).",) * entry.newer_syntax
    return Outcome(Verdict.PASS, f"{entry.path} parses{layers}.", locations=places(entry.parsed), notes=notes)


@rule("PG008", "own-module-missing", family=FAMILY, status=Status.SETTLED, authority=f"{README_RULE}; #545")
def own_module_missing(submission: Submission) -> Outcome | None:
    """The training script imports a module that is not there.

    What it checks:
        Every module that the training script imports is part of Python, a known installable package, or a file of
        the folder. A name that is none of these fails when nothing in the folder speaks of installing it and the
        script changes no search path; otherwise it warns, since it may be a package that this check does not know.

    Why it matters:
        The script must "run within the records folder", where the author's other files are not.

    Evidence:
        The line of each import.

    How to fix:
        Ship the module beside the script, or name its package in requirements.txt.
    """
    entry = submission.package.entry
    if isinstance(entry, Missing):
        return undecided("Whether all modules are present cannot be told", entry.reason)
    script: Script = entry.value
    if known(script.parsed) is not True:
        return undecided(
            "Whether all modules are present cannot be told", f"{script.path} was not parsed", script.parsed
        )
    if script.undeclared_modules:
        names = [module.value for module in script.undeclared_modules]
        message = f"{script.path} imports {listed(names)}: not in the folder, no known package, named as no dependency."
        return Outcome(Verdict.FAIL, message, {"missing_count": len(names)}, places(*script.undeclared_modules))
    if script.missing_modules:
        names = [module.value for module in script.missing_modules]
        message = f"{script.path} imports {listed(names)}: neither in the folder nor a package known here."
        return Outcome(Verdict.WARN, message, {"missing_count": len(names)}, places(*script.missing_modules))
    return Outcome(Verdict.PASS, f"Every module that {script.path} imports is present.", locations=places(entry))


@rule("PG009", "run-unfinished", family=FAMILY, status=Status.POLICY, authority="README, Non-record Submissions")
def run_unfinished(submission: Submission) -> Outcome | None:
    """A log stops before its final metric.

    What it checks:
        Every training log reaches a final evaluation. A log that ends in a crash is named.

    Why it matters:
        Submissions are welcome "so long as they run successfully". A folder may well keep the log of a failed
        experiment, so this warns.

    Evidence:
        The last line of the log, or the line of the crash.

    How to fix:
        Ship the complete log, or say in the README why one stops early.
    """
    if not submission.runs:
        return undecided("Whether the runs finished cannot be told", "no training log was read")
    stopped = [run for run in submission.runs if known(run.complete) is False]
    if stopped:
        message = f"These logs stop before a final metric: {listed([str(run.location) for run in stopped])}."
        return Outcome(
            Verdict.WARN, message, {"unfinished_count": len(stopped)}, places(*(run.complete for run in stopped))
        )
    unclear = [run for run in submission.runs if isinstance(run.complete, Missing)]
    if unclear:
        clauses = [f"{run.location} ({run.complete.reason})" for run in unclear if isinstance(run.complete, Missing)]
        return undecided(
            "Whether every run finished cannot be told", listed(clauses), *(run.location for run in unclear)
        )
    message = f"A final metric stands in every log ({many(len(submission.runs), 'log')})."
    return Outcome(
        Verdict.PASS, message, {"log_count": len(submission.runs)}, places(*(run.complete for run in submission.runs))
    )


@rule("PG010", "entry-refused", family=FAMILY, status=Status.POLICY, authority="README FAQ")
def entry_refused(submission: Submission) -> Outcome | None:
    """Something in the folder was not read.

    What it checks:
        Every entry of the folder is a regular file of a sane size: no link that leaves the folder, no device, no
        file too large to read.

    Why it matters:
        "The artifact must be fully self-contained and reproducible." What was not read was not audited.

    Evidence:
        The refused entries, each with its reason.

    How to fix:
        Replace links with the files themselves; leave datasets and weights out.
    """
    refused = submission.package.refused
    if not refused:
        return Outcome(Verdict.PASS, f"Nothing was left unread ({many(len(submission.package.files), 'file')}).")
    clauses = [f"{entry.location.path} ({entry.value})" for entry in refused]
    return undecided("Some entries were not read", listed(clauses), *refused)


RULES = (
    readme_missing,
    manifest_missing,
    log_missing,
    script_missing,
    manifest_unreadable,
    manifest_invalid,
    script_does_not_parse,
    own_module_missing,
    run_unfinished,
    entry_refused,
)
