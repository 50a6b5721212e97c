"""Write the package as one self-contained script, because counted code lives in one file.

The modules stand in dependency order in one namespace. That works because they keep three rules, which are checked
here: siblings are imported as `from reference_model.x import name` only, no two modules define one top-level name,
and nothing happens at import but definitions. The output depends on the modules' text and the preset only.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "reference_model"
ENTRY_MODULE = "main"

HEADER = '''\
"""Hymba, attention beside a selective scan: preset {preset}, one file bundled from the package {package} {version}.

Configured by environment variables; start it with `python {script}` or
`torchrun --standalone --nproc_per_node=N {script}`.
"""

from __future__ import annotations

import os

# A thread that spins while it waits takes the core from the one that works. Torch reads this when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

'''

FOOTER = """

if __name__ == "__main__":
    sys.exit(main(os.environ, Path(__file__), preset="{preset}"))
"""


class BundleError(ValueError):
    """The modules cannot stand in one file; the message names the module and line."""


@dataclass(frozen=True)
class Module:
    """One parsed module of the package.

    Attributes:
        name: Without the package, for instance "scan".
        siblings: Modules of the package that it imports, in order of appearance.
        imports: Its other imports, as normalized statements.
        defined: Names that it binds at the top level, with their lines.
        body: Its text without imports, docstring and outer blank lines.
    """

    name: str
    siblings: tuple[str, ...]
    imports: tuple[str, ...]
    defined: Mapping[str, int]
    body: str


def read_module(name: str, text: str) -> Module:
    """Parse one module.

    Raises:
        BundleError: It imports the package other than by `from reference_model.x import name`, or its top level holds
            a statement that is neither a definition nor an import.
    """
    tree = ast.parse(text)
    siblings: list[str] = []
    imports: list[str] = []
    defined: dict[str, int] = {}
    dropped: list[ast.stmt] = []
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            dropped.append(statement)
            sibling = _sibling(name, statement)
            imports.extend([] if sibling else _imports(statement))
            siblings.extend([sibling] if sibling and sibling not in siblings else [])
        elif _is_docstring(statement):
            dropped.append(statement)
        else:
            for bound in _bound_names(name, statement):
                defined[bound] = statement.lineno
    _refuse_nested_siblings(name, tree)
    return Module(name, tuple(siblings), tuple(imports), defined, _without(text, dropped))


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _sibling(module: str, statement: ast.Import | ast.ImportFrom) -> str:
    """The sibling that a statement imports from, "" for anything else."""
    if isinstance(statement, ast.Import):
        if any(alias.name.split(".")[0] == PACKAGE for alias in statement.names):
            raise BundleError(f"{module}.py:{statement.lineno}: import names from {PACKAGE}'s modules, not modules")
        return ""
    source = statement.module or ""
    if statement.level or source == PACKAGE:
        raise BundleError(f"{module}.py:{statement.lineno}: import as `from {PACKAGE}.module import name`")
    if not source.startswith(f"{PACKAGE}."):
        return ""
    if any(alias.asname or alias.name == "*" for alias in statement.names):
        raise BundleError(f"{module}.py:{statement.lineno}: a sibling's names keep their names")
    return source.removeprefix(f"{PACKAGE}.")


def _imports(statement: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """One line per imported name, so that equal imports of several modules are equal text."""
    if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
        return
    for alias in statement.names:
        renamed = f" as {alias.asname}" if alias.asname else ""
        if isinstance(statement, ast.ImportFrom):
            yield f"from {statement.module} import {alias.name}{renamed}"
        else:
            yield f"import {alias.name}{renamed}"


def _bound_names(module: str, statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        yield statement.name
        return
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    for target in targets:
        if not isinstance(target, ast.Name):
            raise BundleError(f"{module}.py:{statement.lineno}: only definitions may stand at the top level")
        yield target.id


def _refuse_nested_siblings(module: str, tree: ast.Module) -> None:
    top = {id(statement) for statement in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in top and _sibling(module, node):
            raise BundleError(f"{module}.py:{node.lineno}: siblings are imported at the top level")


def _without(text: str, statements: Sequence[ast.stmt]) -> str:
    """The text without whole statements; comments stay."""
    lines = text.splitlines()
    gone = {line for s in statements for line in range(s.lineno, (s.end_lineno or s.lineno) + 1)}
    kept = [line for number, line in enumerate(lines, start=1) if number not in gone]
    return "\n".join(kept).strip("\n")


def in_dependency_order(texts: Mapping[str, str], entry: str) -> tuple[Module, ...]:
    """The modules that the entry needs, each after those it imports; the others are not even read.

    Raises:
        BundleError: Modules import each other in a circle, or import one that does not exist; or see `read_module`.
    """
    ordered: dict[str, Module] = {}
    _visit(entry, texts, ordered, ())
    return tuple(ordered.values())


def _visit(name: str, texts: Mapping[str, str], ordered: dict[str, Module], path: tuple[str, ...]) -> None:
    if name in path:
        raise BundleError(f"modules import each other: {' -> '.join((*path, name))}")
    if name not in texts:
        raise BundleError(f"{path[-1] if path else 'the bundle'} needs {PACKAGE}.{name}, which does not exist")
    if name in ordered:
        return
    module = read_module(name, texts[name])
    for sibling in module.siblings:
        _visit(sibling, texts, ordered, (*path, name))
    ordered[name] = module


def _refuse_collisions(modules: Iterable[Module]) -> None:
    owners: dict[str, str] = {}
    for module in modules:
        for name, line in module.defined.items():
            if name in owners:
                raise BundleError(f"{module.name}.py:{line}: {name} is a name of {owners[name]} too")
            owners[name] = module.name


def _merged_imports(modules: Iterable[Module]) -> str:
    """Every import once: the `import x` first, then one `from x import ...` per source, each sorted.

    Raises:
        BundleError: One name would mean two things.
    """
    plain: set[str] = {"import sys"}
    sources: dict[str, set[str]] = {"pathlib": {"Path"}}
    for statement in (line for module in modules for line in module.imports):
        if statement.startswith("import "):
            plain.add(statement)
        else:
            source, name = statement.removeprefix("from ").split(" import ")
            sources.setdefault(source, set()).add(name)
    local: dict[str, str] = {}
    for source, names in sources.items():
        for name in names:
            bound = name.split(" as ")[-1]
            if local.setdefault(bound, source) != source:
                raise BundleError(f"the name {bound} is imported from {local[bound]} and from {source}")
    grouped = [f"from {source} import {', '.join(sorted(names))}" for source, names in sorted(sources.items())]
    return "\n".join([*sorted(plain - {"import os"}), *grouped])


def bundle(texts: Mapping[str, str], preset: str, version: str, script: str = "train_gpt.py") -> str:
    """Concatenate the modules that the entry needs into one script with the preset as its default.

    Args:
        texts: Module name to source text.
        preset: The configuration that the script starts from; the environment changes it.
        version: Of the package, for the header.
        script: The file name, for the header.

    Raises:
        BundleError: See `read_module`, `in_dependency_order`; or two modules define one name.
    """
    result = "".join(text for _, text in script_parts(texts, preset, version, script))
    ast.parse(result)
    return result


def script_parts(
    texts: Mapping[str, str], preset: str, version: str, script: str = "train_gpt.py"
) -> list[tuple[str, str]]:
    """The script in parts: what is before the modules, each module by name, what is behind them; see `bundle`."""
    modules = in_dependency_order(texts, ENTRY_MODULE)
    _refuse_collisions(modules)
    header = HEADER.format(preset=preset, package=PACKAGE, version=version, script=script)
    parts = [("header", header), ("imports", _merged_imports(modules))]
    parts.extend((module.name, f"\n\n\n# --- {module.name} ---\n\n{module.body}") for module in modules if module.body)
    return [*parts, ("footer", "\n" + FOOTER.format(preset=preset))]


def compact(script: str) -> str:
    """The same program without comments and inner docstrings: about a quarter fewer bytes, for tight budgets."""
    tree = ast.parse(script)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and _is_docstring(node.body[0]):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree) + "\n"


def package_texts(folder: Path) -> dict[str, str]:
    """The source of every module in the package's folder."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py")) if path.stem[0] != "_"}
