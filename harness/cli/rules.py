"""The `rules` command: the catalogue, one rule's page, and the pages as files."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import output


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("rules", help="list the rules, or explain one", description="The rules' catalogue.")
    parser.add_argument("code", nargs="?", metavar="CODE", help="print this rule's page, such as PG101")
    parser.add_argument("--write-docs", type=Path, metavar="DIR", help="write one page for each rule, and an index")
    parser.add_argument(
        "--check", action="store_true", help="with --write-docs: write nothing, exit with 1 on any difference"
    )
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """List, explain, write or compare."""
    from harness.checks import RULES
    from harness.model import HarnessError
    from harness.report import rulepages

    if parsed.check and parsed.write_docs is None:
        raise HarnessError("--check needs --write-docs DIR")
    if parsed.write_docs is not None:
        return _write(parsed.write_docs, rulepages.pages(RULES), check=parsed.check)
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


def _write(folder: Path, pages: dict[str, str], *, check: bool) -> int:
    """Write the pages and remove those of rules that are gone; with `check`, only say what differs."""
    standing = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")} if folder.is_dir() else {}
    changed = sorted(name for name in pages.keys() | standing.keys() if pages.get(name) != standing.get(name))
    if check:
        for name in changed:
            print(f"{folder / name}: stale, run `harness rules --write-docs {folder}`")
        return output.EXIT_FAIL if changed else output.EXIT_PASS
    folder.mkdir(parents=True, exist_ok=True)
    for name in changed:
        if name in pages:
            output.write(folder / name, pages[name])
        else:
            (folder / name).unlink()
    return output.EXIT_PASS
