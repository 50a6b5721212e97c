"""A stand-in for a training script."""

import os
from math import *

STEPS = int(os.environ.get("STEPS", "10"))


def main() -> None:
    print(sqrt(STEPS))


if __name__ == "__main__":
    main()
