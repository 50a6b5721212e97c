"""A stand-in for a training script."""

import os

STEPS = int(os.environ.get("STEPS", "10"))


def main() -> None:
    if os.environ.get("SLOW"):
        slow_evaluation()


if __name__ == "__main__":
    main()
