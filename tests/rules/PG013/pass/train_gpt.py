"""A stand-in for a training script."""

import os

STEPS = int(os.environ.get("STEPS", "10"))


class Base:
    def __init__(self) -> None:
        self.dim = 4


class Model(Base):
    heads: int = 2

    def score(self) -> int:
        return self.dim * self.heads + self.late


def main() -> None:
    model = Model()
    model.late = 3
    print(model.score())


if __name__ == "__main__":
    main()
