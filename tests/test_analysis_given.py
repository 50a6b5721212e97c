"""Weights that a script is given before it trains on them, and its own that it puts back."""

from __future__ import annotations

import pytest

from harness.analysis.configuration import Configuration
from harness.analysis.given import starts_from_others
from harness.analysis.reach import Reach
from harness.model import Location
from tests.test_analysis_configuration import program

SCRIPT = """
    import copy, os, torch
    def main():
        net = Net()
        {before}
        net(rows).backward()
        {after}
    main()
"""
LOAD = "net.load_state_dict(torch.load('artifact.bin'))"


@pytest.mark.parametrize(
    ("before", "after", "given"),
    [
        (LOAD, "pass", True),
        ("state = torch.load('artifact.bin'); net.load_state_dict(state)", "pass", True),
        # A round trip of the artifact, the state from before a warm-up, a checkpoint that no run goes on from.
        ("pass", LOAD, False),
        ("held = {k: v.clone() for k, v in net.state_dict().items()}; net.load_state_dict(held)", "pass", False),
        (f"if os.environ.get('RESUME', ''): {LOAD}", "pass", False),
    ],
)
def test_weights_from_elsewhere_are_told_from_its_own(before: str, after: str, *, given: bool) -> None:
    made = program(SCRIPT.format(before=before, after=after))
    place = Location(made.entry.at(None).path, 6)
    assert starts_from_others(made, Reach(made, Configuration(made)), place) is given
