"""Family metric: byte tables in the code, with the logged bytes per token as second witness."""

from __future__ import annotations

import dataclasses
import math

import pytest

from harness.checks import bytetable as checks
from harness.facts.bytetable import ByteTable, ByteTableFacts
from harness.facts.claims import DeclaredSplit
from harness.facts.submission import Submission
from harness.model import Fact, Missing, Outcome, Verdict
from tests import factories
from tests.factories import UNSTATED, at

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


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, Verdict.PASS), (1.1, Verdict.UNDECIDED)])
def test_an_unread_table_passes_only_where_the_declared_split_has_the_logged_bytes(
    factor: float, verdict: Verdict
) -> None:
    # The logs print 2.9 nats per token at 1.2 bits per byte.
    tokens = 1_000_000_000
    split = DeclaredSplit("own", tokens, round(factor * tokens * 2.9 / math.log(2) / 1.2))
    claims = factories.manifest(validation_split=at(split))
    outcome = judged(dataclasses.replace(submission(UNREAD, canonical=False), claims=claims))
    assert outcome.verdict is verdict
    assert "not understood" in outcome.message


@pytest.mark.parametrize(
    ("per_token", "verdict"), [(2.43593, Verdict.UNDECIDED), (2.78, Verdict.FAIL), (None, Verdict.FAIL)]
)
def test_without_a_log_the_claim_is_the_second_witness(per_token: float | None, verdict: Verdict) -> None:
    made = submission(at(TWICE), logs=False)
    bits = 1.203
    loss = UNSTATED if per_token is None else at(bits * per_token * math.log(2), pointer="/val_loss")
    claims = dataclasses.replace(made.claims, val_bpb=at(bits, pointer="/val_bpb"), val_loss=loss)
    outcome = judged(dataclasses.replace(made, claims=claims))
    assert outcome.verdict is verdict
    assert ("2.43593 bytes per token, which is sp1024" in outcome.message) is (verdict is Verdict.UNDECIDED)
