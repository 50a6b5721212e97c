"""Python scripts of a folder, parsed and never executed: syntax, own imports, environment keys."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from harness.sources.payloadvalues import ReadFile
from harness.sources.pythontext import SourceText, unix
from harness.sources.textlines import lines_with, nodes_on, touches
from harness.sources.unwrap import PARSED_LIMIT_CHARACTERS, Unpacked, unwrap

# Packages that submissions install, by import name; anything else that is neither in the standard library nor in
# the folder is taken for a module of the submission's own that was not shipped.
_KNOWN_PACKAGES = """
    accelerate aiohttp apex apache_tvm bitsandbytes boto3 botocore brotli brotlicffi causal_conv1d cffi constriction
    cupy cut_cross_entropy cutlass Cython datasets deepspeed einops fire fla flash_attn flash_attn_2_cuda flash_attn_3
    flash_attn_interface flashinfer gram_newton_schulz gguf heavyball hqq huggingface_hub hydra hypothesis IPython
    jax jaxlib joblib kernels lightning liger_kernel lion_pytorch llvmlite loguru lz4 mamba_ssm mambapy matplotlib mlx
    modal msgpack mup muon networkx ninja numba numpy nvidia nvitop omegaconf onnx onnxruntime opt_einsum optuna
    orjson packaging pandas peft PIL pkg_resources plotly polars psutil py7zr pyarrow pybind11 pydantic pynvml
    pytest pytorch_lightning pytorch_optimizer python_minifier ray regex requests rich safetensors schedulefree
    scipy seaborn selective_scan_cuda sentencepiece setuptools sklearn sympy tabulate tensorboard tensordict
    tensorflow termcolor threadpoolctl tiktoken tokenizers toml torch torch_xla torchao torchaudio torchinfo
    torchvision tornado tqdm transformer_engine transformers triton typer typing_extensions ujson wandb xformers
    xgboost xxhash yaml zstandard zstd
"""
HELPER_LIMIT_LINES = 12

_NOTHING = ast.Module([], [])
_NEWER_SYNTAX = re.compile(
    r"""(?<![\w])(?:[tT][rR]?|[rR][tT])["']|^\s*type\s+\w+|^\s*(?:async\s+)?(?:def|class)\s+\w+\s*\["""
    r"|^\s*except\*?\s+[\w.]+\s*,|^\s*lazy\s"
)
_ENVIRONMENT_CALL = re.compile(
    r"""(?:environ\.get|getenv|_e|env)\(\s*["']([A-Za-z_]\w{0,80})["']\s*(?:,\s*(?:["']([^"'\\]{0,300})["']|([-\w.]{1,40}))\s*[,)])?"""
)


@dataclass(frozen=True, slots=True)
class ParsedScript:
    """What the syntax of one script shows.

    Attributes:
        path: relative path.
        size_bytes: bytes as shipped.
        layers: unpacking layers, outermost first.
        texts: the text as shipped and after each unpacking.
        unpacking_line: line of the shipped text that unpacks it.
        syntax_error: why it does not parse, or "".
        error_line: line of the error, in the unpacked text.
        undecided: True when a newer Python might parse it, or when it could not be unpacked.
        newer: True when it parses, and only in a Python later than the running one.
        imports: (top-level name, line) of each import that is guarded neither by `try` nor by `if`.
        environment: (key, literal default or None, line) in order of appearance.
        tree: the syntax tree of the innermost text; empty where it does not parse.
    """

    path: str
    size_bytes: int
    layers: tuple[str, ...]
    texts: tuple[str, ...]
    unpacking_line: int | None
    syntax_error: str
    error_line: int | None
    undecided: bool
    imports: tuple[tuple[str, int], ...]
    environment: tuple[tuple[str, str | None, int], ...]
    tree: ast.Module = field(repr=False, compare=False)
    newer: bool = False

    @property
    def text(self) -> str:
        """The innermost text."""
        return self.texts[-1]

    @property
    def layer(self) -> str:
        """The unpacking layers as a location names them: `lzma(base85)`."""
        name = ""
        for layer in self.layers:
            name = f"{layer}({name})" if name else layer
        return name


def read(path: str, text: str | SourceText, size_bytes: int, read_file: ReadFile) -> ParsedScript:
    """Parse one script.

    Args:
        path: relative path.
        text: its text as shipped, with what is wrong with its bytes where they are known.
        size_bytes: its size on disk.
        read_file: a file by its path from the script's directory, or None; packed scripts may run one.
    """
    source = text if isinstance(text, SourceText) else SourceText(unix(text))
    text = source.text
    if len(text) > PARSED_LIMIT_CHARACTERS:
        unpacked = Unpacked(text, (), (text,), None, f"longer than {PARSED_LIMIT_CHARACTERS:,} characters", _NOTHING)
    else:
        unpacked = unwrap(text, path.rpartition("/")[2], read_file)
    problem, line, undecided = unpacked.problem, unpacked.line if unpacked.problem else None, bool(unpacked.problem)
    tree = _NOTHING
    if isinstance(unpacked.module, ast.Module):
        tree = unpacked.module
    else:
        problem, line = _clause(unpacked.module), unpacked.module.lineno
        undecided = could_be_newer_syntax(unpacked.text, unpacked.module)
    if not problem and not text.strip() and not path.endswith("__init__.py"):
        problem, line = "the file is empty", 1
    if source.problem:
        problem, line, undecided = source.problem, source.line, source.undecided
    return ParsedScript(
        path=path,
        size_bytes=size_bytes,
        layers=unpacked.layers,
        texts=unpacked.texts,
        unpacking_line=unpacked.line,
        syntax_error=problem,
        error_line=line,
        undecided=undecided,
        imports=tuple(_imports(tree, lines_with(unpacked.text, ("import",)))),
        environment=tuple(_environment(tree, unpacked.text) if tree.body else _environment_by_text(unpacked.text)),
        tree=tree,
        newer=unpacked.newer,
    )


def missing_modules(script: ParsedScript, shipped: Collection[str]) -> list[tuple[str, int]]:
    """Imports of modules that are neither standard, nor known packages, nor shipped beside the script.

    Args:
        script: the parsed script.
        shipped: relative paths of the folder's files.
    """
    known = frozenset(_KNOWN_PACKAGES.split())
    own = {part for path in shipped for part in _module_names(path)}
    return [
        (name, line)
        for name, line in script.imports
        if name not in sys.stdlib_module_names and name not in known and name not in own
    ]


def could_be_newer_syntax(text: str, error: SyntaxError) -> bool:
    """Whether a later Python than the running one might accept what failed here.

    `type` statements and type parameters (3.12), t-strings and unparenthesized `except` (3.14) are the known cases;
    f-strings of 3.12 are read by `fstrings`. An error on a line with none of them, such as a table that was pasted
    into the file, is an error in every version. A string that never ends may be the late effect of a t-string.
    """
    message = error.msg or ""
    lines = text.split("\n")
    if "unterminated" in message or "EOF" in message:
        return any(_NEWER_SYNTAX.search(line) for line in lines[: error.lineno or len(lines)])
    first = max((error.lineno or 1) - 1, 0)
    last = max(error.end_lineno or error.lineno or 1, first + 1)
    return any(_NEWER_SYNTAX.search(line) for line in lines[first:last])


def _clause(error: SyntaxError) -> str:
    return (error.msg or "invalid syntax")[:120]


def _module_names(path: str) -> list[str]:
    """Import names under which a shipped file can be reached: its stem, or its top folder."""
    head, _, tail = path.partition("/")
    stem = path.rpartition("/")[2].partition(".")[0]
    names = [stem] if path.endswith((".py", ".so", ".pyd")) else []
    return [*names, head] if tail and path.endswith(".py") else names


def _imports(tree: ast.Module, lines: list[int]) -> Iterator[tuple[str, int]]:
    """Imports that must succeed: neither in a `try` nor under a condition; they stand on some of the lines."""
    stack: list[ast.AST] = [tree]
    found: list[tuple[str, int]] = []
    while stack:
        node = stack.pop()
        found += _imported(node)
        stack += [each for each in _must_run(node) if touches(each, lines)]
    seen: set[str] = set()
    for name, line in sorted(found, key=lambda item: item[1]):
        if name not in seen:
            seen.add(name)
            yield name, line


def _imported(node: ast.AST) -> list[tuple[str, int]]:
    if isinstance(node, ast.Import):
        return [(alias.name.partition(".")[0], node.lineno) for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and node.level <= 1:
        return [(node.module.partition(".")[0], node.lineno)]
    return []


def _must_run(node: ast.AST) -> list[ast.AST]:
    """The statements inside a statement that run in every run, and whose failure would end the script."""
    if isinstance(node, ast.Try) and node.handlers:
        return [*node.orelse, *node.finalbody]
    if isinstance(node, ast.If) and not _is_main_guard(node.test):
        return []
    return [
        child
        for name in ("body", "orelse", "finalbody", "cases")
        for child in getattr(node, name, None) or ()
        if isinstance(child, (ast.stmt, ast.match_case))
    ]


_GETTERS = frozenset({"os.environ.get", "environ.get", "os.getenv", "getenv", "os.environ.setdefault"})
_MENTIONS = ("environ", "getenv")
_ENVIRONMENT_NODES = (ast.FunctionDef, ast.Subscript, ast.Call)


def _is_main_guard(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"


def _environment(tree: ast.Module, text: str) -> Iterator[tuple[str, str | None, int]]:
    """Environment keys with literal defaults, through helper functions of the script's own too."""
    nodes = nodes_on(tree, lines_with(text, _MENTIONS), _ENVIRONMENT_NODES)
    helpers = {node.name for node in nodes if isinstance(node, ast.FunctionDef) and _is_environment_helper(node)}
    if helpers:
        lines = lines_with(text, (*_MENTIONS, *(f"{name}(" for name in helpers)))
        nodes = nodes_on(tree, lines, _ENVIRONMENT_NODES)
    for node in nodes:
        if isinstance(node, ast.Subscript) and _dotted(node.value) in {"os.environ", "environ"}:
            if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
                yield node.slice.value, None, node.lineno
        elif isinstance(node, ast.Call) and (_dotted(node.func) in _GETTERS or _dotted(node.func) in helpers):
            key = node.args[0] if node.args else None
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield key.value, _default(node), node.lineno


def _is_environment_helper(function: ast.FunctionDef) -> bool:
    """Whether a short function looks up its first parameter in the environment."""
    if not function.args.args or (function.end_lineno or 0) - function.lineno > HELPER_LIMIT_LINES:
        return False
    first = function.args.args[0].arg
    return any(
        isinstance(node, ast.Call)
        and _dotted(node.func) in _GETTERS
        and bool(node.args)
        and isinstance(node.args[0], ast.Name)
        and node.args[0].id == first
        for node in ast.walk(function)
    )


def _default(call: ast.Call) -> str | None:
    node = call.args[1] if len(call.args) > 1 else None
    for keyword in call.keywords:
        if keyword.arg == "default":
            node = keyword.value
    try:
        # Mostly a constant; `literal_eval` leaves a circle of functions behind.
        value = node.value if isinstance(node, ast.Constant) else ast.literal_eval(node) if node is not None else None
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return None if value is None else str(value)[:500]


def _dotted(node: ast.expr) -> str:
    """The dotted name that an expression is, or ""; chains can be too long for recursion."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else ""


def _environment_by_text(text: str) -> Iterator[tuple[str, str | None, int]]:
    """The same from text, for scripts in a syntax newer than the running Python's."""
    for number, line in enumerate(text.split("\n"), start=1):
        for match in _ENVIRONMENT_CALL.finditer(line):
            default = match[2] if match[2] is not None else match[3]
            yield match[1], default, number
