"""Bytes of code on disk and of each run's artifact, in the three accountings in use."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.facts.package import PackageFacts
from harness.facts.runs import Run
from harness.facts.size import SeedSize, SizeFacts
from harness.model import Fact, Located, Location, Missing
from harness.sources.folder import Folder
from harness.sources.script import ParsedScript

# Endings of files that are code, or that a run compiles or loads as code.
CODE_ENDINGS = (".py", ".pyx", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".so", ".rs", ".triton", ".ptx")
# Data that a script reads beside its code. Tokenizers come with the challenge's data and were never counted.
DATA_ENDINGS = (".model", ".vocab", ".json", ".bin", ".npy", ".npz", ".pt", ".ptz")


def build_size(folder: Folder, package: PackageFacts, parsed: Sequence[ParsedScript], runs: Sequence[Run]) -> SizeFacts:
    """The size facts of a folder."""
    code: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    if isinstance(package.entry, Missing):
        entry: Fact[int] = Missing(package.entry.reason, package.entry.location)
        total = entry
    else:
        path = package.entry.value.path
        entry = Located(folder.files[path].size_bytes, Location(path))
        code = needed(path, CODE_ENDINGS, folder, parsed)
        data = needed(path, DATA_ENDINGS, folder, parsed)
        total = Located(sum(folder.files[item].size_bytes for item in code), Location(path))
    return SizeFacts(
        entry_code_bytes=entry,
        all_code_bytes=total,
        code_files=code,
        per_seed=tuple(_seed_size(run, entry, total) for run in runs),
        data_files=tuple(path for path in data if path != package_manifest(package)),
    )


def package_manifest(package: PackageFacts) -> str:
    """The path of the manifest, or ""."""
    return package.manifest.value if isinstance(package.manifest, Located) else ""


def needed(entry: str, endings: tuple[str, ...], folder: Folder, parsed: Sequence[ParsedScript]) -> tuple[str, ...]:
    """The entry script and the shipped files with certain endings that it names, directly or through others.

    Args:
        entry: path of the entry script.
        endings: which files count.
        folder: the walked folder.
        parsed: the parsed scripts, whose innermost texts are searched.
    """
    texts = {script.path: script for script in parsed}
    found, queue = {entry}, [entry]
    while queue:
        script = texts.get(queue.pop())
        if script is None:
            continue
        for path in folder.files:
            if path not in found and path.endswith((*endings, ".py")) and _names(script, path):
                found.add(path)
                queue.append(path)
    return tuple(sorted(path for path in found if path.endswith(endings)))


def _names(script: ParsedScript, path: str) -> bool:
    """Whether a script imports a file, runs it, or names it in a string."""
    name = path.rpartition("/")[2]
    if f"file:{name}" in script.layers:
        return True
    if name.partition(".")[0] not in script.text:
        return False
    stem = re.escape(name.partition(".")[0])
    # Minified scripts put imports behind a colon or a semicolon.
    imports = rf"(?:^|[;:])[ \t]*(?:from\s+{stem}[\s.]|import\s+(?:[\w.]+(?: as \w+)?,[ \t]*)*{stem}\b)"
    if path.endswith((".py", ".so")) and re.search(imports, script.text, re.MULTILINE):
        return True
    return re.search(rf"""["'](?:[^"'\n]*/)?{re.escape(name)}["']""", script.text) is not None


def _seed_size(run: Run, entry: Fact[int], total: Fact[int]) -> SeedSize:
    return SeedSize(
        seed=run.seed,
        model_bytes=run.model_bytes,
        logged_total_bytes=run.total_bytes,
        shipped_bytes=_sum(run.model_bytes, entry),
        compressed_code_bytes=_sum(run.model_bytes, run.compressed_code_bytes),
        all_helpers_bytes=_sum(run.model_bytes, total),
    )


def _sum(model: Fact[int], code: Fact[int]) -> Fact[int]:
    """Model plus code, at the place of the model; Missing when one of them is."""
    if isinstance(model, Missing):
        return model
    if isinstance(code, Missing):
        return code
    return Located(model.value + code.value, model.location)
