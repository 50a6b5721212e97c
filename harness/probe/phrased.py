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
from harness.probe.miniature import LENGTH, Miniature
from harness.probe.unique import ATTEMPTS, DOCUMENT_TOKENS, FIRST_TOKEN
from harness.probe.world import World

PHRASES = 12
PHRASE_TOKENS = (8, 13)
BETWEEN_TOKENS = (2, 5)
# Into a phrase so far that a cache of several tokens of context hits.
INTO_PHRASE = 5


@dataclass(frozen=True, slots=True)
class Phrased:
    """A phrased text.

    Attributes:
        tokens: all of it.
        hits: places inside of phrases that have been there before.
        first: the smallest token that is no control token.
        vocabulary: how many tokens there are.
        spaced: which tokens begin with a space; None where that is not known.
    """

    tokens: NDArray[np.uint16]
    hits: tuple[int, ...]
    first: int
    vocabulary: int
    spaced: NDArray[np.bool_] | None = None

    def near(self, share: float, *, hit: bool = False, phase: int | None = None) -> int:
        """The place nearest to a share of the text that is fit for a flip.

        Args:
            share: from 0 to 1.
            hit: inside of a repeated phrase, and not near the ends of a window.
            phase: the place in its window of `LENGTH` tokens.
        """
        middle = round(share * self.tokens.size)
        fit = [place for place in range(2, self.tokens.size - 1) if self.tokens[place] != BOS_TOKEN]
        if hit:
            inside = set(self.hits)
            fit = [place for place in fit if place in inside and 20 <= place % LENGTH <= 44] or fit
        if phase is not None:
            fit = [place for place in fit if place % LENGTH == phase] or fit
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

    def other(self, place: int, seed: int) -> int:
        """Another token for a place: one that begins a word where the old one does not, or the reverse.

        What is added to some tokens alone is added by what they are, and that by whether they begin a word most of all.
        """
        old = int(self.tokens[place])
        every = np.arange(self.first, self.vocabulary)
        others = every[every != old]
        if self.spaced is not None:
            unlike = others[self.spaced[others] != self.spaced[old]]
            others = unlike if unlike.size else others
        return int(np.random.default_rng((seed, place)).choice(others))


def phrased_world(made: World, miniature: Miniature, folder: Path) -> tuple[World, tuple[str, ...], Phrased]:
    """The same world with such a validation shard of the same length.

    Returns:
        The world, its validation shards as paths below its folder, and the text.
    """
    text = phrased_text(made.val_tokens, miniature.spec.vocabulary, miniature.spec.seed)
    text = dataclasses.replace(text, spaced=_spaced(made.tokenizer, miniature.spec.vocabulary))
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


def _spaced(tokenizer: Path, vocabulary: int) -> NDArray[np.bool_] | None:
    """Which tokens begin with a space; None where each is a byte."""
    if not tokenizer.is_file():
        return None
    import sentencepiece as spm

    model = spm.SentencePieceProcessor(model_file=str(tokenizer))
    return np.array([model.id_to_piece(token).startswith("\u2581") for token in range(vocabulary)])


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
