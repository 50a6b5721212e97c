"""What a program reaches outside itself: the network, other programs, code made at run time."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from harness.analysis.index import dotted, last_name
from harness.analysis.program import Module, Program
from harness.analysis.reach import Life, Reach
from harness.model import Location

_NETWORK = re.compile(
    r"(?:urllib\.request|requests|httpx|aiohttp|http\.client|socket|ftplib|boto3|wandb)\."
    r"(?:urlopen|urlretrieve|get|post|put|request|Session|ClientSession|HTTPS?Connection|socket|create_connection|init"
    r"|client|FTP)|huggingface_hub\.|(?:^|\.)(?:hf_hub_download|snapshot_download|urlretrieve|load_dataset)$"
)
_PROGRAMS = re.compile(r"^(?:subprocess\.\w+|os\.(?:system|popen|exec\w*|spawn\w*)|pty\.spawn)$")
_LAST_NAMES = re.compile(
    r"urlopen|urlretrieve|get|post|put|request|Session|ClientSession|HTTPS?Connection|socket|create_connection|init"
    r"|client|FTP|hf_\w+|snapshot_download|load_dataset|run|call|check_\w+|Popen|getoutput|getstatusoutput|system|popen"
    r"|exec\w*|spawn\w*|login|upload_\w+|HfApi"
)
_DYNAMIC = frozenset({"exec", "eval", "compile", "__import__"})
_COMPILER = re.compile(r"(?:\S*/)?(?:[\w.]+-)*(?:gcc|g\+\+|cc|c\+\+|clang(?:\+\+)?|nvcc|hipcc)(?:-[\d.]+)?")
# Programs that fetch something, by the words of a command; an index that is switched off keeps pip on the machine.
_FETCHES = re.compile(
    r"\b(?:git\s+(?:-\S+\s+(?:\S+=\S+\s+)?)*(?:clone|fetch|pull|lfs|submodule|ls-remote|push)|curl|wget|aria2c|rsync|scp|gsutil|kaggle"
    r"|aws\s+s3|(?:pip3?|uv)\s+(?:\S+\s+){0,3}?(?:install|download|sync)|conda\s+(?:install|create)"
    r"|apt(?:-get)?\s+(?:-\S+\s+)*(?:install|update)|(?:huggingface-cli|hf)\s+(?:download|upload))\b"
)
_OFFLINE = "--no-index"
# Asked by scripts for their own log.
_HARMLESS = re.compile(r"nvidia-smi|git\b|uname|lscpu|hostname|rocm-smi|nvcc|\bfree\b|\bdf\b|\bnumactl\b")
_LIMIT = 40
# From a command's name to its list, to the name of its first word, to that word.
_HOPS = 4


@dataclass(frozen=True, slots=True)
class Contact:
    """One call that leaves the program.

    Attributes:
        kind: `network`, `program`, `compiler` or `dynamic code`.
        name: what is called.
        place: where.
    """

    kind: str
    name: str
    place: Location


def contacts(program: Program, reach: Reach) -> list[Contact]:
    """The calls that leave the program and are not known never to run, in order, at most some."""
    found = [contact for _, _, contact in outside(program, reach)]
    return sorted(found, key=lambda each: (each.place.path, each.place.line or 0))[:_LIMIT]


def outside(program: Program, reach: Reach) -> Iterator[tuple[Module, ast.Call, Contact]]:
    """The same with their nodes, in no particular order."""
    for module in program.modules.values():
        known = {*module.index.names, *module.index.attributes}
        names = [name for name in known if name in _DYNAMIC or _LAST_NAMES.fullmatch(name)]
        for call in module.index.calls_of(*names):
            kind, name = _kind(call, module)
            if kind and reach.of(call, module).life is not Life.DEAD:
                yield module, call, Contact(kind, name, module.at(call.lineno))


def _kind(call: ast.Call, module: Module) -> tuple[str, str]:
    func = call.func
    if isinstance(func, ast.Name) and func.id in _DYNAMIC and not _is_own(func.id, call, module):
        return ("dynamic code", func.id) if not _is_constant(call, module) else ("", "")
    head = dotted(func)
    root = head.partition(".")[0]
    if root not in module.imports:
        return "", ""
    name = module.imports[root] + head[len(root) :]
    if _NETWORK.search(name):
        return "network", name
    if _PROGRAMS.match(name) and last_name(func) not in {"list2cmdline", "TimeoutExpired", "CalledProcessError"}:
        return _started(call, name, module)
    return "", ""


def _is_own(name: str, call: ast.Call, module: Module) -> bool:
    """Whether a name is the script's own, or imported: no function of Python."""
    defined = name in module.imports or name in module.functions_named
    return defined or module.scope_of(call).holder(name) is not None


def _started(call: ast.Call, name: str, module: Module) -> tuple[str, str]:
    """What a call that starts a program reaches, by the words of its command."""
    words = _words(call, module)
    fetching = _FETCHES.search(words)
    if fetching is not None and _OFFLINE not in words:
        return "network", f"{name} (`{' '.join(fetching[0].split())}`)"
    # Of a command that has a name of its own, the program alone: anything may stand among its options.
    first = _first_word(call, module)
    if _HARMLESS.search(first if isinstance(call.args[0] if call.args else None, ast.Name) else words):
        return "", ""
    return ("compiler", first) if _COMPILER.fullmatch(first) else ("program", name)


def _first_word(call: ast.Call, module: Module) -> str:
    """The program that a command starts where the text tells it: names are followed to the one value they have."""
    node: ast.expr | None = call.args[0] if call.args else None
    for _ in range(_HOPS):
        if isinstance(node, (ast.List, ast.Tuple)):
            node = node.elts[0] if node.elts else None
        elif isinstance(node, ast.Name):
            node = _given(node, call, module)
        else:
            break
    text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
    return (text.split() or [""])[0]


def _given(node: ast.Name, call: ast.Call, module: Module) -> ast.expr | None:
    """The one value that a name has where a call stands."""
    holder = module.scope_of(call).holder(node.id)
    bound = holder.bindings.get(node.id, []) if holder is not None else []
    return bound[0].value if len(bound) == 1 and bound[0].whole else None


def _is_constant(call: ast.Call, module: Module) -> bool:
    """Whether the code is written out: `__import__("os")`, `for name in ("os", "re"): __import__(name)`.

    A text that `exec` gets by its name is code that nothing here reads.
    """
    node = call.args[0] if call.args else None
    if not isinstance(node, ast.Name) or last_name(call.func) != "__import__":
        return isinstance(node, ast.Constant)
    holder = module.scope_of(call).holder(node.id)
    values = [binding.value for binding in holder.bindings.get(node.id, ())] if holder is not None else []
    return bool(values) and all(_is_written_out(value) for value in values)


def _is_written_out(value: ast.expr) -> bool:
    parts = value.elts if isinstance(value, (ast.Tuple, ast.List, ast.Set)) else [value]
    return all(isinstance(part, ast.Constant) for part in parts)


def _words(call: ast.Call, module: Module) -> str:
    """The literal words of a command, that of a name with one value included."""
    command = call.args[0] if call.args else None
    if isinstance(command, ast.Name):
        command = _given(command, call, module)
    nodes = ast.walk(command) if command is not None else ()
    return " ".join(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
