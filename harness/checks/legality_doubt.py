"""What tells against a PASS of the legality family: code that a log shows running, and code that cannot be read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from harness.checks.common import undecided
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


def _labels(run: Run) -> Iterator[Located[str]]:
    for score in run.scores:
        yield Located(score.label, score.val_bpb.location or run.location)
    for phase in run.phases:
        yield Located(phase.name, phase.location)


def unread_code(outcome: Outcome, submission: Submission) -> Outcome:
    """The outcome; undecided instead of a pass where the program runs code that it makes, which nobody can read."""
    made = next((each for each in submission.legality.contacts if each.value.startswith("dynamic code")), None)
    if outcome.verdict is not Verdict.PASS or made is None:
        return outcome
    reason = f"the program runs code that it makes ({made.value}), which is not read; {PROBE}"
    return undecided(outcome.message.rstrip("."), reason, made)
