"""A stand-in for a training script."""

import os

STEPS = int(os.environ.get("STEPS", "10"))


def main() -> None:
    best = min(best, STEPS)
    print(best)


if __name__ == "__main__":
    main()
