"""A world whose validation text has no trigram twice: any piece of it tells its place.

The tracer decodes tensors of tokens by it. The text is no language, so that scores of such a run say nothing; their
order does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.challenge import BOS_TOKEN
from harness.probe import world
from harness.probe.miniature import Miniature
from harness.probe.world import World

DOCUMENT_TOKENS = 90
# Below it stand control tokens and, in some vocabularies, operators.
FIRST_TOKEN = 16
ATTEMPTS = 100


def unique_world(made: World, miniature: Miniature, folder: Path) -> tuple[World, tuple[str, ...]]:
    """The same world with such a validation shard of the same length.

    Args:
        made: the world.
        miniature: whose vocabulary it has.
        folder: where the other one goes.

    Returns:
        The world, and its validation shards as paths below its folder.
    """
    tokens = unique_tokens(made.val_tokens, miniature.spec.vocabulary, miniature.spec.seed)
    return world.with_validation(made, folder, tokens)


def unique_tokens(count: int, vocabulary: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    """Random tokens in documents, each after a BOS, without a trigram that occurs twice.

    A vocabulary too small for so many trigrams repeats some, which then tell no place.
    """
    first = min(FIRST_TOKEN, vocabulary // 4)
    rng = np.random.default_rng(seed)
    found = [BOS_TOKEN]
    seen: set[tuple[int, ...]] = set()
    refused = 0
    while len(found) < count:
        starts = len(found) % DOCUMENT_TOKENS == 0
        token = BOS_TOKEN if starts else int(rng.integers(first, vocabulary))
        trigram = (*found[-2:], token)
        if trigram in seen and refused < ATTEMPTS:
            refused += 1
            continue
        refused = 0
        seen.add(trigram)
        found.append(token)
    return np.array(found, dtype=np.uint16)
