"""The validation text of a variant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int64]
BOS = 1


def changed(tokens: Tokens, variant: Mapping[str, Any]) -> Tokens:
    """The tokens as a variant has them.

    Args:
        tokens: of the whole text.
        variant: `suffix`: the first place to change, all that follow change with it but for each BOS; `vocabulary`,
            `first` and `seed`: what the new tokens are drawn from. Or `flip`: one place, and `token`: what it gets.
    """
    made = tokens.copy()
    if "flip" in variant:
        made[variant["flip"]] = variant["token"]
    if "suffix" in variant:
        start, first = variant["suffix"], variant["first"]
        span = variant["vocabulary"] - first
        # Any other token than it was, each as likely.
        shift = np.random.default_rng(variant["seed"]).integers(1, span, tokens.size - start)
        old = tokens[start:]
        made[start:] = np.where(old == BOS, old, first + (old - first + shift) % span)
    return made
