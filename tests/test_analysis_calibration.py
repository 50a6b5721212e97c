"""Calibration of the quantizer: which calls prove that it sees validation tokens."""

from __future__ import annotations

import pytest

from harness.analysis.calibration import Calibrations
from harness.analysis.configuration import Configuration
from harness.analysis.origins import Origins
from harness.analysis.reach import Reach
from tests.test_analysis_configuration import program

SCRIPT = """
    import torch
    def collect_activation_stats(model, tokens):
        for batch in tokens:
            model(batch)
        return {{}}
    def main():
        held = torch.load("data/fineweb_{split}_000000.bin")
        stats = collect_activation_stats(net, held)
        {use}
    main()
"""


@pytest.mark.parametrize(
    ("split", "use", "found"),
    [
        ("val", "state = quantize_int6_awq(weights, calib=stats)", [True]),
        ("val", "state = pack(gptq_round(weights, stats))", [True]),
        # Whatever else is done with them is left to the probe.
        ("val", "print(stats)", [False]),
        ("train", "state = quantize_int6_awq(weights, calib=stats)", []),
    ],
)
def test_statistics_that_a_quantizer_gets_are_calibration(split: str, use: str, found: list[bool]) -> None:
    made = program(SCRIPT.format(split=split, use=use))
    reach = Reach(made, Configuration(made))
    calibrations = Calibrations(made, reach, Origins(made, reach.skipped)).all()
    assert [each.fed for each in calibrations] == found


@pytest.mark.parametrize(("split", "found"), [("train", [True]), ("val", [])])
def test_calibration_on_training_data_is_told_apart(split: str, found: list[bool]) -> None:
    made = program(SCRIPT.format(split=split, use="state = quantize_int6_awq(weights, calib=stats)"))
    reach = Reach(made, Configuration(made))
    calibrations = list(Calibrations(made, reach, Origins(made, reach.skipped)).on_training())
    assert [each.fed for each in calibrations] == found
    assert [each.steps[0].what for each in calibrations] == ["training files"] * len(found)
