"""A stand-in for a training script."""

import os

STEPS = int(os.environ.get("STEPS", "10"))


class Model:
    def __init__(self) -> None:
        self.width = self.dim * 2


def main() -> None:
    print(Model().width)


if __name__ == "__main__":
    main()
