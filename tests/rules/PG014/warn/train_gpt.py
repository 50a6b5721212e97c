"""A stand-in for a training script."""

import os

STEPS = int(os.environ.get("STEPS", "10"))


class Model:
    def __init__(self, width: int) -> None:
        self.width = width


def main() -> None:
    if STEPS > 100:
        print(Model(1, 2).width)


if __name__ == "__main__":
    main()
