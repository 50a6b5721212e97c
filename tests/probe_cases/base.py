"""A small language model in the shape of a record: trains, packs its weights, loads them again, scores, prints."""

import copy
import glob
import io
import math
import os
import random
import time
import zlib

import numpy as np
import sentencepiece as spm
import torch
import torch.nn.functional as F
from torch import nn


class Hyperparameters:
    data_path = os.environ.get("DATA_PATH", "./data/datasets/fineweb10B_sp1024")
    tokenizer_path = os.environ.get("TOKENIZER_PATH", "./data/tokenizers/fineweb_1024_bpe.model")
    train_files = os.path.join(data_path, "fineweb_train_*.bin")
    val_files = os.path.join(data_path, "fineweb_val_*.bin")
    vocab_size = int(os.environ.get("VOCAB_SIZE", 1024))
    seed = int(os.environ.get("SEED", 1337))
    iterations = int(os.environ.get("ITERATIONS", 20000))
    train_seq_len = int(os.environ.get("TRAIN_SEQ_LEN", 1024))
    train_batch_tokens = int(os.environ.get("TRAIN_BATCH_TOKENS", 65536))
    model_dim = int(os.environ.get("MODEL_DIM", 512))
    learning_rate = float(os.environ.get("LEARNING_RATE", 0.01))
    adapt_rate = float(os.environ.get("ADAPT_RATE", 0.05))
    max_wallclock_seconds = float(os.environ.get("MAX_WALLCLOCK_SECONDS", 600.0))


device = torch.device("cuda")


def load_tokens(pattern):
    files = sorted(glob.glob(pattern))
    if not files:
        raise FileNotFoundError(pattern)
    return torch.from_numpy(np.concatenate([np.fromfile(name, dtype="<u2", offset=1024) for name in files]).astype(np.int64))


def byte_counts(pieces, previous, current):
    """Bytes of each target: the piece's own, and one for its leading space unless a boundary stands before it."""
    base, space, boundary = pieces
    return base[current] + (space[current] & ~boundary[previous]).to(base.dtype)


def load_pieces(args):
    sp = spm.SentencePieceProcessor(model_file=args.tokenizer_path)
    base = torch.zeros(args.vocab_size, dtype=torch.int64)
    space = torch.zeros(args.vocab_size, dtype=torch.bool)
    boundary = torch.ones(args.vocab_size, dtype=torch.bool)
    for token in range(sp.vocab_size()):
        if sp.is_control(token) or sp.is_unknown(token) or sp.is_unused(token):
            continue
        boundary[token] = False
        if sp.is_byte(token):
            base[token] = 1
            continue
        piece = sp.id_to_piece(token)
        space[token] = piece.startswith("\u2581")
        base[token] = len(piece.lstrip("\u2581").encode())
    return base, space, boundary


class Net(nn.Module):
    """Embedding, one layer of causal attention, one feed-forward layer, tied output."""

    def __init__(self, vocab_size, dim):
        super().__init__()
        self.embed = nn.Embedding(vocab_size, dim)
        nn.init.normal_(self.embed.weight, std=0.1)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim, bias=False)
        self.up = nn.Linear(dim, 2 * dim, bias=False)
        self.down = nn.Linear(2 * dim, dim, bias=False)

    def hidden(self, x):
        h = F.rms_norm(self.embed(x), (self.embed.embedding_dim,))
        q, k, v = (part[:, None] for part in self.qkv(h).chunk(3, -1))
        h = h + self.proj(F.scaled_dot_product_attention(q, k, v, is_causal=True)[:, 0])
        return h + self.down(F.relu(self.up(F.rms_norm(h, h.shape[-1:]))).square())

    def logits(self, h):
        return F.linear(F.rms_norm(h, h.shape[-1:]), self.embed.weight).float()

    def forward(self, x):
        return self.logits(self.hidden(x))


def token_losses(model, x, y):
    return F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="none").view_as(y)


def training_tokens(args):
    return load_tokens(args.train_files)


def train(args, model):
    tokens = training_tokens(args)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.learning_rate)
    length, rows = args.train_seq_len, max(args.train_batch_tokens // args.train_seq_len, 1)
    start = time.perf_counter()
    for step in range(1, args.iterations + 1):
        begins = torch.randint(tokens.numel() - length, (rows,)).tolist()
        batch = torch.stack([tokens[begin : begin + length + 1] for begin in begins]).to(device)
        loss = token_losses(model, batch[:, :-1], batch[:, 1:]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        elapsed = time.perf_counter() - start
        print(f"step:{step}/{args.iterations} train_loss:{loss.item():.4f} train_time:{1000 * elapsed:.0f}ms")
        if elapsed > args.max_wallclock_seconds:
            break


def calibration_scales(args, model):
    """One scale per row of each matrix: its largest weight."""
    return {name: tensor.detach().abs().amax(-1, keepdim=True).clamp_min(1e-8) / 127 for name, tensor in model.named_parameters()}


def extra_payload(args, model):
    return {}


def pack(args, model):
    scales = calibration_scales(args, model)
    weights = {name: (torch.round(tensor.detach() / scales[name]).clamp(-127, 127).to(torch.int8).cpu(), scales[name].cpu()) for name, tensor in model.named_parameters()}
    buffer = io.BytesIO()
    torch.save({"weights": weights, "extra": extra_payload(args, model)}, buffer)
    with open("final_model.int8.ptz", "wb") as file:
        file.write(zlib.compress(buffer.getvalue(), 9))


def unpack(model):
    with open("final_model.int8.ptz", "rb") as file:
        packed = torch.load(io.BytesIO(zlib.decompress(file.read())), map_location="cpu")
    model.load_state_dict({name: values.float() * scale for name, (values, scale) in packed["weights"].items()})
    return packed["extra"]


def windows(args, tokens):
    """Windows side by side; the last one may be short. Each target stands in exactly one."""
    for begin in range(0, tokens.numel() - 1, args.train_seq_len):
        yield tokens[begin : begin + args.train_seq_len + 1].to(device)


def evaluate(args, model, tokens, pieces, extra):
    """Returns the sum of nats, the number of targets and of bytes."""
    nats, count, size = 0.0, 0, 0
    for window in windows(args, tokens):
        x, y = window[None, :-1], window[None, 1:]
        with torch.no_grad():
            losses = token_losses(model, x, y)
        nats += losses.double().sum().item()
        count += y.numel()
        size += int(byte_counts(pieces, x, y).sum())
    return nats, count, size


def main():
    args = Hyperparameters()
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    model = Net(args.vocab_size, args.model_dim).to(device)
    train(args, model)
    pack(args, model)
    print(f"Serialized model int8+zlib: {os.path.getsize('final_model.int8.ptz')} bytes")
    extra = unpack(model)
    tokens = load_tokens(args.val_files)
    pieces = tuple(part.to(device) for part in load_pieces(args))
    nats, count, size = evaluate(args, model, tokens, pieces, extra)
    print(f"final_int8_zlib_roundtrip_exact val_loss:{nats / count:.8f} val_bpb:{nats / math.log(2) / size:.8f}")


if __name__ == "__main__":
    main()
