"""Parameter banks: matrices of one shape, of all layers, as one parameter with three axes (pull request 852).

An optimizer that is shared by processes deals out whole matrices of a bank; one product handles all of them.

Shape letters: N matrices of a bank, R rows, C columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_model.config import ModelConfig

# Role of a matrix in its layer: its bank, and how many times the number of layers it stands behind the bank's start.
SEPARATE_ROLES = {
    "c_q": ("qo", 0),
    "proj": ("qo", 1),
    "c_k": ("kv", 0),
    "c_v": ("kv", 1),
    "fc": ("mlp_up", 0),
    "mlp_proj": ("mlp_down", 0),
    "mamba_proj": ("ssm_in", 0),
    "x_proj": ("ssm_x", 0),
    "dt_proj": ("ssm_dt", 0),
    "mamba_out_proj": ("ssm_out", 0),
}
# The records script of #852: query and output are one matrix, key and value another.
SHARED_ROLES = {
    "c_q": ("qo", 0),
    "proj": ("qo", 0),
    "c_k": ("kv", 0),
    "c_v": ("kv", 0),
    "fc": ("mlp_up", 0),
    "mlp_proj": ("mlp_down", 0),
    "in_proj": ("ssm_in", 0),
    "value_gate": ("ssm_gate", 0),
    "x_proj": ("ssm_x", 0),
    "mamba_out_proj": ("ssm_out", 0),
}


# What stands where a matrix is applied.
Linear: TypeAlias = "nn.Linear | BankLinear"


class MakeLinear(Protocol):
    """Makes the linear layer of one role."""

    def __call__(self, role: str, rows: int, columns: int, *, bias: bool = False) -> Linear:
        """Return a module that maps C columns to R rows and has a `weight` of that shape."""


def plain_linear(role: str, rows: int, columns: int, *, bias: bool = False) -> Linear:  # noqa: ARG001 - a role needs a bank
    """A layer with a matrix of its own."""
    return nn.Linear(columns, rows, bias=bias)


def bank_shapes(config: ModelConfig) -> dict[str, tuple[int, int, int]]:
    """Shape of every bank, N, R, C."""
    dim, channels, layers = config.model_dim, config.ssm_dim, config.num_layers
    kv_dim, hidden = config.num_kv_heads * config.head_dim, config.hidden_dim
    attention, projected = {"qo": (dim, dim), "kv": (kv_dim, dim)}, config.ssm_dt_rank + 2 * config.ssm_state
    mlp = {"mlp_up": (hidden, dim), "mlp_down": (dim, hidden)}
    scan = {"ssm_x": (projected, channels), "ssm_out": (dim, channels)}
    if config.banks == "shared":
        # As published: the last layer has scan matrices although it has no scan, and two unused parts of ssm_in.
        scan |= {"ssm_in": (2 * (kv_dim + channels), dim), "ssm_gate": (kv_dim, dim)}
        return {name: (layers, *shape) for name, shape in (attention | mlp | scan).items()}
    scan |= {"ssm_in": (2 * channels, dim), "ssm_dt": (channels, config.ssm_dt_rank)}
    counts = ((attention, 2 * layers), (mlp, layers), (scan, sum(map(config.is_hybrid, range(layers)))))
    return {name: (count, *shape) for shapes, count in counts if count for name, shape in shapes.items()}


class ParameterBanks(nn.Module):
    """All banks of a model; its layers hold `BankLinear` modules, which own no matrix."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.roles = SHARED_ROLES if config.banks == "shared" else SEPARATE_ROLES
        for name, shape in bank_shapes(config).items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        self.apart: Mapping[str, Sequence[Tensor]] = {}

    def makes(self, layer: int) -> MakeLinear:
        """What makes the linear layers of one layer."""

        def linear(role: str, rows: int, columns: int, *, bias: bool = False) -> Linear:
            made = BankLinear(self, *self.place(role, layer), bias=rows if bias else 0)
            if tuple(made.weight.shape) != (rows, columns):
                raise ValueError(f"{role}: the bank's matrices are {tuple(made.weight.shape)}, not {(rows, columns)}")
            return made

        return linear

    def place(self, role: str, layer: int) -> tuple[str, int]:
        """Bank of a role's matrix and its index there."""
        name, part = self.roles[role]
        skipped = 0
        if name.startswith("ssm_") and self.config.banks == "separate":
            skipped = sum(not self.config.is_hybrid(before) for before in range(layer))
        return name, part * self.config.num_layers + layer - skipped

    def matrix(self, name: str, index: int) -> Tensor:
        """One matrix of a bank, R, C: a view that writes through."""
        return self.apart[name][index] if self.apart else self.get_parameter(name)[index]

    @contextmanager
    def taken_apart(self) -> Iterator[None]:
        """Take every bank apart once for a pass: its gradient is then filled once, not once for every matrix."""
        self.apart = {name: bank.unbind() for name, bank in self.named_parameters()}
        try:
            yield
        finally:
            self.apart = {}


class BankLinear(nn.Module):
    """A linear layer whose matrix stands in a bank; a bias is its own.

    Args:
        banks: The owner of the matrix.
        name: Bank.
        index: Place in the bank.
        bias: Rows of the bias, 0 for none.

    """

    def __init__(self, banks: ParameterBanks, name: str, index: int, *, bias: int = 0) -> None:
        super().__init__()
        # In a tuple, where torch does not look: the banks are registered once, in the model.
        self.owner = (banks,)
        self.name, self.index = name, index
        self.bias = nn.Parameter(torch.zeros(bias)) if bias else None

    @property
    def weight(self) -> Tensor:
        """The matrix, R, C."""
        return self.owner[0].matrix(self.name, self.index)

    def forward(self, x: Tensor) -> Tensor:
        """Map the last dimension from C to R."""
        return F.linear(x, self.weight, self.bias)


class MatrixRows(nn.Module):
    """A matrix that another module owns, or some rows of it, applied as a layer of its own: what hooks can be put on.

    Args:
        owner: Has the matrix as its `weight`.
        rows: Which of its rows; all of them when absent.

    """

    def __init__(self, owner: Linear | nn.Embedding, rows: slice | None = None) -> None:
        super().__init__()
        # In a tuple, where torch does not look: the matrix is registered once, where it belongs.
        self.owner = (owner,)
        self.rows = rows

    @property
    def weight(self) -> Tensor:
        """The rows, R, C."""
        weight_RC = self.owner[0].weight
        return weight_RC if self.rows is None else weight_RC[self.rows]

    def forward(self, x: Tensor) -> Tensor:
        """Map the last dimension from C to R."""
        return F.linear(x, self.weight)


@contextmanager
def frozen_matrices(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Let no gradient reach the matrices that these blocks use of banks; the banks' other matrices get theirs."""
    held: dict[nn.Parameter, list[int]] = {}
    for module in (module for block in blocks for module in block.modules() if isinstance(module, BankLinear)):
        held.setdefault(module.owner[0].get_parameter(module.name), []).append(module.index)
    handles = []
    for bank, rows in held.items():
        keep_out = partial(_without_rows, torch.tensor(rows, device=bank.device))
        handles.append(bank.register_hook(keep_out))  # type: ignore[no-untyped-call]  # untyped in torch
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _without_rows(rows: Tensor, gradient_NRC: Tensor) -> Tensor:
    return gradient_NRC.index_fill(0, rows, 0.0)
