"""One table of bits per byte on the same validation text: simple coders, plain transformers, and a finished run.

The run's weights are read, never trained again. The transformers have as many parameters and get the same training
seconds, the same quantizer and the same evaluation.
"""

from __future__ import annotations

import lzma
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
import zstandard
from torch import Tensor

from reference_model.config import Config
from reference_model.data import find_shards, map_shard
from reference_model.evaluate import evaluate
from reference_model.main import Inputs, build_model, evaluation_task
from reference_model.presets import PRESETS
from reference_model.runlog import RunLog
from reference_model.storage import artifact_path, load_state, pack_model, raw_path, read_whole, unpack_model
from reference_model.train import TRAIN_FILES, Clock, Trainer, training_loader
from reference_model.worker import Worker

PLAIN_PRESETS: Mapping[str, str] = MappingProxyType(
    {"baseline, 9 layers": "demo_baseline", "attention, same table": "demo_attention"}
)
RUN_NAME = "hybrid"
# Byte frequencies need no more text than this.
UNIGRAM_TOKENS = 500_000
BYTE_VALUES = 256
BITS_PER_BYTE = 8


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: What was measured.
        val_bpb: Bits per byte of validation text.
        seconds: What scoring (or compressing) took.
        model_bytes: Of the compressed weights, 0 where there are none in the file.
    """

    name: str
    val_bpb: float
    seconds: float
    model_bytes: int = 0


@dataclass(frozen=True)
class Comparison:
    """The table and what it was measured on."""

    validation_bytes: int
    validation_tokens: int
    training_seconds: float
    rows: tuple[Row, ...]

    def as_text(self) -> str:
        """The table for people."""
        head = f"{self.validation_bytes} validation bytes, {self.validation_tokens} tokens"
        lines = [
            f"{head}; transformers trained for {self.training_seconds:.0f} s",
            f"{'':<34} {'BPB':>7} {'s':>7} {'bytes':>9}",
        ]
        lines += [
            f"{row.name:<34} {row.val_bpb:7.4f} {row.seconds:7.1f} {row.model_bytes or '-':>9}" for row in self.rows
        ]
        return "\n".join(lines)

    def as_json(self) -> dict[str, object]:
        """The table for programs."""
        return {"schema": "compare/1", **asdict(self)}


@dataclass(frozen=True)
class DemoData:
    """The folders that `harness data demo` writes, for one vocabulary size."""

    root: Path
    vocab_size: int

    def apply(self, config: Config) -> Config:
        """The settings with this data: train shards, tokenizer."""
        folder, model = f"datasets/demo_sp{self.vocab_size}", f"tokenizers/demo_{self.vocab_size}_bpe.model"
        paths = replace(config.data, data_path=str(self.root / folder), tokenizer_path=str(self.root / model))
        return replace(config, data=paths)

    def apply_full_validation(self, config: Config) -> Config:
        """The settings with the whole validation split, which the short runs score only in part."""
        applied = self.apply(config)
        return replace(applied, data=replace(applied.data, data_path=f"{applied.data.data_path}_fullval"))


def run_folder(folder: Path, weights: str) -> Path:
    """The folder itself, or the one below it, that holds a run's weights; itself where there is no single one."""
    found = [path.parent for path in sorted(folder.rglob(Path(weights).name))]
    return found[0] if len(found) == 1 else folder


def decoded_text(tokenizer: str, tokens: Tensor) -> bytes:
    """The text that tokens stand for; document marks and other control tokens stand for nothing."""
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=tokenizer)
    starts = [0, *(tokens == model.bos_id()).nonzero().flatten().tolist(), tokens.numel()]
    documents = (tokens[low:high].tolist() for low, high in pairwise(starts))
    return "".join(model.decode(document) for document in documents).encode()


def unigram_bpb(train: bytes, validation: bytes) -> float:
    """Bits per byte under the byte frequencies of other text, every byte value counted once more than it occurs."""
    counts, seen = (np.bincount(np.frombuffer(text, np.uint8), minlength=BYTE_VALUES) for text in (train, validation))
    bits = -np.log2((counts + 1) / (counts + 1).sum())
    return float((seen * bits).sum() / seen.sum())


def coder_rows(train: bytes, validation: bytes, clock: Clock) -> Iterator[Row]:
    """Coders without a neural network; xz and zstd see nothing but the validation text."""
    coders: dict[str, Callable[[], float]] = {
        "byte unigram of the train text": lambda: unigram_bpb(train, validation),
        "zstd -22": lambda: _bpb(zstandard.ZstdCompressor(level=22).compress(validation), validation),
        "xz -9e": lambda: _bpb(lzma.compress(validation, preset=9 | lzma.PRESET_EXTREME), validation),
    }
    for name, measure in coders.items():
        began_s = clock()
        yield Row(name, measure(), clock() - began_s)


def _bpb(compressed: bytes, text: bytes) -> float:
    return BITS_PER_BYTE * len(compressed) / len(text)


@dataclass(frozen=True)
class ScoringJob:
    """One row to measure: weights, and how they are scored."""

    name: str
    config: Config
    state: Mapping[str, Tensor]
    ttt: bool = False
    model_bytes: int = 0

    def run(self, clock: Clock = time.perf_counter) -> Row:
        """Score the weights on the validation text that the settings name."""
        evaluation = self.config.evaluation
        evaluation = replace(evaluation, ttt_enabled=True) if self.ttt else evaluation.untrained()
        config = replace(self.config, evaluation=evaluation)
        inputs, model = Inputs.load(config), build_model(config, "cpu")
        model.load_state_dict(self.state)
        began_s = clock()
        result = evaluate(evaluation_task(model, inputs, config, Worker()))
        return Row(self.name, result.val_bpb, clock() - began_s, self.model_bytes)


def scoring_jobs(
    name: str, config: Config, states: Mapping[str, Mapping[str, Tensor]], artifact: bytes
) -> Iterator[ScoringJob]:
    """Float states, then the artifact, then the artifact with test-time training."""
    for label, state in states.items():
        yield ScoringJob(f"{name}, {label}", config, state)
    packed, bits = unpack_model(artifact, config.model), f"int{config.quant.bits}"
    yield ScoringJob(f"{name}, {bits}", config, packed, ttt=False, model_bytes=len(artifact))
    yield ScoringJob(f"{name}, {bits} + TTT", config, packed, ttt=True, model_bytes=len(artifact))


def score_all(jobs: Sequence[ScoringJob], processes: int) -> list[Row]:
    """Run the jobs side by side, one thread each: small matrices gain little from a second thread.

    Returns:
        Rows in the order of the jobs; the longest are begun first.
    """
    if processes <= 1:
        return [job.run() for job in jobs]
    begun = sorted(range(len(jobs)), key=lambda index: not jobs[index].ttt)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        rows = dict(zip(begun, pool.map(ScoringJob.run, [jobs[index] for index in begun]), strict=True))
    return [rows[index] for index in range(len(jobs))]


@dataclass(frozen=True)
class Comparer:
    """Measures every row.

    Attributes:
        data: Folder that `harness data demo` wrote.
        run: Working directory of a finished run: its weights and its artifact.
        preset: The settings of that run.
        seconds: Training time of each transformer.
        clock: Monotonic seconds.
        say: Told what begins.
        processes: How many rows are scored side by side.
    """

    data: Path
    run: Path
    preset: str
    seconds: float
    clock: Clock = time.perf_counter
    say: Callable[[str], object] = print
    processes: int = 1

    def compare(self) -> Comparison:
        """Measure the whole table.

        Raises:
            ConfigError: The data cannot be read.
            RunError: The run's files cannot be read.
            ArtifactError: The run's artifact is damaged or of another preset.
        """
        config = self._config(self.preset)
        inputs = Inputs.load(config)
        text = decoded_text(config.data.tokenizer_path, inputs.tokens)
        rows = [*coder_rows(self._train_text(config), text, self.clock)]
        jobs = [*self._run_jobs(config)]
        own = len(jobs)
        for name, preset in PLAIN_PRESETS.items():
            jobs += self._plain_jobs(name, preset)
        self.say(f"scoring {len(jobs)} models, {self.processes} at a time")
        scored = score_all(jobs, self.processes)
        # The run's own rows come last, where a reader looks for them; their files were read first, to fail early.
        rows += [*scored[own:], *scored[:own]]
        return Comparison(len(text), inputs.tokens.numel() - 1, self.seconds, tuple(rows))

    def _config(self, preset: str) -> Config:
        return DemoData(self.data, PRESETS[preset].model.vocab_size).apply_full_validation(PRESETS[preset])

    def _train_text(self, config: Config) -> bytes:
        trained = DemoData(self.data, config.model.vocab_size).apply(config)
        shard = map_shard(find_shards(f"{trained.data.data_path}/{TRAIN_FILES}")[0])
        tokens = torch.from_numpy(shard[:UNIGRAM_TOKENS].astype(np.int32))
        return decoded_text(trained.data.tokenizer_path, tokens)

    def _plain_jobs(self, name: str, preset: str) -> Iterator[ScoringJob]:
        """Train a transformer like the run: same seconds, averaged, same quantizer."""
        config = self._config(preset)
        config = replace(config, train=replace(config.train, max_wallclock_seconds=self.seconds))
        trained, model = DemoData(self.data, config.model.vocab_size).apply(config), build_model(config, "cpu")
        self.say(f"training {preset} for {self.seconds:.0f} s")
        loader = training_loader(trained, Worker())
        average = Trainer(model, trained, loader, Worker(), RunLog(None, enabled=False), self.clock).run().average
        artifact = pack_model({**model.state_dict(), **average}, config)
        yield from scoring_jobs(name, config, {}, artifact)

    def _run_jobs(self, config: Config) -> Iterator[ScoringJob]:
        folder = run_folder(self.run, config.data.weights_path)
        weights = folder / config.data.weights_path
        states = {"float": load_state(raw_path(weights)), "EMA": load_state(weights)}
        yield from scoring_jobs(RUN_NAME, config, states, read_whole(folder / artifact_path(config)))
