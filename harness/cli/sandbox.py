"""The `sandbox` command: which isolation is in force here, and what its canaries say."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli import arguments, output

if TYPE_CHECKING:
    from harness.sandbox.attacks import Attack, Result
    from harness.sandbox.backend import Sandbox

DESCRIPTION = """Try the kinds of isolation that this machine offers, the strongest first, with live tests from
inside, and say which one is in force. Untrusted code is run at L2 or above only."""


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("sandbox", help="show the isolation that is in force here", description=DESCRIPTION)
    parser.add_argument("--backend", choices=("bubblewrap", "landlock", "plain"), help="try this one only")
    parser.add_argument(
        "--attacks", type=arguments.place, metavar="DIR", help="run the hostile scripts of a folder in it too"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="what to print (default: text)")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Establish, attack if asked, and print; 1 when an attack came out otherwise than expected."""
    from harness.sandbox.attacks import load
    from harness.sandbox.establish import BACKENDS, establish

    chosen = tuple(one for one in BACKENDS if parsed.backend in {None, one.name})
    sandbox = establish(chosen)
    attacks = load(parsed.attacks) if parsed.attacks else []
    results = list(_attack(attacks, sandbox))
    render: Callable[[Sandbox, list[tuple[Attack, Result]]], str] = _json if parsed.format == "json" else _text
    output.say(render(sandbox, results))
    return output.EXIT_PASS if all(_expected(*pair, sandbox) for pair in results) else output.EXIT_FAIL


def _attack(attacks: list[Attack], sandbox: Sandbox) -> Iterator[tuple[Attack, Result]]:
    """Run those that may be run at this level."""
    from harness.sandbox.attacks import NOT_RUN, attempt

    with tempfile.TemporaryDirectory(prefix="harness-") as name:
        for attack in attacks:
            if attack.expected.get(sandbox.level, (NOT_RUN,)) != (NOT_RUN,):
                yield attack, attempt(attack, Path(name) / attack.path.stem, sandbox)


def _expected(attack: Attack, result: Result, sandbox: Sandbox) -> bool:
    return result.word in attack.expected[sandbox.level]


def _text(sandbox: Sandbox, results: list[tuple[Attack, Result]]) -> str:
    """For people."""
    from harness.report.plain import plain

    lines = [f"level {sandbox.level}: {sandbox.level.text}", f"backend: {sandbox.backend.name}"]
    lines += [f"not {name}: {plain(why)}" for name, why in sandbox.passed_over]
    if sandbox.level.trusted_only:
        lines.append("untrusted code is refused here, unless --allow-unsafe is given")
    lines += ["", "canaries:"]
    for one in sandbox.canaries:
        lines.append(f"  {'held' if one.held else 'FELL':<5} {one.name:<12} {plain(one.detail)}")
    if results:
        lines += ["", "attacks:"]
    for attack, result in results:
        mark = "" if _expected(attack, result, sandbox) else "  NOT AS EXPECTED"
        lines.append(f"  {result.word:<18} {attack.path.stem:<28} {plain('; '.join(result.reached))}{mark}".rstrip())
    return "\n".join(lines) + "\n"


def _json(sandbox: Sandbox, results: list[tuple[Attack, Result]]) -> str:
    """For programs."""
    told = {
        "level": str(sandbox.level),
        "text": sandbox.level.text,
        "backend": sandbox.backend.name,
        "untrusted_code": not sandbox.level.trusted_only,
        "canaries": [{"name": one.name, "held": one.held, "detail": one.detail} for one in sandbox.canaries],
        "passed_over": [{"backend": name, "reason": why} for name, why in sandbox.passed_over],
        "attacks": [
            {
                "name": attack.path.stem,
                "result": result.word,
                "reached": list(result.reached),
                "expected": _expected(attack, result, sandbox),
            }
            for attack, result in results
        ],
    }
    return json.dumps(told, indent=2) + "\n"
