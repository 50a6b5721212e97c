"""One process after the other scores its windows of a chunk; each time the chunk is learned from."""

import torch.distributed as dist


def place():
    """Rank and size of the world."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def learn(args, model, chunk):
    """The first process learns from a chunk, the others get its weights."""
    rank, size = place()
    if rank == 0:
        optimizer = torch.optim.SGD(model.parameters(), lr=args.adapt_rate)
        optimizer.zero_grad()
        for window in chunk:
            token_losses(model, window[None, :-1], window[None, 1:]).mean().backward()
        optimizer.step()
    if size > 1:
        for tensor in model.parameters():
            dist.broadcast(tensor.data, src=0)


def score(model, window, pieces):
    x, y = window[None, :-1], window[None, 1:]
    with torch.no_grad():
        losses = token_losses(model, x, y)
    return torch.tensor([losses.double().sum().item(), y.numel(), int(byte_counts(pieces, x, y).sum())], dtype=torch.float64)


def evaluate(args, model, tokens, pieces, extra):
    rank, size = place()
    every = list(windows(args, tokens))
    totals = torch.zeros(3, dtype=torch.float64)
    for begin in range(0, len(every), 4):
        chunk = every[begin : begin + 4]
        for turn in range(size):
            if turn == rank:
                for window in chunk[rank::size]:
                    totals += score(model, window, pieces)
            learn(args, model, chunk)
    if size > 1:
        dist.all_reduce(totals)
    return totals.tolist()


def main():
    args = Hyperparameters()
    rank, size = place()
    if size > 1:
        dist.init_process_group(backend="nccl")
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    model = Net(args.vocab_size, args.model_dim).to(device)
    train(args, model)
    if rank == 0:
        pack(args, model)
        print(f"Serialized model int8+zlib: {os.path.getsize('final_model.int8.ptz')} bytes")
    if size > 1:
        dist.barrier()
    extra = unpack(model)
    tokens = load_tokens(args.val_files)
    pieces = tuple(part.to(device) for part in load_pieces(args))
    nats, count, size_bytes = evaluate(args, model, tokens, pieces, extra)
    if rank == 0:
        print(f"final_int8_zlib_roundtrip_exact val_loss:{nats / count:.8f} val_bpb:{nats / math.log(2) / size_bytes:.8f}")
    if size > 1:
        dist.destroy_process_group()
