"""One model on the same tokens, in every form it has: float, averaged, quantized, quantized and trained at test time.

Nothing is trained or packed for it: the weights and the artifact are those that a finished run left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from reference_model.baselines import Row, ScoringJob, run_folder, score_all
from reference_model.config import Config
from reference_model.main import Inputs, refuse_adapters_of_nothing
from reference_model.settings import ConfigError
from reference_model.storage import artifact_path, load_state, raw_path, read_whole, unpack_model

# What the quantized model is scored with besides: a name, and what it changes in the settings.
FURTHER: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "sgd": ("SGD TTT", {"ttt_enabled": True, "ttt_kind": "sgd"}),
    "lora": ("LoRA TTT", {"ttt_enabled": True, "ttt_kind": "lora"}),
    "phased": ("phased TTT", {"ttt_enabled": True, "ttt_kind": "phased"}),
    "phased_lora": ("phased LoRA TTT", {"ttt_enabled": True, "ttt_kind": "phased_lora"}),
    "carry": ("carried", {"ttt_enabled": False, "eval_carry": True, "eval_stride": 0}),
    "documents": ("documents", {"ttt_enabled": False, "eval_isolate_docs": True}),
}
FURTHER_BY_DEFAULT = ("sgd", "lora", "phased", "phased_lora")
# What the others are compared with: the weights that were packed.
REFERENCE = "EMA"


@dataclass(frozen=True)
class LikeForLike:
    """The table and what it was measured on.

    Attributes:
        preset: Settings of the run.
        tokens: Targets, all of which every row scores.
        bytes: Of their text.
        rows: In the order of the forms.
    """

    preset: str
    tokens: int
    bytes: int
    rows: tuple[Row, ...]

    def gap(self, row: Row) -> float:
        """Bits per byte above the averaged float weights; negative where a row is better."""
        (reference,) = (each.val_bpb for each in self.rows if each.name == REFERENCE)
        return row.val_bpb - reference

    def as_text(self) -> str:
        """The table for people."""
        width = max(len(row.name) for row in self.rows)
        lines = [
            f"{self.preset}: {self.tokens} targets, {self.bytes} bytes; gap to {REFERENCE}",
            f"{'':<{width}} {'BPB':>8} {'gap':>8} {'s':>8} {'bytes':>10}",
        ]
        for row in self.rows:
            score = f"{row.val_bpb:8.4f} {self.gap(row):+8.4f}"
            lines.append(f"{row.name:<{width}} {score} {row.seconds:8.1f} {row.model_bytes or '-':>10}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, object]:
        """The table for programs."""
        rows = [{**asdict(row), "gap_bpb": self.gap(row)} for row in self.rows]
        return {"schema": "likeforlike/1", **asdict(self), "rows": rows}


def like_for_like(
    preset: str, config: Config, run: Path, further: Sequence[str] = FURTHER_BY_DEFAULT, processes: int = 1
) -> LikeForLike:
    """Score every form of a finished run on the validation text that the settings name.

    Args:
        preset: Name of the settings, for the table.
        config: They; stride, windows and constants of training at test time are those of every row.
        run: Working folder of the run.
        further: Keys of FURTHER.
        processes: Rows that are scored side by side, with one thread each.

    Raises:
        ConfigError: The data cannot be read, or the settings exclude a row.
        RunError: The run's files cannot be read.
        ArtifactError: The artifact is damaged or of another preset.
    """
    inputs = Inputs.load(config)
    jobs = list(_jobs(config, run_folder(run, config.data.weights_path), further))
    size = int(inputs.table.count(inputs.tokens[:-1].long(), inputs.tokens[1:].long()).sum())
    return LikeForLike(preset, inputs.tokens.numel() - 1, size, tuple(score_all(jobs, processes)))


def _jobs(config: Config, folder: Path, further: Sequence[str]) -> Iterator[ScoringJob]:
    weights = folder / config.data.weights_path
    yield ScoringJob("float", config, load_state(raw_path(weights)))
    yield ScoringJob(REFERENCE, config, load_state(weights))
    artifact, bits = read_whole(folder / artifact_path(config)), f"int{config.quant.bits}"
    packed = unpack_model(artifact, config.model)
    yield ScoringJob(bits, config, packed, ttt=False, model_bytes=len(artifact))
    for key in further:
        name, changes = FURTHER[key]
        try:
            changed = replace(config, evaluation=replace(config.evaluation, **changes))
            refuse_adapters_of_nothing(changed)
        except ConfigError as error:
            raise ConfigError(f"{error} (row {name!r})") from error
        ttt = changed.evaluation.ttt_enabled
        yield ScoringJob(f"{bits} + {name}", changed, packed, ttt=ttt, model_bytes=len(artifact))
