"""A stand-in for a training script."""

import os

STEPS = int(os.environ.get("STEPS", "10"))


total = 0


def main() -> None:
    global total
    total = total + STEPS
    while True:
        if total:
            value = 1
            break
    print(value)


if __name__ == "__main__":
    main()
