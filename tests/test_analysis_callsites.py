"""Calls through a variable that a function was given to."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

import pytest

from harness import audit
from harness.analysis.index import Index
from harness.analysis.program import Module, Program
from harness.model import Location


def program(source: str) -> tuple[Program, Module]:
    module = Module(Index(ast.parse(textwrap.dedent(source))), lambda line: Location("train_gpt.py", line))
    return Program(module, {}), module


SOURCE = """
def one(x): return x
def two(x): return x
def main(args):
    score = one if args.short else two
    again = two
    score(1)
    again(2)
    other(score, 3)
def elsewhere(score):
    score(4)
"""


def test_a_variable_stands_for_each_function_that_it_may_be_given() -> None:
    made, module = program(SOURCE)
    sites = {
        name: [call.lineno for _, call, _ in made.call_sites(module.functions_named[name][0])]
        for name in ("one", "two")
    }
    assert sites == {"one": [7], "two": [7, 8]}
    named = {
        call.lineno: [function.name for _, function in made.called(call, module.scope_of(call))]
        for call in module.index.each(ast.Call)
    }
    assert named == {7: ["one", "two"], 8: ["two"], 9: [], 11: []}


SCRIPT = """
import os
import torch

held = torch.load("data/fineweb_val_000000.bin")
passes = int(os.environ.get("ADAPT_PASSES", "PASSES"))

def adapt(net, held):
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    for _ in range(passes):
        loss = net(held[:-1], held[1:])
        loss.backward()
        optimizer.step()

def leave(net, held):
    pass

def rate(net, held):
    return net(held[:-1], held[1:]).item()

def main():
    net = torch.nn.Module()
    prepare = adapt if passes > 0 else leave
    prepare(net, held)
    bits = rate(net, held)
    print(f"final_exact val_loss:{bits:.8f} val_bpb:{bits:.8f}")

main()
"""


@pytest.mark.parametrize(("passes", "verdict"), [("2", "fail"), ("0", "pass")])
def test_training_behind_such_a_call_is_seen_and_its_switch_is_too(passes: str, verdict: str, tmp_path: Path) -> None:
    (tmp_path / "train_gpt.py").write_text(SCRIPT.replace('PASSES"))', f'{passes}"))'))
    (tmp_path / "README.md").write_text("A run.")
    audited = audit.audit_folder(tmp_path, audit.Options(frozenset({"PG601"})))
    assert audited.report is not None, audited.crashes
    (found,) = audited.report.findings
    assert found.verdict == verdict, found.message
