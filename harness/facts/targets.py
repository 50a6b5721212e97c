"""How the scoring code uses the token being scored, beyond looking up its probability."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from harness.model import Fact, Located, Location


class UseKind(enum.StrEnum):
    """What the token being scored is used for."""

    HASHED_LOOKUP = "a table is read at a hash of it"
    SMOOTHED_LOOKUP = "a table is read at a hash of it, and the model's own probability is the prior"
    FOREIGN_SHARE = "what a table holds for it is divided by something else than the sum over all tokens"
    PAIR_LOOKUP = "a table is read at the pair of context and it"
    SPREAD = "its probability is divided among its bytes and mixed there"
    ENTROPY = "an entropy is mixed in as if it were its loss"
    WEIGHT = "a mixture is weighted by its probability"
    ON_HITS = "a mixture is made only where a table holds it"
    CHOSEN_LOSS = "a loss is chosen by its value at it"
    SHAPED = "the logits are changed at it"
    BOTH_WAYS = "the model is run without its causal mask"
    POOLED = "a layer reduces, or chooses among, all positions"
    CHOSEN_SCORE = "the best of several whole evaluations is the score"
    FREE_HIT = "its loss is dropped where a guess equals it"
    GATE = "a hint is switched by its class"


class Life(enum.StrEnum):
    """Whether the code runs in the configuration of the claimed runs."""

    LIVE = "live"
    DEAD = "dead"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class TargetUse:
    """One way in which the score uses the realized target.

    Attributes:
        kind: what for.
        steps: the lines that prove it, in order, each with what happens there.
        life: whether it runs.
        because: what decides that, one clause, or "".
        silent: what it is bound to print and the logs of the claimed runs do not show, at a log; or None.
    """

    kind: UseKind
    steps: tuple[Located[str], ...]
    life: Life
    because: str
    silent: Located[str] | None = None


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """All of them.

    Attributes:
        read: Located(True) at the training script where its code could be followed; Missing otherwise.
        uses: what was found, in the order of the code.
        hashes: keys that scoring code makes, and of which it was not found what goes into them; only where no use of
            a hashed key was found at all.
    """

    read: Fact[bool]
    uses: tuple[TargetUse, ...]
    hashes: tuple[Location, ...] = ()
