"""Submissions as facts, made by hand: an ordinary one that passes, and small changes of it."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar

from harness.facts.bytetable import ByteTableFacts
from harness.facts.claims import ManifestClaims, ReadmeClaims, SeedClaim
from harness.facts.legality import LegalityFacts
from harness.facts.names import NamesFacts
from harness.facts.package import PackageFacts, Script, ShippedFile
from harness.facts.pipeline import PipelineFacts
from harness.facts.runs import Coverage, Run, Score
from harness.facts.size import SeedSize, SizeFacts
from harness.facts.statements import Count, Launch, StatementFacts
from harness.facts.submission import Submission
from harness.facts.targets import TargetFacts
from harness.model import Fact, Located, Location, Missing, Rule

T = TypeVar("T")
AnyRule: TypeAlias = Rule[Submission]
FAMILY_DIGITS = {
    "package": "0",
    "size": "1",
    "budget": "2",
    "metric": "3",
    "significance": "4",
    "homogeneity": "5",
    "legality": "6",
    "behaviour": "7",
    "reproduction": "8",
}
MANIFEST_FIELDS = (
    "name",
    "author",
    "github_id",
    "date",
    "track",
    "val_bpb",
    "val_loss",
    "val_bpb_std",
    "bytes_total",
    "bytes_code",
)
UNSTATED = Missing("not stated")
SOURCE = "a" * 64
CODE_BYTES = 50_000
MODEL_BYTES = 15_000_000
# The mean is 1.20300001 and no seed's value, the sample deviation 0.007; no trailing zeros, which JSON would drop.
BITS = {1: 1.19500001, 2: 1.20600001, 3: 1.20800001}
# sp1024: 2.43593 bytes per token.
BYTES_PER_NAT_TOKEN = 2.43593 * 0.6931471805599453


def at(value: T, path: str = "submission.json", line: int | None = None, pointer: str | None = None) -> Located[T]:
    return Located(value, Location(path, line, pointer))


def fact(value: T | None, path: str, line: int) -> Fact[T]:
    return UNSTATED if value is None else at(value, path, line)


def score(bits: float = 1.2, loss: float | None = None, path: str = "train.log", **changes: Any) -> Score:
    loss = round(bits * BYTES_PER_NAT_TOKEN, 8) if loss is None else loss
    made = Score(
        label="final_exact",
        val_bpb=at(bits, path, 90),
        val_loss=at(loss, path, 90),
        digits=8,
        loss_digits=8,
        eval_seconds=at(70.0, path, 90),
        diagnostic=False,
    )
    return dataclasses.replace(made, **changes)


def run(seed: int | None = 1, bits: float | None = None, path: str = "", **changes: Any) -> Run:
    bits = BITS.get(seed or 1, 1.2) if bits is None else bits
    path = path or f"train_seed{seed}.log"
    headline = score(bits, path=path)
    made = Run(
        location=Location(path),
        family="step",
        seed=fact(seed, path, 2),
        headline=at(headline, path, 90),
        scores=(headline,),
        steps=at(13_000, path, 80),
        iterations=at(20_000, path, 5),
        train_seconds=at(599.5 + (seed or 0) / 100, path, 80),
        step_overshoot_seconds=at(0.046, path, 80),
        eval_seconds=at(70.0, path, 90),
        model_bytes=at(MODEL_BYTES, path, 85),
        code_bytes=at(CODE_BYTES, path, 86),
        total_bytes=at(MODEL_BYTES + CODE_BYTES, path, 87),
        parameters=at(17_000_000, path, 6),
        world_size=at(8, path, 7),
        val_tokens=at(62_021_632, path, 8),
        train_shards=at(80, path, 9),
        config={
            "train_batch_tokens": at("524288", path, 13),
            "vocab_size": at("1024", path, 10),
            "matrix_lr": at("0.04", path, 11),
            "seed": at(str(seed), path, 12),
        },
        source=at(SOURCE, path, 1),
        source_bytes=at(CODE_BYTES, path, 1),
        complete=at(value=True, path=path, line=90),
        curve=(),
        coverage=(Coverage("windows", 969_088, 64, Location(path, 88)),),
    )
    return dataclasses.replace(made, **changes)


def claim(seed: int, bits: float | None = None, pointer: str = "/seed_results", **changes: Any) -> SeedClaim:
    made = SeedClaim(
        seed=at(seed, pointer=f"{pointer}/{seed}"),
        val_bpb=at(BITS[seed] if bits is None else bits, pointer=f"{pointer}/{seed}/val_bpb"),
        val_loss=UNSTATED,
        artifact_bytes=at(MODEL_BYTES + CODE_BYTES, pointer=f"{pointer}/{seed}/artifact_bytes"),
        steps=at(13_000, pointer=f"{pointer}/{seed}/steps"),
        train_seconds=UNSTATED,
        eval_seconds=UNSTATED,
    )
    return dataclasses.replace(made, **changes)


def manifest(seeds: Sequence[int] = (1, 2, 3), **changes: Any) -> ManifestClaims:
    made = ManifestClaims(
        name=at("An ordinary run", pointer="/name"),
        author=at("Somebody", pointer="/author"),
        github_id=at("somebody", pointer="/github_id"),
        date=at(dt.date(2026, 4, 1), pointer="/date"),
        track=at("10min_16mb", pointer="/track"),
        val_bpb=at(1.203, pointer="/val_bpb"),
        val_loss=UNSTATED,
        val_bpb_std=at(0.007, pointer="/val_bpb_std"),
        bytes_total=at(MODEL_BYTES + CODE_BYTES, pointer="/bytes_total"),
        bytes_code=at(CODE_BYTES, pointer="/bytes_code"),
        seeds=tuple(claim(seed) for seed in seeds),
    )
    return dataclasses.replace(made, **changes)


def seed_size(seed: int | None = 1, model: int | None = MODEL_BYTES, **changes: Any) -> SeedSize:
    path = f"train_seed{seed}.log"
    total = None if model is None else model + CODE_BYTES
    made = SeedSize(
        seed=fact(seed, path, 2),
        model_bytes=fact(model, path, 85),
        logged_total_bytes=fact(total, path, 87),
        shipped_bytes=fact(total, path, 85),
        compressed_code_bytes=UNSTATED,
        all_helpers_bytes=fact(total, path, 85),
    )
    return dataclasses.replace(made, **changes)


def script(**changes: Any) -> Script:
    made = Script(
        path="train_gpt.py",
        size_bytes=CODE_BYTES,
        layers=(),
        parsed=at(value=True, path="train_gpt.py"),
        problem="",
        missing_modules=(),
        environment=(),
        texts=(SOURCE,),
    )
    return dataclasses.replace(made, **changes)


def package(**changes: Any) -> PackageFacts:
    logs = [f"train_seed{seed}.log" for seed in (1, 2, 3)]
    made = PackageFacts(
        files=tuple(ShippedFile(path, 100) for path in ("README.md", "submission.json", *logs, "train_gpt.py")),
        refused=(),
        readme=at("README.md", "README.md", 1),
        manifest=at("submission.json"),
        manifest_problems=(),
        entry=at(script(), "train_gpt.py"),
        scripts=(script(),),
        logs=tuple(Location(path) for path in logs),
    )
    return dataclasses.replace(made, **changes)


def submission(**changes: Any) -> Submission:
    made = Submission(
        folder="records/track_10min_16mb/2026-04-01_Ordinary",
        name="2026-04-01_Ordinary",
        package=package(),
        claims=manifest(),
        readme=ReadmeClaims(
            val_bpb=at(1.203, "README.md", 3), val_bpb_std=UNSTATED, seeds=tuple(claim(seed) for seed in (1, 2, 3))
        ),
        runs=tuple(run(seed) for seed in (1, 2, 3)),
        size=SizeFacts(
            entry_code_bytes=at(CODE_BYTES, "train_gpt.py"),
            all_code_bytes=at(CODE_BYTES, "train_gpt.py"),
            code_files=("train_gpt.py",),
            per_seed=tuple(seed_size(seed) for seed in (1, 2, 3)),
        ),
        targets=TargetFacts(at(value=True, path="train_gpt.py"), ()),
        byte_tables=ByteTableFacts(at("correct", "train_gpt.py", 20), (), ()),
        legality=LegalityFacts(at("train_gpt.py", "train_gpt.py")),
        reproduction=Missing("no evidence directory was given"),
        names=NamesFacts(("train_gpt.py",)),
        pipeline=PipelineFacts(trains=True, steps=(at("an optimizer step", "train_gpt.py", 7),)),
        settings=(),
        statements=StatementFacts(
            parameters=(at(Count(17e6, 1e5), "README.md", 13),),
            launches=(at(Launch("train_gpt.py", shipped=True), "README.md", 16),),
        ),
    )
    return dataclasses.replace(made, **changes)


def without_logs() -> Submission:
    return submission(
        runs=(), package=package(logs=()), size=SizeFacts(at(CODE_BYTES), at(CODE_BYTES), ("train_gpt.py",), ())
    )


def blank() -> Submission:
    """A submission of which nothing could be read."""
    claims = ManifestClaims(**dict.fromkeys(MANIFEST_FIELDS, UNSTATED), seeds=())
    return submission(
        folder="blank",
        package=package(files=(), readme=UNSTATED, manifest=UNSTATED, entry=Missing("no script"), scripts=(), logs=()),
        claims=claims,
        readme=ReadmeClaims(UNSTATED, UNSTATED, ()),
        runs=(),
        size=SizeFacts(UNSTATED, UNSTATED, (), ()),
        targets=TargetFacts(Missing("no script"), ()),
        byte_tables=ByteTableFacts(Missing("no script"), (), ()),
        legality=LegalityFacts(Missing("no script")),
        names=NamesFacts(unread=Missing("no script")),
        pipeline=PipelineFacts(unread=Missing("no script")),
    )


def manifest_with(claims: ManifestClaims, *rows: SeedClaim) -> ManifestClaims:
    return dataclasses.replace(claims, seeds=rows)
