"""The names of the training script and of the own modules that it imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace

from harness.analysis.arguments import bad_calls
from harness.analysis.attributes import Attributes
from harness.analysis.certain import Reach as CodeReach
from harness.analysis.deleted import gone
from harness.analysis.index import Index
from harness.analysis.scopes import NAME_ERRORS, Scopes, binds_unseen, caught, certainly_unbound, in_annotation
from harness.facts.code import Code, CodeBase
from harness.facts.names import CodeError, NamesFacts, Reach
from harness.model import Located, Missing


def build_names(code: CodeBase) -> NamesFacts:
    """The facts about names; with a reason where the training script is unknown or does not parse."""
    main = code.main
    if main is None:
        known = code.entry in code.scripts
        reason = f"{code.entry} was not parsed" if known else "the training script is not known"
        return NamesFacts(unread=Missing(reason))
    looked_at = list(own_modules(code))
    each = [_Looked(one, is_entry=one is main) for one in looked_at if one.parses]
    unread = [one.script.path for one in looked_at if not one.parses]
    return NamesFacts(
        scripts=tuple(one.code.script.path for one in each),
        unread=Missing(f"{unread[0]} was not parsed") if unread else None,
        unseen=next((one.unseen for one in each if one.unseen is not None), None),
        undefined=tuple(error for one in each for error in _once(one.undefined())),
        unbound=tuple(error for one in each for error in _once(one.unbound())),
        attributes=tuple(error for one in each for error in _once(one.attributes())),
        calls=tuple(error for one in each for error in _once(one.calls())),
    )


def own_modules(code: CodeBase) -> Iterator[Code]:
    """The training script and the scripts of the folder that it imports, directly or through others."""
    stems = {path.rpartition("/")[2].removesuffix(".py"): path for path in code.scripts}
    seen, queue = {code.entry}, [code.entry]
    while queue:
        one = code.scripts[queue.pop(0)]
        yield one
        for name in _imported(one.index):
            path = stems.get(name)
            if path is not None and path not in seen:
                seen.add(path)
                queue.append(path)


def _imported(index: Index) -> Iterator[str]:
    for plain in index.each(ast.Import):
        yield from (part for alias in plain.names for part in alias.name.split("."))
    for source in index.each(ast.ImportFrom):
        yield from (source.module or "").split(".")
        yield from (alias.name for alias in source.names)


class _Looked:
    """One script, looked at."""

    def __init__(self, code: Code, *, is_entry: bool) -> None:
        self.code = code
        self._is_entry = is_entry
        self._scopes = Scopes(code.index)
        self._reach = CodeReach(code.index)
        clause = binds_unseen(code.index) if self._scopes.undefined else ""
        self.unseen = Located(clause, code.at(1)) if clause else None

    def undefined(self) -> Iterator[Located[CodeError]]:
        for node in sorted(self._scopes.undefined, key=lambda node: node.lineno):
            index = self.code.index
            if self._is_outer(node.id) or caught(index, node, NAME_ERRORS) or in_annotation(index, node):
                continue
            yield self._error(node, node.id, "is defined nowhere")

    def unbound(self) -> Iterator[Located[CodeError]]:
        for node in sorted(self._scopes.early, key=lambda node: node.lineno):
            if certainly_unbound(self._scopes, node) and not caught(self.code.index, node, NAME_ERRORS):
                yield self._error(node, node.id, "is read before anything is assigned to it")
        for use, deletion in gone(self.code.index):
            if not caught(self.code.index, use, NAME_ERRORS):
                yield self._gone(use, deletion)

    def _gone(self, use: ast.Name, deletion: ast.Name) -> Located[CodeError]:
        """A use of what is deleted before; certain only where both are."""
        verb = "deleted again" if isinstance(use.ctx, ast.Del) else "read"
        found = self._error(use, use.id, f"is {verb} after line {deletion.lineno} has deleted it")
        certain = found.value.reach is Reach.CERTAIN and self._reach_of(deletion) is not Reach.CERTAIN
        return Located(replace(found.value, reach=Reach.POSSIBLE), found.location) if certain else found

    def attributes(self) -> Iterator[Located[CodeError]]:
        found = Attributes(self.code.index)
        for node in found.never_set:
            owner = found.owner(node).name
            yield self._error(node, f"{owner}.{node.attr}", "is read on self and set nowhere")

    def calls(self) -> Iterator[Located[CodeError]]:
        for bad in bad_calls(self.code.index, self._scopes):
            name = ast.unparse(bad.call.func)
            problem = f"is called with {bad.problem} (defined in line {bad.definition.lineno})"
            yield self._error(bad.call, name, problem)

    def _is_outer(self, name: str) -> bool:
        """Whether a packing layer around the script mentions the name: what it binds, the script sees."""
        return any(re.search(rf"\b{re.escape(name)}\b", text) for text in self.code.script.texts[:-1])

    def _error(self, node: ast.expr, subject: str, problem: str) -> Located[CodeError]:
        return Located(CodeError(subject, problem, self._reach_of(node)), self.code.at(node.lineno))

    def _reach_of(self, node: ast.expr) -> Reach:
        if self._reach.is_certain(node):
            return Reach.CERTAIN
        # What a module defines for others is reached from outside.
        return Reach.POSSIBLE if not self._is_entry or self._reach.is_reached(node) else Reach.DEAD


def _once(errors: Iterator[Located[CodeError]]) -> list[Located[CodeError]]:
    """Each subject and problem once, at the place that a run is surest to come by."""
    order = list(Reach)
    best: dict[tuple[str, str], Located[CodeError]] = {}
    for error in errors:
        key = (error.value.subject, error.value.problem)
        if key not in best or order.index(error.value.reach) < order.index(best[key].value.reach):
            best[key] = error
    return list(best.values())
