"""A stand-in for a training script."""

import torch
import zlib
from torch import nn


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.mix = nn.Linear(dim, dim)


class Model(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.blocks = nn.ModuleList([Block(dim)])


def evaluate(model):
    return sum(float(each.sum()) for each in model.state_dict().values())


def main():
    model = Model(8)
    named = list(model.blocks.named_parameters())
    matrices = [p for n, p in named if p.ndim == 2 and "scale" not in n]
    vectors = [p for n, p in named if p.ndim < 2 or "scale" in n]
    optimizer = torch.optim.Adam(matrices + vectors)
    optimizer.step()
    torch.save(zlib.compress(bytes(8)), "model.bin")
    print(f"val_bpb:{evaluate(model)}")


if __name__ == "__main__":
    main()
