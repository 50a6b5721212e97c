"""Family metric: byte tables in the code, with the logged bytes per token as second witness."""

from __future__ import annotations

import dataclasses

import pytest

from harness.checks import bytetable as checks
from harness.facts.bytetable import ByteTable, ByteTableFacts
from harness.facts.claims import DeclaredSplit
from harness.facts.submission import Submission
from harness.model import Fact, Missing, Outcome, Verdict
from tests import factories
from tests.factories import at

TWICE = "leading space counted twice"
BYTE_TOKENS = "byte tokens not counted as one byte"
UNREAD = Missing("the table of bytes per token is not understood")


def submission(kind: Fact[str], *, canonical: bool = True, logs: bool = True) -> Submission:
    name = "" if isinstance(kind, Missing) else kind.value
    table = ByteTable(
        name, (at("the table of bytes", "train_gpt.py", 217), at("added", "train_gpt.py", 377)), runs=True
    )
    made = factories.submission(byte_tables=ByteTableFacts(kind, (table,), ()))
    if not logs:
        return dataclasses.replace(made, runs=())
    if canonical:
        return made
    strange = factories.score(loss=2.9)
    return dataclasses.replace(
        made, runs=tuple(dataclasses.replace(run, headline=at(strange, "train.log", 90)) for run in made.runs)
    )


def judged(made: Submission) -> Outcome:
    outcome = checks.byte_denominator_wrong.check(made)
    assert outcome is not None
    return outcome


@pytest.mark.parametrize(
    ("kind", "canonical", "verdict"),
    [
        (at("correct"), False, Verdict.PASS),
        (at(TWICE), False, Verdict.FAIL),
        (at(TWICE), True, Verdict.UNDECIDED),
        (at(BYTE_TOKENS), False, Verdict.WARN),
        (at("constant bytes per token"), False, Verdict.WARN),
        (UNREAD, True, Verdict.PASS),
        (UNREAD, False, Verdict.UNDECIDED),
    ],
)
def test_code_and_log_are_two_witnesses(kind: Fact[str], verdict: Verdict, *, canonical: bool) -> None:
    assert judged(submission(kind, canonical=canonical)).verdict is verdict


def test_a_doubled_space_names_both_lines_without_any_log() -> None:
    outcome = judged(submission(at(TWICE), logs=False))
    assert outcome.verdict is Verdict.FAIL
    assert [place.line for place in outcome.locations] == [217, 377]
    assert "no log tells" in outcome.message


def test_changed_text_warns_unless_raw_bytes_are_counted() -> None:
    place = at("", "prepare.py", 8).location
    plain = factories.submission(byte_tables=ByteTableFacts(at("correct"), (), (place,)))
    sidecar = factories.submission(byte_tables=ByteTableFacts(at("bytes from a sidecar file"), (), (place,)))
    for made, verdict in ((plain, Verdict.WARN), (sidecar, Verdict.PASS), (factories.blank(), Verdict.UNDECIDED)):
        outcome = checks.text_transformed.check(made)
        assert outcome is not None
        assert outcome.verdict is verdict


@pytest.mark.parametrize(("split_bytes", "verdict"), [(None, Verdict.PASS), (99_999, Verdict.UNDECIDED)])
def test_an_unread_table_passes_only_where_the_declared_split_has_the_logged_bytes(
    split_bytes: int | None, verdict: Verdict
) -> None:
    made = submission(UNREAD, canonical=False)
    ratio = judged(made).values["bytes_per_token"]
    assert isinstance(ratio, list)
    assert isinstance(ratio[0], float)
    same = dataclasses.replace(made, runs=made.runs[:1])
    tokens = 10_000_000
    split = DeclaredSplit("own", tokens, split_bytes or round(tokens * ratio[0]))
    outcome = judged(dataclasses.replace(same, claims=factories.manifest((1,), validation_split=at(split))))
    assert outcome.verdict is verdict
    assert "not understood" in outcome.message
