"""Rules that did not run, put together by the command that would run them."""

from __future__ import annotations

from collections.abc import Sequence

from harness.model import NotExercised


def by_command(items: Sequence[NotExercised]) -> list[tuple[str, list[str]]]:
    """Each command with the codes of its rules, in order."""
    rules: dict[str, list[str]] = {}
    for item in items:
        rules.setdefault(item.command, []).append(item.rule)
    return list(rules.items())
