"""Other values that the child puts into a script's tree."""

from __future__ import annotations

import ast
from typing import Any

from harness.probe.child.overrides import Overrides
from tests.heard import Heard


def test_overrides_find_every_form(heard: Heard) -> None:
    text = (
        "class H:\n"
        "    a, b = 1, 2\n"
        "    c: int = 3\n"
        "    if True:\n"
        "        d = 4\n"
        "    def __init__(self):\n"
        "        self.e = 5\n"
        "f = 6\n"
    )
    tree = ast.parse(text)
    values = {"a": 10, "c": 30, "d": 40, "e": 50, "g": [1, "x"]}
    Overrides({"class": {"H": values}, "module": {"f": 60}}).apply(tree, "s.py")
    space: dict[str, Any] = {}
    exec(compile(tree, "s.py", "exec"), space)  # noqa: S102 - our own text
    made = space["H"]()
    assert (made.a, made.b, made.c, made.d, made.e, made.g, space["f"]) == (10, 2, 30, 40, 50, [1, "x"], 60)
    assert [event["line"] for event in heard.events] == [8, 2, 3, 5, 7, 6]


def test_overrides_find_a_name_wherever_a_larger_number_is_given(heard: Heard) -> None:
    text = (
        "rows, low = 1 << 20, 5\n"
        "class C:\n"
        "    rows: int = 2**20\n"
        "    def __init__(self, other=1, rows=4096, *, low=7000):\n"
        "        self.rows, self.low, self.given = 65536, 1, rows\n"
        "def make(**options):\n"
        "    return options\n"
        "made = make(rows=70000, low=3, other=70000)\n"
        "rows_of = 9000\n"
        "again = rows * 2\n"
    )
    tree = ast.parse(text)
    Overrides({"everywhere": {"rows": [256, 257], "low": [64, 65]}}).apply(tree, "s.py")
    space: dict[str, Any] = {}
    exec(compile(tree, "s.py", "exec"), space)  # noqa: S102 - our own text
    made = space["C"]()
    assert (space["rows"], space["low"], space["C"].rows, made.rows, made.low, made.given) == (256, 5, 256, 256, 1, 256)
    assert space["C"].__init__.__kwdefaults__ == {"low": 64}
    assert (space["made"], space["rows_of"]) == ({"rows": 256, "low": 3, "other": 70000}, 9000)
    assert {event["line"] for event in heard.events} == {1, 3, 4, 5, 8}
    assert all(event["where"] == "everywhere" for event in heard.events)


def test_overrides_find_what_a_number_of_numbers_is_compared_with(heard: Heard) -> None:
    text = (
        "def keep(t, limit=65536):\n"
        "    return [t.numel() <= 65536, 1 << 16 >= t.numel(), 5 < t.numel() < 70000, t.size > 65536, limit]\n"
    )
    tree = ast.parse(text)
    Overrides({"everywhere": {"numel()": [4096, 4097]}}).apply(tree, "s.py")
    assert ast.unparse(tree.body[0]).split("return ")[1] == (
        "[t.numel() <= 4096, 4096 >= t.numel(), 5 < t.numel() < 4096, t.size > 65536, limit]"
    )
    assert {event["line"] for event in heard.events} == {2}


def test_overrides_find_how_many_tokens_a_stream_is_asked_for(heard: Heard) -> None:
    tree = ast.parse("found = [stream.take(65536), table.take(rows), stream.take(512), take(65536), stream.take()]\n")
    Overrides({"everywhere": {"take()": [2048, 16384]}}).apply(tree, "s.py")
    expected = "found = [stream.take(2048), table.take(rows), stream.take(512), take(65536), stream.take()]"
    assert ast.unparse(tree) == expected
    assert [event["name"] for event in heard.events] == ["take()"]
