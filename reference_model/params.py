"""Count parameters module by module, without allocating them."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from reference_model.config import ModelConfig
from reference_model.model import HymbaLM


def parameter_counts(config: ModelConfig) -> list[tuple[str, int]]:
    """Count every tensor outside the blocks and of each kind of block the first time, other blocks as a whole."""
    with torch.device("meta"):
        model = HymbaLM(config)
    return list(_counts(model))


def _counts(model: HymbaLM) -> Iterator[tuple[str, int]]:
    for name, parameter in model.named_parameters():
        if not name.startswith("blocks."):
            yield name, parameter.numel()
    seen: set[tuple[tuple[str, int], ...]] = set()
    for layer, block in enumerate(model.blocks):
        inside = tuple((name, parameter.numel()) for name, parameter in block.named_parameters())
        if inside in seen:
            yield f"blocks.{layer}", sum(count for _, count in inside)
        else:
            yield from ((f"blocks.{layer}.{name}", count) for name, count in inside)
            seen.add(inside)


def parameter_table(config: ModelConfig) -> str:
    """Lines of name and count, a block tensor by tensor under its sum; the last line is `total COUNT`."""
    counts = parameter_counts(config)
    sums: dict[str, int] = {}
    for name, count in counts:
        if name.startswith("blocks."):
            block = ".".join(name.split(".")[:2])
            sums[block] = sums.get(block, 0) + count
    width, lines = max(len(name) for name, _ in counts), list[str]()
    for name, count in counts:
        block, inside = ".".join(name.split(".")[:2]), name.split(".")[2:]
        if block in sums:
            lines.append(f"{block:<{width}} {sums.pop(block):>12,}")
        if not name.startswith("blocks.") or inside:
            shown = f"  {'.'.join(inside)}" if name.startswith("blocks.") else name
            lines.append(f"{shown:<{width}} {count:>12,}")
    return "\n".join([*lines, f"total {sum(count for _, count in counts)}"])
