"""One environment variable per field: name, range and type stand beside the field itself.

A section is a frozen dataclass whose fields are annotated `Annotated[type, Setting(NAME, low, high)]`. Reading the
environment, refusing a value by name and logging all follow these annotations, so there is no second table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_type_hints


class ConfigError(ValueError):
    """A setting that cannot be used; the message begins with its environment name."""


@dataclass(frozen=True)
class Setting:
    """Environment name and allowed values of one field: a closed range, also of each of several, or choices."""

    name: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[int | str, ...] = ()

    def check(self, value: object) -> None:
        """Raise ConfigError when a value is outside the range or not among the choices."""
        if self.choices and value not in self.choices:
            raise ConfigError(f"{self.name}: {value!r} is not one of {', '.join(map(str, self.choices))}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{self.name}: {value} is not a finite number")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, (int, float)) and not self.low <= number <= self.high:
                raise ConfigError(f"{self.name}: {number} is outside {self.low:g} .. {self.high:g}")


def parse_setting(setting: Setting, kind: object, text: str) -> object:
    """Turn an environment variable's text into the field's type; raises ConfigError with its name."""
    word = text.strip()
    try:
        if kind is bool:
            return {"0": False, "1": True}[word]
        if kind is int:
            return int(word)
        if kind is float:
            return float(word)
        if kind is str:
            return text
        return None if word == "auto" else tuple(int(part) for part in word.split(",") if word != "none")
    except (KeyError, ValueError):
        expected = {bool: "0 or 1", int: "an integer", float: "a number"}.get(
            kind if isinstance(kind, type) else object, "auto, none or integers separated by commas"
        )
        raise ConfigError(f"{setting.name}: {text!r} is not {expected}") from None


def format_setting(value: object) -> str:
    """Write a field's value the way `parse_setting` reads it."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return "auto" if value is None else str(value)


class Section:
    """Base of the sections: checks every field against its Setting when an instance is made."""

    def __post_init__(self) -> None:
        for name, (setting, _) in section_settings(type(self)).items():
            setting.check(getattr(self, name))
        self.check_together()

    def check_together(self) -> None:
        """Check what depends on several fields of the section; sections override it."""


def section_settings(section: type) -> dict[str, tuple[Setting, object]]:
    """Field name -> (Setting, type) of a section, in order of declaration."""
    hints = get_type_hints(section, include_extras=True)
    return {name: (hint.__metadata__[0], hint.__origin__) for name, hint in hints.items()}
