"""PG7xx, the flips: what the reported scores depend on, by copies of the trained process that differ in one thing."""

from __future__ import annotations

from harness.checks.behaviour import FAMILY
from harness.checks.common import undecided
from harness.facts.experiments import Answer, FlipFacts
from harness.facts.submission import Submission
from harness.model import Evidence, Location, Missing, Outcome, Status, Value, Verdict, rule

SAME, DEPENDS = "same", "depends"
REPEAT = "`harness probe FOLDER` repeats it"


@rule(
    "PG707",
    "score-depends-on-later",
    family=FAMILY,
    status=Status.SETTLED,
    authority="README; #402; #846; #1240; #1017 C1, C3, C4",
    needs=Evidence.PROBE,
)
def score_depends_on_later(submission: Submission) -> Outcome | None:
    """The score of a token changes when later tokens do.

    What it checks:
        Suffix flip: where the trained script reads its artifact back, the process is copied; each copy goes on with
        the validation tokens from some place on changed, or one of them. Scores before that place, computed no later
        than the first score of a changed token, must be the same, in the pass whose mean is the printed loss. The
        order of the scores counts, not that of the text: adapting to tokens that have been scored is no violation. A
        copy that changes nothing must give the same scores bit for bit, else nothing is said. More than 1e-4 nats
        fails; less may be rounding and is undecided. So is less than 0.1 nats where the losses were made by products
        in 16 bits, unless several flips change the same few scores.

    Why it matters:
        A score may depend on the tokens before it alone (#1017, condition 1), and on what was scored before (condition
        3): what changes with later tokens has seen them.

    Evidence:
        The first changed position, the positions whose scores changed, the size of the effect, and the seed.

    How to fix:
        Score each token before anything is computed from it or from what follows; report that first score.
    """
    subject = "Whether scores depend on later tokens cannot be told"
    return _judged(submission, subject, "later")


@rule(
    "PG708",
    "distribution-depends-on-target",
    family=FAMILY,
    status=Status.SETTLED,
    authority="#779; #886; #978; #1017 C1, C2",
    needs=Evidence.PROBE,
)
def distribution_depends_on_target(submission: Submission) -> Outcome | None:
    """The distribution over a token changes with that token.

    What it checks:
        Self flip: copies of the trained process in which one token is another. The row of logits or probabilities in
        which its score is looked up must be the same. Where it is, and the score is the softmax of that row, the
        distribution was there before the token, and sums to one by construction. Places lie inside of repeated
        phrases, where windows and chunks begin, behind the beginning of a document and at its end; the new token
        begins a word where the old one does not, or the reverse. Rows that a loop asks for one number at a time are
        told by the steps of the script's own account.

    Why it matters:
        "Before the token is revealed, a full distribution over the vocabulary" (#1017, condition 2): one that changes
        with the token is none.

    Evidence:
        The position, and the largest change of a log-probability in the row.

    How to fix:
        Make the whole distribution from the tokens before; look the target up last.
    """
    subject = "Whether distributions depend on their target cannot be told"
    return _judged(submission, subject, "target")


@rule(
    "PG709",
    "probabilities-do-not-sum-to-one",
    family=FAMILY,
    status=Status.SETTLED,
    authority="#779; #886; #978; #1872; #1905; #1017 C2",
    needs=Evidence.PROBE,
)
def probabilities_do_not_sum_to_one(submission: Submission) -> Outcome | None:
    """The probabilities of the vocabulary do not add up to one.

    What it checks:
        Kraft sum: every token of the vocabulary is put at a place of the text, each in a copy of the trained process
        that ends when its score counts; the sum of exp(-nats) is taken. It is made at early places, one of them where
        a cache of what came before hits, and only where the scores are no softmax of a row that is the same whatever
        the target is: there it is one by construction. A sum above 1.0001 warns (1.01 where scores are coarse
        numbers), also a partial one, which ends the experiment: what a script computed from its targets before it
        read the artifact stays that of the old ones, and may add to the sum. Where the score is the entry of a row
        that does not change with its target, the row's own sum decides: above 1.01 it fails, and up to 1.1 it
        only warns where the row's numbers have 16 bits. Where it is the best of the entries of several rows, the best
        entries of all tokens are added up instead. Below 0.9999 a whole sum warns. An incomplete sum below one is
        undecided.

    Why it matters:
        "A full distribution over the vocabulary" (#1017, condition 2): scores of more than one distribution's worth
        of probability are no compression.

    Evidence:
        The position, the sum, and how many tokens are in it.

    How to fix:
        Divide by the sum over the vocabulary; look up keys of the past alone.
    """
    subject = "Whether the probabilities of the vocabulary add up to one cannot be told"
    found = _found(submission, subject)
    if isinstance(found, Outcome):
        return found
    answer, where = found.sum, _script(submission)
    values: dict[str, Value] = {"sum": answer.total, "token_count": answer.count, "position": answer.position}
    at = f" at position {answer.position}" if answer.position >= 0 else ""
    if answer.result == "one":
        return Outcome(Verdict.PASS, f"In miniature, {answer.reason}{at}.", values, where)
    if answer.result in {"more", "less"}:
        # No copies are needed for the sum of a row, unless its numbers are coarse.
        verdict = Verdict.FAIL if answer.result == "more" and not answer.count else Verdict.WARN
        message = f"In miniature, {answer.reason}{at} (seed {found.seed}; {REPEAT})."
        return Outcome(verdict, message, values, where)
    return undecided(subject, answer.reason + at, *where)


@rule(
    "PG710",
    "score-beside-artifact",
    family=FAMILY,
    status=Status.POLICY,
    authority="README, Submission Process; #1017 C3",
    needs=Evidence.PROBE,
)
def score_beside_artifact(submission: Submission) -> Outcome | None:
    """The reported score does not come from the artifact alone.

    What it checks:
        Two copies of the trained process go on from where the artifact is read back. One finds every byte of it
        changed: it has to end with an error or print another score. The other finds noise in every parameter that an
        optimizer has stepped and whose numbers are still in memory: its score has to be the same.

    Why it matters:
        What is scored is the artifact of at most 16,000,000 bytes, not what training left in memory beside it. The
        small run may take another way than the full one: hence a warning.

    Evidence:
        The printed losses of the copies.

    How to fix:
        Read the artifact back into a fresh model, and score that.
    """
    subject = "Whether the score comes from the artifact cannot be told"
    return _judged(submission, subject, "artifact")


def _judged(submission: Submission, subject: str, question: str) -> Outcome:
    found = _found(submission, subject)
    if isinstance(found, Outcome):
        return found
    where = _script(submission)
    answer = {"later": found.later, "target": found.target, "artifact": found.artifact}[question]
    values = _values(found, answer)
    if answer.result == SAME:
        return Outcome(Verdict.PASS, f"In miniature, {answer.reason}.", values, where)
    if answer.result != DEPENDS:
        return undecided(subject, answer.reason, *where)
    verdict = Verdict.WARN if question == "artifact" else Verdict.FAIL
    added = f" The scores are added up at {found.where}." if found.where and question != "artifact" else ""
    return Outcome(verdict, f"In miniature, {answer.reason} (seed {found.seed}; {REPEAT}).{added}", values, where)


def _found(submission: Submission, subject: str) -> FlipFacts | Outcome:
    """What the copies showed, or why nothing can be said."""
    facts = submission.probe
    if isinstance(facts, Missing):
        return undecided(subject, facts.reason)
    if isinstance(facts.flips, Missing):
        return undecided(subject, facts.flips.reason, Location(facts.script))
    return facts.flips.value


def _script(submission: Submission) -> tuple[Location, ...]:
    return () if isinstance(submission.probe, Missing) else (Location(submission.probe.script),)


def _values(found: FlipFacts, answer: Answer) -> dict[str, Value]:
    return {
        "effect_nats": answer.effect,
        "positions": list(answer.positions[:12]),
        "scored_count": found.count,
        "straight_count": found.straight,
        "seed": found.seed,
    }


RULES = (
    score_depends_on_later,
    distribution_depends_on_target,
    probabilities_do_not_sum_to_one,
    score_beside_artifact,
)
