"""`python -m reference_model`."""

import sys

from reference_model.cli import command_line

sys.exit(command_line())
