"""Which functions make a printed score of validation tokens, and where each one's score is printed."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from harness.analysis.index import Function, descend, last_name, place_of
from harness.analysis.origins import VALIDATION, Labels, Origins, reaching
from harness.analysis.prints import REPORTERS
from harness.analysis.program import Module, Program, Scope
from harness.analysis.reach import Life, Reach
from harness.analysis.reports import Report, label_of, printed, wrapped
from harness.analysis.trace import Tracer, returned

CHAIN_LIMIT = 6


class Reports:
    """The printed scores of a program; remembered."""

    def __init__(self, program: Program, reach: Reach, origins: Origins) -> None:
        self._program = program
        self._reach = reach
        self._origins = origins
        self._tracer = Tracer(program, origins)
        self._known: dict[Scope, list[Report]] = {}
        self._sources: dict[Scope, set[ast.AST]] = {}

    def all(self) -> Iterator[Report]:
        """Every print of a score that the settings do not show to be skipped."""
        for module in self._program.modules.values():
            for function in (None, *module.index.functions.values()):
                reports = self.of(module.scope(function))
                yield from (each for each in reports if not self._reach.skipped(each.node, module))

    def told(self, scope: Scope) -> str:
        """The texts of the prints of what a function returns, or "" where it is not printed by those who call it."""
        sites = self._program.call_sites(scope.function) if scope.function is not None else ()
        return " | ".join(text for module, call, _ in sites for text in self.labels(call, module))

    def scores(self, scope: Scope) -> bool:
        """Whether a function returns what it computed from validation tokens, and that is reported."""
        function = scope.function
        return function is not None and bool(self._returned(function, scope.module)) and self._is_reported(function, 0)

    def _is_reported(self, function: Function, depth: int) -> bool:
        """Whether what a function returns goes into a printed score, of a caller or of those that call that one."""
        for module, call, filled in self._program.call_sites(function):
            scope = module.scope_of(call)
            if filled < 0 or self.labels(call, module) or self._goes_into_report(call, scope):
                return True
            values = {binding.value for binding in self._tracer.trace(returned(scope), scope).bindings}
            handed_on = any(call is each for value in (*values, *returned(scope)) for each in descend(value))
            around = scope.function if handed_on and depth < CHAIN_LIMIT else None
            if around is not None and self._is_reported(around, depth + 1):
                return True
        return False

    def _goes_into_report(self, call: ast.Call, scope: Scope) -> bool:
        """Whether what a call gives is made into a printed score: `bits(total)`."""
        if scope not in self._sources:
            self._sources[scope] = {each for report in self.of(scope) for each in self._made_of(report, scope)}
        return call in self._sources[scope]

    def _made_of(self, report: Report, scope: Scope) -> Iterator[ast.AST]:
        """Every expression that a printed score is made of, inside its function."""
        scored = report.scored
        given = [*scored.args, *(each.value for each in scored.keywords)] if scored is not None else [*report.names]
        values = [binding.value for binding in self._tracer.trace(given, scope).bindings]
        for value in (*given, *values):
            yield from descend(value)

    def labels(self, call: ast.Call, module: Module) -> list[str]:
        """The texts of the prints of what a call gives."""
        return [report.text for report in self.of(module.scope_of(call)) if report.scored is call]

    def _returned(self, function: Function, module: Module) -> Labels:
        labels = self._origins.returned(function, module)
        return frozenset(
            label for label in labels if VALIDATION in {each.kind for each in self._origins.closed(frozenset([label]))}
        )

    def of(self, scope: Scope) -> list[Report]:
        """The places of a function that print a score of validation tokens, in order."""
        if scope not in self._known:
            index = scope.module.index
            own = index.own(index.tree if scope.function is None else scope.function.node)
            calls = sorted((node for node in own if isinstance(node, ast.Call)), key=place_of)
            self._known[scope] = [report for call in calls for report in self._report(call, scope)]
        return self._known[scope]

    def _report(self, call: ast.Call, scope: Scope) -> Iterator[Report]:
        text, names = printed(call, scope)
        if last_name(call.func) not in REPORTERS:
            for told in self._told_by(call, scope):
                yield Report(call, told, call, ())
        elif "bpb" in text.lower():
            scored = tuple(name for name in names if self._tracer.holds_validation(name, scope))
            if scored:
                yield Report(call, text.strip(), self._computed(scored, scope), scored)

    def _told_by(self, call: ast.Call, scope: Scope) -> Iterator[str]:
        """The label and the text with which a function prints a score that a function computes which it is handed."""
        names = [each.id for each in call.args if isinstance(each, ast.Name)]
        handed = [found for name in names for found in self._program.named(name, scope)]
        if not any(self._returned(function, module) for module, function in handed):
            return
        for module, function in self._program.called(call, scope):
            for text in wrapped(function, module):
                yield f"{next(filter(None, map(label_of, call.args)), '')} {text}".strip()

    def _computed(self, names: Sequence[ast.Name], scope: Scope) -> ast.Call | None:
        """The one call of a function of the program that gave every printed name its value."""
        found: list[ast.Call] = []
        for name in names:
            holder = scope.holder(name.id)
            for binding in reaching(name, scope, holder) if holder is scope else ():
                value = binding.value
                if self._reach.locally(value, scope.module).life is Life.DEAD:
                    continue
                if not isinstance(value, ast.Call) or not self._program.called(value, scope):
                    return None
                found.append(value)
        return found[0] if found else None
