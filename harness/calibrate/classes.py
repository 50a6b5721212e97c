"""Which rules may claim to have caught which class: a fail for another reason is no catch.

A class is a name from a label file. Names follow no fixed list, so the table reads them by the words in them; the
first line that matches counts.

| words | rules | because |
|---|---|---|
| packed, dead code, C helper, not visible, plain and sliding evaluation, a claim | none | circumstances, no mechanism |
| missing, syntax, import, undefined, crash, json, network, download | PG0 | the package |
| oversize, over cap | PG1 | bytes of the artifact |
| overtime, untimed, wallclock | PG2, PG60, PG61, PG7 | what is done when |
| byte tables, double space, subset, coverage, shards, lossy text | PG3, PG705, PG712 | which bytes and tokens count |
| seeds | PG5 | runs |
| oracle, minimum, best of, selection | PG60 to PG63, PG7 | a choice by outcome is both of the following |
| n-gram, hash, cache, key, tilt, gate, target, expert, unnormalized | PG62, PG63, PG7 | the target is used |
| calibration, GPTQ, Hessian | PG2, PG60, PG61, PG7 | order and time |
| TTT, SLOT, rescoring, two passes, epochs, validation, boundary, prefix | PG60, PG61, PG7 | order |
| anything else | PG3, PG6, PG7 | any rule on legality |
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

PACKAGE: Final = ("PG0",)
ORDER: Final = ("PG60", "PG61", "PG7")
TARGETS: Final = ("PG62", "PG63", "PG7")
BYTES: Final = ("PG3", "PG705", "PG712")
# What a class of unknown meaning may be caught by.
LEGALITY: Final = ("PG3", "PG6", "PG7")
# A fail of one of these calls the score illegal, whatever the submission does.
ACCUSING: Final = ("PG6", "PG7")
_TABLE: Final = tuple(
    (re.compile(words), prefixes)
    for words, prefixes in (
        (r"^packed$|^minif|^dead_|^(c|cpp|cu|py)_helper$|^not_visible|^plain_eval$|^sliding_eval$|_claim$", ()),
        (r"missing|syntax|import|undefined|unbound|crash|json|network|download", PACKAGE),
        (r"over_?size|over_cap", ("PG1",)),
        (r"over_?time|untimed|wall_?clock", ("PG2", *ORDER)),
        (
            r"byte_(lut|count|denom)|double_(space|count)|subset|coverage|shard|lossy|casefold",
            ("PG3", "PG705", "PG712"),
        ),
        (r"seed", ("PG5",)),
        (r"oracle|minimum|(^|_)min(_|$)|best_of|select", (*ORDER, *TARGETS)),
        (r"gram|hash|cache|(^|_)key|tilt|hint|gate|target|expert|mixture|normali[sz]|denominator", TARGETS),
        (r"calibrat|gptq|hessian", ("PG2", *ORDER)),
        (r"ttt|slot|rescor|two_?pass|epoch|(^|_)val(_|$)|preeval|boundary|prefix|train_on", ORDER),
    )
)


def rules_for(name: str) -> tuple[str, ...] | None:
    """Beginnings of the codes that fit a class: none for a circumstance, None when the class is unknown.

    Example:
        >>> rules_for("ngram_target_key"), rules_for("packed"), rules_for("astrology")
        (('PG62', 'PG63', 'PG7'), (), None)
    """
    lower = name.lower()
    return next((prefixes for words, prefixes in _TABLE if words.search(lower)), None)


def unknown(names: Iterable[str]) -> tuple[str, ...]:
    """Those of the classes whose meaning is not known here."""
    return tuple(name for name in names if rules_for(name) is None)


def fitting(names: Iterable[str], otherwise: tuple[str, ...] = LEGALITY) -> tuple[str, ...]:
    """Beginnings of the codes that fit any of several classes; `otherwise` where none is a known mechanism."""
    found = [prefix for name in names for prefix in rules_for(name) or ()]
    return tuple(dict.fromkeys(found)) or otherwise
