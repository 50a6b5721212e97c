"""How long a probe may take, if nothing else is said; apart, so that a command line can tell it without the probe."""

from __future__ import annotations

from typing import Final

# Wall time of one run, and of all runs of one folder.
RUN_SECONDS: Final = 240.0
TOTAL_SECONDS: Final = 1_800.0
