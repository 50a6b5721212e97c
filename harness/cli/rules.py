"""The `rules` command: the catalogue, one rule's page, and the pages as files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from harness.cli import files, output


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("rules", help="list the rules, or explain one", description="The rules' catalogue.")
    parser.add_argument("code", nargs="?", metavar="CODE", help="print this rule's page, such as PG101")
    docs = parser.add_mutually_exclusive_group()
    docs.add_argument("--write-docs", type=Path, metavar="DIR", help="write one page for each rule, and an index")
    docs.add_argument("--check-docs", type=Path, metavar="DIR", help="exit with 1 when the pages there are stale")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """List, explain, write or compare."""
    from harness.checks import RULES
    from harness.checks.coverage import REQUIREMENTS
    from harness.model import HarnessError
    from harness.report import rulepages

    if parsed.write_docs is not None:
        return _write(parsed.write_docs, rulepages.pages(RULES, REQUIREMENTS))
    if parsed.check_docs is not None:
        return _check(parsed.check_docs, rulepages.pages(RULES, REQUIREMENTS))
    if parsed.code is None:
        width = max(len(rule.name) for rule in RULES)
        lines = [f"{rule.code}  {rule.name:<{width}}  {rule.status:<8}  {rulepages.parts(rule)[0]}" for rule in RULES]
        output.say("\n".join(lines) + "\n")
        return output.EXIT_PASS
    rule = next((rule for rule in RULES if rule.code == parsed.code.upper()), None)
    if rule is None:
        raise HarnessError(f"no rule {parsed.code!r}; `harness rules` lists them")
    output.say(rulepages.page(rule).removeprefix(f"{rulepages.MARK}\n\n"))
    return output.EXIT_PASS


def _changed(folder: Path, pages: Mapping[str, str]) -> list[str]:
    """Names of the pages that differ from those in the folder, either way."""
    standing = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    return sorted(name for name in pages.keys() | standing.keys() if pages.get(name) != standing.get(name))


def _check(folder: Path, pages: Mapping[str, str]) -> int:
    """Name the stale pages."""
    changed = _changed(folder, pages)
    for name in changed:
        output.say(f"{folder / name}: stale; run `harness rules --write-docs {folder}`\n")
    return output.EXIT_FAIL if changed else output.EXIT_PASS


def _write(folder: Path, pages: Mapping[str, str]) -> int:
    """Write the pages and remove those of rules that are gone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _changed(folder, pages):
        if name in pages:
            files.write(folder / name, pages[name])
        else:
            (folder / name).unlink()
    return output.EXIT_PASS
