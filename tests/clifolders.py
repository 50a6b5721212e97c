"""Folders that commands are run on."""

from __future__ import annotations

from pathlib import Path


def one_record(root: Path) -> Path:
    """A record folder with a README and nothing else."""
    path = root / "2026-04-01_One"
    path.mkdir()
    (path / "README.md").write_text("val_bpb: 1.2345\n", encoding="utf-8")
    return path
