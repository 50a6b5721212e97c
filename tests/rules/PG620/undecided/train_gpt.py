"""A stand-in for a training script: its evaluation blends a table of counts into the score."""

import math
import os

import numpy as np

BUCKETS = 1 << 20
PRIME = 36_313
CACHE_ENABLED = bool(int(os.environ["CACHE_ENABLED"]))


class Cache:
    def __init__(self) -> None:
        self.contexts = np.zeros(BUCKETS)
        self.pairs = np.zeros(BUCKETS)

    def look_up(self, context, target):
        key = (context ^ (target * PRIME)) & (BUCKETS - 1)
        return self.pairs[key] / np.maximum(self.contexts[context & (BUCKETS - 1)], 1)

    def update(self, context, target) -> None:
        self.contexts[context & (BUCKETS - 1)] += 1
        self.pairs[(context ^ (target * PRIME)) & (BUCKETS - 1)] += 1


def evaluate(model, tokens) -> float:
    cache = Cache()
    loss_sum = 0.0
    for position in range(1, len(tokens)):
        context, target = tokens[position - 1], tokens[position]
        probability = model(context)[target]
        if CACHE_ENABLED:
            probability = 0.5 * probability + 0.5 * cache.look_up(context, target)
        loss_sum -= math.log(probability)
        cache.update(context, target)
    return loss_sum


if __name__ == "__main__":
    evaluate(None, [1, 2, 3])
