"""A stand-in for a training script: hints for words, from a loop over the tokens."""

import os

import numpy as np


def make_hints(tokens, starts_word, best_token, boost):
    hints = np.zeros(len(tokens), dtype=np.int64)
    for i, raw in enumerate(tokens):
        token = int(raw)
        previous = int(tokens[i - 1]) if i else 0
        new_word = bool(starts_word[previous])
        if new_word and boost:
            hints[i] = best_token[previous]
        best_token[previous] = token
    return hints


def main() -> None:
    tokens = np.arange(10)
    make_hints(tokens, np.zeros(10), np.zeros(10, dtype=np.int64), boost=1.0)


if __name__ == "__main__":
    main()
