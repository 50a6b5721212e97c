"""Low-rank adapters (arXiv:2106.09685): what is added to the products of a model's matrices, for each document another.

The model itself is not changed: hooks add B (A x) to what a layer gives. B begins at zero, so that fresh adapters add
nothing.

Shape letters: S documents side by side, T time, C columns, R rows, K rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from reference_model.banks import BankLinear, MatrixRows
from reference_model.scoring import LanguageModel

# Names of the layers of each part, as the mixers, the MLP and the model call them.
PART_LAYERS = {
    "attention": ("attn.c_q", "attn.c_q_rows", "attn.c_k", "attn.c_v", "attn.kv_proj", "attn.value_gate", "attn.proj"),
    "mamba": ("attn.in_proj", "attn.in_proj_rows", "attn.mamba_proj", "attn.mamba_out_proj", "attn.ssm_in"),
    "mlp": ("mlp.fc", "mlp.proj"),
    "head": ("head",),
}
START_SEED = 0


def adapted_layers(model: LanguageModel, parts: Sequence[str], frozen_blocks: int = 0) -> list[nn.Module]:
    """The layers of some parts of a model, in its order; of matrices that are used in part, what is used.

    The first `frozen_blocks` blocks have none.

    Raises:
        ValueError: There is none.
    """
    frozen = {id(module) for block in list(model.blocks)[:frozen_blocks] for module in block.modules()}
    lenders = {id(module.owner[0]) for _, module in model.named_modules() if isinstance(module, MatrixRows)}
    names = tuple(name for part in parts for name in PART_LAYERS[part])
    found: list[nn.Module] = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | BankLinear | MatrixRows) and id(module) not in lenders | frozen
        if any(f".{name}".endswith(f".{wanted}") for wanted in names)
    ]
    if not found:
        beyond = f" beyond its first {frozen_blocks} blocks" if frozen_blocks else ""
        raise ValueError(f"the model has no layer for adapters on {', '.join(parts)}{beyond}")
    return found


@dataclass(frozen=True)
class AdapterStart:
    """Where the adapters of every document begin.

    Attributes:
        layers: What is adapted.
        down: A of each layer, K, C, the same for all documents.
        rows: R of each layer.
    """

    layers: tuple[nn.Module, ...]
    down: tuple[Tensor, ...]
    rows: tuple[int, ...]

    @classmethod
    def drawn(cls, layers: Sequence[nn.Module], rank: int) -> AdapterStart:
        """Draw A uniformly within 1 / sqrt(C), from a seed of its own."""
        generator = torch.Generator().manual_seed(START_SEED)
        weights = [layer.weight for layer in layers if isinstance(layer.weight, Tensor)]
        down = (
            torch.empty(rank, weight.shape[1]).uniform_(-1, 1, generator=generator).to(weight.device)
            * weight.shape[1] ** -0.5
            for weight in weights
        )
        return cls(tuple(layers), tuple(down), tuple(len(weight) for weight in weights))

    def fresh(self, documents: int) -> Adapters:
        """Adapters of so many documents, as each begins."""
        down = [A_KC.expand(documents, -1, -1).clone().requires_grad_() for A_KC in self.down]
        up = [
            A_KC.new_zeros(documents, rows, len(A_KC)).requires_grad_()
            for A_KC, rows in zip(self.down, self.rows, strict=True)
        ]
        return Adapters(self.layers, down, up)


@dataclass(frozen=True)
class Adapters:
    """Adapters of documents side by side.

    Attributes:
        layers: What is adapted.
        down: A of each layer, S, K, C.
        up: B of each layer, S, R, K.
    """

    layers: tuple[nn.Module, ...]
    down: list[Tensor]
    up: list[Tensor]

    @property
    def weights(self) -> list[Tensor]:
        """What is trained."""
        return [*self.down, *self.up]

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Add to the layers' products meanwhile; a batch of fewer documents is of the first ones."""
        with ExitStack() as stack:
            for layer, A_SKC, B_SRK in zip(self.layers, self.down, self.up, strict=True):
                handle = layer.register_forward_hook(partial(_add, A_SKC, B_SRK))
                stack.callback(handle.remove)
            yield


def _add(A_SKC: Tensor, B_SRK: Tensor, _layer: nn.Module, inputs: tuple[Tensor], output_STR: Tensor) -> Tensor:
    (x_STC,) = inputs
    return output_STR + torch.bmm(torch.bmm(x_STC, A_SKC[: len(x_STC)].mT), B_SRK[: len(x_STC)].mT)
