"""What the statements of a packed script's wrapper are, by their syntax alone."""

from __future__ import annotations

import ast
from collections.abc import Sequence


def leading(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    """The statements before the first function or class: where a wrapper does its work."""
    result: list[ast.stmt] = []
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            break
        result.append(statement)
    return result


def is_named(node: ast.expr, name: str) -> bool:
    """Whether an expression ends in a name: `name` or `module.name`."""
    return (node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")) == name


def is_main_guard(test: ast.expr) -> bool:
    """Whether a condition asks for the name under which the script runs."""
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"


def written_by(node: ast.AST) -> tuple[ast.expr, ast.expr] | None:
    """The file and the text of a statement that writes one, such as `f.write(t)` or `p.write_text(t)`."""
    call = node.value if isinstance(node, ast.Expr) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute) or not call.args:
        return None
    return (call.func.value, call.args[0]) if call.func.attr in {"write", "write_text", "write_bytes"} else None
