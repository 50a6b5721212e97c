"""Switches that a log shows to have been set otherwise than their default."""

from __future__ import annotations

import textwrap

import pytest

from harness.analysis.answers import Setting, Stated
from harness.analysis.configuration import Configuration
from harness.analysis.reach import Reach
from harness.analysis.switches import switched
from harness.model import Location
from tests.test_analysis_configuration import program

SCRIPT = """
    import os
    class Settings:
        adapt = bool(int(os.environ.get("ADAPT_ENABLED", "0")))
        average = os.environ.get("AVERAGE", "1") == "1"
        plain = int(os.environ.get("PLAIN", "0"))
        stride = int(os.environ.get("EVAL_STRIDE", "0"))
        only = bool(int(os.environ.get("TTT_EVAL_ONLY", "0")))
    buckets = int(os.environ.get("BUCKETS", "0")) > 0
    origin = os.environ.get("INIT_FROM", "") != ""
    tilted = os.environ.get("TILT", "0").lower() in ("1", "true", "yes")
    merged = int(os.environ.get("MERGE_ENABLED", 0))
    args = Settings()
    def adapted(model):
        print("adaptation begins with", model)
    def main():
        print("training begins")
        if args.adapt:
            adapted(model)
            print("adaptation:done")
        if not args.average:
            print("last weights are taken")
        else:
            print("average of the weights")
        if args.plain:
            print("something plain happens")
        if args.stride > 0:
            print("windows that overlap")
        if args.only:
            print("training is skipped today")
        if buckets:
            print("a table of buckets")
        if origin:
            print("weights of another run")
        if tilted:
            print("rows are tilted a little")
        if merged:
            print("models are merged here")
        if args.adapt and args.plain:
            print("both of them together")
    main()
"""


def found(*logged: str, stated: Stated | None = None, script: str = SCRIPT) -> dict[str, str]:
    made = program(textwrap.dedent(script))
    given = stated or Stated({}, {})
    shown = {text: Location("train.log", line) for line, text in enumerate(logged, 1)}
    reached = Reach(made, Configuration(made, given), shown.get)
    return {name: each.value for name, each in switched(made, given, reached).items()}


@pytest.mark.parametrize(
    ("logged", "expected"),
    [
        ((), {}),
        (("adaptation:done",), {"ADAPT_ENABLED": "1"}),
        (("adaptation begins with",), {"ADAPT_ENABLED": "1"}),
        (("last weights are taken",), {"AVERAGE": "0"}),
        (("average of the weights",), {}),
        # A log of two runs holds both.
        (("last weights are taken", "average of the weights"), {}),
        # How much it was, nobody says.
        (("something plain happens",), {}),
        (("windows that overlap",), {"EVAL_STRIDE": "64"}),
        (("both of them together",), {}),
        # No folder holds what an earlier run has trained.
        (("training is skipped today",), {}),
        (("a table of buckets",), {}),
        (("weights of another run",), {}),
        (("rows are tilted a little",), {"TILT": "1"}),
        (("models are merged here",), {"MERGE_ENABLED": "1"}),
        (("training begins",), {}),
    ],
)
def test_what_only_one_side_prints_tells_of_a_switch(logged: tuple[str, ...], expected: dict[str, str]) -> None:
    assert found(*logged) == expected


def test_what_is_stated_stays() -> None:
    setting = Setting("0", "README", Location("README.md", 3))
    assert found("adaptation:done", stated=Stated({}, {"ADAPT_ENABLED": setting})) == {}


def test_the_line_that_shows_it_is_told() -> None:
    made = program(textwrap.dedent(SCRIPT))
    shown = {"adaptation:done": Location("train.log", 7)}
    reached = Reach(made, Configuration(made), shown.get)
    [switch] = switched(made, Stated({}, {}), reached).values()
    assert switch.exact
    assert str(switch.shown) == "`adaptation:done` is printed (log at train.log:7)"
