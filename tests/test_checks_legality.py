"""The legality rules on facts made by hand: what proves, what leaves open, what is only noted."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from harness.checks.legality import RULES as TRAINING_RULES
from harness.checks.legality_data import RULES as DATA_RULES
from harness.facts.legality import ONLY_EVALUATES, LegalityFacts, Passage, Training
from harness.facts.pipeline import PipelineFacts
from harness.model import Located, Location, Missing, Outcome, Verdict
from tests import factories
from tests.factories import AnyRule, at

RULES = {rule.code: rule for rule in (*TRAINING_RULES, *DATA_RULES)}
STEPS = (
    at("validation files", "train_gpt.py", 10),
    at("call of adapt", "train_gpt.py", 90),
    at("gradient of a loss on them", "train_gpt.py", 50),
    at("score with the trained weights", "train_gpt.py", 95),
)


def training(order: str = "trained first", **changes: Any) -> Training:
    made = Training(order, "a score is reported after it", "adapt", STEPS, "live")
    return dataclasses.replace(made, **changes)


def decide(code: str, *trainings: Training, **facts: Any) -> Outcome:
    rule: AnyRule = RULES[code]
    script = at("train_gpt.py", "train_gpt.py")
    outcome = rule.check(factories.submission(legality=LegalityFacts(script, trainings, **facts)))
    assert outcome is not None
    return outcome


def test_training_before_the_score_fails_at_the_gradient_and_the_score() -> None:
    outcome = decide("PG601", training(settings=(at("ADAPT is 1 (default at train_gpt.py:5)", "train_gpt.py", 5),)))
    assert outcome.verdict is Verdict.FAIL
    assert outcome.locations[:2] == (Location("train_gpt.py", 50), Location("train_gpt.py", 95))
    assert "It runs because ADAPT is 1 (default at train_gpt.py:5)." in outcome.message


@pytest.mark.parametrize(
    ("change", "clause"),
    [
        ({"runs": "unknown", "unclear": ("ADAPT",)}, "it depends on ADAPT"),
        ({"doubt": at("ADAPT=0", "README.md", 7)}, "the text at README.md:7 says ADAPT=0"),
        ({"label": "post_adapt_exact val_bpb:"}, "another score may be the claimed one"),
        ({"order": "unclear", "why": "no score was found after it"}, "no score was found after it"),
    ],
)
def test_what_is_not_certain_is_undecided_with_the_place(change: dict[str, Any], clause: str) -> None:
    outcome = decide("PG601", training(**change))
    assert outcome.verdict is Verdict.UNDECIDED
    assert clause in outcome.message
    assert "harness probe" in outcome.message
    assert outcome.locations == (Location("train_gpt.py", 50),)


def test_without_logs_a_final_score_before_the_training_may_be_the_claimed_one() -> None:
    legality = LegalityFacts(at("train_gpt.py", "train_gpt.py"), (training(rival="final_exact val_bpb:"),))
    outcome = RULES["PG601"].check(factories.submission(legality=legality, runs=()))
    assert outcome is not None
    assert outcome.verdict is Verdict.UNDECIDED


def test_the_label_of_the_claimed_score_counts() -> None:
    assert decide("PG601", training(label="final_exact val_loss: val_bpb:")).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("final_{}_roundtrip_exact val_loss:{} val_bpb:{}", Verdict.FAIL),
        ("final_{}_sliding_exact val_loss:{} val_bpb:{}", Verdict.UNDECIDED),
        ("final_int6_roundtrip|final_int8_roundtrip val_loss:{}", Verdict.FAIL),
        # Too little of it is written out.
        ("{}_trip_exact val_loss:{} val_bpb:{}", Verdict.UNDECIDED),
        ("{} val_loss:{} val_bpb:{}", Verdict.UNDECIDED),
    ],
)
def test_a_label_may_be_put_together(text: str, verdict: Verdict) -> None:
    score = factories.score(1.2, label="final_int6_roundtrip_exact")
    run = factories.run(1, headline=at(score, "a.log", 90), scores=(score,))
    legality = LegalityFacts(at("train_gpt.py", "train_gpt.py"), (training(label=text),))
    outcome = RULES["PG601"].check(factories.submission(legality=legality, runs=(run,)))
    assert outcome is not None
    assert outcome.verdict is verdict


@pytest.mark.parametrize("order", ["scored first", "weights discarded"])
def test_what_is_allowed_passes_with_its_reason(order: str) -> None:
    outcome = decide("PG601", training(order, why="each chunk is scored before it is trained on"))
    assert outcome.verdict is Verdict.PASS
    assert "each chunk is scored" in outcome.message


def test_dead_code_is_noted_once() -> None:
    dead = training(
        "never runs", runs="dead", settings=(at("ADAPT is 0 (default at train_gpt.py:5)", "train_gpt.py", 5),)
    )
    outcome = decide("PG601", dead)
    assert outcome.verdict is Verdict.PASS
    assert outcome.notes == ("`adapt` at train_gpt.py:50 never runs: ADAPT is 0 (default at train_gpt.py:5).",)
    assert decide("PG606", dead).notes == ()


def test_a_fresh_tensor_is_slot_and_not_training() -> None:
    slot = training(fresh=True)
    assert decide("PG601", slot).verdict is Verdict.PASS
    assert decide("PG603", slot).verdict is Verdict.FAIL
    partial = decide("PG603", training("trained on a part", fresh=True))
    assert partial.verdict is Verdict.WARN
    assert "#1336" in partial.notes[0]


def test_a_later_epoch_fails_in_its_own_rule() -> None:
    later = training("a later epoch is scored")
    assert decide("PG606", later).verdict is Verdict.FAIL
    assert decide("PG601", later).verdict is Verdict.PASS


def passage(**changes: Any) -> Passage:
    made = Passage("cache", proved=True, steps=(at("fill", "a.py", 1), at("score", "a.py", 2)), runs="live")
    return dataclasses.replace(made, **changes)


def test_a_second_pass_fails_unless_another_score_is_claimed() -> None:
    assert decide("PG602", rescorings=(passage(),)).verdict is Verdict.FAIL
    assert decide("PG602", rescorings=(passage(runs="unknown", unclear=("X",)),)).verdict is Verdict.UNDECIDED
    aside = decide("PG602", rescorings=(passage(label="two_pass_exact val_bpb:"),))
    assert aside.verdict is Verdict.PASS
    assert "another name" in aside.notes[0]


def test_calibration_fails_only_where_the_model_gets_the_tokens() -> None:
    assert decide("PG605", calibrations=(passage(),)).verdict is Verdict.FAIL
    assert decide("PG605", calibrations=(passage(proved=False),)).verdict is Verdict.UNDECIDED


def test_the_split_of_the_training_loss() -> None:
    assert decide("PG604", training_split=at("validation", "train_gpt.py", 10)).verdict is Verdict.FAIL
    assert decide("PG604", training_split=at("training", "train_gpt.py", 10)).verdict is Verdict.PASS
    assert decide("PG604").verdict is Verdict.PASS
    only = factories.submission(
        legality=LegalityFacts(at("train_gpt.py", "train_gpt.py"), training_split=ONLY_EVALUATES),
        pipeline=PipelineFacts(trains=True),
    )
    outcome = RULES["PG604"].check(only)
    assert outcome is not None
    assert outcome.verdict is Verdict.UNDECIDED


def test_contacts_are_listed_and_never_fail() -> None:
    outcome = decide("PG610", contacts=(at("network: requests.get", "train_gpt.py", 4),))
    assert outcome.verdict is Verdict.WARN
    assert "requests.get at train_gpt.py:4" in outcome.message


def test_a_compiler_is_named_and_passes() -> None:
    compiler = at("compiler: g++", "ngrams.py", 7)
    alone = decide("PG610", contacts=(compiler,))
    assert alone.verdict is Verdict.PASS
    assert alone.notes == ("It compiles code of its own: g++ at ngrams.py:7.",)
    beside = decide("PG610", contacts=(compiler, at("network: requests.get", "train_gpt.py", 4)))
    assert beside.verdict is Verdict.WARN
    assert "in 1 place" in beside.message
    assert "g++" not in beside.message


@pytest.mark.parametrize("code", sorted(RULES))
def test_without_a_script_nothing_is_decided(code: str) -> None:
    outcome = RULES[code].check(factories.submission(legality=LegalityFacts(Missing("it does not parse"))))
    assert outcome is not None
    assert outcome.verdict is Verdict.UNDECIDED


SWITCH = "TTT_ENABLED is 0 (default at train_gpt.py:5)"


@pytest.mark.parametrize(
    ("setting", "label", "verdict"),
    [
        (SWITCH, "legal_ttt", Verdict.UNDECIDED),
        (SWITCH, "final_roundtrip", Verdict.PASS),
        (SWITCH.replace("default", "log"), "legal_ttt", Verdict.PASS),
        ("EVAL_MODE is 0 (default at train_gpt.py:5)", "final_eval", Verdict.PASS),
    ],
)
def test_a_default_does_not_switch_off_what_the_log_reports(setting: str, label: str, verdict: Verdict) -> None:
    off = training("never runs", runs="dead", settings=(at(setting, "train_gpt.py", 5),))
    legality = LegalityFacts(at("train_gpt.py", "train_gpt.py"), (off,))
    run = factories.run(1, scores=(factories.score(1.2, label=label),))
    outcome = RULES["PG601"].check(factories.submission(legality=legality, runs=(run,)))
    assert outcome is not None
    assert outcome.verdict is verdict
    assert ("harness probe" in outcome.message) is (verdict is Verdict.UNDECIDED)


@pytest.mark.parametrize("code", ["PG601", "PG602", "PG603", "PG604", "PG605", "PG606"])
def test_code_made_at_run_time_leaves_a_pass_open(code: str) -> None:
    assert decide(code).verdict is Verdict.PASS
    outcome = decide(code, contacts=(at("dynamic code: exec", "train_gpt.py", 2),))
    assert outcome.verdict is Verdict.UNDECIDED
    assert outcome.locations == (Location("train_gpt.py", 2),)


@pytest.mark.parametrize("code", ["PG601", "PG602", "PG605"])
def test_code_that_the_folder_lacks_or_that_scores_nothing_leaves_a_pass_open(code: str) -> None:
    ordinary = factories.submission(legality=LegalityFacts(at("train_gpt.py", "train_gpt.py")))
    entry = ordinary.package.entry
    assert isinstance(entry, Located)
    script = dataclasses.replace(entry.value, missing_modules=(at("helper", "train_gpt.py", 3),))
    package = dataclasses.replace(ordinary.package, entry=Located(script, entry.location))
    silent = dataclasses.replace(ordinary.pipeline, missing=("an evaluation on validation data", "a printed metric"))
    half = dataclasses.replace(ordinary.pipeline, missing=("an evaluation on validation data",))
    changes = ({"package": package}, {"pipeline": silent}, {"pipeline": half})
    outcomes = [RULES[code].check(dataclasses.replace(ordinary, **change)) for change in changes]
    verdicts = [outcome.verdict for outcome in outcomes if outcome is not None]
    assert verdicts == [Verdict.UNDECIDED, Verdict.UNDECIDED, Verdict.PASS]


@pytest.mark.parametrize(("shards", "verdict"), [(1, Verdict.FAIL), (80, Verdict.WARN)])
def test_a_validation_shard_renamed_to_a_training_shard(shards: int, verdict: Verdict) -> None:
    link = at("ln -s d/fineweb_val_000000.bin e/fineweb_train_000000.bin", "README.md", 13)
    legality = LegalityFacts(at("train_gpt.py", "train_gpt.py"), renamed=(link,))
    run = factories.run(1, train_shards=at(shards, "train.log", 9))
    outcome = RULES["PG604"].check(factories.submission(legality=legality, runs=(run,)))
    assert outcome is not None
    assert outcome.verdict is verdict
    assert outcome.locations[0] == Location("README.md", 13)


@pytest.mark.parametrize("code", ["PG601", "PG602", "PG605"])
def test_what_the_logs_lack_leaves_an_accusation_open(code: str) -> None:
    lacking = at("ttt:start epochs:", "train.log")
    found: dict[str, dict[str, Any]] = {
        "PG601": {"trainings": (dataclasses.replace(training("trained first"), silent=lacking),)},
        "PG602": {"rescorings": (passage(silent=lacking),)},
        "PG605": {"calibrations": (passage(silent=lacking),)},
    }
    legality = LegalityFacts(at("train_gpt.py", "train_gpt.py"), **found[code])
    outcome = RULES[code].check(factories.submission(legality=legality))
    assert outcome is not None
    assert outcome.verdict is Verdict.UNDECIDED
    assert "the log at train.log lacks `ttt:start epochs:`, which it prints" in outcome.message


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, Verdict.FAIL),
        ({"runs": "unknown"}, Verdict.WARN),
        ({"silent": at("fetching", "a.log", 3)}, Verdict.WARN),
    ],
)
def test_the_network_in_the_evaluation_fails_where_it_is_known_to_run(
    changes: dict[str, Any], verdict: Verdict
) -> None:
    steps = (at("the network is reached", "train_gpt.py", 5), at("the score that is printed", "train_gpt.py", 9))
    fetch = dataclasses.replace(Passage("requests.get", proved=True, steps=steps, runs="live"), **changes)
    contact = at("network: requests.get", "train_gpt.py", 5)
    assert decide("PG610", contacts=(contact,), fetches=(fetch,)).verdict is verdict
