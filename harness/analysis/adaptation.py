"""Training on validation tokens, and whether a score is reported with the weights it made.

A training site is a gradient taken of a loss that comes from validation tokens. It is followed outwards, call by call,
until a function that reports a score: is a score reported after the training returned, with the model it trained?
Loops in which scoring and training alternate are another question (`interleaved`).
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.analysis.alternation import LOOPS, Alternation, Event, Order, Site, Step, made_for, optimized, sharing
from harness.analysis.announced import Lines, announcements
from harness.analysis.gradients import is_inner, loss_of, stepping
from harness.analysis.index import Function, descend, dotted, last_name, place_of
from harness.analysis.origins import NONE, TRAINING, VALIDATION, Labels, Origins, reaching
from harness.analysis.prints import REPORTERS
from harness.analysis.program import Module, Program, Scope, argument
from harness.analysis.reach import Life, Reach, Reached
from harness.analysis.reports import Report, label_of, printed, wrapped
from harness.analysis.trace import Tracer, returned
from harness.analysis.undoing import copied, makes_own, renewed, undone, used_between

CHAIN_LIMIT = 6
LAST_LINE = 10**9
_GRADIENTS = ("backward", "grad")


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
        fresh: True when it is no weight that is trained, but a tensor made for it: SLOT.
        rival: the text of a final score that is printed before the training, which may be the reported one.
        printed: what a run that trains here is bound to print.
    """

    order: Order
    why: str
    function: str
    steps: tuple[Step, ...]
    reached: Reached
    label: str = ""
    fresh: bool = False
    rival: str = ""
    printed: tuple[Lines, ...] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """The end of one site: see `Adaptation`."""

    order: Order
    why: str
    steps: tuple[Step, ...]
    label: str = ""
    rival: str = ""
    calls: tuple[tuple[Module, ast.Call], ...] = ()


class Adaptations:
    """Finds and judges the training sites of a program.

    Attributes:
        splits: for each gradient that may run, the splits that its loss comes from.
    """

    def __init__(self, program: Program, reach: Reach, origins: Origins) -> None:
        self._program = program
        self._reach = reach
        self._origins = origins
        self._tracer = Tracer(program, origins)
        self._alternation = Alternation(self._tracer, reach, reach.configuration)
        self.splits: dict[ast.Call, frozenset[str]] = {}
        self._known_events: dict[Scope, list[Event]] = {}
        self._known_reports: dict[Scope, list[Report]] = {}

    def all(self) -> Iterator[Adaptation]:
        """Every gradient of a loss on validation tokens."""
        for module in self._program.modules.values():
            for name in _GRADIENTS:
                for call in module.calls(name):
                    yield from self._gradient(call, module)

    def _gradient(self, call: ast.Call, module: Module) -> Iterator[Adaptation]:
        loss = loss_of(call)
        if loss is None:
            return
        scope = module.scope_of(call)
        labels = self._origins.of(loss, scope)
        closed = self._origins.closed(labels)
        loaded = next((each for each in closed if each.kind == VALIDATION), None)
        if closed and loaded is None:
            # Whether it runs is of no interest: one loss on training data is enough.
            self.splits[call] = frozenset(each.kind for each in closed)
            return
        reached = self._reach.of(call, module)
        if reached.life is Life.LIVE:
            self.splits[call] = frozenset(each.kind for each in closed)
        if loaded is None or loaded.place is None:
            return
        name = scope.function.name if scope.function is not None else ""
        start = Step("validation files", loaded.place)
        # An optimizer that gets a closure takes the gradient where it steps.
        step = stepping(call, module)
        names, fresh = optimized(call, module.scope_of(step or call), step)
        gradient = Step("gradient of a loss on them", module.at(call.lineno))
        site = Site(step or call, module, (gradient,), names, (loss,), scope if step is not None else None)
        if reached.life is Life.DEAD:
            yield Adaptation(Order.NEVER, "it never runs", name, (start, *site.steps), reached, fresh=fresh)
            return
        found = self._judge(site, labels, 0)
        found = self._unmixed(found, labels if self._tracer.of_either(loss, scope, site.node) else NONE)
        if found.order is Order.SCORED_FIRST and step is None and is_inner(call, module):
            # What calls the closure, and when, the loops around it do not show.
            found = Judged(Order.UNCLEAR, "an inner function takes the gradient", site.steps)
        if found.order is Order.SCORED_FIRST and scope.function is not None:
            found = self._scored_again(site, scope.function, found)
        ways = [(module, site.node), *found.calls]
        texts = tuple(each for home, way in ways for each in announcements(way, home, self._program, self._reach))
        # Of several calls, those of the path that is told.
        reasons = [reason for home, way in ways for reason in self._reach.of(way, home).reasons]
        reached = dataclasses.replace(reached, reasons=tuple(dict.fromkeys(reasons)))
        steps = (start, *found.steps)
        yield Adaptation(found.order, found.why, name, steps, reached, found.label, fresh, found.rival, texts)

    def _judge(self, site: Site, labels: Labels, depth: int) -> Judged:
        """Whether a report follows a site, in its function or in those that call it."""
        scope = site.scope
        alternating = self._alternating(site)
        if alternating is not None:
            return alternating
        again = undone(site, self._program)
        if again is not None:
            return self._discarded(site, again)
        found = self._following(site)
        if found is not None:
            scored = found.scored or found.node
            steps = (*site.steps, Step("score with the trained weights", site.module.at(scored.lineno)))
            return Judged(Order.TRAINED_FIRST, "a score is reported after it", steps, found.text, self._rival(site))
        if scope.function is None or depth > CHAIN_LIMIT:
            return Judged(Order.UNCLEAR, "no score was found after it", site.steps)
        return self._callers(site, scope.function, labels, depth)

    def _alternating(self, site: Site) -> Judged | None:
        """The order of a site and the scores of its own function; None when it has none."""
        scope = site.scope
        events = self._events(scope)
        shared = sharing(site, events)
        if shared:
            found = self._alternation.judge(site, shared)
            steps = site.steps
            if found.score is not None:
                steps = (*steps, Step("score", site.module.at(found.score[0])))
            return Judged(found.order, found.why, steps, self._told(scope))
        if not events or not self._scores(scope):
            return None
        if all(event.forward < site.start for event in events):
            return Judged(Order.SCORED_FIRST, "the tokens are scored before", site.steps)
        first = min(event.forward for event in events)
        if first > site.end and self._connected(site, events) and self._same_data(site, events):
            again = undone(site, self._program)
            if again is not None and place_of(again) < first:
                return self._discarded(site, again)
            steps = (*site.steps, Step("score", site.module.at(first[0])))
            return Judged(Order.TRAINED_FIRST, "the same function scores them after it", steps, self._told(scope))
        return Judged(Order.UNCLEAR, "the function that trains on the tokens also scores them", site.steps)

    def _told(self, scope: Scope) -> str:
        """The texts of the prints of what a function returns, or "" where it is not printed by those who call it."""
        sites = self._program.call_sites(scope.function) if scope.function is not None else ()
        return " | ".join(text for module, call, _ in sites for text in self.labels(call, module))

    def _events(self, scope: Scope) -> list[Event]:
        """Additions to what a function returns, or else prints, of scores."""
        if scope not in self._known_events:
            roots: list[ast.expr] = returned(scope) if self._scores(scope) else []
            roots = roots or [name for report in self.reports(scope) for name in report.names]
            self._known_events[scope] = self._alternation.events(roots, scope)
        return self._known_events[scope]

    def _connected(self, site: Site, events: Sequence[Event]) -> bool:
        """Whether what is trained takes part in every score."""
        names = {name.partition(".")[0] for name in site.model}
        return bool(names) and all(names & event.trace.names.keys() for event in events)

    def _same_data(self, site: Site, events: Sequence[Event]) -> bool:
        """Whether a score takes tokens of a name that what is trained on comes from, too."""
        names = {name for name, _ in self._tracer.trace(site.data, site.closure or site.scope, site.node).data}
        return any(names & {name for name, _ in event.trace.data} for event in events)

    def _callers(self, site: Site, function: Function, labels: Labels, depth: int) -> Judged:
        """The same for every live call of the function; the worst that is proved."""
        best = Judged(Order.UNCLEAR, "no score was found after it", site.steps)
        for module, call, filled in self._program.call_sites(function):
            if self._reach.of(call, module).life is not Life.LIVE:
                continue
            passed = self._passed(call, function, labels, filled, module)
            if not any(label.kind == VALIDATION for label in self._origins.closed(passed)):
                continue
            kept = [name for name in site.model if not copied(name, site)]
            renamed = self._renamed(kept, function, call, filled)
            model = made_for(renamed, module.scope_of(call), place_of(call))
            steps = (Step(f"call of {function.node.name}", module.at(call.lineno)), *site.steps)
            handed = (*call.args, *(keyword.value for keyword in call.keywords))
            data = tuple(each for each in handed if self._tracer.holds_validation(each, module.scope_of(call)))
            found = self._judge(Site(call, module, steps, model, data), passed, depth + 1)
            found = self._unmixed(found, passed)
            found = dataclasses.replace(found, calls=((module, call), *found.calls))
            if found.order is Order.TRAINED_FIRST:
                return found
            best = found
        return best

    def _unmixed(self, found: Judged, labels: Labels) -> Judged:
        """The same, but nothing proved of data that may be of either split."""
        mixed = any(each.kind == TRAINING for each in self._origins.closed(labels))
        if not mixed or found.calls or found.order is Order.SCORED_FIRST:
            return found
        return dataclasses.replace(found, order=Order.UNCLEAR, why="its data may be of the training split")

    def _scored_again(self, site: Site, function: Function, found: Judged) -> Judged:
        """The same, unless a later evaluation of the tokens takes the weights that this one has trained by its end."""
        own = [name for name in site.model if name in function.parameters]
        if undone(site, self._program) is not None or not site.scope.bindings.keys().isdisjoint(own):
            return found
        for module, call, filled in self._program.call_sites(function):
            model = made_for(self._renamed(own, function, call, filled), module.scope_of(call), place_of(call))
            after = Site(call, module, site.steps, model, ())
            later = self._following(after) if self._reach.of(call, module).life is Life.LIVE else None
            if later is None or undone(after, self._program) is not None:
                continue
            scored = later.scored or later.node
            place = module.at(scored.lineno)
            why = f"`{last_name(scored.func)}` at {place} takes the weights that it leaves, which learned from all"
            steps = (*site.steps, Step("a later score", place))
            return Judged(Order.UNCLEAR, why, steps, later.text, calls=((module, call),))
        return found

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
            elif name not in function.parameters and not makes_own(name, function, self._program):
                found.append(name)
        return tuple(found)

    def _scores(self, scope: Scope) -> bool:
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
        for report in self.reports(scope):
            scored = report.scored
            given = [*scored.args, *(each.value for each in scored.keywords)] if scored is not None else [*report.names]
            values = [binding.value for binding in self._tracer.trace(given, scope).bindings]
            if any(each is call for value in (*given, *values) for each in descend(value)):
                return True
        return False

    def labels(self, call: ast.Call, module: Module) -> list[str]:
        """The texts of the prints of what a call gives."""
        return [report.text for report in self.reports(module.scope_of(call)) if report.scored is call]

    def _returned(self, function: Function, module: Module) -> Labels:
        labels = self._origins.returned(function, module)
        return frozenset(
            label for label in labels if VALIDATION in {each.kind for each in self._origins.closed(frozenset([label]))}
        )

    @staticmethod
    def _discarded(site: Site, undone: ast.expr) -> Judged:
        step = Step("weights are set again", site.module.at(undone.lineno))
        return Judged(Order.DISCARDED, "weights are set again after the training", (*site.steps, step))

    def _following(self, site: Site) -> Report | None:
        """The last live report after a site, in its function, of a score that a later call computes with the model."""
        loops = [each for each in site.module.index.ancestors(site.node) if isinstance(each, LOOPS)]
        end = site.end if not loops else (loops[-1].end_lineno or 0, loops[-1].end_col_offset or 0)
        found: list[Report] = []
        for report in self.reports(site.scope):
            scored = report.scored
            if scored is None or (scored.lineno, scored.col_offset) <= end:
                continue
            if self._reach.of(report.node, site.module).life is Life.LIVE and self._scores_with(scored, site):
                found.append(report)
        # Any of them may be the claimed one.
        return dataclasses.replace(found[-1], text=" | ".join(report.text for report in found)) if found else None

    def _rival(self, site: Site) -> str:
        """A live print of a final score before the site, in its function and in no loop."""
        for report in self.reports(site.scope):
            early = (report.node.lineno, report.node.col_offset) < site.start and "final" in report.text.lower()
            looped = any(isinstance(each, LOOPS) for each in site.module.index.ancestors(report.node))
            if early and not looped and not self._reach.skipped(report.node, site.module):
                return report.text
        return ""

    def _scores_with(self, call: ast.Call, site: Site) -> bool:
        """Whether a call after the site gets what was trained: itself, a wrapper of it, or the artifact made of it."""
        names = {name.partition(".")[0] for name in site.model}
        # What the training gives back, its losses, is no reading of what it trained.
        trace = self._tracer.trace(self._read(call, site.scope), site.scope, closed=site.node)
        used = used_between(site, place_of(call))
        fresh = {name for name in names if renewed(name, site, place_of(call))} if not used else set()
        if (names - fresh) & trace.names.keys():
            return True
        return used and any(each.place > site.end for each in trace.bindings)

    def _read(self, call: ast.Call, scope: Scope) -> list[ast.expr]:
        """The arguments of a call, less those for parameters that no function which it may run looks at."""
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        read: set[ast.expr] = set()
        unread: set[ast.expr] = set()
        for _, function in self._program.called(call, scope):
            loads = {node.id for node in descend(function.node) if isinstance(node, ast.Name)}
            for parameter in function.parameters:
                passed = argument(call, function, parameter, int(bool(function.owner)))
                if passed is not None:
                    (read if parameter in loads else unread).add(passed)
        return [each for each in given if each in read or each not in unread]

    def reports(self, scope: Scope) -> list[Report]:
        """The places of a function that print a score of validation tokens, in order."""
        if scope not in self._known_reports:
            index = scope.module.index
            own = index.own(index.tree if scope.function is None else scope.function.node)
            calls = sorted((node for node in own if isinstance(node, ast.Call)), key=place_of)
            self._known_reports[scope] = [report for call in calls for report in self._report(call, scope)]
        return self._known_reports[scope]

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
