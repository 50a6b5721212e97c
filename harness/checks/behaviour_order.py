"""PG7xx, the order: what was learned before it was scored, and which tokens the reported score counts."""

from __future__ import annotations

import re

from harness.checks.behaviour import FAMILY
from harness.checks.common import listed, undecided
from harness.facts.experiments import LEARNED_SHARE, LedgerFacts
from harness.facts.submission import Submission
from harness.model import Evidence, Location, Missing, Outcome, Status, Value, Verdict, rule

BOUND = "bound"
# A window of one token may not be placed; a last window may be left out where the text is no multiple of it.
SAME_COUNT_SHARE = 0.05
_WHERE = re.compile(r"([^:]+):(\d+)")


@rule(
    "PG704",
    "scored-after-learned",
    family=FAMILY,
    status=Status.SETTLED,
    authority="README; #402; #568; #677; #846; #1240; #1017 C3, C4",
    needs=Evidence.PROBE,
)
def scored_after_learned(submission: Submission) -> Outcome | None:
    """Tokens are scored with weights that have learned from them.

    What it checks:
        A traced miniature run on a validation text in which every trigram occurs once, so that each tensor of tokens
        tells its place. Each gradient and change of weights is followed to the tokens that went into it, each loss
        to the sum that counts it; weights that are put back have not learned. The pass whose mean is the printed loss
        is the reported one. It fails when more than a tenth of its tokens were scored with weights that had learned
        from them. Below that it warns: it may be an error at the boundaries of chunks, or of the tracer.

    Why it matters:
        "You are only allowed to test-time train on validation set tokens you've already evaluated your model on, since
        those tokens have already been graded!" (README).

    Evidence:
        The number of tokens and some of their positions, and the line that adds the scores up.

    How to fix:
        Score each chunk before training on it, report that first score, and leave the token that follows out.
    """
    subject = "Whether tokens are learned from before they are scored cannot be told"
    found = _bound(submission, subject)
    if isinstance(found, Outcome):
        return found
    share = found.learned_before / max(found.count, 1)
    values: dict[str, Value] = {
        "learned_before_count": found.learned_before,
        "scored_count": found.count,
        "learned_before_ranges": [[start, end] for start, end in found.learned[:12]],
    }
    where = _where(found, submission)
    if not found.learned_before:
        message = f"In miniature, none of {found.count:,} scored tokens had been learned from ({found.where})."
        return Outcome(Verdict.PASS, message, values, where)
    places = listed([f"{start}-{end - 1}" if end - start > 1 else str(start) for start, end in found.learned[:6]], 6)
    message = (
        f"In miniature, {found.learned_before:,} of {found.count:,} tokens were scored with weights that had learned "
        f"from them (positions {places}), in the pass that is reported ({found.where})."
    )
    return Outcome(Verdict.FAIL if share > LEARNED_SHARE else Verdict.WARN, message, values, where)


@rule(
    "PG705",
    "split-partly-counted",
    family=FAMILY,
    status=Status.POLICY,
    authority="#1835; #2009; #2109",
    needs=Evidence.PROBE,
)
def split_partly_counted(submission: Submission) -> Outcome | None:
    """The reported score leaves tokens of the validation text out, or counts some twice.

    What it checks:
        The tokens that the reported pass of the traced run counts, against all that can be predicted. More than five
        percent left out, or counted more than once, warns. A last incomplete window that is left out does not.

    Why it matters:
        The score is that of the whole validation split, each token once (#2109). The small text may not hold what a
        script needs: hence a warning.

    Evidence:
        The ranges of positions, and the line that adds the scores up.

    How to fix:
        Score every token of the split once.
    """
    subject = "Which tokens the reported score counts cannot be told"
    found = _bound(submission, subject)
    if isinstance(found, Outcome):
        return found
    missing = sum(end - start for start, end in found.missing if end < found.tokens)
    doubled = sum(end - start for start, end in found.doubled)
    values: dict[str, Value] = {
        "counted_count": found.count,
        "token_count": found.tokens,
        "missing_count": missing,
        "doubled_count": doubled,
    }
    where = _where(found, submission)
    told = f"{found.count:,} of {found.tokens:,} tokens are counted"
    if max(missing, doubled) > SAME_COUNT_SHARE * max(found.tokens, 1):
        message = f"In miniature, {told}; {missing:,} before the last window are left out, {doubled:,} counted again."
        return Outcome(Verdict.WARN, message, values, where)
    return Outcome(Verdict.PASS, f"In miniature, {told} ({found.where}).", values, where)


@rule(
    "PG706",
    "reaches-outside-when-run",
    family=FAMILY,
    status=Status.POLICY,
    authority="README; #609",
    needs=Evidence.PROBE,
)
def reaches_outside_when_run(submission: Submission) -> Outcome | None:
    """The script reaches for the network, for other programs, or for training data in its evaluation.

    What it checks:
        What the traced run connects to, starts and opens. Addresses outside of the machine and training files that
        are opened after the artifact was read back warn; programs are named with them. The sandbox lets none of it
        out: an attempt is enough.

    Why it matters:
        "No external downloads, training dataset access, or network calls are allowed during evaluation" (README).
        Which part of a script is its evaluation is read from the artifact alone: hence a warning.

    Evidence:
        The addresses, commands and paths.

    How to fix:
        Take the calls out, or make them before the timed run.
    """
    facts = submission.probe
    subject = "What the script reaches for cannot be told"
    if isinstance(facts, Missing):
        return undecided(subject, facts.reason)
    where = (Location(facts.script),)
    if isinstance(facts.reach, Missing):
        return undecided(subject, facts.reach.reason, *where)
    found = facts.reach.value
    values: dict[str, Value] = {
        "network": list(found.network),
        "programs": list(found.programs),
        "training_data": list(found.training_data),
    }
    started = f" It started {listed(found.programs)}." if found.programs else ""
    parts = [f"the network ({listed(found.network)})"] if found.network else []
    parts += (
        [f"training data after its artifact was read ({listed(found.training_data)})"] if found.training_data else []
    )
    if parts:
        return Outcome(Verdict.WARN, f"In miniature, the script reached for {listed(parts)}.{started}", values, where)
    message = f"In miniature, the script reached for no network, nor for training data in its evaluation.{started}"
    return Outcome(Verdict.PASS, message, values, where)


def _bound(submission: Submission, subject: str) -> LedgerFacts | Outcome:
    """The reported pass, or why nothing can be said of it."""
    facts = submission.probe
    if isinstance(facts, Missing):
        return undecided(subject, facts.reason)
    if isinstance(facts.ledger, Missing):
        return undecided(subject, facts.ledger.reason, Location(facts.script))
    found = facts.ledger.value
    if found.result != BOUND:
        return undecided(subject, found.reason, Location(facts.script))
    return found


def _where(found: LedgerFacts, submission: Submission) -> tuple[Location, ...]:
    """The line that adds the scores up, where it is one of a shipped script."""
    match = _WHERE.match(found.where)
    shipped = {script.path for script in submission.package.scripts if not script.layers}
    if match is None or match[1] not in shipped:
        return (Location(submission.probe.script),) if not isinstance(submission.probe, Missing) else ()
    return (Location(match[1], int(match[2])),)


RULES = (scored_after_learned, split_partly_counted, reaches_outside_when_run)
