"""PG103 to PG107: the code's bytes as logged, against the files on disk and against itself."""

from __future__ import annotations

from collections.abc import Sequence

from harness.checks.common import (
    counted,
    known,
    listed,
    of_claimed_seeds,
    places,
    reason_of,
    seed_name,
    size,
    undecided,
)
from harness.facts.runs import Run
from harness.facts.size import Recount
from harness.facts.submission import Submission
from harness.model import Evidence, Located, Location, Missing, Outcome, Status, Value, Verdict, rule

FAMILY = "size"
# Versions of the minifier and of the compressor give sizes that differ by some bytes: by 0 to 5 where the
# script is the logged one, by 0.3% after an edit.
RECOUNT_SLACK = 0.01
RECOUNT_SLACK_BYTES = 64


@rule("PG103", "code-size-differs", family=FAMILY, status=Status.POLICY, authority="#2124; README FAQ")
def code_size_differs(submission: Submission) -> Outcome | None:
    """The code bytes in the logs are not those on disk.

    What it checks:
        The code size that the claimed seeds' logs state, against the training script on disk, every other script,
        and all code files together. A much smaller logged figure can be the compressed accounting; it is named as
        such, not judged.

    Why it matters:
        A log belongs to the script that wrote it. A few bytes of difference are mostly an edited comment, so this
        warns.

    Evidence:
        The log's code-size line and the file on disk.

    How to fix:
        Ship the script that wrote the logs, byte for byte.
    """
    entry, every = submission.size.entry_code_bytes, submission.size.all_code_bytes
    logged = [run.code_bytes for run in counted(submission).runs]
    if not any(isinstance(fact, Located) for fact in logged):  # the score's own log may be of an evaluation alone
        logged = [run.code_bytes for run in of_claimed_seeds(submission)]
    stated = [fact for fact in logged if isinstance(fact, Located)]
    if isinstance(entry, Missing):
        return undecided("The logged code size cannot be compared", entry.reason)
    if not stated:
        return undecided("The logged code size cannot be compared", reason_of(logged) or "no log was read", entry)
    distinct = sorted({fact.value for fact in stated})
    values: dict[str, Value] = {
        "logged_bytes": list(distinct),
        "script_bytes": entry.value,
        "all_code_bytes": known(every),
    }
    where = places(*stated, entry)
    shipped = {entry.value, known(every)} | {script.size_bytes for script in submission.package.scripts}
    different = [value for value in distinct if value not in shipped]
    if not different:
        return Outcome(Verdict.PASS, f"The logged code size is the one on disk, {size(distinct[0])}.", values, where)
    figures = listed([size(value) for value in different])
    apart = [fact for fact in stated if fact.value in different]
    who = "The logs count" if len(apart) == len(stated) else f"{len(apart)} of {len(stated)} logs count"
    message = f"{who} {figures} of code; the shipped script has {size(entry.value)}"
    if isinstance(every, Located) and every.value != entry.value:
        message = f"{message}, all code files {size(every.value)}"
    if max(different) < entry.value / 2:
        note = f"{message}: the logs count compressed code."
        return Outcome(Verdict.PASS, f"{message}, which fits a compressed count.", values, where, notes=(note,))
    return Outcome(Verdict.WARN, f"{message}.", values, where)


@rule(
    "PG106",
    "compressed-code-differs",
    family=FAMILY,
    status=Status.DISPUTED,
    authority="README FAQ; #1835",
    needs=Evidence.RECOUNT,
)
def compressed_code_differs(submission: Submission) -> Outcome | None:
    """The logged size of the compressed code is smaller than the script gives.

    What it checks:
        Where the logs count the code compressed: the shipped script, minified, compressed and put into the usual
        two-line wrapper again, by the script's own options where it states them. It warns when a logged figure is
        more than 1% below every way of packing in use, what the script was edited since allowed for.

    Why it matters:
        "The submission artifact is computed as code bytes plus compressed model bytes." Counting code that is not
        shipped in the counted form has been accepted, but the figure must then be that of this code.

    Evidence:
        The log's line of compressed code, and the shipped script recounted (`harness audit --recount`).

    How to fix:
        Print the size that the shipped script gives, or ship the script packed.
    """
    logged = [run for run in of_claimed_seeds(submission) if isinstance(run.compressed_code_bytes, Located)]
    found = submission.size.recount
    if not logged:
        return None
    facts = [run.compressed_code_bytes for run in logged]
    if isinstance(found, Missing):
        return undecided("The logged compressed code size cannot be compared", found.reason, *facts)
    entry = known(submission.size.entry_code_bytes) or 0
    gaps = {seed_name(run): (known(run.compressed_code_bytes) or 0) - _nearest(run, found.value) for run in logged}
    small = [run for run in logged if -gaps[seed_name(run)] > _slack(run, entry, found.value)]
    values: dict[str, Value] = {"recounted_bytes": found.value.code_bytes, "recounted_by": found.value.method}
    values["difference_bytes"] = dict(gaps)
    figures = listed([size(value) for value in sorted({known(fact) or 0 for fact in facts})])
    message = f"The logs count {figures} of compressed code; recounted ({found.value.method}) it is "
    message += size(found.value.code_bytes)
    if small and not found.value.stated:
        return undecided(
            message, "the script does not say how it counts, and other options pack tighter", *facts, found
        )
    if small:
        message += f", and no way of packing comes within {RECOUNT_SLACK:.0%} ({listed(list(map(seed_name, small)))})"
        return Outcome(Verdict.WARN, f"{message}.", values, places(*facts, found))
    return Outcome(Verdict.PASS, f"{message}.", values, places(*facts, found))


def _nearest(run: Run, found: Recount) -> int:
    """The recounted size, of all ways of packing, that is nearest to the logged one."""
    logged = known(run.compressed_code_bytes) or 0
    ways = [size for way, size in found.others_bytes.items() if "+" in way] or [found.code_bytes]
    return min(ways, key=lambda size: abs(size - logged))


def _slack(run: Run, entry: int, found: Recount) -> float:
    """How far a figure may lie below the recount: other versions of the tools, and edits since the run."""
    logged = known(run.code_bytes)
    edited = abs(logged - entry) if logged is not None else 0
    return max(RECOUNT_SLACK_BYTES, RECOUNT_SLACK * found.code_bytes) + edited


@rule("PG107", "size-parts-differ", family=FAMILY, status=Status.POLICY, authority="README FAQ")
def size_parts_differ(submission: Submission) -> Outcome | None:
    """The total that a log prints is not the sum of the parts that it prints.

    What it checks:
        The logged total against the logged compressed model plus the logged code, plain or compressed, and against
        the code on disk.

    Why it matters:
        "The submission artifact is computed as code bytes plus compressed model bytes." A total that is not the
        sum counts something else too, or something less.

    Evidence:
        The size lines of the logs.

    How to fix:
        Print the total of what is printed above it, and name every part.
    """
    runs = of_claimed_seeds(submission)
    stated = [run for run in runs if isinstance(run.total_bytes, Located) and isinstance(run.model_bytes, Located)]
    if not stated:
        reasons = reason_of([*(run.total_bytes for run in runs), *(run.model_bytes for run in runs)])
        return undecided("The logged total cannot be compared with its parts", reasons or "no log was read")
    code = [known(submission.size.entry_code_bytes), known(submission.size.all_code_bytes)]
    wrong = [run for run in stated if _rest(run) not in {*code, *_logged_code(run)}]
    where = _size_lines(stated)
    if not wrong:
        message = f"Model and code give the logged total in {len(stated)} of {len(runs)} logs."
        return Outcome(Verdict.PASS, message, locations=where)
    unread = [run for run in wrong if not _logged_code(run)]
    if len(unread) == len(wrong):
        return undecided("The logged total cannot be compared with its parts", reason_of(r.code_bytes for r in unread))
    run = next(run for run in wrong if _logged_code(run))
    nearest = min(_logged_code(run), key=lambda each: abs(_rest(run) - each))
    difference = _rest(run) - nearest
    values: dict[str, Value] = {"difference_bytes": difference, "total_bytes": known(run.total_bytes)}
    side = "more" if difference > 0 else "less"
    message = (
        f"{listed([seed_name(run) for run in wrong if _logged_code(run)])}: the logged total "
        f"{size(known(run.total_bytes) or 0)} is {size(abs(difference))} {side} than model "
        f"{size(known(run.model_bytes) or 0)} and code {size(nearest)}."
    )
    return Outcome(Verdict.WARN, message, values, _size_lines(wrong))


def _rest(run: Run) -> int:
    """What a log's total holds beside the model, in bytes."""
    return (known(run.total_bytes) or 0) - (known(run.model_bytes) or 0)


def _logged_code(run: Run) -> list[int]:
    """The code sizes that a log prints."""
    return [fact.value for fact in (run.code_bytes, run.compressed_code_bytes) if isinstance(fact, Located)]


def _size_lines(runs: Sequence[Run]) -> tuple[Location, ...]:
    return places(*(fact for run in runs for fact in (run.model_bytes, run.code_bytes, run.total_bytes)))


RULES = (code_size_differs, compressed_code_differs, size_parts_differ)
