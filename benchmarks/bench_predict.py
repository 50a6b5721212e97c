"""Cost of predicting a token by itself, as a decoder must: early and late in a text, by preset.

    python benchmarks/bench_predict.py [--presets demo,demo_attention] [--positions 512,4096] [--tokens 200]

Random weights, one thread, no test-time training. Prints for each preset milliseconds per token (wall and processor
time) behind so many tokens of one window, the ratio to the first position, and to a token of the whole window at once.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import torch

from reference_model.memory import Memory
from reference_model.model import HymbaLM
from reference_model.presets import PRESETS

PREFILL_TOKENS = 512


@dataclass(frozen=True)
class Cost:
    """Seconds of one token."""

    wall_s: float
    processor_s: float


def per_token(model: HymbaLM, memory: Memory, tokens: int) -> Cost:
    token = torch.ones(1, 1, dtype=torch.int64)
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(tokens):
        model(token, memory)[0, -1].log_softmax(-1)
    return Cost((time.perf_counter() - wall) / tokens, (time.process_time() - processor) / tokens)


def behind(model: HymbaLM, position: int) -> Memory:
    """A memory of so many tokens."""
    memory = model.new_memory()
    for start in range(0, position, PREFILL_TOKENS):
        model(torch.ones(1, min(PREFILL_TOKENS, position - start), dtype=torch.int64), memory)
    return memory


def at_once(model: HymbaLM) -> float:
    """Processor seconds of a token in a pass over a whole window."""
    tokens = torch.ones(1, PREFILL_TOKENS, dtype=torch.int64)
    model(tokens)
    start = time.process_time()
    model(tokens)
    return (time.process_time() - start) / PREFILL_TOKENS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", default="demo,demo_attention")
    parser.add_argument("--positions", default="512,4096")
    parser.add_argument("--tokens", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("preset           position  ms/token  processor ms  to first  to a token at once")
    for preset in arguments.presets.split(","):
        model = HymbaLM(PRESETS[preset].model).eval()
        with torch.no_grad():
            parallel, first = at_once(model), 0.0
            for position in map(int, arguments.positions.split(",")):
                cost = per_token(model, behind(model, position), arguments.tokens)
                first = first or cost.processor_s
                ratios = f"{cost.processor_s / first:8.2f}  {cost.processor_s / parallel:18.1f}"
                print(f"{preset:16} {position:8}  {1e3 * cost.wall_s:8.2f}  {1e3 * cost.processor_s:12.2f}  {ratios}")


if __name__ == "__main__":
    main()
