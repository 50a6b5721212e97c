"""One training log, cut down to the events of its last finished run, or of one run for each seed.

Logs are joined: a run that was repeated, the console and the log file of the same run, an evaluation after a run, the
runs of several seeds, the parts of a run that was killed and resumed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from harness.model import HarnessError, Located, Location
from harness.sources.folder import decode
from harness.sources.logevents import (
    RESULT_LABEL,
    AnnouncedEvent,
    ConfigEvent,
    CountEvent,
    CoverageEvent,
    CrashEvent,
    DeviceEvent,
    Event,
    PhaseEvent,
    ProgressEvent,
    ResumeEvent,
    ScoreEvent,
    SeedEvent,
    SourceEvent,
    StepEvent,
)
from harness.sources.scorelabels import Kind, kind_of
from harness.sources.trainlog import parse_lines

EventT = TypeVar("EventT")

# A seed in the name of a file; `s1` may be a stage or a sweep.
NAMED_SEED = re.compile(r"(?:seed[-_=]?(?=\d)|(?<![a-z0-9])s[-_=]?(?=\d\d))(\d{1,10})(?!\d)", re.IGNORECASE)
_CALLED_BPB = re.compile(r"[bB][pP][bB]\w{0,40}[\"']?\s{0,2}[:=]\s{0,2}(\d\.\d{2,12})(?![\d.])")
# More seeds than a claim rests on: a search, of which the last run is kept.
SEEDS_LIMIT = 12
NAMED_LIMIT = 60
SCORES_LIMIT = 400
CONFIG_LIMIT = 2_000
# Real logs have a few thousand lines; every line is an object in memory.
LINES_LIMIT = 400_000


@dataclass(frozen=True, slots=True)
class LogFile:
    """One log that holds a run, reduced to the events of one run.

    Attributes:
        path: relative path.
        events: the events of that run, in order.
        concatenated: runs in the log.
        sha256: hash of the file.
        first_line: where the run begins, when others of the same log are kept too.
        named: numbers of the whole log that are called bits per byte, with their lines: see `named_bits`.
    """

    path: str
    events: tuple[Event, ...]
    concatenated: int
    sha256: str
    first_line: int | None = None
    named: tuple[tuple[float, int], ...] = ()
    _by_type: dict[type, list[Event]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for event in self.events:
            self._by_type.setdefault(type(event), []).append(event)

    def of(self, kind: type[EventT]) -> list[EventT]:
        """The events of one type, in order."""
        return [event for event in self._by_type.get(kind, []) if isinstance(event, kind)]

    def at(self, line: int | None) -> Location:
        """A line of the log; the run as a whole when there is none."""
        return Location(self.path, self.first_line if line is None else line)

    def resumed(self) -> tuple[Located[int], ...]:
        """The steps after which the run went on from a checkpoint, in order."""
        return tuple(Located(event.step, self.at(event.line)) for event in self.of(ResumeEvent))


def read_log(data: bytes, path: str) -> tuple[LogFile, ...]:
    """Parse a log; empty when it holds no run (no training step and no final score).

    Raises:
        HarnessError: it has more lines than are read.
    """
    text = decode(data)
    if text.count("\n") > LINES_LIMIT:
        raise HarnessError(f"{path}: more than {LINES_LIMIT:,} lines, which are not read")
    segments = _segments(list(_without_repeats(parse_lines(text.split("\n")))))
    named = named_bits(text)
    digest, count = hashlib.sha256(data).hexdigest(), len(segments)
    own = named_seed(path)
    by_seed = _by_seed(segments) if own is None else {}
    if 1 < len(by_seed) <= SEEDS_LIMIT:
        chosen = [_chosen(each) for each in by_seed.values()]
        return tuple(LogFile(path, _bounded(each), count, digest, each[0].line, named) for each in chosen)
    if not segments:
        return ()
    # A log that is named after a seed and holds runs of others is read for its own.
    named_runs = [segment for segment in segments if own is not None and _seeds(segment) == {own}]
    return (LogFile(path, _bounded(_chosen(named_runs or segments)), count, digest, named=named),)


def _without_repeats(events: Iterable[Event]) -> Iterator[Event]:
    """The events without progress that goes on: most lines of some logs, which say no more than the first of them."""
    phase = ""
    for event in events:
        going_on = event.phase if isinstance(event, ProgressEvent) else ""
        if not going_on or going_on != phase:
            yield event
        phase = going_on


def named_seed(path: str) -> int | None:
    """The seed in a log's name: then it is read as one run, whatever seeds it prints."""
    match = NAMED_SEED.search(path.rpartition("/")[2])
    return int(match[1]) if match else None


def named_bits(text: str) -> tuple[tuple[float, int], ...]:
    """Numbers that are called bits per byte, whatever their line: the last ones and the lowest, each once.

    Scores of unknown shape are among them: what no grammar reads may still be what the claim repeats.
    """
    found: dict[str, int] = {}
    line, place = 1, 0
    for match in _CALLED_BPB.finditer(text):
        line, place = line + text.count("\n", place, match.start()), match.start()
        found[match[1]] = line
    if not found:
        return ()
    kept = dict(list(found.items())[-NAMED_LIMIT:])
    lowest = min(found, key=float)
    kept[lowest] = found[lowest]
    return tuple((float(digits), line) for digits, line in kept.items())


def _chosen(segments: Sequence[list[Event]]) -> list[Event]:
    """The last finished run; the last one when none is."""
    return next((segment for segment in reversed(segments) if _finished(segment)), segments[-1])


def _by_seed(segments: Sequence[list[Event]]) -> dict[int, list[list[Event]]]:
    """The runs of each seed; empty when one of them prints none, or several."""
    found: dict[int, list[list[Event]]] = {}
    for segment in segments:
        seeds = _seeds(segment)
        if len(seeds) != 1:
            return {}
        found.setdefault(seeds.pop(), []).append(segment)
    return found


def _seeds(segment: Sequence[Event]) -> set[int]:
    return {event.seed for event in segment if isinstance(event, SeedEvent)}


def _segments(events: Sequence[Event]) -> list[list[Event]]:
    """The distinct runs of a log, in order; a new one starts where the seed, source or data come again after work."""
    segments: list[list[Event]] = [[]]
    worked = False
    for event in events:
        if worked and _starts_run(event):
            segments.append(_settings_before(segments[-1]))
            worked = False
        segments[-1].append(event)
        worked = worked or isinstance(event, StepEvent) or _is_final(event)
    return _distinct(_continued(segments))


def _settings_before(segment: list[Event]) -> list[Event]:
    """Take the settings off the end of a run: those of the next, printed before its seed."""
    own = len(segment)
    while own and isinstance(segment[own - 1], ConfigEvent):
        own -= 1
    settings = segment[own:]
    del segment[own:]
    return settings


def _continued(segments: Sequence[list[Event]]) -> list[list[Event]]:
    """With what a run did after it was resumed joined to what it did before, without the steps that were lost."""
    kept: list[list[Event]] = []
    for segment in segments:
        resumed = next((event for event in segment if isinstance(event, ResumeEvent)), None)
        if resumed is not None and kept and _setup(kept[-1]) == _setup(segment):
            kept[-1] = [*(event for event in kept[-1] if not _is_lost(event, resumed.step)), *segment]
        elif kept and _goes_on(kept[-1], segment):
            kept[-1].extend(segment)
        else:
            kept.append(segment)
    return kept


def _goes_on(before: Sequence[Event], segment: Sequence[Event]) -> bool:
    """Whether data are named again in the middle of a run (`starting epoch:2 train_shards:1`): its steps go on."""
    last = next((event.step for event in reversed(before) if isinstance(event, StepEvent)), None)
    following = next((event.step for event in segment if isinstance(event, StepEvent)), None)
    counted = isinstance(segment[0], CountEvent) and not any(isinstance(event, SeedEvent) for event in segment)
    return counted and last is not None and following is not None and following > last and not _finished(before)


def _setup(segment: Sequence[Event]) -> tuple[set[int], set[str]]:
    """Seeds and sources of a run."""
    return _seeds(segment), {event.sha256 for event in segment if isinstance(event, SourceEvent)}


def _is_lost(event: Event, step: int) -> bool:
    """Whether a run that goes on after a step leaves behind what an event tells."""
    return isinstance(event, CrashEvent) or (isinstance(event, StepEvent) and event.step > step)


def _starts_run(event: Event) -> bool:
    return isinstance(event, (SourceEvent, SeedEvent)) or (
        isinstance(event, CountEvent) and event.name in {"val_tokens", "train_shards"}
    )


def _distinct(segments: Sequence[list[Event]]) -> list[list[Event]]:
    """Without a run that is printed twice (console and log file joined), and with what follows a run joined to it."""
    kept: list[list[Event]] = []
    seen: dict[tuple[tuple[int, float | None], ...], int] = {}
    for segment in segments:
        key = _identity(segment)
        if not any(isinstance(event, StepEvent) for event in segment):
            if kept and not (_has_result(segment) and _seeds(segment) != _seeds(kept[-1])):
                kept[-1].extend(segment)
            elif _finished(segment):
                kept.append(segment)
        elif key not in seen:
            seen[key] = len(kept)
            kept.append(segment)
        elif _finished(segment):
            kept[seen[key]] = segment
    return kept


def _identity(segment: Sequence[Event]) -> tuple[tuple[int, float | None], ...]:
    """What no two runs share: seed, steps and their times."""
    return tuple(
        (event.seed, None) if isinstance(event, SeedEvent) else (event.step, event.train_milliseconds)
        for event in segment
        if isinstance(event, (SeedEvent, StepEvent))
    )


def _bounded(events: Sequence[Event]) -> tuple[Event, ...]:
    """The events without all but the last of a kind that no real log repeats that often."""
    limits = {
        ScoreEvent: SCORES_LIMIT,
        PhaseEvent: SCORES_LIMIT,
        CoverageEvent: SCORES_LIMIT,
        ConfigEvent: CONFIG_LIMIT,
        AnnouncedEvent: SCORES_LIMIT,
        DeviceEvent: SCORES_LIMIT,
    }
    room: dict[type, int] = dict(limits)
    kept: list[Event] = []
    for event in reversed(events):
        if type(event) in room:
            room[type(event)] -= 1
            if room[type(event)] < 0:
                continue
        kept.append(event)
    return tuple(reversed(kept))


def _is_final(event: Event) -> bool:
    """A score with its loss or its seconds, or a wrapper's result: prose that mentions a value is neither."""
    if not isinstance(event, ScoreEvent):
        return False
    measured = event.val_loss is not None or event.eval_milliseconds is not None
    return event.label == RESULT_LABEL or (measured and kind_of(event.label) != Kind.DIAGNOSTIC)


def _has_result(events: Sequence[Event]) -> bool:
    return any(isinstance(event, ScoreEvent) and event.label == RESULT_LABEL for event in events)


def _finished(events: Sequence[Event]) -> bool:
    return any(_is_final(event) for event in events)
