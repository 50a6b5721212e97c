"""Losses of which one was chosen: by what, and among which computations of the same target."""

from __future__ import annotations

from typing import Any

import torch

from .codes import AGGREGATE, ELEMENT_BITS
from .ledger import Ledger

# The better or the worse of several; which of them, the numbers tell.
ALONG = frozenset({"min", "amin", "max", "amax"})
LEAST = ALONG | {"minimum", "fmin", "maximum", "fmax", "clamp", "clamp_", "clamp_max"}


def marked(ledger: Ledger, how: str, *codes: torch.Tensor) -> None:
    """Note that losses went through something that takes one of several."""
    for each in codes:
        for number in torch.unique(each[(each >= 0) & (each < AGGREGATE)] >> ELEMENT_BITS).tolist():
            ledger.sources[number].how.add(how)


def compared(ledger: Ledger, how: str, first: torch.Tensor, second: torch.Tensor) -> None:
    """One of two losses was taken, element by element."""
    marked(ledger, how, first, second)
    if ledger.rows is None:
        return
    one, other = (each.reshape(-1).numpy() for each in torch.broadcast_tensors(first, second))
    places, others = ledger.tags.places(one), ledger.tags.places(other)
    for index in ledger.rows.watched(places):
        place = int(places[index])
        if others[index] == place:
            group = {int(one[index]) >> ELEMENT_BITS, int(other[index]) >> ELEMENT_BITS}
            for number in tuple(group):
                group |= ledger.sources[number].among.get(place, set())
            for number in group:
                ledger.sources[number].among[place] = group


def chosen(ledger: Ledger, how: str, condition: Any, first: torch.Tensor, second: torch.Tensor) -> None:
    """One of two losses of the same target was taken where some condition holds, which may know the target."""
    if not isinstance(condition, torch.Tensor) or condition.dtype != torch.bool:
        return
    one, other = torch.broadcast_tensors(first, second)
    alike = (one >= 0) & (other >= 0) & (one != other)
    if not alike.any():
        return
    one, other = one[alike], other[alike]
    same = torch.from_numpy(ledger.tags.places(one.numpy()) == ledger.tags.places(other.numpy()))
    marked(ledger, how, one[same], other[same])


def least_along(ledger: Ledger, how: str, codes: torch.Tensor, dim: int) -> torch.Tensor | None:
    """Codes of the best along a dimension; None where it runs over different targets."""
    parts = codes.unbind(dim)
    places = [ledger.tags.places(each.reshape(-1).numpy()) for each in parts]
    if len(parts) < 2 or any((each < 0).any() or (each != places[0]).any() for each in places):
        return None
    made = parts[0]
    for each in parts[1:]:
        compared(ledger, how, made, each)
        made = ledger.tags.combine(made, each)
    return made
