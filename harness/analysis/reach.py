"""What of a program runs: a call graph by name, with the branches that the configuration decides.

A node is *live*, *dead* (a condition on every way to it is known to be false) or *unknown*. Calls are found by name,
so a function counts as reached wherever its name is mentioned: dead code is proved, live code is not overstated. What a
log shows stands before any setting: a branch whose own line it holds ran.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from harness.analysis.answers import Reason, Resolved, Unknown
from harness.analysis.branches import Guard, guards
from harness.analysis.configuration import Configuration
from harness.analysis.environment import LAUNCHER_KEYS
from harness.analysis.index import Function, descend, last_name, place_of
from harness.analysis.prints import longest, printed_by, strings
from harness.analysis.program import Module, Program
from harness.model import Location

# Where a log of the claimed runs prints a text, if one does.
Shown: TypeAlias = Callable[[str], Location | None]

TEST_LIMIT_CHARACTERS = 60
DEPTH_LIMIT = 30
MENTIONS_LIMIT = 60
# Shorter texts may stand in a log for another reason.
TELLING_LENGTH = 8
_CONTAINERS = (ast.Dict, ast.List)
# Logs list settings by their names.
_SETTING = re.compile(r"\w+\s*[:=]?")


class Life(enum.StrEnum):
    """Whether a node runs."""

    LIVE = "live"
    DEAD = "dead"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Reached:
    """Whether something runs, and why.

    Attributes:
        life: live, dead or unknown.
        reasons: the settings that decide it.
        condition: where the deciding condition stands, if one does.
        unclear: settings, of unknown value, that would decide it.
    """

    life: Life
    reasons: tuple[Reason, ...] = ()
    condition: Location | None = None
    unclear: tuple[str, ...] = ()


LIVE = Reached(Life.LIVE)


class Reach:
    """Answers for the nodes and functions of a program under a configuration, and logs of its runs; remembered."""

    def __init__(self, program: Program, configuration: Configuration, logged: Shown | None = None) -> None:
        self.program = program
        self.configuration = configuration
        self._logged = logged
        self._functions: dict[Function, Reached] = {}
        self._statements: dict[ast.AST, Reached] = {}
        self._blocks: dict[tuple[ast.If, bool], Reached | None] = {}

    def of(self, node: ast.AST, module: Module, depth: int = 0) -> Reached:
        """Whether a node runs: the conditions around it, then the function that holds it."""
        here = self.locally(node, module)
        if here.life is Life.DEAD:
            return here
        function = module.index.function_of(node)
        around = LIVE if function is None else self.function(function, module, depth + 1)
        if around.life is Life.DEAD:
            return around
        return _both(here, around)

    def locally(self, node: ast.AST, module: Module) -> Reached:
        """Whether a node runs when the function around it does; remembered."""
        if node not in self._statements:
            self._statements[node] = self._guarded(node, module)
        return self._statements[node]

    def _guarded(self, node: ast.AST, module: Module) -> Reached:
        result = LIVE
        for guard in guards(module.index, node):
            found = self._guard(guard, module)
            if found.life is Life.DEAD:
                return found
            result = _both(result, found)
        return result

    def skipped(self, node: ast.AST, module: Module) -> bool:
        """Whether a condition in the function around a node is known to keep it from running."""
        return self.locally(node, module).life is Life.DEAD

    def function(self, function: Function, module: Module, depth: int = 0) -> Reached:
        """Whether a function runs: some mention of its name does."""
        if function in self._functions:
            return self._functions[function]
        if depth > DEPTH_LIMIT:
            return Reached(Life.UNKNOWN)
        # Until it is known, for functions that call themselves: their own mention alone does not reach them.
        self._functions[function] = Reached(Life.DEAD)
        found = self._mentioned(function, module, depth)
        if found.life is not Life.LIVE:
            texts = [line.text for line in printed_by(function.node.body)]
            found = _outweighed(found, self._witnessed(texts, module.at(function.node.lineno)))
        self._functions[function] = found
        return found

    def dead_because(self, function: Function, module: Module) -> Reason | None:
        """The setting that keeps a function from running, when the configuration proves that one does."""
        found = self.function(function, module)
        return found.reasons[0] if found.life is Life.DEAD and found.reasons else None

    def _mentioned(self, function: Function, module: Module, depth: int) -> Reached:
        name = function.node.name
        if _called_by_machinery(name):
            return LIVE
        best = Reached(Life.DEAD)
        for count, (home, mention) in enumerate(self._mentions(name)):
            if count > MENTIONS_LIMIT:
                return _better(best, Reached(Life.UNKNOWN))
            if home is module and function in _functions_around(home, mention):
                continue
            found = self.of(mention, home, depth)
            if found.life is Life.LIVE and isinstance(home.index.parent(mention), ast.Dict):
                # Which entry of a table is called, its key decides.
                found = Reached(Life.UNKNOWN, (), found.condition, (f"the table that holds {name}",))
            best = _better(best, found)
            if best.life is Life.LIVE:
                break
        return best

    def _mentions(self, name: str) -> Iterator[tuple[Module, ast.AST]]:
        for module in self.program.modules.values():
            for known in module.names_of(name):
                # From the end, where a script calls what it defines.
                for mention in reversed(module.loads(known)):
                    yield module, mention

    def _guard(self, guard: Guard, module: Module) -> Reached:
        if guard.wanted and module is not self.program.entry and _asks_for_main(guard.test):
            return Reached(Life.DEAD, (), module.at(guard.test.lineno))
        test = _rounds(guard.test) if guard.repeats else guard.test
        answer = self.configuration.value(test, module.scope_of(guard.test))
        place = module.at(guard.test.lineno)
        if isinstance(answer, Unknown) and answer.names and not guard.repeats:
            answer = self._at_last_call(guard, module) or answer
        if isinstance(answer, Resolved):
            life = Life.LIVE if answer.true is guard.wanted else Life.DEAD
            found = Reached(life, answer.reasons, place)
        else:
            # Data, not configuration, decides whether a loop is empty or a batch too short: a run gets past that.
            names = answer.names or (() if guard.leaves else _switch(guard.test, module) or _fallback(guard, module))
            found = Reached(Life.UNKNOWN, (), place, names) if names and not guard.repeats else LIVE
        owner = module.index.parent(guard.test)
        if found.life is Life.LIVE or guard.leaves or not isinstance(owner, ast.If):
            return found
        return _outweighed(found, self.shown(owner, module, wanted=guard.wanted))

    def _at_last_call(self, guard: Guard, module: Module) -> Resolved | None:
        """What a test of parameters is where the function is called for the last time, as far as that decides it.

        Evaluations of one function follow each other, and the last is the one that counts. A test that no call fulfils
        is decided by all of them.
        """
        sites = [
            (home.scope_of(call), call, answer)
            for home, call, answer in self.configuration.at_calls(guard.test, module.scope_of(guard.test))
            if self.locally(call, home).life is not Life.DEAD
        ]
        # Of calls in several functions, no place tells which is the last.
        if len({scope for scope, _, _ in sites}) != 1:
            return None
        answers = [(call, answer) for _, call, answer in sites]
        last = max(answers, key=lambda pair: place_of(pair[0]))[1]
        same = all(isinstance(each, Resolved) and each.true is not guard.wanted for _, each in answers)
        if isinstance(last, Resolved) and (same or last.true is guard.wanted):
            return last
        return None

    def shown(self, owner: ast.If, module: Module, *, wanted: bool) -> Reached | None:
        """That one side of a condition ran, where a log of the claimed runs shows what only that side prints."""
        if (owner, wanted) not in self._blocks:
            block = owner.body if wanted else owner.orelse
            place = module.at(owner.test.lineno)
            self._blocks[owner, wanted] = (
                self._witnessed([line.text for line in printed_by(block)], place)
                or self._called_in(block, module, place)
                or (self._witnessed(self._told_with(owner.test, module), place) if wanted else None)
            )
        return self._blocks[owner, wanted]

    def _called_in(self, block: Sequence[ast.stmt], module: Module, place: Location) -> Reached | None:
        """That a block ran, where a function did that nothing else calls."""
        if self._logged is None:
            return None
        for statement in block:
            value = statement.value if isinstance(statement, (ast.Expr, ast.Assign, ast.Return)) else None
            if not isinstance(value, ast.Call):
                continue
            for home, function in self.program.called(value, module.scope_of(statement)):
                if not function.owner and self._mentioned_once(function):
                    texts = [line.text for line in printed_by(function.node.body)]
                    found = self._witnessed(texts, home.at(function.node.lineno))
                    if found is not None:
                        return dataclasses.replace(found, condition=place)
        return None

    def _mentioned_once(self, function: Function) -> bool:
        name = function.node.name
        return (
            sum(len(each.loads(known)) for each in self.program.modules.values() for known in each.names_of(name)) == 1
        )

    @staticmethod
    def _told_with(test: ast.expr, module: Module) -> list[str]:
        """What is printed where the same name is true: `f"{' slot' if use_slot else ''}"`."""
        if not isinstance(test, (ast.Name, ast.Attribute)):
            return []
        same = [each for each in module.index.each(ast.IfExp) if ast.dump(each.test) == ast.dump(test)]
        return [longest([each.body]) for each in same]

    def _witnessed(self, texts: Sequence[str], place: Location) -> Reached | None:
        """That a block ran, where a log of the claimed runs shows what only that block prints."""
        if self._logged is None:
            return None
        for text in texts:
            telling = len(text) >= TELLING_LENGTH and not _SETTING.fullmatch(text)
            once = telling and sum(text in each for each in self._strings) == 1
            shown = self._logged(text) if once else None
            if shown is not None:
                return Reached(Life.LIVE, (Reason(f"`{text}`", "printed", "log", shown),), place)
        return None

    @functools.cached_property
    def _strings(self) -> tuple[str, ...]:
        return tuple(strings(self.program))


def _outweighed(found: Reached, shown: Reached | None) -> Reached:
    """What a log shows instead of what the settings say; where a log states those too, it says both."""
    if shown is None:
        return found
    if any(reason.source == "log" for reason in found.reasons):
        return Reached(Life.UNKNOWN, (), found.condition, tuple(reason.name for reason in found.reasons))
    return shown


def _rounds(iterated: ast.expr) -> ast.expr:
    """What has to be true for a loop to run at all: `n` of `range(n)`."""
    plain = isinstance(iterated, ast.Call) and last_name(iterated.func) == "range" and len(iterated.args) == 1
    return iterated.args[0] if plain and isinstance(iterated, ast.Call) else iterated


def _switch(test: ast.expr, module: Module) -> tuple[str, ...]:
    """A test of what somebody chose, by its text, where the configuration does not follow it; else nothing.

    An entry by its name (`conf["adapt"]`, `conf.get("adapt")`), a comparison with a word, a constant of the module.
    """
    words = {each.value for each in descend(test) if isinstance(each, ast.Constant) and isinstance(each.value, str)}
    chosen = any(_is_chosen(each, module) for each in descend(test))
    ours = _asks_for_main(test) or not LAUNCHER_KEYS.isdisjoint(words)
    return (ast.unparse(test)[:TEST_LIMIT_CHARACTERS],) if chosen and not ours else ()


def _fallback(guard: Guard, module: Module) -> tuple[str, ...]:
    """`if not sums:` of a container that the function fills above: what runs where that came to nothing."""
    match guard.test:
        case ast.UnaryOp(ast.Not(), ast.Name(name)) if guard.wanted:
            scope = module.scope_of(guard.test)
            bindings = scope.bindings.get(name, ()) if scope.function is not None else ()
            made = any(isinstance(each.value, _CONTAINERS) and each.whole for each in bindings)
            above = place_of(guard.test)
            if made and any(each.place < above and not isinstance(each.value, _CONTAINERS) for each in bindings):
                return (f"whether {name} is empty",)
    return ()


def _is_chosen(node: ast.AST, module: Module) -> bool:
    match node:
        case ast.Subscript(slice=ast.Constant(str())):
            return True
        case ast.Compare(left, [ast.Eq() | ast.NotEq() | ast.In() | ast.NotIn()], [right]):
            sides = (left, right)
            words = any(isinstance(each, ast.Constant) and isinstance(each.value, str) for each in sides)
            return words and any(isinstance(each, (ast.Name, ast.Attribute, ast.Subscript)) for each in sides)
        case ast.Call(ast.Attribute(attr="get"), [ast.Constant(str()), *_]):
            return True
        case ast.Attribute(ast.Name(name)):
            return name in module.index.classes or name in module.scope(None).bindings
    return False


def _asks_for_main(test: ast.expr) -> bool:
    """`__name__ == "__main__"`, which holds in the script that is run and in no module that it imports."""
    match test:
        case ast.Compare(ast.Name("__name__"), [ast.Eq()], [ast.Constant("__main__")]):
            return True
    return False


def _called_by_machinery(name: str) -> bool:
    """Functions that run without their name in the text: `main` by hand, `forward`, `__init__`."""
    return name in {"forward", "backward", "main"} or (name.startswith("__") and name.endswith("__"))


def _functions_around(module: Module, node: ast.AST) -> Iterator[Function]:
    function = module.index.function_of(node)
    while function is not None:
        yield function
        function = module.index.function_of(function.node)


def _both(first: Reached, second: Reached) -> Reached:
    """Two conditions that must both hold, neither of them dead."""
    if first.life is Life.LIVE and second.life is Life.LIVE:
        return Reached(
            Life.LIVE, tuple(dict.fromkeys((*first.reasons, *second.reasons))), first.condition or second.condition
        )
    unknown = first if first.life is Life.UNKNOWN else second
    return Reached(
        Life.UNKNOWN, unknown.reasons, unknown.condition, tuple(dict.fromkeys((*first.unclear, *second.unclear)))
    )


def _better(first: Reached, second: Reached) -> Reached:
    """The more alive of two ways to the same place; of two dead ones the one with a reason."""
    order = [Life.DEAD, Life.UNKNOWN, Life.LIVE]
    if order.index(second.life) > order.index(first.life) or (second.life is first.life and not first.reasons):
        return second
    return first
