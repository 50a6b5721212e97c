"""The words by which scoring code is read: what names and library calls mean."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Mapping

# What scoring code calls the token being scored ...
_TARGET_WORDS = frozenset({"y", "ys", "fy", "tg", "tn", "tgt", "tgts", "target", "targets", "label", "labels", "next"})
# ... and what it puts before or behind that, for copies, casts and parts of it.
_AROUND_WORDS = frozenset(
    """
    all seg scored chunk win window batch flat cur true real gold global my elig v f s sub local ttt val np t u int
    long gpu cpu cuda id ids tok toks token tokens safe b valid uint i g sel
    """.split()  # noqa: SIM905 - one word a line would hide the list
)
_TOKENS = frozenset({"tok", "toks", "token", "tokens", "id", "ids"})
_DIGITS = re.compile(r"\d+$")
ACCUMULATOR = re.compile(r"loss|nll|bits|nats|bpb|cost|code_len|log_?prob", re.IGNORECASE)
TOKEN_LOSS = re.compile(r"nll|log_?p(?![a-z])|log_?prob", re.IGNORECASE)
LOGARITHMS = frozenset({"log", "log2", "log10", "logaddexp", "log_", "xlogy"})
MIXING = (ast.BitXor, ast.Mult, ast.LShift, ast.Add, ast.BitOr, ast.Sub)
REDUCING = (ast.Mod, ast.BitAnd)
OPERATORS: Mapping[str, type[ast.operator]] = {
    "bitwise_xor": ast.BitXor,
    "bitwise_and": ast.BitAnd,
    "remainder": ast.Mod,
    "fmod": ast.Mod,
    "mod": ast.Mod,
    "multiply": ast.Mult,
    "mul": ast.Mult,
    "add": ast.Add,
    "div": ast.Div,
    "divide": ast.Div,
    "true_divide": ast.Div,
}
ALONG = frozenset({"gather", "take_along_dim", "take_along_axis"})
LOOKUPS = ALONG | {"take", "index_select", "get"}
CONTAINERS = frozenset({"append", "extend", "put"})
SHAPES = frozenset({"shape", "device", "dtype", "size", "ndim", "numel", "itemsize", "nbytes"})
SIZES = frozenset("len size numel dim range zeros_like ones_like empty_like full_like".split())  # noqa: SIM905
TOTALS = frozenset({"sum", "mean", "item", "nansum", "average"})
LOSSES = frozenset({"cross_entropy", "nll_loss"})
KEPT = frozenset({"minimum", "fmin", "min"})
CHOICES = frozenset({"minimum", "fmin", "maximum", "fmax", "min", "max"})
CHOICES_OVER = frozenset({"min", "amin", "argmin", "max", "amax", "argmax"})
PLACES = frozenset({"nonzero", "flatnonzero", "argwhere", "where"})
NORMALIZING = frozenset({"softmax", "log_softmax", "normalize"})
STACKS = frozenset({"stack", "cat", "concatenate", "vstack", "column_stack"})


@functools.lru_cache(maxsize=4_000)
def means_target(name: str) -> bool:
    """Whether a name says that it holds the token being scored.

    Example:
        >>> [means_target(name) for name in ("y_batch", "tgt_np", "all_targets", "next_tokens", "target_lr", "x")]
        [True, True, True, True, False, False]
    """
    words = [_DIGITS.sub("", word) for word in name.lower().split("_") if word]
    core = [word for word in words if word in _TARGET_WORDS]
    if not core or not all(word in _TARGET_WORDS or word in _AROUND_WORDS or not word for word in words):
        return False
    return core != ["next"] or any(word in _TOKENS for word in words)
