"""What the logs of the claimed runs do not print, although the run is bound to print it where a piece of code ran."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

from harness.analysis.announced import Lines
from harness.analysis.answers import Reason
from harness.analysis.prints import spoken
from harness.analysis.program import Program
from harness.facts.build_stated import Claimed, prints
from harness.facts.runs import Run
from harness.model import HarnessError, Located, Location
from harness.sources.folder import LOG_LIMIT_BYTES, Folder, decode

# So many prints of the script make a text its log, in which the absence of another says something.
SPOKEN_LIMIT = 3
DEFAULT = "default"
_QUOTES = frozenset("\"'`")


class Logged:
    """The logs that print a claimed score, or a score where none is claimed; read when they are first asked for."""

    def __init__(self, folder: Folder, runs: Sequence[Run], claimed: Claimed, program: Program | None) -> None:
        scores = claimed.scores()
        told = [run for run in runs if any(prints(run, score) for score in scores)]
        if not scores:
            told = [run for run in runs if isinstance(run.headline, Located)]
        self._paths = sorted({run.location.path for run in told})
        self._folder = folder
        self._program = program
        self._known: dict[str, Location | None] = {}

    def lacks(self, groups: Sequence[Lines], reasons: Sequence[Reason]) -> Located[str] | None:
        """The first text of a group at the first log, where no log prints any line of that group.

        None where there is no such group; where a setting that somebody states makes the code run (a default alone may
        have been replaced by an environment that nobody tells of); and where nothing shows that the logs hold what the
        same function prints elsewhere in the script.
        """
        if any(reason.source != DEFAULT for reason in reasons):
            return None
        for lines in groups:
            expected = [line.text for line in lines if line.by in self._speakers]
            if expected and not any(self.shown(line.text) for line in lines):
                return Located(expected[0], Location(self._paths[0]))
        return None

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
    def _texts(self) -> tuple[tuple[str, str], ...]:
        return tuple(self._read())

    def _read(self) -> Iterator[tuple[str, str]]:
        for path in self._paths:
            try:
                yield path, decode(self._folder.read(path, LOG_LIMIT_BYTES))
            except HarnessError:  # the package family names what cannot be read
                continue

    def shown(self, piece: str) -> Location | None:
        """The first line that prints a text; a line of source that is embedded in a log has a quote before it."""
        if piece not in self._known:
            self._known[piece] = self._find(piece)
        return self._known[piece]

    def _find(self, piece: str) -> Location | None:
        for path, text in self._texts:
            place = text.find(piece)
            while place >= 0:
                before = text[text.rfind("\n", 0, place) + 1 : place]
                if _QUOTES.isdisjoint(before):
                    return Location(path, text.count("\n", 0, place) + 1)
                place = text.find(piece, place + 1)
        return None
