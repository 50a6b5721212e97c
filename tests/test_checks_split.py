"""Family metric: shards, coverage of the split, units, and the plausibility envelope."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from typing import Any

import pytest

from harness.challenge import ENVELOPE_BY_DATE, ENVELOPE_BY_SIZE, ENVELOPE_START
from harness.checks import fingerprint, plausible, split
from harness.facts.claims import DeclaredSplit
from harness.facts.runs import Coverage, Run
from harness.facts.submission import Submission
from harness.model import Location, Outcome, Verdict
from harness.sources.logevents import CoverageEvent, Event, VersionEvent
from harness.sources.loggrammar import parse_line
from tests import factories
from tests.factories import UNSTATED, at

OWN = at(DeclaredSplit("own", 1000, 2436), pointer="/validation_split")


def decided(rule: factories.AnyRule, submission: Submission) -> Outcome:
    outcome = rule.check(submission)
    assert outcome is not None
    return outcome


def single(**changes: Any) -> Submission:
    """One run, which the folder claims."""
    made = factories.submission(runs=(factories.run(1, **changes),))
    claims = factories.manifest(seeds=(1,), val_bpb=at(1.19500001, pointer="/val_bpb"))
    return dataclasses.replace(made, claims=claims, readme=dataclasses.replace(made.readme, seeds=()))


@pytest.mark.parametrize(
    ("count", "verdict"), [(0, "pass"), (80, "pass"), (195, "pass"), (204, "pass"), (230, "warn"), (1502, "warn")]
)
def test_more_shards_than_the_published_text_fills_warn(count: int, verdict: str) -> None:
    assert decided(split.shards_beyond_published, single(train_shards=at(count, "train.log", 9))).verdict == verdict


def test_shards_of_an_unknown_tokenizer_need_to_be_far_more() -> None:
    strange = factories.score(1.19500001, loss=3.5)
    for count, verdict in ((143, Verdict.PASS), (1502, Verdict.WARN)):
        changes = {"headline": at(strange, "train.log", 90), "train_shards": at(count, "train.log", 9)}
        assert decided(split.shards_beyond_published, single(**changes)).verdict is verdict


def test_shards_without_a_number_or_a_ratio() -> None:
    assert split.shards_beyond_published.check(single(train_shards=UNSTATED)) is None
    assert decided(split.shards_beyond_published, single(headline=UNSTATED)).verdict is Verdict.UNDECIDED


def windows(count: int, each: int = 64, unit: str = "windows") -> Coverage:
    return Coverage(unit, count, each, Location("train.log", 88))


@pytest.mark.parametrize(
    ("coverage", "verdict"),
    [
        ((windows(969_088),), Verdict.PASS),
        ((windows(121_136),), Verdict.PASS),  # one process's share of eight
        ((windows(1893, 32_768, "chunks"),), Verdict.PASS),
        ((windows(50_000, 0, "documents"),), Verdict.PASS),
        ((windows(100, 64), windows(969_088)), Verdict.PASS),
        ((windows(12_000),), Verdict.WARN),
        ((windows(2_500, 0, "documents"),), Verdict.WARN),
    ],
)
def test_an_evaluation_of_a_part_warns(coverage: tuple[Coverage, ...], verdict: Verdict) -> None:
    outcome = decided(split.split_partly_scored, single(coverage=coverage))
    assert outcome.verdict is verdict, outcome.message


def test_a_setting_that_cuts_the_split_warns() -> None:
    def run(key: str, value: str) -> Submission:
        return single(coverage=(), config={"vocab_size": at("1024", "train.log", 3), key: at(value, "train.log", 4)})

    assert decided(split.split_partly_scored, run("val_doc_fraction", "0.05")).verdict is Verdict.WARN
    assert decided(split.split_partly_scored, run("val_token_limit", "5000")).verdict is Verdict.WARN
    assert decided(split.split_partly_scored, run("val_doc_fraction", "1.0")).verdict is Verdict.PASS
    assert decided(split.split_partly_scored, run("val_token_limit", "0")).verdict is Verdict.PASS
    assert decided(split.split_partly_scored, run("val_doc_fraction", "all")).verdict is Verdict.PASS
    for key, small, large in (("eval_max_tokens", "524288", "62021846"), ("val_docs_limit", "1000", "50000")):
        assert decided(split.split_partly_scored, run(key, small)).verdict is Verdict.WARN
        assert decided(split.split_partly_scored, run(key, large)).verdict is Verdict.PASS
    for value, verdict in (("16777216", Verdict.WARN), ("151080891", Verdict.PASS), ("0", Verdict.PASS)):
        assert decided(split.split_partly_scored, run("val_max_bytes", value)).verdict is verdict
    assert split.split_partly_scored.check(single(coverage=())) is None


def test_what_cannot_be_compared_is_undecided() -> None:
    unknown = single(coverage=(windows(1),), headline=UNSTATED, val_tokens=UNSTATED)
    assert decided(split.split_partly_scored, unknown).verdict is Verdict.UNDECIDED
    own = dataclasses.replace(unknown, claims=dataclasses.replace(unknown.claims, validation_split=OWN))
    assert decided(split.split_partly_scored, own).verdict is Verdict.WARN


@pytest.mark.parametrize(
    ("loss", "bits", "vocabulary", "words"),
    [
        (2.0, 2.0, "1024", "val_loss itself"),
        (2.0, 2.0 / math.log(2), "1024", "bits per token"),
        (2.0, 2.0 / 2.43593, "1024", "nats per byte of sp1024"),
        (2.8, 2.8 / 3.72663, "8192", "nats per byte of sp8192"),
    ],
)
def test_a_logged_score_in_another_unit_warns(loss: float, bits: float, vocabulary: str, words: str) -> None:
    headline = at(factories.score(round(bits, 8), loss=loss), "train.log", 90)
    submission = single(headline=headline, config={"vocab_size": at(vocabulary, "train.log", 3)})
    claims = factories.manifest(seeds=(), val_bpb=at(round(bits, 8), pointer="/val_bpb"))
    outcome = decided(plausible.other_unit_than_bits_per_byte, dataclasses.replace(submission, claims=claims))
    assert outcome.verdict is Verdict.WARN
    assert words in outcome.message


def test_bytes_have_as_many_bits_per_token_as_per_byte() -> None:
    headline = at(factories.score(1.2, loss=round(1.2 * math.log(2), 8)), "train.log", 90)
    byte = single(headline=headline, config={"vocab_size": at("260", "train.log", 3)})
    assert decided(plausible.other_unit_than_bits_per_byte, byte).verdict is Verdict.PASS


def test_a_claim_in_another_unit_warns() -> None:
    run = factories.run(1, bits=1.2)
    loss = 1.2 * factories.BYTES_PER_NAT_TOKEN
    for claim, words in ((loss, "val_loss, nats"), (loss / math.log(2), "bits per token"), (1.2 * math.log(2), "byte")):
        claims = factories.manifest(seeds=(), val_bpb=at(round(claim, 8), pointer="/val_bpb"))
        submission = factories.submission(runs=(run,), claims=claims)
        outcome = decided(plausible.other_unit_than_bits_per_byte, submission)
        assert outcome.verdict is Verdict.WARN
        assert words in outcome.message
    assert decided(plausible.other_unit_than_bits_per_byte, factories.submission()).verdict is Verdict.PASS
    assert decided(plausible.other_unit_than_bits_per_byte, factories.blank()).verdict is Verdict.UNDECIDED


def scored(bits: float, day: dt.date, parameters: int | None) -> Submission:
    size = UNSTATED if parameters is None else at(parameters, "train.log", 6)
    run: Run = factories.run(1, bits=bits, parameters=size)
    claims = factories.manifest(seeds=(), val_bpb=at(bits, pointer="/val_bpb"), date=at(day, pointer="/date"))
    made = factories.submission(runs=(run,), claims=claims)
    return dataclasses.replace(made, readme=dataclasses.replace(made.readme, seeds=()))


def test_better_than_accepted_records_suggest_warns() -> None:
    rule = plausible.better_than_plausible
    day = dt.date(2026, 4, 17)
    for parameters, envelope in ((36_000_000, ENVELOPE_BY_SIZE), (None, ENVELOPE_BY_DATE)):
        expected = envelope.expected_bpb((day - ENVELOPE_START).days, parameters)
        assert decided(rule, scored(expected, day, parameters)).verdict is Verdict.PASS
        assert decided(rule, scored(expected * 0.97, day, parameters)).verdict is Verdict.PASS
        assert decided(rule, scored(expected * 0.95, day, parameters)).verdict is Verdict.WARN
    assert decided(rule, scored(1.2, dt.date(2020, 1, 1), None)).verdict is Verdict.PASS


def test_a_claim_below_the_log_is_the_one_that_is_judged() -> None:
    rule = plausible.better_than_plausible
    logged = scored(1.3, dt.date(2026, 4, 17), 36_000_000)
    assert decided(rule, logged).verdict is Verdict.PASS
    for claim, verdict in ((0.35, Verdict.WARN), (1.4, Verdict.PASS)):
        claims = dataclasses.replace(logged.claims, val_bpb=at(claim, pointer="/val_bpb"))
        assert decided(rule, dataclasses.replace(logged, claims=claims)).verdict is verdict


def test_the_envelope_needs_a_score_and_a_date_and_the_challenge_s_split() -> None:
    rule = plausible.better_than_plausible
    assert decided(rule, factories.blank()).verdict is Verdict.UNDECIDED
    undated = dataclasses.replace(factories.submission(), name="x", claims=factories.manifest(date=UNSTATED))
    assert decided(rule, undated).verdict is Verdict.UNDECIDED
    own = factories.submission(claims=factories.manifest(validation_split=OWN))
    assert rule.check(own) is None
    placeholder = factories.submission(runs=(), claims=factories.manifest(seeds=(), val_bpb=at(0.0)))
    placeholder = dataclasses.replace(placeholder, readme=dataclasses.replace(placeholder.readme, seeds=()))
    assert decided(rule, placeholder).verdict is Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (
            "ttt_sliding:start chunks=1893 chunk_tokens=32768 total_windows=969088 stride=64",
            CoverageEvent(1, "windows", 969_088, 64),
        ),
        ("stride=64 batch_seqs=64 total_windows=969088", CoverageEvent(1, "windows", 969_088, 64)),
        ("ttt:start chunks:1389 ttt_lr:0.005 chunk_tokens:32768", CoverageEvent(1, "chunks", 1389, 32_768)),
        ("ttt_phased: total_docs:50000 prefix_docs:2000", CoverageEvent(1, "documents", 50_000, 0)),
        ("adapt: starting eval on 1000 docs, chunk_size=48", CoverageEvent(1, "documents", 1_000, 0)),
        ("val_part:subset fraction=0.05 tokens=31072 (full=62021632)", CoverageEvent(1, "tokens", 31_072, 1)),
        ("Val tokens: 45,121,536 (eval on 999,424)", CoverageEvent(1, "tokens", 999_424, 1)),
        ("ttt_lora:docs:50000 rank:96 lr:0.0001 chunk:64", CoverageEvent(1, "documents", 50_000, 0)),
        ("Running PyTorch 2.9.1+cu128", VersionEvent(1, "pytorch", "2.9.1+cu128")),
    ],
)
def test_announcements_are_read(line: str, event: Event) -> None:
    assert event in parse_line(line, 1, header=False)


@pytest.mark.parametrize(
    "line", ["ngram_eval:progress windows=64032/121136 (53%) stride=64", "phased_ttt_prefix_docs: 2000", "n docs=5410"]
)
def test_progress_and_settings_announce_nothing(line: str) -> None:
    assert not any(isinstance(event, CoverageEvent) for event in parse_line(line, 1, header=False))


@pytest.mark.parametrize(("processes", "verdict"), [(8, Verdict.UNDECIDED), (4, Verdict.FAIL), (1, Verdict.FAIL)])
def test_a_count_may_be_one_process_s_share(processes: int, verdict: Verdict) -> None:
    run = factories.run(1, val_tokens=factories.fact(7_752_704, "a.log", 8), world_size=at(processes, "a.log", 2))
    outcome = fingerprint.validation_tokens_differ.check(factories.submission(runs=(run,)))
    assert outcome is not None
    assert outcome.verdict is verdict
