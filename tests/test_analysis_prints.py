"""What a place in a program is bound to print, and what a log that shows it, or lacks it, says of the place."""

from __future__ import annotations

import ast
from collections.abc import Sequence

import pytest

from harness.analysis.announced import Lines, announcements
from harness.analysis.configuration import Configuration
from harness.analysis.prints import Line, said, spoken
from harness.analysis.reach import Life, Reach
from harness.model import Location
from tests.test_analysis_configuration import program

SCRIPT = """
    import os
    def log0(text, console=True):
        if rank != 0:
            return
        print(text)

    def adapt(model, epochs):
        log0(f"adapt:start epochs:{epochs}")
        for epoch in range(epochs):
            step(model)
        if rank == 0:
            log0("adapt:done")

    def table(tokens):
        if not tokens:
            return None
        print("table:built from tokens")
        look_up(tokens)

    def main():
        print("training begins")
        enabled = int(os.environ.get("ADAPT_ENABLED", "0"))
        if enabled:
            log0("adaptation of the model")
            adapt(model, 3)
        else:
            log0("no adaptation today")
        table(tokens)
        print("the end of it")
    main()
"""


def reach_of(source: str, *logged: str) -> Reach:
    made = program(source)
    shown = {text: Location("train.log", line) for line, text in enumerate(logged, 1)}
    return Reach(made, Configuration(made), shown.get)


def texts(groups: Sequence[Lines]) -> list[list[str]]:
    return [[line.text for line in lines] for lines in groups]


def call(reach: Reach, name: str) -> ast.Call:
    (found,) = reach.program.entry.index.calls_of(name)
    return found


@pytest.mark.parametrize(
    ("source", "piece"),
    [
        ('log0(f"ttt:start lr:{lr} epochs:{n}")', "ttt:start lr:"),
        ('print("step %d of the loop" % n)', "of the loop"),
        ('print("a score of {:.4f} bits".format(x))', "a score of"),
        ('logger.info("first line\\nthe second line")', "the second line"),
        ('print("hidden text", file=sys.stderr)', ""),
        ('log0("hidden text", console=False)', ""),
        ('log0("shown text", console=True)', "shown text"),
        ('print("one text" if flag else "another text")', ""),
        ('print(os.environ.get("A_VARIABLE_NAME"))', ""),
        ('print("1234567")', ""),
        ('store("some text")', ""),
    ],
)
def test_the_fixed_piece_of_a_print(source: str, piece: str) -> None:
    statement = ast.parse(source).body[0]
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Call)
    assert said(statement.value) == piece


def test_what_a_node_is_bound_to_print_ends_at_the_outermost_condition() -> None:
    reach = reach_of(SCRIPT.replace('"0"', '"1"'))
    home = reach.program.entry
    found = announcements(call(reach, "step"), home, reach.program, reach)
    assert texts(found) == [["adapt:start epochs:", "adapt:done"], ["adaptation of the model"]]
    # Behind `if not tokens: return` in a function that is always called.
    (group,) = announcements(call(reach, "look_up"), home, reach.program, reach)
    assert group == (Line("table:built from tokens", "print"),)
    assert announcements(call(reach, "main"), home, reach.program, reach) == ()
    assert Line("adapt:done", "log0") in set(spoken(reach.program))


def test_a_function_with_two_live_calls_is_followed_no_further() -> None:
    source = SCRIPT.replace('"0"', '"1"').replace("table(tokens)\n        print", "adapt(other, 1)\n        print")
    reach = reach_of(source)
    assert announcements(call(reach, "step"), reach.program.entry, reach.program, reach) == ()


@pytest.mark.parametrize(
    ("logged", "life"),
    [
        ((), Life.DEAD),
        (("adaptation of the model",), Life.LIVE),
        # Of the function's own lines, whatever calls it.
        (("adapt:start epochs:",), Life.LIVE),
        (("no adaptation today", "training begins"), Life.DEAD),
    ],
)
def test_a_branch_ran_whose_own_line_a_log_holds(logged: tuple[str, ...], life: Life) -> None:
    reach = reach_of(SCRIPT, *logged)
    found = reach.of(call(reach, "step"), reach.program.entry)
    assert found.life is life
    if life is Life.LIVE:
        assert [str(reason) for reason in found.reasons] == [f"`{logged[0]}` is printed (log at train.log:1)"]


@pytest.mark.parametrize(("text", "life"), [("adapt_epochs:", Life.DEAD), ("adapt_epochs: all", Life.LIVE)])
def test_the_name_of_a_setting_stands_in_logs_anyway(text: str, life: Life) -> None:
    reach = reach_of(SCRIPT.replace("adaptation of the model", text), text)
    assert reach.of(call(reach, "step"), reach.program.entry).life is life


def test_a_conditional_part_of_a_line_shows_its_condition() -> None:
    source = """
        import os
        def main():
            use_slot = int(os.environ.get("SLOT_ENABLED", "0"))
            print(f"evaluation{' with slot_steps=5' if use_slot else ''}")
            if use_slot:
                step()
    """
    for logged, life in (("with slot_steps=5", Life.LIVE), ("evaluation", Life.DEAD)):
        reach = reach_of(source, logged)
        assert reach.of(call(reach, "step"), reach.program.entry).life is life


@pytest.mark.parametrize("other", ['print("adaptation of the model, again")', 'print(f"{n}: adaptation of the model")'])
def test_a_line_that_may_come_from_elsewhere_shows_nothing(other: str) -> None:
    source = SCRIPT.replace('print("training begins")', other)
    reach = reach_of(source, "adaptation of the model")
    assert reach.of(call(reach, "step"), reach.program.entry).life is Life.DEAD


def test_a_lambda_is_made_only_where_the_conditions_around_it_hold() -> None:
    source = """
        import os
        def rescore(x):
            again(x)
        def main():
            if int(os.environ.get("AGAIN", "0")):
                timed("rescoring", lambda: rescore(1))
            timed("other", lambda: other(2))
        main()
    """
    reach = reach_of(source)
    assert reach.of(call(reach, "again"), reach.program.entry).life is Life.DEAD
    assert reach.of(call(reach, "other"), reach.program.entry).life is Life.LIVE


def test_an_entry_of_a_table_may_be_the_one_that_is_called() -> None:
    source = """
        def plain(x):
            return 1
        def cached(x):
            look_up(x)
        WAYS = {"plain": plain, "cached": cached}
        def main():
            WAYS[mode](3)
    """
    reach = reach_of(source)
    found = reach.of(call(reach, "look_up"), reach.program.entry)
    assert (found.life, found.unclear) == (Life.UNKNOWN, ("the table that holds cached",))
