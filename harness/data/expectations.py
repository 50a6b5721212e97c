"""A folder's own manifest against what the folder holds: ours (`corpus/1`), or that of the competition's exporter."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.data import demo
from harness.data.manifest import MANIFEST_NAME, SCHEMA, Manifest, differences, read_text
from harness.data.results import DatasetReport
from harness.model import HarnessError

COMPETITION_STATS = ("docs", "tokens", "files")


def manifest_problems(root: Path, datasets: Sequence[DatasetReport]) -> tuple[list[str], list[str]]:
    """Compare with the manifest, if there is one.

    Returns:
        problems and notes, one sentence each.
    """
    path = root / MANIFEST_NAME
    if not path.is_file():
        return [], []
    try:
        text = read_text(path)
        raw = json.loads(text)
        if isinstance(raw, dict) and raw.get("schema") == SCHEMA:
            return _against_ours(root, Manifest.from_json(text, path), datasets), []
    except (HarnessError, ValueError, RecursionError) as error:
        return [f"{path}: not a readable manifest: {error}"], []
    if isinstance(raw, dict) and isinstance(raw.get("datasets"), list):
        return _against_exporter(path, raw["datasets"], datasets), []
    return [], [f"{path}: neither ours nor the competition exporter's: not compared"]


def _against_ours(root: Path, manifest: Manifest, datasets: Sequence[DatasetReport]) -> list[str]:
    # The demo answers to the pinned hashes; a manifest that was changed together with its files proves nothing.
    expected = demo.pinned() if manifest.name == demo.DEMO.name else manifest
    problems = differences(root, expected.files)
    problems += [f"{root / name}: unexpected file" for name in demo.unexpected_files(root, expected)]
    return problems + _count_problems(manifest, datasets, root)


def _count_problems(manifest: Manifest, datasets: Sequence[DatasetReport], root: Path) -> list[str]:
    """Counts that the manifest states and the shards do not have."""
    problems = []
    for shard in (shard for dataset in datasets for _, scan in dataset.splits for shard in scan.shards):
        entry = manifest.files.get(shard.path.relative_to(root).as_posix())
        if entry is None or entry.counts is None:
            continue
        pairs = (
            ("tokens", shard.tokens, entry.counts.tokens),
            ("documents", shard.documents, entry.counts.documents),
            ("bytes by table", shard.bytes_by_table, entry.counts.bytes_by_table),
        )
        problems += [
            f"{shard.path}: {what}: found {found:,}, {MANIFEST_NAME} says {stated:,}"
            for what, found, stated in pairs
            if found is not None and found != stated
        ]
    return problems


def _against_exporter(path: Path, entries: Sequence[Any], datasets: Sequence[DatasetReport]) -> list[str]:
    """The exporter's statistics; the training ones only where every training shard was downloaded."""
    problems = []
    stated = {
        entry["name"]: entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("name"), str)
    }
    for dataset in datasets:
        stats = stated.get(dataset.name, {}).get("stats")
        if not isinstance(stats, dict):
            continue
        for split, scan in dataset.splits:
            found = {"docs": scan.documents, "tokens": scan.tokens, "files": len(scan.shards)}
            if split == "val" or found["files"] == stats.get("files_train"):
                problems += _stat_problems(f"{path}: {dataset.name}", split, found, stats)
    return problems


def _stat_problems(where: str, split: str, found: Mapping[str, int], stats: Mapping[str, Any]) -> list[str]:
    keys = [(f"{what}_{split}", found[what]) for what in COMPETITION_STATS]
    return [
        f"{where}: {key} says {stats[key]!r}, found {count:,}"
        for key, count in keys
        if key in stats and stats[key] != count
    ]
