"""A stand-in for a training script."""

import os

STEPS = int(os.environ.get("STEPS", "10"))


def main() -> None:
    for step in range(STEPS):
        print(step)
    print(final_score)


if __name__ == "__main__":
    main()
