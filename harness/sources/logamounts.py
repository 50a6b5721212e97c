"""What log lines state as an amount: bytes, parameters, tokens, what an evaluation will score, seeds and versions."""

from __future__ import annotations

import re

from harness.sources.logevents import (
    AnnouncedEvent,
    CountEvent,
    CoverageEvent,
    Event,
    SeedEvent,
    SeedMention,
    SizeEvent,
    VersionEvent,
)

INTEGER = r"(\d[\d,_]{0,20})"
_SERIALIZED = re.compile(rf"Serialized model(?:\+\w{{1,20}})?(?:\s+([^\s:]+))?\s*:\s*{INTEGER} bytes")
_CODE = re.compile(rf"Code(?: size)?(?: \((uncompressed|compressed)[^)]*\))?\s*:\s*{INTEGER} bytes")
_TOTAL = re.compile(rf"Total submission(?: size)?(?:\s+([^\s:]+))?\s*:\s*{INTEGER} bytes")
_MODEL = re.compile(rf"(?<!\w)(\w{{1,20}}\+\w{{1,20}}) model\s*:\s*{INTEGER} bytes")
_BUDGET = re.compile(r"budget\s*:\s*(\d{1,20})/(\d{1,20})")
_ARTIFACT_CODE = re.compile(r"^\s*artifact\s*:.*\bcode\s*:\s*(\d{1,20})")
_ARTIFACT = re.compile(
    rf"(?:total[_ ])?artifact(?:[_ ]size)?(?:[_ ]bytes)?\s*[:=]\s*{INTEGER}(?: bytes)?\s*(?:\([^()]{{1,40}}\)\s*)?$",
    re.IGNORECASE,
)
_SEED = re.compile(r"(?<![\w.])seed\s*[:=]\s*(\d{1,19})(?![\w.])", re.IGNORECASE)
_SEED_MENTION = re.compile(r"""(?<![A-Za-z0-9])seed["']?(?:\s?[=:]\s?| )(\d{1,10})(?![\w.])""", re.IGNORECASE)
_PARAMS_LINE = re.compile(r"params:([\d,]{1,20})\b.*?\bws:(\d{1,6})\b(?:.*?\bs:(\d{1,19})\b)?")
# Each with a word that stands in every match: a search for a word is far cheaper.
_COUNTS = (
    (
        "parameters",
        "",
        re.compile(
            r"(?:(?:model_|total_)?params|parameters)\s*[:=]\s*([\d,_]{1,20})(?![\w.])|total:\s*([\d,]{1,20}) params"
        ),
    ),
    ("world_size", "world_size", re.compile(r"(?<!\w)world_size\s*[:=]\s*(\d{1,6})(?![\w.])")),
    (
        "val_tokens",
        "tokens",
        re.compile(
            r"(?:(?<!\w)[Vv]al(?:idation)?[_ ]tokens\s*[:=]|^\s*val_loader:.*\btokens:)\s*(\d[\d,_]{0,20})(?![\w.])"
        ),
    ),
    ("train_shards", "train_shards", re.compile(r"(?<!\w)train_shards\s*[:=]\s*(\d{1,9})(?![\w.])")),
)
# What an evaluation announces: windows and their stride, chunks and their tokens, documents.
# `64032/121136` counts progress.
_WINDOWS = re.compile(r"(?<![\w/])(?:total_)?windows[=:]\s?(\d{1,12})(?![\d/,.])")
_STRIDE = re.compile(r"(?<!\w)stride[=:]\s?(\d{1,6})(?!\d)")
_CHUNKS = re.compile(r"(?<![\w/])chunks[=:]\s?(\d{1,9})(?![\d/,.])")
_CHUNK_TOKENS = re.compile(r"(?<!\w)chunk_tokens[=:]\s?(\d{1,9})(?!\d)")
_DOCUMENTS = re.compile(
    r"(?:(?<!\w)(?:total|val)_docs[=:]|ttt_lora:docs:)\s?(\d{1,9})(?!\d)"
    r"|(?<!\w)eval\w{0,10} on (\d{1,9}) doc(?:ument)?s(?!\w)"
)
# `val_eval:subset fraction=0.05 tokens=3100672 (full=62021632)`.
_SUBSET = re.compile(r"(?<![A-Za-z])(?:val|eval)\w{0,10}:\s?subset\b[^()]{0,60}\btokens[=:]\s?(\d{1,12})(?!\d)")
# `Val tokens: 62,021,632 (eval on 999,424)`.
_OF_ALL = re.compile(
    r"(?<!\w)val(?:idation)?[_ ]tokens\s*[:=]\s*(\d[\d,]{0,20}) \(eval on (\d[\d,]{0,20})\)", re.IGNORECASE
)
_VERSION = re.compile(r"Running (Python|PyTorch) (\d[\w.+]{0,40})")
# Work between training and evaluation that begins.
_BEGINS = re.compile(r"(?:gptq|codebook|awq)\s?:\s?(?:collecting|calibrating|generating|building)\b", re.IGNORECASE)
_BEGINS_WORDS = ("calibrating", "ollecting", "enerating", "uilding")


def sizes(text: str, number: int) -> list[Event]:
    """Bytes of a model, of code, or of both."""
    if "bytes" not in text and "artifact" not in text and "budget" not in text:
        return []
    found: list[Event] = []
    for kinds, pattern in _SIZES:
        match = pattern.search(text)
        if match:
            label = (match[1] or "") if pattern.groups > 1 else ""
            found.append(SizeEvent(number, kinds.get(label, kinds["*"]), label, integer(match[match.lastindex or 1])))
    budget = _BUDGET.match(text)
    if budget:
        found.append(SizeEvent(number, "total", "budget", int(budget[1])))
    return found


_SIZES: tuple[tuple[dict[str, str], re.Pattern[str]], ...] = (
    ({"": "raw_model", "*": "model"}, _SERIALIZED),
    ({"compressed": "compressed_code", "*": "code"}, _CODE),
    ({"": "unlabelled_total", "*": "total"}, _TOTAL),
    ({"*": "model"}, _MODEL),
    ({"*": "code"}, _ARTIFACT_CODE),
    ({"*": "total"}, _ARTIFACT),
)


def counts(text: str, number: int) -> list[Event]:
    """Parameters, processes, tokens, shards, and the seed of a line that says only this."""
    if ":" not in text and "=" not in text:
        return []
    compact = _PARAMS_LINE.search(text) if "params:" in text else None
    if compact:
        events: list[Event] = [
            CountEvent(number, "parameters", integer(compact[1])),
            CountEvent(number, "world_size", int(compact[2])),
        ]
        return [*events, SeedEvent(number, int(compact[3]))] if compact[3] else events
    found: list[Event] = []
    for name, hint, pattern in _COUNTS:
        if hint not in text:
            continue
        match = pattern.search(text) if name != "parameters" else pattern.match(text.lstrip())
        if match:
            found.append(CountEvent(number, name, integer(match[match.lastindex or 1])))
    seed = _SEED.match(text.lstrip())
    return [*found, SeedEvent(number, int(seed[1]))] if seed else found


def announced(text: str, number: int) -> list[Event]:
    """What an evaluation will score, work that begins, and the versions that run."""
    found: list[Event] = []
    if any(word in text for word in _BEGINS_WORDS) and _BEGINS.match(text.lstrip()):
        found.append(AnnouncedEvent(number, text.strip()[:200]))
    for unit, counts, sizes in (("windows", _WINDOWS, _STRIDE), ("chunks", _CHUNKS, _CHUNK_TOKENS)):
        count, size = (counts.search(text), sizes.search(text)) if unit in text else (None, None)
        if count and size:
            found.append(CoverageEvent(number, unit, int(count[1]), int(size[1])))
    documents = _DOCUMENTS.search(text) if "docs" in text else None
    if documents:
        found.append(CoverageEvent(number, "documents", int(documents[1] or documents[2]), 0))
    subset = _SUBSET.search(text) if "subset" in text else None
    if subset:
        found.append(CoverageEvent(number, "tokens", int(subset[1]), 1))
    part = _OF_ALL.search(text) if "eval on" in text else None
    if part and integer(part[2]) < integer(part[1]):
        found.append(CoverageEvent(number, "tokens", integer(part[2]), 1))
    version = _VERSION.match(text.lstrip()) if "Running" in text else None
    return [*found, VersionEvent(number, version[1].lower(), version[2])] if version else found


def mentions(text: str, number: int) -> list[Event]:
    """The seed that a line of other words names, when it names one only."""
    seeds = {int(digits) for digits in _SEED_MENTION.findall(text)} if "eed" in text or "EED" in text else set()
    return [SeedMention(number, seed) for seed in seeds] if len(seeds) == 1 else []


def integer(digits: str) -> int:
    """A number with separators between its digits."""
    return int(digits.replace(",", "").replace("_", "") or "0")
