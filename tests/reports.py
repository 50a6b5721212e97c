"""A report made by hand, for the renderers."""

from __future__ import annotations

from harness.model import Finding, Location, NotExercised, Report, Status, SubmissionReport, Verdict

PLACES = (
    Location("train.log", 7),
    Location("submission.json", pointer="/val_bpb"),
    Location("train_gpt.py", 3, layer="lzma"),
)


def finding(rule: str = "PG101", verdict: Verdict = Verdict.FAIL, **changes: object) -> Finding:
    values: dict[str, object] = {
        "rule": rule,
        "name": "artifact-over-cap",
        "family": "size",
        "verdict": verdict,
        "message": "The artifact has 16,000,001 bytes; the cap is 16,000,000 bytes.",
        "values": {"total_bytes": 16_000_001},
        "locations": PLACES,
        "authority": "README FAQ",
        "status": Status.SETTLED,
    }
    return Finding(**(values | changes))  # type: ignore[arg-type] # a table of keyword arguments


def submission(folder: str = "records/one", **changes: object) -> SubmissionReport:
    values: dict[str, object] = {
        "folder": folder,
        "name": "One record",
        "verdict": Verdict.FAIL,
        "facts": {"claims": {}},
        "findings": (
            finding(),
            finding("PG102", Verdict.UNDECIDED, message="The size cannot be told: no log."),
            finding("PG103", Verdict.WARN, status=Status.POLICY),
            finding("PG001", Verdict.PASS, message="The README is README.md."),
        ),
        "notes": ("A note.",),
        "not_exercised": (
            NotExercised("PG801", "harness reproduce records/one"),
            NotExercised("PG802", "harness reproduce records/one"),
        ),
    }
    return SubmissionReport(**(values | changes))  # type: ignore[arg-type] # a table of keyword arguments


def report(*submissions: SubmissionReport) -> Report:
    return Report("0.1.0", "2026-04-28", submissions or (submission(),))
