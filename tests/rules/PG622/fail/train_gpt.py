"""A stand-in for a training script: its evaluation has two passes over the same tokens."""

import os

import torch
import torch.nn.functional as F


def evaluate(first, second, inputs, targets) -> float:
    loss_sum = 0.0
    with torch.no_grad():
        nll_first = F.cross_entropy(first(inputs), targets, reduction="none")
        nll_second = F.cross_entropy(second(inputs), targets, reduction="none")
        nll = torch.minimum(nll_first, nll_second)
        loss_sum += nll.sum().item()
    return min(loss_sum, 1e9)


if __name__ == "__main__":
    evaluate(None, None, None, None)
