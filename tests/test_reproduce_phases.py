"""Phases by the arrival of lines, and when a run is overdue."""

from __future__ import annotations

import pytest

from harness.reproduce.phases import Limits, PhaseWatch, TrainingWatch
from harness.reproduce.progress import Snapshot

LIMITS = Limits(startup_seconds=100, train_seconds=60, eval_seconds=30, grace_seconds=5)
RUN = (
    (8.0, "train_batch_tokens:2000 train_seq_len:256"),
    (10.0, "warmup_step:1/1"),
    (11.0, "step:1/100 train_loss:6.0 train_time:900ms"),
    (20.0, "step:10/100 train_loss:5.0 train_time:9000ms"),
    (21.0, "stopping_early: wallclock_cap train_time:9100ms step:10/100"),
    (22.0, "DIAGNOSTIC float val_loss:2.0 val_bpb:1.5"),
    (24.0, "Serialized model int6+zstd: 100 bytes"),
    (24.5, "Total submission size int6+zstd: 200 bytes"),
    (25.0, "  ttt_chunk [1/2] bpb=1.4"),
    (30.0, "legal_ttt_exact val_loss:1.9 val_bpb:1.4"),
)


def watched(*lines: tuple[float, str]) -> TrainingWatch:
    watch = TrainingWatch(7, LIMITS, lambda _: None)
    for seconds, text in lines:
        watch.line(seconds, text)
    return watch


def test_phases_of_a_whole_run() -> None:
    phases = watched(*RUN).phases()
    assert phases.train_start == 10.0
    assert phases.train_seconds == 10.0
    assert phases.step_milliseconds == 1000.0
    assert phases.pack_seconds == 4.0
    assert phases.eval_seconds == 6.0
    assert phases.last_step == 10


def test_sizes_printed_last_do_not_hide_the_evaluation() -> None:
    lines = [line for line in RUN if "bytes" not in line[1]]
    phases = watched(*lines, (31.0, "Serialized model int6+zstd: 100 bytes")).phases()
    assert phases.eval_seconds == 10.0


@pytest.mark.parametrize(("step", "train_seconds"), [(12, 12.0), (14, 14.0), (30, 20.0)])
def test_unprinted_steps_count_at_the_mean_pace(step: int, train_seconds: float) -> None:
    # Ten steps took ten seconds; the validation line at 30 s cannot stand before the last step.
    phases = watched(*RUN[:4], (30.0, f"step:{step}/100 val_loss:5.0 val_bpb:3.0")).phases()
    assert phases.train_seconds == train_seconds


def test_step_zero_starts_training_itself() -> None:
    phases = watched(
        (5.0, "hello"), (9.0, "step:0/4 val_loss:6.9 val_bpb:4.1"), (13.0, "step:4/4 train_loss:5")
    ).phases()
    assert phases.train_seconds == 4.0


def test_a_log_without_steps_tells_nothing() -> None:
    phases = watched((5.0, "final_exact val_loss:2 val_bpb:1.5")).phases()
    assert (phases.train_seconds, phases.eval_seconds, phases.step_milliseconds) == (None, None, None)


@pytest.mark.parametrize(
    ("count", "seconds", "told"),
    [
        (0, 199.0, ""),  # startup, training, evaluation and two graces: 200 s
        (0, 201.0, "no training step in 201 s"),
        (4, 109.0, ""),  # may be a silent evaluation: 10 + 60 + 5 + 30 + 5
        (4, 111.0, "no end of training in 111 s"),
        (5, 55.0, ""),
        (5, 57.0, "evaluation went on beyond its 30 s"),
    ],
)
def test_overdue(count: int, seconds: float, told: str) -> None:
    assert watched(*RUN[:count]).overdue(seconds) == told


def test_training_beyond_its_limit_is_proved_by_a_step() -> None:
    watch = watched(*RUN[:4], (76.0, "step:50/100 train_loss:4.0"))
    assert watch.overdue(76.1) == "training went on beyond its 60 s"


def test_the_last_planned_step_ends_training() -> None:
    watch = watched((1.0, "x"), (2.0, "step:4/4 train_loss:5"))
    assert watch.overdue(38.0) == "evaluation went on beyond its 30 s"


def test_a_score_in_the_middle_does_not_end_training() -> None:
    watch = watched(*RUN[:4], (30.0, "probe val_loss:2.0 val_bpb:1.5"), (40.0, "step:20/100 train_loss:4"))
    assert watch.overdue(71.0) == ""
    assert watch.phases().eval_seconds is None


def test_snapshots() -> None:
    watch = watched(*RUN[:4])
    # Ten steps of 2,000 tokens in ten seconds; ninety more would need 90 s, but the limit leaves 50 s less 5.
    assert watch.snapshot(25.0) == Snapshot(7, "training", 15.0, 10, 100, 2000.0, 5.0, 45.0)
    assert watched().snapshot(3.0) == Snapshot(7, "starting", 3.0)
    assert watched(*RUN[:5]).snapshot(22.0).phase == "packing"
    assert watched(*RUN[:7]).snapshot(25.0) == Snapshot(7, "evaluating", 1.0, 10, 100)


def test_phase_watch() -> None:
    shown: list[Snapshot] = []
    watch = PhaseWatch(7, "repacking", 10.0, shown.append)
    watch.line(1.0, "anything")
    assert watch.overdue(9.0) == ""
    assert watch.overdue(11.0) == "repacking took more than 10 s"
    assert [snapshot.phase for snapshot in shown] == ["repacking", "repacking"]


def test_the_line_that_ends_training_knows_the_last_step() -> None:
    ended = (23.5, "stopping_early: wallclock_cap train_time:12000ms step:12/100")
    phases = watched(*RUN[:4], ended).phases()
    assert phases.last_step == 12
    assert phases.train_seconds == 12.0
