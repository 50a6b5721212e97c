"""What tells against a PASS of the legality family: code that a log shows running, and code that cannot be read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from harness.checks.common import listed, undecided
from harness.facts.pipeline import METRIC, SCORING
from harness.facts.runs import Run
from harness.facts.submission import Submission
from harness.model import Located, Outcome, Verdict

PROBE = "run `harness probe`"
_DEFAULT = re.compile(r"(\w+) is [^;()]* \(default at ")
# Words of settings that name no technique.
_PLAIN = frozenset(
    {"enabled", "enable", "use", "eval", "run", "mode", "steps", "epochs", "only", "val", "final", "lr", "test", "num"}
)
_SHORTEST_WORD = 3


def shown_running(settings: Iterable[str], submission: Submission) -> Located[str] | None:
    """The label of a score or a phase that speaks of what a default is said to switch off.

    A default is the value of the run only as long as no environment sets another, and a log that prints the score of
    a technique shows that one did.

    Args:
        settings: what decides, `TTT_ENABLED is 0 (default at train_gpt.py:88)`; other sources than defaults stand.
        submission: whose logs to look at.
    """
    names = [name for text in settings for name in _DEFAULT.findall(text)]
    words = {word for name in names for word in name.lower().split("_") if len(word) >= _SHORTEST_WORD} - _PLAIN
    for run in submission.runs:
        for label in _labels(run):
            if words & set(re.split(r"[^a-z]+", label.value.lower())):
                return label
    return None


def silence(lacking: Located[str]) -> str:
    """The clause for what the logs of the claimed runs do not show, although code that ran would have printed it."""
    return f"the log at {lacking.location} lacks `{lacking.value}`, which it prints: it may not have run there"


def _labels(run: Run) -> Iterator[Located[str]]:
    for score in run.scores:
        yield Located(score.label, score.val_bpb.location or run.location)
    for phase in run.phases:
        yield Located(phase.name, phase.location)


def unread_code(outcome: Outcome, submission: Submission) -> Outcome:
    """The outcome; undecided instead of a pass where code that may run was not read, or nothing in it scores.

    Not read is what the program makes itself, and what it imports and the folder lacks.
    """
    if outcome.verdict is not Verdict.PASS:
        return outcome
    entry = submission.package.entry
    absent = entry.value.missing_modules if isinstance(entry, Located) else ()
    made = next((each for each in submission.legality.contacts if each.value.startswith("dynamic code")), None)
    subject = outcome.message.rstrip(".")
    if made is not None:
        return undecided(
            subject, f"the program runs code that it makes ({made.value}), which is not read; {PROBE}", made
        )
    if absent:
        return undecided(
            subject, f"the folder lacks {listed([each.value for each in absent])}, which it imports", *absent
        )
    if submission.pipeline.trains and {SCORING, METRIC} <= set(submission.pipeline.missing):
        return undecided(subject, "nothing in the training script shows where validation tokens are scored", entry)
    return outcome
