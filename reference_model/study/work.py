"""One run: train a variant, pack it, score it. Times are of the processor, so other programs steal little of them."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from reference_model.baselines import DemoData
from reference_model.config import Config
from reference_model.data import ShardError
from reference_model.evaluate import evaluate
from reference_model.main import Inputs, build_model, evaluation_task
from reference_model.model import HymbaLM
from reference_model.runlog import RunLog
from reference_model.scoring import EvalResult
from reference_model.settings import ConfigError
from reference_model.storage import pack_model, unpack_model
from reference_model.study.design import Contrast, Experiment, StudyError, Variant, computing_parameters, run_config
from reference_model.train import Clock, Trainer, training_loader
from reference_model.worker import Worker

# Test-time training is scored on the beginning of the validation split, and so is what it is compared with.
TTT_TOKENS = 16_384
PACKED_BITS = (8, 6)
TTT_BITS = 6
MEBI = 1 << 20


@dataclass(frozen=True)
class Work:
    """What one process does.

    Attributes:
        experiment: What is compared.
        variants: Trained alike, scored one after the other.
        seed: Of the initial weights.
        seconds: Length of a run before the experiment's multiple.
        data: Folder that `harness data demo` wrote.
    """

    experiment: Experiment
    variants: tuple[str, ...]
    seed: int
    seconds: float
    data: Path

    def to_json(self) -> str:
        """For another process."""
        return json.dumps(asdict(self) | {"data": str(self.data)})

    @staticmethod
    def from_json(text: str) -> Work:
        """What `to_json` wrote."""
        fields = json.loads(text)
        declared = fields["experiment"]
        sequences = {name: tuple(declared[name]) for name in ("equal", "measures")}
        variants = tuple(Variant(**one) for one in declared["variants"])
        contrasts = tuple(Contrast(**one) for one in declared["contrasts"])
        experiment = Experiment(**declared | sequences | {"variants": variants, "contrasts": contrasts})
        return Work(experiment, tuple(fields["variants"]), fields["seed"], fields["seconds"], Path(fields["data"]))

    def config(self, variant: str) -> Config:
        """The settings of a variant on this data; raises StudyError."""
        config = run_config(self.experiment, variant, self.seconds, self.seed)
        data = DemoData(self.data, config.model.vocab_size)
        if not self.experiment.full_validation:
            return data.apply(config)
        # Training shards are in one folder, the whole validation split in another.
        return data.apply_full_validation(config)

    def training(self, config: Config) -> Config:
        """The same settings on the training shards: another folder than that of the whole validation split."""
        return DemoData(self.data, config.model.vocab_size).apply(config)

    def check_data(self) -> None:
        """Open everything that the run reads; raises StudyError naming the folder."""
        config = self.config(self.variants[0])
        try:
            Inputs.load(config)
            training_loader(self.training(config), Worker())
        except (ConfigError, ShardError) as error:
            told = f"{self.data}: {error}; `harness data demo --output {self.data}` writes what a study reads"
            raise StudyError(told) from error

    def run(self, clock: Clock = time.process_time) -> Iterator[tuple[str, dict[str, float]]]:
        """Train once, then score every variant; yields its name and measures.

        Raises:
            StudyError: See `run_config`.
            ConfigError: The data cannot be read.
            TrainingError: The loss is not finite.
        """
        config = self.config(self.variants[0])
        inputs, model = Inputs.load(config), build_model(config, "cpu")
        measured = trained(model, self.training(config), clock)
        artifacts = {bits: pack_model(model.state_dict(), with_bits(config, bits)) for bits in PACKED_BITS}
        measured |= {f"int{bits}_bytes": len(artifact) for bits, artifact in artifacts.items()}
        states = {bits: unpack_model(artifact, config.model) for bits, artifact in artifacts.items()}
        measured["float_bpb"] = plain_score(model, config, inputs).val_bpb
        for bits, state in states.items():
            model.load_state_dict(state)
            measured[f"int{bits}_bpb"] = plain_score(model, config, inputs).val_bpb
        for variant in self.variants:
            scores = {}
            if "ttt_bpb" in self.experiment.measures:
                scores = adapted(model, states[TTT_BITS], self.config(variant), inputs, clock)
            yield variant, measured | scores


def trained(model: HymbaLM, config: Config, clock: Clock) -> dict[str, float]:
    """Train a model, which is left with its averaged weights; returns what that took."""
    loader = training_loader(config, Worker())
    result = Trainer(model, config, loader, Worker(), RunLog(None, enabled=False), clock).run()
    model.load_state_dict(result.average, strict=False)
    steps = max(result.steps, 1)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "computing": computing_parameters(config.model),
        "steps": result.steps,
        "tokens": result.steps * config.train.train_batch_tokens,
        "train_s": result.train_s,
        "ms_per_step": 1_000 * result.train_s / steps,
        "peak_mib": peak_mib(),
    }


def peak_mib() -> float:
    """The most memory that this process has held, Python and torch included."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    except (OSError, IndexError):
        # In bytes where there is no /proc.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEBI


def with_bits(config: Config, bits: int) -> Config:
    """The same with another quantizer."""
    return replace(config, quant=replace(config.quant, bits=bits))


def plain_score(model: HymbaLM, config: Config, inputs: Inputs) -> EvalResult:
    """Score without test-time training."""
    plain = replace(config, evaluation=replace(config.evaluation, ttt_enabled=False))
    return evaluate(evaluation_task(model, inputs, plain, Worker()))


def adapted(
    model: HymbaLM, state: Mapping[str, Tensor], config: Config, inputs: Inputs, clock: Clock
) -> dict[str, float]:
    """Score packed weights on the first tokens, as they are and with test-time training."""
    model.load_state_dict(state)
    first = Inputs(inputs.tokens[: TTT_TOKENS + 1], inputs.table)
    same, began_s = plain_score(model, config, first).val_bpb, clock()
    learning = replace(config, evaluation=replace(config.evaluation, ttt_enabled=True))
    ttt_bpb = evaluate(evaluation_task(model, first, learning, Worker())).val_bpb
    return {"same_bpb": same, "ttt_bpb": ttt_bpb, "ttt_s": clock() - began_s}


def one_thread() -> None:
    """Compute in one thread: runs beside each other then cost each other little."""
    torch.set_num_threads(1)
