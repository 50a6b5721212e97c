"""What the logs of the claimed runs do not print, although the run is bound to print it where a piece of code ran."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

from harness.analysis.announced import Lines
from harness.analysis.answers import Reason
from harness.analysis.prints import spoken
from harness.analysis.program import Program
from harness.facts.build_stated import Claimed, prints
from harness.facts.logfile import LogFile
from harness.facts.runs import Run
from harness.model import HarnessError, Located, Location
from harness.sources.folder import LOG_LIMIT_BYTES, Folder, decode
from harness.sources.logevents import SourceEvent

# So many prints of the script make a text its log, in which the absence of another says something.
SPOKEN_LIMIT = 3
SEVERAL = 2
# Time stamps, ranks and quotes stand right before what is printed.
BEFORE_CHARACTERS = 200
LOG = "log"
# Of all logs together.
TEXT_LIMIT_CHARACTERS = 64_000_000
# What stands before a text in source that a log embeds: a string begins, or a comment.
_QUOTES = frozenset("\"'`#")


class Logged:
    """The logs that print a claimed score, or a score where none is claimed; read when they are first asked for."""

    def __init__(
        self, folder: Folder, logs: Sequence[LogFile], runs: Sequence[Run], claimed: Claimed, program: Program | None
    ) -> None:
        scores = claimed.scores()
        told = [run for run in runs if any(prints(run, score) for score in scores)]
        if not scores:
            told = [run for run in runs if isinstance(run.headline, Located)]
        self._parts = {run.location: _lines(run, logs) for run in told}
        self._folder = folder
        self._program = program
        self._known: dict[str, Location | None] = {}
        # The script's source: there a text stands for another reason.
        self._echoes = {log.path: [(event.first_line, event.line) for event in log.of(SourceEvent)] for log in logs}

    def lacks(self, groups: Sequence[Lines], reasons: Sequence[Reason]) -> Located[str] | None:
        """The first text of a group at the first log, where no log prints any line of that group nor of one before it.

        None where there is no such group; where the logs state every setting that makes the code run (a default, or a
        command, may be another than the run had); and where nothing shows that the logs hold what the same function
        prints elsewhere in the script.
        """
        if reasons and all(reason.source == LOG for reason in reasons):
            return None
        for group in groups:
            lines = [line for line in group if self._own(line.text)]
            if any(self.shown(line.text) for line in lines):
                return None
            expected = [line.text for line in lines if line.by in self._speakers]
            if expected:
                return Located(expected[0], next(iter(self._parts)))
        return None

    def _own(self, piece: str) -> bool:
        """Whether one print alone holds a text: another may have made the line that a log shows."""
        return sum(piece in text for text in self._spoken) < SEVERAL

    @functools.cached_property
    def _spoken(self) -> tuple[str, ...]:
        return () if self._program is None else tuple(line.text for line in spoken(self._program))

    @functools.cached_property
    def _speakers(self) -> frozenset[str]:
        """The printing functions of which the logs show some lines."""
        if self._program is None or not self._texts:
            return frozenset()
        found: dict[str, set[str]] = {}
        for line in set(spoken(self._program)):
            if len(found.setdefault(line.by, set())) < SPOKEN_LIMIT and self.shown(line.text):
                found[line.by].add(line.text)
        return frozenset(name for name, texts in found.items() if len(texts) >= SPOKEN_LIMIT)

    @functools.cached_property
    def _texts(self) -> tuple[tuple[Location, str], ...]:
        return tuple(self._read())

    def _read(self) -> Iterator[tuple[Location, str]]:
        """The text of each run, with the place where it begins."""
        left = TEXT_LIMIT_CHARACTERS
        for place, (first, last) in self._parts.items():
            try:
                text = decode(self._folder.read(place.path, LOG_LIMIT_BYTES))
            except HarnessError:  # the package family names what cannot be read
                continue
            left -= len(text)
            if left < 0:
                return
            if last is not None:
                text = "\n".join(text.split("\n")[first - 1 : last])
            yield Location(place.path, first), text

    def shown(self, piece: str) -> Location | None:
        """The first line that prints a text, from the beginning of a word on.

        A line of source that is embedded in a log has a quote before it.
        """
        if piece not in self._known:
            self._known[piece] = self._find(piece)
        return self._known[piece]

    def _find(self, piece: str) -> Location | None:
        for start, text in self._texts:
            place = text.find(piece)
            while place >= 0:
                before = text[max(text.rfind("\n", 0, place) + 1, place - BEFORE_CHARACTERS) : place]
                if _QUOTES.isdisjoint(before):
                    line = text.count("\n", 0, place) + (start.line or 1)
                    whole = not before or not (before[-1].isalnum() or before[-1] == "_")
                    if whole and not any(first <= line <= last for first, last in self._echoes[start.path]):
                        return Location(start.path, line)
                    place = text.find(piece, place + 1)
                else:
                    end = text.find("\n", place)
                    place = text.find(piece, end) if end >= 0 else -1
        return None


def _lines(run: Run, logs: Sequence[LogFile]) -> tuple[int, int | None]:
    """The first and last line of a run in its log; no last one where the log holds no other run."""
    log = next((log for log in logs if log.at(None) == run.location), None)
    if run.concatenated <= 1 or log is None or not log.events:
        return 1, None
    lines = [event.line for event in log.events]
    return min(lines), max(lines)
