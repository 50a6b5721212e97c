"""Which lines of a script ran."""

from __future__ import annotations

from pathlib import Path

from harness.probe.child.lines import Lines
from tests import childruns

SCRIPT = """\
import helper

def dead():
    return 1

def alive(n):
    if n > 3:
        return helper.twice(
            n)
    return 0

print(alive(4))
"""


def test_lines_that_run_are_told_by_file() -> None:
    program = compile(SCRIPT.replace("import helper", "pass").replace("helper.twice", "int"), "own.py", "exec")
    told: list[dict[str, object]] = []
    lines = Lines(lambda path: path == "own.py")
    lines.install()
    exec(program, {})  # noqa: S102 - the program above
    lines.report(lambda kind, **fields: told.append({"kind": kind, **fields}))
    assert told == [{"kind": "lines", "path": "own.py", "ranges": [[1, 2], [3, 4], [6, 10], [12, 13]]}]


def test_lines_are_told_however_often_a_function_runs_and_of_two_files_that_are_alike() -> None:
    text = "def pick(n):\n    if n:\n        return 1\n    return 0\n\npick(1)\npick(1)\npick(0)\npick(1)\n"
    told: dict[str, object] = {}
    lines = Lines(lambda path: path in {"one.py", "other.py"})
    lines.install()
    # The code of the two is equal, and so is that of a library's which nobody asked for.
    for path in ("library.py", "one.py", "other.py"):
        exec(compile(text.replace("pick(0)", "#") if path == "other.py" else text, path, "exec"), {})  # noqa: S102
    lines.report(lambda _, path, ranges: told.update({path: ranges}))
    assert told == {"one.py": [[1, 5], [6, 10]], "other.py": [[1, 4], [6, 8], [9, 10]]}


def test_a_run_tells_the_lines_of_the_script_and_its_modules(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("def twice(n):\n    return 2 * n\n", encoding="utf-8")
    ran = childruns.run(tmp_path, SCRIPT, lines=True)
    assert ran.status == 0, ran.output
    found = {Path(event["path"]).name: event["ranges"] for event in ran.of("lines")}
    assert found["helper.py"] == [[1, 3]]
    assert [4, 5] not in found["train_gpt.py"]
    assert found["train_gpt.py"][0] == [1, 2]
