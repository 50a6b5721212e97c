"""Make a record folder out of real runs: script, logs and numbers together, in two steps around `harness reproduce`.

`prepare` writes the bundled script and a manifest that says how to run it; the runs are then made by the harness,
and `finish` copies their logs and fills in the numbers that it measured. The two packages meet on disk only: what
is read here are the evidence documents that `schemas/run.schema.json` describes.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCRIPT_NAME = "train_gpt.py"
MANIFEST_NAME = "submission.json"
LOG_PATTERN = "train_seed*.log"
RUN_SCHEMA = "run/1"


class ReleaseError(ValueError):
    """Evidence from which no release can be made; the message names the file."""


@dataclass(frozen=True)
class ReleasePlan:
    """What a release is before it has numbers.

    Attributes:
        slug: Name of the record folder.
        title: Human-readable name.
        blurb: One or two sentences.
        preset: Settings that the script is bundled with.
        dataset: Dataset that the harness builds; its validation split is the one scored.
        artifact: File that the script leaves.
        hardware: Where the runs are made.
        seeds: Seeds of the claimed runs.
        train_seconds: Wallclock limit of training.
        settings: Further settings of the runs.
        compact: Ship the script without comments and docstrings.
        readme_lines: Makes the README from the plan and the finished manifest; None for the usual one.
    """

    slug: str
    title: str
    blurb: str
    preset: str
    dataset: str
    artifact: str
    hardware: str
    seeds: tuple[int, ...]
    train_seconds: int
    settings: Mapping[str, str] = field(default_factory=dict)
    compact: bool = False
    readme_lines: Callable[[ReleasePlan, Mapping[str, Any]], Iterator[str]] | None = None


def manifest_draft(plan: ReleasePlan, today: dt.date) -> dict[str, Any]:
    """The manifest before the runs: identity and how to reproduce, no numbers."""
    return {
        "author": "Parameter Golf harness",
        "github_id": "parameter-golf-harness",
        "name": plan.title,
        "blurb": plan.blurb,
        "date": today.isoformat(),
        "track": "non-record, demo corpus",
        "hardware": plan.hardware,
        "seeds": list(plan.seeds),
        "reproduction": {
            "script": SCRIPT_NAME,
            "environment": {"MAX_WALLCLOCK_SECONDS": str(plan.train_seconds), **plan.settings},
            "artifact": plan.artifact,
            "weights": "final_model.pt",
            "evaluate": {"EVAL_ONLY": "1"},
            "repack": {"REPACK_ONLY": "1"},
            "serve": {"SERVE_ONLY": "1"},
            "data": plan.dataset,
        },
    }


def prepare(folder: Path, plan: ReleasePlan, script: str, today: dt.date) -> None:
    """Write the script and the draft manifest; logs and numbers of an earlier release are removed with it."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in (*folder.glob(LOG_PATTERN), folder / "README.md"):
        stale.unlink(missing_ok=True)
    (folder / SCRIPT_NAME).write_text(script, encoding="utf-8")
    write_manifest(folder, manifest_draft(plan, today))
    (folder / "README.md").write_text(f"# {plan.title}\n\nBeing measured.\n", encoding="utf-8")


def finish(
    folder: Path, plan: ReleasePlan, evidence: Path, data: Path, further: Mapping[str, Any] | None = None
) -> None:
    """Copy the logs of the finished seeds and write the numbers that were measured.

    Args:
        folder: That `prepare` left.
        plan: The same.
        evidence: Of `harness reproduce`.
        data: Folder that `harness data demo` wrote.
        further: Keys to add to the manifest.

    Raises:
        ReleaseError: A seed is missing or failed, or was not rebuilt and scored again with equal results.
    """
    runs = [read_run(evidence, seed) for seed in plan.seeds]
    for run in runs:
        shutil.copyfile(script_log(evidence, run["seed"]), folder / f"train_seed{run['seed']}.log")
    manifest = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    manifest.update(numbers(runs))
    manifest["validation_split"] = validation_split(data, plan.dataset)
    manifest.update(further or {})
    write_manifest(folder, manifest)
    (folder / "README.md").write_text(readme(plan, manifest), encoding="utf-8")


def read_run(evidence: Path, seed: int) -> dict[str, Any]:
    """One finished seed's document.

    Raises:
        ReleaseError: It is missing, or the seed failed, or its artifact was not rebuilt and scored again alike.
    """
    path = evidence / f"seed-{seed}" / "run.json"
    if not path.is_file():
        raise ReleaseError(f"{path}: missing; run the seed first")
    run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if run.get("schema") != RUN_SCHEMA or run.get("outcome") != "ok":
        raise ReleaseError(f"{path}: {run.get('outcome')}: {run.get('detail')}")
    for part, good in (("repack", "same"), ("rescore", "ok")):
        if run[part]["outcome"] != good:
            raise ReleaseError(f"{path}: {part}: {run[part]['outcome']}: {run[part]['detail']}")
    if run["rescore"]["val_bpb"] != run["val_bpb"]:
        raise ReleaseError(f"{path}: scored again from disk {run['rescore']['val_bpb']}, first {run['val_bpb']}")
    return run


def script_log(evidence: Path, seed: int) -> Path:
    """The log that the script itself wrote, with its source and settings.

    Raises:
        ReleaseError: There is none, or more than one.
    """
    found = sorted(
        path
        for path in (evidence / f"seed-{seed}").rglob("logs/*.txt")
        if not path.name.endswith((".repack.txt", ".eval.txt"))
    )
    if len(found) != 1:
        raise ReleaseError(f"{evidence}/seed-{seed}: {len(found)} logs of the script, expected one")
    return found[0]


def numbers(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The manifest's numbers: means, the sample deviation of several, and one row for each seed."""
    scores = [run["val_bpb"] for run in runs]
    sizes = [run["code_bytes"] + run["artifact"]["bytes"] for run in runs]
    return {
        "val_bpb": round(statistics.fmean(scores), 6),
        **({"val_bpb_std": round(statistics.stdev(scores), 6)} if len(scores) > 1 else {}),
        "val_loss": round(statistics.fmean([run["val_loss"] for run in runs]), 6),
        "bytes_total": max(sizes),
        "bytes_code": runs[0]["code_bytes"],
        "seed_results": {
            str(run["seed"]): {
                "val_bpb": run["val_bpb"],
                "val_loss": run["val_loss"],
                "bytes_total": size,
                "bytes_model": run["artifact"]["bytes"],
                "steps": run["steps"],
                "train_time_s": round(run["train_seconds"], 1),
                "eval_time_s": round(run["eval_seconds"], 1),
            }
            for run, size in zip(runs, sizes, strict=True)
        },
    }


def validation_split(data: Path, dataset: str) -> dict[str, Any]:
    """Name, targets and bytes of the split that was scored, from the corpus' own manifest."""
    files = json.loads((data / "manifest.json").read_text(encoding="utf-8"))["files"]
    counts = files[f"datasets/{dataset}/fineweb_val_000000.bin"]["counts"]
    # The first token has no prefix to be predicted from.
    return {"name": dataset, "tokens": counts["tokens"] - 1, "bytes": counts["bytes_by_table"]}


def readme(plan: ReleasePlan, manifest: Mapping[str, Any]) -> str:
    """The folder's README, every number of which stands in the manifest."""
    return "\n".join((plan.readme_lines or demo_readme)(plan, manifest)) + "\n"


def demo_readme(plan: ReleasePlan, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Lines of the usual README."""
    yield from (f"# {plan.title}", "", manifest["blurb"], "")
    yield from result_lines(manifest)
    yield from ("", f"Measured on {plan.hardware}, {plan.train_seconds} s of training for each seed.")
    yield from split_lines(manifest)
    yield from run_lines(plan)


def result_lines(manifest: Mapping[str, Any]) -> Iterator[str]:
    """The headline and the table of the seeds."""
    rows = manifest["seed_results"]
    mean, deviation = manifest["val_bpb"], manifest.get("val_bpb_std")
    if deviation is None:
        yield f"val_bpb: **{mean:.6f}** (one seed)"
    else:
        yield f"val_bpb: **{mean:.6f}** ± {deviation:.6f} (mean and sample deviation of {len(rows)} seeds)"
    sizes = {"total bytes": "bytes_total", "model bytes": "bytes_model"}
    head = ("seed", "val_bpb", "val_loss", "steps", "train s", "eval s", *sizes)
    yield from ("", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}")
    for seed, row in rows.items():
        yield (
            f"| {seed} | {row['val_bpb']:.6f} | {row['val_loss']:.6f} | {row['steps']} "
            f"| {row['train_time_s']} | {row['eval_time_s']} | {' | '.join(str(row[key]) for key in sizes.values())} |"
        )
    yield from ("", "Total bytes are those of code and model, which the cap is for.")


def split_lines(manifest: Mapping[str, Any]) -> Iterator[str]:
    """What was scored."""
    split = manifest["validation_split"]
    counts = f"{split['tokens']} targets ({split['bytes']} bytes)"
    yield f"Validation: the `{split['name']}` split of the demo corpus, {counts},"
    yield "each scored once, before any update that used it."
    yield "This is no challenge split: the numbers compare with nothing on the leaderboard."


def run_lines(plan: ReleasePlan) -> Iterator[str]:
    """How to run it again."""
    settings = "".join(f"  {name}={value} \\\n" for name, value in plan.settings.items())
    yield from (
        "",
        "## Run it",
        "```",
        f"nox -s reproduce -- submissions/{plan.slug}",
        "```",
        "or by hand, with a corpus made by `harness data demo --output data`:",
        "```",
        f"DATA_PATH=data/datasets/{plan.dataset} TOKENIZER_PATH=data/tokenizers/demo_1024_bpe.model \\",
        f"{settings}  MAX_WALLCLOCK_SECONDS={plan.train_seconds} SEED={plan.seeds[0]} python {SCRIPT_NAME}",
        "```",
        "`EVAL_ONLY=1` scores the artifact found there again; `REPACK_ONLY=1` packs `final_model.pt` again.",
        "",
        f"Script, logs and numbers were made together by `nox -s refresh -- {plan.slug}`; do not edit them by hand.",
    )


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write submission.json whole."""
    partial = folder / f"{MANIFEST_NAME}.partial"
    partial.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / MANIFEST_NAME)
