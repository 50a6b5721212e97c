"""Judged submissions counted: by label, class, cluster and pair, each share with its exact confidence interval.

Submissions that descend from one another are right or wrong together, so every share is given twice: over rows, and
over clusters, where a cluster counts as caught only when all of its rows are, and as accused when one of them is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from harness.calibrate import classes
from harness.calibrate.judge import Judged, Outcome, accusing, judged_class, twins
from harness.model import Finding
from harness.report.json import location_of

CONFIDENCE: Final = 0.95
SCHEMA: Final = "calibration/1"
SLOWEST: Final = 3
Document = Mapping[str, Any]


def interval(count: int, of: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The exact (Clopper-Pearson) confidence interval of a share.

    Example:
        >>> [round(limit, 4) for limit in interval(0, 10)]
        [0.0, 0.3085]
    """
    from scipy.special import betaincinv

    if of == 0:
        return (0.0, 1.0)
    tail = (1 - confidence) / 2
    low = float(betaincinv(count, of - count + 1, tail)) if count else 0.0
    high = float(betaincinv(count + 1, of - count, 1 - tail)) if count < of else 1.0
    return (low, high)


def share(count: int, of: int) -> Document:
    """A count, what it is a part of, and the interval of the share."""
    low, high = interval(count, of)
    return {"count": count, "of": of, "low": round(low, 4), "high": round(high, 4)}


def document(judged: Sequence[Judged], seconds: float) -> Document:
    """Everything that was counted, as JSON.

    Args:
        judged: every row, in any order.
        seconds: what the whole measurement took.
    """
    rows = sorted(judged, key=lambda one: (one.label.label, one.label.cluster, one.label.id))
    seen = [one for one in rows if one.available]
    return {
        "schema": SCHEMA,
        "confidence": CONFIDENCE,
        "summary": _summary(seen, rows),
        "labels": _confusion(rows),
        "classes": _classes(seen),
        "clusters": _clusters(seen),
        "pairs": _pairs(rows),
        "unknown_classes": sorted({name for one in rows for name in classes.unknown(one.label.classes)}),
        "rows": [_row(one, rows) for one in rows],
        "seconds": _seconds(rows, seconds),
    }


def _of(rows: Iterable[Judged], label: str, *, readable: bool | None = None) -> list[Judged]:
    return [one for one in rows if one.label.label == label and readable in {None, one.label.readable}]


def _summary(seen: Sequence[Judged], rows: Sequence[Judged]) -> Document:
    """The numbers that `--require` can bound."""
    every = _of(seen, "illegal")
    illegal, legal, broken = _of(seen, "illegal", readable=True), _of(seen, "legal"), _of(seen, "broken", readable=True)
    pairs = [pair for pair in _pairs(rows) if pair["counts"]]
    return {
        "caught": share(sum(one.caught for one in illegal), len(illegal)),
        "caught_clusters": _by_cluster(illegal, all),
        "noticed": share(sum(one.caught or one.warned for one in every), len(every)),
        "pointed": share(sum(one.pointed and not one.caught for one in illegal), len(illegal)),
        "broken": share(sum(one.caught for one in broken), len(broken)),
        "accusations": share(sum(one.caught for one in legal), len(legal)),
        "accused_clusters": _by_cluster(legal, any),
        "pairs": share(sum(pair["right"] for pair in pairs), len(pairs)),
        "unavailable": sum(not one.available for one in rows),
        "crashed": sum(bool(one.problem) for one in seen),
    }


def _by_cluster(rows: Sequence[Judged], of: Callable[[Iterable[bool]], bool]) -> Document:
    names = sorted({one.label.cluster for one in rows})
    counted = [of([one.caught for one in rows if one.label.cluster == name]) for name in names]
    return share(sum(counted), len(names))


def _outcomes(rows: Iterable[Judged]) -> dict[str, int]:
    found = [one.outcome for one in rows]
    return {outcome.value: found.count(outcome) for outcome in Outcome}


def _confusion(rows: Sequence[Judged]) -> list[Document]:
    """For each label what the rules that fit it say, with those that no reading can decide apart."""
    apart = [(label, readable) for label in ("illegal", "broken") for readable in (True, False)]
    kinds: list[tuple[str, bool | None]] = [*apart, ("legal", None), ("disputed", None)]
    table = [(label, readable, _of(rows, label, readable=readable)) for label, readable in kinds]
    return [
        {"label": label, "readable": readable, "rows": len(members), **_outcomes(members)}
        for label, readable, members in table
        if members
    ]


def _classes(seen: Sequence[Judged]) -> list[Document]:
    """For each class of illegal and broken rows that reading can decide: how many a rule of its own caught."""
    rows = [*_of(seen, "illegal", readable=True), *_of(seen, "broken", readable=True)]
    table: list[Document] = []
    for name in sorted({name for one in rows for name in one.label.classes}):
        fits = classes.rules_for(name)
        if fits == ():
            continue
        members = [one for one in rows if name in one.label.classes]
        caught = share(sum(judged_class(one, name) for one in members), len(members))
        clusters = len({one.label.cluster for one in members})
        rules = list(fits or classes.LEGALITY)
        table.append(
            {"class": name, "known": fits is not None, "rules": rules, "clusters": clusters, **_outcomes(members)}
            | {"caught": caught}
        )
    return table


def _clusters(seen: Sequence[Judged]) -> list[Document]:
    table: list[Document] = []
    for name in sorted({one.label.cluster for one in seen}):
        members = [one for one in seen if one.label.cluster == name]
        wrong = [*_of(members, "illegal", readable=True), *_of(members, "broken", readable=True)]
        legal = _of(members, "legal")
        table.append(
            {
                "cluster": name,
                "rows": len(members),
                "caught": share(sum(one.caught for one in wrong), len(wrong)),
                "accused": share(sum(one.caught for one in legal), len(legal)),
            }
        )
    return table


def _pairs(rows: Sequence[Judged]) -> list[Document]:
    """Each pair once: what is said of either, and whether that is right for both."""
    every = {one.label.id: one for one in rows}
    table: list[Document] = []
    for one in sorted(rows, key=lambda row: row.label.id):
        other = every.get(one.label.pair)
        if one.label.pair and other is None:
            table.append(_pair(one, None))
        elif other is not None and (one.label.id < other.label.id or other.label.pair != one.label.id):
            table.append(_pair(one, other))
    return table


def _pair(one: Judged, other: Judged | None) -> Document:
    """`counts` says whether both have a verdict that the rules can reach: legal, illegal or broken, and readable."""
    members = [member for member in (one, other) if member is not None]
    counts = len(members) == 2 and all(
        member.available and member.label.label != "disputed" and member.label.readable for member in members
    )
    return {
        "rows": [
            {"id": member.label.id, "label": member.label.label, "outcome": member.outcome.value} for member in members
        ],
        "absent": one.label.pair if other is None else "",
        "counts": counts,
        "right": counts and all(member.caught is (member.label.label != "legal") for member in members),
    }


def _row(one: Judged, rows: Sequence[Judged]) -> Document:
    label = one.label
    twin = twins(row.label for row in rows if row.label.id in {label.id, label.pair}).get(label.id)
    return {
        "id": label.id,
        "label": label.label,
        "readable": label.readable,
        "classes": list(label.classes),
        "cluster": label.cluster,
        "folder": label.folder,
        "commit": label.commit,
        "fitting_rules": list(accusing(label, twin)),
        "outcome": one.outcome.value,
        "problem": one.problem,
        "pointed": one.pointed,
        "line_distance": one.distance,
        "environment": label.environment,
        "findings": [_finding(finding) for finding in one.findings],
        "other_fails": [_finding(finding) for finding in one.others],
        "seconds": round(one.seconds, 3),
    }


def _finding(finding: Finding) -> Document:
    return {
        "rule": finding.rule,
        "verdict": finding.verdict.value,
        "message": finding.message,
        "locations": [location_of(place) for place in finding.locations],
    }


def _seconds(rows: Sequence[Judged], seconds: float) -> Document:
    slowest = sorted(rows, key=lambda one: -one.seconds)[:SLOWEST]
    return {
        "elapsed": round(seconds, 2),
        "audits": round(sum(one.seconds for one in rows), 2),
        "slowest": [{"id": one.label.id, "seconds": round(one.seconds, 3)} for one in slowest],
    }


def unmet(found: Document, required: Mapping[str, float]) -> list[str]:
    """The requirements that a measurement does not meet, each as a sentence.

    Shares (`caught`, `caught_clusters`, `noticed`, `broken`, `pairs`) are minima; counts (`accusations`, `unavailable`,
    `crashed`) are maxima.
    """
    sentences = []
    for name, limit in required.items():
        value = found["summary"][name]
        if name in MINIMA:
            reached = value["count"] / value["of"] if value["of"] else 0.0
            if reached < limit:
                sentences.append(f"{name}: {value['count']} of {value['of']}, required is a share of {limit:g}")
        else:
            count = value["count"] if isinstance(value, Mapping) else value
            if count > limit:
                sentences.append(f"{name}: {count}, at most {limit:g} is allowed")
    return sentences


MINIMA: Final = frozenset({"caught", "caught_clusters", "noticed", "broken", "pairs"})
MAXIMA: Final = frozenset({"accusations", "unavailable", "crashed"})
