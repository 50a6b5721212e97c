"""Training logs -> runs: which numbers of a log are the run's, each at its line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from harness.facts.build_curves import curve, finite, losses, validation
from harness.facts.logfile import LogFile, named_seed
from harness.facts.phasekinds import ADAPTATION, CALIBRATION, DIAGNOSTIC, EVALUATION, SUM, phase_kind
from harness.facts.runs import Coverage, Phase, Run, Score
from harness.model import Fact, Located, Missing
from harness.sources.folder import shown
from harness.sources.logevents import (
    SUMMARY,
    AnnouncedEvent,
    ConfigEvent,
    CountEvent,
    CoverageEvent,
    CrashEvent,
    DeviceEvent,
    PhaseEvent,
    ProgressEvent,
    ScoreEvent,
    SeedEvent,
    SeedMention,
    SizeEvent,
    SourceEvent,
    StepEvent,
    StopEvent,
    VersionEvent,
)
from harness.sources.scorelabels import Kind, choose, kind_of, same_value, uncommon_kinds

CONFIG_VALUE_CHARACTERS = 300
# Compilation falls into the first steps.
WARM_STEPS = 20
# Phases that belong to scoring although they stand outside the printed evaluation time.
_SCORING_PHASES = frozenset({"ttt:completed"})


def build_runs(logs: Sequence[LogFile]) -> tuple[Run, ...]:
    """The runs of a folder; headlines are chosen with an eye on what the other logs report."""
    uncommon = uncommon_kinds(
        [{kind_of(score.label) for score in log.of(ScoreEvent)} - {Kind.DIAGNOSTIC} for log in logs]
    )
    return tuple(_run(log, uncommon) for log in logs)


def _run(log: LogFile, uncommon: frozenset[Kind]) -> Run:
    headline = choose(log.of(ScoreEvent), uncommon)
    phases = _phases(log)
    return Run(
        location=log.at(None),
        family=_family(log),
        seed=_seed(log),
        headline=Located(_score(headline, log), log.at(headline.line)) if headline else _no_headline(log),
        scores=tuple(_score(score, log) for score in log.of(ScoreEvent)),
        steps=_steps(log),
        iterations=_iterations(log),
        train_seconds=_train_seconds(log),
        summed_up=_trained_by_summary(log),
        step_overshoot_seconds=_step_seconds(log),
        slowest_step_seconds=_slowest_step_seconds(log),
        eval_seconds=_eval_seconds(phases, log),
        model_bytes=_model_bytes(log),
        code_bytes=_size(log, "code", "the log prints no code size"),
        total_bytes=_total_bytes(log),
        parameters=_count(log, "parameters"),
        world_size=_count(log, "world_size"),
        val_tokens=_count(log, "val_tokens"),
        train_shards=_count(log, "train_shards"),
        config=_config(log),
        source=_source(log),
        source_bytes=_source_bytes(log),
        complete=_complete(log, headline),
        curve=curve(log),
        validation=validation(log),
        compressed_code_bytes=_compressed_code(log),
        named_seed=_named_seed(log),
        evaluation_only=not log.of(StepEvent),
        concatenated=log.concatenated,
        resumed=log.resumed(),
        sha256=log.sha256,
        phases=phases,
        losses=losses(log),
        coverage=tuple(Coverage(e.unit, e.count, e.tokens_each, log.at(e.line)) for e in log.of(CoverageEvent)),
        announced=tuple(Located(shown(e.text), log.at(e.line)) for e in log.of(AnnouncedEvent)),
        devices=tuple(Located(shown(e.name), log.at(e.line)) for e in log.of(DeviceEvent)),
        named_bpb=tuple(Located(value, log.at(line)) for value, line in log.named),
        versions={e.name: Located(shown(e.version), log.at(e.line)) for e in log.of(VersionEvent)},
    )


def _family(log: LogFile) -> str:
    """The published grammar that the log follows most closely."""
    steps = log.of(StepEvent)
    if any(event.label == "budget" for event in log.of(SizeEvent)):
        return "budget"
    if any(event.phase in {"ttp", "tttg"} for event in log.of(ProgressEvent)):
        return "phased"
    if any(step.train_loss is not None and step.train_milliseconds is None for step in steps):
        return "minutes"
    return "step" if steps else "evaluation"


def _score(event: ScoreEvent, log: LogFile) -> Score:
    place = log.at(event.line)
    twins = [e for e in log.of(ScoreEvent) if e.label.replace("_exact", "") == event.label.replace("_exact", "")]
    timed = [twin for twin in (event, *twins) if twin.eval_milliseconds is not None and same_value(twin, event)]
    time: Fact[float] = Missing("the log does not time this evaluation", place)
    if timed:
        time = Located((timed[0].eval_milliseconds or 0.0) / 1_000, log.at(timed[0].line))
    return Score(
        label=shown(event.label),
        val_bpb=finite(event.val_bpb, place),
        val_loss=finite(event.val_loss, place),
        digits=event.digits,
        loss_digits=event.loss_digits,
        eval_seconds=time,
        diagnostic=kind_of(event.label) == Kind.DIAGNOSTIC,
    )


def _no_headline(log: LogFile) -> Missing:
    last = next((step for step in reversed(log.of(StepEvent)) if step.val_bpb is not None), None)
    if last is None:
        return Missing("the log prints no evaluation", log.at(None))
    return Missing(
        f"the log prints no final evaluation, only validations during training (the last at step {last.step})",
        log.at(last.line),
    )


def _seed(log: LogFile) -> Fact[int]:
    events = log.of(SeedEvent)
    seeds = {event.seed for event in events}
    if len(seeds) > 1:
        listed = ", ".join(str(seed) for seed in sorted(seeds)[:5])
        return Missing(f"the log names several seeds ({listed})", log.at(events[0].line))
    if events:
        return Located(events[0].seed, log.at(events[0].line))
    named, mentions = _named_seed(log), log.of(SeedMention)
    if isinstance(named, Missing) and len({mention.seed for mention in mentions}) == 1:
        return Located(mentions[0].seed, log.at(mentions[0].line))
    return named


def _named_seed(log: LogFile) -> Fact[int]:
    seed = named_seed(log.path)
    if seed is None:
        return Missing("neither the log nor its name holds a seed", log.at(None))
    return Located(seed, log.at(None))


def _steps(log: LogFile) -> Fact[int]:
    stops = [stop for stop in log.of(StopEvent) if stop.step is not None]
    steps = log.of(StepEvent)
    if stops and stops[-1].step is not None:
        return Located(stops[-1].step, log.at(stops[-1].line))
    if steps:
        last = max(steps, key=lambda event: (event.step, -event.line))
        return Located(last.step, log.at(last.line))
    return Missing("the log holds no training step", log.at(None))


def _iterations(log: LogFile) -> Fact[int]:
    for event in log.of(StepEvent):
        if event.iterations is not None:
            return Located(event.iterations, log.at(event.line))
    return Missing("the log does not print the planned steps", log.at(None))


def _train_seconds(log: LogFile) -> Fact[float]:
    events: list[StepEvent | StopEvent] = [*log.of(StepEvent), *log.of(StopEvent)]
    timed = [event for event in events if event.train_milliseconds is not None]
    if timed:
        last = max(timed, key=lambda event: (not _sums_up(event), event.line))
        return Located((last.train_milliseconds or 0.0) / 1_000, log.at(last.line))
    if log.of(StepEvent):
        return Missing("no line states the training time in seconds", log.at(None))
    return Missing("the log holds no training step", log.at(None))


def _sums_up(event: StepEvent | StopEvent) -> bool:
    """Whether a line sums training up, where what its time covers is not known."""
    return isinstance(event, StopEvent) and event.reason == SUMMARY


def _trained_by_summary(log: LogFile) -> bool:
    """Whether the training time is known from such a line alone."""
    events: list[StepEvent | StopEvent] = [*log.of(StepEvent), *log.of(StopEvent)]
    return bool(log.of(StopEvent)) and all(_sums_up(e) for e in events if e.train_milliseconds is not None)


def _step_seconds(log: LogFile) -> Fact[float]:
    for event in reversed(log.of(StepEvent)):
        if event.step_milliseconds is not None and event.step > 0:
            return Located(event.step_milliseconds / 1_000, log.at(event.line))
    seconds, steps = _train_seconds(log), _steps(log)
    if isinstance(seconds, Located) and isinstance(steps, Located) and steps.value > 0:
        return Located(seconds.value / steps.value, seconds.location)
    return Missing("the log does not tell how long a step takes", log.at(None))


def _slowest_step_seconds(log: LogFile) -> Fact[float]:
    """The mean step of the slowest stretch between two training lines, warm-up left aside."""
    steps = [event for event in log.of(StepEvent) if event.train_milliseconds is not None and event.step > WARM_STEPS]
    stretches = [
        (((later.train_milliseconds or 0.0) - (earlier.train_milliseconds or 0.0)) / (later.step - earlier.step), later)
        for earlier, later in pairwise(steps)
        if later.step > earlier.step
    ]
    if not stretches:
        return Missing("the log does not tell how long its slowest steps take", log.at(None))
    milliseconds, event = max(stretches, key=lambda stretch: stretch[0])
    return Located(milliseconds / 1_000, log.at(event.line))


def _phases(log: LogFile) -> tuple[Phase, ...]:
    """Timed phases in order; a total that repeats the evaluations is kept, but not counted twice."""
    found = [
        Phase(
            shown(event.label),
            event.eval_milliseconds / 1_000,
            log.at(event.line),
            counted=kind_of(event.label) != Kind.DIAGNOSTIC,
            kind=DIAGNOSTIC if kind_of(event.label) == Kind.DIAGNOSTIC else EVALUATION,
        )
        for event in log.of(ScoreEvent)
        if event.eval_milliseconds is not None and not _repeats(event, log)
    ]
    found += [
        Phase(
            event.name,
            event.milliseconds / 1_000,
            log.at(event.line),
            counted=event.name in _SCORING_PHASES,
            kind=_phase_kind(event, log),
        )
        for event in log.of(PhaseEvent)
    ]
    return _apart(sorted(found, key=lambda phase: phase.location.line or 0))


def _phase_kind(event: PhaseEvent, log: LogFile) -> str:
    """The kind of a timed phase; adaptation that a later adapted score's time may hold is evaluation, counted there."""
    kind = phase_kind(event.name)
    held = any(
        score.line > event.line
        and (score.eval_milliseconds or 0.0) >= event.milliseconds
        and kind_of(score.label) == Kind.ADAPTED
        for score in log.of(ScoreEvent)
    )
    return EVALUATION if kind == ADAPTATION and held else kind


def _apart(phases: Sequence[Phase]) -> tuple[Phase, ...]:
    """The phases, those of a calibration taken apart where the log prints one running clock and then its total.

    `generated in 199.1s`, `collected in 199.6s`, `complete in 223.4s total`: one clock, as the parts' sum shows.
    """
    parts = [index for index, phase in enumerate(phases) if phase.kind == CALIBRATION]
    total = next((p for p in phases if p.kind == SUM and "gptq" in p.name.lower() and parts), None)
    clock = [phases[index].seconds for index in parts]
    if total is None or clock != sorted(clock) or not max(clock) <= total.seconds < sum(clock):
        return tuple(phases)
    since = dict(zip(parts, (0.0, *clock), strict=False))
    return tuple(
        replace(phase, seconds=round(phase.seconds - since.get(index, 0.0), 6)) for index, phase in enumerate(phases)
    )


def _repeats(event: ScoreEvent, log: LogFile) -> bool:
    """Whether a score repeats the time of another: of the line after it (`ttt_sliding:done`), its own in a summary."""
    if any(other.line < event.line and _printed_alike(other, event) for other in log.of(ScoreEvent)):
        return True
    return event.label.endswith(":done") and any(
        other.line > event.line and other.eval_milliseconds is not None and same_value(other, event)
        for other in log.of(ScoreEvent)
    )


def _printed_alike(first: ScoreEvent, second: ScoreEvent) -> bool:
    """Whether two lines print one measurement: seconds of two never agree to the millisecond with all else."""
    return (first.label, first.val_loss, first.val_bpb, first.eval_milliseconds) == (
        second.label,
        second.val_loss,
        second.val_bpb,
        second.eval_milliseconds,
    )


def _eval_seconds(phases: Sequence[Phase], log: LogFile) -> Fact[float]:
    counted = [phase for phase in phases if phase.counted]
    total = sum(phase.seconds for phase in counted)
    for phase in phases:
        if phase.name == "total_eval_time" and phase.seconds >= total:
            return Located(phase.seconds, phase.location)
    if counted:
        return Located(total, counted[-1].location)
    return Missing("the log times no scored evaluation", log.at(None))


def _last_size(log: LogFile, kind: str) -> SizeEvent | None:
    return next((event for event in reversed(log.of(SizeEvent)) if event.kind == kind), None)


def _size(log: LogFile, kind: str, reason: str) -> Fact[int]:
    event = _last_size(log, kind)
    return Located(event.size_bytes, log.at(event.line)) if event else Missing(reason, log.at(None))


def _compressed_code(log: LogFile) -> Fact[int]:
    found = _size(log, "compressed_code", "the log prints no compressed code size")
    if isinstance(found, Located) and found.value == 0:
        return Missing("the log prints 0 bytes of compressed code", found.location)
    return found


def _model_bytes(log: LogFile) -> Fact[int]:
    total, code = _last_size(log, "total"), _last_size(log, "code")
    if _last_size(log, "model") is None and total is not None and total.label == "budget" and code is not None:
        # This family prints the total and the code; the model is what remains.
        return Located(total.size_bytes - code.size_bytes, log.at(total.line))
    return _size(log, "model", "the log prints no size of the compressed model")


def _total_bytes(log: LogFile) -> Fact[int]:
    if _last_size(log, "total") is not None:
        return _size(log, "total", "")
    model = {event.size_bytes for event in log.of(SizeEvent) if event.kind == "model"}
    code = {event.size_bytes for event in log.of(SizeEvent) if event.kind in {"code", "compressed_code"}}
    for event in reversed(log.of(SizeEvent)):
        if event.kind == "unlabelled_total" and event.size_bytes in {m + c for m in model for c in code}:
            return Located(event.size_bytes, log.at(event.line))
    return Missing("the log prints no total of the compressed artifact", log.at(None))


def _count(log: LogFile, name: str) -> Fact[int]:
    for event in reversed(log.of(CountEvent)):
        if event.name == name:
            return Located(event.count, log.at(event.line))
    for setting in log.of(ConfigEvent):
        if setting.key == name and setting.value.isdecimal():
            return Located(int(setting.value[:18]), log.at(setting.line))
    return Missing(f"the log does not print {name}", log.at(None))


def _config(log: LogFile) -> dict[str, Located[str]]:
    return {
        event.key: Located(event.value[:CONFIG_VALUE_CHARACTERS], log.at(event.line)) for event in log.of(ConfigEvent)
    }


def _source(log: LogFile) -> Fact[str]:
    for event in log.of(SourceEvent):
        if event.sha256:
            return Located(event.sha256, log.at(event.first_line))
        return Missing("the embedded source is interrupted", log.at(event.line))
    return Missing("the log does not embed its source", log.at(None))


def _source_bytes(log: LogFile) -> Fact[int]:
    source = _source(log)
    if isinstance(source, Missing):
        return source
    return Located(log.of(SourceEvent)[0].size_bytes, source.location)


def _complete(log: LogFile, headline: ScoreEvent | None) -> Fact[bool]:
    if headline is not None:
        return Located(math.isfinite(headline.val_bpb), log.at(headline.line))
    crashes = log.of(CrashEvent)
    if crashes:
        return Located(value=False, location=log.at(crashes[-1].line))
    return Missing("the log ends before a final evaluation", log.at(None))
