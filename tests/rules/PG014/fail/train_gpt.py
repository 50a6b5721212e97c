"""A stand-in for a training script."""

import os

STEPS = int(os.environ.get("STEPS", "10"))


def scale(value: int, *, factor: int) -> int:
    return value * factor


def main() -> None:
    print(scale(STEPS))


if __name__ == "__main__":
    main()
