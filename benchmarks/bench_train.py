"""A training step against its matrix products alone, and against itself at another context, each in one run.

    python benchmarks/bench_train.py [--presets demo,pr599] [--rounds 5] [--threads 2] [--contexts 2048,32768]

For each preset prints the step's milliseconds and tokens per second; the same matrix products (those of the backward
pass and of Muon's iteration included, and those inside attention, a causal one's at half of its square: same shapes,
same type) alone, and their share of the step; and the model's own products over the step's time as a share of the best
rate that a square product reaches here.
Then, for the demo with a window of 512 and equal tokens a step, the cost per token by context. Wall and processor time:
with other programs on the machine the second is the steadier one. Start it with OMP_WAIT_POLICY=PASSIVE.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from products import peak_flops, recorded
from timing import Seconds, measured

from reference_model.config import Config, ModelConfig
from reference_model.main import build_model
from reference_model.optim import build_optimizers
from reference_model.presets import PRESETS
from reference_model.schedule import muon_momentum

# Presets of the full size take one short step here, not half a million tokens.
MOST_TOKENS, LONGEST = 4_096, 2_048
CONTEXT_WINDOW = 512
FAST = {"scan_backend": "auto", "conv_backend": "auto", "elementwise_backend": "auto"}
PLAIN = dict.fromkeys(FAST, "torch")


class Step:
    """A preset's training step on random tokens: forward, backward, update."""

    def __init__(self, config: Config, tokens: int, length: int) -> None:
        self.config, self.tokens = config, tokens
        self.model = build_model(config, "cpu")
        self.optimizers = build_optimizers(self.model, config)
        self.batch = torch.randint(config.model.vocab_size, (tokens // length, length + 1))

    def learn(self) -> None:
        """Forward and backward."""
        loss = self.model.token_losses(self.batch[:, :-1], self.batch[:, 1:]).mean()
        loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch

    def update(self) -> None:
        """Step of all optimizers."""
        self.optimizers.step(0.1, muon_momentum(self.config.optim, 0))

    def __call__(self) -> None:
        """All of it."""
        self.learn()
        self.update()


def ratios(part: Seconds, whole: Seconds) -> str:
    return f"{100 * part.wall / whole.wall:5.1f}% (processor time {100 * part.processor / whole.processor:5.1f}%)"


def compare_with_products(preset: str, settings: dict[str, Any], rounds: int) -> None:
    """Print the share of a step's matrix products."""
    config = PRESETS[preset]
    config = replace(config, model=replace(config.model, **settings))
    length = min(config.train.train_seq_len, LONGEST)
    step = Step(config, min(config.train.train_batch_tokens, MOST_TOKENS), length)
    step()
    model_products, update_products = recorded(step.learn), recorded(step.update)
    squares = peak_flops(torch.float32)
    actions: dict[str, Callable[[], object]] = {
        "step": step,
        "model's": model_products.alone(),
        "update's": update_products.alone(),
        **{name: action for name, (action, _) in squares.items()},
    }
    took = measured(actions, rounds)
    products = Seconds(
        took["model's"].wall + took["update's"].wall, took["model's"].processor + took["update's"].processor
    )
    peak = max(flops / took[name].wall for name, (_, flops) in squares.items())
    count, seconds, updates = sum(p.numel() for p in step.model.parameters()), took["step"], took["update's"]
    print(f"{preset}: {count:,} parameters, {step.tokens} tokens in sequences of {length}")
    print(f"  step              {1e3 * seconds.wall:9.1f} ms, {step.tokens / seconds.wall:9,.0f} tokens/s")
    print(f"  products alone    {1e3 * products.wall:9.1f} ms, {ratios(products, seconds)} of the step")
    print(f"  the update's part {1e3 * updates.wall:9.1f} ms, {ratios(updates, seconds)}")
    used = model_products.flops / seconds.wall
    print(
        f"  model's {model_products.flops / 1e9:.2f} GFLOP at {used / 1e9:.1f} GFLOP/s: "
        f"{100 * used / peak:.1f}% of the best square product's {peak / 1e9:.1f} GFLOP/s"
    )


def compare_contexts(lengths: list[int], settings: dict[str, Any], rounds: int) -> None:
    """Print the cost per token by context, at equal tokens a step."""
    demo = PRESETS["demo"]
    model: ModelConfig = replace(demo.model, sliding_window=CONTEXT_WINDOW, **settings)
    steps = {f"{length}": Step(replace(demo, model=model), max(lengths), length) for length in lengths}
    took = measured(steps, rounds)
    first = took[f"{lengths[0]}"]
    print(f"demo with a window of {CONTEXT_WINDOW}, {max(lengths)} tokens a step")
    for length in lengths:
        each = took[f"{length}"]
        print(
            f"  context {length:>6}: {1e6 * each.wall / max(lengths):7.1f} us per token, "
            f"ratio {each.wall / first.wall:.3f} (processor time {each.processor / first.processor:.3f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", default="demo,pr599")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--contexts", default="2048,32768", help="context lengths, or nothing")
    parser.add_argument("--plain", action="store_true", help="PyTorch's operators alone, nothing compiled")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = PLAIN if arguments.plain else FAST
    told = ", ".join(f"{name} {value}" for name, value in settings.items())
    print(f"{torch.get_num_threads()} threads, {told}")
    for preset in filter(None, arguments.presets.split(",")):
        compare_with_products(preset, settings, arguments.rounds if preset == "demo" else 2)
    if lengths := [int(length) for length in arguments.contexts.split(",") if length]:
        compare_contexts(lengths, settings, min(arguments.rounds, 3))


if __name__ == "__main__":
    main()
