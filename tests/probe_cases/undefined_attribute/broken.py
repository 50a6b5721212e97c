"""Reads a setting that no class defines, as soon as it scores."""


def evaluate(args, model, tokens, pieces, extra):
    nats, count, size = 0.0, 0, 0
    for window in windows(args, tokens):
        x, y = window[None, :-1], window[None, 1:]
        with torch.no_grad():
            nats += args.blend * token_losses(model, x, y).double().sum().item()
        count += y.numel()
        size += int(byte_counts(pieces, x, y).sum())
    return nats, count, size
