"""PG7xx, a world of two processes: what one has learned before the other scores it."""

from __future__ import annotations

from harness.checks.behaviour import FAMILY
from harness.checks.behaviour_order import BOUND
from harness.checks.common import listed, undecided
from harness.facts.experiments import LEARNED_SHARE, LedgerFacts, RanksFacts
from harness.facts.submission import Submission
from harness.model import Evidence, Location, Missing, Outcome, Status, Value, Verdict, rule

SUBJECT = "Whether two processes score what one of them has learned cannot be told"


@rule(
    "PG711",
    "scored-after-learned-on-two-ranks",
    family=FAMILY,
    status=Status.SETTLED,
    authority="README; #402; #568; #677; #846; #1240; #1017 C3, C4",
    needs=Evidence.PROBE,
)
def scored_after_learned_on_two_ranks(submission: Submission) -> Outcome | None:
    """In a world of two processes, tokens are scored with weights that have learned from them.

    What it checks:
        The traced run of PG704 once more, as two processes that meet over gloo: published runs are eight, and some
        scripts train or score in another way then. Each process's weights are followed; gradients that are added up
        and weights that are copied over the processes have learned what any of them had. The scores of both are put
        together, and the pass whose mean is the printed loss is judged as in PG704: more than a tenth of its tokens
        learned from before their score, on whichever process, fails; fewer warn. What is carried in objects instead
        of tensors is not seen. A script that does not come to its score in a world of two is undecided, with the
        reason.

    Why it matters:
        "You are only allowed to test-time train on validation set tokens you've already evaluated your model on, since
        those tokens have already been graded!" (README). A token that one process trains on is not graded before the
        other one has scored it.

    Evidence:
        The number of tokens and some of their positions, the scores of one and of two processes;
        `ledger-two-ranks.jsonl` in the evidence directory.

    How to fix:
        Score a chunk on all processes before any of them trains on it, and wait for each other in between.
    """
    facts = submission.probe
    if isinstance(facts, Missing):
        return undecided(SUBJECT, facts.reason)
    where = Location(facts.script)
    if isinstance(facts.two_ranks, Missing):
        return undecided(SUBJECT, facts.two_ranks.reason, where)
    found = facts.two_ranks.value
    order = found.ledger
    if order is None or order.result != BOUND:
        reason = f"not exercised there: {found.reason}" if order is None else order.reason
        return undecided(SUBJECT, reason, where)
    return _judged(found, order, where)


def _judged(found: RanksFacts, order: LedgerFacts, where: Location) -> Outcome:
    share = order.learned_before / max(order.count, 1)
    values: dict[str, Value] = {
        "learned_before_count": order.learned_before,
        "scored_count": order.count,
        "learned_before_ranges": [[start, end] for start, end in order.learned[:12]],
        "two_ranks_bpb": found.val_bpb,
        "alone_bpb": found.alone,
    }
    if not order.learned_before:
        message = f"In a world of two, none of {order.count:,} scored tokens had been learned from ({found.reason})."
        return Outcome(Verdict.PASS, message, values, (where,))
    places = listed([f"{start}-{end - 1}" if end - start > 1 else str(start) for start, end in order.learned[:6]], 6)
    message = (
        f"In a world of two, {order.learned_before:,} of {order.count:,} tokens were scored with weights that had "
        f"learned from them on one of the two processes (positions {places})."
    )
    return Outcome(Verdict.FAIL if share > LEARNED_SHARE else Verdict.WARN, message, values, (where,))


RULES = (scored_after_learned_on_two_ranks,)
