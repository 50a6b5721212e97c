"""Calibration of the quantizer: inputs of every matrix over some text, then rounding that knows them.

The text comes from the training shards or from the model itself; validation tokens are out of reach here. It takes
part of the training time: a budget ends it early, and what it leaves is rounded to nearest. Without a wallclock limit
no clock is read.

Shape letters: B sequences, T tokens, R rows, C columns of a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from reference_model.config import Config, QuantConfig
from reference_model.data import BatchLoader
from reference_model.gptq import Rounding, round_with_hessian
from reference_model.model import HymbaLM
from reference_model.quantize import QuantizedTensor, quantize_rows, tensor_kind
from reference_model.runlog import RunLog, calibration_line
from reference_model.scoring import evaluation_mode
from reference_model.worker import Worker

# A parameter's name, and the place of a matrix in it: 0 unless it is a bank.
Place: TypeAlias = tuple[str, int]
# Says whether the time is over.
IsOver: TypeAlias = Callable[[], bool]

LONGEST_SAMPLE = 1_024
SAMPLED_AT_ONCE = 64
# Of the time that is left after training; the rest is for rounding.
COLLECTING_SHARE = 0.5


@dataclass(frozen=True)
class Budget:
    """Seconds that calibration may take.

    Attributes:
        clock: Monotonic seconds.
        began_s: When it began.
        seconds: How many there are; infinite without a wallclock limit.
    """

    clock: Callable[[], float]
    began_s: float
    seconds: float

    def spent_s(self) -> float:
        """Seconds since it began."""
        return self.clock() - self.began_s

    def is_over(self, share: float = 1.0) -> bool:
        """Whether this share of it is spent."""
        return math.isfinite(self.seconds) and self.spent_s() >= share * self.seconds


@dataclass
class InputStatistics(TorchFunctionMode):
    """While entered, adds up X^T X over the inputs X of every matrix that `torch.nn.functional.linear` applies.

    A matrix is known by its storage, wherever it is applied: as a module's own, as one of a bank, in part, or twice.

    Attributes:
        parameters: Those of interest by name; R, C each, or N, R, C for a bank.
        sums: float32 C, C by place.
    """

    parameters: Mapping[str, Tensor]
    sums: dict[Place, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - as torch has it
        """Look at the arguments, then do what was asked."""
        if func is F.linear:
            self.add(args[0], args[1])
        return func(*args, **(kwargs or {}))

    def add(self, x: Tensor, weight: Tensor) -> None:
        """Take in the inputs of one application."""
        place = self.place(weight)
        if place is None:
            return
        x_TC = x.detach().reshape(-1, x.shape[-1]).float()
        product_CC = x_TC.T @ x_TC
        if place in self.sums:
            self.sums[place] += product_CC
        else:
            self.sums[place] = product_CC

    def place(self, weight: Tensor) -> Place | None:
        """Where a matrix, or some rows of one, stands; None where it is no parameter of interest."""
        for name, parameter in self.parameters.items():
            offset = weight.data_ptr() - parameter.data_ptr()
            if weight.dtype == parameter.dtype and 0 <= offset < parameter.numel() * parameter.element_size():
                return name, offset // (parameter.element_size() * parameter.shape[-1] * parameter.shape[-2])
        return None


@dataclass(frozen=True)
class Calibrator:
    """Rounds the matrices of a trained model for the inputs that they get.

    Attributes:
        model: With the weights that will be packed.
        config: What is stored in integers, and how it is calibrated.
        loader: Deals the train shards out; not used for text of the model's own.
        worker: This process; each takes its share of the text.
        log: Where lines go.
        clock: Injected; monotonic seconds.
    """

    model: HymbaLM
    config: Config
    loader: BatchLoader
    worker: Worker
    log: RunLog
    clock: Callable[[], float]

    def rounded(self, steps: int, train_s: float) -> dict[str, QuantizedTensor]:
        """Every tensor that is stored in integers, on the CPU; none on processes but the first.

        Args:
            steps: Finished steps of training: text from the shards is what would have come next.
            train_s: What they took.

        Raises:
            QuantizeError: Weights or inputs are not finite.
        """
        limit_s, quant = self.config.train.max_wallclock_seconds, self.config.quant
        budget = Budget(self.clock, self.clock(), limit_s - train_s if limit_s else math.inf)
        weights = {name: tensor.detach() for name, tensor in self.model.state_dict().items()}
        stored = {n: w for n, w in weights.items() if tensor_kind(n, w, quant).startswith("int")}
        statistics = InputStatistics({name: w for name, w in stored.items() if not name.endswith("tok_emb.weight")})
        # Counted in the text: a matrix sees meta tokens too, and one that serves twice sees everything twice.
        tokens = 0
        for batch_BT in self.batches(steps, budget):
            with statistics, torch.no_grad(), evaluation_mode(self.model), self.worker.precision():
                self.model(batch_BT)
            tokens += batch_BT.numel()
        self.drop_unless_all_saw(statistics)
        tokens = tokens if statistics.sums else 0
        for place in sorted(statistics.sums):
            self.worker.all_sum(statistics.sums[place])
        self.log.say(
            f"gptq:collected {len(statistics.sums)} hessians over {tokens * self.worker.world_size} tokens "
            f"of {'the train shards' if quant.gptq_calibration == 'train' else 'its own'} in {budget.spent_s():.3f}s"
        )
        rounded = self.round_all(stored, statistics, budget) if self.worker.rank == 0 else {}
        if limit_s:
            self.log.say(calibration_line(train_s, budget.spent_s()))
        return rounded

    def drop_unless_all_saw(self, statistics: InputStatistics) -> None:
        """Forget everything where the time was over for one process before its first batch: sums are of all."""
        saw = self.worker.all_sum(torch.tensor(float(bool(statistics.sums)), device=self.worker.device))
        if int(saw.item()) < self.worker.world_size:
            statistics.sums.clear()

    def round_all(
        self, stored: Mapping[str, Tensor], statistics: InputStatistics, budget: Budget
    ) -> dict[str, QuantizedTensor]:
        """Round one tensor after the other, to nearest where nothing is known or the time is over.

        When it is over no better clips are searched either.
        """
        began_s, done, rounded = budget.spent_s(), 0, dict[str, QuantizedTensor]()
        for name, weight in stored.items():
            clip_search = self.config.quant.clip_search and not budget.is_over()
            nearest = nearest_of(name, weight, replace(self.config.quant, clip_search=clip_search))
            matrices = weight.view(-1, *weight.shape[-2:])
            for index, matrix_RC in enumerate(matrices):
                hessian_CC = statistics.sums.get((name, index))
                if hessian_CC is None or budget.is_over():
                    continue
                one = QuantizedTensor(
                    nearest.values.view_as(matrices)[index],
                    nearest.scale.view(matrices.shape[:2])[index],
                    nearest.bits,
                    nearest.dtype,
                )
                one.values.copy_(round_with_hessian(matrix_RC, one, hessian_CC, rounding_of(self.config.quant)).values)
                done += 1
            rounded[name] = QuantizedTensor(nearest.values.cpu(), nearest.scale.cpu(), nearest.bits, nearest.dtype)
        rest = f"the rest of {len(stored)} tensors to nearest"
        self.log.say(f"gptq:quantized {done} matrices by their inputs, {rest}, in {budget.spent_s() - began_s:.3f}s")
        return rounded

    def batches(self, steps: int, budget: Budget) -> Iterator[Tensor]:
        """This process's share of the text, B, T each; nothing is read or drawn when its time is over."""
        tokens = -(-self.config.quant.gptq_tokens // self.worker.world_size)
        if self.config.quant.gptq_calibration == "self":
            yield from self.samples(tokens, budget)
            return
        accumulation = self.loader.accumulation
        for place in range(-(-tokens // self.loader.micro_tokens)):
            if budget.is_over(COLLECTING_SHARE):
                return
            yield self.loader.batch(steps + place // accumulation, place % accumulation)[0]

    def samples(self, tokens: int, budget: Budget) -> Iterator[Tensor]:
        """Text of the model's own."""
        length = min(self.config.train.train_seq_len, LONGEST_SAMPLE)
        generator = torch.Generator(self.worker.device).manual_seed(self.config.train.seed + self.worker.rank)
        sequences = -(-tokens // length)
        for first in range(0, sequences, SAMPLED_AT_ONCE):
            if budget.is_over(COLLECTING_SHARE):
                return
            count, began_s = min(SAMPLED_AT_ONCE, sequences - first), budget.spent_s()
            with torch.no_grad(), evaluation_mode(self.model), self.worker.precision():
                drawn_BT = sampled(self.model, (count, length), generator, lambda: budget.is_over(COLLECTING_SHARE))
            self.log.say(f"gptq:generated {drawn_BT.numel()} tokens in {budget.spent_s() - began_s:.3f}s")
            yield drawn_BT


def sampled(model: HymbaLM, shape: tuple[int, int], generator: torch.Generator, is_over: IsOver) -> Tensor:
    """Sequences that a model draws from its own distributions, the first token from all alike.

    Args:
        model: In evaluation mode, without gradients.
        shape: Sequences and tokens of each.
        generator: What it draws with.
        is_over: Asked after every token: the sequences end where the time does.

    Returns:
        B, T; T is less than asked for where the time is over.
    """
    sequences, length = shape
    drawn = [torch.randint(model.config.vocab_size, (sequences, 1), generator=generator, device=generator.device)]
    memory = model.new_memory()
    while len(drawn) < length and not is_over():
        probabilities_BV = model(drawn[-1], memory)[:, -1].float().softmax(-1)
        drawn.append(torch.multinomial(probabilities_BV, 1, generator=generator))
    return torch.cat(drawn, 1)


def nearest_of(name: str, weight: Tensor, quant: QuantConfig) -> QuantizedTensor:
    """A tensor rounded to nearest, as `pack` does it."""
    bits = int(tensor_kind(name, weight, quant).removeprefix("int"))
    return quantize_rows(weight, bits, scale_floor=quant.scale_floor, clip_search=quant.clip_search)


def rounding_of(quant: QuantConfig) -> Rounding:
    """How the settings say that matrices are rounded."""
    return Rounding(quant.gptq_damping, quant.gptq_activity_order)
