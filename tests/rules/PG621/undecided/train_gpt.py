"""A stand-in for a training script: its evaluation blends a row of counts into the score."""

import os

import torch

BUCKETS = 1 << 20
CACHE = bool(int(os.environ["CACHE"]))


def evaluate(model, table, totals, inputs, targets, vocab_size) -> float:
    loss_sum = 0.0
    candidates = torch.arange(vocab_size)
    with torch.no_grad():
        context = (inputs * 31) % BUCKETS
        row = table[(context[:, None] * 1009 + candidates[None, :]) % BUCKETS].float()
        share = row.gather(1, targets[:, None]).squeeze(1) / totals[context].float().clamp(min=1)
        mixed = 0.9 * model(inputs, targets) + 0.1 * share if CACHE else model(inputs, targets)
        loss_sum -= torch.log(mixed).sum().item()
    return loss_sum


if __name__ == "__main__":
    evaluate(None, None, None, None, None, 1024)
