"""Muon for matrices, Adam for everything else, and the rule that every parameter is in exactly one group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reference_model.config import Config, OptimConfig
from reference_model.exchange import Exchange, Pending, average_gradients, ready
from reference_model.muon import Muon
from reference_model.rowtable import RowTable

# Small tensors that steer the network rather than carry its content: Adam, no decay, full precision.
ADAM_NAMES = ("attn_scale", "mlp_scale", "resid_mix", "q_gain", "skip_weights", "smear", "merge_alpha", "A_log", "s4d")

# What torch's own clipping adds to the norm.
CLIP_EPSILON = 1e-6


class OptimizerError(ValueError):
    """The parameters cannot be divided into optimizer groups."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share an update rule and a base learning rate.

    Attributes:
        name: "matrix" (Muon), or "embedding", "head", "scalar" (Adam).
        names: The parameters' names in the model, in its order.
        parameters: The parameters themselves, in the same order.
        learning_rate: Before the schedule's factor.
    """

    name: str
    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]
    learning_rate: float


def build_groups(model: nn.Module, config: Config) -> tuple[ParameterGroup, ...]:
    """Divide the model's parameters into optimizer groups.

    Raises:
        OptimizerError: A parameter belongs to no group or to two, or is reached by two names (it would be updated
            twice).
    """
    rates = {
        "matrix": config.optim.matrix_lr,
        "embedding": config.optim.tied_embed_lr if config.model.tie_embeddings else config.optim.embed_lr,
        "head": config.optim.head_lr,
        "scalar": config.optim.scalar_lr,
    }
    members: dict[str, list[tuple[str, nn.Parameter]]] = {name: [] for name in rates}
    first_name: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in first_name:
            raise OptimizerError(f"parameter {name} is the same tensor as {first_name[id(parameter)]}")
        first_name[id(parameter)] = name
        members[_group_of(name, parameter)].append((name, parameter))
    return tuple(
        ParameterGroup(group, tuple(n for n, _ in found), tuple(p for _, p in found), rates[group])
        for group, found in members.items()
        if found
    )


def _group_of(name: str, parameter: Tensor) -> str:
    is_table = name.endswith(("bigram_hash.table.weight", "meta_tokens"))
    is_control = any(part.startswith(ADAM_NAMES) for part in name.split("."))
    is_content = not (is_table or is_control or name in {"tok_emb.weight", "lm_head.weight"})
    in_bank = name.startswith("banks.") and parameter.ndim == 3
    inside = name.startswith(("blocks.", "bigram_hash."))
    belongs = {
        "matrix": is_content and (in_bank or (inside and parameter.ndim == 2)),
        "embedding": name == "tok_emb.weight",
        "head": name == "lm_head.weight",
        # A depthwise convolution's weight has three axes but is one short filter per channel, not a matrix.
        "scalar": is_table or is_control or (is_content and (parameter.ndim < 2 or "conv" in name)),
    }
    groups = [group for group, member in belongs.items() if member]
    if len(groups) != 1:
        shape = tuple(parameter.shape)
        raise OptimizerError(f"parameter {name} {shape} is in {len(groups)} optimizer groups: {groups or 'none'}")
    return groups[0]


class Optimizers:
    """Muon and Adam behind one `step`: the schedule's factor and the momentum come in, nothing else varies.

    Gradients are averaged over the processes once per step. Where Muon is divided among them, the sums of its matrices
    go to those who need them, while Adam works.
    """

    def __init__(
        self,
        groups: Sequence[ParameterGroup],
        config: OptimConfig,
        dtype: torch.dtype,
        exchange: Exchange | None = None,
        tables: Sequence[RowTable] = (),
    ) -> None:
        self.groups, self.tables = tuple(groups), tuple(tables)
        self.exchange = exchange or Exchange()
        self._clear_tables()
        self.sharded = config.muon_sharded and self.exchange.worker.world_size > 1
        among = self.exchange if self.sharded else Exchange()
        decay, steps = config.weight_decay, config.muon_backend_steps
        self.matrix_groups = [
            (Muon(g.parameters, weight_decay=decay, steps=steps, dtype=dtype, exchange=among), g)
            for g in groups
            if g.name == "matrix"
        ]
        self.adam_groups = [g for g in groups if g.name != "matrix"]
        self.adam = torch.optim.Adam(
            [{"params": list(g.parameters), "lr": g.learning_rate} for g in self.adam_groups],
            betas=(config.beta1, config.beta2),
            eps=config.adam_eps,
            fused=True,
        )
        # Those whose mean gradient every process needs.
        self.common = [p for g in (self.adam_groups if self.sharded else self.groups) for p in g.parameters]
        self.clip_norm = config.grad_clip_norm

    def parameters(self) -> Iterator[nn.Parameter]:
        """Every parameter once, in group order: the same on every rank."""
        for group in self.groups:
            yield from group.parameters

    def step(self, scale: float, momentum: float) -> None:
        """Average the gradients over the processes, update every parameter, then drop the gradients.

        Args:
            scale: The schedule's factor on every learning rate.
            momentum: Muon's, of this step.
        """
        place_means = average_gradients(self.common, self.exchange)
        sent = [list(muon.sent_gradients()) if self.sharded else None for muon, _ in self.matrix_groups]
        place_means()
        if self.clip_norm > 0.0:
            sent = self._clipped(sent)
        for options, group in zip(self.adam.param_groups, self.adam_groups, strict=True):
            options["lr"] = group.learning_rate * scale
        self.adam.step()
        for (muon, group), begun in zip(self.matrix_groups, sent, strict=True):
            muon.step(group.learning_rate * scale, momentum, begun)
        self._clear_tables()
        kept = {id(table.weight) for table in self.tables}
        for parameter in self.parameters():
            parameter.grad = parameter.grad if id(parameter) in kept else None

    def _clear_tables(self) -> None:
        for table in self.tables:
            table.clear(keep=self.exchange.worker.world_size == 1)

    def state(self) -> dict[str, Any]:
        """All moments; every process must call it, since each may hold a share of them."""
        return {"adam": self.adam.state_dict(), "muon": [muon.momentum() for muon, _ in self.matrix_groups]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take moments that `state` gave, for however many processes."""
        self.adam.load_state_dict(state["adam"])
        for (muon, _), momentum in zip(self.matrix_groups, state["muon"], strict=True):
            muon.load_momentum(momentum)

    def _clipped(self, sent: Sequence[list[Pending] | None]) -> list[list[Pending] | None]:
        """Shorten all gradients together, wherever they are."""
        if not self.sharded:
            nn.utils.clip_grad_norm_(self.parameters(), self.clip_norm)
            return list(sent)
        shares = [[pending() for pending in begun or ()] for begun in sent]
        held, size = [share for stack in shares for share in stack], self.exchange.worker.world_size
        whole = [parameter.grad for parameter in self.common if parameter.grad is not None]
        # A share holds sums, not means.
        squares = self.exchange.total(_squares(held) / size**2)() + _squares(whole)
        for tensor in (*held, *whole):
            tensor.mul_((self.clip_norm / (squares.sqrt() + CLIP_EPSILON)).clamp(max=1.0))
        return [[ready(share) for share in stack] for stack in shares]


def _squares(tensors: Sequence[Tensor]) -> Tensor:
    """Sum of the squares of all elements."""
    return torch.stack([tensor.square().sum() for tensor in tensors]).sum()


def build_optimizers(
    model: nn.Module, config: Config, dtype: torch.dtype = torch.float32, exchange: Exchange | None = None
) -> Optimizers:
    """Make fresh optimizers for the model (raises `OptimizerError`, see `build_groups`)."""
    tables = [module for module in model.modules() if isinstance(module, RowTable)]
    return Optimizers(build_groups(model, config), config.optim, dtype, exchange, tables)
