"""Bytes of code on disk and of each run's artifact, in the three accountings in use."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.challenge import ARTIFACT_CAP_BYTES
from harness.facts.package import PackageFacts
from harness.facts.runs import Run
from harness.facts.size import NOT_RECOUNTED, Margin, Recount, SeedSize, SizeFacts
from harness.model import Fact, Located, Location, Missing
from harness.sources.cache import user_cache
from harness.sources.folder import Folder
from harness.sources.recount import Recounted, recount
from harness.sources.script import ParsedScript
from harness.sources.textlines import lines_with

# Endings of files that are code, or that a run compiles or loads as code.
CODE_ENDINGS = (".py", ".pyx", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".so", ".rs", ".triton", ".ptx")
# Data that a script reads beside its code. Tokenizers come with the challenge's data and were never counted.
DATA_ENDINGS = (".model", ".vocab", ".json", ".bin", ".npy", ".npz", ".pt", ".ptz")


def build_size(
    folder: Folder, package: PackageFacts, parsed: Sequence[ParsedScript], runs: Sequence[Run], *, always: bool = False
) -> SizeFacts:
    """The size facts of a folder.

    Args:
        folder: the walked folder.
        package: what is in it.
        parsed: its parsed scripts.
        runs: the runs of its logs.
        always: recount the compressed code even where no verdict hangs on it.
    """
    code: dict[str, Location] = {}
    data: dict[str, Location] = {}
    script = None
    if isinstance(package.entry, Missing):
        entry: Fact[int] = Missing(package.entry.reason, package.entry.location)
        total = entry
    else:
        path = package.entry.value.path
        entry = Located(folder.files[path].size_bytes, Location(path))
        code = needed(path, CODE_ENDINGS, folder, parsed)
        data = needed(path, DATA_ENDINGS, folder, parsed)
        total = Located(sum(folder.files[item].size_bytes for item in code), Location(path))
        script = next((script for script in parsed if script.path == path), None)
    recounted: Fact[Recount] = NOT_RECOUNTED
    if script is not None and (is_packed(script) or always or any(_hangs_on_recount(run, entry) for run in runs)):
        recounted = _recount(script)
    sizes = tuple(_seed_size(run, entry, total, recounted) for run in runs)
    return SizeFacts(
        entry_code_bytes=entry,
        all_code_bytes=total,
        code_files=tuple(code),
        per_seed=sizes,
        data_files=tuple(path for path in data if path != package_manifest(package)),
        recount=recounted,
        margins=tuple(margin for size in sizes for margin in _margins(size)),
        named_at={path: place for path, place in code.items() if place.path != path},
    )


def is_packed(script: ParsedScript) -> bool:
    """Whether a script is shipped compressed in itself, so that its bytes on disk are the compressed code."""
    return bool(script.layers) and not any(layer.startswith("file:") for layer in script.layers)


def _hangs_on_recount(run: Run, entry: Fact[int]) -> bool:
    """Whether a run is over the cap as shipped, and its log does not print the size of the compressed code."""
    shipped = _sum(run.model_bytes, entry)
    over = isinstance(shipped, Located) and shipped.value > ARTIFACT_CAP_BYTES
    fits = isinstance(run.model_bytes, Located) and run.model_bytes.value <= ARTIFACT_CAP_BYTES
    return over and fits and isinstance(run.compressed_code_bytes, Missing)


def _recount(script: ParsedScript) -> Fact[Recount]:
    if is_packed(script):
        return Located(
            Recount(f"as shipped, packed as {script.layer}", script.size_bytes, {}, stated=True), Location(script.path)
        )
    found = recount(script.text, user_cache("recount"))
    if not isinstance(found, Recounted):
        return Missing(f"the compressed code cannot be recounted: {found}", Location(script.path))
    way = _way(found)
    who = "the script's own" if found.convention.line is not None else "the published"
    method = f"{who} minifier options, {way.rpartition(' + ')[2]}, base85, two-line wrapper"
    if not way.startswith("minified"):
        method = f"{way.rpartition(' + ')[2]}, base85, two-line wrapper"
    return Located(
        Recount(method, found.sizes[way], found.sizes, stated=found.convention.line is not None),
        Location(script.path, found.convention.line, layer=script.layer),
    )


def _way(found: Recounted) -> str:
    """How a script packs itself by its own words; of one that does not say, the way that gives the fewest bytes."""
    if found.convention.line is not None:
        return f"minified + {found.convention.compressor}"
    return min((way for way in found.sizes if " + " in way), key=lambda way: found.sizes[way])


def _margins(size: SeedSize) -> tuple[Margin, ...]:
    totals = (
        ("script as shipped", size.shipped_bytes),
        ("code compressed", size.compressed_code_bytes),
        ("all code files", size.all_helpers_bytes),
    )
    return tuple(Margin(size.seed, name, total, _margin(total)) for name, total in totals)


def _margin(total: Fact[int]) -> Fact[int]:
    if isinstance(total, Missing):
        return total
    return Located(ARTIFACT_CAP_BYTES - total.value, total.location)


def package_manifest(package: PackageFacts) -> str:
    """The path of the manifest, or ""."""
    return package.manifest.value if isinstance(package.manifest, Located) else ""


def needed(entry: str, endings: tuple[str, ...], folder: Folder, parsed: Sequence[ParsedScript]) -> dict[str, Location]:
    """The entry script and the shipped files with certain endings that it names, directly or through others.

    Each comes with the place that names it; the entry with itself.

    Args:
        entry: path of the entry script.
        endings: which files count.
        folder: the walked folder.
        parsed: the parsed scripts, whose innermost texts are searched.
    """
    texts = {script.path: script for script in parsed}
    found, queue = {entry: Location(entry)}, [entry]
    while queue:
        script = texts.get(queue.pop())
        if script is None:
            continue
        for path in folder.files:
            named = path not in found and path.endswith((*endings, ".py")) and _names(script, path)
            if named:
                found[path] = named
                queue.append(path)
    return {path: found[path] for path in sorted(found) if path.endswith(endings)}


def _names(script: ParsedScript, path: str) -> Location | None:
    """Where a script imports a file, runs it, or names it in a string."""
    name = path.rpartition("/")[2]
    if f"file:{name}" in script.layers:
        return Location(script.path, script.unpacking_line)
    if name.partition(".")[0] not in script.text:
        return None
    stem = re.escape(name.partition(".")[0])
    # Minified scripts put imports behind a colon or a semicolon.
    imports = rf"(?:^|[;:])[ \t]*(?:from\s+{stem}[\s.]|import\s+(?:[\w.]+(?: as \w+)?,[ \t]*)*{stem}\b)"
    quoted = rf"""["'](?:[^"'\n]*/)?{re.escape(name)}["']"""
    lines = script.text.split("\n")
    mentions = lines_with(script.text, (name.partition(".")[0],))
    for pattern in (imports, quoted) if path.endswith((".py", ".so")) else (quoted,):
        for number in mentions:
            if re.search(pattern, lines[number - 1]):
                return Location(script.path, number, layer=script.layer)
    return None


def _seed_size(run: Run, entry: Fact[int], total: Fact[int], recounted: Fact[Recount]) -> SeedSize:
    compressed = run.compressed_code_bytes
    if isinstance(compressed, Missing) and isinstance(recounted, Located):
        compressed = Located(recounted.value.code_bytes, recounted.location)
    return SeedSize(
        seed=run.seed,
        model_bytes=run.model_bytes,
        logged_total_bytes=run.total_bytes,
        shipped_bytes=_sum(run.model_bytes, entry),
        compressed_code_bytes=_sum(run.model_bytes, compressed),
        all_helpers_bytes=_sum(run.model_bytes, total),
    )


def _sum(model: Fact[int], code: Fact[int]) -> Fact[int]:
    """Model plus code, at the place of the model; Missing when one of them is."""
    if isinstance(model, Missing):
        return model
    if isinstance(code, Missing):
        return code
    return Located(model.value + code.value, model.location)
