"""What the run that forks is told: where to fork, and what each copy changes.

Copies are made one after the other, cheap and telling ones first: one that changes nothing shows that copies can be
compared at all. Places of flips are seeded and lie where leaks live.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from harness.probe.phrased import BEGINS, BYTE, Phrased
from harness.probe.session import MiniatureRun

RUN: Final = "flips"
# What names one run: an identifier, a hash, a time.
_OF_A_RUN: Final = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<![0-9a-z])[0-9a-f]{12,64}(?![0-9a-z])"
    r"|\d{8}[_-]?\d{4,6}|\d{10,}"
)
NOTHING, SUFFIX, SELF, DOCUMENT, DAMAGED, NOISE = "nothing", "suffix", "self", "document", "damaged", "noise"


@dataclass(frozen=True, slots=True)
class Variant:
    """One copy.

    Attributes:
        name: unique in its run.
        kind: what it changes: nothing, the text from a place on, one token, the last token of a document, the bytes of
            the artifact, or the weights in memory.
        place: of the first token that changes; -1 for none.
        order: what the child is told.
    """

    name: str
    kind: str
    place: int = -1
    order: Mapping[str, Any] | None = None


def choose(text: Phrased, seed: int, *, damage: bool) -> tuple[Variant, ...]:
    """The variants of a text.

    Args:
        text: the validation text.
        seed: of the new tokens.
        damage: whether the artifact is read back, so that a damaged one can be given.
    """
    made = [Variant(NOTHING, NOTHING)]
    made += [_suffix(text, seed, place) for place in (text.near(0.35, hit=True), text.near(0.6, phase=1))]
    # Where a cache hits, both to a token that begins a word and to one that does not.
    hit = text.near(0.2, hit=True)
    made += [_self(text, seed, SELF, hit, kind) for kind in ((BEGINS, BYTE) if text.kinds is not None else (None,))]
    made += [_self(text, seed, SELF, place) for place in (text.near(0.3, phase=1), text.near(0.45, phase=0))]
    if damage:
        made += [
            Variant(DAMAGED, DAMAGED, order={"artifact": True}),
            Variant(NOISE, NOISE, order={"noise": True}),
        ]
    made.append(_suffix(text, seed, text.near(1 - text.length / 4 / text.tokens.size)))
    made += [
        _self(text, seed, SELF, text.after_start(0.5)),
        _self(text, seed, DOCUMENT, text.before_end(0.7)),
    ]
    return tuple({each.name: each for each in made}.values())


def order(
    variants: tuple[Variant, ...], artifact: str, seconds: float, *, reading: bool, accounts: bool = True
) -> dict[str, Any]:
    """The child's orders.

    Args:
        variants: what is changed.
        artifact: the file at which it forks.
        seconds: wall time for all copies together.
        reading: whether it forks where the file is opened for reading, not for writing.
        accounts: whether the script is followed line by line, which takes long: it tells nothing where the printed loss
            is known to be made of numbers of torch.
    """
    return {
        "accounts": accounts,
        "artifact": named(artifact),
        "when": "read" if reading else "write",
        "seconds": seconds,
        "watched": sorted({each.place for each in variants if each.place >= 0}),
        "variants": [{"name": each.name, **(each.order or {})} for each in variants],
    }


def reads_back(run: MiniatureRun, artifact: str) -> bool:
    """Whether a traced run opened its artifact for reading."""
    name = re.compile(named(artifact))
    opened = [event for event in run.of("file") if name.fullmatch(str(event.get("path")).rpartition("/")[2])]
    return any(str(event.get("mode")).startswith("r") for event in opened)


def named(artifact: str) -> str:
    """A pattern for the name of a file in any run: identifiers and times are others in each."""
    return "[0-9a-fA-F_-]+".join(re.escape(piece) for piece in _OF_A_RUN.split(artifact.rpartition("/")[2]))


def _suffix(text: Phrased, seed: int, place: int) -> Variant:
    told = {"suffix": place, "seed": seed, "first": text.first, "vocabulary": text.vocabulary}
    return Variant(f"{SUFFIX}-{place}", SUFFIX, place, told)


def _self(text: Phrased, seed: int, name: str, place: int, kind: int | None = None) -> Variant:
    told = {"flip": place, "token": text.other(place, seed, kind)}
    return Variant(f"{name}-{place}" + ("-byte" if kind == BYTE else ""), name, place, told)
