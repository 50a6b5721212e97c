"""A stand-in for a training script that no Python can parse."""

import os

SEED = int(os.environ.get("SEED", "1")
print(SEED)
