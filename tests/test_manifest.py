"""submission.json as other people write it, and as nobody should."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model import Located, Missing
from harness.sources import manifest
from harness.sources.manifest import DEPTH_LIMIT, is_finite_number, pointer, read

DOCUMENT = b"""{
  "name": "A",
  "val_bpb": 1.25,
  "nothing": null,
  "seed_results": {
    "42": {"val_bpb": 1.2},
    "a/b~c": [
      7,
      {"x": true}
    ]
  }
}
"""


def test_values_have_pointers_and_lines() -> None:
    parsed = read(DOCUMENT, "submission.json")
    assert parsed.problems == ()
    assert parsed.document is not None
    assert parsed.document["val_bpb"] == 1.25
    assert parsed.lines == {
        "": 1,
        "/name": 2,
        "/val_bpb": 3,
        "/nothing": 4,
        "/seed_results": 5,
        "/seed_results/42": 6,
        "/seed_results/42/val_bpb": 6,
        "/seed_results/a~1b~0c": 7,
        "/seed_results/a~1b~0c/0": 8,
        "/seed_results/a~1b~0c/1": 9,
        "/seed_results/a~1b~0c/1/x": 9,
    }


def test_the_first_synonym_with_a_value_is_taken() -> None:
    parsed = read(DOCUMENT, "submission.json")
    found = parsed.first(("nothing", "absent", "val_bpb"))
    assert isinstance(found, Located)
    assert (found.value, str(found.location)) == (1.25, "submission.json#/val_bpb:3")
    missing = parsed.first(("absent",))
    assert isinstance(missing, Missing)
    assert missing.reason == "submission.json has no absent"


def test_a_byte_order_mark_is_no_problem() -> None:
    assert read(b"\xef\xbb\xbf" + DOCUMENT, "s").problems == ()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is no JSON: Expecting value"),
        (b'{"a": 1,}', "is no JSON: "),
        (b"[1]", "is no JSON object"),
        (b'"text"', "is no JSON object"),
        (b'{"a":' * 500 + b"1" + b"}" * 500, "nests deeper than 64 levels"),
        (b"[" * 100_000, "nests deeper than 64 levels"),
        (b'{"a":' + b"9" * 5_000 + b"}", "holds a number that cannot be read: 5000 digits"),
        (b'{"a": "' + b'\\"' * 1_000, "is no JSON: Unterminated string"),
        (b"\x00\xff\xfe", "is no JSON: "),
    ],
)
def test_what_is_no_object_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    parsed = read(data, "s.json")
    assert parsed.document is None
    assert len(parsed.problems) == 1
    assert parsed.problems[0].value.startswith(reason)
    missing = parsed.first(("a",))
    assert isinstance(missing, Missing)
    assert missing.reason == "s.json does not parse"


def test_a_syntax_error_has_its_line() -> None:
    assert read(b'{\n"a": 1\n"b": 2}', "s").problems[0].location.line == 3


def test_oversized_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "SIZE_LIMIT_BYTES", 10)
    assert "larger than 10 bytes" in read(DOCUMENT, "s").problems[0].value


def test_keys_that_would_be_repeated_for_every_value_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    long = b'{"n": 1,\n"' + b"k" * 1_000_000 + b'": [' + b"0," * 1_000_000 + b"0]}"
    parsed = read(long, "s")
    assert parsed.document is None
    assert parsed.problems[0].location.line is None
    assert "a key of more than 1,024 characters" in parsed.problems[0].value
    # Every value is named by all keys above it.
    monkeypatch.setattr(manifest, "POINTERS_LIMIT_CHARACTERS", 10_000)
    many = b'{"' + b"k" * 1_000 + b'": [' + b"0," * 20 + b"0]}"
    assert "more values under long keys" in read(many, "s").problems[0].value
    assert read(b'{"' + b"k" * 1_000 + b'": [0]}', "s").problems == ()


def test_duplicate_keys_and_lone_surrogates_are_reported() -> None:
    parsed = read(b'{"a": 1, "a": 2, "b": {"c": "\\ud800"}}', "s")
    assert parsed.document == {"a": 2, "b": {"c": "\ud800"}}
    assert [problem.value for problem in parsed.problems] == [
        "has the key 'a' twice",
        "holds characters that are no Unicode text",
    ]
    assert parsed.problems[1].location.pointer == "/b/c"


def test_numbers_that_are_no_numbers() -> None:
    parsed = read(b'{"a": NaN, "b": 1e999, "c": -Infinity, "d": true, "e": "1", "f": 3, "g": 2.5}', "s")
    assert parsed.document is not None
    assert [key for key, value in parsed.document.items() if is_finite_number(value)] == ["f", "g"]


def test_pointers_escape() -> None:
    assert pointer("a/b", 0, "c~d") == "/a~1b/0/c~0d"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)


def resolve(document: Any, place: str) -> Any:
    for step in place.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        document = document[int(key)] if isinstance(document, list) else document[key]
    return document


@given(st.dictionaries(st.text(max_size=6), JSON, max_size=4), st.sampled_from([None, 2]))
def test_every_value_is_found_again_by_its_pointer(document: dict[str, Any], indent: int | None) -> None:
    text = json.dumps(document, indent=indent)
    parsed = read(text.encode(), "s")
    assert parsed.document == document
    assert set(parsed.lines.values()) <= set(range(1, text.count("\n") + 2))
    for place in parsed.lines:
        resolve(document, place)
    if indent is not None and document:
        first = next(iter(document))
        assert parsed.lines[pointer(first)] == 2


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    parsed = read(data, "s")
    assert (parsed.document is None) <= bool(parsed.problems)


@given(st.lists(st.sampled_from([*list('{}[],:"\\ \n'), "1", "e9", "null", "NaN", '"a"', '\\"']), max_size=60))
def test_shuffled_json_is_parsed_or_refused(pieces: list[str]) -> None:
    parsed = read("".join(pieces).encode(), "s")
    assert (parsed.document is None) <= bool(parsed.problems)


def test_the_depth_limit_itself_is_allowed() -> None:
    depth = DEPTH_LIMIT - 1
    data = b'{"a":' + b"[" * depth + b"]" * depth + b"}"
    assert read(data, "s").problems == ()
