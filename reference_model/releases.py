"""The record folders of this project: the demo, and every published preset in narrow form with what was claimed.

A preset cannot be trained in full without eight GPUs. Its folder holds its script, one run of that script on a CPU with
all layers at a sixteenth of the width, and says in its README what was claimed, what was run and what was not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from reference_model.main import TOTAL_CAP_BYTES
from reference_model.params import parameter_counts
from reference_model.presets import PRESETS
from reference_model.published import PUBLISHED, Published
from reference_model.release import ReleasePlan, result_lines, run_lines, split_lines

DATASET = "demo_sp1024"
HARDWARE = "2 CPU cores"
NARROW_SETTINGS = {
    "MODEL_DIM": "32",
    "NUM_HEADS": "2",
    "NUM_KV_HEADS": "1",
    "ITERATIONS": "10",
    "WARMUP_STEPS": "1",
    "WARMDOWN_FRAC": "0.5",
    "TRAIN_SEQ_LEN": "64",
    "TRAIN_BATCH_TOKENS": "1024",
    "GRAD_ACCUM_STEPS": "1",
    "TRAIN_LOG_EVERY": "5",
    "VAL_LOSS_EVERY": "0",
    "EMA_DECAY": "0.9",
    "QUANT_KEEP_FLOAT_MAX_NUMEL": "4096",
    "EVAL_STRIDE": "0",
    "EVAL_BATCH_SEQS": "128",
}
# Where the preset has them: a window that binds, fewer meta tokens, and chunks of a text as short as the demo's.
NARROW_WINDOW = {"SLIDING_WINDOW": "32"}
NARROW_TTT = {"TTT_CHUNK_TOKENS": "16384", "TTT_EPOCHS": "1", "TTT_BATCH_SEQS": "64"}
NARROW_META = {"HYMBA_META_TOK": "16"}
# Many meta tokens would be most of a short sequence.
MANY_META_TOKENS = 16


def narrow_settings(preset: str) -> dict[str, str]:
    """Settings under which a preset's script runs in seconds, all layers kept."""
    config, settings = PRESETS[preset], dict(NARROW_SETTINGS)
    parts = (
        (config.model.sliding_window, NARROW_WINDOW),
        (config.evaluation.ttt_enabled, NARROW_TTT),
        (config.model.meta_tokens > MANY_META_TOKENS, NARROW_META),
    )
    for present, part in parts:
        settings |= part if present else {}
    return settings


def preset_plan(preset: str, published: Published) -> ReleasePlan:
    """The release of a published preset."""
    return ReleasePlan(
        slug=f"hymba_{preset}",
        title=published.title,
        blurb=(
            f"This project's own writing of {published.source}. The score here is that of a run in narrow form on a "
            "CPU and says that the script works, not how good the model is."
        ),
        preset=preset,
        dataset=DATASET,
        artifact=f"final_model.int{PRESETS[preset].quant.bits}.ptz",
        hardware=HARDWARE,
        seeds=(1337,),
        train_seconds=600,
        settings=MappingProxyType(narrow_settings(preset)),
        compact=True,
        readme_lines=preset_readme,
    )


DEMO_PLAN = ReleasePlan(
    slug="hymba_demo",
    title="Hymba demo",
    blurb=(
        "A small Hymba (causal attention in parallel with a Mamba selective scan) trained for 60 seconds on two "
        "CPU cores with the demo corpus, quantized by rows, and scored with score-first test-time training."
    ),
    preset="demo",
    dataset=DATASET,
    artifact="final_model.int6.ptz",
    hardware=HARDWARE,
    seeds=(1337, 42, 2025),
    train_seconds=60,
)


def preset_readme(plan: ReleasePlan, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Lines of a preset folder's README: what was run, what was claimed, what was not run, what differs."""
    published, settings = PUBLISHED[plan.preset], plan.settings
    yield from (f"# {plan.title}", "", manifest["blurb"], "", "## What was run here", "")
    yield from result_lines(manifest)
    form = f"width {settings['MODEL_DIM']}, {settings['ITERATIONS']} steps of {settings['TRAIN_BATCH_TOKENS']} tokens"
    yield from ("", f"The script of this folder on {plan.hardware}, all its layers at {form}: trained, packed, scored;")
    yield "packed and scored again in fresh processes, with the same result."
    yield from split_lines(manifest)
    yield from full_size_lines(manifest.get("full_size"), manifest["bytes_code"])
    yield from ("", "## What its authors claim", "")
    yield f"[{published.source}]({published.url}): {claim_of(published)}. Stated as a claim: it was not checked here."
    trained = "Training at full size beyond one step" if "full_size" in manifest else "Training at full size"
    yield from (
        "",
        "## What was not run",
        "",
        f"{trained}, FineWeb, eight GPUs or any: the paths for CUDA, NCCL and bfloat16 were",
        "not run on a GPU here.",
    )
    if published.differs:
        yield from ("", "## Where the preset differs from what was published", "")
        yield from (f"- {sentence}" for sentence in published.differs)
    yield from run_lines(plan)


def claim_of(published: Published) -> str:
    """The claim in words."""
    score = f"{published.score} bits per byte" if published.score else "no score"
    size = f", {published.size} of code and model" if published.size.endswith("MB") else ""
    size = size or (f", {published.size} bytes of code and model" if published.size else "")
    return f"{score} ({published.setting}){size}"


def full_size_lines(row: Mapping[str, Any] | None, code_bytes: int) -> Iterator[str]:
    """What `fullsize` measured, where it did."""
    if row is None:
        return
    over = row["trained_bytes"] + code_bytes - TOTAL_CAP_BYTES
    yield from (
        "",
        f"At full size, on one core, with {row['tokens']} random tokens (`python -m reference_model fullsize`):",
        "",
        f"- one training step took {row['step_s']:.1f} s;",
        f"- the artifact after it ({row['quantizer']}) had {row['stepped_bytes']:,} bytes;",
        f"- a window scored from it: {row['packed_loss']:.3f} nats per token, {row['float_loss']:.3f} before packing;",
        f"- an artifact of weights as spread out as training would leave them had {row['trained_bytes']:,} bytes: with",
        f"  {code_bytes:,} bytes of code {abs(over):,} {'above' if over > 0 else 'below'} the cap.",
    )


def presets_table() -> str:
    """A Markdown table of the published presets: parameters here and there, and the claims."""
    head = ("preset", "source", "parameters", "published", "claimed val_bpb", "on", "claimed bytes", "folder")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for preset, published in PUBLISHED.items():
        ours, slug = sum(count for _, count in parameter_counts(PRESETS[preset].model)), f"hymba_{preset}"
        theirs = f"{published.parameters:,}" if published.parameters else "-"
        cells = (
            *(f"`{preset}`", f"[{published.source}]({published.url})", f"{ours:,}", theirs, published.score or "-"),
            *(published.setting, published.size or "-", f"[{slug}](../submissions/{slug})"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


RELEASES: Mapping[str, ReleasePlan] = MappingProxyType(
    {
        plan.slug: plan
        for plan in (DEMO_PLAN, *(preset_plan(preset, published) for preset, published in PUBLISHED.items()))
    }
)
