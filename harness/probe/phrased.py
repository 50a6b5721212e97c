"""A world whose validation text repeats its phrases and still tells the place of any longer piece of it.

Caches of what came before hit inside of the phrases; the random tokens between them make every trigram with one of
them occur once. Flips are placed where leaks live: inside of a phrase that was there before, where windows and chunks
of the usual sizes begin, behind the beginning of a document, at its end.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.challenge import BOS_TOKEN
from harness.probe import world
from harness.probe.miniature import Miniature
from harness.probe.sizes import LENGTH
from harness.probe.unique import ATTEMPTS, DOCUMENT_TOKENS, FIRST_TOKEN
from harness.probe.world import World

PHRASES = 12
PHRASE_TOKENS = (8, 13)
BETWEEN_TOKENS = (2, 5)
# Into a phrase so far that a cache of several tokens of context hits.
INTO_PHRASE = 5
# Kinds of tokens.
INSIDE, BEGINS, BYTE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Phrased:
    """A phrased text.

    Attributes:
        tokens: all of it.
        hits: places inside of phrases that have been there before.
        first: the smallest token that is no control token.
        vocabulary: how many tokens there are.
        kinds: what each token is: `INSIDE` of a word, one that `BEGINS` a word, a `BYTE`; None where all are bytes.
        length: tokens of a window.
    """

    tokens: NDArray[np.uint16]
    hits: tuple[int, ...]
    first: int
    vocabulary: int
    kinds: NDArray[np.int8] | None = None
    length: int = LENGTH

    def near(self, share: float, *, hit: bool = False, phase: int | None = None) -> int:
        """The place nearest to a share of the text that is fit for a flip.

        Args:
            share: from 0 to 1.
            hit: inside of a repeated phrase, and not near the ends of a window.
            phase: the place in its window.
        """
        middle = round(share * self.tokens.size)
        fit = [place for place in range(2, self.tokens.size - 1) if self.tokens[place] != BOS_TOKEN]
        if hit:
            inside = set(self.hits)
            fit = [place for place in fit if place in inside and 0.3 < place % self.length / self.length < 0.7] or fit
        if phase is not None:
            fit = [place for place in fit if place % self.length == phase] or fit
        return min(fit, key=lambda place: abs(place - middle), default=1)

    def after_start(self, share: float) -> int:
        """The first token of the document nearest to a share of the text."""
        return self._start(share) + 1

    def before_end(self, share: float) -> int:
        """The last token of that document's predecessor."""
        return self._start(share) - 1

    def _start(self, share: float) -> int:
        starts = np.flatnonzero(self.tokens[: self.tokens.size - 2] == BOS_TOKEN)[1:]
        if not starts.size:
            return 2
        return int(starts[np.argmin(np.abs(starts - share * self.tokens.size))])

    def other(self, place: int, seed: int, kind: int | None = None) -> int:
        """Another token for a place.

        Args:
            place: the place.
            seed: of the choice.
            kind: what it is, where there is such a token; None: it begins a word where the old one does not, or the
                reverse. What is added to some tokens alone is added by what they are.
        """
        old = int(self.tokens[place])
        others = np.delete(np.arange(self.first, self.vocabulary), old - self.first)
        if self.kinds is not None:
            kinds = self.kinds[others]
            fit = kinds == kind if kind is not None else (kinds == BEGINS) != (self.kinds[old] == BEGINS)
            others = others[fit] if fit.any() else others
        return int(np.random.default_rng((seed, place)).choice(others))


def phrased_world(made: World, miniature: Miniature, folder: Path) -> tuple[World, tuple[str, ...], Phrased]:
    """The same world with such a validation shard of the same length.

    Returns:
        The world, its validation shards as paths below its folder, and the text.
    """
    text = phrased_text(made.val_tokens, miniature.spec.vocabulary, miniature.spec.seed)
    kinds = _kinds(made.tokenizer, miniature.spec.vocabulary)
    text = dataclasses.replace(text, kinds=kinds, length=miniature.length)
    moved, shards = world.with_validation(made, folder, text.tokens)
    return moved, shards, text


def phrased_text(count: int, vocabulary: int, seed: int) -> Phrased:
    """Phrases of a small book, joined by random tokens, in documents that each begin with a BOS."""
    first = min(FIRST_TOKEN, vocabulary // 4)
    rng = np.random.default_rng((seed, vocabulary))
    sizes = [int(rng.integers(*PHRASE_TOKENS)) for _ in range(PHRASES)]
    book = [[int(token) for token in rng.integers(first, vocabulary, size)] for size in sizes]
    # The largest token stands first: scripts make tables as large as it, and no flip may change it.
    found: list[int] = [BOS_TOKEN, vocabulary - 1]
    hits: list[int] = []
    seen: set[tuple[int, ...]] = set()
    used: set[int] = set()
    start = 0
    while len(found) < count:
        if len(found) - start >= DOCUMENT_TOKENS:
            start = len(found)
            found.append(BOS_TOKEN)
        number = int(rng.integers(PHRASES))
        between = _between(rng, (first, vocabulary), (found[-2:], book[number][:2]), seen)
        begin = len(found) + len(between)
        if number in used:
            hits += range(begin + INTO_PHRASE, begin + len(book[number]))
        used.add(number)
        found += [*between, *book[number]]
    tokens = np.array(found[:count], dtype=np.uint16)
    return Phrased(tokens, tuple(place for place in hits if place < count), first, vocabulary)


def _kinds(tokenizer: Path, vocabulary: int) -> NDArray[np.int8] | None:
    """What each token is; None where all are bytes."""
    if not tokenizer.is_file():
        return None
    import sentencepiece as spm

    model = spm.SentencePieceProcessor(model_file=str(tokenizer))
    begins = [model.id_to_piece(token).startswith("\u2581") for token in range(vocabulary)]
    kinds = [BYTE if model.is_byte(token) else BEGINS if begins[token] else INSIDE for token in range(vocabulary)]
    return np.array(kinds, dtype=np.int8)


def _between(
    rng: np.random.Generator, span: tuple[int, int], sides: tuple[list[int], list[int]], seen: set[tuple[int, ...]]
) -> list[int]:
    """Random tokens between two pieces, in which no trigram occurs that was there before."""
    before, after = sides
    size = int(rng.integers(*BETWEEN_TOKENS))
    for attempt in range(ATTEMPTS):
        made = [int(token) for token in rng.integers(*span, size)]
        row = [*before, *made, *after]
        trigrams = set(zip(row, row[1:], row[2:], strict=False))
        if not trigrams & seen or attempt == ATTEMPTS - 1:
            seen |= trigrams
            return made
    raise AssertionError
