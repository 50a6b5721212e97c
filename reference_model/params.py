"""Count parameters module by module, without allocating them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from reference_model.config import ModelConfig
from reference_model.model import HymbaLM


def parameter_counts(config: ModelConfig) -> list[tuple[str, int]]:
    """Count every tensor of the first block, then each other block and each other part of the model as a whole."""
    with torch.device("meta"):
        model = HymbaLM(config)
    return list(_counts(model))


def _counts(model: HymbaLM) -> Iterator[tuple[str, int]]:
    first_block: nn.Module = model.blocks[0]
    for name, parameter in model.named_parameters():
        if not name.startswith("blocks."):
            yield name, parameter.numel()
    for name, parameter in first_block.named_parameters():
        yield f"blocks.0.{name}", parameter.numel()
    for layer, block in enumerate(model.blocks[1:], 1):
        yield f"blocks.{layer}", sum(parameter.numel() for parameter in block.parameters())


def parameter_table(config: ModelConfig) -> str:
    """Lines of name and count, the first block tensor by tensor under its sum; the last line is `total COUNT`."""
    counts = parameter_counts(config)
    inside = [(name.replace("blocks.0.", "  "), count) for name, count in counts if name.startswith("blocks.0.")]
    outside = [(name, count) for name, count in counts if not name.startswith("blocks.")]
    later = [(name, count) for name, count in counts if name.startswith("blocks.") and ".0." not in name]
    first = ("blocks.0", sum(count for _, count in inside))
    width = max(len(name) for name, _ in counts)
    lines = [f"{name:<{width}} {count:>12,}" for name, count in (*outside, first, *inside, *later)]
    return "\n".join([*lines, f"total {sum(count for _, count in counts)}"])
