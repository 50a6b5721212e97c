"""Names, attributes and calls of scripts that are never run."""

from __future__ import annotations

import ast
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.arguments import bad_calls
from harness.analysis.attributes import Attributes
from harness.analysis.certain import Reach
from harness.analysis.index import Index
from harness.analysis.scopes import NAME_ERRORS, Scopes, binds_unseen, caught, certainly_unbound, in_annotation


def scopes(text: str) -> Scopes:
    return Scopes(Index(ast.parse(textwrap.dedent(text))))


def undefined(text: str) -> list[str]:
    found = scopes(text)
    return [
        node.id
        for node in found.undefined
        if not caught(found.index, node, NAME_ERRORS) and not in_annotation(found.index, node)
    ]


def unbound(text: str) -> list[str]:
    found = scopes(text)
    return [node.id for node in found.early if certainly_unbound(found, node)]


def never_set(text: str) -> list[str]:
    return [node.attr for node in Attributes(Index(ast.parse(textwrap.dedent(text)))).never_set]


def problems(text: str) -> list[str]:
    found = scopes(text)
    return [bad.problem for bad in bad_calls(found.index, found)]


@pytest.mark.parametrize(
    "text",
    [
        "import a.b as c, d.e\nprint(c, d, __file__, len)",
        "def f(x, *y, z=1, **w):\n    def g():\n        return x, y, z, w\n    return g",
        "def f():\n    global late\n    late = 1\ndef g():\n    return late",
        "for i in range(3):\n    pass\nprint(i)",
        "try:\n    import fast\nexcept ImportError as error:\n    print(error)\n    fast = None\nprint(fast)",
        "try:\n    unicode\nexcept NameError:\n    pass",
        "print([x for x in range(3)], {k: v for k, v in {}.items()}, (lambda a: a))",
        "class A:\n    x = 1\n    y = x + 1\n    def f(self) -> Later:\n        return __class__",
        "match 1:\n    case {'a': b, **rest}:\n        print(b, rest)\n    case [c, *others]:\n        print(others)",
        "if (n := 3):\n    print(n)",
        "with open('x') as file:\n    print(file)",
    ],
)
def test_names_that_are_defined(text: str) -> None:
    assert undefined(text) == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("def f():\n    local = 1\ndef g():\n    return local", ["local"]),
        ("class A:\n    width = 1\n    def f(self):\n        return width", ["width"]),
        ("def f(x=DEFAULT):\n    return x", ["DEFAULT"]),
        ("@decorated\ndef f(): ...", ["decorated"]),
        ("try:\n    gone\nexcept ValueError:\n    pass", ["gone"]),
    ],
)
def test_names_that_nothing_defines(text: str, names: list[str]) -> None:
    assert undefined(text) == names


@pytest.mark.parametrize(
    ("text", "opens"),
    [
        ("from m import *", True),
        ("globals().update(x=1)", True),
        ("globals()['x'] = 1", True),
        ("exec('x = 1')", True),
        ("print(globals()['x'], 'x' in globals())", False),
        ("model.eval()", False),
    ],
)
def test_what_binds_names_unseen(text: str, *, opens: bool) -> None:
    assert bool(binds_unseen(Index(ast.parse(text)))) is opens


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("def f():\n    x = x + 1", ["x"]),
        ("count = 0\ndef f():\n    print(count)\n    count = 1", ["count"]),
        ("print(x)\nx = 1", ["x"]),
        ("def f():\n    n += 1", ["n"]),
        ("def f():\n    n = 0\n    n += 1\n    n = n + 1", []),
        ("def f(n):\n    n += 1\n    n = n or 1", []),
        ("n = 0\nn += 1\nfrom m import *\nk += 1", []),
        ("def f():\n    print(x)\n    for x in range(3): ...", ["x"]),
        ("def f():\n    def g():\n        return x\n    x = 1\n    return g", []),
        ("def f():\n    y = [x for x in range(3)]\n    x = 1\n    return x, y", []),
        ("def f():\n    print(x)\n    import x", []),
        ("def f():\n    global x\n    print(x)\n    x = 1", []),
        ("class A:\n    len = len", []),
        ("print(max)\nmax = 3", []),
        ("while (y := x) if (x := 1) else 0: ...", []),
    ],
)
def test_variables_that_are_read_too_early(text: str, names: list[str]) -> None:
    assert unbound(text) == names


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ("class A:\n    def f(self):\n        return self.gone", ["gone"]),
        ("class A(nn.Module):\n    def f(self):\n        return self.training, self.parameters(), self.gone", ["gone"]),
        ("class A(Unknown):\n    def f(self):\n        return self.gone", []),
        ("@dataclass\nclass A:\n    x: int\n    def f(self):\n        return self.gone", []),
        ("class A:\n    def __getattr__(self, n): ...\n    def f(self):\n        return self.gone", []),
        (
            "class A:\n    def f(self):\n        self.a, (self.b, *self.c) = x\n        return self.a, self.b, self.c",
            [],
        ),
        ("class A(nn.Module):\n    def f(self):\n        self.register_buffer('b', x)\n        return self.b", []),
        ("class A(nn.Module):\n    def f(self):\n        self.register_buffer(f'b{i}', x)\n        return self.b0", []),
        ("class A:\n    def f(self):\n        return self.x if hasattr(self, 'x') else 0", []),
        (
            "class A:\n    def f(self):\n        try:\n            self.x\n        except AttributeError: ...",
            [],
        ),
        ("class A:\n    def f(self):\n        return self.x\na = A()\na.x = 1", []),
        ("class A:\n    def f(self):\n        return self.x\nclass B(A):\n    def g(self):\n        self.x = 1", []),
        ("class A:\n    x: int\n    if y:\n        z = 1\n    def f(self):\n        return self.x, self.z, self.f", []),
        ("class A:\n    @staticmethod\n    def f(self):\n        return self.x", []),
        ("class A:\n    def f(self):\n        vars(self).update(k)\n        return self.x", []),
        ("def f(self):\n    self.x = 1\nclass A:\n    def g(self):\n        return self.x", []),
    ],
)
def test_attributes_that_nothing_sets(body: str, names: list[str]) -> None:
    assert never_set(body) == names


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def f(a, b=1): ...\nf()", ["no value for a"]),
        ("def f(a, b=1): ...\nf(1, 2, 3)", ["3 positional arguments for 2 parameters"]),
        ("def f(a, b=1): ...\nf(1, c=2)", ["no parameter c"]),
        ("def f(a, b=1): ...\nf(1, a=2)", ["two values for a"]),
        ("def f(*, a): ...\nf()", ["no value for a"]),
        ("def f(a, /, *b, **c): ...\nf(1, 2, 3, d=4)", []),
        ("def f(a): ...\nf(*x)\nf(**y)", []),
        ("@wraps\ndef f(a): ...\nf()", []),
        ("def f(a): ...\nf = g(f)\nf()", []),
        ("def f(a): ...\ndef g(f):\n    f()", []),
        ("if x:\n    def f(a): ...\nelse:\n    def f(): ...\nf()", []),
        ("class A(nn.Module):\n    def __init__(self, a): ...\nA(1)\nA()", ["no value for a"]),
        ("class A(Unknown):\n    def __init__(self, a): ...\nA()", []),
    ],
)
def test_arguments_that_do_not_fit(text: str, found: list[str]) -> None:
    assert problems(text) == found


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("HERE", "certain"),
        (
            "def main():\n    if bad:\n        raise ValueError\n    HERE\nif __name__ == '__main__':\n    main()",
            "certain",
        ),
        ("class A:\n    def __init__(self):\n        HERE\ndef main():\n    x = A()\nmain()", "certain"),
        ("def main():\n    while True:\n        HERE\nmain()", "certain"),
        ("def main():\n    for i in x:\n        if i:\n            break\n    HERE\nmain()", "certain"),
        ("def main():\n    if x:\n        return\n    HERE\nmain()", "reached"),
        ("def main():\n    x and HERE\nmain()", "reached"),
        ("def main():\n    try:\n        HERE\n    except OSError:\n        pass\nmain()", "reached"),
        ("def main():\n    for i in x:\n        HERE\nmain()", "reached"),
        ("def main():\n    if x:\n        f()\ndef f():\n    HERE\nmain()", "reached"),
        ("def f():\n    HERE\ndef g():\n    f()", "dead"),
        ("def f():\n    return 1\n    HERE\nf()", "dead"),
        ("if __name__ == '__main__':\n    pass\nelse:\n    HERE", "reached"),
        ("def f():\n    yield HERE\nf()", "reached"),
    ],
)
def test_what_a_run_comes_by(text: str, ends: str) -> None:
    index = Index(ast.parse(text))
    [here] = [node for node in index.each(ast.Name) if node.id == "HERE"]
    reach = Reach(index)
    assert ("certain" if reach.is_certain(here) else "reached" if reach.is_reached(here) else "dead") == ends


_WORDS = st.sampled_from(
    [
        "def f(a):\n",
        "class A:\n",
        " ",
        "    ",
        "x",
        "self.y",
        " = ",
        "f(",
        ")",
        "\n",
        "import os\n",
        "return ",
        "lambda z: z",
        ",",
    ]
)


@given(st.lists(_WORDS, max_size=25))
def test_any_program_is_judged(words: list[str]) -> None:
    try:
        tree = ast.parse("".join(words))
    except SyntaxError:
        return
    found = Scopes(Index(tree))
    for node in found.early:
        certainly_unbound(found, node)
    bad_calls(found.index, found)
    assert Attributes(found.index).never_set is not None
