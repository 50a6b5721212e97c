"""What `harness probe` saw: read back from an evidence directory, never from the submission."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.model import Fact, Located, Location, Missing
from harness.sources import evidence, probeevidence
from harness.sources.folder import Folder

NO_PROBE = Missing("no evidence of a probe was given")
NOT_MADE = "the experiment was not made, since the script did not reach its score"


@dataclass(frozen=True, slots=True)
class Crash:
    """The error that ended a script.

    Attributes:
        error: class and message.
        blame: `script`, `shim` (what stood for CUDA and its libraries) or `unknown`.
        reason: why.
    """

    error: str
    blame: str
    reason: str


@dataclass(frozen=True, slots=True)
class MiniatureRun:
    """One run of the script in miniature.

    Attributes:
        name: what was run.
        ended: how: `exit`, `signal`, or the limit that it exceeded.
        reason: the same in words.
        returncode: exit status; None where there is none.
        seconds: wall time.
        peak_memory_bytes: the most resident memory at one time.
        val_bpb: the score that it printed.
        val_loss: the loss beside it, in nats per token.
        crash: the error that ended it, at its line.
        approximated: what was replaced by something whose numbers differ.
        refused: what has no equivalent on a CPU.
    """

    name: str
    ended: str
    reason: str
    returncode: int | None
    seconds: float
    peak_memory_bytes: int
    val_bpb: Fact[float]
    val_loss: Fact[float]
    crash: Located[Crash] | None
    approximated: tuple[str, ...]
    refused: tuple[str, ...]


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
    """

    where: str
    count: int
    straight: int
    seed: int
    later: Answer
    target: Answer
    artifact: Answer
    sum: SumAnswer


@dataclass(frozen=True, slots=True)
class ProbeFacts:
    """The miniature runs of a submission.

    Attributes:
        stale: True when the folder's code is no longer what was run.
        script: the script that was run.
        isolation: level and backend.
        shrunk: settings that were made smaller, `NAME: 20000 -> 8`.
        runs: every run, in order.
        non_interference: whether the artifact depends on the validation text: `same`, `depends` or `unclear`.
        ledger: the order of scores and updates.
        reach: what the script reached for.
        executed: lines of the folder's files that the traced run went through, as ranges by path; texts that a packed
            script unpacked are `<unpacked 1>` and so on. Empty where nothing is known.
        flips: what its scores depend on.
        two_ranks: the script in a world of two processes.
        val_tokens: tokens of the validation text of the first run.
        val_bytes: bytes of text that these stand for.
    """

    stale: bool
    script: str
    isolation: str
    shrunk: tuple[str, ...]
    runs: tuple[MiniatureRun, ...]
    non_interference: Fact[Experiment]
    ledger: Fact[LedgerFacts]
    reach: Fact[ReachFacts]
    flips: Fact[FlipFacts]
    two_ranks: Fact[RanksFacts]
    executed: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    val_tokens: int = 0
    val_bytes: int = 0

    def went_through(self, place: Location) -> bool | None:
        """Whether the traced run went through a line of a script; None where that is not known.

        A place in a layer of a packed script is one of the text that was unpacked last.
        """
        path = place.path
        if place.layer:
            path = ([name for name in self.executed if name.startswith("<unpacked")] or [""])[-1]
        if place.line is None or path not in self.executed:
            return None
        return any(start <= place.line < end for start, end in self.executed[path])


def read(directory: Path, folder: Folder) -> ProbeFacts:
    """Read an evidence directory as facts about a folder.

    Raises:
        HarnessError: the directory holds no evidence, or its document is broken.
    """
    document = probeevidence.read(directory)
    isolation = document["isolation"]
    return ProbeFacts(
        stale=evidence.code_sha256(evidence.code_files(folder)) != document["folder_sha256"],
        script=document["script"],
        isolation=f"{isolation['level']} ({isolation['backend']})",
        shrunk=tuple(f"{name}: {old or 'unset'} -> {new}" for name, (old, new) in sorted(document["shrunk"].items())),
        runs=tuple(_run(run, index, document["script"], folder) for index, run in enumerate(document["runs"])),
        non_interference=_experiment(document["experiments"].get("non_interference"), "non_interference"),
        ledger=_ledger(document["experiments"].get("ledger")),
        reach=_reach(document["experiments"].get("reach")),
        executed={each["path"]: _ranges(each["ranges"]) for each in document.get("executed", ())},
        val_tokens=document["world"]["val_tokens"],
        val_bytes=document["world"]["val_bytes"],
        flips=_flips(document["experiments"].get("flips"), document["world"]["seed"]),
        two_ranks=_two_ranks(document["experiments"].get("two_ranks")),
    )


def _flips(found: Mapping[str, Any] | None, seed: int) -> Fact[FlipFacts]:
    at = Location(probeevidence.DOCUMENT_NAME, pointer="/experiments/flips")
    if found is None:
        return Missing(NOT_MADE, at)
    answers = {name: _answer(found[name]) for name in ("later", "target", "artifact")}
    total = SumAnswer(**found["sum"])
    return Located(FlipFacts(found["where"], found["count"], found["straight"], seed, **answers, sum=total), at)


def _answer(found: Mapping[str, Any]) -> Answer:
    return Answer(found["result"], found["reason"], found["effect"], tuple(found["positions"]))


def _reach(found: Mapping[str, Any] | None) -> Fact[ReachFacts]:
    at = Location(probeevidence.DOCUMENT_NAME, pointer="/experiments/reach")
    if found is None:
        return Missing(NOT_MADE, at)
    return Located(ReachFacts(tuple(found["network"]), tuple(found["programs"]), tuple(found["training_data"])), at)


def _two_ranks(found: Mapping[str, Any] | None) -> Fact[RanksFacts]:
    at = Location(probeevidence.DOCUMENT_NAME, pointer="/experiments/two_ranks")
    if found is None:
        return Missing(NOT_MADE, at)
    order = None if found["ledger"] is None else _ledger_facts(found["ledger"])
    return Located(RanksFacts(found["result"], found["reason"], found["val_bpb"], found["alone"], order), at)


def _ledger(found: Mapping[str, Any] | None) -> Fact[LedgerFacts]:
    at = Location(probeevidence.DOCUMENT_NAME, pointer="/experiments/ledger")
    return Missing(NOT_MADE, at) if found is None else Located(_ledger_facts(found), at)


def _ledger_facts(found: Mapping[str, Any]) -> LedgerFacts:
    return LedgerFacts(
        result=found["result"],
        reason=found["reason"],
        where=found["where"],
        count=found["count"],
        learned_before=found["learned_before"],
        learned=_ranges(found["learned"]),
        missing=_ranges(found["missing"]),
        doubled=_ranges(found["doubled"]),
        tokens=found["tokens"],
        timeline=tuple(_block(each) for each in found["timeline"]),
        left_out=found["left_out"],
    )


def _block(each: Mapping[str, Any]) -> Block:
    first, last, count, learned = (each[name] for name in ("first", "last", "count", "learned"))
    return Block(each["kind"], first, last, _ranges(each["ranges"]), count, learned)


def _ranges(pairs: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((start, end) for start, end in pairs)


def _experiment(found: Mapping[str, Any] | None, name: str) -> Fact[Experiment]:
    at = Location(probeevidence.DOCUMENT_NAME, pointer=f"/experiments/{name}")
    if found is None:
        return Missing(NOT_MADE, at)
    return Located(Experiment(found["result"], found["reason"], found["artifact"]), at)


def _run(run: Mapping[str, Any], index: int, script: str, folder: Folder) -> MiniatureRun:
    crash = run["crash"]
    return MiniatureRun(
        name=run["name"],
        ended=run["ended"],
        reason=run["reason"],
        returncode=run["returncode"],
        seconds=run["seconds"],
        peak_memory_bytes=run["peak_memory_bytes"],
        val_bpb=_number(run["val_bpb"], index, "val_bpb"),
        val_loss=_number(run["val_loss"], index, "val_loss"),
        crash=None if crash is None else _crash(crash, script, folder),
        approximated=tuple(f"{each['name']}: {each['how']}" for each in run["replaced"] if not each["exact"]),
        refused=tuple(f"{name}: {why}" for name, why in run["refused"]),
    )


def _number(value: float | None, index: int, name: str) -> Fact[float]:
    at = Location(probeevidence.DOCUMENT_NAME, pointer=f"/runs/{index}/{name}")
    return Missing("the run printed no final score", at) if value is None else Located(value, at)


def _crash(crash: Mapping[str, Any], script: str, folder: Folder) -> Located[Crash]:
    """The error at its line in the folder; a line of an unpacked script is one of its innermost text."""
    path = crash["path"] if crash["path"] in folder.files else script
    found = Crash(f"{crash['type']}: {crash['message']}"[:300], crash["blame"], crash["reason"])
    return Located(found, Location(path, crash["line"] if crash["path"] in folder.files else None))
