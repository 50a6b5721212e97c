"""PG4xx, against the previous record: is the claim better than chance, in every edition and unit of the rule?"""

from __future__ import annotations

import datetime as dt
import statistics
from collections.abc import Sequence

from harness.checks.common import (
    agree,
    bpb,
    claim_unit,
    counted,
    exact_scores,
    headline_bpb,
    known,
    listed,
    many,
    places,
    printed_unit,
    table_unit,
    undecided,
)
from harness.checks.fingerprint import ratio_of
from harness.checks.significance import seed_values
from harness.checks.welch import Reading, needed_mean, readings
from harness.facts.previous import Previous, Row, Sample, pooled, sample_of
from harness.facts.runs import Run
from harness.facts.submission import Submission
from harness.model import Evidence, Fact, Located, Location, Missing, Outcome, Status, Value, Verdict, rule

FAMILY = "significance"
# Two runs do not agree in this many decimals by chance.
TELLING_UNIT_BPB = 1e-7
SYSTEMS_NOTE = (
    "A change of systems only (the same training, faster) needs no significance by the README; whether this is one, "
    "people decide."
)


def scores(submission: Submission) -> tuple[tuple[Located[float], ...], float]:
    """The scores that the claim rests on, and one unit of their last digit.

    The counted runs' logs, unless submission.json or the README lists more scores than there are logs. When nobody
    says which logs the claim is about, their mean has to be the claim; otherwise no log speaks for it.
    """
    chosen = counted(submission)
    found = [score for run in chosen.runs if (score := _score(submission, run, alone=len(chosen.runs) == 1))]
    logged, unit = tuple(found), max((printed_unit(run) for run in chosen.runs), default=0.0)
    source, stated, stated_unit = seed_values(submission)
    claim = known(submission.claims.val_bpb)
    if not chosen.basis and claim is not None:
        for values, digit in ((logged, unit), (stated, stated_unit)):
            if values and agree(
                statistics.fmean(score.value for score in values), claim, max(digit, claim_unit(claim))
            ):
                return values, digit
        return (), 0.0
    if source in {"submission.json", "README"} and len(stated) > len(logged):
        return stated, stated_unit
    return logged, unit


def _claim(submission: Submission) -> Fact[float]:
    """The claim of submission.json, else the README's headline."""
    claim, readme = submission.claims.val_bpb, submission.readme.val_bpb
    return readme if isinstance(claim, Missing) and isinstance(readme, Located) else claim


def _score(submission: Submission, run: Run, *, alone: bool) -> Located[float] | None:
    """The run's final score that the claims name, else its headline.

    Logs go on to evaluate what nobody claims: another cache, another width of the weights.
    """
    tables = (submission.claims.seeds, submission.readme.seeds)
    named = [
        (claim.val_bpb.value, table_unit(table))
        for table in tables
        for claim in table
        if isinstance(claim.val_bpb, Located) and known(claim.seed) is not None and known(claim.seed) == known(run.seed)
    ]
    claim = known(submission.claims.val_bpb)
    named += [(claim, claim_unit(claim))] if alone and claim is not None else []
    headline = headline_bpb(run)
    for value, unit in named:
        finals = [] if headline is None else [(headline, printed_unit(run))]
        finals += [
            (score.val_bpb, 10.0**-score.digits)
            for score in exact_scores(run)
            if isinstance(score.val_bpb, Located) and not score.diagnostic
        ]
        same = [score for score, digit in finals if agree(score.value, value, max(digit, unit))]
        if headline in same:
            return headline
        if same:
            return min(same, key=lambda score: abs(score.value - value))
    return headline


def row_of(submission: Submission) -> Row | Missing:
    """The submission as a row of a leaderboard; Missing when no score of it was read."""
    found, _ = scores(submission)
    values = [score.value for score in found]
    if not values:
        claim = _claim(submission)
        if isinstance(claim, Missing):
            return Missing("neither a log nor submission.json states a score that was read")
        if claim.value <= 0.0:
            return Missing(f"no score was read from a log, and {bpb(claim.value)} is a placeholder", claim.location)
        values = [claim.value]
    return Row(submission.name, known(date_of(submission)), sample_of(values))


def date_of(submission: Submission) -> Fact[dt.date]:
    """The date of submission.json, else the one at the beginning of the folder's name."""
    stated = submission.claims.date
    if isinstance(stated, Located):
        return stated
    try:
        return Located(dt.date.fromisoformat(submission.name[:10]), Location("."))
    except ValueError:
        return stated


def previous_row(submission: Submission, previous: Previous) -> Row | Missing:
    """The row that the claim has to beat: the one named, else the leaderboard's best one of an earlier day.

    Rows of one day are in no known order.
    """
    if previous.chosen:
        return previous.rows[0]
    date = date_of(submission)
    if isinstance(date, Missing):
        return Missing(f"which row came before cannot be told ({date.reason})", date.location)
    before = [
        row for row in previous.rows if row.date is not None and row.date < date.value and row.name != submission.name
    ]
    if not before:
        return Missing(f"the leaderboard has no row before {date.value}")
    return min(before, key=lambda row: row.sample.mean)


def _own_reproductions(submission: Submission, previous: Previous) -> tuple[tuple[str, Sample], ...]:
    """Independent reproductions of the submission itself, from the leaderboard's row of its name."""
    return next((row.reproductions for row in previous.rows if row.name == submission.name), ())


def _bytes_per_token(submission: Submission) -> float | None:
    ratios = [ratio for run in counted(submission).runs if (ratio := ratio_of(run)) is not None]
    return ratios[0].value if ratios else None


@rule(
    "PG404",
    "record-not-significant",
    family=FAMILY,
    status=Status.POLICY,
    authority="README, Submission Process; #1899, #1900, #1902, #2146",
    needs=Evidence.PREVIOUS,
)
def record_not_significant(submission: Submission) -> Outcome | None:
    """The scores do not beat the previous record as the rules' edition asks.

    What it checks:
        One-sided Welch tests of the per-seed val_bpb against the previous record's, in every edition and unit side
        by side: 0.005 nats at p < 0.01, with the margin read per token, per byte and as 0.005 BPB; no margin at
        p < 0.25, the edition from 2026-04-28. Independent reproductions in a leaderboard file are pooled with the
        own runs. The edition in force on the submission's date decides; when its units disagree, or only the other
        edition is met, the sentence says so. A one-sample t-test and MLPerf's pooled test stand beside them as
        information. With one seed on a side there is no p-value, only the mean that three seeds would need.

    Why it matters:
        "New SOTA records must ... beat the existing SOTA by at least 0.005 nats ... provide enough run logs to show
        at p < 0.01"; the unit was never settled, and from 2026-04-28 maintainers compared with a Welch test
        without margin. Systems-only changes need none. Hence a warning, never a failure.

    Evidence:
        The final scores in the logs, and `--previous`: a record folder or a leaderboard file.

    How to fix:
        Run more seeds with the same script, or claim no record.
    """
    previous = submission.previous
    if isinstance(previous, Missing):
        return None
    own, row = row_of(submission), previous_row(submission, previous)
    for side in (own, row):
        if isinstance(side, Missing):
            return undecided("The claim cannot be tested", side.reason, side)
    if isinstance(own, Missing) or isinstance(row, Missing):
        return None
    extra = _own_reproductions(submission, previous)
    new = pooled((own.sample, *(sample for _, sample in extra)))
    every = readings(new, row.pooled, _bytes_per_token(submission))
    subject = f"{_told(new, extra)} against {row.name}'s {_told(row.pooled, row.reproductions)}"
    where = places(*scores(submission)[0])
    values = _values(new, row.pooled, every)
    notes = (SYSTEMS_NOTE, *_later(date_of(submission), row), *_same_day(submission, previous))
    binding = [reading for reading in every if reading.edition == previous.edition.name]
    if all(reading.p_value is None for reading in binding):
        reason = _without_p(new, row.pooled, previous, binding)
        return Outcome(Verdict.UNDECIDED, f"{subject}: {reason}.", values, where, notes)
    verdict, clause = _judge(binding, every, previous)
    return Outcome(verdict, f"{subject}: {clause}.", values, where, notes)


def _told(sample: Sample, reproductions: Sequence[tuple[str, Sample]]) -> str:
    """`1.06108 BPB (3 runs, deviation 0.0009)`."""
    spread = "" if sample.deviation is None else f", deviation {sample.deviation:.5f}"
    more = f", {many(len(reproductions), 'reproduction')} pooled" if reproductions else ""
    return f"{bpb(round(sample.mean, 6))} ({many(sample.count, 'run')}{spread}{more})"


def _judge(binding: Sequence[Reading], every: Sequence[Reading], previous: Previous) -> tuple[Verdict, str]:
    """Verdict and clause by the readings of the edition in force."""
    met = [reading for reading in binding if reading.met]
    told = "; ".join(_reading(reading) for reading in binding)
    edition = f"by the edition of {previous.edition.name} (p < {previous.edition.p_value:g})"
    if len(met) == len(binding):
        return Verdict.PASS, f"significant {edition}: {told}"
    if met:
        return Verdict.WARN, f"significant {edition} in one unit and not in another: {told}"
    others = [reading for reading in every if reading.edition not in {"", previous.edition.name}]
    rest = "met" if any(reading.met for reading in others) else "not met either"
    other = f"the edition of {others[0].edition} is {rest}: {'; '.join(map(_reading, others))}"
    return Verdict.WARN, f"not significant {edition}: {told}; {other}"


def _reading(reading: Reading) -> str:
    p_value = "no p-value" if reading.p_value is None else f"p = {reading.p_value:.3g}"
    margin = f" ({reading.margin_bpb:.5f} BPB)" if reading.margin_bpb else ""
    return f"{reading.name}{margin}, {p_value}"


def _without_p(new: Sample, old: Sample, previous: Previous, binding: Sequence[Reading]) -> str:
    """Why there is no p-value, and what would give one."""
    difference = f"the means differ by {new.mean - old.mean:+.6f} BPB, and there is no p-value"
    if new.count > 1 and old.count > 1:
        return f"{difference}, because neither side's scores deviate at all"
    sides = [name for name, sample in (("the claim", new), ("the previous record", old)) if sample.count < 2]
    reason = f"{difference} with one run of {' and of '.join(sides)}"
    needed = needed_mean(old, previous.edition, binding[0].margin_bpb)
    if needed is None or new.count > 1:
        return f"{reason}; two more runs of {'each' if len(sides) > 1 else 'it'} would give one"
    return f"{reason}; three runs that deviate as the previous record's would need a mean of {bpb(round(needed, 5))}"


def _values(new: Sample, old: Sample, every: Sequence[Reading]) -> dict[str, Value]:
    difference = new.mean - old.mean
    table: list[Value] = [
        {
            "reading": reading.name,
            "edition": reading.edition or "information",
            "margin_bpb": round(reading.margin_bpb, 6),
            "difference_reaches_margin": difference <= -reading.margin_bpb,
            "p_value": None if reading.p_value is None else round(reading.p_value, 6),
            "cut_off": reading.cut_off,
            "met": reading.met,
        }
        for reading in every
    ]
    return {
        "mean_bpb": round(new.mean, 8),
        "deviation_bpb": None if new.deviation is None else round(new.deviation, 8),
        "run_count": new.count,
        "previous_mean_bpb": round(old.mean, 8),
        "previous_deviation_bpb": None if old.deviation is None else round(old.deviation, 8),
        "previous_run_count": old.count,
        "difference_bpb": round(difference, 8),
        "readings": table,
    }


def _later(date: Fact[object], row: Row) -> tuple[str, ...]:
    """A note when the previous record is dated after the submission."""
    own = known(date)
    if row.date is None or own is None or str(row.date) <= str(own):
        return ()
    return (f"{row.name} is dated {row.date}, after the submission ({own}).",)


def _same_day(submission: Submission, previous: Previous) -> tuple[str, ...]:
    """A note when other rows of a leaderboard are of the submission's own day."""
    date = known(date_of(submission))
    names = [row.name for row in previous.rows if row.date == date and row.name != submission.name]
    if previous.chosen or date is None or not names:
        return ()
    return (f"Of the same day, and not compared: {listed(names)}; which came first, a date does not tell.",)


@rule(
    "PG405",
    "scores-of-previous-record",
    family=FAMILY,
    status=Status.POLICY,
    authority="README, Submission Process; #2124",
    needs=Evidence.PREVIOUS,
)
def scores_of_previous_record(submission: Submission) -> Outcome | None:
    """A score of the previous record stands among the submission's own.

    What it checks:
        Scores of at least seven decimals that are the same in the submission and in the previous record. Two runs
        do not agree that far by chance.

    Why it matters:
        A test compares two independent sets of runs. A folder started from the record's own may still hold its
        logs, and a rerun of the record is no new one: hence a warning.

    Evidence:
        The score's line, and the previous record's folder or row.

    How to fix:
        Ship the logs of the submission's own runs.
    """
    previous = submission.previous
    if isinstance(previous, Missing):
        return None
    row = previous_row(submission, previous)
    if isinstance(row, Missing):
        return undecided("The scores cannot be compared with the previous record's", row.reason, row)
    found, unit = scores(submission)
    if not row.sample.values or not found or unit > TELLING_UNIT_BPB:
        reason = f"{row.name} or the submission states none of seven decimals"
        return undecided("The scores cannot be compared with the previous record's", reason, *found)
    same = [
        score for score in found if score.value in row.sample.values and claim_unit(score.value) <= TELLING_UNIT_BPB
    ]
    values: dict[str, Value] = {"compared_count": len(found), "same_count": len(same)}
    if not same:
        message = f"None of {many(len(found), 'score')} is one of {row.name}'s."
        return Outcome(Verdict.PASS, message, values, places(*found))
    message = f"The same scores in {row.name}: {listed([bpb(score.value) for score in same])}."
    return Outcome(Verdict.WARN, message, values, places(*same))


RULES = (record_not_significant, scores_of_previous_record)
