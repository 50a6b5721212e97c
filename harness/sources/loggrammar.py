"""The grammar of single log lines, for every family of published training logs.

Four families occur (`step:i/N train_loss:`, `i/N train_loss: .. tok/s`, the same with `ttp`/`tttg` lines, and
`params:.. ws: s:` with `budget:N/16000000`). They share their vocabulary, so one grammar reads them all. Every
function takes a line without its prefix and end, and gives the events it states; prose gives none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from harness.sources import logamounts
from harness.sources.logamounts import INTEGER
from harness.sources.logevents import (
    RESULT_LABEL,
    SUMMARY,
    ConfigEvent,
    CrashEvent,
    DeviceEvent,
    Event,
    PhaseEvent,
    ProgressEvent,
    ResumeEvent,
    ScoreEvent,
    SeedEvent,
    SizeEvent,
    StepEvent,
    StopEvent,
)

# A line longer than this is data, not a statement: it is cut before matching.
LINE_LIMIT_CHARACTERS = 8_192

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?|nan|[-+]?inf"
_STEP = re.compile(
    r"step[: =]\s*(\d{1,12})(?:\s*/\s*(\d{1,12}))?(?=[\s:,|\[]|$)|(\d{1,12})/(\d{1,12})(?=\s)", re.IGNORECASE
)
_PLAIN_STEP = re.compile(
    r"step:(\d{1,12})/(\d{1,12}) train_loss:(\d{1,9}\.\d{1,12})(?: lr_mul:\d{1,9}\.\d{1,12})?"
    r" train_time:(\d{1,12})ms step_avg:(\d{1,9}\.\d{1,12})ms"
)
_STEP_PAIR = re.compile(
    r"(?<![\w/])(train_loss|val_loss|val_bpb|loss|fitness|train_time|step_avg|avg|tok/s|tokens/s|t)(?:\s*[:=]\s*|\s)"
    rf"({_NUMBER})\s*(ms|s|m|min)?(?![\w.])",
    re.IGNORECASE,
)
_BPB = re.compile(
    rf"(?<![\w-])(?:(?:val_)?bpb|(?:val_|eval_)?bits_per_byte)\s*[:=]\s*({_NUMBER})(?![\w.])", re.IGNORECASE
)
_LOSS = re.compile(rf"(?<![\w-])(?:val_)?loss\s*[:=]\s*({_NUMBER})(?![\w.])", re.IGNORECASE)
_EVAL_TIME = re.compile(
    rf"(?<!\w)(?:\w{{0,40}}eval_time|elapsed|time)\s*[:=]\s*({_NUMBER})\s*(ms|s|m|min)(?!\w)", re.IGNORECASE
)
_PROGRESS = re.compile(
    r"(ttp|tttg|ttt_progress|ttt_chunk|sliding_eval|eval|ttt)\b[:\s]*(?:batch|b|c|chunk)?\s*\[?\s*(?:[\d.]+%\]\s*)?"
    r"(\d{1,12})/(\d{1,12})(?!\d)"
)
_RUNNING = re.compile(rf"(?:running_bpb|rb|bpb)\s*[:=]\s*({_NUMBER})")
# `12/947` and `52.9%` before a value: an evaluation under way, whatever it is called.
_UNDER_WAY = re.compile(r"\d/\d|\d%")
_STOP = re.compile(r"stopping[_ ]early\s*:?\s*(\w*)", re.IGNORECASE)
_STOP_STEP = re.compile(r"\bstep\s*:?\s*(\d{1,12})")
_RESUME = re.compile(r"resumed:\S{1,200} step:(\d{1,12})/\d{1,12}(?!\d)")
_TRAIN_TIME = re.compile(rf"train_time\s*[:=]\s*({_NUMBER})\s*(ms|s)(?!\w)")
# A row of the driver's table of devices.
_DEVICE = re.compile(r"\|\s{1,8}\d{1,2}\s{1,4}(NVIDIA [\w.-]+(?: [\w.-]+){0,6}) {1,40}(?:On|Off|N/A) ")
_PAIR = re.compile(r"(?<!\S)([A-Za-z_]\w*)[:=](\S+)")
_PAIRS_ONLY = re.compile(r"(?:[A-Za-z_]\w*[:=]\S+)(?:\s+[A-Za-z_]\w*[:=]\S+)*\s*")
# Digits and decimals have bounds: of two open runs side by side, each end of the first is tried with all of the second.
_PHASE_NUMBER = r"(\d{1,12}(?:\.\d{0,20})?)"
_TIMED_PHASES = tuple(
    re.compile(pattern.replace("<number>", _PHASE_NUMBER))
    for pattern in (
        r"(total_eval_time)\s*[:=]\s*<number>(s|ms)(?!\w)",
        r"(temp_scaling)\b.*?time\s*[:=]\s*<number>(s|ms)(?!\w)",
        r"(GPTQ:collected \d+ Hessians) in <number>(s)(?!\w)",
        r"(gptq:(?:done|quantization complete|collected \w.*?|generated .*?)) in <number>(s)(?!\w)",
        r"(Serialize: .*? done|Deserialize: .*? done) in <number>(s)(?!\w)",
        r"(ttt\w*:compile warmup) done \(<number>(s)\)",
        r"(ttt:completed)\b.*?time\s*[:=]\s*<number>(s|ms)(?!\w)",
        r"(\w+:precompute)\b.*?elapsed\s*[:=]\s*<number>(s|ms)(?!\w)",
        r"((?:artifact_production|serialize)_wallclock)\s*[:=]\s*<number>(s|ms)(?!\w)",
        r"(GPTQ:quantized|GPTQ:compressed\+saved|gptq:calibrated \d+ layers) in <number>(s)(?!\w)",
        r"((?:gptq:generated \d+ sequences|codebook:collected \d+ hessians)) in <number>(ms|s)(?!\w)",
        r"(gptq:(?:calibration|quantization) done)(?: in | \()<number>(ms|s)(?!\w)",
        r"(gptq:hessian_collection_time)\s*[:=]\s*<number>(ms|s)(?!\w)",
        r"(GPTQ:total quantization time): <number>(s)(?!\w)",
        r"((?:total_eval_\w{1,40}|inner_\w{1,20}_eval_time))\s*[:=]\s*<number>(s|ms)(?!\w)",
        r"(GPTQ:collected \d+ Hessians) and [^=:]{1,60}? in <number>(s)(?!\w)",
        r"((?:gptq:)?[Hh]essians collected)\b.{0,80}?(?:time=|elapsed=| in )<number>(ms|s)(?!\w)",
        r"(gptq:[\w-]{1,30} calibrated \d+ layers|gptq: Hessians for \d+ layers) in <number>(ms|s)(?!\w)",
        r"(gptq:budget_check)\b.{0,60}?gptq:<number>(ms|s)(?!\w)",
        r"(\w{1,40}: ?built) in <number>(ms|s)(?!\w)",
        # `ttt:done elapsed=46.2s`, `prune: done (3s)`, `search: done t=60.0s`; with a score it is an evaluation.
        (
            r"(\w{1,40}: ?done)\b(?!.{0,400}bpb)(?:.{0,99}?\bin |\s?\(|.{0,99}?\b(?:elapsed|time|t)\s?[:=]\s?)"
            r"<number>(ms|s)(?!\w)"
        ),
    )
)
# The whole of training in one line, without steps: what it covers is the author's affair.
_TRAINED = re.compile(
    r"[-*]?\s?training(?: (?:complete|completed|finished|done|time))?:? (?:(\d{1,9}) steps,? )?(?:in )?"
    r"(\d{1,9}(?:\.\d{1,9})?) ?(ms|s|sec|seconds)(?![\w/])",
    re.IGNORECASE,
)
# One line for a whole run, as wrappers print it: `[RESULT] run=1 | score=1.19 | size=15,115,793B | OK`.
_RESULT = re.compile(r"\[RESULTS?\].{0,200}?\b(?:score|val_bpb|bpb)\s?=\s?(\d\.\d{2,12})(?![\d.])")
_RESULT_SIZE = re.compile(rf"\bsize\s?=\s?{INTEGER} ?(?:B|bytes)(?!\w)")
_SETTINGS_SEED = re.compile(r"""[{,]\s?["']seed["']\s?:\s?(\d{1,10})\s?[,}]""")
_CRASH = re.compile(
    r"Traceback \(most recent call last\)|ChildFailedError|OutOfMemoryError|CUDA out of memory|Segmentation fault"
    r"|(?:^|\s)Killed\b|^\w*(?:Error|Exception): "
)
# Python writes blanks after a colon and around an equals sign; log statements at the margin do not.
_STATEMENT = re.compile(
    r"step:\d+/|\d+/\d+ (?:train|val)_loss|stopping_early:|(?:model_params|world_size|seed):\d|final_\w+ val_"
)
# `warmup_step:3/20` counts; it sets nothing.
_COUNTING = re.compile(r"\w+:\s*\d+/\d+")
# First characters of step lines; and words of which a timed phase or a crash has one. Most lines have none.
_STEP_BEGINS = frozenset("sS0123456789")
_PHASE_WORDS = ("time", " in ", "warmup", "elapsed", "wallclock", "done", "budget_check")
_CRASH_WORDS = ("rror", "xception", "Traceback", "memory", "Killed", "Segmentation")


def parse_line(text: str, number: int, *, header: bool = True) -> tuple[Event, ...]:
    """The events that a line states.

    Args:
        text: the line, without prefix and line end.
        number: its 1-based number.
        header: True before the first training step, where `key:value` lines are hyperparameters.
    """
    text = text[:LINE_LIMIT_CHARACTERS]
    if text[:1] == "[":
        bracketed = _result(text, number)
        if bracketed:
            return bracketed
    for reader in _EXCLUSIVE if text[:1] in _STEP_BEGINS else _NO_STEPS:
        event = reader(text, number)
        if event is not None:
            return (event,)
    sizes = logamounts.sizes(text, number)
    if sizes:
        return tuple(sizes)
    settings = config_pairs(text, number) if header else []
    events = (*logamounts.counts(text, number), *logamounts.announced(text, number), *settings)
    return events or tuple(logamounts.mentions(text, number))


def _result(text: str, number: int) -> tuple[Event, ...]:
    """A wrapper's own lines: the settings with which it starts a run, and the run's result."""
    if "seed" in text:
        seed = _SETTINGS_SEED.search(text)
        return (SeedEvent(number, int(seed[1])),) if seed else ()
    score = _RESULT.match(text) if "RESULT" in text[:10] else None
    if score is None:
        return ()
    size = _RESULT_SIZE.search(text)
    sizes = (SizeEvent(number, "total", "", logamounts.integer(size[1])),) if size else ()
    return (ScoreEvent(number, RESULT_LABEL, None, float(score[1]), _decimals(score[1]), 0, None), *sizes)


def config_pairs(text: str, number: int) -> list[Event]:
    """Hyperparameters of a line made of `key:value` or `key=value` words only; none when it has other words."""
    text = text.strip()
    if ":" not in text and "=" not in text:
        return []
    if _COUNTING.match(text) or _PAIRS_ONLY.fullmatch(text) is None:
        return []
    return [ConfigEvent(number, key.lower(), value) for key, value in _PAIR.findall(text)]


def device_row(text: str, number: int) -> tuple[Event, ...]:
    """The graphics card of a row of the driver's table; tables state nothing else."""
    match = _DEVICE.match(text) if "NVIDIA" in text else None
    return (DeviceEvent(number, match[1]),) if match else ()


def is_statement(text: str, number: int) -> bool:
    """Whether a line is unmistakably a log statement, which no Python source holds at its left margin."""
    if _STATEMENT.match(text) is None:
        return False
    return any(not isinstance(event, ConfigEvent) for event in parse_line(text, number, header=False))


def milliseconds(value: float, unit: str | None) -> float | None:
    """A finite duration in milliseconds; None without a unit, and for minutes, which logs round to a tenth."""
    duration = {"ms": value, "s": value * 1_000}.get((unit or "").lower())
    return duration if duration is not None and math.isfinite(duration) else None


def _plain_step(text: str, number: int) -> Event | None:
    """A step line of the most common shape, in one match."""
    match = _PLAIN_STEP.fullmatch(text) if text.startswith("step:") else None
    if match is None:
        return None
    step, iterations, loss, trained, average = match.groups()
    return StepEvent(
        number,
        int(step),
        int(iterations),
        train_loss=float(loss),
        train_milliseconds=float(trained),
        step_milliseconds=float(average),
    )


def _step(text: str, number: int) -> Event | None:
    match = _STEP.match(text) if text[:1] in _STEP_BEGINS else None
    if match is None:
        return None
    pairs = {name.lower(): (float(value), unit) for name, value, unit in _STEP_PAIR.findall(text, match.end())}
    loss = next((pairs[name][0] for name in ("train_loss", "loss", "fitness") if name in pairs), None)
    if loss is None and "val_loss" not in pairs and "val_bpb" not in pairs:
        return None
    return StepEvent(
        number,
        int(match[1] or match[3]),
        int(match[2] or match[4]) if match[2] or match[4] else None,
        train_loss=loss,
        val_loss=_value(pairs, "val_loss"),
        val_bpb=_value(pairs, "val_bpb"),
        train_milliseconds=_duration(pairs, "train_time", "t"),
        step_milliseconds=_duration(pairs, "step_avg", "avg"),
        tokens_per_second=_value(pairs, "tok/s") or _value(pairs, "tokens/s"),
    )


def _value(pairs: dict[str, tuple[float, str]], name: str) -> float | None:
    return pairs[name][0] if name in pairs else None


def _duration(pairs: dict[str, tuple[float, str]], *names: str) -> float | None:
    return next((milliseconds(*pairs[name]) for name in names if name in pairs), None)


def _stop(text: str, number: int) -> Event | None:
    match = _STOP.match(text) if text[:1] in _STEP_BEGINS else None
    if match is None:
        return None
    step = _STOP_STEP.search(text)
    time = _TRAIN_TIME.search(text)
    return StopEvent(
        number, match[1], int(step[1]) if step else None, milliseconds(float(time[1]), time[2]) if time else None
    )


def _resume(text: str, number: int) -> Event | None:
    match = _RESUME.match(text) if text.startswith("resumed:") else None
    if match is None:
        return None
    time = _TRAIN_TIME.search(text)
    return ResumeEvent(number, int(match[1]), milliseconds(float(time[1]), time[2]) if time else None)


def _trained(text: str, number: int) -> Event | None:
    match = _TRAINED.match(text) if "raining" in text[:11] else None
    if match is None:
        return None
    duration = milliseconds(float(match[2]), "ms" if match[3].lower() == "ms" else "s")
    return StopEvent(number, SUMMARY, int(match[1]) if match[1] else None, duration)


def _progress(text: str, number: int) -> Event | None:
    match = _PROGRESS.match(text.lstrip()) if "/" in text else None
    if match is None:
        return None
    running = _RUNNING.search(text) if "rb" in text or "bpb" in text else None
    return ProgressEvent(number, match[1], int(match[2]), int(match[3]), float(running[1]) if running else None)


def _score(text: str, number: int) -> Event | None:
    lower = text.lower()
    bpb = _BPB.search(text) if "bpb" in lower or "bits_per" in lower else None
    if bpb is None:
        return None
    loss = _LOSS.search(text)
    label_end = min(match.start() for match in (bpb, loss) if match is not None)
    label = text[:label_end].strip(" \t:|-,(")
    if _UNDER_WAY.search(label):
        return None
    time = _EVAL_TIME.search(text)
    return ScoreEvent(
        number,
        label or "val_bpb",
        float(loss[1]) if loss else None,
        float(bpb[1]),
        _decimals(bpb[1]),
        _decimals(loss[1]) if loss else 0,
        milliseconds(float(time[1]), time[2]) if time else None,
    )


def _decimals(number: str) -> int:
    return len(number.lower().partition("e")[0].partition(".")[2])


def _phase(text: str, number: int) -> Event | None:
    if not any(word in text for word in _PHASE_WORDS):
        return None
    for pattern in _TIMED_PHASES:
        match = pattern.match(text.lstrip())
        duration = milliseconds(float(match[2]), match[3]) if match else None
        if match and duration is not None:
            return PhaseEvent(number, match[1], duration)
    return None


def _crash(text: str, number: int) -> Event | None:
    if not any(word in text for word in _CRASH_WORDS):
        return None
    return CrashEvent(number, text.strip()[:200]) if _CRASH.search(text) else None


_EXCLUSIVE: tuple[Callable[[str, int], Event | None], ...] = (
    _plain_step,
    _step,
    _stop,
    _trained,
    _resume,
    _progress,
    _phase,
    _score,
    _crash,
)
# For lines that begin otherwise than steps and stops do.
_NO_STEPS = _EXCLUSIVE[3:]
