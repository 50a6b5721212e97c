"""Which files of a folder are shards and tokenizers, by their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.data.layout import Dataset, find_layout, missing_numbers, tokenizer_of
from harness.model import HarnessError


def test_tokenizers_are_chosen_by_the_whole_name() -> None:
    paths = [
        Path("tokenizers") / name
        for name in ("fineweb_8192_bpe.model", "fineweb_8192_bpe_caps_v1.model", "fineweb_1024_bpe.model")
    ]

    def chosen(name: str) -> str | None:
        path = tokenizer_of(Dataset(Path("datasets") / name, (), (), ()), paths)
        return None if path is None else path.name

    assert chosen("fineweb10B_sp8192") == "fineweb_8192_bpe.model"
    assert chosen("fineweb10B_sp8192_caps_v1") == "fineweb_8192_bpe_caps_v1.model"
    assert chosen("demo_sp1024_fullval") == "fineweb_1024_bpe.model"
    assert chosen("fineweb10B_sp4096") is None
    assert chosen("tokens") is None


def test_layout_errors(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="no such folder"):
        find_layout(tmp_path / "none")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(HarnessError, match="not a folder"):
        find_layout(tmp_path / "file")
    with pytest.raises(HarnessError, match="no token shard"):
        find_layout(tmp_path)


def test_gaps_in_numbering() -> None:
    assert missing_numbers([Path(f"fineweb_train_{k:06d}.bin") for k in (1, 3)]) == [0, 2]
    assert missing_numbers([]) == []
