"""The training loop: warm-up that leaves no trace, steps until the schedule ends, averaged weights.

Training tensors come from the loader, which knows the train shards only. In fixed-step mode nothing that reaches
the weights depends on a clock. Shape letters: B sequences, T tokens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from reference_model.checkpoint import Checkpoints, RunState
from reference_model.config import Config
from reference_model.data import BatchLoader, TokenStream, find_shards
from reference_model.exchange import Exchange
from reference_model.model import HymbaLM
from reference_model.optim import Optimizers, build_optimizers
from reference_model.qat import rounded_weights
from reference_model.runlog import Progress, RunLog, resume_line, stop_line, train_line, validation_line
from reference_model.schedule import ExponentialAverage, Schedule, muon_momentum
from reference_model.settings import ConfigError
from reference_model.worker import Worker

Clock: TypeAlias = Callable[[], float]
# Scores the model as it is: nats per token and bits per byte.
Validation: TypeAlias = Callable[[], tuple[float, float]]

MICRO_BATCHES_BY_DEFAULT = 8
FIRST_STEPS_LOGGED = 10
ODD_WEIGHTS = 5
TRAIN_FILES = "fineweb_train_*.bin"


class TrainingError(RuntimeError):
    """Training cannot go on."""


@dataclass
class Stopwatch:
    """Seconds of training on an injected clock; validation does not count.

    Attributes:
        clock: Seconds that only grow.
        device: Its queued work is finished before the clock is read.
        before_s: Seconds that were counted before.
    """

    clock: Clock
    device: str
    before_s: float = 0.0
    _since_s: float = field(default=0.0, init=False)

    def start(self) -> None:
        """Begin, or go on, counting."""
        self._since_s = self._now()

    def elapsed_s(self) -> float:
        """Seconds counted so far."""
        return self.before_s + self._now() - self._since_s

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count what happens inside."""
        self.before_s = self.elapsed_s()
        yield
        self.start()

    def _now(self) -> float:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)
        return self.clock()


@dataclass(frozen=True)
class TrainingResult:
    """What a run leaves beside the model's own weights.

    Attributes:
        steps: Finished steps.
        train_s: Training time in seconds.
        average: Averaged parameters by name; empty when no step was averaged.
    """

    steps: int
    train_s: float
    average: dict[str, Tensor]


def accumulation_steps(config: Config, world_size: int) -> int:
    """Micro-batches per process and step: as configured, or eight shared by the processes.

    Raises:
        ConfigError: Eight cannot be shared evenly.
    """
    if config.train.grad_accum_steps:
        return config.train.grad_accum_steps
    if MICRO_BATCHES_BY_DEFAULT % world_size:
        raise ConfigError(f"GRAD_ACCUM_STEPS: must be given, {MICRO_BATCHES_BY_DEFAULT} / {world_size} is not whole")
    return MICRO_BATCHES_BY_DEFAULT // world_size


def training_loader(config: Config, worker: Worker) -> BatchLoader:
    """Open the train shards.

    Raises:
        ConfigError: The batch cannot be shared evenly.
        ShardError: No shards, or a damaged one.
    """
    parts = accumulation_steps(config, worker.world_size) * worker.world_size
    if config.train.train_batch_tokens % (config.train.train_seq_len * parts):
        size, length = config.train.train_batch_tokens, config.train.train_seq_len
        raise ConfigError(f"TRAIN_BATCH_TOKENS: {size} is not a multiple of {length} tokens x {parts} micro-batches")
    stream = TokenStream(find_shards(f"{config.data.data_path}/{TRAIN_FILES}"), config.model.vocab_size)
    return BatchLoader(
        stream, config.train.train_batch_tokens, config.train.train_seq_len, worker, parts // worker.world_size
    )


@dataclass
class Trainer:
    """One run over one model, which it changes in place.

    Attributes:
        model: Gives `token_losses(tokens_BT, targets_BT)` in nats.
        config: Length, batch, rates.
        loader: Deals the train shards out.
        worker: This process.
        log: Where lines go.
        clock: Injected; monotonic seconds.
        validate: Scores the model during training; None never does.
        checkpoints: Where the run saves itself and goes on from; by itself it does neither.
    """

    model: HymbaLM
    config: Config
    loader: BatchLoader
    worker: Worker
    log: RunLog
    clock: Clock = time.perf_counter
    validate: Validation | None = None
    checkpoints: Checkpoints = field(default_factory=Checkpoints)

    def run(self) -> TrainingResult:
        """Train to the schedule's end.

        Raises:
            OptimizerError: A parameter is in no group or in two.
            QuantizeError: A weight that is to be rounded cannot be stored.
            RunError: The checkpoint to go on from cannot be used.
            TrainingError: The loss is not finite, or weights that are to be saved are not.
        """
        saved = self.checkpoints.load() if self.checkpoints.resume else None
        self.model.train()
        self._warm_up()
        schedule, settings = Schedule.from_config(self.config.train), self.config.train
        average = ExponentialAverage(settings.ema_decay**settings.ema_every)
        state = RunState(self.model, self._optimizers(), average)
        if saved is not None:
            self.checkpoints.restore(state, saved)
            self._report_resumed(state)
        watch = Stopwatch(self.clock, self.worker.device, state.train_s)
        rounding, loss = False, torch.zeros((), device=self.worker.device)
        watch.start()
        while not schedule.is_over(state.step, elapsed_s := self._agree(watch.elapsed_s(), state.step, loss)):
            if not rounding and (rounding := schedule.rounds_weights(state.step, elapsed_s)):
                self.log.say(f"qat:on after_step:{state.step}/{settings.iterations}")
            loss = self._step(state.optimizers, state.step, schedule.factor(state.step, elapsed_s), rounding=rounding)
            state.step += 1
            if state.step % settings.ema_every == 0:
                average.update(self.model.named_parameters())
            self._report(state.step, loss, watch)
            if self.checkpoints.is_due(state.step):
                self._save(state, watch, loss)
        self._report_end(state.step, elapsed_s, schedule)
        return TrainingResult(state.step, elapsed_s, average.values())

    def _save(self, state: RunState, watch: Stopwatch, loss: Tensor) -> None:
        state.train_s = self._agree(watch.elapsed_s(), state.step, loss)
        content = state.content()
        # A step may ruin weights that its loss was finite with; the checkpoint before is worth more than such ones.
        if odd := sorted(name for name, weight in content["weights"].items() if not bool(weight.isfinite().all())):
            raise TrainingError(f"weights that are not finite after step {state.step}: {', '.join(odd[:ODD_WEIGHTS])}")
        if self.worker.rank == 0:
            self.checkpoints.save(content)

    def _optimizers(self) -> Optimizers:
        dtype = self.worker.autocast or torch.float32
        return build_optimizers(self.model, self.config, dtype, Exchange(self.worker))

    def _step(self, optimizers: Optimizers, step: int, factor: float, *, rounding: bool = False) -> Tensor:
        """One update; returns the mean loss of this process's micro-batches, with rounded weights where they are."""
        with rounded_weights(self.model, self.config.quant) if rounding else nullcontext():
            total = self._backward(step)
        optimizers.step(factor, muon_momentum(self.config.optim, step))
        return total

    def _backward(self, step: int) -> Tensor:
        """Gradients and mean loss of this process's micro-batches."""
        accumulation = accumulation_steps(self.config, self.worker.world_size)
        total = torch.zeros((), device=self.worker.device)
        for micro in range(accumulation):
            inputs_BT, targets_BT = self.loader.batch(step, micro)
            with self.worker.precision():
                loss = self.model.token_losses(inputs_BT, targets_BT).mean() / accumulation
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _warm_up(self) -> None:
        """Take steps for the machine's sake (caches, allocators, kernels), then put every weight back."""
        settings = self.config.train
        before = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        optimizers = self._optimizers()
        for step in range(settings.warmup_steps):
            self._step(optimizers, step, 1.0)
            self.log.say(f"warmup_step:{step + 1}/{settings.warmup_steps}")
        self.model.load_state_dict(before)

    def _agree(self, elapsed_s: float, step: int, loss: Tensor) -> float:
        """The longest time of any process: all use the same rate and stop after the same step.

        A process whose last loss is not finite tells so as an endless time: all raise TrainingError then.
        """
        own = torch.tensor(elapsed_s, dtype=torch.float64, device=self.worker.device)
        longest = torch.where(loss.isfinite(), own, math.inf)
        if self.worker.world_size > 1:
            dist.all_reduce(longest, op=dist.ReduceOp.MAX)
        if not math.isfinite(longest_s := longest.item()):
            raise TrainingError(f"training loss that is not finite at step {step}")
        return float(longest_s)

    def _report(self, step: int, loss: Tensor, watch: Stopwatch) -> None:
        settings = self.config.train
        shown = step <= FIRST_STEPS_LOGGED or step % max(settings.train_log_every, 1) == 0
        # The last step always: readers take the number of steps and the training time from its line.
        if step == settings.iterations or (settings.train_log_every and shown):
            # The mean over all processes.
            value = self.worker.all_sum(loss.clone()).item() / self.worker.world_size
            self.log.say(train_line(Progress(step, settings.iterations, 1000.0 * watch.elapsed_s()), value))
        if self.validate is not None and settings.val_loss_every and step % settings.val_loss_every == 0:
            progress = Progress(step, settings.iterations, 1000.0 * watch.elapsed_s())
            with watch.paused():
                self.log.say(validation_line(progress, *self.validate()))

    def _report_resumed(self, state: RunState) -> None:
        progress = Progress(state.step, self.config.train.iterations, 1000.0 * state.train_s)
        self.log.say(resume_line(self.checkpoints.path.name, progress))

    def _report_end(self, step: int, elapsed_s: float, schedule: Schedule) -> None:
        progress = Progress(step, self.config.train.iterations, 1000.0 * elapsed_s)
        if self.validate is not None:
            self.log.say(validation_line(progress, *self.validate()))
        if schedule.is_timed and step < self.config.train.iterations:
            self.log.say(stop_line(progress))
