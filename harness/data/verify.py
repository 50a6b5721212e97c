"""Look through a folder of shards and say what is in it and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.data import scan, tokenizer
from harness.data.canonical import dataset_problems
from harness.data.expectations import manifest_problems
from harness.data.layout import FULL_VALIDATION_SUFFIX, Dataset, Layout, find_layout, missing_numbers, tokenizer_of
from harness.data.overlap import Overlap, OverlapCounter
from harness.data.results import DatasetReport, ShardScan, SplitScan, Verification
from harness.data.scan import Decode
from harness.data.tokenizer import Tokenizer
from harness.sources.shards import ShardHeader, open_tokens

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What to verify, and how much of it.

    Attributes:
        root: a folder of datasets, or one dataset.
        tokenizer: used for every dataset instead of the one that its name asks for.
        decode: which splits to decode, to count bytes a second way.
    """

    root: Path
    tokenizer: Path | None = None
    decode: Decode = Decode.VALIDATION


@dataclass(frozen=True, slots=True)
class _Opened:
    """A dataset whose headers were read."""

    dataset: Dataset
    tokenizer: Tokenizer | None
    train: tuple[ShardHeader, ...]
    validation: tuple[ShardHeader, ...]
    sidecar: tuple[ShardHeader, ...]
    problems: tuple[str, ...]


def verify(request: Request, progress: Progress | None = None) -> Verification:
    """Read everything once, in bounded memory.

    Args:
        request: what to verify.
        progress: called with a file's name, the tokens read so far, and all tokens.

    Raises:
        HarnessError: not a folder of shards, or a tokenizer is needed and cannot be loaded.
    """
    layout = find_layout(request.root)
    opened = [_open(dataset, layout, request.tokenizer) for dataset in layout.datasets]
    datasets = _scan_all(opened, request.decode, _Meter(opened, progress))
    compared, notes = manifest_problems(request.root, datasets)
    problems = [
        *_layout_problems(layout),
        *(problem for one in opened for problem in (*one.problems, *_sidecar_problems(one))),
        *(shard.problem for report in datasets for _, side in report.splits for shard in side.shards if shard.problem),
        *(problem for report in datasets for problem in dataset_problems(report)),
        *compared,
    ]
    return Verification(request.root, datasets, tuple(dict.fromkeys(problems)), (*_notes(layout, datasets), *notes))


def _layout_problems(layout: Layout) -> list[str]:
    problems = [
        f"{path}: unexpected file: not named like a shard (fineweb_train_000000.bin)" for path in layout.strange_shards
    ]
    for dataset in layout.datasets:
        for paths in (dataset.train, dataset.validation, dataset.sidecar):
            missing = [f"{number:06d}" for number in missing_numbers(paths)]
            if missing:
                problems.append(
                    f"{dataset.directory}: before {paths[-1].name}: missing number {', '.join(missing[:5])}"
                )
    return problems


def _open(dataset: Dataset, layout: Layout, given: Path | None) -> _Opened:
    """Read headers and load the tokenizer; unreadable shards are left out and stand under problems."""
    found = tokenizer_of(dataset, layout.tokenizers) if given is None else given
    train, train_problems = scan.read_headers(dataset.train)
    validation, validation_problems = scan.read_headers(dataset.validation)
    sidecar, sidecar_problems = scan.read_headers(dataset.sidecar)
    return _Opened(
        dataset=dataset,
        tokenizer=None if found is None else tokenizer.load(found),
        train=tuple(train),
        validation=tuple(validation),
        sidecar=tuple(sidecar),
        problems=(*train_problems, *validation_problems, *sidecar_problems),
    )


def _sidecar_problems(one: _Opened) -> list[str]:
    """A sidecar has one entry for each validation token; compared where both are readable."""
    found, expected = (sum(header.tokens for header in side) for side in (one.sidecar, one.validation))
    if not one.sidecar or found == expected:
        return []
    where = f"{one.dataset.directory}: byte sidecar"
    return [f"{where}: found {found:,} entries, expected {expected:,}, one for each validation token"]


class _Meter:
    """Adds up tokens for the progress display."""

    def __init__(self, opened: Sequence[_Opened], progress: Progress | None) -> None:
        self._progress = progress
        self._total = sum(header.tokens for one in opened for header in (*one.train, *one.validation))
        self._done = 0

    def __call__(self, path: Path, tokens: int) -> None:
        self._done += tokens
        if self._progress is not None:
            self._progress(f"{path.parent.name}/{path.name}", self._done, self._total)


def _scan_all(opened: Sequence[_Opened], decode: Decode, meter: scan.Progress) -> tuple[DatasetReport, ...]:
    """Every shard once; each validation split meets the training shards of every dataset with its tokenizer."""
    counters = [OverlapCounter(open_tokens(header) for header in one.validation) for one in opened]
    trains = []
    for one in opened:
        meeting = [counter for counter, other in zip(counters, opened, strict=True) if _same_tokenizer(one, other)]
        trains.append(_train_side(one, meeting, decode, meter))
    return tuple(
        DatasetReport(
            name=one.dataset.name,
            directory=one.dataset.directory,
            tokenizer=None if one.tokenizer is None else one.tokenizer.path,
            vocab_size=None if one.tokenizer is None else one.tokenizer.vocab_size,
            train=train,
            validation=_validation_side(one, decode, meter),
            overlap=_overlap(one, counter, opened),
        )
        for one, counter, train in zip(opened, counters, trains, strict=True)
    )


def _same_tokenizer(one: _Opened, other: _Opened) -> bool:
    if one.tokenizer is None or other.tokenizer is None:
        return one is other
    return one.tokenizer.path == other.tokenizer.path


def _train_side(
    one: _Opened, counters: Sequence[OverlapCounter], decode: Decode, meter: scan.Progress
) -> SplitScan | None:
    shards = scan.scan_shards(one.train, one.tokenizer, counters, meter)
    wanted = decode is Decode.ALL
    return SplitScan(shards, _decoded(one.tokenizer, one.train, shards) if wanted else None) if shards else None


def _validation_side(one: _Opened, decode: Decode, meter: scan.Progress) -> SplitScan | None:
    shards = scan.scan_shards(one.validation, one.tokenizer, (), meter)
    wanted = decode is not Decode.NONE
    decoded = _decoded(one.tokenizer, one.validation, shards) if wanted else None
    return SplitScan(shards, decoded, scan.sidecar_bytes(one.sidecar) if one.sidecar else None) if shards else None


def _decoded(pieces: Tokenizer | None, headers: Sequence[ShardHeader], shards: Sequence[ShardScan]) -> int | None:
    """Bytes by decoding, where there is a decoder and every id is one of its own."""
    if pieces is None or pieces.processor is None or any(shard.problem for shard in shards):
        return None
    return scan.decoded_bytes(headers, pieces)


def _overlap(one: _Opened, counter: OverlapCounter, opened: Sequence[_Opened]) -> Overlap | None:
    met = any(other.train for other in opened if _same_tokenizer(one, other))
    return counter.finish() if met and one.validation else None


def _notes(layout: Layout, datasets: Sequence[DatasetReport]) -> list[str]:
    notes = [f"{layout.root / path}: not part of the format, not read" for path in layout.other]
    for dataset in datasets:
        if dataset.tokenizer is None:
            notes.append(
                f"{dataset.directory}: no tokenizer fits its name: ids and bytes are not checked (--tokenizer)"
            )
        if dataset.train is None and not dataset.name.endswith(FULL_VALIDATION_SUFFIX):
            notes.append(f"{dataset.directory}: no readable training shard")
        if dataset.overlap is not None and dataset.overlap.validation_repeats:
            count = dataset.overlap.validation_repeats
            notes.append(f"{dataset.directory}: {count:,} validation documents repeat an earlier one")
        validation = dataset.validation
        if validation is not None and validation.bytes_by_sidecar is not None:
            notes.append(f"{dataset.directory}: the byte sidecar sums up to {validation.bytes_by_sidecar:,} bytes")
    return notes
