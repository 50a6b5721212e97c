"""PG3xx, the data: was the model trained on the published shards, and was the whole validation split scored?"""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.challenge import (
    TRAIN_SHARD_TOKENS,
    TRAIN_TEXT_BYTES,
    VAL_DOCUMENTS,
    VALIDATION_SPLITS,
    VALIDATION_TEXT_BYTES,
)
from harness.checks.common import counted, known, listed, places, seed_name, undecided
from harness.checks.fingerprint import Ratio, canonical_tokens, fitting, ratio_of
from harness.facts.runs import Coverage, Run
from harness.facts.submission import Submission
from harness.model import Located, Location, Outcome, Status, Value, Verdict, rule

FAMILY = "metric"
# Shards are cut and counted in slightly different ways; own preparations differ by factors.
SHARD_SPREAD = 0.05
PART_OF_SPLIT = 1e-2
# Of a split whose tokenizer is not known: no published one of several bytes per token has more.
MOST_TOKENS = max(split.tokens or 0 for split in VALIDATION_SPLITS)
# Settings that cut the validation split; 1.0 and 0 mean all of it.
FRACTION_KEY = re.compile(r"^(?:val|eval)(?:_doc|_token)?_fraction$")
LIMIT_KEY = re.compile(
    r"^(?:(?:val|eval)_(?:docs?|tokens?|bytes)_limit|(?:val|eval)_max_(?:docs|tokens|bytes)"
    r"|max_(?:val|eval)_(?:docs|tokens|bytes))$"
)


@rule("PG306", "shards-beyond-published", family=FAMILY, status=Status.SETTLED, authority="#2018, #2127, #2130")
def shards_beyond_published(submission: Submission) -> Outcome | None:
    """The log counts more training shards than were published.

    What it checks:
        The number of training shards that each claimed run logs, times 100 million tokens, times its bytes per
        token, against the 47.7 billion bytes of the published training text. More means shards of one's own
        making. Fewer shards are anybody's choice. Not for logs that print no number of shards, nor for a declared
        split of one's own. Where the bytes per token are those of no known split, twice as many pass.

    Why it matters:
        "Training and validation documents are disjoint; the validation split is the first 50,000 documents." Data
        prepared again with a script's defaults held out another number of documents and trained on validation
        documents; about 1,500 shards of 10 million tokens were its trace. The number alone proves no overlap: hence
        a warning.

    Evidence:
        The log line that counts the shards.

    How to fix:
        Train on the published shards, or show which documents the own shards hold (`harness data verify`).
    """
    runs = [run for run in counted(submission).runs if isinstance(run.train_shards, Located)]
    if not runs or isinstance(submission.claims.validation_split, Located):
        return None
    ratios = [(run, ratio) for run in runs if (ratio := ratio_of(run)) is not None]
    if not ratios:
        reason = "no log states val_loss and val_bpb, so the size of a shard is unknown"
        return undecided("The number of training shards cannot be judged", reason, *(run.train_shards for run in runs))
    counts = [(run, known(run.train_shards) or 0, _published(ratio)) for run, ratio in ratios]
    over = [(run, count, most) for run, count, most in counts if count > most * (1 + SHARD_SPREAD)]
    values: dict[str, Value] = {
        "train_shards": [*sorted({count for _, count, _ in counts})],
        "published_shards": [*sorted({most for _, _, most in counts})],
    }
    if not over:
        message = f"{max(count for _, count, _ in counts):,} training shards, of about {counts[0][2]} published."
        return Outcome(Verdict.PASS, message, values, places(*(run.train_shards for run, _, _ in counts)))
    clauses = [f"{seed_name(run)} {count:,}, published are about {most}" for run, count, most in over]
    message = f"More training shards than the published text fills: {listed(clauses)}; check what they hold."
    return Outcome(Verdict.WARN, message, values, places(*(run.train_shards for run, _, _ in over)))


def _published(ratio: Ratio) -> int:
    """About how many shards the published training text fills.

    A ratio of no known split may be of the score's making (mixtures, miscounts) and not the tokenizer's: then twice
    as many.
    """
    shards = TRAIN_TEXT_BYTES / TRAIN_SHARD_TOKENS / ratio.value
    return round(shards if fitting(ratio) else 2 * shards)


@rule("PG308", "split-partly-scored", family=FAMILY, status=Status.SETTLED, authority="README; #1835, #2009, #2109")
def split_partly_scored(submission: Submission) -> Outcome | None:
    """The log announces an evaluation of a part of the validation split.

    What it checks:
        What the evaluations of a claimed run announce: windows times stride, chunks times their tokens (each also
        times the number of processes), documents, a subset of tokens. At least one of them covers the split, as its
        canonical number of tokens (else the logged one) and its 50,000 documents say. And the logged settings that
        cut the split (`val_doc_fraction`, `val_max_tokens` ...) leave it whole. Not for logs that announce nothing.

    Why it matters:
        The score is defined on the whole validation split. Which of several evaluations is the claimed one is a
        guess: hence a warning.

    Evidence:
        The log lines that announce the evaluation, or the setting.

    How to fix:
        Score every document of every validation shard.
    """
    runs = [run for run in counted(submission).runs if run.coverage or _cuts(run)]
    outcomes = [outcome for run in runs if (outcome := _covered(submission, run)) is not None]
    return max(outcomes, key=lambda outcome: outcome.verdict.severity, default=None)


def _cuts(run: Run) -> list[tuple[str, Located[str]]]:
    """The logged settings that could cut the split."""
    return [(key, value) for key, value in run.config.items() if FRACTION_KEY.match(key) or LIMIT_KEY.match(key)]


def _cutting(run: Run, tokens: int, documents: int) -> list[tuple[str, Located[str]]]:
    """Those that do: a fraction below one, a limit below the split's size where that is known."""
    cutting = []
    for key, setting in _cuts(run):
        if re.fullmatch(r"\d{1,15}(?:\.\d{1,15})?", setting.value) is None:
            continue
        value = float(setting.value)
        units = documents if "doc" in key else tokens
        whole = (VALIDATION_TEXT_BYTES if "bytes" in key else units) * (1 - PART_OF_SPLIT)
        limits = LIMIT_KEY.match(key) is not None and (value < whole or not whole)
        if value > 0.0 and (value < 1.0 or limits):
            cutting.append((key, setting))
    return cutting


def _covered(submission: Submission, run: Run) -> Outcome | None:
    """Judge one run; None when its announcements cannot be compared with anything."""
    tokens = _tokens(submission, run)
    documents = 0 if isinstance(submission.claims.validation_split, Located) else VAL_DOCUMENTS
    most = min(canonical_tokens(submission, run)[1], default=MOST_TOKENS)
    cutting = _cutting(run, most, documents)
    if cutting:
        names = listed([f"{key} = {setting.value}" for key, setting in cutting])
        where = places(*(setting for _, setting in cutting))
        return Outcome(Verdict.WARN, f"{seed_name(run)} ran with {names}, which cuts the validation split.", {}, where)
    judged = [one for one in run.coverage if (documents if one.unit == "documents" else tokens)]
    if not judged:
        if not run.coverage:
            return Outcome(Verdict.PASS, f"No setting of {seed_name(run)} cuts the validation split.", {}, ())
        reason = "neither the split nor its tokens can be told"
        return undecided(f"What {seed_name(run)} scored", reason, *_where(run.coverage))
    whole = [one for one in judged if _whole(one, tokens, documents, known(run.world_size) or 1)]
    values: dict[str, Value] = {"split_tokens": tokens or None, "split_documents": documents or None}
    if whole:
        message = f"{seed_name(run)} announces {_told(whole[0])}: the whole split."
        return Outcome(Verdict.PASS, message, values, _where(whole[:1]))
    told = listed([_told(one) for one in judged])
    message = f"{seed_name(run)} announces {told}; the split has {tokens:,} tokens in {documents:,} documents."
    return Outcome(Verdict.WARN, message, values, _where(judged))


def _tokens(submission: Submission, run: Run) -> int:
    """Tokens of the split: the smallest canonical number, else the logged one, else 0."""
    _, canonical = canonical_tokens(submission, run)
    return min(canonical, default=known(run.val_tokens) or 0)


def _whole(one: Coverage, tokens: int, documents: int, processes: int) -> bool:
    if one.unit == "documents":
        return one.count >= documents * (1 - PART_OF_SPLIT)
    # Some logs count one process's share.
    return one.count * one.tokens_each * processes >= tokens * (1 - PART_OF_SPLIT)


def _told(one: Coverage) -> str:
    if one.unit == "documents":
        return f"{one.count:,} documents"
    if one.unit == "tokens":
        return f"a subset of {one.count:,} tokens"
    return f"{one.count:,} {one.unit} of {one.tokens_each:,} tokens"


def _where(coverage: Sequence[Coverage]) -> tuple[Location, ...]:
    return tuple(dict.fromkeys(one.location for one in coverage))


RULES = (shards_beyond_published, split_partly_scored)
