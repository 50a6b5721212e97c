"""Variables that are used after `del`."""

from __future__ import annotations

import ast
import textwrap

import pytest

from harness.analysis.deleted import gone
from harness.analysis.index import Index


def found(body: str) -> list[tuple[str, int, int]]:
    text = "def main(model, flag, other, tokens):\n" + textwrap.indent(textwrap.dedent(body).strip("\n"), "    ")
    return [(each.use.id, each.deletion.lineno, each.use.lineno) for each in gone(Index(ast.parse(text)))]


@pytest.mark.parametrize(
    ("body", "places"),
    [
        ("del model\nmodel.train()", (2, 3)),
        ("del model\ndel model", (2, 3)),
        ("if flag:\n    del model\nif other:\n    del model", (3, 5)),
        ("if flag:\n    del model\nif flag:\n    model.train()", (3, 5)),
        ("for each in tokens:\n    del model\n    print(model)", (3, 4)),
        ("del model, tokens\nif flag:\n    print(tokens)", (2, 4)),
        ("with flag:\n    del model\nprint(model)", (3, 4)),
    ],
)
def test_what_is_gone_cannot_be_used(body: str, places: tuple[int, int]) -> None:
    [(_, *lines)] = found(body)
    assert tuple(lines) == places


@pytest.mark.parametrize(
    "body",
    [
        "del model\nmodel = load()\nmodel.train()",
        "del model\nif flag:\n    model = load()\nmodel.train()",
        "del model\nfor model in tokens:\n    print(model)",
        "del model\nimport model\nprint(model)",
        "del model\ndef model():\n    pass\nprint(model)",
        "if flag:\n    del model\nelse:\n    model.train()",
        "if flag:\n    del model\nif not flag:\n    model.train()",
        "if flag:\n    del model\n    return\nmodel.train()",
        "if flag:\n    del model\n    sys.exit(1)\nmodel.train()",
        "for each in tokens:\n    if flag:\n        del model\n        break\n    model.train()",
        "try:\n    del model\nexcept NameError:\n    print(model)",
        "match flag:\n    case 1:\n        del model\n    case 2:\n        print(model)",
        "del model\nif 'model' in locals():\n    print(model)",
        "global model\ndel model\nload()\nprint(model)",
        "del model\ndef later():\n    return model",
        "del model.weight\nprint(model)",
        "del tokens[0]\nprint(tokens)",
        "model.train()\ndel model",
        # Names of their own.
        "del model\nprint([model for model in tokens])",
        "del model\nprint(sorted(tokens, key=lambda model: model))",
        # Bound again by what is called.
        "def load():\n    nonlocal model\n    model = 1\ndel model\nload()\nprint(model)",
        # The condition is another one by then.
        "if flag:\n    del model\n    flag = False\nif flag:\n    model.train()",
        "if flag:\n    del model\n    other = None\nif other:\n    model.train()",
        "if flag.on:\n    del model\n    flag.on = False\nif flag.on:\n    model.train()",
    ],
)
def test_what_may_be_there_again_is_no_error(body: str) -> None:
    assert found(body) == []


@pytest.mark.parametrize(
    "text",
    [
        "model = 1\ndel model\nexec('model = 2')\nprint(model)\n",
        "def load():\n    global model\n    model = 2\nmodel = 1\ndel model\nload()\nprint(model)\n",
    ],
)
def test_a_name_of_the_module_may_be_bound_from_elsewhere(text: str) -> None:
    assert [*gone(Index(ast.parse(text)))] == []
    assert [*gone(Index(ast.parse("model = 1\ndel model\nprint(model)\n")))]
