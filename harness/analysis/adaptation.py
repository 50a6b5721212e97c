"""Training on validation tokens, and whether a score is reported with the weights it made.

A training site is a gradient taken of a loss that comes from validation tokens. It is followed outwards, call by call,
until a function that reports a score: is a score reported after the training returned, with the model it trained?
Loops in which scoring and training alternate are another question (`interleaved`).
"""

from __future__ import annotations

import ast
import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.analysis.index import Function, dotted, last_name, own_nodes
from harness.analysis.origins import PARAMETER, VALIDATION, Labels, Origins, reaching
from harness.analysis.program import Module, Program, Scope, argument
from harness.analysis.reach import Life, Reach, Reached
from harness.model import Location

CHAIN_LIMIT = 6
LAST_LINE = 10**9
_GRADIENTS = ("backward", "grad")
_PARAMETERS = frozenset({"parameters", "named_parameters", "state_dict"})
_UNDOING = frozenset({"load_state_dict", "copy_", "set_", "_load_from_state_dict"})
_REPORTERS = frozenset(
    {"print", "log", "log0", "info", "write", "log_fn", "logger", "print0", "_log", "log_line", "emit"}
)
_COPIES = frozenset({"deepcopy", "clone"})
_LOOPS = (ast.For, ast.AsyncFor, ast.While)


@dataclass(frozen=True, slots=True)
class Step:
    """One place on the path that proves something."""

    what: str
    place: Location


class Order(enum.StrEnum):
    """How training on validation tokens stands to their score."""

    TRAINED_FIRST = "trained first"
    SCORED_FIRST = "scored first"
    DISCARDED = "weights discarded"
    UNCLEAR = "unclear"
    NEVER = "never runs"


@dataclass(frozen=True, slots=True)
class Adaptation:
    """One training site on validation tokens.

    Attributes:
        order: what was found.
        why: one clause for messages.
        function: the function that trains, or "" at module level.
        steps: the path: where the tokens are loaded, each call, the gradient, the score.
        reached: whether the site runs, and what decides it.
        label: the text of the report that follows, where there is one.
    """

    order: Order
    why: str
    function: str
    steps: tuple[Step, ...]
    reached: Reached
    label: str = ""


@dataclass(frozen=True, slots=True)
class Site:
    """A gradient, or a call that leads to one, in a function."""

    node: ast.Call
    module: Module
    steps: tuple[Step, ...]
    model: tuple[str, ...]

    @property
    def scope(self) -> Scope:
        """Where it stands."""
        return self.module.scope_of(self.node)

    @property
    def end(self) -> tuple[int, int]:
        """Where it ends in the text."""
        return self.node.end_lineno or 0, self.node.end_col_offset or 0


@dataclass(frozen=True, slots=True)
class Report:
    """A place where a score of validation tokens is printed, and where it was computed."""

    node: ast.Call
    text: str
    scored: ast.Call | None


class Adaptations:
    """Finds and judges the training sites of a program."""

    def __init__(self, program: Program, reach: Reach, origins: Origins) -> None:
        self._program = program
        self._reach = reach
        self._origins = origins

    def all(self) -> Iterator[Adaptation]:
        """Every gradient of a loss on validation tokens."""
        for module in self._program.modules.values():
            for name in _GRADIENTS:
                for call in module.calls.get(name, ()):
                    yield from self._gradient(call, module)

    def _gradient(self, call: ast.Call, module: Module) -> Iterator[Adaptation]:
        loss = loss_of(call)
        if loss is None:
            return
        scope = module.scope_of(call)
        labels = self._origins.of(loss, scope)
        loaded = next((each for each in self._origins.closed(labels) if each.kind == VALIDATION), None)
        if loaded is None or loaded.place is None:
            return
        name = scope.function.name if scope.function is not None else ""
        start = Step("validation files", loaded.place)
        site = Site(call, module, (Step("gradient of a loss on them", module.at(call.lineno)),), self._models(scope))
        reached = self._reach.of(call, module)
        if reached.life is Life.DEAD:
            yield Adaptation(Order.NEVER, "it never runs", name, (start, *site.steps), reached)
            return
        order, why, steps, label = self._judge(site, labels, 0)
        yield Adaptation(order, why, name, (start, *steps), reached, label)

    def _judge(self, site: Site, labels: Labels, depth: int) -> tuple[Order, str, tuple[Step, ...], str]:
        """Whether a report follows a site, in its function or in those that call it."""
        scope = site.scope
        if self._scores(scope):
            return Order.UNCLEAR, "the function that trains on the tokens also scores them", site.steps, ""
        undone = self._undone(site)
        if undone is not None:
            step = Step("weights are set again", site.module.at(undone.lineno))
            return Order.DISCARDED, "weights are set again after the training", (*site.steps, step), ""
        found = self._following(site)
        if found is not None:
            scored = found.scored or found.node
            steps = (*site.steps, Step("score with the trained weights", site.module.at(scored.lineno)))
            return Order.TRAINED_FIRST, "a score is reported after it", steps, found.text
        if scope.function is None or depth > CHAIN_LIMIT:
            return Order.UNCLEAR, "no score was found after it", site.steps, ""
        return self._callers(site, scope.function, labels, depth)

    def _callers(
        self, site: Site, function: Function, labels: Labels, depth: int
    ) -> tuple[Order, str, tuple[Step, ...], str]:
        """The same for every live call of the function; the worst that is proved."""
        best: tuple[Order, str, tuple[Step, ...], str] = (Order.UNCLEAR, "no score was found after it", site.steps, "")
        for module, call, filled in self._program.call_sites(function):
            if self._reach.of(call, module).life is not Life.LIVE:
                continue
            passed = self._passed(call, function, labels, filled, module)
            if not any(label.kind == VALIDATION for label in self._origins.closed(passed)):
                continue
            model = self._renamed(site.model, function, call, filled)
            steps = (Step(f"call of {function.node.name}", module.at(call.lineno)), *site.steps)
            found = self._judge(Site(call, module, steps, model), passed, depth + 1)
            if found[0] is Order.TRAINED_FIRST:
                return found
            best = found
        return best

    def _passed(self, call: ast.Call, function: Function, labels: Labels, filled: int, module: Module) -> Labels:
        """The origins at a call of what is trained on inside."""
        found = {label for label in labels if label.function is not function}
        for label in labels - found:
            value = argument(call, function, label.name, filled)
            if value is not None:
                found |= self._origins.of(value, module.scope_of(call))
        return frozenset(found)

    def _renamed(self, names: Sequence[str], function: Function, call: ast.Call, filled: int) -> tuple[str, ...]:
        """The model's names at a call: what is passed for them."""
        found: list[str] = []
        for name in names:
            value = argument(call, function, name, filled) if name in function.parameters else None
            if value is not None and dotted(value):
                found.append(dotted(value))
            elif name not in function.parameters:
                found.append(name)
        return tuple(found)

    def _models(self, scope: Scope) -> tuple[str, ...]:
        """The names whose parameters a function takes."""
        body = scope.function.node.body if scope.function is not None else scope.module.index.tree.body
        calls = (node.func for node in own_nodes(body) if isinstance(node, ast.Call))
        names = [dotted(func.value) for func in calls if isinstance(func, ast.Attribute) and func.attr in _PARAMETERS]
        return tuple(dict.fromkeys(filter(None, names)))

    def _scores(self, scope: Scope) -> bool:
        """Whether a function returns what it computed from validation tokens."""
        if scope.function is None:
            return False
        return any(label.kind in {VALIDATION, PARAMETER} for label in self._returned(scope.function, scope.module))

    def _returned(self, function: Function, module: Module) -> Labels:
        labels = self._origins.returned(function, module)
        return frozenset(
            label for label in labels if VALIDATION in {each.kind for each in self._origins.closed(frozenset([label]))}
        )

    def _undone(self, site: Site) -> ast.Call | None:
        """A call after the site, in its function, that gives the trained model weights from before the training.

        Weights loaded from what was made of the model after the training, the artifact, are the trained ones.
        """
        for name in _UNDOING:
            for call in site.module.calls.get(name, ()):
                owner = dotted(call.func.value) if isinstance(call.func, ast.Attribute) else ""
                after = (call.lineno, call.col_offset) > site.end and site.module.scope_of(call) is site.scope
                if after and (name == "copy_" or owner in site.model) and not self._made_after(call, site):
                    return call
        return None

    def _made_after(self, call: ast.Call, site: Site) -> bool:
        """Whether what a call loads was made after the site, from the model as trained."""
        names = [node for each in call.args for node in ast.walk(each) if isinstance(node, ast.Name)]
        for name in names:
            holder = site.scope.holder(name.id)
            bindings = list(reaching(name, site.scope, holder)) if holder is not None else []
            if any(each.place > site.end for each in bindings):
                return self._used_between(site, (call.lineno, call.col_offset))
        return False

    def _used_between(self, site: Site, until: tuple[int, int]) -> bool:
        """Whether the model is handed on between the site and a later place."""
        for name in site.model:
            for mention in site.module.loads.get(name.rpartition(".")[2], ()):
                if (
                    site.end < (mention.lineno, mention.col_offset) < until
                    and site.module.scope_of(mention) is site.scope
                ):
                    return True
        return False

    def _following(self, site: Site) -> Report | None:
        """A live report after a site, in its function and outside the site's loops, of a score on validation tokens."""
        loops = [each for each in site.module.index.ancestors(site.node) if isinstance(each, _LOOPS)]
        outer = loops[-1] if loops else None
        end = site.end if outer is None else (outer.end_lineno or 0, outer.end_col_offset or 0)
        if not self._used_between(site, (LAST_LINE, 0)):
            return None
        found = None
        for report in self.reports(site.scope):
            if (report.node.lineno, report.node.col_offset) > end and self._reach.of(
                report.node, site.module
            ).life is Life.LIVE:
                found = report
        return found

    def reports(self, scope: Scope) -> Iterator[Report]:
        """The places of a function that print a score of validation tokens, in order."""
        body = scope.function.node.body if scope.function is not None else scope.module.index.tree.body
        calls = sorted(
            (node for node in own_nodes(body) if isinstance(node, ast.Call)),
            key=lambda call: (call.lineno, call.col_offset),
        )
        for call in calls:
            text, names = printed(call)
            if "bpb" not in text.lower():
                continue
            for name in names:
                if VALIDATION in {label.kind for label in self._origins.closed(self._origins.of(name, scope))}:
                    yield Report(call, text.strip(), _computed(name, scope))
                    break


def loss_of(call: ast.Call) -> ast.expr | None:
    """The loss of a gradient: `loss.backward()`, `scaler.scale(loss).backward()`, `torch.autograd.grad(loss, ...)`."""
    if not isinstance(call.func, ast.Attribute):
        return call.args[0] if call.args and isinstance(call.func, ast.Name) and call.func.id == "grad" else None
    if call.func.attr == "grad":
        return call.args[0] if call.args and dotted(call.func.value).endswith("autograd") else None
    owner = dotted(call.func.value)
    if call.args and owner.rpartition(".")[2] in {"autograd", "accelerator", "scaler"}:
        return call.args[0]
    return call.func.value


def printed(call: ast.Call) -> tuple[str, list[ast.Name]]:
    """The fixed text and the names that a call prints, when it is one that prints."""
    if last_name(call.func) not in _REPORTERS:
        return "", []
    text: list[str] = []
    names: list[ast.Name] = []
    stack: list[ast.AST] = list(reversed(call.args))
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text.append(node.value)
        elif isinstance(node, ast.Name):
            names.append(node)
        else:
            stack.extend(reversed(list(ast.iter_child_nodes(node))))
    return "".join(text), names


def _computed(name: ast.Name, scope: Scope) -> ast.Call | None:
    """The call that gave a printed name its value."""
    holder = scope.holder(name.id)
    if holder is None:
        return None
    return next((each.value for each in reaching(name, scope, holder) if isinstance(each.value, ast.Call)), None)
