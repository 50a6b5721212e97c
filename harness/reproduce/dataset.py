"""The data a run reads: found under a root folder, and a view of it that holds no training data.

Layout of a root, as the competition's: `datasets/NAME/fineweb_{train,val}_*.bin`, `tokenizers/*.model`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.model import HarnessError

SHARDS: Final = "fineweb_*.bin"
TRAINING_MARK: Final = "train"
VALIDATION_MARK: Final = "_val"
HEAD_BYTES: Final = 1 << 20
COPY_CAP_BYTES: Final = 1 << 30
_VOCABULARY = re.compile(r"(?:sp|byte)(\d{2,6})")


@dataclass(frozen=True, slots=True)
class Dataset:
    """One dataset with its tokenizer.

    Attributes:
        name: the folder's name under `datasets/`.
        shards: that folder.
        tokenizer: the SentencePiece model, None where the vocabulary needs none.
    """

    name: str
    shards: Path
    tokenizer: Path | None

    def environment(self, directory: Path) -> dict[str, str]:
        """The variables by which scripts that run in `directory` find it, relative to it: logs name no machine."""
        variables = {"DATA_PATH": os.path.relpath(self.shards, directory)}
        if self.tokenizer is not None:
            variables["TOKENIZER_PATH"] = os.path.relpath(self.tokenizer, directory)
        return variables

    def sha256(self) -> str:
        """Hash over names, sizes and first mebibytes of its files: tells datasets apart without reading them whole."""
        digest = hashlib.sha256()
        paths = sorted(path for path in self.shards.iterdir() if path.is_file())
        for path in [*paths, *([self.tokenizer] if self.tokenizer else [])]:
            with path.open("rb") as file:
                head = hashlib.sha256(file.read(HEAD_BYTES)).hexdigest()
            digest.update(f"{path.name} {path.stat().st_size} {head}\n".encode())
        return digest.hexdigest()


def locate(root: Path, name: str | None) -> Dataset:
    """The dataset `name` under a root, or the only one; the root may also be the dataset's own folder.

    Raises:
        HarnessError: there is none, there are several to choose from, or its tokenizer is not clear.
    """
    if not root.is_dir():
        raise HarnessError(f"{root}: no such data folder")
    if any(root.glob(SHARDS)):
        return _dataset(root.resolve().parent.parent, root.resolve())
    known = {path.name: path for path in sorted((root / "datasets").glob("*")) if any(path.glob(SHARDS))}
    if name is None and len(known) == 1:
        name = next(iter(known))
    if name not in known:
        wanted = f"no dataset {name}" if name else "several datasets"
        listed = ", ".join(known) or "none"
        raise HarnessError(f"{root}: {wanted} (there: {listed}); give the dataset's own folder as --data")
    return _dataset(root.resolve(), known[name].resolve())


def _dataset(root: Path, shards: Path) -> Dataset:
    models = sorted((root / "tokenizers").glob("*.model"))
    vocabulary = _VOCABULARY.search(shards.name)
    if vocabulary:
        fitting = [path for path in models if vocabulary[1] in re.findall(r"\d+", path.name)]
        models = fitting or ([] if vocabulary[0].startswith("byte") else models)
    if len(models) > 1:
        listed = ", ".join(path.name for path in models)
        raise HarnessError(f"{root / 'tokenizers'}: which of {listed} belongs to {shards.name} is not clear")
    return Dataset(shards.name, shards, models[0] if models else None)


def whole(dataset: Dataset, target: Path) -> Dataset:
    """A view of the whole dataset under a new folder, made of symbolic links."""
    shards = target / "datasets" / dataset.name
    shards.parent.mkdir(parents=True)
    shards.symlink_to(dataset.shards.resolve(), target_is_directory=True)
    return Dataset(dataset.name, shards, _linked_tokenizer(dataset, target))


def without_validation(dataset: Dataset, target: Path) -> Dataset:
    """A view of the dataset under a new folder: everything but validation shards, by symbolic links."""
    shards = target / "datasets" / dataset.name
    shards.mkdir(parents=True)
    for path in sorted(dataset.shards.iterdir()):
        if path.is_file() and VALIDATION_MARK not in path.name:
            (shards / path.name).symlink_to(path.resolve())
    return Dataset(dataset.name, shards, _linked_tokenizer(dataset, target))


def without_training(dataset: Dataset, target: Path) -> Dataset:
    """A view of the dataset under a new folder: everything but training shards, and the tokenizer.

    Files are linked, or copied where links across file systems are not possible. A symbolic link would tell where
    the training shards are.

    Raises:
        HarnessError: files too large to copy, on another file system.
    """
    shards = target / "datasets" / dataset.name
    shards.mkdir(parents=True)
    for path in sorted(dataset.shards.iterdir()):
        if path.is_file() and TRAINING_MARK not in path.name:
            _link(path, shards / path.name)
    if dataset.tokenizer is None:
        return Dataset(dataset.name, shards, None)
    tokenizer = target / "tokenizers" / dataset.tokenizer.name
    tokenizer.parent.mkdir()
    _link(dataset.tokenizer, tokenizer)
    return Dataset(dataset.name, shards, tokenizer)


def _linked_tokenizer(dataset: Dataset, target: Path) -> Path | None:
    if dataset.tokenizer is None:
        return None
    tokenizer = target / "tokenizers" / dataset.tokenizer.name
    tokenizer.parent.mkdir()
    tokenizer.symlink_to(dataset.tokenizer.resolve())
    return tokenizer


def _link(path: Path, target: Path) -> None:
    path = path.resolve()
    try:
        os.link(path, target)
    except OSError as error:
        if path.stat().st_size > COPY_CAP_BYTES:
            message = f"{path}: larger than {COPY_CAP_BYTES:,} bytes, and cannot be linked from {target.parent}"
            raise HarnessError(f"{message}; keep the evidence directory on the data's file system") from error
        shutil.copyfile(path, target)
