"""Muon for matrices, Adam for everything else, and the rule that every parameter is in exactly one group.

Muon is by Keller Jordan (https://kellerjordan.github.io/posts/muon/): momentum, then the nearest semi-orthogonal
matrix by five Newton-Schulz steps, then a step of fixed size. Matrices of one shape are orthogonalized together:
on a CPU one batched product of 4 matrices costs far less than 4 products.

Shape letters: N matrices of one shape, R rows, C columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reference_model.config import Config, OptimConfig

NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_EPSILON = 1e-7

# Small tensors that steer the network rather than carry its content: Adam, no decay, full precision.
ADAM_NAMES = ("attn_scale", "mlp_scale", "resid_mix", "q_gain", "skip_weights", "smear", "merge_alpha", "A_log")


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


def orthogonalize(matrices_NRC: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Push every singular value of each matrix towards 1 with a quintic Newton-Schulz iteration.

    Args:
        matrices_NRC: (N, R, C), any float dtype.
        steps: Iterations; five bring the singular values of a typical gradient into about 0.7 to 1.2.
        dtype: Of the products.

    Returns:
        (N, R, C) in `dtype`.
    """
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    X_NRC = matrices_NRC.to(dtype)
    X_NRC = X_NRC / (X_NRC.norm(dim=(-2, -1), keepdim=True) + NEWTON_SCHULZ_EPSILON)
    tall = X_NRC.size(-2) > X_NRC.size(-1)
    if tall:
        X_NRC = X_NRC.mT
    for _ in range(steps):
        gram_NRR = X_NRC @ X_NRC.mT
        polynomial_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c)
        X_NRC = torch.baddbmm(X_NRC, polynomial_NRR, X_NRC, beta=a)
    return X_NRC.mT if tall else X_NRC


class Muon:
    """Nesterov momentum, orthogonalized, with decoupled weight decay; one batched iteration per matrix shape.

    A bank of matrices (three axes) counts as so many matrices: each is orthogonalized by itself.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], *, weight_decay: float, steps: int, dtype: torch.dtype
    ) -> None:
        self.weight_decay = weight_decay
        self.steps = steps
        self.dtype = dtype
        by_shape: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for parameter in parameters:
            by_shape.setdefault(tuple(parameter.shape[-2:]), []).append(parameter)
        self.stacks = tuple(tuple(stack) for stack in by_shape.values())
        self.momentum_buffers = [torch.zeros_like(_matrices(stack), dtype=torch.float32) for stack in self.stacks]

    @torch.no_grad()
    def step(self, learning_rate: float, momentum: float) -> None:
        """Apply one update from the parameters' gradients; a missing gradient counts as zero."""
        for stack, buffer_NRC in zip(self.stacks, self.momentum_buffers, strict=True):
            gradient_NRC = _matrices([torch.zeros_like(p) if p.grad is None else p.grad for p in stack]).float()
            buffer_NRC.mul_(momentum).add_(gradient_NRC)
            nesterov_NRC = gradient_NRC.add_(buffer_NRC, alpha=momentum)
            update_NRC = orthogonalize(nesterov_NRC, self.steps, self.dtype)
            rows, columns = update_NRC.shape[-2:]
            scale = max(1.0, rows / columns) ** 0.5
            counts = [parameter.numel() // (rows * columns) for parameter in stack]
            for parameter, update in zip(stack, torch.split(update_NRC, counts), strict=True):
                parameter.mul_(1.0 - learning_rate * self.weight_decay)
                parameter.add_(update.view_as(parameter).to(parameter.dtype), alpha=-learning_rate * scale)


def _matrices(tensors: Sequence[Tensor]) -> Tensor:
    """A copy of all matrices of tensors of two or three axes, N, R, C."""
    return torch.cat([tensor.detach().reshape(-1, *tensor.shape[-2:]) for tensor in tensors])


class Optimizers:
    """Muon and Adam behind one `step`: the schedule's factor and the momentum come in, nothing else varies."""

    def __init__(self, groups: Sequence[ParameterGroup], config: OptimConfig, dtype: torch.dtype) -> None:
        self.groups = tuple(groups)
        self.matrix_groups = [
            (Muon(g.parameters, weight_decay=config.weight_decay, steps=config.muon_backend_steps, dtype=dtype), g)
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
        self.clip_norm = config.grad_clip_norm

    def parameters(self) -> Iterator[nn.Parameter]:
        """Every parameter once, in group order: the same on every rank."""
        for group in self.groups:
            yield from group.parameters

    def step(self, scale: float, momentum: float) -> None:
        """Update every parameter, then drop the gradients.

        Args:
            scale: The schedule's factor on every learning rate.
            momentum: Muon's, of this step.
        """
        if self.clip_norm > 0.0:
            nn.utils.clip_grad_norm_(self.parameters(), self.clip_norm)
        for muon, group in self.matrix_groups:
            muon.step(group.learning_rate * scale, momentum)
        for options, group in zip(self.adam.param_groups, self.adam_groups, strict=True):
            options["lr"] = group.learning_rate * scale
        self.adam.step()
        for parameter in self.parameters():
            parameter.grad = None


def build_optimizers(model: nn.Module, config: Config, dtype: torch.dtype = torch.float32) -> Optimizers:
    """Make fresh optimizers for the model (raises `OptimizerError`, see `build_groups`)."""
    return Optimizers(build_groups(model, config), config.optim, dtype)
