"""Training logs, line by line: usable on a finished file and on the live output of a run.

A `LineParser` knows what a single line cannot tell: whether it stands in the script's embedded source, in a block
of hyperparameters, or in a table of nvidia-smi. Embedded source is never matched, only hashed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence

from harness.sources.logevents import ConfigEvent, CountEvent, Event, SeedEvent, SourceEvent, StepEvent
from harness.sources.loggrammar import device_row, is_statement, parse_line

# Epoch seconds, ISO times, clock times, ranks and pids that launchers put before a line. At most one blank goes
# with each, because indentation tells a hyperparameter block.
_PREFIX = re.compile(
    r"(?:\d{10}(?:\.\d{1,9})? "
    r"|\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?\]?(?: [-|] | |: ?)"
    r"|\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d (?:[A-Z]{2,5} )?\d{4}\] "
    r"|\[\d\d:\d\d:\d\d(?:\.\d{1,9})?\] |\[(?:rank|default)\d{1,4}\]:? ?|\[(?:rank|RANK|Rank) ?\d{1,4}\] )"
)
_SEPARATOR = re.compile(r"\s*={20,}\s*")
_SOURCE_START = re.compile(r'"""|\'\'\'|"\w.*\w|from __future__ import |import \w|from \w+ import |#!/|# -\*- |exec\(')
_SOURCE_ANNOUNCED = re.compile(r"\s*Source code:?\s*", re.IGNORECASE)
# What follows the separator that ends the source, where counting quotes does not tell whether a string is open.
_AFTER_SOURCE = re.compile(
    r"(?:Running )?(?:Python|PyTorch) \d|-+ ?Hyperparameters|Hyperparameters:|\|? ?NVIDIA-SMI|Running on "
)
_CONFIG_TITLE = re.compile(r"(?:-{2,} ?)?Hyperparameters\b.{0,4}(?:-{2,})?\s*", re.IGNORECASE)
_CONFIG_ENTRY = re.compile(r"\s+([A-Za-z_]\w*)\s*[:=]\s?(.*)")
_CONFIG_KEY = re.compile(r"([A-Za-z_]\w*)=(.*)")
# Line beginnings that end a source, and progress that was written over: see `_is_doubtful`.
_STATING = re.compile(r"\n(?:[0-9\[]|step:|stopping_early:|model_params:|world_size:|seed:|final_)")
_OVERWRITTEN = re.compile(r"\r(?!\n|\Z)")
_COLOUR = re.compile(r"\x1b\[[0-9;?]{0,20}[A-Za-z]")

# A line of hyperparameters is long; nothing longer is one, and no line of source is.
LINE_LIMIT_CHARACTERS = 65_536
# So many different lines without a statement are remembered.
SILENT_LIMIT = 20_000
# Launchers nest two or three of them.
PREFIXES_LIMIT = 6
# First characters of lines that may be something else than an ordinary statement: cheaper than matching.
_PREFIX_BEGINS = frozenset("0123456789[")
_SOURCE_BEGINS = frozenset("\"'if#e")
_TITLE_BEGINS = frozenset("-hH")
_TABLE_BEGINS = frozenset("|+")


def strip_prefix(text: str) -> str:
    """A line without its end, without colours and overwritten progress, and without launcher prefixes."""
    text = text.rstrip("\r\n")
    if "\r" in text:
        text = text.rpartition("\r")[2]
    if "\x1b" in text:
        text = _COLOUR.sub("", text)
    for _ in range(PREFIXES_LIMIT if text[:1] in _PREFIX_BEGINS else 0):
        match = _PREFIX.match(text)
        if match is None:
            break
        text = text[match.end() :]
    return text


def normalized(text: str) -> bytes:
    r"""Source text without byte-order mark, with `\n` line ends and exactly one at its end."""
    return (text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") + "\n").encode(
        "utf-8", "surrogatepass"
    )


def source_sha256(text: str) -> str:
    """Hash of a normalized source: equal for a script and for its copy in a log."""
    return hashlib.sha256(normalized(text)).hexdigest()


class LineParser:
    """Reads one log, a line at a time.

    Example:
        >>> parser = LineParser()
        >>> parser.feed("step:10/200 train_loss:5.1 train_time:900ms", 1)[0].step
        10
    """

    def __init__(self, *, sources: bool = True) -> None:
        """Start at the top of a log.

        Args:
            sources: False where it is known that no source is embedded.
        """
        self._sources = sources
        self._source: list[str] | None = None
        # Parity of triple quotes so far, double and single: odd while such a string is open.
        self._open_quotes = [False, False]
        self._source_first = 0
        # Up to this line a source was already found to need the slow reading: it is not searched again.
        self._slow_until = 0
        self._pending_separator = 0
        self._announced = False
        self._in_config = False
        self._header = True
        # Lines that state nothing, with whether they stood before the first step.
        self._silent: set[tuple[str, bool]] = set()

    def feed(self, line: str, number: int) -> tuple[Event, ...]:
        """The events that one more line states; `number` is its 1-based number."""
        text = strip_prefix(line[:LINE_LIMIT_CHARACTERS] if self._source is None else line)
        if self._source is not None:
            return self._feed_source(text, number)
        if self._announced and _SEPARATOR.fullmatch(text):
            return ()
        if self._starts_source(text):
            self._source, self._source_first, self._open_quotes = [], number, [False, False]
            self._add_source(text)
            self._announced = self._in_config = False
            return ()
        self._announced = "ource" in text and _SOURCE_ANNOUNCED.fullmatch(text) is not None
        return self._feed_log(text, number)

    def finish(self) -> tuple[Event, ...]:
        """The events that only the end of the log settles.

        A source that was never closed may have been the log itself, with a first line like Python's: it is read
        again as log lines.
        """
        if self._source is None:
            return ()
        lines, first, self._source = self._source, self._source_first, None
        again = LineParser(sources=False)
        events = [event for number, line in enumerate(lines, start=first) for event in again.feed(line, number)]
        return (SourceEvent(first + len(lines) - 1, first, "", 0), *events)

    def _starts_source(self, text: str) -> bool:
        if not self._sources:
            return False
        return self._announced or (text[:1] in _SOURCE_BEGINS and _SOURCE_START.match(text) is not None)

    def _feed_log(self, text: str, number: int) -> tuple[Event, ...]:
        if self._in_config:
            entry = self._config_entry(text, number)
            if entry:
                return entry
            self._in_config = False
        if text[:1] in _TITLE_BEGINS and _CONFIG_TITLE.fullmatch(text):
            self._in_config = self._header = True
            return ()
        if text.lstrip()[:1] in _TABLE_BEGINS:
            return device_row(text, number)
        events = self._stated(text, number)
        if not events:
            return ()
        kinds = {event.__class__ for event in events}
        if StepEvent in kinds:
            self._header = False
        elif not self._header and kinds & {CountEvent, SeedEvent}:
            # Data and seed are announced again: another run follows in the same log.
            self._header = True
        return events

    def _stated(self, text: str, number: int) -> tuple[Event, ...]:
        """What a line states. Traces and warnings come once for each process: some logs hold ten thousands of them."""
        if (text, self._header) in self._silent:
            return ()
        events = parse_line(text, number, header=self._header)
        if not events and len(self._silent) < SILENT_LIMIT:
            self._silent.add((text, self._header))
        return events

    def _config_entry(self, text: str, number: int) -> tuple[Event, ...]:
        match = _CONFIG_ENTRY.fullmatch(text)
        if match:
            return _config_events(number, [(match[1], match[2])])
        if _CONFIG_KEY.match(text):
            return _config_events(number, _config_words(text))
        return ()

    def _feed_source(self, text: str, number: int) -> tuple[Event, ...]:
        if self._pending_separator:
            separator, self._pending_separator = self._pending_separator, 0
            if _AFTER_SOURCE.match(text):
                return self._close(separator, complete=True) + self._feed_log(text, number)
        if _SEPARATOR.fullmatch(text):
            if not any(self._open_quotes):
                return self._close(number, complete=True)
            self._pending_separator = number
        elif not any(self._open_quotes) and is_statement(text, number):
            return self._close(number, complete=False) + self._feed_log(text, number)
        self._add_source(text)
        return ()

    def _add_source(self, text: str) -> None:
        if self._source is not None:
            self._source.append(text)
        for index, quote in enumerate(('"""', "'''")):
            self._open_quotes[index] ^= text.count(quote) % 2 == 1

    def _close(self, number: int, *, complete: bool) -> tuple[Event, ...]:
        lines, self._source, self._header = self._source or [], None, True
        if not complete:
            return (SourceEvent(number, self._source_first, "", 0),)
        return (_source_event("\n".join(lines[: number - self._source_first]), number, self._source_first),)

    def skip_source(self, lines: Sequence[str], following: int) -> tuple[tuple[Event, ...], int]:
        """Take the rest of a source that has just begun in one piece, where nothing in it needs a closer look.

        Args:
            lines: all lines of the log.
            following: index of the line after the one that was fed last.

        Returns:
            The events, and the index of the line to feed next.
        """
        if self._source is None or self._source_first != following or following <= self._slow_until:
            return (), following
        end = next((index for index in range(following, len(lines)) if _is_separator(lines[index])), None)
        text = "\n".join(lines[following - 1 : end]) if end is not None else "\r"
        if end is None or _is_doubtful(text) or text.count('"""') % 2 or text.count("'''") % 2:
            self._slow_until = len(lines) if end is None else end
            return (), following
        self._source, self._header = None, True
        return (_source_event(text, end + 1, following),), end + 1


def _config_words(text: str) -> list[tuple[str, str]]:
    """`key=value` words of a line; words without a key belong to the value before them."""
    pairs: list[tuple[str, str]] = []
    for word in text[:LINE_LIMIT_CHARACTERS].split():
        match = _CONFIG_KEY.fullmatch(word)
        if match:
            pairs.append((match[1], match[2]))
        elif pairs:
            pairs[-1] = (pairs[-1][0], f"{pairs[-1][1]} {word}")
    return pairs


def _config_events(number: int, pairs: Iterable[tuple[str, str]]) -> tuple[Event, ...]:
    events: list[Event] = []
    for key, value in pairs:
        events.append(ConfigEvent(number, key.lower(), value.strip()))
        if key.lower() == "seed" and value.strip().isdecimal():
            events.append(SeedEvent(number, int(value.strip()[:19])))
    return tuple(events)


def _is_doubtful(text: str) -> bool:
    """Whether a source may hold a line that ends it, or that only the line-by-line reading understands."""
    # Patterns that begin with one fixed character are searched many times faster than those that begin with `^`.
    return "\x1b" in text or bool(_STATING.search("\n" + text)) or bool("\r" in text and _OVERWRITTEN.search(text))


def _is_separator(line: str) -> bool:
    return "====================" in line and _SEPARATOR.fullmatch(line) is not None


def _source_event(text: str, line: int, first_line: int) -> SourceEvent:
    data = normalized(text)
    return SourceEvent(line, first_line, hashlib.sha256(data).hexdigest(), len(data))


def parse_lines(lines: Sequence[str]) -> Iterator[Event]:
    """All events of a whole log, in order."""
    parser = LineParser()
    index = 0
    while index < len(lines):
        yield from parser.feed(lines[index], index + 1)
        events, index = parser.skip_source(lines, index + 1)
        yield from events
    yield from parser.finish()
