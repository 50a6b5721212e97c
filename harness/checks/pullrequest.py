"""PG02x: does a pull request add one record folder and nothing else, and when? They run under `harness gate` only."""

from __future__ import annotations

import datetime as dt

from harness.challenge import SUBMISSIONS_CLOSE
from harness.checks.common import listed, many, places, reason_of, undecided
from harness.facts.change import ChangedPath, ChangeFacts
from harness.facts.submission import Submission
from harness.model import Evidence, Located, Location, Missing, Outcome, Status, Value, Verdict, rule

FAMILY = "package"
AUTHORITY = "README, Submission Process; #8, #496, #545, #2013"
# What maintainers edit themselves when a record is accepted.
LEADERBOARD = "README.md"
PATHS_LIMIT = 50
# Clocks of two time zones may name two days for one moment.
ZONES = dt.timedelta(days=1)


@rule(
    "PG020",
    "pull-request-touches-other-paths",
    family=FAMILY,
    status=Status.SETTLED,
    authority=AUTHORITY,
    needs=Evidence.PULL_REQUEST,
)
def touches_other_paths(submission: Submission) -> Outcome | None:
    """The pull request changes files outside of record folders.

    What it checks:
        Every changed path lies in a folder below `records/<track>/` (or below `submissions/`). An edit of the
        README's leaderboard alone warns: maintainers make it themselves. A file counts as moved when its content is
        the same to the bit. What the base branch did since is not counted.

    Why it matters:
        "All submissions should be made as a pull request that only adds a new folder to the appropriate /records
        subfolder." Pull requests with more in them have been merged (#542, #1868), by people who had looked at it.

    Evidence:
        The changed paths between the head and the commit where it left its base.

    How to fix:
        Restore the other files from the base branch: `git checkout BASE -- PATH`.
    """
    change = submission.change
    if isinstance(change, Missing):
        return None
    if not change.outside:
        return Outcome(Verdict.PASS, "Every changed path lies in a record folder.")
    values: dict[str, Value] = {"other_path_count": len(change.outside), "other_paths": _values(change.outside)}
    told = f"{many(len(change.outside), 'path')} outside of record folders: {_told(change.outside)}"
    if all(one.path == LEADERBOARD and one.status == "modified" for one in change.outside):
        return Outcome(
            Verdict.WARN, f"The change edits {LEADERBOARD} too, which maintainers do when they accept a record.", values
        )
    return Outcome(Verdict.FAIL, f"The change touches {told}.", values)


@rule(
    "PG021",
    "not-one-record-folder",
    family=FAMILY,
    status=Status.SETTLED,
    authority=AUTHORITY,
    needs=Evidence.PULL_REQUEST,
)
def not_one_record_folder(submission: Submission) -> Outcome | None:
    """The pull request does not add exactly one record folder.

    What it checks:
        One folder that the base does not have is added below a track, and no other record is touched. A change of
        records that are there already, or a move of one of them to another name, warns: that is a correction, for
        people to judge. No new folder at all, several of them, one that stands below no track, and a new folder
        together with a change or removal of other records fail.

    Why it matters:
        "All submissions should be made as a pull request that only adds a new folder to the appropriate /records
        subfolder." A second folder is a second submission with a claim of its own, and a record that is edited in
        passing is a claim that changes after it was judged.

    Evidence:
        The changed paths between the head and the commit where it left its base.

    How to fix:
        Open one pull request for each folder, from a branch that starts at the competition's main branch.
    """
    change = submission.change
    if isinstance(change, Missing):
        return None
    values = {"new_folder_count": len(change.new_folders), "edited_folder_count": len(change.edited_folders)}
    wrong = _defect(change)
    if wrong:
        return Outcome(Verdict.FAIL, wrong, values)
    edited = _correction(change)
    if edited:
        return Outcome(Verdict.WARN, edited, values)
    return Outcome(Verdict.PASS, f"The change adds one record folder, {change.new_folders[0]}.", values)


def _defect(change: ChangeFacts) -> str:
    """What no submission may do, as a sentence, or ""."""
    gone = [one for one in change.removed if one.status == "deleted"]
    if not change.folders:
        return "The change adds no record folder."
    if len(change.new_folders) > 1:
        return f"The change adds {len(change.new_folders)} record folders, not one: {listed(change.new_folders)}."
    if change.misplaced:
        return f"The new folder stands at {change.misplaced[0]}, below no track (records/track_10min_16mb/ or another)."
    if gone:
        return f"The change deletes {many(len(gone), 'file')} of records that are there already: {_told(gone)}."
    if change.new_folders and change.edited_folders and not _is_move(change):
        return (
            f"The change adds {change.new_folders[0]} and changes records that are there already: "
            f"{listed(change.edited_folders)}."
        )
    return ""


def _correction(change: ChangeFacts) -> str:
    """What people have to judge, as a sentence, or ""."""
    if change.new_folders and change.edited_folders:
        return f"The change moves the record {change.edited_folders[0]} to {change.new_folders[0]}."
    if change.edited_folders:
        return f"The change adds no record folder; it changes what is there already: {listed(change.edited_folders)}."
    return ""


def _is_move(change: ChangeFacts) -> bool:
    """Whether the only other record that changes is the one from which files are moved into the new folder."""
    return change.moved == ((change.new_folders[0], change.edited_folders[0]),) and len(change.edited_folders) == 1


@rule(
    "PG022",
    "dates-disagree",
    family=FAMILY,
    status=Status.POLICY,
    authority="#1902, #2146",
    needs=Evidence.PULL_REQUEST,
)
def dates_disagree(submission: Submission) -> Outcome | None:
    """The dates of commits and of submission.json disagree, or lie after the cut-off.

    What it checks:
        The head's last commit (committer time) and the date in submission.json lie before 2026-05-02T00:00Z, and
        the date is not later than the last commit, one day apart at most for time zones. Below `submissions/` there
        is no cut-off.

    Why it matters:
        Pull requests are judged in the order of their creation, and "code and evidence" must precede the cut-off
        (#1902, #2146). Commit times are what the author's clock said, and the time at which a pull request was
        opened is not in the repository: neither a pass nor a warning here is the last word. Hence a policy rule.

    Evidence:
        The committer times of the head's own commits; `date` in submission.json.

    How to fix:
        Correct the date in submission.json; for commits after the cut-off, say in the README what they change.
    """
    change = submission.change
    if isinstance(change, Missing):
        return None
    date, first, last = submission.claims.date, change.first_commit, change.last_commit
    if isinstance(date, Missing) or isinstance(first, Missing) or isinstance(last, Missing):
        return undecided("The dates cannot be compared", reason_of((date, last)), date)
    values = {
        "date": date.value.isoformat(),
        "first_commit": first.value.isoformat(),
        "last_commit": last.value.isoformat(),
    }
    told = f"submission.json says {date.value}, the commits {_span(first.value, last.value)}"
    clauses = _late(submission, date.value, last.value)
    if date.value > (last.value + ZONES).date():
        clauses.append("the date is later than the last commit")
    if clauses:
        return Outcome(Verdict.WARN, f"{'; '.join(clauses).capitalize()}: {told}.", values, places(date))
    return Outcome(Verdict.PASS, f"The dates agree and precede the cut-off: {told}.", values, places(date))


def _late(submission: Submission, date: dt.date, last: dt.datetime) -> list[str]:
    """What lies after the cut-off, as clauses."""
    if not submission.folder.startswith("records/"):
        return []
    cut_off = f"the cut-off {SUBMISSIONS_CLOSE:%Y-%m-%dT%H:%MZ}"
    found = [f"the last commit lies after {cut_off}"] if last >= SUBMISSIONS_CLOSE else []
    return found + ([f"the date lies after {cut_off}"] if date >= SUBMISSIONS_CLOSE.date() else [])


def _span(first: dt.datetime, last: dt.datetime) -> str:
    days = [f"{moment:%Y-%m-%d %H:%MZ}" for moment in (first, last)]
    return days[0] if first == last else f"{days[0]} to {days[1]}"


@rule(
    "PG023",
    "content-withheld",
    family=FAMILY,
    status=Status.POLICY,
    authority="README FAQ",
    needs=Evidence.PULL_REQUEST,
)
def content_withheld(submission: Submission) -> Outcome | None:
    """The repository does not hold what stands in the folder.

    What it checks:
        Every entry of the folder is a file, or a link within it, whose content is in the repository: no submodule,
        no Git LFS pointer, no name that is unsafe to write.

    Why it matters:
        "The artifact must be fully self-contained and reproducible." Content that is kept elsewhere can change after
        the review, and was not audited.

    Evidence:
        The tree of the folder at the head.

    How to fix:
        Commit the files themselves; leave weights and datasets out.
    """
    change = submission.change
    if isinstance(change, Missing):
        return None
    if not change.withheld:
        return Outcome(Verdict.PASS, "The repository holds the content of every entry.")
    clauses = [f"{entry.location.path} ({entry.value})" for entry in change.withheld]
    return undecided("Some entries were not read", listed(clauses), *_existing(change.withheld))


def _existing(withheld: tuple[Located[str], ...]) -> tuple[Location, ...]:
    return tuple(dict.fromkeys(entry.location for entry in withheld))


def _told(paths: tuple[ChangedPath, ...] | list[ChangedPath]) -> str:
    return listed([f"{one.path} ({one.status})" for one in paths])


def _values(paths: tuple[ChangedPath, ...]) -> list[Value]:
    return [f"{one.status} {one.path}" for one in paths[:PATHS_LIMIT]]


RULES = (touches_other_paths, not_one_record_folder, dates_disagree, content_withheld)
