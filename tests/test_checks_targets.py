"""Family legality: uses of the scored token, by whether they run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.checks import targets as checks
from harness.facts.targets import Life, TargetFacts, TargetUse, UseKind
from harness.model import Location, Missing, Outcome, Verdict
from tests import factories
from tests.factories import AnyRule, at


def use(kind: UseKind, life: Life) -> TargetUse:
    steps = (at("the target enters the key", "train_gpt.py", 10), at("it enters the score", "helper.py", 20))
    return TargetUse(kind, steps, life, "CACHE is 0 (default at train_gpt.py:3)")


def judged(rule: AnyRule, *uses: TargetUse) -> Outcome:
    facts = TargetFacts(at(value=True, path="train_gpt.py"), uses)
    outcome = rule.check(factories.submission(targets=facts))
    assert outcome is not None
    return outcome


@pytest.mark.parametrize(
    ("rule", "kind"),
    [
        (checks.target_in_lookup_key, UseKind.HASHED_LOOKUP),
        (checks.share_not_normalized, UseKind.FOREIGN_SHARE),
        (checks.share_not_normalized, UseKind.SPREAD),
        (checks.share_not_normalized, UseKind.ENTROPY),
        (checks.share_not_normalized, UseKind.WEIGHT),
        (checks.share_not_normalized, UseKind.ON_HITS),
        (checks.loss_chosen_by_outcome, UseKind.CHOSEN_LOSS),
        (checks.loss_chosen_by_outcome, UseKind.FREE_HIT),
        (checks.hint_gated_by_target, UseKind.GATE),
        (checks.logits_changed_at_target, UseKind.SHAPED),
    ],
)
def test_what_runs_fails_what_may_is_left_open_and_dead_code_is_a_note(rule: AnyRule, kind: UseKind) -> None:
    live = judged(rule, use(kind, Life.DEAD), use(kind, Life.LIVE))
    assert live.verdict is Verdict.FAIL
    assert [str(place) for place in live.locations] == ["train_gpt.py:10", "helper.py:20"]
    assert "helper.py:20" in live.message
    unknown = judged(rule, use(kind, Life.UNKNOWN))
    assert unknown.verdict is Verdict.UNDECIDED
    assert "harness probe" in unknown.message
    dead = judged(rule, use(kind, Life.DEAD))
    assert dead.verdict is Verdict.PASS
    assert "CACHE is 0" in dead.notes[0]
    assert judged(rule).verdict is Verdict.PASS


def test_a_prior_that_was_never_ruled_warns_with_both_readings() -> None:
    outcome = judged(checks.target_in_lookup_key, use(UseKind.SMOOTHED_LOOKUP, Life.LIVE))
    assert outcome.verdict is Verdict.WARN
    assert "One reading" in outcome.message
    both = [use(UseKind.SMOOTHED_LOOKUP, Life.LIVE), use(UseKind.HASHED_LOOKUP, Life.LIVE)]
    assert judged(checks.target_in_lookup_key, *both).verdict is Verdict.FAIL
    unknown = judged(checks.target_in_lookup_key, use(UseKind.SMOOTHED_LOOKUP, Life.UNKNOWN))
    assert unknown.verdict is Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("life", "verdict"),
    [(Life.LIVE, Verdict.WARN), (Life.UNKNOWN, Verdict.UNDECIDED), (Life.DEAD, Verdict.PASS)],
)
def test_the_best_of_whole_evaluations_warns_with_both_readings(life: Life, verdict: Verdict) -> None:
    outcome = judged(checks.loss_chosen_by_outcome, use(UseKind.CHOSEN_SCORE, life))
    assert outcome.verdict is verdict
    assert ("One reading" in outcome.message) is (verdict is Verdict.WARN)
    worse = judged(checks.loss_chosen_by_outcome, use(UseKind.CHOSEN_SCORE, life), use(UseKind.CHOSEN_LOSS, Life.LIVE))
    assert worse.verdict is Verdict.FAIL


def test_a_model_without_its_mask_warns_with_both_readings() -> None:
    outcome = judged(checks.scored_without_causal_mask, use(UseKind.BOTH_WAYS, Life.LIVE))
    assert outcome.verdict is Verdict.WARN
    assert "One reading" in outcome.message
    assert judged(checks.scored_without_causal_mask, use(UseKind.BOTH_WAYS, Life.UNKNOWN)).verdict is Verdict.UNDECIDED
    assert judged(checks.scored_without_causal_mask, use(UseKind.BOTH_WAYS, Life.DEAD)).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("life", "verdict"),
    [(Life.LIVE, Verdict.UNDECIDED), (Life.UNKNOWN, Verdict.UNDECIDED), (Life.DEAD, Verdict.PASS)],
)
def test_the_sum_of_exact_pairs_is_left_to_the_probe(life: Life, verdict: Verdict) -> None:
    assert judged(checks.share_not_normalized, use(UseKind.PAIR_LOOKUP, life)).verdict is verdict


@pytest.mark.parametrize("rule", checks.RULES, ids=lambda rule: rule.code)
def test_code_that_cannot_be_followed_is_undecided(rule: AnyRule) -> None:
    unread = TargetFacts(Missing("the training script cannot be parsed"), ())
    outcome = rule.check(factories.submission(targets=unread))
    assert outcome is not None
    assert outcome.verdict is Verdict.UNDECIDED


def test_keys_of_unknown_content_leave_the_lookup_open() -> None:
    facts = TargetFacts(at(value=True, path="train_gpt.py"), (), (Location("train_gpt.py", 7),))
    outcome = checks.target_in_lookup_key.check(factories.submission(targets=facts))
    assert outcome is not None
    assert outcome.verdict is Verdict.UNDECIDED
    assert outcome.locations == (Location("train_gpt.py", 7),)


def test_a_default_does_not_switch_off_what_the_log_reports() -> None:
    facts = TargetFacts(at(value=True, path="train_gpt.py"), (use(UseKind.HASHED_LOOKUP, Life.DEAD),))
    run = factories.run(1, scores=(factories.score(1.2, label="cache_eval_exact"),))
    outcome = checks.target_in_lookup_key.check(factories.submission(targets=facts, runs=(run,)))
    assert outcome is not None
    assert outcome.verdict is Verdict.UNDECIDED
    assert "the log speaks of `cache_eval_exact`" in outcome.message


def test_what_the_logs_lack_leaves_a_use_open() -> None:
    lacking = at("cache:built from", "train.log")
    outcome = judged(checks.target_in_lookup_key, replace(use(UseKind.HASHED_LOOKUP, Life.LIVE), silent=lacking))
    assert outcome.verdict is Verdict.UNDECIDED
    assert "the log at train.log lacks `cache:built from`, which it prints" in outcome.message
