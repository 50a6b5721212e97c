"""docs/hymba.md is what its results give; and what a page says of made-up ones."""

from __future__ import annotations

from pathlib import Path

from reference_model.study.experiments import ELSEWHERE, EXPERIMENTS
from reference_model.study.page import Told, anchor, page
from reference_model.study.plots import data_digest, draw
from reference_model.study.publish import drawn_from, listing, plot_path, publish, stale
from reference_model.study.results import append_results
from tests.test_study_results import EXPERIMENT, result

DOCS = Path(__file__).resolve().parent.parent / "docs"
RESULTS = [
    *(result("a", seed, value) for seed, value in ((1, 2.0), (2, 2.01), (3, 2.02))),
    *(result("b", seed, value) for seed, value in ((1, 3.0), (2, 3.01), (3, 3.02))),
]


def test_the_page_is_that_of_the_results() -> None:
    told = "run `python -m reference_model study page`"
    assert list(stale(EXPERIMENTS, DOCS / "hymba" / "results.jsonl", DOCS / "hymba.md")) == [], told


def test_every_plot_belongs_to_an_experiment() -> None:
    names = {f"{experiment.name}.svg" for experiment in EXPERIMENTS}
    assert {path.name for path in (DOCS / "hymba").glob("*.svg")} <= names


def test_a_page_of_results() -> None:
    text = page([EXPERIMENT], ELSEWHERE, RESULTS)
    assert "**1 of 1 experiments have been run**, 6 runs" in text
    assert "| [toy](#a-toy) | #599 | a is below b. | replicates at this scale |" in text
    assert "Runs of 30 tokens, seeds 1, 2, 3, code `c`, on m." in text
    assert "| a |  | 3 | 9 | 4 | 3 | 2.0100 ± 0.0100 | 0.10000 |  |  |" in text
    row = next(line for line in text.splitlines() if line.startswith("| b | `WEIGHT_DECAY=0` | 3 | "))
    assert row.endswith("| +1.0000 [+0.9773, +1.0227] | yes |")
    assert "- a is below b. *Replicates at this scale* (int6, BPB, a less b: -1.0000 [-1.0227, -0.9773])." in text
    assert "![A toy](hymba/toy.svg)" in text


def test_a_page_of_one_seed_tells_nothing() -> None:
    text = page([EXPERIMENT], (), [RESULTS[0], RESULTS[3]])
    assert "| a is below b. | cannot be told |" in text
    assert "[-inf, +inf] | no |" in text


def test_a_page_without_results_says_so() -> None:
    text = page(EXPERIMENTS, ELSEWHERE, [])
    assert "**Nothing has been run yet**" in text
    assert text.count("**Not run.**") == len(EXPERIMENTS)
    assert "replicates at this scale |" not in text
    assert "48.2 s" in text


def test_half_a_study_names_what_is_missing() -> None:
    text = page([EXPERIMENT, EXPERIMENTS[0]], (), RESULTS)
    assert f"Not run: `{EXPERIMENTS[0].name}`." in text


def test_anchors_are_those_of_headings() -> None:
    assert anchor("Context from 256 to 8,192") == "context-from-256-to-8192"
    assert anchor("A (b) - c") == "a-b---c"


def test_a_plot_is_text_and_names_its_numbers() -> None:
    panels = Told.of(EXPERIMENT, RESULTS).panels()
    text = draw(panels)
    assert text == draw(panels)
    assert f"<dc:description>{data_digest(panels)}</dc:description>" in text
    assert ">int6, BPB</text>" in text
    assert len(text) < 30_000


def test_publishing_writes_page_and_plots_and_is_then_current(tmp_path: Path) -> None:
    results, target = tmp_path / "results.jsonl", tmp_path / "page.md"
    path = plot_path(target, EXPERIMENT)
    assert list(stale([EXPERIMENT], results, target)) == ["page.md"]
    append_results(results, RESULTS[:5])
    path.parent.mkdir()
    publish([EXPERIMENT], results, target)
    assert list(stale([EXPERIMENT], results, target)) == []
    first = drawn_from(path)
    append_results(results, RESULTS[5:])
    assert list(stale([EXPERIMENT], results, target)) == ["page.md", "toy.svg"]
    publish([EXPERIMENT], results, target)
    assert list(stale([EXPERIMENT], results, target)) == []
    assert drawn_from(path) != first
    results.unlink()
    publish([EXPERIMENT], results, target)
    assert not path.exists()


def test_the_list_says_how_long_it_takes() -> None:
    lines = listing([EXPERIMENT], 30.0, 2).splitlines()
    assert lines[0] == "toy               4 trainings of 30 s' worth (180,000 tokens): A toy"
    assert lines[1] == "2 minutes of training in one thread, without scoring"
    ttt = next(one for one in EXPERIMENTS if one.name == "ttt")
    assert listing([ttt], 30.0, 2).startswith("ttt               2 trainings")


def test_headings_are_unique_links() -> None:
    assert len({anchor(one.title) for one in EXPERIMENTS}) == len(EXPERIMENTS)
