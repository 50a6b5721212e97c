"""PG62x, legality: what the score owes to the token being scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.checks.common import listed, many, undecided
from harness.checks.legality_doubt import PROBE, shown_running, silence, unread_code
from harness.facts.submission import Submission
from harness.facts.targets import Life, TargetUse, UseKind
from harness.model import Location, Missing, Outcome, Status, Verdict, rule

FAMILY = "legality"
SHOWN = 3
# Mixtures that do not sum to one whatever their numbers are.
_SUMS = {
    UseKind.SPREAD: "The probability of the realized token is divided among its bytes and mixed there",
    UseKind.ENTROPY: "A mixture gives the realized token a number that is no probability of it",
    UseKind.WEIGHT: "The weight of a mixture depends on a probability of the realized token that is mixed",
    UseKind.ON_HITS: "A mixture is made only where a table holds the realized token",
}


@rule(
    "PG620",
    "target-in-lookup-key",
    family=FAMILY,
    status=Status.SETTLED,
    authority="#779, #982, #886, #978; #1017, condition 2",
)
def target_in_lookup_key(submission: Submission) -> Outcome:
    """The score reads a table at a hash of the token being scored.

    What it checks:
        The flow of the realized target through the scoring code and the script's own functions: it is mixed into a
        hash, the hash is cut to a number of buckets, a table is read there, and what was read goes into the
        logarithm or the sum of the score. Where the model's own probability is added to the count before it is
        divided (a Dirichlet prior), which was never ruled, it only warns. Updating a table with the token after it
        was scored is none of this, nor is an embedding of hashed input tokens, nor a cache that reads a whole row of
        candidates. Code that the run's configuration switches off is only noted. Scoring code that makes keys of
        tokens by exclusive or, of which it is not found what goes into them, is left to the probe.

    Why it matters:
        "Before x_t is scored there is one full distribution over the official token alphabet ... it may not be
        built by evaluating the realized token only" (#1017). Two keys of one context collide with other counts, so
        the numbers that such a table gives do not sum to one over the vocabulary: sums of about 277 were measured
        (#886). The maintainers closed about 30 submissions for it (#779, #982).

    Evidence:
        The line where the target enters the key, the line of the look-up, the line where it enters the score.

    How to fix:
        Look up every token of the vocabulary for the context, and divide by the sum of what was found.
    """
    clean = "No table read at a hash of the token being scored was found in code that runs"
    said = "The score reads a table at a hash of the token being scored"
    outcome = _judge(submission, UseKind.HASHED_LOOKUP, said, clean)
    smoothed = [use for use in submission.targets.uses if use.kind is UseKind.SMOOTHED_LOOKUP]
    if outcome.verdict is Verdict.PASS and submission.targets.hashes:
        places = submission.targets.hashes[:SHOWN]
        reason = f"scoring code makes keys of tokens by exclusive or ({listed(places)}); {PROBE}"
        return undecided("Whether the token being scored is in the key of a table cannot be told", reason, *places)
    if outcome.verdict is not Verdict.PASS or not smoothed:
        return outcome
    outcome = _judge(submission, UseKind.SMOOTHED_LOOKUP, f"{said}, with the model's own probability as prior", clean)
    return _disputed(outcome, "#779 holds for every such key", "not ruled")


@rule(
    "PG621",
    "share-not-normalized",
    family=FAMILY,
    status=Status.SETTLED,
    authority="#886, #978, #982; #720; #1872, #1905, #1991; #1017, condition 2",
)
def share_not_normalized(submission: Submission) -> Outcome:
    """A table's number for one token is no share of its row.

    What it checks:
        Numbers of a table that enter the score for the token being scored. It fails where a row is read at hashed
        buckets of every candidate and one of its numbers is divided by something that the row has no part in: the
        shares of a row sum to one when they are divided by the row's own sum. It fails too where the logarithm of a
        token's probability is divided evenly among the token's bytes (or each byte gets a root of the probability)
        and the shares are mixed with other probabilities byte by byte, where an entropy stands among the losses that
        are mixed, where the weight of a mixture of probabilities of the realized token is computed from one of them
        (also where each raises its own weight), and where the model's share of a mixture is cut only if a table holds
        the realized token. A number read at the exact pair of context and token is left to the probe, which sums over
        the vocabulary.

    Why it matters:
        "Before x_t is scored there is one full distribution over the official token alphabet, p >= 0, sum 1" (#1017).
        One cache divided the count of a hashed pair by the count of its context: its gains were an artifact of that
        denominator, and the normalized one scored worse (#978).

    Evidence:
        The lines of the look-up, of the division, and where the share enters the score.

    How to fix:
        Divide by the sum of what the table holds for all candidates.
    """
    clean = "No share of a table's numbers that may not sum to one was found in code that runs"
    notes: tuple[str, ...] = ()
    for kind, said in _SUMS.items():
        found = _judge(submission, kind, said, clean)
        if any(use.kind is kind for use in submission.targets.uses) and found.verdict is not Verdict.PASS:
            return found
        notes += found.notes
    outcome = _judge(submission, UseKind.FOREIGN_SHARE, "A row of hashed counts is not divided by its own sum", clean)
    pairs = [use for use in submission.targets.uses if use.kind is UseKind.PAIR_LOOKUP and use.life is not Life.DEAD]
    if outcome.verdict is not Verdict.PASS or not pairs:
        return replace(outcome, notes=(*outcome.notes, *notes))
    reason = f"{UseKind.PAIR_LOOKUP}: {_path(pairs[0])}; {PROBE}"
    return undecided("Whether the shares sum to one cannot be told", reason, *_places(pairs))


@rule(
    "PG622",
    "loss-chosen-by-outcome",
    family=FAMILY,
    status=Status.SETTLED,
    authority="#573, #596, #614, #659; #168; #1017, condition 4",
)
def loss_chosen_by_outcome(submission: Submission) -> Outcome:
    """The score takes the better of several losses, token by token.

    What it checks:
        Minimum, argmin, `where(a < b, a, b)`, `a if a < b else b` or `a[b < a] = b[b < a]` over losses of each token
        that come from different passes or experts, with the result in the score. And losses that are set to zero where
        a stored or guessed token equals the target, with nothing added where it does not: the better of a guess and
        the model. The lowest validation loss over training steps, bounds, clamps and masks of padding are none of
        this. Where the lowest result of several whole evaluations is printed as the final score, it only warns.

    Why it matters:
        To choose by the realized loss is to know the token before coding it: no decoder can follow. "Selection among
        runs by observed validation outcomes" is excluded by condition 4, and such submissions were closed (#573).
        With validation tokens for the guesses it is a paid prefix, which was excluded by name (#168).

    Evidence:
        The lines of the losses, of the choice, and where it enters the score.

    How to fix:
        Mix the experts' distributions with weights that depend on the prefix only.
    """
    clean = "No loss chosen by its value at the token being scored was found in code that runs"
    said = "The score takes the better of several losses of each token"
    outcome = _judge(submission, UseKind.CHOSEN_LOSS, said, clean)
    uses = {use.kind for use in submission.targets.uses if use.life is not Life.DEAD}
    if UseKind.FREE_HIT in {use.kind for use in submission.targets.uses} and outcome.verdict is not Verdict.FAIL:
        found = _judge(submission, UseKind.FREE_HIT, "The score pays nothing where a guess is right", clean)
        outcome = max((found, outcome), key=lambda each: each.verdict.severity)
    if outcome.verdict is not Verdict.PASS or UseKind.CHOSEN_SCORE not in uses:
        return outcome
    said = "The reported score is the lowest of several evaluations of the same tokens"
    return _disputed(
        _judge(submission, UseKind.CHOSEN_SCORE, said, clean),
        "condition 4 excludes selection among runs by observed validation outcomes",
        "one choice for a whole text costs a decoder a bit or two, and nobody ruled on it",
    )


@rule(
    "PG623",
    "hint-gated-by-target",
    family=FAMILY,
    status=Status.SETTLED,
    authority="#1514, #1420, #2018, #2041, #2118; #1017, condition 1",
)
def hint_gated_by_target(submission: Submission) -> Outcome:
    """A hint is switched by the class of the token that it is for.

    What it checks:
        Loops over positions, in Python and in C or C++ helpers that Python calls, in which a class of the token at
        the position (does it start a word, is it a boundary) decides whether a hint for that position is given. A
        class of the token before it is none of this, nor is an update with the token after the hint. Helpers that
        the run's configuration does not call, and hints whose strength it sets to zero, are only noted.

    Why it matters:
        A tilt p*exp(beta*1[hint])/Z is legal "with prefix-only hints" (#1514, merged with such experts switched off).
        A hint that is present only when the token continues a word tells that it does, one or two bits for each
        token: condition 1 asks that p_t be "not a function of x_t".

    Evidence:
        The lines of the token, of its class, of the condition, and of the hint.

    How to fix:
        Ask the class of the token before, or switch these hints off and keep those of the context alone.
    """
    clean = "No hint switched by the class of its own token was found in code that runs"
    return _judge(submission, UseKind.GATE, "A hint is switched by the class of the token that it is for", clean)


@rule(
    "PG624",
    "logits-changed-at-target",
    family=FAMILY,
    status=Status.SETTLED,
    authority="#1017, conditions 1 and 2; #1240",
)
def logits_changed_at_target(submission: Submission) -> Outcome:
    """The logits of a token are changed by the token itself before they become its probability.

    What it checks:
        Marks at the target in a row over the vocabulary (`scatter_(-1, y, ...)`, `one_hot(y)`, `row[arange(n), y]`)
        by which the logits are masked, moved or scaled, where the same logits then become probabilities of the same
        targets in scoring code. A one-hot row that picks the loss out of the logarithms, soft labels, marks of other
        tokens, changes after the score and losses that only training has are none of this.

    Why it matters:
        A mask that spares the realized token, or a bias that lifts it, tells the model what it is to predict: p_t may
        be "not a function of x_t" (#1017, condition 1), and has to be fixed "independently of which token is
        realized" (condition 2). Every other token is scored with other logits than this one.

    Evidence:
        The lines of the mark, of the change, and of the loss or softmax.

    How to fix:
        Leave the target out of whatever is computed before the score.
    """
    clean = "No change of logits at the token being scored was found in code that runs"
    return _judge(submission, UseKind.SHAPED, "The logits are changed at the token that they are to predict", clean)


@rule(
    "PG625",
    "scored-without-causal-mask",
    family=FAMILY,
    status=Status.DISPUTED,
    authority="#1017, condition 1",
)
def scored_without_causal_mask(submission: Submission) -> Outcome:
    """The score comes from a model that sees the tokens on both sides.

    What it checks:
        Calls in scoring code that switch the causal mask of the whole model off (`model(x, is_causal=False)`, where
        the model hands that on to its attention), and whose loss is added to the score. And layers that reduce their
        input over all positions, axis 1 of `B, T, C = x.shape`, or choose the best of all of them (`topk`), and return
        a sequence that is made with it. Training
        without a mask, steps that go on from a cache, and layers that have no mask of their own are none of this:
        what those attend to is left to the probe, which changes later tokens.

    Why it matters:
        "p_t(.) is a function of the artifact A and the strict prefix" (#1017, condition 1). A token that is
        predicted from the ones behind it has no code length: the mean of such losses is a pseudo-likelihood. A bound
        on the likelihood of a whole masked text is one, and a record of that kind was accepted; which of the two a
        script computes is not read. It warns.

    Evidence:
        The lines of the call, of the loss, and of the sum that it goes into; or those of the layer.

    How to fix:
        Score with the causal mask, with cumulative means and choices at each position, or state the bound and how a
        decoder follows it.
    """
    clean = "No score of a model that is run without its causal mask was found in code that runs"
    said = "The model that is scored sees tokens on both sides"
    asked = "condition 1 asks for the strict prefix alone"
    masked = _disputed(
        _judge(submission, UseKind.BOTH_WAYS, said, clean),
        asked,
        "a bound on the likelihood of a whole masked text is a code length too",
    )
    pooled = _disputed(
        _judge(submission, UseKind.POOLED, "A layer of the model sees all positions", clean),
        asked,
        f"whether later tokens change a score, running shows ({PROBE})",
    )
    return max(masked, pooled, key=lambda outcome: outcome.verdict.severity)


def _judge(submission: Submission, kind: UseKind, accusation: str, clean: str) -> Outcome:
    """Fail on what runs, leave open what may, note what does not."""
    facts = submission.targets
    if isinstance(facts.read, Missing):
        return undecided("The scoring code cannot be followed", f"{facts.read.reason}; {PROBE}", facts.read)
    uses = [use for use in facts.uses if use.kind is kind]
    live = [use for use in uses if use.life is Life.LIVE and use.silent is None]
    unknown = [use for use in uses if use.life is Life.UNKNOWN or (use.life is Life.LIVE and use.silent is not None)]
    notes = tuple(f"Does not run in this configuration ({use.because}): {_path(use)}." for use in _dead(uses)[:1])
    if live:
        message = f"{accusation}: {_path(live[0])}{_others(live)}."
        return Outcome(Verdict.FAIL, message, {"places": len(live)}, _places(live), notes)
    if unknown:
        silent = unknown[0].silent
        because = silence(silent) if silent is not None else unknown[0].because
        reason = f"{_path(unknown[0])}; whether it runs is not known: {because}; {PROBE}"
        return undecided(accusation, reason, *_places(unknown))
    for use in _dead(uses):
        label = shown_running([use.because], submission)
        if label is not None:
            reason = f"{_path(use)}; {use.because} keeps it off, but the log speaks of `{label.value}`; {PROBE}"
            return undecided(f"Cannot be told: {accusation[0].lower()}{accusation[1:]}", reason, *_places([use]), label)
    passed = Outcome(Verdict.PASS, f"{clean}.", locations=_places(_dead(uses)), notes=notes)
    return unread_code(passed, submission)


def _disputed(outcome: Outcome, one: str, other: str) -> Outcome:
    """A fail as a warning, with both readings; anything else as it is."""
    if outcome.verdict is not Verdict.FAIL:
        return outcome
    message = f"{outcome.message.rstrip('.')}. One reading: {one}; the other: {other}."
    return replace(outcome, verdict=Verdict.WARN, message=message)


def _dead(uses: Sequence[TargetUse]) -> list[TargetUse]:
    return [use for use in uses if use.life is Life.DEAD]


def _path(use: TargetUse) -> str:
    """The lines that prove it, in words."""
    return listed([f"{step.value} ({step.location})" for step in use.steps])


def _others(uses: Sequence[TargetUse]) -> str:
    return f"; {many(len(uses) - 1, 'more place')}" if len(uses) > 1 else ""


def _places(uses: Sequence[TargetUse]) -> tuple[Location, ...]:
    return tuple(dict.fromkeys(step.location for use in uses[:SHOWN] for step in use.steps))


RULES = (
    target_in_lookup_key,
    share_not_normalized,
    loss_chosen_by_outcome,
    hint_gated_by_target,
    logits_changed_at_target,
    scored_without_causal_mask,
)
