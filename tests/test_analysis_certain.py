"""What a run comes by and what it cannot miss: behind the end of a block, and at a cost that follows the length."""

from __future__ import annotations

import ast
from functools import partial

import pytest

from harness.analysis.certain import Reach
from harness.analysis.index import Index
from tests.growth import RATIO_LIMIT, growth

SCRIPT = """
def f():
    for x in y:
        before1()
        continue
        behind1()
        while z:
            behind2()
    try:
        raise error
        behind3()
    except E:
        before2()
    else:
        before3()
    finally:
        before4()
        return 1
        return behind4()
    before5()
    if a:
        before6()
    return before7(lambda: before8())
    behind5(); behind6()
f()
before9()
"""


def test_only_what_stands_behind_an_end_is_not_reached() -> None:
    index = Index(ast.parse(SCRIPT))
    reach = Reach(index)
    calls = [node for node in index.of(ast.Call) if isinstance(node.func, ast.Name)]
    told = {call.func.id: reach.is_reached(call) for call in calls if isinstance(call.func, ast.Name)}
    assert told.pop("f")
    assert sum(told.values()) == 9
    assert all(reached == name.startswith("before") for name, reached in told.items()), told


@pytest.mark.parametrize(
    ("text", "certain"),
    [
        ("if __name__ == '__main__':\n a()\nelse:\n b()", {"a"}),
        ("while True:\n a()\nelse:\n b()", {"a"}),
        ("while c():\n a()", {"c"}),
        ("if c():\n a()", {"c"}),
        ("try:\n a()\nexcept E:\n b()\nelse:\n c()\nfinally:\n d()", {"d"}),
        ("try:\n a()\nfinally:\n d()", {"a", "d"}),
        ("for x in a():\n b()\nelse:\n c()", {"a"}),
        ("a(); b()", {"a", "b"}),
    ],
)
def test_what_every_run_evaluates(text: str, certain: set[str]) -> None:
    index = Index(ast.parse(text))
    reach = Reach(index)
    found = {call.func.id for call in index.of(ast.Call) if isinstance(call.func, ast.Name) and reach.is_certain(call)}
    assert found == certain


def ask(text: str) -> None:
    index = Index(ast.parse(text))
    reach = Reach(index)
    for node in index.of(ast.Name):
        reach.is_reached(node)
        reach.is_certain(node)


@pytest.mark.parametrize(
    ("head", "line"),
    [
        ("", "x=a and a\n"),
        ("if __name__ == '__main__':\n x\n", " x=a\n"),
        ("while True:\n x\n", " x=a\n"),
        ("try:\n x\nexcept E:\n x\nfinally:\n x\n", " x=a\n"),
        ("x=a", " and a"),
        ("x=a", "<a"),
        ("x=f(a", ",*a"),
    ],
)
def test_every_place_of_a_long_script_is_asked_for_in_linear_time(head: str, line: str) -> None:
    small, large = (partial(ask, head + line * size + ")" * ("f(" in head)) for size in (1_000, 4_000))
    assert growth(small, large) < RATIO_LIMIT
