"""Quoted lines: the right ones, cut, bounded, and of packed scripts too."""

from __future__ import annotations

import base64
import lzma
from pathlib import Path

import pytest

from harness.model import Excerpt, Location
from harness.sources import excerpts
from harness.sources.folder import walk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    text = "\n".join(f"line {number}" for number in range(1, 31))
    (tmp_path / "train.log").write_text(text, encoding="utf-8")
    payload = base64.b85encode(lzma.compress(b"import torch\nx = 1\n")).decode()
    packed = f'import lzma, base64\n\nexec(lzma.decompress(base64.b85decode("{payload}")))\n'
    (tmp_path / "packed.py").write_text(packed, encoding="utf-8")
    return tmp_path


def read(folder: Path, *around: Location, alone: tuple[Location, ...] = ()) -> dict[str, Excerpt]:
    return excerpts.read(walk(folder), around, alone)


def test_a_line_is_quoted_with_its_neighbours_or_alone(folder: Path) -> None:
    found = read(folder, Location("train.log", 2), alone=(Location("train.log", 20),))
    assert dict(found["train.log"].lines) == {n: f"line {n}" for n in (1, 2, 3, 4, 5, 20)}
    assert found["train.log"].anchor is None


def test_a_packed_line_is_quoted_from_its_layer(folder: Path) -> None:
    place = Location("packed.py", 2, layer="lzma(base85)")
    found = read(folder, place)[place.file]
    assert found.lines[2] == "x = 1"
    assert found.anchor == 3


def test_few_packed_scripts_are_unpacked_again(folder: Path) -> None:
    packed = (folder / "packed.py").read_text(encoding="utf-8")
    places = [Location(f"p{number}.py", 1, layer="lzma(base85)") for number in range(excerpts.PACKED_LIMIT + 2)]
    for place in places:
        (folder / place.path).write_text(packed, encoding="utf-8")
    assert len(read(folder, *places)) == excerpts.PACKED_LIMIT


@pytest.mark.parametrize(
    "place",
    [
        Location("absent.log", 1),
        Location("train.log", 99),
        Location("train.log"),
        Location("."),
        Location("train.log", 1, layer="lzma"),
        Location("../outside", 1),
    ],
)
def test_a_place_that_is_not_there_is_not_quoted(folder: Path, place: Location) -> None:
    assert read(folder, place) == {}


def test_long_lines_and_many_places_are_cut(folder: Path) -> None:
    (folder / "long.log").write_text("\t" + "x" * 5_000, encoding="utf-8")
    assert len(read(folder, Location("long.log", 1))["long.log"].lines[1]) == excerpts.LINE_LIMIT_CHARACTERS
    (folder / "many.log").write_text("x\n" * 5_000, encoding="utf-8")
    every = tuple(Location("many.log", number) for number in range(1, 5_000))
    assert len(read(folder, alone=every)["many.log"].lines) == excerpts.PLACES_LIMIT


def test_places_of_facts_are_found_without_settings() -> None:
    value = {"path": "a.log", "line": 3, "value": 1}
    facts = {
        "runs": [{"seed": value, "config": {"x": value | {"line": 4}}}],
        "claims": {"no": {"missing": "x", "path": "b"}},
    }
    assert excerpts.places_in(facts) == [Location("a.log", 3)]  # type: ignore[arg-type] # JSON by hand
