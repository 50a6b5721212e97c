"""Adds counts over the whole vocabulary to the probabilities and divides by the new sum."""


def evaluate(args, model, tokens, pieces, extra):
    counts = torch.zeros(args.vocab_size, args.vocab_size, device=device)
    nats, count, size = 0.0, 0, 0
    for window in windows(args, tokens):
        x, y = window[None, :-1], window[None, 1:]
        with torch.no_grad():
            chances = F.softmax(model(x), -1)
            chances = chances + 0.3 * counts[x] / counts[x].sum(-1, keepdim=True).clamp_min(1)
            chances = chances / chances.sum(-1, keepdim=True)
            nats -= chances.gather(-1, y[..., None]).double().log().sum().item()
        counts.index_put_((x[0], y[0]), torch.ones_like(x[0], dtype=counts.dtype), accumulate=True)
        count += y.numel()
        size += int(byte_counts(pieces, x, y).sum())
    return nats, count, size
