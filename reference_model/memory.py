"""What a model keeps of the tokens before, so that it can go on from there: a token, or a few, at a time.

Everything starts empty, and what is empty means the same as the beginning of a text. Under a window nothing grows
with the number of tokens. What is kept has no gradient: a pass may have one, but it ends where the pass begins.
Shape letters: B batch, T time, G key/value heads, E width of a head, K keys that are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

FIRST_KEYS = 64
# From one tensor of a memory to that of another; rows of the batch come first in all of them.
Change: TypeAlias = Callable[[Tensor], Tensor]


@dataclass
class Tail:
    """The last few items of a sequence; zeros stand before its first."""

    items: Tensor | None = None

    def before(self, x_BTX: Tensor, count: int) -> Tensor:
        """The last `count` items, which stand before these; B, count, ..."""
        return x_BTX.new_zeros(len(x_BTX), count, *x_BTX.shape[2:]) if self.items is None else self.items

    def join(self, x_BTX: Tensor, count: int) -> Tensor:
        """Put the last `count` items before these, and keep the last `count` of all; returns B, count + T, ..."""
        joined = torch.cat((self.before(x_BTX, count), x_BTX), 1)
        # A copy: a view would keep the whole sequence.
        self.items = joined[:, joined.shape[1] - count :].detach().clone()
        return joined

    def mapped(self, change: Change) -> Tail:
        """Another one, of the changed items."""
        return Tail(self.items if self.items is None else change(self.items))


def previous(x_BTX: Tensor, tail: Tail | None = None) -> Tensor:
    """The sequence one step late: what stood before each item, zeros before the first of a text."""
    if tail is not None:
        return tail.join(x_BTX, 1)[:, :-1]
    return F.pad(x_BTX[:, :-1], (*(0, 0) * (x_BTX.ndim - 2), 1, 0))


@dataclass
class KeyValues:
    """Keys and values that later queries can still see; they have their rotation already.

    Attributes:
        window: Visible tokens, oneself included; 0 for all.
        keys: B, G, K, E with room for more behind `end`.
        values: The same.
        start: First that is kept.
        end: Behind the last one.
        always: Keys and values of meta tokens, which every query sees.
    """

    window: int
    keys: Tensor | None = None
    values: Tensor | None = None
    start: int = 0
    end: int = 0
    always: tuple[Tensor, Tensor] | None = None

    @property
    def pinned(self) -> int:
        """How many every query sees."""
        return 0 if self.always is None else self.always[0].shape[2]

    @property
    def held(self) -> int:
        """How many are kept that the next query can see."""
        return self.end - self.start

    def extend(self, k_BGTE: Tensor, v_BGTE: Tensor, meta: int = 0) -> tuple[Tensor, Tensor]:
        """Add some, the first `meta` for good; returns all that one of their queries sees: those before and these."""
        if meta:
            self.always = k_BGTE[:, :, :meta].detach(), v_BGTE[:, :, :meta].detach()
            k_BGTE, v_BGTE = k_BGTE[:, :, meta:], v_BGTE[:, :, meta:]
        if self.window:
            self.start = max(self.start, self.end - self.window + 1)
        keys, values = self._with_room(k_BGTE), self._with_room(v_BGTE, values=True)
        if keys is not self.keys:
            self.start, self.end, self.keys, self.values = 0, self.held, keys, values
        before, after = slice(self.start, self.end), self.end + k_BGTE.shape[2]
        keys[:, :, self.end : after], values[:, :, self.end : after] = k_BGTE.detach(), v_BGTE.detach()
        self.end = after
        seen = keys[:, :, self.start : after], values[:, :, self.start : after]
        if k_BGTE.requires_grad or v_BGTE.requires_grad:
            # Not the store, which is written to before anybody goes back.
            seen = torch.cat((keys[:, :, before], k_BGTE), 2), torch.cat((values[:, :, before], v_BGTE), 2)
        if self.always is None:
            return seen
        return torch.cat((self.always[0], seen[0]), 2), torch.cat((self.always[1], seen[1]), 2)

    def mapped(self, change: Change) -> KeyValues:
        """Another one, of the changed keys and values; it has no room, so it never writes into what this one holds."""
        if self.keys is None or self.values is None:
            return KeyValues(self.window)
        kept = slice(self.start, self.end)
        always = self.always and (change(self.always[0]), change(self.always[1]))
        keys, values = change(self.keys[:, :, kept]), change(self.values[:, :, kept])
        return KeyValues(self.window, keys, values, 0, self.held, always)

    def _with_room(self, x_BGTE: Tensor, *, values: bool = False) -> Tensor:
        """The store, or a new one of twice the size that is needed: moving costs little per token."""
        store = self.values if values else self.keys
        needed = self.held + x_BGTE.shape[2]
        if store is not None and self.end + x_BGTE.shape[2] <= store.shape[2]:
            return store
        batch, heads, _, width = x_BGTE.shape
        larger = x_BGTE.new_empty(batch, heads, max(2 * needed, FIRST_KEYS), width)
        if store is not None:
            larger[:, :, : self.held] = store[:, :, self.start : self.end]
        return larger


@dataclass
class LayerMemory:
    """One layer's share.

    Attributes:
        attention: Keys and values.
        convolution: Inputs that the next taps reach back to.
        scan: The scan's state, B, D, N.
    """

    attention: KeyValues
    convolution: Tail = field(default_factory=Tail)
    scan: Tensor | None = None

    def mapped(self, change: Change) -> LayerMemory:
        """Another one, of changed tensors."""
        scan = self.scan if self.scan is None else change(self.scan)
        return LayerMemory(self.attention.mapped(change), self.convolution.mapped(change), scan)


@dataclass
class Memory:
    """A whole model's.

    Attributes:
        layers: First to last.
        tokens: The last token, for the bigrams.
        embedding: The last embedding, for the smear gate.
        position: Tokens seen, which is the position of the next one.
    """

    layers: list[LayerMemory]
    tokens: Tail = field(default_factory=Tail)
    embedding: Tail = field(default_factory=Tail)
    position: int = 0

    def first_rows(self, count: int) -> Memory:
        """That of the first texts of a batch, apart from this one: what follows there changes nothing here."""

        def first(tensor: Tensor) -> Tensor:
            return tensor[:count]

        layers = [layer.mapped(first) for layer in self.layers]
        return Memory(layers, self.tokens.mapped(first), self.embedding.mapped(first), self.position)
