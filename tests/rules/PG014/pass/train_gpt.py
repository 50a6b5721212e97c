"""A stand-in for a training script."""

import os

STEPS = int(os.environ.get("STEPS", "10"))


def scale(value: int, factor: int = 1, **others: int) -> int:
    return value * factor


def main() -> None:
    print(scale(STEPS, extra=2), scale(*[1, 2]))


if __name__ == "__main__":
    main()
