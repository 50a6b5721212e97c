"""Training on validation tokens, and whether a score is reported with the weights it made.

A training site is a gradient taken of a loss that comes from validation tokens. It is followed outwards, call by call,
until a function that reports a score: is a score reported after the training returned, with the model it trained?
Loops in which scoring and training alternate are another question (`interleaved`).
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.analysis.alternation import Alternation, sharing
from harness.analysis.announced import Lines, announcements
from harness.analysis.gradients import is_dropped, is_inner, loss_of, stepping
from harness.analysis.index import Function, descend, dotted, last_name, place_of
from harness.analysis.optimizers import made_for, optimized
from harness.analysis.origins import NONE, TRAINING, VALIDATION, Labels, Origins
from harness.analysis.program import Module, Program, Scope, argument
from harness.analysis.reach import Life, Reach, Reached
from harness.analysis.reported import CHAIN_LIMIT, Reports
from harness.analysis.reports import Report
from harness.analysis.setback import LAST, doubt, replaced
from harness.analysis.sites import LOOPS, Event, Order, Place, Site, Step
from harness.analysis.trace import Tracer, returned
from harness.analysis.undoing import copied, makes_own, renewed, undone, used_between

# What a print calls a score that is none: how well a model does that has read the answers.
_STUDY = re.compile(r"stud(?:y|ies)|memori|bound|oracle|diagnos|sanity|cheat|leak|debug|overfit", re.IGNORECASE)
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
    until: Place = LAST


class Adaptations:
    """Finds and judges the training sites of a program.

    Attributes:
        splits: for each gradient that may run, the splits that its loss comes from.
    """

    def __init__(self, program: Program, reach: Reach, origins: Origins, reports: Reports) -> None:
        self._program = program
        self._reach = reach
        self._origins = origins
        self._tracer = Tracer(program, origins)
        self._reports = reports
        self._alternation = Alternation(program, self._tracer, reach)
        self.splits: dict[ast.Call, frozenset[str]] = {}
        self._known_events: dict[Scope, list[Event]] = {}

    def all(self) -> Iterator[Adaptation]:
        """Every gradient of a loss on validation tokens."""
        for module in self._program.modules.values():
            for name in _GRADIENTS:
                for call in module.calls(name):
                    yield from self._gradient(call, module)

    def _gradient(self, call: ast.Call, module: Module) -> Iterator[Adaptation]:
        loss = loss_of(call)
        if loss is None or is_dropped(call, module):
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
        """Whether a report follows a site, in its function or in those that call it; nothing proved where in doubt."""
        found = self._followed(site, labels, depth)
        if found.order is not Order.TRAINED_FIRST:
            return found
        why = doubt(site, self._program, found.until)
        found = dataclasses.replace(found, until=LAST)
        return dataclasses.replace(found, order=Order.UNCLEAR, why=why) if why else found

    def _followed(self, site: Site, labels: Labels, depth: int) -> Judged:
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
            why = "a score is reported after it"
            return Judged(Order.TRAINED_FIRST, why, steps, found.text, self._rival(site, found), until=place_of(scored))
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
            return Judged(found.order, found.why, steps, self._reports.told(scope), until=found.score or LAST)
        if not events or not self._reports.scores(scope):
            return None
        return self._one_after_the_other(site, events)

    def _one_after_the_other(self, site: Site, events: Sequence[Event]) -> Judged:
        """The order of a site and scores of its function that share no loop with it."""
        scope = site.scope
        if all(event.forward < site.start for event in events):
            return Judged(Order.SCORED_FIRST, "the tokens are scored before", site.steps)
        first = min(event.forward for event in events)
        if first > site.end and self._connected(site, events) and self._same_data(site, events):
            again = undone(site, self._program)
            if again is not None and place_of(again) < first:
                return self._discarded(site, again)
            if any(replaced(name.partition(".")[0], site, first) for name in site.model):
                return Judged(Order.UNCLEAR, "the model is given other weights before the score", site.steps)
            steps = (*site.steps, Step("score", site.module.at(first[0])))
            why = "the same function scores them after it"
            return Judged(Order.TRAINED_FIRST, why, steps, self._reports.told(scope), until=first)
        return Judged(Order.UNCLEAR, "the function that trains on the tokens also scores them", site.steps)

    def _events(self, scope: Scope) -> list[Event]:
        """Additions to what a function returns, or else prints, of scores."""
        if scope not in self._known_events:
            roots: list[ast.expr] = returned(scope) if self._reports.scores(scope) else []
            roots = roots or [name for report in self._reports.of(scope) for name in report.names]
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

    @staticmethod
    def _discarded(site: Site, undone: ast.expr) -> Judged:
        step = Step("weights are set again", site.module.at(undone.lineno))
        return Judged(Order.DISCARDED, "weights are set again after the training", (*site.steps, step))

    def _following(self, site: Site) -> Report | None:
        """The last live report after a site, in its function, of a score that a later call computes with the model."""
        loops = [each for each in site.module.index.ancestors(site.node) if isinstance(each, LOOPS)]
        end = site.end if not loops else (loops[-1].end_lineno or 0, loops[-1].end_col_offset or 0)
        found: list[Report] = []
        for report in self._reports.of(site.scope):
            scored = report.scored
            if scored is None or (scored.lineno, scored.col_offset) <= end:
                continue
            if self._reach.of(report.node, site.module).life is Life.LIVE and self._scores_with(scored, site):
                found.append(report)
        # Any of them may be the claimed one.
        return dataclasses.replace(found[-1], text=" | ".join(report.text for report in found)) if found else None

    def _rival(self, site: Site, found: Report) -> str:
        """A live print of a final score before the site, in its function and in no loop.

        Where the print behind the site calls its score one of a study, one of any other function, too.
        """
        for report in self._reports.of(site.scope):
            early = (report.node.lineno, report.node.col_offset) < site.start and "final" in report.text.lower()
            looped = any(isinstance(each, LOOPS) for each in site.module.index.ancestors(report.node))
            if early and not looped and not self._reach.skipped(report.node, site.module):
                return report.text
        if _STUDY.search(found.text) is None:
            return ""
        others = (each for each in self._reports.all() if "final" in each.text.lower() and each.node is not found.node)
        return next((each.text for each in others), "")

    def _scores_with(self, call: ast.Call, site: Site) -> bool:
        """Whether a call after the site gets what was trained: itself, a wrapper of it, or the artifact made of it."""
        names = {name.partition(".")[0] for name in site.model}
        # What the training gives back, its losses, is no reading of what it trained.
        trace = self._tracer.trace(self._read(call, site.scope), site.scope, closed=site.node)
        used = used_between(site, place_of(call))
        fresh = {
            name
            for name in names
            if replaced(name, site, place_of(call)) or (not used and renewed(name, site, place_of(call)))
        }
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
