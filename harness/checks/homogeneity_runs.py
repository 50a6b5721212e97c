"""PG5xx, the runs: the same data and the same machine for every seed, and logs named after their own seed."""

from __future__ import annotations

from collections.abc import Sequence

from harness.checks.common import counted, distinct, known, listed, many, places, reason_of, run_names, undecided
from harness.checks.homogeneity import difference_table, unclear_runs
from harness.facts.runs import Run
from harness.facts.submission import Submission
from harness.model import Located, Location, Outcome, Status, Value, Verdict, rule

FAMILY = "homogeneity"


@rule("PG506", "mixed-shards", family=FAMILY, status=Status.SETTLED, authority="#2124, #1963; #2127")
def mixed_shards(submission: Submission) -> Outcome | None:
    """The claimed seeds were trained on different numbers of shards.

    What it checks:
        The number of training shards that the claimed seeds' logs print is the same in all of them. Not for a
        single run, nor for logs that print none.

    Why it matters:
        Seeds stand for chance; another amount of data is no chance. And a folder that mixes shard counts mixes
        preparations of the data, of which one may hold validation documents. The maintainers' reruns too differ
        in it at times: hence a warning.

    Evidence:
        The log lines that count the shards.

    How to fix:
        Run every seed on the same data.
    """
    chosen = counted(submission)
    stated = [run for run in chosen.runs if isinstance(run.train_shards, Located)]
    if len(chosen.runs) < 2 or not stated:
        return None
    facts = [run.train_shards for run in stated]
    numbers = [known(fact) for fact in facts]
    values: dict[str, Value] = {"train_shards": [*numbers]}
    if len(set(numbers)) == 1:
        if len(stated) < len(chosen.runs):
            reason = f"no number of shards in {many(len(chosen.runs) - len(stated), 'other log')}"
            return undecided(f"{many(len(stated), 'run')} with {numbers[0]} training shards", reason, *facts)
        message = f"All {len(stated)} runs were trained on {numbers[0]} shards."
        return Outcome(Verdict.PASS, message, values, places(*facts))
    unclear = unclear_runs(chosen, "The logs differ in their training shards")
    if unclear is not None:
        return unclear
    names = run_names(stated)
    values["differences"] = difference_table({"training shards": [str(number) for number in numbers]}, names)
    clauses = [f"{name} {number}" for name, number in zip(names, numbers, strict=True)]
    return Outcome(Verdict.WARN, f"Different numbers of training shards: {listed(clauses)}.", values, places(*facts))


@rule("PG507", "seed-under-two-names", family=FAMILY, status=Status.SETTLED, authority="#2124, #1963, #2020")
def seed_under_two_names(submission: Submission) -> Outcome | None:
    """A log is named after another seed than the one it prints.

    What it checks:
        The seed in each log's file name is the one that the log prints; and no two different runs of one printed
        seed stand under the names of two seeds. A log under two names is PG501's. Not for logs that print no seed.

    Why it matters:
        Runs of one seed repeat each other but for the machine's noise: their deviation says nothing of seeds. Often
        the seed was passed under a name that the script does not read: hence a warning.

    Evidence:
        The logs' names and the lines that print the seed.

    How to fix:
        Check that the script reads the seed, run every seed, and name each log after its own.
    """
    runs = distinct(submission.runs)
    if not runs:
        return undecided("Whether the logs are named after their seeds cannot be told", "no training log was read")
    printed = [run for run in runs if isinstance(run.seed, Located) and run.seed.location.line is not None]
    named = [run for run in printed if isinstance(run.named_seed, Located)]
    if not printed:
        if any(isinstance(run.seed, Located) for run in runs):
            return None
        reason = reason_of(run.seed for run in runs)
        return undecided("Whether the logs are named after their seeds cannot be told", reason, *_logs(runs))
    wrong = [run for run in named if known(run.named_seed) != known(run.seed)]
    values: dict[str, Value] = {"log_count": len(runs), "misnamed_count": len(wrong)}
    if not wrong:
        message = f"No log is named after another seed than its own ({many(len(runs), 'log')})."
        return Outcome(Verdict.PASS, message, values, places(*(run.seed for run in printed)))
    values["differences"] = [
        {"setting": run.location.path, "named": known(run.named_seed), "printed": known(run.seed)} for run in wrong
    ]
    clauses = [f"{run.location.path} prints seed {known(run.seed)}" for run in wrong]
    seeds = {known(run.seed) for run in named}
    all_one = f"; all {len(named)} named logs print one seed" if len(seeds) == 1 and len(named) > 1 else ""
    return Outcome(
        Verdict.WARN,
        f"Named after another seed: {listed(clauses)}{all_one}.",
        values,
        places(*(run.seed for run in wrong)),
    )


def _logs(runs: Sequence[Run]) -> tuple[Location, ...]:
    return tuple(run.location for run in runs)


@rule("PG508", "environment-differs", family=FAMILY, status=Status.POLICY, authority="#2124, #1963; README")
def environment_differs(submission: Submission) -> Outcome | None:
    """The claimed seeds ran on different machines or versions.

    What it checks:
        The number of processes and the versions of Python and PyTorch that the claimed seeds' logs print are the
        same in all of them. Not for a single run, nor for logs that print none of it.

    Why it matters:
        Records run "in under 10 minutes on 8xH100s". Fewer processes, or a faster PyTorch, are another number of
        steps: a difference that is not the seed's. Another version seldom changes the score: hence a warning.

    Evidence:
        The log lines that print them.

    How to fix:
        Run every seed in the same environment.
    """
    chosen = counted(submission)
    if len(chosen.runs) < 2:
        return None
    tables = [_environment(run) for run in chosen.runs]
    shared = list(dict.fromkeys(key for table in tables for key in table))
    if not shared:
        return None
    common = [key for key in shared if all(key in table for table in tables)]
    different = [key for key in common if len({table[key].value for table in tables}) > 1]
    values: dict[str, Value] = {"compared_count": len(common), "different_count": len(different)}
    if not common:
        reason = f"the logs print no common one of {listed(shared)}"
        return undecided("Whether the seeds ran in the same environment cannot be told", reason, *_logs(chosen.runs))
    if not different:
        told = listed([f"{key} {tables[0][key].value}" for key in common])
        where = places(*(table[key] for table in tables for key in common))
        return Outcome(Verdict.PASS, f"All {len(tables)} runs have the same {told}.", values, where)
    unclear = unclear_runs(chosen, f"The logs differ in {listed(different)}")
    if unclear is not None:
        return unclear
    columns = {key: [table[key].value for table in tables] for key in different}
    names = run_names(chosen.runs)
    values["differences"] = difference_table(columns, names)
    clauses = [f"{key} ({' / '.join(cells)})" for key, cells in columns.items()]
    where = places(*(table[key] for table in tables for key in different))
    return Outcome(Verdict.WARN, f"The environments of {' / '.join(names)} differ: {listed(clauses)}.", values, where)


def _environment(run: Run) -> dict[str, Located[str]]:
    """What the log prints of the environment, by name."""
    found = dict(run.versions)
    if isinstance(run.world_size, Located):
        found["processes"] = Located(str(run.world_size.value), run.world_size.location)
    return found


RULES = (mixed_shards, seed_under_two_names, environment_differs)
