"""`python -m reference_model`."""

import os
import sys

# A thread that spins while it waits takes the core from the one that works: with other programs on the machine,
# training is more than ten times slower. Torch reads this once, when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from reference_model.cli import command_line

sys.exit(command_line())
