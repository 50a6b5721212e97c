"""The `rules` command: the catalogue, one rule's page, and the pages as files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from harness.cli import arguments, files, output
from harness.model import HarnessError


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("rules", help="list the rules, or explain one", description="The rules' catalogue.")
    parser.add_argument("code", nargs="?", metavar="CODE", help="print this rule's page, such as PG101")
    docs = parser.add_mutually_exclusive_group()
    docs.add_argument(
        "--write-docs", type=arguments.place, metavar="DIR", help="write one page for each rule, and an index"
    )
    docs.add_argument(
        "--check-docs", type=arguments.place, metavar="DIR", help="exit with 1 when the pages there are stale"
    )
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """List, explain, write or compare."""
    from harness.checks import RULES
    from harness.checks.coverage import REQUIREMENTS
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


def _standing(folder: Path) -> dict[str, str]:
    """The Markdown files of a folder by name; what is no text of ours differs from every page.

    Raises:
        HarnessError: the folder or a file in it cannot be read, or a directory has a page's ending.
    """
    try:
        return {path.name: path.read_bytes().decode("utf-8", "replace") for path in sorted(folder.glob("*.md"))}
    except OSError as error:
        raise HarnessError(f"{error.filename}: cannot be read ({error.strerror})") from error


def _changed(folder: Path, pages: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Names of pages that are absent or other than they should be, and of generated ones that should not be there.

    Files without the mark of a generated page are somebody else's.
    """
    from harness.report.rulepages import GENERATED

    standing = _standing(folder)
    differing = sorted(name for name, text in pages.items() if standing.get(name) != text)
    gone = [name for name, text in standing.items() if name not in pages and text.startswith(GENERATED)]
    return differing, gone


def _check(folder: Path, pages: Mapping[str, str]) -> int:
    """Name the stale pages."""
    if not folder.is_dir():
        raise HarnessError(f"{folder}: not a folder")
    differing, gone = _changed(folder, pages)
    for name in sorted([*differing, *gone]):
        output.say(f"{folder / name}: stale; run `harness rules --write-docs {folder}`\n")
    return output.EXIT_FAIL if differing or gone else output.EXIT_PASS


def _write(folder: Path, pages: Mapping[str, str]) -> int:
    """Write the pages and remove those of rules that are gone."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HarnessError(f"{folder}: cannot be made ({error.strerror})") from error
    differing, gone = _changed(folder, pages)
    for name in differing:
        files.write(folder / name, pages[name])
    for name in gone:
        (folder / name).unlink()
    return output.EXIT_PASS
