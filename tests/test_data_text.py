"""Service models to documents, and documents to the two sides of a split."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data import text
from harness.data.split import split_by_service
from harness.data.text import Document
from harness.model import HarnessError


def write_model(directory: Path, service: str, version: str, tree: object, *, compress: bool = True) -> Path:
    folder = directory / service / version
    folder.mkdir(parents=True)
    raw = json.dumps(tree).encode()
    path = folder / ("service-2.json.gz" if compress else "service-2.json")
    path.write_bytes(gzip.compress(raw) if compress else raw)
    return path


def words(first: int, last: int) -> str:
    return " ".join(f"w{number}" for number in range(first, last))


def test_documentation_strings_in_the_order_of_the_file(tmp_path: Path) -> None:
    tree = {
        "documentation": "<p>one</p>",
        "operations": {"Get": {"documentation": "two", "errors": [{"documentation": "three"}]}},
        "shapes": {"S": {"members": {"documentation": {"documentation": "four"}}, "documentation": "five"}},
        "metadata": {"documentation": 6},
    }
    expected = ["<p>one</p>", "two", "three", "five", "four"]
    for compress in (True, False):
        model = write_model(tmp_path / str(compress), "svc", "2020-01-01", tree, compress=compress)
        assert text.documentation(model) == expected


def test_deep_nesting_is_refused_or_read_but_never_crashes(tmp_path: Path) -> None:
    path = write_model(tmp_path, "svc", "1", {})
    path.write_bytes(gzip.compress(b"[" * 100_000 + b"]" * 100_000))
    with pytest.raises(HarnessError, match="not a readable service model"):
        text.documentation(path)


def test_models_by_service_and_version(tmp_path: Path) -> None:
    for service, version, compress in (("b", "1", True), ("a", "2", False), ("a", "1", True), ("a-b", "1", True)):
        write_model(tmp_path, service, version, {}, compress=compress)
    (tmp_path / "a" / "1" / "paginators-1.json").write_text("{}")
    found = [path.relative_to(tmp_path).parts[:2] for path in text.service_models(tmp_path)]
    assert found == [("a", "1"), ("a", "2"), ("a-b", "1"), ("b", "1")]


def test_a_folder_without_models_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="no service model"):
        text.service_models(tmp_path)


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("<p>Lists  the\n keys.</p>", "Lists the keys."),
        ("<a href='x>y'>z</a>", "y'>z"),  # an attribute with `>` ends early: the same on every Python
        ("a &lt;b&gt; &amp;amp; &#39;c&#39;", "a <b> &amp; 'c'"),
        ("non\u00a0breaking", "non breaking"),
        ("5 < 6", "5 < 6"),
        ("<ul><li>one</li><li>two</li></ul>", "one two"),
    ],
)
def test_plain(markup: str, expected: str) -> None:
    assert text.plain(markup) == expected


@given(st.text(max_size=200))
def test_plain_is_folded(markup: str) -> None:
    plain = text.plain(markup)
    assert plain == " ".join(plain.split())


def test_unique_keeps_the_first() -> None:
    documents = [Document("a", "x"), Document("b", "x"), Document("b", "y")]
    assert text.unique(documents) == [Document("a", "x"), Document("b", "y")]


def test_near_duplicates_at_the_limit_go_and_below_it_stay() -> None:
    # 17 words have 10 shingles of 8. With 9 words in common 2 shingles are shared: 20%, which is out.
    base = Document("a", words(0, 17))
    at_limit = Document("b", f"{words(0, 9)} {words(100, 108)}")
    below = Document("c", f"{words(0, 8)} {words(200, 209)}")
    kept = text.without_near_duplicates([base, at_limit, below], words=8, share=0.2)
    assert kept == [base, below]


def test_dropped_documents_leave_no_shingles() -> None:
    first = Document("a", words(0, 17))
    dropped = Document("b", f"{words(0, 17)} {words(50, 60)}")
    like_the_dropped = Document("c", words(50, 60))
    assert text.without_near_duplicates([first, dropped, like_the_dropped], words=8, share=0.2) == [
        first,
        like_the_dropped,
    ]


def test_documents_shorter_than_a_shingle_count_whole() -> None:
    documents = [Document("a", "one two"), Document("b", "one two three"), Document("c", "one two")]
    assert text.without_near_duplicates(documents, words=8, share=0.2) == documents[:2]


def naive_near_duplicates(documents: list[Document], size: int, share: float) -> list[Document]:
    """Word by word with strings: what the hashed version must agree with."""
    seen: set[tuple[str, ...]] = set()
    kept = []
    for document in documents:
        parts = document.text.split(" ")
        shingles = {tuple(parts[i : i + size]) for i in range(max(1, len(parts) - size + 1))}
        if len(shingles & seen) < share * len(shingles):
            seen |= shingles
            kept.append(document)
    return kept


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=12), max_size=12), st.sampled_from([0.2, 0.5]))
def test_hashed_shingles_agree_with_strings(bodies: list[list[str]], share: float) -> None:
    documents = [Document(str(k), " ".join(body)) for k, body in enumerate(bodies)]
    assert text.without_near_duplicates(documents, 3, share) == naive_near_duplicates(documents, 3, share)


def some_documents() -> list[Document]:
    return [Document(f"s{k % 7}", f"document {k} " + "x" * (k % 11)) for k in range(100)]


def test_no_service_on_both_sides_and_nothing_lost() -> None:
    documents = some_documents()
    split = split_by_service(documents, services=2, short_bytes=60, seed=3)
    held_out = set(split.validation_services)
    assert len(held_out) == 2
    assert {document.service for document in split.validation} == held_out
    assert not held_out & {document.service for document in split.train}
    assert sorted(split.train + split.validation, key=str) == sorted(documents, key=str)


def test_short_validation_is_a_prefix_that_fits() -> None:
    split = split_by_service(some_documents(), services=2, short_bytes=60, seed=3)
    short = split.short_validation
    assert short == split.validation[: len(short)]
    total = sum(document.size_bytes for document in short)
    assert total <= 60 < total + split.validation[len(short)].size_bytes


def test_order_depends_on_the_seed_and_not_on_the_input() -> None:
    documents = some_documents()
    shuffled = random.Random(1).sample(documents, len(documents))
    one = split_by_service(documents, services=2, short_bytes=60, seed=3)
    assert split_by_service(shuffled, services=2, short_bytes=60, seed=3) == one
    assert split_by_service(documents, services=2, short_bytes=60, seed=4) != one
    assert [document.text for document in one.train] != sorted(document.text for document in one.train)


def test_cannot_hold_out_every_service() -> None:
    with pytest.raises(HarnessError, match="7 services: cannot hold out 7"):
        split_by_service(some_documents(), services=7, short_bytes=60, seed=3)
