"""The commands of a README that run a script: which script, the environment variables set for it, and its options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

LINE_LIMIT_CHARACTERS = 4_000
TEXT_LIMIT_CHARACTERS = 1_000_000
COMMANDS_LIMIT = 200
_LAUNCHER = re.compile(r"(?:^|[\s;&|(`])(?:torchrun|python3?(?:\.\d+)?|accelerate\s+launch)\s")
_SCRIPT = re.compile(r"(?<![\w./-])((?:[\w.~-]{1,100}/){0,12}[\w-]{1,100}\.py)(?![\w./*])")
_VARIABLE = re.compile(r"(?<![\w$./{-])([A-Z][A-Z0-9_]{1,60})=")
_OPTION = re.compile(r"(?<![^\s])--([A-Za-z][\w-]{0,60})(?:[=\s]\s{0,8}((?!--)[^\s|;&>]{1,300}))?")
# A pipe, another command, or a sentence that goes on behind the code.
_END = re.compile(r"[|;&>`]")
_COMMAND_START = re.compile(r"[A-Z][A-Z0-9_]*=\S*\s|(?:env|torchrun|python3?|accelerate)\s")
# What stands before a command in a list, a quotation or a transcript.
_MARKS = " \t-*`$>"


@dataclass(frozen=True, slots=True)
class Command:
    """One command that runs a Python script.

    Attributes:
        script: the script's path as written.
        variables: names of the environment variables set in front of it, in order.
        line: 1-based line on which the command begins.
        options: what follows the script as `--name value` or `--name=value`, by name as argparse has it; the value of
            an option without one is "True".
    """

    script: str
    variables: tuple[str, ...]
    line: int
    options: tuple[tuple[str, str], ...] = ()


def read(text: str) -> tuple[Command, ...]:
    """The commands of a README that launch a script by its path; those inside sentences are left out."""
    found: list[Command] = []
    for line, command in _commands(text[:TEXT_LIMIT_CHARACTERS]):
        launcher = _LAUNCHER.search(command)
        script = _SCRIPT.search(command, launcher.end()) if launcher is not None else None
        if launcher is not None and script is not None:
            variables = tuple(_VARIABLE.findall(command[: launcher.start() + 1]))
            found.append(Command(script[1], variables, line, tuple(_options(command[script.end() :]))))
        if len(found) >= COMMANDS_LIMIT:
            break
    return tuple(found)


def _options(rest: str) -> Iterator[tuple[str, str]]:
    """The options of a command, up to what ends it."""
    for match in _OPTION.finditer(_END.split(rest, maxsplit=1)[0]):
        value = match[2] if match[2] is not None else "True"
        if "$" not in value:
            yield match[1].replace("-", "_"), value.strip("\"'`")


def _commands(text: str) -> Iterator[tuple[int, str]]:
    """Lines of code blocks, and lines outside that begin as commands do; continued lines as one."""
    fenced, start, held = False, 0, ""
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw[:LINE_LIMIT_CHARACTERS].strip()
        if line.startswith(("```", "~~~")):
            fenced, held = not fenced, ""
            continue
        if not held and not fenced and not _COMMAND_START.match(line.lstrip(_MARKS)):
            continue
        start, held = (start, f"{held} {line}") if held else (number, line)
        if held.endswith("\\"):
            held = held[:-1]
            if len(held) < LINE_LIMIT_CHARACTERS:
                continue
        if not held.lstrip().startswith("#"):
            yield start, held.partition(" #")[0]
        held = ""
