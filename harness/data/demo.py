"""The demo corpus: real text that comes with a pip package, the same bytes on every machine.

`ensure(output)` is what others call. The corpus is built beside its target and renamed into place, so that nothing
partial is ever seen; what hashes differently from `demo_manifest.json` is refused.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.resources
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.data.corpus import Recipe, Report, Source, files_below, write_corpus
from harness.data.manifest import MANIFEST_NAME, Manifest, differences, read_text
from harness.model import HarnessError

PACKAGE = "botocore"
SHOWN_DIFFERENCES = 3

# The seed was chosen, before any model was trained on it, for a validation split about as large and as hard to compress
# as the one that the design's quality figures were measured on (477 kB; xz -9e 1.83 bits per byte, 2.13 on the short
# one): it has 478 kB, 1.84 and 2.17.
DEMO = Recipe(
    name="demo",
    vocab_sizes=(512, 1024),
    min_characters=200,
    shingle_words=8,
    shingle_share=0.2,
    validation_services=24,
    short_validation_bytes=130_000,
    seed=167,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to build and what must come out.

    Attributes:
        recipe: the numbers.
        source: the text; None for the installed package, which is then looked up only when it is needed.
        expected: the pinned corpus; None accepts whatever comes out.
    """

    recipe: Recipe
    source: Source | None
    expected: Manifest | None


@dataclass(frozen=True, slots=True)
class DemoPaths:
    """Where one tokenizer's share of the corpus lies.

    Attributes:
        data: training shard and short validation.
        full_validation: the whole validation split, nothing else.
        tokenizer: the SentencePiece model.
    """

    data: Path
    full_validation: Path
    tokenizer: Path


def demo_paths(output: Path, vocab_size: int = 1024) -> DemoPaths:
    """The paths in a demo corpus.

    Raises:
        HarnessError: the corpus has no such tokenizer.
    """
    if vocab_size not in DEMO.vocab_sizes:
        raise HarnessError(f"the demo corpus has no tokenizer of {vocab_size} pieces, only {DEMO.vocab_sizes}")
    data = output / "datasets" / f"demo_sp{vocab_size}"
    model = output / "tokenizers" / f"demo_{vocab_size}_bpe.model"
    return DemoPaths(data, data.with_name(f"{data.name}_fullval"), model)


def pinned() -> Manifest:
    """The manifest that every demo corpus must match."""
    resource = importlib.resources.files("harness.data") / "demo_manifest.json"
    return Manifest.from_json(resource.read_text(encoding="utf-8"), Path("demo_manifest.json"))


def demo_plan(*, accept_any: bool = False) -> Plan:
    """The demo from the installed package; `accept_any` compares with no pinned hashes (for making new ones)."""
    return Plan(DEMO, None, None if accept_any else pinned())


def _silent(_: str) -> None:
    """Report nothing."""


def ensure(output: Path, plan: Plan | None = None, report: Report = _silent) -> Manifest:
    """Re-use the corpus in a folder if every hash is right; build it if there is none.

    Args:
        output: the corpus' folder.
        plan: the demo when None.
        report: called with a line before each step.

    Raises:
        HarnessError: the folder holds something else, or `build` refused.
    """
    plan = demo_plan() if plan is None else plan
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return build(output, plan, report)
    problems = check(output, plan)
    if problems:
        raise HarnessError(f"{_list(problems)}; remove the folder, or replace it with --rebuild")
    return read_manifest(output)


def check(output: Path, plan: Plan | None = None) -> list[str]:
    """Compare a corpus on disk with the pinned one, file by file; a sentence for each difference."""
    plan = demo_plan() if plan is None else plan
    if not (output / MANIFEST_NAME).is_file():
        return [f"{output}: no {MANIFEST_NAME} in it: not a corpus"]
    found = read_manifest(output)
    expected = plan.expected or found
    problems = differences(output, expected.files)
    problems += [f"{output / name}: unexpected file" for name in unexpected_files(output, expected)]
    if found.files != expected.files and not problems:
        problems.append(f"{output / MANIFEST_NAME}: lists other sizes, hashes or counts than the pinned manifest")
    return problems


def unexpected_files(output: Path, expected: Manifest) -> list[str]:
    """POSIX paths of the files in a corpus that its manifest does not list."""
    return [name for name in files_below(output) if name not in expected.files and name != MANIFEST_NAME]


def read_manifest(output: Path) -> Manifest:
    """The manifest of a corpus on disk.

    Raises:
        HarnessError: there is none, or it is unreadable.
    """
    path = output / MANIFEST_NAME
    return Manifest.from_json(read_text(path), path)


def build(output: Path, plan: Plan | None = None, report: Report = _silent, *, replace: bool = False) -> Manifest:
    """Build the corpus and put it in place.

    Args:
        output: the corpus' folder, which must be absent or empty.
        plan: the demo when None.
        report: called with a line before each step.
        replace: allow an older corpus (a folder with a manifest of ours) in the way, and remove it.

    Raises:
        HarnessError: the folder is in use, a package is missing, or other hashes than the pinned ones came out.
    """
    plan = demo_plan() if plan is None else plan
    _check_target(output, replace=replace)
    source = installed_source() if plan.source is None else plan.source
    output.parent.mkdir(parents=True, exist_ok=True)
    with _workshop(output) as folder:
        manifest = write_corpus(folder, plan.recipe, source, report)
        if plan.expected is not None:
            refuse_differences(manifest, plan.expected)
        _put_in_place(folder, output)
    return manifest


def _check_target(output: Path, *, replace: bool) -> None:
    if output.exists() and not output.is_dir():
        raise HarnessError(f"{output}: exists and is not a folder")
    above = next(parent for parent in output.absolute().parents if parent.exists())
    if not above.is_dir():
        raise HarnessError(f"{output}: cannot be made ({above} is not a folder)")
    if not output.exists() or not any(output.iterdir()):
        return
    if not replace:
        raise HarnessError(f"{output}: is not empty")
    read_manifest(output)  # refuses to remove what is not a corpus


@contextlib.contextmanager
def _workshop(output: Path) -> Iterator[Path]:
    """A folder beside the target, readable like any other folder; gone afterwards, whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    inner = folder / "corpus"
    inner.mkdir()
    try:
        yield inner
    finally:
        shutil.rmtree(folder)


def _put_in_place(folder: Path, output: Path) -> None:
    """Rename; an older corpus goes into the workshop, which is about to be removed."""
    if output.exists():
        output.rename(folder.with_name("replaced"))
    try:
        os.replace(folder, output)  # noqa: PTH105 - renaming over an empty folder is wanted
    except OSError as error:
        raise HarnessError(f"{output}: cannot be put in place: {error.strerror}") from error


def refuse_differences(found: Manifest, expected: Manifest) -> None:
    """Compare two corpora by hash.

    Raises:
        HarnessError: they differ; the message has both hashes of the first files, and which inputs differ.
    """
    names = sorted(found.files.keys() | expected.files.keys())
    problems = [
        f"{name}: found sha256 {_sha256(found, name)}, pinned {_sha256(expected, name)}"
        for name in names
        if _sha256(found, name) != _sha256(expected, name)
    ]
    if problems:
        raise HarnessError(f"the corpus is not the pinned one: {_list(problems)}; {_cause(found, expected)}")


def _sha256(manifest: Manifest, name: str) -> str:
    entry = manifest.files.get(name)
    return "none" if entry is None else entry.sha256


def _cause(found: Manifest, expected: Manifest) -> str:
    """Which input differs, in words."""
    text = "the same" if found.text.sha256 == expected.text.sha256 else "different"
    versions = [
        f"{package} {found.inputs.get(package, 'absent')} (pinned {version})"
        for package, version in expected.inputs.items()
        if found.inputs.get(package) != version
    ]
    inputs = ", ".join(versions) or "the package versions are the pinned ones"
    return f"made with other inputs: {inputs}; the text before tokenization is {text}"


def _list(problems: list[str]) -> str:
    """The first few, and how many more."""
    more = len(problems) - SHOWN_DIFFERENCES
    return "; ".join(problems[:SHOWN_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")


def installed_source() -> Source:
    """The installed package that the demo is made from; the package is located, not imported.

    Raises:
        HarnessError: it is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise HarnessError(f"{PACKAGE} is not installed: pip install 'parameter-golf-harness[demo]'")
    return Source(PACKAGE, importlib.metadata.version(PACKAGE), Path(spec.origin).parent / "data")
