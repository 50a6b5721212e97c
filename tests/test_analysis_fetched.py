"""The network in the evaluation, told from the network before it."""

from __future__ import annotations

import pytest

from harness.analysis.configuration import Configuration
from harness.analysis.fetched import Fetching
from harness.analysis.origins import Origins
from harness.analysis.reach import Reach
from tests.test_analysis_configuration import program

SCRIPT = """
    import os
    import urllib.request
    from datasets import load_dataset
    def fit(net, rows):
        for row in rows:
            net(row).backward()
    def rate(net, texts):
        {inside}
        return sum(net(text) for text in texts)
    def main():
        net, rows = Net(), read("data/fineweb_train_*.bin")
        {before}
        fit(net, rows)
        if os.environ.get("RANK", "0") == "0":
            {after}
            bits = rate(net, texts)
            print(f"final val_bpb:{{bits:.4f}}")
    main()
"""
FETCH = 'texts = [row["text"] for row in load_dataset("someone/some-text", streaming=True).take(50)]'
DOWNLOAD = 'urllib.request.urlretrieve("https://example.org/a.bin", "a.bin")'
READ = 'texts = read("data/fineweb_val_*.bin")'
IN_EVALUATION = {
    "text that is fetched after training": ("pass", "pass", FETCH),
    "through a name": ("pass", "pass", 'page = urllib.request.urlopen("http://example.org"); texts = list(page)'),
    "a scoring function that fetches": (DOWNLOAD, "pass", READ),
}
BEFORE = {
    "text that is fetched before training": ("pass", FETCH, "pass"),
    "a file before training": ("pass", DOWNLOAD, READ),
    "something that the score does not need": ("pass", "pass", f"{DOWNLOAD}; {READ}"),
    "only where the file is missing": (f'if not os.path.exists("a.bin"): {DOWNLOAD}', "pass", READ),
    "files by the loader's own name": ("pass", "pass", 'texts = load_dataset("json", data_files="a.json")'),
    "one way of two": ("pass", "pass", f"{READ}\n            if not texts: {FETCH}"),
}


def fetches(inside: str, before: str, after: str) -> int:
    made = program(SCRIPT.format(inside=inside, before=before, after=after))
    reach = Reach(made, Configuration(made))
    return len(list(Fetching(made, reach, Origins(made, reach.skipped)).all()))


@pytest.mark.parametrize("lines", IN_EVALUATION.values(), ids=IN_EVALUATION)
def test_the_score_is_made_of_what_the_network_gives(lines: tuple[str, str, str]) -> None:
    assert fetches(*lines) == 1


@pytest.mark.parametrize("lines", BEFORE.values(), ids=BEFORE)
def test_what_may_be_fetched_before_the_evaluation_is_left_alone(lines: tuple[str, str, str]) -> None:
    assert fetches(*lines) == 0
