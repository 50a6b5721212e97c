"""A stand-in for a training script."""

import os

STEPS = int(os.environ.get("STEPS", "10"))


def unused() -> None:
    print(never_defined)


def main() -> None:
    try:
        profile
    except NameError:
        print([step for step in range(STEPS)], __file__)


if __name__ == "__main__":
    main()
