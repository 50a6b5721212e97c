"""The compressed code worked out anew: what a script says of its own counting, and a child that may fail."""

from __future__ import annotations

import base64
import json
import lzma
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.sources import cache, recount
from harness.sources.cache import Cache, user_cache
from harness.sources.recount import Recounted, convention_of

FLAGS = '["pyminify", "--no-rename-locals", "--no-hoist-literals", "--remove-literal-statements", "-"]'
NOWHERE = Cache(None)


def recounted(text: str, store: Cache = NOWHERE) -> Recounted:
    found = recount.recount(text, store)
    assert isinstance(found, Recounted), found
    return found


def test_the_size_is_that_of_the_wrapped_code() -> None:
    text = 'def add(first, second):\n    """Add."""\n    return first + second\n'
    sizes = recounted(text).sizes
    wrapper = len(b'import lzma as L,base64 as B\nexec(L.decompress(B.b85decode("")))\n')
    assert sizes["unminified + lzma"] == wrapper + len(base64.b85encode(lzma.compress(text.encode())))
    assert sizes["minified"] == len("def add(first,second):return first+second")


def test_a_script_says_how_it_counts() -> None:
    text = f"x = 1\nsmall = run({FLAGS}).stdout\nsize = brotli.compress(small)\n"
    found = convention_of(text)
    assert found.compressor == "brotli"
    assert found.line == 2
    assert found.options == recount.PUBLISHED_OPTIONS
    called = convention_of("python_minifier.minify(code, rename_globals=True, hoist_literals=False)\nlzma.compress(m)")
    assert called.options == {"rename_globals": True, "hoist_literals": False}


def test_a_script_that_does_not_say_is_counted_as_published() -> None:
    assert convention_of("x = 1\n") == recount.Convention(recount.PUBLISHED_OPTIONS, "lzma", None)


@given(st.text(max_size=200))
def test_any_text_has_a_convention(text: str) -> None:
    assert convention_of(f"pyminify{text}").compressor in {"lzma", "brotli"}


def test_what_does_not_parse_is_refused_with_the_reason() -> None:
    found = recount.recount("def f(:\n", NOWHERE)
    assert isinstance(found, str)
    assert "SyntaxError" in found


def test_f_strings_of_newer_pythons_are_minified_on_older_ones() -> None:
    newer, older = 'print(f"{\', \'.join(x)} {"a"}")\n', "print(f\"{', '.join(x)} {'a'}\")\n"
    found, expected = recounted(newer).sizes, recounted(older).sizes
    assert found["minified"] == expected["minified"]
    assert abs(found["minified + lzma"] - expected["minified + lzma"]) < 10


def test_deep_nesting_ends_the_child_only() -> None:
    found = recount.recount("x = " + "(" * 100_000 + ")" * 100_000, NOWHERE)
    assert isinstance(found, str)


def test_a_large_script_is_not_minified() -> None:
    found = recount.recount("#" * (recount.SOURCE_LIMIT_BYTES + 1), NOWHERE)
    assert isinstance(found, str)
    assert "larger" in found


def test_a_minifier_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recount, "TIME_LIMIT_SECONDS", 0.01)
    found = recount.recount("x = 1\n" * 20_000, NOWHERE)
    assert isinstance(found, str)
    assert "TimeoutExpired" in found


def test_sizes_are_remembered_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Cache(tmp_path)
    first = recounted("x = 1\n", store)
    monkeypatch.setattr(sys, "executable", "/nowhere")
    assert recounted("x = 1\n", store) == first
    assert isinstance(recount.recount("x = 2\n", store), str)


def test_a_damaged_entry_is_computed_again(tmp_path: Path) -> None:
    store = Cache(tmp_path)
    store.put(b"key", {"bytes": 1})
    assert store.get(b"key") == {"bytes": 1}
    [entry] = tmp_path.iterdir()
    for damage in ("", "[]", '{"key": 1, "value": {"bytes": 2}}', "[" * 3_000, "\x00"):
        entry.write_text(damage, encoding="utf-8")
        assert store.get(b"key") is None
    good = json.dumps({"key": entry.stem, "value": {"bytes": "1"}})
    entry.write_text(good, encoding="utf-8")
    assert store.get(b"key") is None


def test_a_store_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    store = Cache(blocked / "below")
    store.put(b"key", {"bytes": 1})
    assert store.get(b"key") is None


def test_a_full_store_drops_its_older_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "ENTRIES_LIMIT", 10)
    store = Cache(tmp_path)
    for number in range(40):
        store.put(str(number).encode(), {"number": number})
    assert len(list(tmp_path.iterdir())) <= 11
    assert store.get(b"39") == {"number": 39}


def test_no_home_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(Path, "home", homeless)
    user_cache("recount").put(b"key", {"bytes": 1})
    assert user_cache("recount").get(b"key") is None
