"""Family budget: untimed calibration, the wallclock setting and the machine."""

from __future__ import annotations

import pytest

from harness.checks import budget_runs as checks
from harness.facts.legality import LegalityFacts, Passage
from harness.facts.runs import Phase, Run
from harness.model import Location, Outcome, Verdict
from harness.sources.logevents import AnnouncedEvent, DeviceEvent, PhaseEvent
from harness.sources.trainlog import parse_lines
from tests import factories
from tests.factories import UNSTATED, AnyRule, at

LOG = "train_seed1.log"


def check(rule: AnyRule, run: Run, **changes: object) -> Outcome | None:
    return rule.check(factories.submission(runs=(run,), **changes))


def verdict(rule: AnyRule, run: Run) -> Verdict:
    outcome = check(rule, run)
    assert outcome is not None
    return outcome.verdict


@pytest.mark.parametrize(
    ("text", "line", "seconds", "timed", "ends"),
    [
        ("gptq:calibrating with training data...", 82, 600.1, 0, Verdict.WARN),
        ("gptq:calibrating with training data...", 82, 588.0, 0, Verdict.UNDECIDED),
        ("gptq:collecting hessians from autoregressive data...", 82, 600.1, 0, Verdict.UNDECIDED),
        ("gptq:calibrating with training data...", 82, 600.1, 1, Verdict.PASS),
        ("gptq:calibrating with training data...", 70, 600.1, 0, Verdict.PASS),  # inside the training time
        ("gptq:calibrating with training data...", 82, None, 0, Verdict.PASS),
    ],
)
def test_announced_and_untimed(text: str, line: int, seconds: float | None, timed: int, ends: Verdict) -> None:
    phases = (Phase("gptq:calibrated 3 layers", 4.0, Location(LOG, 84), counted=False, kind="calibration"),)
    run = factories.run(
        1,
        train_seconds=factories.fact(seconds, LOG, 80),
        announced=(at(text, LOG, line),),
        phases=phases[:timed],
    )
    assert verdict(checks.untimed_phase, run) is ends


@pytest.mark.parametrize(
    ("text", "seconds", "ends"),
    [
        ("gptq:calibrating with 9 batches...", 600.1, Verdict.WARN),
        ("gptq:calibrating with 9 batches...", 588.0, Verdict.UNDECIDED),
        # Another script's log.
        ("gptq:collecting hessians from autoregressive data...", 600.1, Verdict.UNDECIDED),
    ],
)
def test_the_code_tells_which_data_an_announced_calibration_reads(text: str, seconds: float, ends: Verdict) -> None:
    run = factories.run(1, train_seconds=at(seconds, LOG, 80), announced=(at(text, LOG, 82),))
    recall = Passage("collect_hessians", proved=True, steps=(at("call", "train_gpt.py", 50),), runs="live")
    legality = LegalityFacts(at("train_gpt.py", "train_gpt.py"), recalls=(recall,))
    outcome = check(checks.untimed_phase, run, legality=legality)
    assert outcome is not None
    assert outcome.verdict is ends
    assert ("`collect_hessians` reads training data" in outcome.message) == (ends is Verdict.WARN)
    assert verdict(checks.untimed_phase, run) is Verdict.UNDECIDED


def test_other_machines_have_no_comparable_phase() -> None:
    run = factories.run(1, world_size=at(1, LOG, 7), announced=(at("gptq:calibrating", LOG, 82),))
    assert check(checks.untimed_phase, run) is None


@pytest.mark.parametrize("rule", checks.RULES, ids=lambda rule: rule.code)
def test_nothing_is_said_of_a_folder_without_logs(rule: AnyRule) -> None:
    assert rule.check(factories.submission(runs=())) is None


@pytest.mark.parametrize(
    ("setting", "ends"),
    [("600.0", Verdict.PASS), ("600.5", Verdict.WARN), ("0", Verdict.PASS), ("nan", Verdict.PASS), ("x", Verdict.PASS)],
)
def test_wallclock_setting(setting: str, ends: Verdict) -> None:
    run = factories.run(1, config={"max_wallclock_seconds": at(setting, LOG, 4)})
    assert verdict(checks.wallclock_setting_over_cap, run) is ends


def test_neither_setting_nor_time_is_undecided() -> None:
    assert verdict(checks.wallclock_setting_over_cap, factories.run(1, train_seconds=UNSTATED)) is Verdict.UNDECIDED


def test_the_machine() -> None:
    rule = checks.other_hardware
    h100, h200 = at("NVIDIA H100 80GB HBM3", LOG, 20), at("NVIDIA H200", LOG, 20)
    assert verdict(rule, factories.run(1, devices=(h100,))) is Verdict.PASS
    assert verdict(rule, factories.run(1)) is Verdict.PASS
    assert verdict(rule, factories.run(1, devices=(h200,))) is Verdict.WARN
    assert verdict(rule, factories.run(1, world_size=at(1, LOG, 7))) is Verdict.WARN
    assert verdict(rule, factories.run(1, world_size=UNSTATED)) is Verdict.UNDECIDED
    assert verdict(rule, factories.run(1, world_size=UNSTATED, devices=(h100,))) is Verdict.PASS


@pytest.mark.parametrize("rule", checks.RULES, ids=lambda rule: rule.code)
def test_nothing_applies_off_the_record_track(rule: AnyRule) -> None:
    claims = factories.manifest(track=at("non-record-16mb", pointer="/track"))
    assert check(rule, factories.run(1), claims=claims) is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("GPTQ:collecting Hessians from calibration data...", AnnouncedEvent),
        ("gptq:calibrating with 64 batches (training data)...", AnnouncedEvent),
        ("gptq:calibrated 68 layers in 5.1s", PhaseEvent),
        ("gptq:calibration done in 5100ms, 68 layers", PhaseEvent),
        ("gptq:quantization done (12.1s)", PhaseEvent),
        ("codebook:collected 66 hessians in 5.4s", PhaseEvent),
        ("|   3  NVIDIA H100 80GB HBM3          On  |   00000000:5D:00.0 Off |             0 |", DeviceEvent),
        ("|   0  NVIDIA GeForce RTX 5090        Off |   00000000:0A:00.0 Off |           N/A |", DeviceEvent),
    ],
)
def test_lines(text: str, kind: type) -> None:
    assert [type(event) for event in parse_lines([text])] == [kind]


@pytest.mark.parametrize(
    "text", ["we were calibrating gptq: collecting", "NVIDIA H100 is fast", "| 3 NVIDIA-SMI 550 |"]
)
def test_prose_announces_nothing(text: str) -> None:
    assert not list(parse_lines([text]))
