"""What `harness probe` saw: read back from an evidence directory, never from the submission."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.facts import experiments
from harness.facts.experiments import Experiment, FlipFacts, LedgerFacts, RanksFacts, ReachFacts
from harness.model import Fact, Located, Location, Missing
from harness.sources import evidence, probeevidence
from harness.sources.folder import Folder

NO_PROBE = Missing("no evidence of a probe was given")


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
        labels: of all scores that it printed.
        unread: where no score was read, a line that may hold one; else empty.
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
    unread: str
    crash: Located[Crash] | None
    approximated: tuple[str, ...]
    refused: tuple[str, ...]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProbeFacts:
    """The miniature runs of a submission.

    Attributes:
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
        not_run: functions of the script that the traced run never entered, some of them.
        val_tokens: tokens of the validation text of the first run.
        val_bytes: bytes of text that these stand for.
        whole: whether the reported score counts the whole text, or nearly; None where that is not known.
    """

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
    not_run: tuple[str, ...] = ()
    val_tokens: int = 0
    val_bytes: int = 0
    whole: bool | None = None

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


def read(directory: Path, folder: Folder) -> ProbeFacts | Missing:
    """Read an evidence directory as facts about a folder; of other code than the folder's it tells nothing.

    Raises:
        HarnessError: the directory holds no evidence, or its document is broken.
    """
    document = probeevidence.read(directory)
    if evidence.code_sha256(evidence.code_files(folder)) != document["folder_sha256"]:
        return Missing("the folder's code is no longer what was run", Location(probeevidence.DOCUMENT_NAME))
    isolation = document["isolation"]
    order = experiments.ledger(document["experiments"].get("ledger"))
    return ProbeFacts(
        script=document["script"],
        isolation=f"{isolation['level']} ({isolation['backend']})",
        shrunk=tuple(f"{name}: {old or 'unset'} -> {new}" for name, (old, new) in sorted(document["shrunk"].items())),
        runs=tuple(_run(run, index, document["script"], folder) for index, run in enumerate(document["runs"])),
        non_interference=experiments.experiment(document["experiments"].get("non_interference"), "non_interference"),
        ledger=order,
        reach=experiments.reach(document["experiments"].get("reach")),
        executed={each["path"]: experiments.ranges(each["ranges"]) for each in document.get("executed", ())},
        not_run=tuple(document.get("not_run", ())),
        val_tokens=document["world"]["val_tokens"],
        val_bytes=document["world"]["val_bytes"],
        flips=experiments.flips(document["experiments"].get("flips"), document["world"]["seed"]),
        two_ranks=experiments.two_ranks(document["experiments"].get("two_ranks")),
        whole=order.value.is_whole if isinstance(order, Located) else None,
    )


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
        unread=run["unread"],
        crash=None if crash is None else _crash(crash, script, folder),
        approximated=tuple(f"{each['name']}: {each['how']}" for each in run["replaced"] if not each["exact"]),
        refused=tuple(f"{name}: {why}" for name, why in run["refused"]),
        labels=tuple(run["labels"]),
    )


def _number(value: float | None, index: int, name: str) -> Fact[float]:
    at = Location(probeevidence.DOCUMENT_NAME, pointer=f"/runs/{index}/{name}")
    return Missing("the run printed no final score", at) if value is None else Located(value, at)


def _crash(crash: Mapping[str, Any], script: str, folder: Folder) -> Located[Crash]:
    """The error at its line in the folder; a line of an unpacked script is one of its innermost text."""
    path = crash["path"] if crash["path"] in folder.files else script
    found = Crash(f"{crash['type']}: {crash['message']}"[:300], crash["blame"], crash["reason"])
    return Located(found, Location(path, crash["line"] if crash["path"] in folder.files else None))
