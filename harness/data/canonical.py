"""The competition's published counts against what a FineWeb folder holds."""

from __future__ import annotations

from harness.challenge import BOS_TOKEN, VAL_DOCUMENTS, VALIDATION_SPLITS, ValidationSplit
from harness.data.results import DatasetReport, SplitScan

PREFIX = "fineweb10B_"
# FineWeb holds some pages more than once, across crawls, so a few validation documents may stand in the training
# shards of the published split. A split made with a wrong document count shares far more (#2018: most of it).
OVERLAP_TOLERANCE = 0.01
# Tables and decoding agree but for malformed characters; the miscounts of #1719 and #1734 are 17% and more.
BYTES_TOLERANCE = 0.001


def canonical_split(dataset_name: str) -> ValidationSplit | None:
    """The published validation split that a dataset's name means; None when it means none.

    Example:
        >>> canonical_split("fineweb10B_sp8192_lossless_caps_caseops_v1_reserved").name
        'sp8192 CaseOps'
    """
    variant = dataset_name.removeprefix(PREFIX)
    if variant == dataset_name:
        return None
    name = "sp8192 CaseOps" if variant.startswith("sp8192") and "caseops" in variant else variant
    return next((split for split in VALIDATION_SPLITS if split.name == name), None)


def dataset_problems(dataset: DatasetReport) -> list[str]:
    """What is wrong with one dataset by the competition's rules and numbers, one sentence each."""
    problems = []
    if dataset.validation is None:
        problems.append(f"{dataset.directory}: no readable validation shard (fineweb_val_000000.bin)")
    else:
        problems += _validation_problems(dataset, dataset.validation)
    return problems + _overlap_problems(dataset)


def _validation_problems(dataset: DatasetReport, scan: SplitScan) -> list[str]:
    problems = []
    first = scan.shards[0]
    if first.first_token != BOS_TOKEN:
        problems.append(f"{first.path}: token 0 is {first.first_token}, expected {BOS_TOKEN} (BOS begins a document)")
    table, decoded = scan.bytes_by_table, scan.bytes_by_decoding
    if table is not None and decoded is not None and abs(table - decoded) > BYTES_TOLERANCE * decoded:
        problems.append(f"{dataset.directory}: validation bytes: {table:,} by table, but {decoded:,} by decoding")
    return problems + _canonical_problems(dataset, scan)


def _canonical_problems(dataset: DatasetReport, scan: SplitScan) -> list[str]:
    if not dataset.name.startswith(PREFIX):
        return []
    pairs: list[tuple[str, int | None, int | None]] = [("documents", scan.documents, VAL_DOCUMENTS)]
    split = canonical_split(dataset.name)
    if split is not None:
        pairs += [
            ("tokens", scan.tokens, split.tokens),
            ("bytes by table", scan.bytes_by_table, split.bytes),
            ("vocabulary size", dataset.vocab_size, split.vocab_size),
        ]
    return [
        f"{dataset.directory}: validation {what}: found {found:,}, expected {expected:,} for {dataset.name}"
        for what, found, expected in pairs
        if found is not None and expected is not None and found != expected
    ]


def _overlap_problems(dataset: DatasetReport) -> list[str]:
    """A split of ours must be disjoint; the published one may share the few pages that FineWeb repeats."""
    overlap, validation = dataset.overlap, dataset.validation
    if overlap is None or validation is None:
        return []
    tolerated = OVERLAP_TOLERANCE * validation.documents if dataset.name.startswith(PREFIX) else 0
    if overlap.validation_documents <= tolerated:
        return []
    shared = f"{overlap.validation_documents:,} of {validation.documents:,} validation documents"
    copies = f"{overlap.train_documents:,} training documents"
    return [
        f"{dataset.directory}: {shared} stand in the training shards too ({copies}), expected at most {tolerated:,.0f}"
    ]
