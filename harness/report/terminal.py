"""A console that gives its text back: what the forms for a terminal share."""

from __future__ import annotations

import io
from collections.abc import Callable

from rich.console import Console

NARROWEST_COLUMNS = 20


def rendered(write: Callable[[Console], None], width: int, *, color: bool) -> str:
    """What `write` prints, without blanks at the ends of lines.

    Args:
        write: prints to the console that it is given.
        width: columns of the terminal.
        color: whether to use colour; without it the text holds no escape sequence at all.
    """
    console = Console(
        file=io.StringIO(),
        width=max(width, NARROWEST_COLUMNS),
        color_system="standard" if color else None,
        force_terminal=color,
        no_color=not color,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=False,
    )
    with console.capture() as capture:
        write(console)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"
