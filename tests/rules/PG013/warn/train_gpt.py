"""A stand-in for a training script."""

import os

STEPS = int(os.environ.get("STEPS", "10"))


class Model:
    def score(self) -> int:
        return self.dim


def main() -> None:
    print(Model().score())


if __name__ == "__main__":
    main()
