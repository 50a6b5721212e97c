"""What a folder states about the configuration of its runs: logged hyperparameters, and the command's environment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.analysis.answers import Reason, Setting, Stated, option_key
from harness.facts.claims import ManifestClaims, ReadmeClaims
from harness.facts.runs import RUN_SPECIFIC_KEYS, Run, Score
from harness.model import HarnessError, Located, Location
from harness.sources import commands, runcommands
from harness.sources.folder import Folder, shown

# The score of a claimed run and the claim may be rounded differently.
SAME_SCORE = 6e-4
SHELL_SCRIPTS_LIMIT = 8
_COUNTED = re.compile(r"(?:EPOCH|STEP|ITER|PASS|ROUND)(?:E?S)?$", re.IGNORECASE)
_SEVERAL = re.compile(r"[2-9]|[1-9]\d{1,6}")


@dataclass(frozen=True, slots=True)
class Written:
    """The assignments of one text: a README or a shell script."""

    assignments: tuple[commands.Assignment, ...]
    source: str
    path: str
    runs: tuple[runcommands.Command, ...] = ()


@dataclass(frozen=True, slots=True)
class Claimed:
    """What the folder claims, as far as it tells whose configuration matters."""

    manifest: ManifestClaims
    readme: ReadmeClaims

    @property
    def withdrawn(self) -> bool:
        """Whether there is a submission.json, and it claims no score."""
        return isinstance(self.manifest.name, Located) and not isinstance(self.manifest.val_bpb, Located)

    def scores(self) -> list[float]:
        """Every claimed score: the headline's and the seeds'."""
        facts = [self.manifest.val_bpb, self.readme.val_bpb]
        facts += [seed.val_bpb for seed in (*self.manifest.seeds, *self.readme.seeds)]
        return [fact.value for fact in facts if isinstance(fact, Located)]


def build_stated(folder: Folder, readme: Located[str] | None, runs: Sequence[Run], claimed: Claimed) -> Stated:
    """Settings of the claimed runs.

    Args:
        folder: the walked folder, for its shell scripts.
        readme: the README's text at its path.
        runs: every run.
        claimed: what is claimed. Where submission.json claims no score and no log is there, a command is one for a
            run that nobody reports, so it states nothing.
    """
    logged, unclear = _agreed(_logged(counted(runs, claimed)))
    if not runs and claimed.withdrawn:
        return Stated(logged, {}, unclear)
    written: list[Written] = []
    if readme is not None:
        runs_told = runcommands.read(readme.value)
        written.append(Written(commands.read(readme.value), "README", readme.location.path, runs_told))
    shells = [path for path in folder.files if path.endswith(".sh")]
    written += [Written(_shell(folder, path), "command", path) for path in shells[:SHELL_SCRIPTS_LIMIT]]
    commanded, confused = _commanded(written)
    unclear |= frozenset(name.lower() for name in confused) - frozenset(logged)
    return Stated(logged, commanded, unclear, _mentioned(written))


def renamed_shards(folder: Folder, readme: Located[str] | None) -> tuple[Located[str], ...]:
    """Commands of the README and of shell scripts that give a validation shard the name of a training shard."""
    texts = [(readme.location.path, readme.value)] if readme is not None else []
    for path in [path for path in folder.files if path.endswith(".sh")][:SHELL_SCRIPTS_LIMIT]:
        try:
            texts.append((path, folder.text(path)))
        except HarnessError:  # the package family names what cannot be read
            continue
    return tuple(
        Located(shown(command), Location(path, line))
        for path, text in texts
        for line, command in commands.renamings(text)
    )


def counted(runs: Sequence[Run], claimed: Claimed) -> Sequence[Run]:
    """The runs that print a claimed score; all of them when none does."""
    scores = claimed.scores()
    chosen = [run for run in runs if any(prints(run, score) for score in scores)]
    return chosen or runs


def prints(run: Run, claim: float) -> bool:
    """Whether a run prints a claimed score, as other than an intermediate value."""
    return any(is_claim(score, claim) for score in run.scores)


def is_claim(score: Score, claim: float) -> bool:
    """Whether a score is a claimed one, as other than an intermediate value."""
    value = score.val_bpb
    return not score.diagnostic and isinstance(value, Located) and abs(value.value - claim) <= SAME_SCORE


def _logged(runs: Iterable[Run]) -> Mapping[str, list[Setting]]:
    found: dict[str, list[Setting]] = {}
    for run in runs:
        for key, value in run.config.items():
            if key not in RUN_SPECIFIC_KEYS:
                found.setdefault(key, []).append(Setting(value.value, "log", value.location))
    return found


def _agreed(values: Mapping[str, Sequence[Setting]]) -> tuple[dict[str, Setting], frozenset[str]]:
    """Settings of one value, and the names of those with several."""
    one = {name: settings[0] for name, settings in values.items() if len({each.value for each in settings}) == 1}
    return one, frozenset(values) - frozenset(one)


def _shell(folder: Folder, path: str) -> tuple[commands.Assignment, ...]:
    try:
        return commands.read(folder.text(path), script=True)
    except HarnessError:
        return ()


def _commanded(written: Sequence[Written]) -> tuple[dict[str, Setting], frozenset[str]]:
    """What commands set; what the README sets stands before what a shell script does."""
    found: dict[str, Setting] = {}
    confused: frozenset[str] = frozenset()
    for source in ("README", "command"):
        table: dict[str, list[Setting]] = {}
        stated = [(text, each) for text in written if text.source == source for each in text.assignments]
        launched = {each.name for _, each in stated if each.commanded and not each.listed}
        for text, each in stated:
            # Of what a command sets, a list beside it names other choices.
            if each.commanded and not (each.listed and each.name in launched):
                table.setdefault(each.name, []).append(Setting(each.value, source, Location(text.path, each.line)))
        options, doubtful = _options([text for text in written if text.source == source])
        settings, unclear = _agreed(table | options)
        unclear |= doubtful
        known = frozenset(found) | confused
        found |= {name: setting for name, setting in settings.items() if name not in known}
        confused |= unclear - frozenset(found)
    return found, confused


def _options(written: Sequence[Written]) -> tuple[dict[str, list[Setting]], frozenset[str]]:
    """What commands pass to scripts, and what only some commands of one script pass, which the others leave out."""
    table: dict[str, list[Setting]] = {}
    doubtful: set[str] = set()
    for text in written:
        by_script: dict[str, list[set[str]]] = {}
        for run in text.runs:
            passed = {option_key(run.script, name): value for name, value in run.options}
            by_script.setdefault(run.script.rpartition("/")[2], []).append(set(passed))
            for key, value in passed.items():
                table.setdefault(key, []).append(Setting(value, text.source, Location(text.path, run.line)))
        for keys in by_script.values():
            doubtful.update(key for key in set[str]().union(*keys) if not all(key in each for each in keys))
    return {key: values for key, values in table.items() if key not in doubtful}, frozenset(doubtful)


def _mentioned(written: Sequence[Written]) -> dict[str, tuple[Setting, ...]]:
    """What sentences say of a variable."""
    found: dict[str, tuple[Setting, ...]] = {}
    for text in written:
        for each in text.assignments:
            if not each.commanded:
                setting = Setting(each.value, text.source, Location(text.path, each.line))
                found[each.name] = (*found.get(each.name, ()), setting)
    return found


def contradicted(reasons: Iterable[Reason], stated: Stated) -> Located[str] | None:
    """A sentence that gives a variable another value than the default that was taken for it.

    Two numbers of epochs or steps, both above one, are no contradiction: what runs several times runs either way.
    """
    for reason in reasons:
        for setting in stated.mentioned.get(reason.name, ()):
            if reason.source == "default" and not _alike(reason.name, setting.value, reason.value):
                return Located(f"{reason.name}={setting.value}", setting.location)
    return None


def _alike(name: str, *values: str) -> bool:
    counted = _COUNTED.search(name) is not None and all(_SEVERAL.fullmatch(value) for value in values)
    return counted or len(set(values)) == 1
