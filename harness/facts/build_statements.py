"""README, submission.json and scripts -> what the folder says of itself beside scores and sizes."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness.facts.code import CodeBase
from harness.facts.statements import Count, Launch, StatementFacts
from harness.model import Located, Location, Value
from harness.sources import runcommands
from harness.sources.folder import shown
from harness.sources.manifest import Manifest, pointer
from harness.sources.script import ParsedScript

DEPTH_LIMIT = 4
VALUES_LIMIT = 400
TITLE_LINES = 8
TITLE_CHARACTERS = 60
OPENING_LINES = 40
LINE_CHARACTERS = 600
PARAMETER_NAMES = frozenset("num_parameters parameters model_params num_params n_params total_params".split())  # noqa: SIM905
_NON_RECORD = re.compile(r"(?<![\w-])non[-_ ]?record(?![\w-])", re.IGNORECASE)
_SEED = re.compile(r"(?<![\w-])seed[ =:]{1,3}(\d{1,6})(?!\d)", re.IGNORECASE)
# A line that begins so, behind marks of emphasis.
_BEGINS_SO = re.compile(r"[\s*_>]*non[-_ ]?record\s+(?:\w+\s+){0,3}(?:submission|entry|run)\b", re.IGNORECASE)
_TRIAL = re.compile(
    r"(?<![\w-])(?<!not a )(?:smoke(?:[ -](?:test|run|submission))?|proxy(?:[ -](?:run|submission|score))?"
    r"|sanity[ -](?:check|run)|not an? (?:\w+ ){0,3}leaderboard (?:claim|submission|entry|attempt))(?![\w-])",
    re.IGNORECASE,
)
_PARAMETERS_ROW = re.compile(
    r"\s*\|\s*[*`]*(?:total |model )?param(?:eter)?s(?: count)?[*`]*\s*\|"
    r"\s*[*`~≈]*(\d[\d,]*(?:\.\d+)?)\s*(M|million|K|B)?[*`]*\s*\|\s*$",
    re.IGNORECASE,
)
_SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "million": 1e6, "b": 1e9}
# Read by the launcher, the libraries or the shell.
_FOR_OTHERS = re.compile(
    r"(?:CUDA|NCCL|OMP|MKL|TORCH|PYTORCH|TRITON|NUMEXPR|OPENBLAS|MATCHED|JAX|XLA|HF|LD|GLOO|UCX|PIP|WANDB|TOKENIZERS|TRANSFORMERS|XDG|LOCAL|TMP)"
    r"(?:_|$)\w*|PYTHON\w*|TORCHINDUCTOR_\w+|TORCHDYNAMO_\w+|PATH|HOME|TMPDIR|TEMP|MASTER_\w+|WORLD_SIZE|RANK|NPROC\w*|N?GPUS?|NUM_GPUS|"
    r"VIRTUAL_ENV|DEBIAN_\w+|MAX_JOBS|CC|CXX|NVCC\w*|TERM|USER|SHELL"
)


def build_statements(
    manifest: Manifest | None, readme: Located[str] | None, parsed: Sequence[ParsedScript], code: CodeBase
) -> StatementFacts:
    """The statements of a folder.

    Args:
        manifest: submission.json, parsed.
        readme: the README's text at its path.
        parsed: the parsed scripts.
        code: the same as code.
    """
    texts = {script.path: script.text for script in parsed}
    values = list(_values(manifest)) if manifest is not None else []
    return StatementFacts(
        non_record=(*_declared(values), *_titled(readme)),
        trial=(*_tried(values), *_tried(_opening(readme))),
        parameters=(*_counted(values), *_tabled(readme)),
        seeds=tuple(_spoken(values)),
        launches=tuple(_launches(readme, texts)) if readme is not None else (),
        idle=tuple(_idle(values, texts, code)),
    )


def _values(manifest: Manifest) -> Iterator[tuple[str, Located[Value]]]:
    """Every named value of submission.json that is no object or list, to some depth."""
    waiting: deque[tuple[str, Value, int]] = deque([("", dict(manifest.document or {}), 0)])
    count = 0
    while waiting:
        place, value, depth = waiting.popleft()
        if not isinstance(value, Mapping) or depth > DEPTH_LIMIT:
            continue
        for name, inner in value.items():
            here = place + pointer(name)
            if isinstance(inner, dict):
                waiting.append((here, inner, depth + 1))
            elif not isinstance(inner, list):
                count += 1
                if count > VALUES_LIMIT:
                    return
                yield name, Located(inner, manifest.at(here))


def _declared(values: Sequence[tuple[str, Located[Value]]]) -> Iterator[Located[str]]:
    for name, found in values:
        plain = name.lower().replace("-", "_")
        if (plain in {"is_record", "record"} and found.value is False) or (
            plain in {"non_record", "is_non_record", "nonrecord"} and found.value is True
        ):
            yield Located(f"{name} is {str(found.value).lower()}", found.location)
        elif plain == "track" and isinstance(found.value, str) and _NON_RECORD.search(found.value.replace("_", " ")):
            yield Located(f"track is {found.value[:60]}", found.location)


def _titled(readme: Located[str] | None) -> Iterator[Located[str]]:
    """The README's first heading, or a line below it that begins so, where it says so."""
    if readme is None:
        return
    titled = False
    for number, line in enumerate(readme.value.split("\n")[:TITLE_LINES], start=1):
        heading = line.startswith("#")
        if titled and heading:
            return
        said = _NON_RECORD.search(line[:400]) if heading else _BEGINS_SO.match(line[:400])
        if said is not None:
            text = shown(line.partition("|")[0].strip("#*_> "), TITLE_CHARACTERS)
            told = f"the title is {text}" if heading else f"the README begins with {text}"
            yield Located(told, Location(readme.location.path, number))
            return
        titled = titled or heading


def _opening(readme: Located[str] | None) -> Iterator[tuple[str, Located[Value]]]:
    """The README's first lines, in which it says what it is."""
    for number, line in enumerate(readme.value.split("\n")[:OPENING_LINES] if readme is not None else (), start=1):
        yield "", Located(line[:LINE_CHARACTERS], Location(readme.location.path if readme else "", number))


def _tried(values: Iterable[tuple[str, Located[Value]]]) -> Iterator[Located[str]]:
    """The first text that calls the whole a trial."""
    for _, found in values:
        said = _TRIAL.search(found.value[:LINE_CHARACTERS]) if isinstance(found.value, str) else None
        if said is not None:
            yield Located(said[0], found.location)
            return


def _spoken(values: Iterable[tuple[str, Located[Value]]]) -> Iterator[Located[int]]:
    for _, found in values:
        for said in _SEED.finditer(found.value[:LINE_CHARACTERS]) if isinstance(found.value, str) else ():
            yield Located(int(said[1]), found.location)


def _counted(values: Sequence[tuple[str, Located[Value]]]) -> Iterator[Located[Count]]:
    for name, found in values:
        value = found.value
        if (
            name.lower() in PARAMETER_NAMES
            and isinstance(value, (int, float))
            and not isinstance(value, bool)
            and value > 0
        ):
            yield Located(Count(float(value), 1.0), found.location)


def _tabled(readme: Located[str] | None) -> Iterator[Located[Count]]:
    for number, line in enumerate(readme.value.split("\n") if readme is not None else (), start=1):
        row = _PARAMETERS_ROW.match(line[:300]) if "aram" in line else None
        if row is not None and readme is not None:
            scale = _SCALES[(row[2] or "").lower()]
            decimals = len(row[1].partition(".")[2])
            count = Count(float(row[1].replace(",", "")) * scale, scale * 10.0**-decimals)
            yield Located(count, Location(readme.location.path, number))


def _launches(readme: Located[str], texts: Mapping[str, str]) -> Iterator[Located[Launch]]:
    lowered = {path.rpartition("/")[2]: text.lower() for path, text in texts.items()}
    for command in runcommands.read(readme.value):
        own = lowered.get(command.script.rpartition("/")[2])
        # A launcher that reads no variable itself hands all of them on.
        reads = own is not None and ("environ" in own or "getenv" in own)
        unread = [
            variable
            for variable in dict.fromkeys(command.variables)
            if reads and not _FOR_OTHERS.fullmatch(variable) and not _named(variable, lowered.values(), readme.value)
        ]
        launch = Launch(command.script[:200], own is not None, tuple(unread))
        yield Located(launch, Location(readme.location.path, command.line))


def _named(variable: str, lowered: Iterable[str], readme: str) -> bool:
    """Whether a script names a variable, in either case, or the command itself makes use of it."""
    used = f"${variable}" in readme or f"${{{variable}" in readme
    return used or any(variable.lower() in text for text in lowered)


def _idle(
    values: Sequence[tuple[str, Located[Value]]], texts: Mapping[str, str], code: CodeBase
) -> Iterator[tuple[Located[str], Located[str]]]:
    """Stated settings whose name stands once in all scripts, where a class sets it."""
    program = code.program
    if program is None:
        return
    seen: set[str] = set()
    for name, found in values:
        if name in seen or not isinstance(found.value, (bool, int, float)) or not found.value:
            continue
        seen.add(name)
        fields = [(module, field) for module in program.modules.values() for field in module.fields.get(name, ())]
        if len(fields) != 1:
            continue
        word = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
        if sum(len(word.findall(text)) for text in texts.values()) == 1:
            module, field = fields[0]
            place = module.at(field.value.lineno)
            yield Located(f"{name} is {str(found.value)[:40]}", found.location), Located(name, place)
