"""The configuration of a run: which value a setting had, and where that stands."""

from __future__ import annotations

import ast
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.answers import NOTHING_STATED, Answer, Resolved, Setting, Stated, Unknown
from harness.analysis.configuration import Configuration
from harness.analysis.index import Index
from harness.analysis.program import Module, Program
from harness.analysis.reach import Life, Reach
from harness.model import Location

LOG = Location("train.log", 3)
README = Location("README.md", 9)


def program(source: str, **others: str) -> Program:
    def module(text: str, name: str) -> Module:
        return Module(Index(ast.parse(textwrap.dedent(text))), lambda line: Location(f"{name}.py", line))

    helpers = {name: (lambda text=text, name=name: module(text, name)) for name, text in others.items()}
    return Program(module(source, "train_gpt"), helpers)


def value(source: str, stated: Stated = NOTHING_STATED, **others: str) -> Answer:
    """What the last expression statement of the source is."""
    made = program(source, **others)
    [*_, last] = made.entry.index.of(ast.Expr)
    return Configuration(made, stated).value(last.value, made.entry.scope_of(last))


def stated(logged: dict[str, str] | None = None, commanded: dict[str, str] | None = None, *unclear: str) -> Stated:
    return Stated(
        {name: Setting(text, "log", LOG) for name, text in (logged or {}).items()},
        {name: Setting(text, "README", README) for name, text in (commanded or {}).items()},
        frozenset(unclear),
    )


CLASS = """
    import os
    class Hyperparameters:
        ttt_enabled = bool(int(os.environ.get("TTT_ENABLED", "0")))
        epochs: int = int(os.getenv("EPOCHS", 3))
    args = Hyperparameters()
    args.ttt_enabled and args.epochs > 1
"""
HELPER = textwrap.dedent(
    """
    import os
    def flag(name, d=False):
        raw = os.environ.get(name)
        if raw is None:
            return d
        return raw.strip() in {"1", "on"}
    flag("X", True)
    """
)
OPTIONS = textwrap.dedent(
    """
    import argparse
    p = argparse.ArgumentParser()
    p.add_argument("--use-it", action="store_true")
    args = p.parse_args()
    args.use_it
    """
)
SETTINGS = textwrap.dedent(
    """
    import os
    from dataclasses import dataclass
    @dataclass
    class Settings:
        n: int
        x: str = "none"
    s = Settings(3, os.environ.get("X", "b"))
    s.x
    """
)
SHAPES = [
    ('import os\nos.environ.get("X", "0") == "1"', {"X": "1"}, True),
    ('import os\nos.environ.get("X", "no").lower() in ("1", "true", "yes")', {"X": "TRUE"}, True),
    ('import os\nint(os.environ.get("X", "2")) * 2 + 1', {}, 5),
    ('import os\nos.environ["X"]', {"X": "a"}, "a"),
    ('import os\n"X" in os.environ', {}, False),
    ('import os\n"X" not in os.environ', {"X": ""}, False),
    ('import os\nfloat(os.environ.get("X", os.environ.get("Y", "0.5")))', {"Y": "2"}, 2.0),
    ('from os import environ\nenviron.get("X", 3) if True else 4', {}, 3),
    ('import os\n_E = os.environ.get\nint(_E("X", "1"))', {"X": "0"}, 0),
    ('import os as o\nenv = o.environ\nenv["X"]', {"X": "a"}, "a"),
    ('from os import getenv as g\ng("X", 3)', {}, 3),
    (HELPER, {}, True),
    (HELPER, {"X": "off"}, False),
    (OPTIONS, {}, False),
    ("import os\nclass A:\n    def __init__(self):\n        self.x = int(os.getenv('X', 7))\na = A()\na.x", {}, 7),
    ('import os\nclass A:\n    x = 1\na = A()\ngetattr(a, "y", 5)', {}, 5),
    ("N = 4\ndef f(n=N):\n    return n\nf(N)", {}, 4),
    ("not (1 > 2 or 0)", {}, True),
    ('import os\ndef f(env=None):\n    e = env or {}\n    return e.get("X", 1)\nf(dict(os.environ))', {"X": "5"}, "5"),
    ('import os\ndef f(env):\n    return env["X"]\nf(os.environ.copy())', {"X": "a"}, "a"),
    (SETTINGS, {"X": "a"}, "a"),
    (SETTINGS, {}, "b"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "commanded", "expected"), SHAPES, ids=range(len(SHAPES)))
def test_the_shapes_in_which_scripts_read_settings(source: str, commanded: dict[str, str], expected: object) -> None:
    answer = value(source, stated(commanded=commanded))
    assert isinstance(answer, Resolved)
    assert answer.value == expected


def test_a_default_stands_until_somebody_states_a_value() -> None:
    answer = value(CLASS)
    assert isinstance(answer, Resolved)
    assert not answer.true
    assert str(answer.reasons[0]) == "TTT_ENABLED is 0 (default at train_gpt.py:4)"


def test_the_command_stands_before_the_default_and_the_log_before_both() -> None:
    by_command = value(CLASS, stated(commanded={"TTT_ENABLED": "1"}))
    assert isinstance(by_command, Resolved)
    assert by_command.true
    by_log = value(CLASS, stated({"ttt_enabled": "False"}, {"TTT_ENABLED": "1"}))
    assert isinstance(by_log, Resolved)
    assert not by_log.true
    assert by_log.reasons[0].location == LOG


def test_what_nobody_states_decides_no_branch() -> None:
    assert value(CLASS, stated(None, {"EPOCHS": "2"}, "ttt_enabled")) == Unknown(("ttt_enabled",))
    assert value('import os\nint(os.environ.get("RANK", "0")) == 0') == Unknown()
    assert isinstance(value('import os\nos.environ["MODE"] == "a"'), Unknown)
    assert isinstance(value("import torch\ntorch.cuda.is_available()"), Unknown)


def test_a_call_that_cannot_be_followed_may_read_the_variable_that_it_names() -> None:
    assert value('from somewhere import read\nint(read("USE_SLOT", 1))') == Unknown(("USE_SLOT",))
    assert value("from somewhere import read\nint(read('a name', 1))") == Unknown()
    twice = "import os\nE = os.environ.get\nE = print\nint(E('USE_SLOT', 1))"
    assert value(twice) == Unknown(("USE_SLOT",))


def test_a_value_that_is_set_twice_is_unknown_unless_both_agree() -> None:
    assert isinstance(value("import sys\nx = 1\nif sys.argv:\n    x = 2\nx"), Unknown)
    same = value("import sys\nx = 1\nif sys.argv:\n    x = 1\nx")
    assert isinstance(same, Resolved)
    assert same.value == 1


def test_a_constant_of_another_module_is_followed() -> None:
    answer = value("from helper import LIMIT\nLIMIT + 1", helper="LIMIT = 2\n")
    assert isinstance(answer, Resolved)
    assert answer.value == 3


@pytest.mark.parametrize("source", ["'x' * 10**9", "'%999999999d' % 1", "x = x\nx", "f = lambda: f()\nf()", "(1,)[3]"])
def test_nothing_large_or_endless_is_computed(source: str) -> None:
    assert isinstance(value(source), Unknown)


@given(
    st.recursive(
        st.sampled_from(["1", "0", "a", "x.b"]), lambda inner: st.builds("({} and not {})".format, inner, inner)
    )
)
def test_any_condition_gets_an_answer(condition: str) -> None:
    assert isinstance(value(condition), (Resolved, Unknown))


BRANCHES = """
    import os
    class Args:
        on = bool(int(os.environ.get("ON", "0")))
        mode = os.environ.get("MODE", "plain")
    args = Args()
    def never(): pass
    def always(): pass
    def other(): pass
    def inner(): never()
    def guarded():
        if not args.on:
            return
        other()
    def main():
        if args.on:
            inner()
        else:
            always()
        guarded()
    main()
"""


def lives(source: str, given: Stated) -> dict[str, str]:
    made = program(source)
    reach = Reach(made, Configuration(made, given))
    return {name: str(reach.function(each, made.entry).life) for name, each in made.entry.index.functions.items()}


def test_what_the_configuration_switches_off_is_dead() -> None:
    found = lives(BRANCHES, NOTHING_STATED)
    assert [name for name, life in found.items() if life == "dead"] == ["never", "other", "inner"]


def test_what_it_switches_on_is_live_and_the_rest_is_dead() -> None:
    found = lives(BRANCHES, stated(commanded={"ON": "1"}))
    assert [name for name, life in found.items() if life == "dead"] == ["always"]


def test_an_unclear_setting_leaves_both_branches_open() -> None:
    found = lives(BRANCHES, stated(None, None, "on"))
    assert {name for name, life in found.items() if life == "unknown"} == {"never", "always", "other", "inner"}


def test_a_loop_of_no_rounds_is_dead_and_one_of_some_is_live() -> None:
    source = 'import os\nN = int(os.environ.get("N", "{}"))\ndef f(): pass\nfor _ in range(N):\n    f()\n'
    assert lives(source.format(0), NOTHING_STATED) == {"f": "dead"}
    assert lives(source.format(2), NOTHING_STATED) == {"f": "live"}


@pytest.mark.parametrize(
    ("calls", "life"),
    [
        ("evaluate(m)\nevaluate(m, args.on)", "live"),  # the last evaluation counts
        ("evaluate(m, args.on)\nevaluate(m)", "unknown"),
        ("evaluate(m)\nevaluate(m, 0)", "dead"),
    ],
)
def test_a_parameter_is_what_the_last_call_passes(calls: str, life: str) -> None:
    head = 'import os\nclass Args:\n    on = int(os.environ.get("ON", "1"))\nargs = Args()\ndef cached(): pass\n'
    body = "def evaluate(model, share=0):\n    use = share > 0\n    if use: cached()\n"
    assert lives(head + body + calls + "\n", NOTHING_STATED)["cached"] == life


def test_a_container_that_came_to_nothing_decides_no_branch() -> None:
    body = "def f(): pass\ndef g():\n    found = {}\n    for x in X: found[x] = 1\n    if not found: f()\ng()\n"
    assert lives(body, NOTHING_STATED)["f"] == "unknown"
    assert lives(body.replace("not found", "found"), NOTHING_STATED)["f"] == "live"


def test_the_reason_for_dead_code_is_named() -> None:
    made = program(BRANCHES)
    reach = Reach(made, Configuration(made))
    reason = reach.dead_because(made.entry.index.functions["never"], made.entry)
    assert str(reason) == "ON is 0 (default at train_gpt.py:4)"
    assert reach.function(made.entry.index.functions["main"], made.entry).life is Life.LIVE
    assert reach.dead_because(made.entry.index.functions["main"], made.entry) is None


def test_names_of_a_class_are_seen_in_its_body() -> None:
    source = """
        import os
        class Hyperparameters:
            on_val = bool(int(os.environ.get("ON_VAL", "1")))
            files = "val" if on_val else "train"
        args = Hyperparameters()
        args.files
    """
    assert value(source) == Resolved("val", value(source).reasons)  # type: ignore[union-attr]
    assert value(source, stated(commanded={"ON_VAL": "0"})).value == "train"  # type: ignore[union-attr]
    # A name that refers to itself has no value.
    loop = source.replace('bool(int(os.environ.get("ON_VAL", "1")))', "on_val")
    assert isinstance(value(loop), Unknown)
