"""PG5xx: is it the same code and configuration for every seed, and do the logs belong to the shipped script?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations

from harness.checks.common import (
    Counted,
    claimed_seeds,
    counted,
    known,
    listed,
    many,
    places,
    reason_of,
    run_names,
    same_measurement,
    seed_name,
    size,
    undecided,
)
from harness.facts.runs import Run
from harness.facts.submission import Submission
from harness.model import Located, Location, Missing, Outcome, Status, Value, Verdict, rule

FAMILY = "homogeneity"
# Settings that differ between any two honest runs: identity, places, devices, and what is measured.
IDENTITY_KEY = re.compile(
    r"^s$|seed|run_?id|run_?name|path|dir|file|host|port|addr|rank|device|date|time_?stamp|log|wandb|checkpoint|resume|manifest"
    r"|bytes$|headroom|^total$|bpb|(?:^|_)loss$"
)

# Timings that logs print as `key:value` beside their settings, places on a disk, and what other rules compare.
MEASURED = re.compile(r"\d+(?:\.\d*)?m?s|(?:\.{0,2}|~)/.*")
COMPARED_ELSEWHERE = frozenset({"train_shards", "world_size"})


@rule("PG501", "one-run-two-seeds", family=FAMILY, status=Status.SETTLED, authority="#2124, #1963, #2020")
def one_run_two_seeds(submission: Submission) -> Outcome | None:
    """One training run stands in the folder under two seeds.

    What it checks:
        No two logs that name different seeds have the same score, loss, steps and training time to the last
        digit. A copy of one seed's log under another file name is only noted, and so is a seed that was run
        twice.

    Why it matters:
        Several seeds show what chance does to the score; one run counted twice shows nothing.

    Evidence:
        The two logs.

    How to fix:
        Ship each seed's own log.
    """
    runs = submission.runs
    if not runs:
        return undecided("Whether the seeds are distinct cannot be told", "no training log was read")
    twins = [pair for pair in combinations(runs, 2) if same_measurement(*pair)]
    split = [pair for pair in twins if _two_seeds(*pair)]
    if split:
        clauses = [f"{seed_name(one)} ({one.location}) and {seed_name(two)} ({two.location})" for one, two in split]
        message = f"The same run under two seeds, equal in score, loss, steps and seconds: {listed(clauses)}."
        return Outcome(Verdict.FAIL, message, {"pair_count": len(split)}, places(*_logs(split)))
    notes = tuple(f"{two.location.path} repeats {one.location.path}." for one, two in twins)
    notes += tuple(_repeated_seeds(runs, twins))
    values: dict[str, Value] = {"log_count": len(runs), "seed_count": len({known(run.seed) for run in runs} - {None})}
    if all(isinstance(run.seed, Missing) for run in runs):
        return undecided(
            "Whether the seeds are distinct cannot be told", reason_of(run.seed for run in runs), *_logs([runs])
        )
    message = f"No run stands under two seeds ({many(len(runs), 'log')})."
    return Outcome(Verdict.PASS, message, values, places(*(run.seed for run in runs)), notes)


def _two_seeds(one: Run, two: Run) -> bool:
    first, second = known(one.seed), known(two.seed)
    return first is not None and second is not None and first != second


def _logs(groups: Sequence[Sequence[Run]]) -> tuple[Location, ...]:
    return tuple(dict.fromkeys(run.location for group in groups for run in group))


def _repeated_seeds(runs: Sequence[Run], twins: Sequence[tuple[Run, Run]]) -> list[str]:
    """A note for each seed with several different runs."""
    copies = {two.location for _, two in twins}
    by_seed: dict[int, list[Run]] = {}
    for run in runs:
        seed = known(run.seed)
        if seed is not None and run.location not in copies:
            by_seed.setdefault(seed, []).append(run)
    return [
        f"{seed_name(group[0])} has {len(group)} logs: {', '.join(run.location.path for run in group)}."
        for group in by_seed.values()
        if len(group) > 1
    ]


@rule("PG502", "seed-without-log", family=FAMILY, status=Status.POLICY, authority="README, Submission Process")
def seed_without_log(submission: Submission) -> Outcome | None:
    """A claimed seed has no log.

    What it checks:
        Every seed that submission.json claims has a training log that names it. Not for folders that claim no
        seed.

    Why it matters:
        The README asks for "enough run logs"; accepted folders ship one log for three claimed seeds: hence a
        warning.

    Evidence:
        The claimed seeds and the logs' seeds.

    How to fix:
        Add the missing logs.
    """
    claims = submission.claims.seeds
    claimed = claimed_seeds(claims)
    if not claimed:
        return None
    if not submission.runs:
        return undecided(
            "The claimed seeds cannot be compared", "no training log was read", *(row.seed for row in claims)
        )
    logged = {known(run.seed) for run in submission.runs}
    absent = sorted(claimed - logged)
    values: dict[str, Value] = {"claimed_count": len(claimed), "absent_count": len(absent)}
    unnamed = [run for run in submission.runs if isinstance(run.seed, Missing)]
    where = places(*(row.seed for row in claims if known(row.seed) in absent or not absent))
    if not absent:
        return Outcome(Verdict.PASS, f"Every claimed seed has a log ({many(len(claimed), 'seed')}).", values, where)
    if unnamed:
        names = listed([run.location.path for run in unnamed])
        return undecided(f"Seeds without a log of their own: {listed(absent)}", f"{names} name no seed", *where)
    others = sorted(seed for run in submission.runs if (seed := known(run.seed)) is not None and seed not in claimed)
    instead = f"; the logs also name {listed(list(dict.fromkeys(others)))}" if others else ""
    return Outcome(Verdict.WARN, f"Claimed seeds without a log: {listed(absent)}{instead}.", values, where)


def unclear_runs(chosen: Counted, subject: str) -> Outcome | None:
    """Undecided when nobody says which logs are the claimed runs; None when that is clear."""
    if chosen.basis:
        return None
    reason = "neither submission.json nor the README says which logs are the claimed runs"
    return undecided(subject, reason, *(run.location for run in chosen.runs))


@rule("PG503", "code-differs-between-seeds", family=FAMILY, status=Status.SETTLED, authority="#2124")
def code_differs_between_seeds(submission: Submission) -> Outcome | None:
    """The claimed seeds were run with different code.

    What it checks:
        The source embedded in the claimed seeds' logs, else the logged code size, is the same in all of them. A
        difference warns: an edited comment changes both.

    Why it matters:
        A mean over different programs is the score of none.

    Evidence:
        The embedded sources' hashes or the code-size lines.

    How to fix:
        Run every seed with the shipped script, and ship those logs.
    """
    chosen = counted(submission)
    if len(chosen.runs) < 2:
        return None
    sources, sizes = [run.source for run in chosen.runs], [run.code_bytes for run in chosen.runs]
    facts = sources if all(isinstance(fact, Located) for fact in sources) else sizes
    stated = [fact for fact in facts if isinstance(fact, Located)]
    values: dict[str, Value] = {"run_count": len(chosen.runs), "variant_count": len({fact.value for fact in stated})}
    if not stated:
        return undecided("Whether the seeds ran the same code cannot be told", reason_of([*sources, *sizes]))
    where = places(*stated)
    if values["variant_count"] == 1:
        what = (
            "embed the same source" if facts is sources else f"log the same code size, {size(float(stated[0].value))}"
        )
        missing = len(facts) - len(stated)
        if missing:
            return undecided(f"{len(stated)} runs {what}", f"{missing} logs state neither source nor code size", *where)
        return Outcome(Verdict.PASS, f"All {len(stated)} runs {what}.", values, where)
    unclear = unclear_runs(chosen, "The logs come from different code")
    if unclear is not None:
        return unclear
    versions = _versions(chosen.runs)
    names = run_names(chosen.runs)
    values["differences"] = difference_table(
        {
            "code bytes": [
                "not stated" if known(run.code_bytes) is None else str(known(run.code_bytes)) for run in chosen.runs
            ],
            "source sha256": [(known(run.source) or "not embedded")[:16] for run in chosen.runs],
        },
        names,
    )
    message = f"The claimed seeds' logs come from {values['variant_count']} different versions of the code: {versions}."
    return Outcome(Verdict.WARN, message, values, where)


def _versions(runs: Sequence[Run]) -> str:
    """`seed 1 47,642 bytes, seed 2 47,700 bytes`, with the source's hash where it is known."""
    parts = []
    for run, name in zip(runs, run_names(runs), strict=True):
        length, source = known(run.code_bytes), known(run.source)
        told = [size(length)] if length is not None else []
        told += [f"source {source[:8]}"] if source is not None else []
        parts.append(f"{name} {' '.join(told) or 'not stated'}")
    return listed(parts)


@rule("PG504", "configuration-differs", family=FAMILY, status=Status.SETTLED, authority="#2124, #1963")
def configuration_differs(submission: Submission) -> Outcome | None:
    """The claimed seeds were run with different settings.

    What it checks:
        The hyperparameters that the claimed seeds' logs print, apart from seeds, names, paths and timings. The
        numbers of shards and processes have rules of their own. A difference warns and names the settings.

    Why it matters:
        Seeds stand for chance. A setting tuned for one seed is no chance.

    Evidence:
        The lines of the logs that print the settings.

    How to fix:
        Run every seed with the same settings.
    """
    chosen = counted(submission)
    if len(chosen.runs) < 2:
        return None
    settings = [_settings(run) for run in chosen.runs]
    if not all(settings):
        silent = [run for run, logged in zip(chosen.runs, settings, strict=True) if not logged]
        names = listed([run.location.path for run in silent])
        reason = f"{names} print no settings"
        return undecided("Whether the seeds ran with the same settings cannot be told", reason, *_logs([silent]))
    shared = sorted(set.intersection(*(set(logged) for logged in settings)))
    different = [key for key in shared if len({logged[key].value for logged in settings}) > 1]
    values: dict[str, Value] = {"compared_count": len(shared), "different_count": len(different)}
    where = places(*(logged[key] for key in different for logged in settings))
    if not different:
        return Outcome(Verdict.PASS, f"All {len(shared)} settings that the logs share are the same.", values, where)
    columns = {key: [logged[key].value for logged in settings] for key in different}
    values["differences"] = difference_table(columns, run_names(chosen.runs))
    unclear = unclear_runs(chosen, f"The logs differ in {listed(different)}")
    if unclear is not None:
        return unclear
    table = [f"{key} ({' / '.join(logged[key].value[:40] for logged in settings)})" for key in different]
    names = " / ".join(run_names(chosen.runs))
    return Outcome(Verdict.WARN, f"The settings of {names} differ: {listed(table)}.", values, where)


def difference_table(columns: Mapping[str, Sequence[str]], names: Sequence[str]) -> list[Value]:
    """One row for each setting: its name, and each run's value under the run's name."""
    return [{"setting": key, **dict(zip(names, cells, strict=True))} for key, cells in columns.items()]


def _settings(run: Run) -> Mapping[str, Located[str]]:
    """The run's logged settings without those that differ between any two honest runs."""
    return {
        key: value
        for key, value in run.config.items()
        if not IDENTITY_KEY.search(key) and key not in COMPARED_ELSEWHERE and not MEASURED.fullmatch(value.value)
    }


@rule(
    "PG505",
    "log-of-another-script",
    family=FAMILY,
    status=Status.SETTLED,
    authority="#2124; README, Submission Process",
)
def log_of_another_script(submission: Submission) -> Outcome | None:
    """The source embedded in a log is not the shipped script.

    What it checks:
        The hash of the source that a claimed run's log embeds, against the shipped training script as it stands
        and unpacked. It warns: authors strip comments and pack scripts before they submit. Not for logs without a
        source.

    Why it matters:
        The shipped script is what gets reviewed and counted; the log shows what was run.

    Evidence:
        The place of the embedded source and the script.

    How to fix:
        Ship the script that wrote the logs, byte for byte.
    """
    runs = [run for run in counted(submission).runs if isinstance(run.source, Located)]
    if not runs:
        return None
    entry = submission.package.entry
    if isinstance(entry, Missing) or not entry.value.texts:
        reason = entry.reason if isinstance(entry, Missing) else f"{entry.value.path} was not read as text"
        return undecided("The logs' embedded source cannot be compared", reason, *(run.source for run in runs))
    shipped = {text for script in submission.package.scripts for text in script.texts} | set(entry.value.texts)
    other = [run for run in runs if known(run.source) not in shipped]
    values: dict[str, Value] = {"embedded_count": len(runs), "different_count": len(other)}
    where = places(*(run.source for run in other or runs), entry)
    if not other:
        message = f"The embedded source is a shipped script's ({many(len(runs), 'log')})."
        return Outcome(Verdict.PASS, message, values, where)
    clauses = [f"{run.location.path}{_length(run)}" for run in other]
    script = f"{entry.value.path} ({size(entry.value.size_bytes)})"
    message = f"The source embedded in {listed(clauses)} is not the shipped {script}."
    return Outcome(Verdict.WARN, message, values, where)


def _length(run: Run) -> str:
    length = known(run.source_bytes)
    return "" if length is None else f" ({size(length)})"


RULES = (
    one_run_two_seeds,
    seed_without_log,
    code_differs_between_seeds,
    configuration_differs,
    log_of_another_script,
)
