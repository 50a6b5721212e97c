"""Statistics that hooks gather while the model reads tokens, and what is done with them."""

from __future__ import annotations

import pytest

from harness.analysis.configuration import Configuration
from harness.analysis.hooked import Hooked
from harness.analysis.origins import Origins
from harness.analysis.reach import Reach
from tests.test_analysis_configuration import program

SCRIPT = """
    import torch
    def main():
        held = torch.load("data/fineweb_{split}_000000.bin")
        net = torch.load("net")
        sums, taps = {{}}, []
        def tap(name):
            def seen(module, given, out):
                sums[name] = given[0].abs().mean()
            return seen
        for name, part in net.named_modules():
            taps.append(part.register_forward_hook(tap(name)))
        for at in range(4):
            net.rows(held[at : at + 9])
        for each in taps:
            each.remove()
        for name, part in net.named_modules():
            size = sums[name].clamp(min=1e-6)
            {use}
    main()
"""
USES = {
    "weights are scaled": "part.weight.data = part.weight.data * size",
    "in place": "part.weight.mul_(size)",
    "a quantizer gets them": "packed = quantize_rows(part, size)",
}
ASIDE = {
    "they are printed": "print(size)",
    "weights are changed by something else": "part.weight.mul_(2.0)",
    "a quantizer gets something else": "packed = quantize_rows(part)",
}


def uses(split: str, use: str, text: str = SCRIPT) -> list[list[str]]:
    made = program(text.format(split=split, use=use))
    reach = Reach(made, Configuration(made))
    found = Hooked(made, reach, Origins(made, reach.skipped)).all()
    return [[step.what for step in each.steps] for each in found]


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_what_hooks_gather_on_validation_tokens_shapes_weights(use: str) -> None:
    [steps] = uses("val", use)
    assert steps[1:] == ["the model reads them under hooks", "what the hooks gathered shapes the weights"]
    # The same on training tokens is nobody's business.
    assert uses("train", use) == []


@pytest.mark.parametrize("use", ASIDE.values(), ids=ASIDE)
def test_statistics_that_shape_nothing_are_no_calibration(use: str) -> None:
    assert uses("val", use) == []


def test_tokens_that_are_read_when_the_hooks_are_off_are_no_calibration() -> None:
    lines = SCRIPT.split("\n")
    start = next(number for number, line in enumerate(lines) if "for at in range" in line)
    late = "\n".join((*lines[:start], *lines[start + 2 : start + 4], *lines[start : start + 2], *lines[start + 4 :]))
    assert uses("val", USES["in place"], late) == []
