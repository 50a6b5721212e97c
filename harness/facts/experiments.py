"""What the experiments of a probe say, as facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from harness.model import Fact, Located, Location, Missing
from harness.sources import probeevidence

# A chunk that is trained on together with the one token that follows it: an error at the boundary, which was ruled
# illegal where it was found, and which accepted scripts may hold unnoticed. What the tracer got wrong while it was
# tried on accepted records was less than this share of a pass too.
LEARNED_SHARE: Final = 0.1
NOT_MADE = "the experiment was not made, since the script did not reach its score"

# Of the text, at most so much is left out by an evaluation of all of it.
FEW_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Experiment:
    """What one experiment says.

    Attributes:
        result: a word.
        reason: why, as a clause.
        subject: what was compared, or "".
    """

    result: str
    reason: str
    subject: str


@dataclass(frozen=True, slots=True)
class Block:
    """Scores, or updates, without the other between them.

    Attributes:
        kind: `score` or `update`.
        first: number of the first computation.
        last: number of the last one.
        ranges: token positions; the end not included.
        count: tokens.
        learned: scored tokens that had been learned from before.
    """

    kind: str
    first: int
    last: int
    ranges: tuple[tuple[int, int], ...]
    count: int
    learned: int


@dataclass(frozen=True, slots=True)
class LedgerFacts:
    """The pass of scores that the script reports.

    Attributes:
        result: `bound` when it was found, `unbound` or `nothing`.
        reason: why.
        where: `file:line function` that adds the scores up.
        count: tokens counted.
        learned_before: tokens scored with weights that had learned from them.
        learned: ranges of these, some of them; the end not included.
        missing: ranges of tokens that were not counted.
        doubled: ranges of tokens that were counted more than once.
        tokens: tokens of the text that can be predicted.
        timeline: the scores of the pass and all updates, in order.
        left_out: blocks of the timeline beyond what is kept.
    """

    result: str
    reason: str
    where: str
    count: int
    learned_before: int
    learned: tuple[tuple[int, int], ...]
    missing: tuple[tuple[int, int], ...]
    doubled: tuple[tuple[int, int], ...]
    tokens: int
    timeline: tuple[Block, ...] = ()
    left_out: int = 0

    @property
    def is_whole(self) -> bool | None:
        """Whether the pass leaves out no more than a few of the text's tokens; None where it was not found."""
        missing = sum(end - start for start, end in self.missing)
        return missing <= FEW_SHARE * max(self.tokens, 1) if self.result == "bound" else None


@dataclass(frozen=True, slots=True)
class RanksFacts:
    """The script in a world of two processes.

    Attributes:
        result: `reached` or `not-exercised`.
        reason: why.
        val_bpb: the score that it printed there; None when it printed none.
        alone: the score of one process on the same text.
        ledger: the pass of scores that the two report; None where it was not followed.
    """

    result: str
    reason: str
    val_bpb: float | None
    alone: float | None
    ledger: LedgerFacts | None


@dataclass(frozen=True, slots=True)
class ReachFacts:
    """What the script reached for when it was run: addresses, programs, training files after the artifact was read."""

    network: tuple[str, ...]
    programs: tuple[str, ...]
    training_data: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the copies of the trained process say to one question.

    Attributes:
        result: `same`, `depends` or `unclear`.
        reason: why, as a clause.
        effect: the largest difference, in nats.
        positions: places in question, some of them.
    """

    result: str
    reason: str
    effect: float
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SumAnswer:
    """What the probabilities of the whole vocabulary add up to.

    Attributes:
        result: `one`, `more`, `less` or `unclear`.
        reason: why, as a clause.
        total: the sum; 0 where none was made.
        count: tokens in it.
        position: its place; -1 where none was made.
    """

    result: str
    reason: str
    total: float
    count: int
    position: int


@dataclass(frozen=True, slots=True)
class Copy:
    """What one copy of the trained process showed.

    Attributes:
        kind: what was changed: a `suffix`, one token (`self`) or the last token of a `document`.
        position: the first token that was.
        compared: positions that had to keep their score.
        effect: the largest difference among them, in nats.
        row: what became of the distribution at the position: `same`, `differs`, `rounding` or `unseen`.
        row_effect: the largest difference in it, in nats.
        farthest: tokens from the position to the last score that changed.
    """

    kind: str
    position: int
    compared: int
    effect: float
    row: str
    row_effect: float
    farthest: int


@dataclass(frozen=True, slots=True)
class FlipFacts:
    """What copies of the trained process show on texts that differ in known tokens.

    Attributes:
        where: the line or the variable that adds the scores up.
        count: scores that are reported.
        straight: those that are the softmax of one row.
        seed: of the changes.
        later: whether scores depend on later tokens.
        target: whether distributions depend on their target.
        artifact: whether the score depends on more than the artifact.
        sum: whether the probabilities of the vocabulary add up to one.
        copies: what each copy showed in which a changed token was scored.
    """

    where: str
    count: int
    straight: int
    seed: int
    later: Answer
    target: Answer
    artifact: Answer
    sum: SumAnswer
    copies: tuple[Copy, ...] = ()


def flips(found: Mapping[str, Any] | None, seed: int) -> Fact[FlipFacts]:
    """What the copies of the trained process showed."""
    at = Location(probeevidence.DOCUMENT_NAME, pointer="/experiments/flips")
    if found is None:
        return Missing(NOT_MADE, at)
    answers = {name: _answer(found[name]) for name in ("later", "target", "artifact")}
    total = SumAnswer(**found["sum"])
    copies = tuple(_copy(each) for each in found["tests"] if each["exercised"])
    return Located(
        FlipFacts(found["where"], found["count"], found["straight"], seed, **answers, sum=total, copies=copies), at
    )


def _copy(each: Mapping[str, Any]) -> Copy:
    return Copy(**{name: each[name] for name in Copy.__slots__})


def _answer(found: Mapping[str, Any]) -> Answer:
    return Answer(found["result"], found["reason"], found["effect"], tuple(found["positions"]))


def reach(found: Mapping[str, Any] | None) -> Fact[ReachFacts]:
    """What the script reached for."""
    at = Location(probeevidence.DOCUMENT_NAME, pointer="/experiments/reach")
    if found is None:
        return Missing(NOT_MADE, at)
    return Located(ReachFacts(tuple(found["network"]), tuple(found["programs"]), tuple(found["training_data"])), at)


def two_ranks(found: Mapping[str, Any] | None) -> Fact[RanksFacts]:
    """What two processes came to."""
    at = Location(probeevidence.DOCUMENT_NAME, pointer="/experiments/two_ranks")
    if found is None:
        return Missing(NOT_MADE, at)
    order = None if found["ledger"] is None else _ledger_facts(found["ledger"])
    return Located(RanksFacts(found["result"], found["reason"], found["val_bpb"], found["alone"], order), at)


def ledger(found: Mapping[str, Any] | None) -> Fact[LedgerFacts]:
    """The pass of scores that the script reports."""
    at = Location(probeevidence.DOCUMENT_NAME, pointer="/experiments/ledger")
    return Missing(NOT_MADE, at) if found is None else Located(_ledger_facts(found), at)


def _ledger_facts(found: Mapping[str, Any]) -> LedgerFacts:
    return LedgerFacts(
        result=found["result"],
        reason=found["reason"],
        where=found["where"],
        count=found["count"],
        learned_before=found["learned_before"],
        learned=ranges(found["learned"]),
        missing=ranges(found["missing"]),
        doubled=ranges(found["doubled"]),
        tokens=found["tokens"],
        timeline=tuple(_block(each) for each in found["timeline"]),
        left_out=found["left_out"],
    )


def _block(each: Mapping[str, Any]) -> Block:
    first, last, count, learned = (each[name] for name in ("first", "last", "count", "learned"))
    return Block(each["kind"], first, last, ranges(each["ranges"]), count, learned)


def ranges(pairs: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    """Pairs of numbers as they are in facts."""
    return tuple((start, end) for start, end in pairs)


def experiment(found: Mapping[str, Any] | None, name: str) -> Fact[Experiment]:
    """What one comparison says."""
    at = Location(probeevidence.DOCUMENT_NAME, pointer=f"/experiments/{name}")
    if found is None:
        return Missing(NOT_MADE, at)
    return Located(Experiment(found["result"], found["reason"], found["artifact"]), at)
