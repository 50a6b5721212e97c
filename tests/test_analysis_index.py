"""The index of a syntax tree: types, parents, functions, names."""

from __future__ import annotations

import ast
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.index import Index, descend, dotted, imported_names, last_name, own_nodes

SOURCE = textwrap.dedent(
    """
    import torch.nn.functional as F
    import os.path
    from base64 import b85decode as unpack
    class Model(nn.Module):
        def forward(self, x, *, scale=1):
            def inner(y):
                return F.relu(y)
            return inner(x) * scale
    def main():
        model = Model()
        model.forward(1)
    main()
    """
)


@pytest.fixture
def index() -> Index:
    return Index(ast.parse(SOURCE))


def test_functions_and_classes_have_qualified_names(index: Index) -> None:
    assert list(index.classes) == ["Model"]
    assert {name: found.owner for name, found in index.functions.items()} == {
        "Model.forward": "Model",
        "Model.forward.inner": "",
        "main": "",
    }
    assert index.functions["Model.forward"].parameters == ("self", "x", "scale")


def test_a_node_knows_its_function_and_statement(index: Index) -> None:
    relu, inner, *_ = index.calls_of("relu", "inner")
    around = index.function_of(relu)
    assert around is not None
    assert around.name == "Model.forward.inner"
    outer = index.function_of(inner)
    assert outer is not None
    assert outer.name == "Model.forward"
    assert isinstance(index.statement_of(inner), ast.Return)
    last = index.calls_of("main")[-1]
    assert index.function_of(last) is None


def test_nodes_come_in_the_order_of_the_text(index: Index) -> None:
    calls = index.of(ast.Call)
    assert calls == sorted(calls, key=lambda call: (call.lineno, call.col_offset))
    assert [last_name(call.func) for call in index.of(ast.Call)] == ["relu", "inner", "Model", "forward", "main"]


def test_own_nodes_leave_out_inner_functions(index: Index) -> None:
    body = index.functions["Model.forward"].node.body
    own = {last_name(node.func) for node in own_nodes(body) if isinstance(node, ast.Call)}
    assert own == {"inner"}


def test_imports_are_resolved(index: Index) -> None:
    assert imported_names(index) == {"F": "torch.nn.functional", "os": "os", "unpack": "base64.b85decode"}


def test_names_of_long_chains_do_not_recurse() -> None:
    chain = "a" + ".b" * 5_000
    assert dotted(_attribute(chain)) == chain
    assert last_name(_attribute(chain)) == "b"


def _attribute(chain: str) -> ast.expr:
    first, *rest = chain.split(".")
    node: ast.expr = ast.Name(first, ast.Load())
    for name in rest:
        node = ast.Attribute(node, name, ast.Load())
    return node


@given(st.sampled_from([SOURCE, "x = 1\n", "", "def f():\n    async def g(): pass\n    class C: pass\n"]))
def test_every_node_but_the_leaves_is_indexed_once(source: str) -> None:
    tree = ast.parse(source)
    index = Index(tree)
    kept = [node for node in ast.walk(tree) if not isinstance(node, (ast.expr_context, ast.operator))]
    indexed = [node for kind in {type(node) for node in kept} for node in index.of(kind)]
    assert sorted(map(id, indexed)) == sorted(map(id, kept))
    assert sorted(map(id, descend(tree))) == sorted(map(id, kept))
