"""Where the datasets and tokenizers of a folder are: the competition's layout, the demo's, or one dataset alone."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.model import HarnessError

ENTRIES_CAP = 100_000
SHARD_NAME = re.compile(r"fineweb_(train|val|val_bytes)_(\d{6})\.bin")
TOKENIZER_SUFFIXES = (".model", ".json")
# Files that exporters leave beside the shards, and that no script reads as data.
KNOWN_NAMES = (
    "manifest.json",
    "docs_selected.jsonl",
    "docs_selected.source_manifest.json",
    "tokenizer_config.export.json",
)
DATASET_NAME = re.compile(r".+?_(?:sp(?P<vocab>\d+)(?P<rest>\w*)|(?P<bytes>byte260))")
FULL_VALIDATION_SUFFIX = "_fullval"


@dataclass(frozen=True, slots=True)
class Dataset:
    """One folder of shards; each tuple sorted by number.

    Attributes:
        directory: the folder.
        train: training shards.
        validation: validation shards.
        sidecar: byte counts beside the validation tokens (CaseOps variants ship them), in the shards' format.
    """

    directory: Path
    train: tuple[Path, ...]
    validation: tuple[Path, ...]
    sidecar: tuple[Path, ...]

    @property
    def name(self) -> str:
        """The folder's name, which says the tokenizer."""
        return self.directory.name


@dataclass(frozen=True, slots=True)
class Layout:
    """What a folder holds.

    Attributes:
        root: the folder.
        datasets: by path.
        tokenizers: files below a `tokenizers` folder of the root or beside it.
        strange_shards: `.bin` files that no name of the format fits: scripts that glob may read them.
        other: files that are none of these and that no exporter leaves, relative to the root.
    """

    root: Path
    datasets: tuple[Dataset, ...]
    tokenizers: tuple[Path, ...]
    strange_shards: tuple[Path, ...]
    other: tuple[Path, ...]


def find_layout(root: Path) -> Layout:
    """Look through a folder.

    Raises:
        HarnessError: not a folder, too many entries, or no shard anywhere in it.
    """
    if not root.is_dir():
        raise HarnessError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}")
    files = _files(root)
    shards = [path for path in files if SHARD_NAME.fullmatch(path.name)]
    if not shards:
        raise HarnessError(f"{root}: no token shard (fineweb_train_000000.bin, fineweb_val_000000.bin) in it")
    folders = sorted({path.parent for path in shards})
    tokenizers = [path for path in files if _is_tokenizer(path)]
    rest = [path for path in files if path not in {*shards, *tokenizers}]
    return Layout(
        root=root,
        datasets=tuple(_dataset(folder, shards) for folder in folders),
        tokenizers=tuple(tokenizers or _tokenizers_beside(root)),
        strange_shards=tuple(path for path in rest if path.suffix == ".bin"),
        other=tuple(path.relative_to(root) for path in rest if path.suffix != ".bin" and not _is_known(path)),
    )


def _files(root: Path) -> list[Path]:
    """Every file below, sorted; links to folders are not followed."""
    found: list[Path] = []
    for folder, _, names in os.walk(root):
        found.extend(Path(folder) / name for name in names)
        if len(found) > ENTRIES_CAP:
            raise HarnessError(f"{root}: more than {ENTRIES_CAP:,} files: not a folder of shards")
    return sorted(found)


def _is_tokenizer(path: Path) -> bool:
    return path.parent.name == "tokenizers" and path.suffix in TOKENIZER_SUFFIXES


def _is_known(path: Path) -> bool:
    return path.name in KNOWN_NAMES or (path.parent.name == "tokenizers" and path.suffix == ".vocab")


def _tokenizers_beside(root: Path) -> list[Path]:
    """For a dataset named alone: `tokenizers` next to it, or next to `datasets`."""
    folders = [parent / "tokenizers" for parent in root.resolve().parents[:2]]
    return sorted(path for folder in folders if folder.is_dir() for path in folder.iterdir() if _is_tokenizer(path))


def _dataset(folder: Path, shards: Sequence[Path]) -> Dataset:
    def of(kind: str) -> tuple[Path, ...]:
        here = [path for path in shards if path.parent == folder]
        return tuple(path for path in here if (match := SHARD_NAME.fullmatch(path.name)) and match[1] == kind)

    return Dataset(folder, of("train"), of("val"), of("val_bytes"))


def tokenizer_of(dataset: Dataset, tokenizers: Sequence[Path]) -> Path | None:
    """The tokenizer that a dataset's name asks for, the one in the nearest folder; None when there is none.

    `fineweb10B_sp1024` asks for `*_1024_bpe.model`; what follows the number must follow `_bpe` too.
    """
    match = DATASET_NAME.fullmatch(dataset.name.removesuffix(FULL_VALIDATION_SUFFIX))
    if match is None:
        return None
    ending = "pure_byte_260.json" if match["bytes"] else f"_{match['vocab']}_bpe{match['rest']}.model"
    fitting = [path for path in tokenizers if path.name.endswith(ending)]
    return max(fitting, key=lambda path: _shared_parents(path, dataset.directory), default=None)


def _shared_parents(one: Path, other: Path) -> int:
    pairs = zip(one.resolve().parts, other.resolve().parts, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def missing_numbers(paths: Sequence[Path]) -> list[int]:
    """Numbers below the largest one that no shard of the sequence has."""
    numbers = {int(match[2]) for path in paths if (match := SHARD_NAME.fullmatch(path.name))}
    return sorted(set(range(max(numbers, default=-1) + 1)) - numbers)
