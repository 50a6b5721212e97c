"""A stand-in."""

import os
import time

from helper import TABLE

SEED = int(os.environ.get("SEED", "1"))
ITERATIONS = int(os.environ.get("ITERATIONS", "20000"))


def main() -> None:
    start = time.perf_counter()
    loss = 4.0
    for step in range(ITERATIONS):
        loss -= 1e-4 * (step + SEED) % 3
    print(f"step:{ITERATIONS}/{ITERATIONS} train_time:{1000 * (time.perf_counter() - start):.0f}ms loss:{loss}")


if __name__ == "__main__":
    main()
