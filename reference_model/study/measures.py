"""Names, units and digits of what is measured: what tables, plots and sentences have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """How a measure is written.

    Attributes:
        title: Column head and axis.
        digits: After the point.
    """

    title: str
    digits: int

    def number(self, value: float) -> str:
        """The value, or a dash where there is none."""
        return f"{value:,.{self.digits}f}" if math.isfinite(value) else "-"


MEASURES = {
    "float_bpb": Measure("float, BPB", 4),
    "int8_bpb": Measure("int8, BPB", 4),
    "int6_bpb": Measure("int6, BPB", 4),
    "int8_gap": Measure("int8 less float, BPB", 5),
    "int6_gap": Measure("int6 less float, BPB", 5),
    "same_bpb": Measure("int6 on the tokens of TTT, BPB", 4),
    "ttt_bpb": Measure("int6 + TTT, BPB", 4),
    "ttt_s": Measure("TTT, s", 1),
    "ms_per_step": Measure("ms per step", 1),
    "peak_mib": Measure("peak MiB", 0),
    "int8_bytes": Measure("int8, bytes", 0),
    "int6_bytes": Measure("int6, bytes", 0),
    "parameters": Measure("parameters", 0),
    "computing": Measure("without tables", 0),
    "steps": Measure("steps", 0),
}
