"""The part of evaluating expressions that only asks what their parts are: operators, choices, short bodies."""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from harness.analysis.answers import UNKNOWN, Answer, Resolved, Unknown, apply, because
from harness.analysis.arithmetic import binary, unary
from harness.analysis.program import Scope

STATEMENTS_LIMIT = 40


@dataclass(frozen=True, slots=True)
class Frame:
    """Where an expression is evaluated: its scope, and the values of parameters inside an inlined helper."""

    scope: Scope
    local: Mapping[str, Answer]
    depth: int

    def deeper(self) -> Frame:
        """The frame of a part."""
        return Frame(self.scope, self.local, self.depth + 1)


class Evaluation(ABC):
    """Evaluates operators, sequences, choices and the bodies of short functions."""

    @abstractmethod
    def _of(self, node: ast.expr, frame: Frame) -> Answer:
        """What an expression is inside a frame."""

    def _operator(self, node: ast.UnaryOp | ast.BinOp, frame: Frame) -> Answer:
        if isinstance(node, ast.UnaryOp):
            sign = node.op
            return apply(lambda values: unary(sign, values[0]), [self._of(node.operand, frame)])
        kind = node.op
        parts = [self._of(node.left, frame), self._of(node.right, frame)]
        return apply(lambda values: binary(kind, values[0], values[1]), parts)

    def _sequence(self, node: ast.Tuple | ast.List | ast.Set, frame: Frame) -> Answer:
        return apply(tuple, [self._of(each, frame) for each in node.elts[:STATEMENTS_LIMIT]])

    def _body(self, body: list[ast.stmt], frame: Frame, local: dict[str, Answer]) -> Answer | None:
        """What a run of simple statements returns; None when it falls through; Unknown when it cannot be followed."""
        for line in body:
            if isinstance(line, ast.Return):
                return self._of(line.value, frame) if line.value is not None else Resolved(None)
            if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
                local[line.targets[0].id] = self._of(line.value, frame)
            elif isinstance(line, (ast.If, ast.Try)):
                answer = self._branch(line, frame, local)
                if answer is not None:
                    return answer
            elif not isinstance(line, (ast.Expr, ast.Pass)):
                return UNKNOWN
        return None

    def _branch(self, line: ast.If | ast.Try, frame: Frame, local: dict[str, Answer]) -> Answer | None:
        if isinstance(line, ast.Try):
            return self._body(line.body, frame, local)
        test = self._of(line.test, frame)
        if isinstance(test, Unknown):
            return test
        answer = self._body(line.body if test.true else line.orelse, frame, local)
        return because(answer, test.reasons) if isinstance(answer, Resolved) else answer

    def _connective(self, node: ast.BoolOp, frame: Frame) -> Answer:
        """`and`, `or`: one operand can decide alone; otherwise all must be known."""
        stop = isinstance(node.op, ast.Or)
        answers = [self._of(each, frame) for each in node.values]
        for answer in answers:
            if isinstance(answer, Resolved) and answer.true is stop:
                # An unknown operand before it may have another value of the same truth.
                return answer if answer is answers[0] else Resolved(stop, answer.reasons)
        return apply(lambda values: values[-1], answers)

    def _choice(self, node: ast.IfExp, frame: Frame) -> Answer:
        test = self._of(node.test, frame)
        if isinstance(test, Unknown):
            return test
        answer = self._of(node.body if test.true else node.orelse, frame)
        return because(answer, test.reasons) if isinstance(answer, Resolved) else answer
