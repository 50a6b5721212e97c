"""The network in the evaluation: a score of what is fetched after training, or a scoring function that fetches."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from harness.analysis.announced import Lines, announcements
from harness.analysis.branches import guards
from harness.analysis.index import last_name, place_of
from harness.analysis.origins import Origins
from harness.analysis.outside import outside
from harness.analysis.prints import REPORTERS
from harness.analysis.program import Module, Program, Scope
from harness.analysis.reach import Life, Reach, Reached
from harness.analysis.reports import printed
from harness.analysis.sites import Step
from harness.analysis.trace import Tracer

# From a call to the gradient that it leads to.
_DEPTH = 3
_LABEL = "val_bpb"
_OFFLINE = frozenset({"disabled", "offline"})


@dataclass(frozen=True, slots=True)
class Fetched:
    """One use of the network that the evaluation makes.

    Attributes:
        name: what reaches the network.
        steps: where it does, and where the score is computed that is printed.
        reached: whether it runs.
        printed: what a run that does so is bound to print.
    """

    name: str
    steps: tuple[Step, ...]
    reached: Reached
    printed: tuple[Lines, ...]


class Fetching:
    """Finds the uses of the network that belong to the evaluation for certain."""

    def __init__(self, program: Program, reach: Reach, origins: Origins) -> None:
        self._program = program
        self._reach = reach
        self._tracer = Tracer(program, origins)

    def all(self) -> Iterator[Fetched]:
        """Every such use. A call that may as well find its answer on the machine is none."""
        for module, call, contact in outside(self._program, self._reach):
            if contact.kind != "network" or not _is_remote(call):
                continue
            scored = self._scored_with(call, module) or self._scored_around(call, module)
            reached = self._reach.of(call, module)
            if scored is None or reached.life is not Life.LIVE:
                continue
            home, score = scored
            steps = (
                Step("the network is reached", contact.place),
                Step("the score that is printed", home.at(score.lineno)),
            )
            texts = announcements(call, module, self._program, self._reach)
            yield Fetched(contact.name, steps, reached, texts)

    def _scored_with(self, call: ast.Call, module: Module) -> tuple[Module, ast.Call] | None:
        """A printed score, later in the same function, of what a call fetches after training."""
        scope = module.scope_of(call)
        if not self._trains_before(call, scope):
            return None
        fetched = [ast.dump(each.test) for each in guards(module.index, call)]
        for score in _scores(scope):
            around = [ast.dump(each.test) for each in guards(module.index, score)]
            given = (*score.args, *(keyword.value for keyword in score.keywords))
            values = [*given, *(each.value for each in self._tracer.trace(given, scope).bindings)]
            # Where more conditions lead to the fetching than to the score, there may be another way to it.
            if set(fetched) <= set(around) and any(call in ast.walk(each) for each in values):
                return module, score
        return None

    def _trains_before(self, call: ast.Call, scope: Scope) -> bool:
        """Whether a gradient is taken before a call in its function, by itself or in what it calls."""
        earlier = (each for each in _calls(scope) if place_of(each) < place_of(call))
        return any(self._takes_gradient(each, scope, 0) for each in earlier)

    def _takes_gradient(self, call: ast.Call, scope: Scope, depth: int) -> bool:
        if isinstance(call.func, ast.Attribute) and call.func.attr == "backward":
            return True
        return depth < _DEPTH and any(
            self._takes_gradient(each, home.scope(function), depth + 1)
            for home, function in self._program.called(call, scope)
            if not function.owner
            for each in _calls(home.scope(function))
        )

    def _scored_around(self, call: ast.Call, module: Module) -> tuple[Module, ast.Call] | None:
        """A printed score of the function that a call stands in, where no condition keeps it from fetching."""
        function = module.index.function_of(call)
        if function is None or any(not each.repeats for each in guards(module.index, call)) or _is_tried(call, module):
            return None
        for home, site, filled in self._program.call_sites(function):
            if filled == int(bool(function.owner)) and any(site is each for each in _scores(home.scope_of(site))):
                return home, site
        return None


def _is_remote(call: ast.Call) -> bool:
    """Whether a call names a place in the network.

    `load_dataset("json", data_files=...)` reads files, `mode="offline"` stays here, a bare socket may look for a port.
    """
    given = {each.arg: each.value.value for each in call.keywords if isinstance(each.value, ast.Constant)}
    if given.get("mode") in _OFFLINE or given.get("local_files_only") is True or last_name(call.func) == "socket":
        return False
    if last_name(call.func) != "load_dataset":
        return True
    first = call.args[0] if call.args else None
    name = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
    return name.count("/") == 1 and name[0] not in "./~"


def _is_tried(call: ast.Call, module: Module) -> bool:
    """Whether a failure of the call is caught, which a second way may be for."""
    return any(isinstance(each, ast.Try) and each.handlers for each in module.index.ancestors(call))


def _scores(scope: Scope) -> Iterator[ast.Call]:
    """The calls of a function whose value a later line of it prints as the score."""
    for report in _calls(scope):
        text, names = printed(report) if last_name(report.func) in REPORTERS else ("", [])
        if _LABEL not in text:
            continue
        for name in names:
            bound = [each for each in scope.bindings.get(name.id, ()) if each.place < place_of(report)]
            if bound and isinstance(bound[-1].value, ast.Call):
                yield bound[-1].value


def _calls(scope: Scope) -> list[ast.Call]:
    index = scope.module.index
    own = index.own(index.tree if scope.function is None else scope.function.node)
    return sorted((each for each in own if isinstance(each, ast.Call)), key=place_of)
