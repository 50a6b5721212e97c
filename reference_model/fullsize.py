"""One preset at full size on a CPU: a training step, the artifact, a short window scored from it, and its bytes.

It shows that the real shapes train, pack and load, and what the artifact weighs against the cap: with the initial
weights, and with weights as spread out as training would leave them. Tokens are drawn at random, so no loss here says
anything about a model.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reference_model.config import Config
from reference_model.main import TOTAL_CAP_BYTES, build_model
from reference_model.model import HymbaLM
from reference_model.optim import build_groups, build_optimizers
from reference_model.schedule import Schedule, muon_momentum
from reference_model.storage import pack_model, unpack_model, write_whole
from reference_model.train import Clock

# About what the published runs of ten minutes took.
TRAINED_STEPS = 7_000
# Tables that Adam trains: spread out until a row takes as many levels as it can.
TABLE_STD = 1.0


@dataclass(frozen=True)
class FullSize:
    """What was measured.

    Attributes:
        preset: Its name.
        parameters: Of the model.
        tokens: Of the training step, and of the scored window.
        step_s: Seconds of the training step.
        step_loss: Nats per token before the step.
        float_loss: Nats per token of the window after it.
        packed_loss: The same, of the weights that the artifact gave back.
        code_bytes: Of the bundled script.
        stepped_bytes: The artifact of the initial weights after that step.
        trained_bytes: The artifact of weights of a trained scale.
        trained_std: Standard deviation of that noise, in a matrix of MODEL_DIM columns.
        quantizer: Bits and floor.
    """

    preset: str
    parameters: int
    tokens: int
    step_s: float
    step_loss: float
    float_loss: float
    packed_loss: float
    code_bytes: int
    stepped_bytes: int
    trained_bytes: int
    trained_std: float
    quantizer: str

    @property
    def over_cap_bytes(self) -> int:
        """By how much code and the artifact of a trained scale are above the cap; negative below it."""
        return self.code_bytes + self.trained_bytes - TOTAL_CAP_BYTES

    def as_json(self) -> dict[str, Any]:
        """For the manifest of a folder, which knows its own code and whose parameters are another run's."""
        return {key: value for key, value in asdict(self).items() if key not in {"parameters", "code_bytes"}}


def trained_std(config: Config, columns: int, steps: int) -> float:
    """Standard deviation that Muon's steps leave in a matrix, were their directions random.

    A step moves every weight by rate / sqrt(columns) on average, momentum makes steps alike over 1 / (1 - momentum) of
    them, weight decay forgets. Inverted from the published artifact sizes of #599, #914 and #1245 the standard
    deviations are 0.17, 0.15 and 0.03; this gives 0.17, 0.17 and 0.03.
    """
    settings, variance = replace(config.train, iterations=steps, max_wallclock_seconds=0.0), 0.0
    schedule = Schedule.from_config(settings)
    for step in range(steps):
        rate, momentum = config.optim.matrix_lr * schedule.factor(step, 0.0), muon_momentum(config.optim, step)
        alike = (1.0 + momentum) / (1.0 - momentum)
        variance = variance * (1.0 - rate * config.optim.weight_decay) ** 2 + rate**2 * alike / columns
    return math.sqrt(variance)


def remaining_share(config: Config, steps: int) -> float:
    """What weight decay leaves of the initial weights after so many steps."""
    schedule = Schedule.from_config(replace(config.train, iterations=steps, max_wallclock_seconds=0.0))
    decays = (config.optim.matrix_lr * schedule.factor(step, 0.0) * config.optim.weight_decay for step in range(steps))
    return math.exp(sum(math.log1p(-decay) for decay in decays))


@torch.no_grad()
def spread_out(model: HymbaLM, config: Config, steps: int) -> None:
    """Give the weights the spread of training: matrices as `trained_std`, tables TABLE_STD, nothing to the rest."""
    generator, left = torch.Generator().manual_seed(config.train.seed), remaining_share(config, steps)
    for group in build_groups(model, config):
        for name, parameter in zip(group.names, group.parameters, strict=True):
            noise = torch.randn(parameter.shape, generator=generator)
            if group.name == "matrix":
                parameter.mul_(left).add_(noise, alpha=trained_std(config, parameter.shape[-1], steps))
            elif parameter.ndim == 2 and name.endswith(("tok_emb.weight", "table.weight", "lm_head.weight")):
                parameter.add_(noise, alpha=TABLE_STD)


def train_once(model: HymbaLM, config: Config, batch: tuple[Tensor, Tensor]) -> float:
    """Take one step of the preset's optimizers; returns nats per token before it."""
    optimizers = build_optimizers(model, config)
    loss = model.token_losses(*batch).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizers.step(1.0, muon_momentum(config.optim, 0))
    return loss.item()


@torch.no_grad()
def window_loss(model: HymbaLM, batch: tuple[Tensor, Tensor]) -> float:
    """Nats per token."""
    return model.token_losses(*batch).mean().item()


def random_batches(config: Config, tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs and targets of one sequence each, 1, T."""
    generator = torch.Generator().manual_seed(config.train.seed)
    while True:
        drawn = torch.randint(config.model.vocab_size, (1, tokens + 1), generator=generator)
        yield drawn[:, :-1], drawn[:, 1:]


def measure(preset: str, config: Config, *, tokens: int, code_bytes: int, clock: Clock = time.perf_counter) -> FullSize:
    """Measure one preset.

    Raises:
        ArtifactError: The weights cannot be packed.
    """
    model, batches, began_s = build_model(config, "cpu"), random_batches(config, tokens), clock()
    step_loss = train_once(model, config, next(batches))
    step_s, window = clock() - began_s, next(batches)
    float_loss, artifact = window_loss(model, window), pack_model(model.state_dict(), config)
    model.load_state_dict(unpack_model(artifact, config.model))
    packed_loss = window_loss(model, window)
    return FullSize(
        preset=preset,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        tokens=tokens,
        step_s=step_s,
        step_loss=step_loss,
        float_loss=float_loss,
        packed_loss=packed_loss,
        code_bytes=code_bytes,
        stepped_bytes=len(artifact),
        trained_bytes=len(trained_artifact(config)),
        trained_std=trained_std(config, config.model.model_dim, trained_steps(config)),
        quantizer=f"int{config.quant.bits}, floor {config.quant.scale_floor}",
    )


def trained_steps(config: Config) -> int:
    """About how many steps training takes."""
    return min(config.train.iterations, TRAINED_STEPS)


def trained_artifact(config: Config) -> bytes:
    """The artifact of weights of a trained scale; raises ArtifactError."""
    model = build_model(config, "cpu")
    spread_out(model, config, trained_steps(config))
    return pack_model(model.state_dict(), config)


HEAD = (
    *("preset", "parameters", "step, s", "nats before it", "window after it", "window, packed", "quantizer"),
    *("bytes after the step", "spread", "bytes with that spread", "with code, against the cap"),
)


def table(rows: Iterable[FullSize]) -> str:
    """A Markdown table of the measurements."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    for row in rows:
        cells = (
            *(row.preset, f"{row.parameters:,}", f"{row.step_s:.1f}", f"{row.step_loss:.3f}"),
            *(f"{row.float_loss:.3f}", f"{row.packed_loss:.3f}", row.quantizer, f"{row.stepped_bytes:,}"),
            *(f"{row.trained_std:.3f}", f"{row.trained_bytes:,}", f"{row.over_cap_bytes:+,}"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def read_rows(path: Path) -> dict[str, FullSize]:
    """Measurements by preset, as `write_rows` left them; none where there is no file."""
    if not path.is_file():
        return {}
    rows = [FullSize(**row) for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]
    return {row.preset: row for row in rows}


def write_rows(path: Path, rows: Mapping[str, FullSize]) -> None:
    """Write measurements, in the order of their presets."""
    document = {"schema": "fullsize/1", "rows": [asdict(rows[preset]) for preset in sorted(rows)]}
    write_whole(path, (json.dumps(document, indent=1) + "\n").encode())
