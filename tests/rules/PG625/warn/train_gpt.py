"""A stand-in for a training script: its evaluation covers tokens and predicts them from their neighbours."""

import os

import torch
import torch.nn.functional as F


class Layer(torch.nn.Module):
    def forward(self, x, is_causal=True):
        return F.scaled_dot_product_attention(x, x, x, is_causal=is_causal)


def evaluate(model, covered, tokens) -> float:
    loss_sum = 0.0
    with torch.no_grad():
        logits = model(covered, is_causal=False)
        loss = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="sum")
        loss_sum += loss.item()
    return loss_sum


if __name__ == "__main__":
    evaluate(None, None, None)
