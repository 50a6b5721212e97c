"""The folder as a package: its scripts, which of them is the entry, what is missing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.facts.logfile import LogFile
from harness.facts.package import PackageFacts, Script, ShippedFile
from harness.model import Fact, HarnessError, Located, Location, Missing
from harness.sources import pythontext, schemas
from harness.sources.folder import Folder
from harness.sources.logevents import SourceEvent
from harness.sources.manifest import Manifest
from harness.sources.script import ParsedScript, missing_modules
from harness.sources.script import read as read_script
from harness.sources.trainlog import source_sha256

SCRIPTS_LIMIT = 200
COMMANDS_LIMIT = 200
COMMAND_LIMIT_CHARACTERS = 2_000
ENTRY_NAME = "train_gpt.py"

_COMMAND = re.compile(r"(?:torchrun|python3?|accelerate launch|deepspeed)\b[^`|]{0,300}?([\w./-]{1,120}\.py)\b")
# What can lead an import to a file outside of the folder.
_SEARCHES = re.compile(r"sys\.path|PYTHONPATH|importlib|meta_path|sys\.modules\[")
_REQUIREMENTS = re.compile(
    r"(?:requirements|constraints)[^/]*\.txt$|pyproject\.toml$|setup\.(?:py|cfg)$|environment\.ya?ml$"
)
_INSTALLS = re.compile(
    r"\b(?:pip|uv|conda|install\w*|requires?|requirements?|depend\w*|packages?|clone)\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Texts:
    """What else of the folder helps to read it.

    Attributes:
        readme: text of the README, or "".
        manifest: the parsed submission.json, or None.
        logs: the training logs.
        log_paths: every file that is taken for a log, with or without a run in it.
        refused: files that could not be read, found on the way.
    """

    readme: str
    manifest: Manifest | None
    logs: tuple[LogFile, ...]
    log_paths: tuple[str, ...]
    refused: tuple[Located[str], ...]


def find_readme(folder: Folder) -> Fact[str]:
    """The README at the top of the folder, in any case."""
    for path in folder.files:
        if path.lower() in {"readme.md", "readme.markdown", "readme.txt", "readme"}:
            return Located(path, Location(path, 1))
    return Missing("no file README.md at the top of the folder", Location("."))


def find_manifest(folder: Folder) -> Fact[str]:
    """submission.json, or the only `submission_*.json`."""
    if "submission.json" in folder.files:
        return Located("submission.json", Location("submission.json", 1))
    others = [path for path in folder.files if re.fullmatch(r"submission[\w.-]*\.json", path, re.IGNORECASE)]
    if len(others) == 1:
        return Located(others[0], Location(others[0], 1))
    reason = "several files submission_*.json" if others else "no file submission.json at the top of the folder"
    return Missing(reason, Location("."))


def read_scripts(folder: Folder) -> tuple[list[ParsedScript], list[Located[str]]]:
    """Every Python file of the folder, parsed, and those that could not be read."""
    scripts: list[ParsedScript] = []
    refused: list[Located[str]] = []
    for path in [path for path in folder.files if path.endswith(".py")][:SCRIPTS_LIMIT]:
        parent = path.rpartition("/")[0]

        def sibling(name: str, parent: str = parent) -> bytes | None:
            beside = f"{parent}/{name}" if parent else name
            return folder.read(beside) if beside in folder.files else None

        try:
            source = pythontext.read(folder.read(path))
            scripts.append(read_script(path, source, folder.files[path].size_bytes, sibling))
        except HarnessError as error:
            refused.append(Located(str(error), Location(path)))
    return scripts, refused


def build_package(folder: Folder, parsed: Sequence[ParsedScript], texts: Texts) -> PackageFacts:
    """The package facts of a walked folder."""
    scripts = tuple(_script(script, folder, texts.readme) for script in parsed)
    return PackageFacts(
        files=tuple(ShippedFile(entry.path, entry.size_bytes) for entry in folder.files.values()),
        refused=(*folder.refused, *texts.refused),
        readme=find_readme(folder),
        manifest=find_manifest(folder),
        manifest_problems=_manifest_problems(texts.manifest),
        entry=_entry(scripts, texts),
        scripts=scripts,
        logs=tuple(Location(path) for path in texts.log_paths),
    )


def _manifest_problems(manifest: Manifest | None) -> tuple[Located[str], ...]:
    if manifest is None or manifest.document is None:
        return manifest.problems if manifest is not None else ()
    found = [Located(clause, manifest.at(place)) for place, clause in schemas.problems("submission", manifest.document)]
    return (*manifest.problems, *found)


def _script(script: ParsedScript, folder: Folder, readme: str) -> Script:
    missing = missing_modules(script, folder.files)
    undeclared = _undeclared(script, missing, folder, readme) if missing else frozenset[str]()
    return Script(
        path=script.path,
        size_bytes=script.size_bytes,
        layers=script.layers,
        parsed=_parsed(script),
        problem=script.syntax_error,
        missing_modules=tuple(Located(name, Location(script.path, line, layer=script.layer)) for name, line in missing),
        undeclared_modules=tuple(
            Located(name, Location(script.path, line, layer=script.layer))
            for name, line in missing
            if name in undeclared
        ),
        environment=tuple(
            Located((key, default), Location(script.path, line, layer=script.layer))
            for key, default, line in script.environment
        ),
        texts=tuple(source_sha256(text) for text in script.texts),
        newer_syntax=script.newer,
    )


def _undeclared(
    script: ParsedScript, missing: Sequence[tuple[str, int]], folder: Folder, readme: str
) -> frozenset[str]:
    """Missing modules that no requirements file, README or code of the script speaks of installing or finding."""
    if _SEARCHES.search(script.text):
        return frozenset()
    lists = [path for path in folder.files if _REQUIREMENTS.search(path)]
    spoken = [line for text in (readme, script.text) for line in text.split("\n") if _INSTALLS.search(line)]
    try:
        spoken += [folder.text(path) for path in lists]
    except HarnessError:
        return frozenset()
    words = {word for text in spoken for word in re.findall(r"\w+", text.replace("-", "_").lower())}
    return frozenset(name for name, _line in missing if name.lower() not in words)


def _parsed(script: ParsedScript) -> Fact[bool]:
    place = Location(script.path, script.error_line, layer=script.layer)
    if not script.syntax_error:
        return Located(value=True, location=Location(script.path, layer=script.layer))
    if script.undecided:
        return Missing(f"it cannot be told whether the script parses: {script.syntax_error}", place)
    return Located(value=False, location=place)


def _entry(scripts: Sequence[Script], texts: Texts) -> Fact[Script]:
    """The script that the logs belong to: declared, else the one they embed, else by its name, else by the command."""
    by_path = {script.path: script for script in scripts}
    for path in (_declared(texts.manifest), _embedded(scripts, texts.logs), ENTRY_NAME, *_commands(texts.readme)):
        if path in by_path:
            return Located(by_path[path], Location(path))
    training = [path for path in by_path if "/" not in path and "train" in path.lower()]
    candidates = training or [path for path in by_path if "/" not in path]
    if len(candidates) == 1:
        return Located(by_path[candidates[0]], Location(candidates[0]))
    if candidates:
        return Missing(f"{len(candidates)} scripts could be the training script", Location(candidates[0]))
    return Missing("the folder holds no Python script", Location("."))


def _declared(manifest: Manifest | None) -> str:
    found = manifest.first(("reproduction",)) if manifest is not None else Missing("")
    value = found.value if isinstance(found, Located) else None
    script = value.get("script") if isinstance(value, dict) else None
    return script if isinstance(script, str) else ""


def _embedded(scripts: Sequence[Script], logs: Sequence[LogFile]) -> str:
    """The script whose text most logs embed, or ""."""
    hashes = [event.sha256 for log in logs for event in log.of(SourceEvent) if event.sha256]
    counts = {script.path: sum(text in script.texts for text in hashes) for script in scripts}
    best = max(counts, key=lambda path: counts[path], default="")
    return best if counts.get(best) else ""


def _commands(readme: str) -> list[str]:
    """Scripts that the README's commands start, by file name."""
    lines = [line[:COMMAND_LIMIT_CHARACTERS] for line in readme.split("\n") if ".py" in line][:COMMANDS_LIMIT]
    return [match[1].rpartition("/")[2] for line in lines if (match := _COMMAND.search(line))]
