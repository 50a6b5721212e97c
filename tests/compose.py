"""Builds record folders for the probe's tests from one small script and what each case changes of it."""

from __future__ import annotations

import ast
import base64
import json
import lzma
from dataclasses import dataclass
from pathlib import Path

CASES = Path(__file__).parent / "probe_cases"
COMMAND = "ITERATIONS=40 TRAIN_SEQ_LEN=64 torchrun --standalone --nproc_per_node=8 train_gpt.py"
README = f"# {{title}}\n\n**val_bpb: 1.2345**\n\n```\n{COMMAND}\n```\n"
DISGUISES = ("plain", "renamed", "packed", "helper")
STATEMENTS = (ast.FunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Case:
    """One script: `name` says what it is about, `kind` is legal, illegal or broken."""

    name: str
    kind: str

    @property
    def path(self) -> Path:
        return CASES / self.name / f"{self.kind}.py"

    def __str__(self) -> str:
        return f"{self.name}-{self.kind}"


def every_case(*kinds: str) -> list[Case]:
    return [Case(path.parent.name, path.stem) for path in sorted(CASES.glob("*/*.py")) if path.stem in kinds]


def compose(case: Case) -> str:
    """Return the base script with the case's definitions in place of those of the same name."""
    base, piece = (ast.parse(path.read_text(encoding="utf-8")) for path in (CASES / "base.py", case.path))
    changed = {node.name: node for node in piece.body if isinstance(node, STATEMENTS)}
    known = {node.name for node in base.body if isinstance(node, STATEMENTS)}
    extra = [node for node in piece.body[1:] if not (isinstance(node, STATEMENTS) and node.name in known)]
    body = [changed.get(node.name, node) if isinstance(node, STATEMENTS) else node for node in base.body]
    body[0] = piece.body[0]
    # What is new stands before the first definition of the base script, after its imports.
    first = next(index for index, node in enumerate(body) if isinstance(node, STATEMENTS))
    base.body = [*body[:first], *(node for node in extra if _is_import(node)), *body[first:]]
    last = len(base.body) - 2
    base.body[last:last] = [node for node in extra if not _is_import(node)]
    return ast.unparse(ast.fix_missing_locations(base)) + "\n"


def _is_import(node: ast.stmt) -> bool:
    return isinstance(node, (ast.Import, ast.ImportFrom))


def write_folder(case: Case, folder: Path, disguise: str = "plain") -> Path:
    """Write the case as a record folder and return it.

    Args:
        case: which script.
        folder: where; it must not exist.
        disguise: plain; renamed: every name of its own is another; packed: compressed inside `exec`; helper: all but
            the main function stands in a module beside the script.
    """
    folder.mkdir(parents=True)
    files = {"train_gpt.py": compose(case)}
    if disguise == "renamed":
        files = {"train_gpt.py": renamed(files["train_gpt.py"])}
    elif disguise == "packed":
        files = {"train_gpt.py": packed(files["train_gpt.py"])}
    elif disguise == "helper":
        files = with_helper(files["train_gpt.py"])
    manifest = {
        "name": str(case),
        "author": "Somebody",
        "github_id": "somebody",
        "date": "2026-04-01",
        "val_bpb": 1.2345,
    }
    files |= {"README.md": README.format(title=case), "submission.json": json.dumps(manifest, indent=2) + "\n"}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def packed(source: str) -> str:
    body = base64.b85encode(lzma.compress(source.encode())).decode()
    return f"import base64, lzma\nexec(lzma.decompress(base64.b85decode({body!r})))\n"


def with_helper(source: str) -> dict[str, str]:
    """Move all but `main` and its call into a module."""
    tree = ast.parse(source)
    ours = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    rest = [node for node in tree.body if node not in ours and node is not tree.body[-1]]
    imports = [node for node in rest if _is_import(node)]
    script = ast.Module([*imports, ast.parse("from pieces_of_it import *").body[0], *ours, tree.body[-1]], [])
    return {"pieces_of_it.py": ast.unparse(ast.Module(rest, [])) + "\n", "train_gpt.py": ast.unparse(script) + "\n"}


def renamed(source: str) -> str:
    """Give every function, argument and variable of the script's own another name; attributes keep theirs."""
    tree = ast.parse(source)
    own = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        elif isinstance(node, ast.arg):
            own.add(node.arg)
    for node in ast.walk(tree):
        # Class bodies keep their names, methods too: they are attributes.
        if isinstance(node, ast.ClassDef):
            own -= {stmt.name for stmt in node.body if isinstance(stmt, ast.FunctionDef)}
            own -= {
                name.id
                for stmt in node.body
                for name in ast.walk(stmt)
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store) and isinstance(stmt, ast.Assign)
            }
    names = {name: f"q{index}" for index, name in enumerate(sorted(own - {"self"}))}
    return ast.unparse(_Renamer(names).visit(tree)) + "\n"


class _Renamer(ast.NodeTransformer):
    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = self.names.get(node.id, node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.arg = self.names.get(node.arg, node.arg)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.name = self.names.get(node.name, node.name)
        return self.generic_visit(node)
