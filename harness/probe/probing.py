"""The whole probe of one submission: its runs, and the evidence that they leave."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from harness.facts import scorekinds
from harness.facts.build_package import read_scripts
from harness.facts.build_stated import Claimed
from harness.facts.experiments import LEARNED_SHARE
from harness.facts.submission import Submission
from harness.model import HarnessError, Missing
from harness.probe import claimed, document, ledgerlines, miniature, phrased, session, sizes, unique, world
from harness.probe.bounds import RUN_SECONDS, TOTAL_SECONDS
from harness.probe.document import Probe
from harness.probe.experiments import flips, kraft, ledger, noninterference, ranks, reach, scores, variants
from harness.probe.experiments.flips import Flips
from harness.probe.experiments.kraft import Kraft
from harness.probe.experiments.ledger import Ledger
from harness.probe.experiments.ranks import Ranks
from harness.probe.experiments.reach import Reach
from harness.probe.miniature import Miniature
from harness.probe.phrased import Phrased
from harness.probe.session import MiniatureRun, Request
from harness.probe.world import World
from harness.sandbox.backend import Sandbox
from harness.sandbox.disk import remove as remove_tree
from harness.sources import ledgerfile, probeevidence
from harness.sources.cache import user_directory
from harness.sources.folder import walk

LEAST_SECONDS: Final = 1.0
# So few that a miniature training comes to the end of all its files, whichever it takes them from.
TRAIN_TOKENS: Final = 1_800
# So many for a script that may have ended because it came to the end: not every loader begins again.
LONGER_TRAIN_TOKENS: Final = 30_000
BARE: Final = "bare"
# The blame of an error that the script may have, or the small configuration.
UNKNOWN: Final = "unknown"
# And that of one that it has at any size.
SCRIPT: Final = "script"
# What torch raises of shapes and places, through whatever stand-in it is asked.
OF_SIZES: Final = frozenset({"RuntimeError", "ValueError", "IndexError"})
RUN_NAMES: Final = frozenset(
    {BARE, *noninterference.RUNS, ledger.RUN, variants.RUN, kraft.RUN, ranks.RUN, ranks.TRACED}
)
_RANKED: Final = re.compile(r"\b(?:WORLD_SIZE|LOCAL_RANK|init_process_group)\b")
# Copies of the process may take so many times as long as the first run, all together, and at least so many seconds.
COPIES_RUNS: Final = 7
COPIES_SECONDS: Final = 40.0
# The same for the sums over the vocabulary.
SUMS_RUNS: Final = 12
SUMS_SECONDS: Final = 120.0
# What one experiment tells the next.
INNER: Final = frozenset({"bound", "units"})


def prepare(folder: Path, facts: Submission) -> Probe:
    """Choose the configuration of a submission's miniature runs.

    Raises:
        HarnessError: there is no script to run, it cannot be read, or its vocabulary is no number.
    """
    entry = facts.package.entry
    if isinstance(entry, Missing):
        raise HarnessError(f"{folder}: no script to probe ({entry.reason})")
    scripts, _ = read_scripts(walk(folder))
    script = next(each for each in scripts if each.path == entry.value.path)
    # Settings may be read in a module beside the script.
    helpers = [each.texts[-1] for each in scripts if each.path in facts.size.code_files and each is not script]
    text = "\n".join((script.texts[-1], *helpers))
    settings = claimed.environment(facts, miniature.handed_on(text))
    with _naming(folder, script.path):
        small = _of_length(text, settings, sizes.LENGTH, TRAIN_TOKENS)
        longer = _of_length(text, settings, sizes.LONGER, LONGER_TRAIN_TOKENS)
    ranked = any(_RANKED.search(text) for text in (script.texts[-1], *helpers))
    wanted = scorekinds.wanted(facts.runs, Claimed(facts.claims, facts.readme))
    return Probe(folder, script.path, small, settings, script.texts[-1], ranked, longer, wanted)


@contextlib.contextmanager
def _naming(folder: Path, script: str) -> Iterator[None]:
    """Say whose setting it is that does not fit."""
    try:
        yield
    except HarnessError as error:
        raise HarnessError(f"{folder / script}: {error}") from error


def _of_length(text: str, settings: Mapping[str, str], length: int, train_tokens: int) -> Miniature:
    made = miniature.choose(text, settings, length)
    return dataclasses.replace(made, spec=dataclasses.replace(made.spec, train_tokens=train_tokens))


def run(
    probe: Probe,
    directory: Path,
    sandbox: Sandbox,
    tell: Callable[[str], None],
    seconds: float = RUN_SECONDS,
    *,
    total_seconds: float = TOTAL_SECONDS,
) -> None:
    """Run a probe and leave its evidence.

    Args:
        probe: what is probed.
        directory: the evidence directory, new or empty, outside of the submission's folder.
        sandbox: what `establish` gave.
        tell: gets one line for each run as it begins and ends.
        seconds: wall time of one run.
        total_seconds: wall time of all runs; what is left when it is used up ends at once, undecided.

    Raises:
        HarnessError: the directory is not empty, or lies in the folder; no world has the script's vocabulary.
    """
    if directory.resolve().is_relative_to(probe.folder.resolve()):
        raise HarnessError(f"{directory}: evidence may not lie inside of the submission's folder")
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise HarnessError(f"{directory}: not empty; name another directory, or remove it")
    with tempfile.TemporaryDirectory(prefix="harness-world-") as place:
        kept = user_directory("tokenizers") or Path(place) / "kept"
        until = time.monotonic() + total_seconds
        runs = _Runs(probe, directory, sandbox, tell, seconds, until)
        made, bare = _first(runs, Path(place), kept)
        found: dict[str, Any] = {}
        if bare.val_bpb is not None:
            found["non_interference"] = _non_interference(runs, made, Path(place) / "other", kept)
            found["ledger"] = _ledger(runs, made, Path(place) / "unique")
            found["reach"] = _plain(reach.judge(runs.done[ledger.RUN]))
            unbound = found["ledger"]["result"] != ledger.BOUND
            found["flips"], other = _flips(runs, made, Path(place) / "phrased", accounts=unbound)
            if unbound and other is not None:
                found["ledger"] = _plain(other)
            found["two_ranks"] = _two_ranks(runs, made, Path(place) / "two-ranks", certain=_certain(found))
    probeevidence.write(directory, document.of(runs.probe, made, sandbox, runs.done, found))


@dataclass(slots=True)
class _Runs:
    """The runs of one probe, by name, in the order in which they were made."""

    probe: Probe
    directory: Path
    sandbox: Sandbox
    tell: Callable[[str], None]
    seconds: float
    until: float
    done: dict[str, MiniatureRun] = field(default_factory=dict)

    def go(
        self,
        name: str,
        data: World,
        traced: tuple[str, ...] = (),
        forks: Mapping[str, Any] | None = None,
        size: int = 1,
    ) -> MiniatureRun:
        """Run the script once more, traced, forked and as several processes where that is asked for."""
        probe = self.probe
        seconds = self.seconds + (forks["seconds"] if forks else 0)
        seconds = max(min(seconds, self.until - time.monotonic()), LEAST_SECONDS)
        self.tell(f"{name}: {probe.script} on {data.val_tokens:,} validation tokens, at most {seconds:.0f} s")
        request = Request(probe.folder, probe.script, probe.miniature, data, seconds, traced, forks, size, probe.wanted)
        self.done[name] = session.run(request, self.directory / name, self.sandbox)
        self.tell(f"{name}: {_ended(self.done[name])}")
        return self.done[name]


def _first(runs: _Runs, place: Path, kept: Path) -> tuple[World, MiniatureRun]:
    """The script as it is; once more, less small, where it may have ended because it is so small. And its world."""
    made = _world(runs.probe, place / "data", kept)
    bare = runs.go(BARE, made)
    longer = runs.probe.longer
    if longer is None or not _may_be_too_small(bare, runs.probe.miniature, longer):
        return made, bare
    vocabulary = longer.spec.vocabulary
    runs.tell(f"{BARE}: once more, on sequences of {sizes.LONGER} tokens out of a vocabulary of {vocabulary:,}")
    runs.probe = dataclasses.replace(runs.probe, miniature=longer)
    made = _world(runs.probe, place / "longer", kept)
    remove_tree(runs.directory / BARE)
    return made, runs.go(BARE, made)


def _may_be_too_small(bare: MiniatureRun, small: Miniature, longer: Miniature) -> bool:
    """Whether a run may have ended, or come to no score, for its lengths, its vocabulary or the end of its text."""
    crash = bare.crash or {}
    blame, kind = crash.get("blame"), crash.get("type")
    if blame == SCRIPT or (blame == UNKNOWN and kind == ModuleNotFoundError.__name__):
        return False
    # A stand-in may only have handed on what torch says of the sizes that it was given.
    if blame == UNKNOWN or kind in OF_SIZES:
        return True
    silent = bare.val_bpb is None and bare.outcome.ended == "exit"
    return silent and small.spec.vocabulary != longer.spec.vocabulary


def _world(probe: Probe, folder: Path, kept: Path) -> World:
    with _naming(probe.folder, probe.script):
        return world.write_world(folder, probe.miniature.spec, kept)


def _non_interference(runs: _Runs, made: World, folder: Path, kept: Path) -> dict[str, Any]:
    """Compare the artifact with that of a run on other validation text."""
    other = noninterference.other_world(made, runs.probe.miniature, folder, kept)
    second = runs.go(noninterference.OTHER, other)
    worlds = {noninterference.AGAIN: made, noninterference.OTHER_AGAIN: other}
    found = noninterference.judge(runs.done[BARE], second, lambda name: runs.go(name, worlds[name]))
    runs.tell(f"non-interference: {found.result} ({found.reason})")
    return dataclasses.asdict(found)


def _ledger(runs: _Runs, made: World, folder: Path) -> dict[str, Any]:
    """Follow the scores and updates of a run on text that tells its places."""
    single, shards = unique.unique_world(made, runs.probe.miniature, folder)
    traced = runs.go(ledger.RUN, single, shards)
    path = runs.directory / ledgerfile.NAME
    header = ledgerlines.write(traced, path, runs.probe.script, single.val_tokens)
    found = ledger.judge(traced, single.val_tokens)
    runs.tell(f"ledger: {found.result} ({found.reason}); {header['lines']:,} lines in {path}")
    return _plain(found)


def _flips(runs: _Runs, made: World, folder: Path, *, accounts: bool) -> tuple[dict[str, Any], Ledger | None]:
    """Fork the trained process where it reads its artifact, and change later tokens, single ones and the artifact.

    With the order of scores and updates where these are an account of the script's own.
    """
    artifact = runs.done[BARE].artifact()
    if artifact is None:
        return _plain(flips.nothing("the first run left no file of the size that it printed for its model")), None
    reading = variants.reads_back(runs.done[ledger.RUN], artifact[0])
    data, shards, text = phrased.phrased_world(made, runs.probe.miniature, folder)
    chosen = variants.choose(text, runs.probe.miniature.spec.seed, damage=reading)
    seconds = round(max(COPIES_SECONDS, COPIES_RUNS * runs.done[BARE].outcome.seconds))

    def forked(*, accounts: bool) -> Flips:
        order = variants.order(chosen, artifact[0], seconds, reading=reading, accounts=accounts)
        return flips.judge(runs.go(variants.RUN, data, shards, order), chosen, data.val_tokens - 1)

    found = forked(accounts=accounts)
    if not accounts and found.result != flips.BOUND and runs.done[variants.RUN].of("forks"):
        # On this text caches hit: what is reported here may be another number than on the one without repetitions.
        remove_tree(runs.directory / variants.RUN)
        found = forked(accounts=True)
    if flips.needs_sum(found):
        found = dataclasses.replace(found, sum=_sums(runs, (data, shards, text), found, (artifact[0], reading)))
    for name, each in (("later tokens", found.later), ("targets", found.target), ("artifact", found.artifact)):
        runs.tell(f"flips, {name}: {each.result} ({each.reason})")
    runs.tell(f"sums: {found.sum.result} ({found.sum.reason})")
    return _plain(found), ledger.of_account(runs.done[variants.RUN], found, data.val_tokens)


def _sums(
    runs: _Runs, where: tuple[World, tuple[str, ...], Phrased], found: Flips, artifact: tuple[str, bool]
) -> Kraft:
    """Add up the probabilities of the whole vocabulary at a few places."""
    data, shards, text = where
    units = kraft.places(found.units, text)
    if found.bound is None or not units:
        return Kraft(kraft.UNCLEAR, "no single score of the reported ones is told apart from its neighbours")
    limit = max(SUMS_SECONDS, SUMS_RUNS * runs.done[BARE].outcome.seconds)
    orders = [kraft.variant(unit, found.bound, text, limit / len(units)) for unit in units]
    name, reading = artifact
    # A little more than the sums themselves may take: the copies in which they begin come to the place first.
    seconds, accounts = round(1.2 * limit), found.bound.by == scores.ACCOUNT
    told = variants.order(tuple(orders), name, seconds, reading=reading, accounts=accounts)
    summed = kraft.judge(runs.go(kraft.RUN, data, shards, told), units, text)
    if summed.result == kraft.LESS and "VOCAB_SIZE" in runs.probe.miniature.shrunk:
        why = f"{summed.reason}, of a vocabulary that was cut; the model may have more"
        return dataclasses.replace(summed, result=kraft.UNCLEAR, reason=why)
    return summed


def _certain(found: Mapping[str, Any]) -> bool:
    """Whether an experiment has shown a violation, so that the dear ones need not be made."""
    order, copies = found["ledger"], found["flips"]
    learned = order["result"] == ledger.BOUND and order["learned_before"] > LEARNED_SHARE * order["count"]
    depends = any(copies[name]["result"] == flips.DEPENDS for name in ("later", "target"))
    return learned or depends or found["non_interference"]["result"] == noninterference.DEPENDS


def _two_ranks(runs: _Runs, made: World, folder: Path, *, certain: bool) -> dict[str, Any]:
    """Run the script as two processes, and follow the scores and updates of both."""
    unable = ranks.unable(runs.sandbox.level, ranked=runs.probe.ranked)
    if certain:
        unable = "not tried, since another experiment has shown a violation"
    if unable:
        return _plain(Ranks(ranks.NOT_EXERCISED, unable))
    single, shards = unique.unique_world(made, runs.probe.miniature, folder)
    traced = runs.go(ranks.TRACED, single, shards, size=ranks.SIZE)
    found = ranks.judge(traced, runs.done[ledger.RUN].val_bpb)
    if found.result == ranks.REACHED:
        path = runs.directory / ledgerfile.TWO_RANKS_NAME
        ledgerlines.write(traced, path, runs.probe.script, single.val_tokens, ranks.SIZE)
        order = ledger.judge(ranks.together(traced, ledgerfile.read(path)), single.val_tokens)
        found = dataclasses.replace(found, ledger=order)
        runs.tell(f"two ranks, ledger: {order.result} ({order.reason})")
    else:
        # The tracer may be in the way: then the script by itself says whether it runs so.
        found = ranks.judge(runs.go(ranks.RUN, made, size=ranks.SIZE), runs.done[BARE].val_bpb)
    runs.tell(f"two ranks: {found.result} ({found.reason})")
    return _plain(found)


def _plain(found: Ledger | Reach | Flips | Ranks) -> dict[str, Any]:
    made = _listed({name: value for name, value in dataclasses.asdict(found).items() if name not in INNER})
    assert isinstance(made, dict)  # noqa: S101 - for the type
    return made


def _listed(value: object) -> object:
    """A value with lists for tuples, as JSON has them."""
    if isinstance(value, dict):
        return {name: _listed(each) for name, each in value.items()}
    return [_listed(each) for each in value] if isinstance(value, tuple) else value


def remove(directory: Path) -> None:
    """Remove an evidence directory of a probe, to start over.

    Raises:
        HarnessError: it holds something else.
    """
    if directory.exists() and any(directory.iterdir()) and not _is_evidence(directory):
        raise HarnessError(f"{directory}: not an evidence directory of a probe, not removed")
    with contextlib.suppress(FileNotFoundError):
        remove_tree(directory)


def _is_evidence(directory: Path) -> bool:
    names = {entry.name for entry in directory.iterdir()} - ledgerfile.NAMES
    return probeevidence.has_evidence(directory) or names <= RUN_NAMES


def _ended(done: MiniatureRun) -> str:
    score = "no final score" if done.val_bpb is None else f"val_bpb {done.val_bpb:.4f}"
    crash = "" if done.crash is None else f", {done.crash.get('type')}: {str(done.crash.get('message'))[:120]}"
    return f"{score} after {done.outcome.seconds:.0f} s ({done.outcome.reason}{crash})"
