"""PG104, PG105: code that a run needs and that some way of counting, or the log itself, leaves out."""

from __future__ import annotations

from harness.challenge import ARTIFACT_CAP_BYTES
from harness.checks.common import known, listed, of_claimed_seeds, places, reason_of, size, undecided
from harness.checks.size import accountings, relevant
from harness.facts.package import Script
from harness.facts.submission import Submission
from harness.model import Located, Location, Missing, Outcome, Status, Value, Verdict, rule

FAMILY = "size"
# A script this short that leads to ten times its own bytes of code holds none of the submission itself.
STUB_LIMIT_BYTES = 2_000
STUB_SHARE = 10


@rule("PG104", "stub-hides-code", family=FAMILY, status=Status.DISPUTED, authority="README FAQ; #1835")
def stub_hides_code(submission: Submission) -> Outcome | None:
    """The training script is a few lines that run another file, which one way of counting leaves out.

    What it checks:
        Whether the training script executes a file beside it, or is shorter than 2,000 bytes and imports or names at
        least ten times its own bytes of shipped code. The report names both and gives the artifact in every
        accounting. Which files a script reaches is read from its imports and from file names in strings.

    Why it matters:
        "All counted code should live in the train_gpt.py script." A stub has been accepted, with the file that it
        runs counted; counted as shipped the code of such a submission is next to nothing, hence a warning.

    Evidence:
        The training script, the line that runs the other file, and the files' sizes on disk.

    How to fix:
        Ship the code as the training script itself, packed if need be.
    """
    entry = submission.package.entry
    if isinstance(entry, Missing):
        return undecided("Whether the training script is a stub cannot be told", entry.reason, entry)
    helpers = _helpers(submission, entry.value)
    run = {layer.removeprefix("file:") for layer in entry.value.layers if layer.startswith("file:")}
    bytes_on_disk, more = entry.value.size_bytes, sum(helpers.values())
    small = bytes_on_disk <= STUB_LIMIT_BYTES and more >= STUB_SHARE * bytes_on_disk > 0
    values: dict[str, Value] = {"script_bytes": bytes_on_disk, "other_code_bytes": more}
    if not run and not small:
        unread = entry.value.parsed
        if isinstance(unread, Missing) and bytes_on_disk <= STUB_LIMIT_BYTES:
            return undecided("Whether the training script is a stub cannot be told", unread.reason, unread)
        return Outcome(
            Verdict.PASS,
            f"{entry.value.path} holds the code itself ({size(bytes_on_disk)}).",
            values,
            (Location(entry.value.path),),
        )
    message = (
        f"{entry.value.path} has {size(bytes_on_disk)} and leads to {_named(helpers)}: `script as shipped` counts "
        f"{size(bytes_on_disk)} of code, `all code files` {size(bytes_on_disk + more)}{_counted(submission)}"
    )
    return Outcome(Verdict.WARN, f"{message}. {_totals(submission)}", values, _where(submission, entry.value))


def _helpers(submission: Submission, entry: Script) -> dict[str, int]:
    """Bytes of every code file that the script needs besides itself."""
    needed = set(submission.size.code_files) - {entry.path}
    return {file.path: file.size_bytes for file in submission.package.files if file.path in needed}


def _named(helpers: dict[str, int]) -> str:
    return listed([f"{path} ({size(count)})" for path, count in helpers.items()]) or "a file beside it"


def _counted(submission: Submission) -> str:
    """What the logs count as code, as a clause."""
    counts = sorted({count for run in of_claimed_seeds(submission) if (count := known(run.code_bytes)) is not None})
    return f", the logs {listed([size(count) for count in counts])}" if counts else ""


def _totals(submission: Submission) -> str:
    """The artifact in every accounting that can be told, and which of them is under the cap."""
    told = [each for each in accountings(relevant(submission)) if each.largest is not None]
    if not told:
        return "No log tells the bytes of the model, so no total can be given."
    totals = "; ".join(
        f"{each.name} {size(each.largest or 0)}, {'over' if each.over else 'under'} the cap" for each in told
    )
    return f"The largest artifact: {totals} of {size(ARTIFACT_CAP_BYTES)}."


def _where(submission: Submission, entry: Script) -> tuple[Location, ...]:
    return places(Location(entry.path), *submission.size.named_at.values())


@rule("PG105", "helper-uncounted", family=FAMILY, status=Status.DISPUTED, authority="README FAQ; #1835")
def helper_uncounted(submission: Submission) -> Outcome | None:
    """The training script needs code files that the logged code size leaves out.

    What it checks:
        The shipped code files that the training script imports, compiles, loads or runs, directly or through others
        (Python, C, C++, CUDA, libraries), against the code bytes that the claimed seeds' logs count. It warns when
        a log counts exactly the script's own bytes.

    Why it matters:
        "The submission artifact is computed as code bytes plus compressed model bytes." and "All counted code should
        live in the train_gpt.py script." Helpers outside the count have been accepted, hence a warning.

    Evidence:
        The lines that name each helper, the files on disk, and the logs' code-size lines.

    How to fix:
        Put the helpers into the training script, or count every file in the logged code size.
    """
    entry = submission.package.entry
    if isinstance(entry, Missing):
        return undecided("Whether helpers are counted cannot be told", entry.reason, entry)
    helpers = _helpers(submission, entry.value)
    if not helpers:
        return Outcome(
            Verdict.PASS,
            f"{entry.value.path} needs no other code file of the folder.",
            {},
            (Location(entry.value.path),),
        )
    more, own = sum(helpers.values()), entry.value.size_bytes
    stated = [run.code_bytes for run in of_claimed_seeds(submission)]
    facts = [fact for fact in stated if isinstance(fact, Located)]
    where = (*_where(submission, entry.value), *places(*facts))
    subject = f"{entry.value.path} needs {_named(helpers)}"
    values: dict[str, Value] = {"script_bytes": own, "helper_bytes": more}
    if not facts:
        return undecided(
            f"{subject}, and whether they are counted cannot be told", reason_of(stated) or "no log", *where
        )
    counts = sorted({fact.value for fact in facts})
    values["logged_code_bytes"] = list(counts)
    if own in counts:
        message = f"{subject}, and the logs count {size(own)} of code, which is {entry.value.path} alone"
        return Outcome(Verdict.WARN, f"{message}. {_totals(submission)}", values, where)
    counted = {own + more, more, *(own + count for count in helpers.values()), *helpers.values()}
    if set(counts) <= counted:
        return Outcome(Verdict.PASS, f"{subject}; the logs count them.", values, where)
    figures = listed([size(count) for count in counts])
    return undecided(f"{subject}, and whether they are counted cannot be told", f"the logs count {figures}", *where)


RULES = (stub_hides_code, helper_uncounted)
