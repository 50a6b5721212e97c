"""From the script's text to running code, with its own path and line numbers; also for text that it runs by `exec`."""

from __future__ import annotations

import ast
import builtins
import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import re
import sys
import types
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .events import channel, refuse, replaced
from .overrides import Overrides

# Flags of `from __future__` that code hands on to what it runs by exec.
FUTURE_FLAGS = 0x1FE0000
FSTRINGS_SINCE = (3, 12)
# Functions that answer what kind of device something is, and something is on.
DEVICE_TYPE, DEVICE_TYPE_OF = "_probe_device_type", "_probe_device_type_of"
_DEVICE = re.compile(r"dev", re.IGNORECASE)


class Sources:
    """Compiles the script, its own modules and the text that it runs.

    Args:
        folder: the script's folder.
        overrides: values to put in.
        parser: parses f-strings of newer Pythons; None: refused.
    """

    def __init__(self, folder: Path, overrides: Overrides, parser: Callable[..., ast.Module] | None) -> None:
        self.folder = folder.resolve()
        self.trees: dict[str, ast.Module] = {}
        self._overrides = overrides
        self._parser = parser
        self._compile = builtins.compile
        self._exec = builtins.exec

    def code(self, text: str | bytes, path: str, flags: int = 0) -> types.CodeType:
        """Compile a program of the script's own."""
        text = _decoded(text)
        tree = self._parsed(text, path, flags)
        self._overrides.apply(tree, path)
        if "triton" in text:
            _Kernels().visit(tree)
        if ".type" in text:
            tree = ast.fix_missing_locations(_DeviceTypes().visit(tree))
        self.trees[path] = tree
        return self._compile(tree, path, "exec", flags=flags, dont_inherit=True)

    def own(self, path: str) -> bool:
        """Whether a code object's file is the submission's."""
        return path in self.trees

    def install(self) -> None:
        """Watch `exec`, `compile` and imports of the script's own modules."""
        put_exec, put_compile = self._wrapped_exec(), self._wrapped_compile()
        builtins.exec = put_exec
        builtins.compile = put_compile
        sys.meta_path.insert(0, _Finder(self))

    def _parsed(self, text: str, path: str, flags: int) -> ast.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return self._compile(text, path, "exec", flags=flags | ast.PyCF_ONLY_AST, dont_inherit=True)
            except SyntaxError as error:
                if sys.version_info >= FSTRINGS_SINCE or "f-string" not in str(error):
                    raise
                return self._newer(text, path, error)

    def _newer(self, text: str, path: str, error: SyntaxError) -> ast.Module:
        if self._parser is None:
            raise refuse(
                "f-strings of Python 3.12", f"{path}:{error.lineno}: run the probe with Python 3.12 or later"
            ) from error
        replaced("f-strings of Python 3.12", f"rewritten for Python {sys.version_info[0]}.{sys.version_info[1]}")
        return self._parser(text, ast.parse)

    def _inner(self, text: Any, caller: types.FrameType) -> types.CodeType:
        path = f"<unpacked {sum(name.startswith('<unpacked') for name in self.trees) + 1}>"
        text = _decoded(text)
        linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
        code = self.code(text, path, caller.f_code.co_flags & FUTURE_FLAGS)
        channel().emit("unpacked", path=path, characters=len(text), by=caller.f_code.co_filename, line=caller.f_lineno)
        return code

    def _wrapped_exec(self) -> Callable[..., None]:
        real = self._exec

        def exec(source: Any, globals: Any = None, locals: Any = None, /, **keywords: Any) -> None:
            caller = sys._getframe(1)
            if globals is None:
                globals = caller.f_globals
                locals = caller.f_locals if locals is None else locals
            if isinstance(source, (str, bytes, bytearray)) and self.own(caller.f_code.co_filename):
                source = self._inner(source, caller)
            elif isinstance(source, (str, bytes, bytearray)):
                source = self._compile(source, "<string>", "exec", caller.f_code.co_flags & FUTURE_FLAGS, True)
            real(source, globals, globals if locals is None else locals, **keywords)

        return exec

    def _wrapped_compile(self) -> Callable[..., Any]:
        real = self._compile

        def compile(
            source: Any,
            filename: Any,
            mode: str,
            flags: int = 0,
            dont_inherit: bool = False,
            *rest: Any,
            **keywords: Any,
        ) -> Any:
            caller = sys._getframe(1)
            text = isinstance(source, (str, bytes, bytearray))
            if text and mode == "exec" and not flags & ast.PyCF_ONLY_AST and self.own(caller.f_code.co_filename):
                return self._inner(source, caller)
            if not dont_inherit:
                flags |= caller.f_code.co_flags & FUTURE_FLAGS
            return real(source, filename, mode, flags, True, *rest, **keywords)

        return compile


class _Finder(importlib.abc.MetaPathFinder):
    """Finds modules in the script's folder, whose text is compiled like the script's."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            return None
        if not Path(spec.origin).resolve().is_relative_to(self._sources.folder):
            return None
        loader = _Loader(name, spec.origin)
        loader.sources = self._sources
        return importlib.util.spec_from_file_location(
            name, spec.origin, loader=loader, submodule_search_locations=spec.submodule_search_locations
        )


class _Loader(importlib.machinery.SourceFileLoader):
    sources: Sources

    def get_code(self, fullname: str) -> types.CodeType:
        path = self.get_filename(fullname)
        return self.sources.code(self.get_data(path), path)


class _DeviceTypes(ast.NodeTransformer):
    """`x.type` and `x.device.type` ask a stand-in: of a device that takes the place of a GPU, torch says "cpu"."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if node.attr != "type" or not isinstance(node.ctx, ast.Load):
            return node
        of_tensor = isinstance(node.value, ast.Attribute) and node.value.attr == "device"
        # Of anything else the script's own line has to raise what it raises.
        if not of_tensor and not _DEVICE.search(ast.unparse(node.value)):
            return node
        name = DEVICE_TYPE_OF if of_tensor else DEVICE_TYPE
        asked = node.value.value if isinstance(node.value, ast.Attribute) and of_tensor else node.value
        return ast.copy_location(ast.Call(ast.Name(name, ast.Load()), [asked], []), node)

    def visit_match_case(self, node: ast.match_case) -> ast.AST:
        # Patterns hold no calls.
        node.guard = self.visit(node.guard) if node.guard is not None else None
        node.body = [self.visit(each) for each in node.body]
        return node


class _Kernels(ast.NodeTransformer):
    """In kernels `a += b` makes a new value; on tensors it would change what others hold too."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if any("jit" in ast.unparse(decorator) for decorator in node.decorator_list):
            return _Values().visit(node)
        return self.generic_visit(node)


class _Values(ast.NodeTransformer):
    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        if not isinstance(node.target, ast.Name):
            return node
        operand = ast.copy_location(ast.Name(node.target.id, ast.Load()), node.target)
        value = ast.copy_location(ast.BinOp(operand, node.op, node.value), node)
        return ast.copy_location(ast.Assign([node.target], value), node)


def _decoded(text: str | bytes | bytearray) -> str:
    return text if isinstance(text, str) else importlib.util.decode_source(bytes(text))


def newer_parser(folder: str) -> Callable[..., ast.Module] | None:
    """The parser of newer f-strings, from the files of a folder; None where there are none."""
    if not folder or not (Path(folder) / "fstrings.py").is_file():
        return None
    names = ("textlines", "fstrings")
    # The files import each other by the names that they have in their own package.
    for package in ("harness", "harness.sources"):
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__path__ = []
    try:
        for name in names:
            spec = importlib.util.spec_from_file_location(f"harness.sources.{name}", Path(folder) / f"{name}.py")
            if spec is None or spec.loader is None:
                return None
            loaded = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = loaded
            spec.loader.exec_module(loaded)
        return sys.modules["harness.sources.fstrings"].parse_newer
    finally:
        for name in ("harness", "harness.sources", *(f"harness.sources.{name}" for name in names)):
            sys.modules.pop(name, None)
