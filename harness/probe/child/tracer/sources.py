"""Where losses of single tokens come from: what takes the tokens to be predicted and says how bad the guess was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from .codes import PROBABILITY, SCORE
from .positions import INTEGERS, Places, is_tokens

if TYPE_CHECKING:
    from .follow import Follower

LOSSES = frozenset({"cross_entropy", "nll_loss", "cross_entropy_loss", "linear_cross_entropy"})
PICKS = frozenset({"gather", "take_along_dim", "__getitem__"})
READS = frozenset({"embedding", "index_select"})
CALLS = LOSSES | PICKS | READS


class Looked(NamedTuple):
    """Where targets were looked up: a table with a row for each of them, or for each of some of its rows."""

    table: torch.Tensor
    targets: torch.Tensor
    at: tuple[Any, ...] = ()


def recognized(follower: Follower, name: str, call: tuple[Any, Any], out: Any) -> bool:
    """Look whether a call computes losses, or reads tokens; returns whether its result has been dealt with."""
    args, kwargs = call
    if name in LOSSES:
        return _loss(follower, name, call, out)
    if name in {"gather", "take_along_dim"}:
        return _gathered(follower, call, out)
    if name == "__getitem__":
        return _indexed(follower, args, out)
    if name in READS:
        _read(follower, [*args, *kwargs.values()])
        return False
    return custom(follower, [*args, *kwargs.values()], out)


def custom(follower: Follower, values: list[Any], out: Any) -> bool:
    """An operation of the script's own that takes tokens and returns a number for each, or one for all."""
    outs = [each for each in (out if isinstance(out, (tuple, list)) else [out]) if isinstance(each, torch.Tensor)]
    tokens = [value for value in values if is_tokens(value)]
    if not tokens or not outs or not outs[0].is_floating_point():
        return False
    first = outs[0]
    for each in tokens:
        places = follower.ledger.targets(each)
        known = float((places >= 0).mean())
        if known > 0.5 and first.numel() == each.numel() and each.numel() > 1:
            return _tagged(follower, places, first, form=SCORE)
        if known > 0.5 and first.ndim == 0:
            return _whole(follower, places, first, torch.full((each.numel(),), float("nan")))
    return False


def _loss(follower: Follower, name: str, call: tuple[Any, Any], out: Any) -> bool:
    args, kwargs = call
    target = args[1] if len(args) > 1 else kwargs.get("target")
    if not is_tokens(target) or not isinstance(out, torch.Tensor):
        return False
    places = follower.ledger.targets(target)
    table = args[0] if args else kwargs.get("input")
    rows = Looked(table, target) if _is_table(table, target) else None
    if out.shape == target.shape and out.ndim:
        return _tagged(follower, places, out, form=SCORE, rows=rows)
    losses = torch.full((target.numel(),), float("nan"))
    if (places >= 0).any():
        losses = _apart(name, args, kwargs)
    return _whole(follower, places, out, losses, rows=rows)


def _apart(name: str, args: Any, kwargs: Any) -> torch.Tensor:
    """The losses of single tokens whose sum or mean was asked for."""
    function: Any = F.nll_loss if name == "nll_loss" else F.cross_entropy
    keywords = {each: value for each, value in kwargs.items() if each not in {"reduction", "reduce", "size_average"}}
    losses: torch.Tensor = function(*args[:2], **keywords, reduction="none")
    return losses


def _gathered(follower: Follower, call: tuple[Any, Any], out: Any) -> bool:
    args, kwargs = call
    table = args[0] if args else kwargs.get("input")
    index = next((value for value in [*args[1:], *kwargs.values()] if is_tokens(value)), None)
    if index is None or not isinstance(table, torch.Tensor) or not table.is_floating_point():
        return False
    places = follower.ledger.shard.of(index)
    numbers = [value for value in [*args[1:], *kwargs.values()] if isinstance(value, int)]
    form = _form(table, numbers[0] if numbers else -1)
    rows = Looked(table, index) if tuple(index.shape) == (*table.shape[:-1], 1) else None
    return _tagged(follower, places, out, form=form, rows=rows)


def _indexed(follower: Follower, args: Any, out: Any) -> bool:
    """`logs[rows, targets]`, or the rows of an embedding."""
    table, index = args
    if not isinstance(table, torch.Tensor) or not table.is_floating_point() or not isinstance(out, torch.Tensor):
        return False
    parts = index if isinstance(index, tuple) else (index,)
    last: Any = parts[-1] if parts else None
    if follower.ledger.rows is not None and parts and len(parts) == table.ndim and all(map(_is_single, parts)):
        follower.ledger.rows.single(table[parts[:-1]], int(last))
    if not is_tokens(last) or last.dtype == torch.uint8:
        return False
    if len(parts) < max(table.ndim, 2):
        if isinstance(table, torch.nn.Parameter):
            _read(follower, [last])
        return False
    places = follower.ledger.shard.of(last)
    if tuple(places.shape) != tuple(out.shape):
        return False
    rows = Looked(table, last, tuple(parts[:-1])) if last.ndim == 1 and table.ndim == 2 else None
    return _tagged(follower, places, out, form=_form(table, -1), rows=rows)


def _is_single(index: Any) -> bool:
    """Whether an index is one number."""
    if isinstance(index, torch.Tensor):
        return index.ndim == 0 and index.dtype in INTEGERS
    return isinstance(index, (int, np.integer)) and not isinstance(index, bool)


def _read(follower: Follower, values: list[Any]) -> None:
    """Tokens are looked up: they are what the next losses are predicted from."""
    for value in values:
        if is_tokens(value) and value.numel() > 1:
            places = follower.ledger.shard.of(value)
            if (places >= 0).any():
                follower.ledger.read.append(places)


def _form(table: torch.Tensor, dim: int) -> str:
    """Whether a table holds probabilities: rows of numbers from 0 that add up to about 1."""
    sums = table.detach().sum(dim)
    near = bool(((sums > 0.2) & (sums < 20)).all()) and bool(table.min() >= 0)
    return PROBABILITY if near else SCORE


def _is_table(table: Any, target: torch.Tensor) -> bool:
    """Whether there is one row of logits for each target."""
    return isinstance(table, torch.Tensor) and table.ndim == 2 and target.ndim == 1


def _tagged(follower: Follower, places: Places, out: torch.Tensor, *, form: str, rows: Looked | None = None) -> bool:
    codes = _source(follower, places, out, rows, chances=form == PROBABILITY)
    if codes is None:
        follower.tags.drop(out)
        return True
    follower.tag(out, codes.reshape(out.shape), form)
    return True


def _whole(
    follower: Follower, places: Places, out: torch.Tensor, losses: torch.Tensor, *, rows: Looked | None = None
) -> bool:
    codes = _source(follower, places, out, rows)
    if codes is not None:
        follower.tag(out, follower.ledger.scalar(codes, losses))
    return True


def _source(
    follower: Follower, places: Places, out: torch.Tensor, rows: Looked | None = None, *, chances: bool = False
) -> torch.Tensor | None:
    ledger = follower.ledger
    codes = ledger.source(places, out, follower.updates.settle)
    narrow, follower.narrow = follower.narrow, False
    if codes is None:
        return None
    if narrow:
        follower.tell_narrow()
    if ledger.rows is not None and rows is not None:
        table = rows.table[(*rows.at, slice(None))] if rows.at else rows.table
        made = ledger.sources[-1]
        made.direct = ledger.rows.direct(made.at, places, table, rows.targets, chances=chances)
    if out.requires_grad:
        follower.updates.opened(codes, out)
    return codes
