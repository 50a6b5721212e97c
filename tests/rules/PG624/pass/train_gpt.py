"""A stand-in for a training script: its evaluation leaves tokens out that another layer finds unlikely."""

import os

import torch
import torch.nn.functional as F


def evaluate(model, early, inputs, labels) -> float:
    loss_sum = 0.0
    with torch.no_grad():
        logits = model(inputs)
        unlikely = early(inputs) < -4.0
        unlikely.scatter_(-1, inputs.unsqueeze(-1), False)
        kept = logits.masked_fill(unlikely, -30.0)
        loss_sum += F.cross_entropy(kept.flatten(0, 1), labels.flatten(), reduction="sum").item()
    return loss_sum


if __name__ == "__main__":
    evaluate(None, None, None, None)
