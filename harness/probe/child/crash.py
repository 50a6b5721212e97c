"""Whose fault a crash is: a plain error of the script's own, the shim's, or nobody knows."""

from __future__ import annotations

import ast
import builtins
import re
import sys
import traceback
from pathlib import Path
from typing import Any

from .events import TEXT_LIMIT, RefusedError, channel
from .patch import STANDINS
from .source import Sources

FRAMES_LIMIT = 40
# Packages of others that scripts import and that are not installed here.
PACKAGES = frozenset(
    """
    accelerate bitsandbytes causal_conv1d constriction cupy cutlass cut_cross_entropy datasets deepspeed einops fla
    flash_attn huggingface_hub kernels liger_kernel lz4 mamba_ssm matplotlib msgpack numba nvidia optuna pandas peft
    psutil pyarrow pynvml regex requests safetensors scipy sentencepiece sklearn tiktoken tokenizers torchao torchtune
    torchvision tqdm transformer_engine transformers triton wandb xformers xxhash yaml zstandard brotli
    """.split()  # noqa: SIM905 - one word, one package
)
HERE = str(Path(__file__).parent)
_NO_ATTRIBUTE = re.compile(r"'(\w+)' object has no attribute '(\w+)'")
# Words of errors that only a machine without CUDA raises.
_OF_THE_MACHINE = re.compile(r"cuda|nccl|gpu|not implemented for|triton|\bcpu\b|gloo|backend|autocast", re.IGNORECASE)


def report(error: BaseException, sources: Sources) -> str:
    """Emit the crash event; returns the blame: script, shim or unknown."""
    frames = traceback.extract_tb(error.__traceback__)
    blame, reason = _blame(error, frames, sources)
    own = [frame for frame in frames if sources.own(frame.filename)]
    channel().emit(
        "crash",
        type=type(error).__name__,
        message=str(error)[:TEXT_LIMIT],
        blame=blame,
        reason=reason,
        path=own[-1].filename if own else None,
        line=own[-1].lineno if own else None,
        frames=[
            {"path": frame.filename, "line": frame.lineno, "function": frame.name, "text": (frame.line or "")[:200]}
            for frame in frames[-FRAMES_LIMIT:]
            if not frame.filename.startswith(HERE) or frame is frames[-1]
        ],
    )
    return blame


def _blame(error: BaseException, frames: traceback.StackSummary, sources: Sources) -> tuple[str, str]:
    if isinstance(error, RefusedError):
        return "shim", "it asks for something that has no equivalent here"
    if not frames or frames[-1].filename.startswith(HERE):
        return "shim", "raised in the shim"
    place = frames[-1].filename
    if isinstance(error, SyntaxError) and not sources.own(place):
        return "unknown", f"no program of Python {sys.version_info[0]}.{sys.version_info[1]}: {error.msg}"
    if isinstance(error, ModuleNotFoundError):
        return _module(error, sources)
    return _other(error, place, sources)


def _other(error: BaseException, place: str, sources: Sources) -> tuple[str, str]:
    if isinstance(error, FileNotFoundError) and place.endswith("subprocess.py"):
        return "unknown", f"program {error.filename} is not installed here"
    if _OF_THE_MACHINE.search(str(error)):
        return "shim", "the message speaks of the machine"
    if sources.own(place) and isinstance(error, NameError):
        return _name(error, sources)
    if isinstance(error, AttributeError):
        return _attribute(error, sources)
    return "unknown", "possibly caused by the CPU shim or by the miniature configuration"


def _module(error: ModuleNotFoundError, sources: Sources) -> tuple[str, str]:
    root = (error.name or "").partition(".")[0]
    if root in STANDINS:
        return "shim", f"the stand-in for {root} does not hold it"
    if root in PACKAGES:
        return "unknown", f"package {root} is not installed here"
    named = [
        file.name for file in _notes(sources.folder) if re.search(rf"\b{_loose(root)}\b", _read(file), re.IGNORECASE)
    ]
    if named:
        return "unknown", f"module {root} is not installed here; {named[0]} names it"
    return "script", f"module {root} is neither beside the script nor named by its requirements or README"


def _loose(name: str) -> str:
    return re.sub(r"[-_]", "[-_]", re.escape(name).replace("\\-", "-"))


def _notes(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.txt"), *folder.glob("*.md"), *folder.glob("*.toml"), *folder.glob("*.sh")])


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(1 << 20).decode("utf-8", "replace")


def _name(error: NameError, sources: Sources) -> tuple[str, str]:
    name = getattr(error, "name", None)
    if isinstance(error, UnboundLocalError) or not name:
        return "unknown", "a name that this configuration leaves unbound"
    if hasattr(builtins, name) or name in _bound(sources):
        return "unknown", f"{name} is bound elsewhere"
    starred = _starred(sources)
    if starred:
        return "unknown", f"{name} may be a name of {starred}, of which all are imported"
    return "script", f"nothing binds {name}"


def _starred(sources: Sources) -> str:
    """A package of others from which the programs import every name: what stands for it here may hold fewer; or ""."""
    for tree in sources.trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level and node.names[0].name == "*":
                root = node.module.partition(".")[0]
                own = (sources.folder / f"{root}.py").exists() or (sources.folder / root).is_dir()
                if root in STANDINS or not (own or root in sys.stdlib_module_names):
                    return node.module
    return ""


def _attribute(error: AttributeError, sources: Sources) -> tuple[str, str]:
    match = _NO_ATTRIBUTE.search(str(error))
    nodes = (node for tree in sources.trees.values() for node in ast.walk(tree))
    classes = {node.name for node in nodes if isinstance(node, ast.ClassDef)}
    if match is None or match[1] not in classes or not _is_own(error, match[1]):
        return "unknown", "possibly caused by the CPU shim"
    if match[2] in _bound(sources):
        return "unknown", f"{match[2]} is defined in another configuration"
    if _on_standin(error, match[1]):
        return "shim", f"{match[1]} is built on a stand-in, which may lack {match[2]}"
    return "script", f"nothing defines {match[2]} of {match[1]}"


def _on_standin(error: AttributeError, name: str) -> bool:
    """Whether a class of this name inherits what this package made."""
    step, package = error.__traceback__, __name__.rpartition(".")[0]
    while step is not None:
        found = step.tb_frame.f_globals.get(name)
        if isinstance(found, type) and any(base.__module__.startswith(f"{package}.") for base in found.__mro__):
            return True
        step = step.tb_next
    return False


def _is_own(error: AttributeError, name: str) -> bool:
    """Whether the object is of the script's class, where the error tells."""
    holder = getattr(error, "obj", None)
    return holder is None or type(holder).__name__ == name


def _bound(sources: Sources) -> set[str]:
    """Every name, attribute and text of the programs that may give something a name."""
    found: set[str] = set()
    for tree in sources.trees.values():
        for node in ast.walk(tree):
            found.update(_names_of(node))
    return found


def _names_of(node: ast.AST) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.alias):
        return [(node.asname or node.name).partition(".")[0]]
    if isinstance(node, ast.ExceptHandler):
        return [node.name or ""]
    return _stored(node)


def _stored(node: Any) -> list[str]:
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        return [node.id]
    if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
        return [node.attr]
    if isinstance(node, ast.keyword):
        return [node.arg or ""]
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
        return [node.value]
    return []
