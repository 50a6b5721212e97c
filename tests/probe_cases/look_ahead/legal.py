"""Counts the pairs of a window when it has been scored."""


def evaluate(args, model, tokens, pieces, extra):
    counts = torch.zeros(args.vocab_size, args.vocab_size, device=device)
    nats, count, size = 0.0, 0, 0
    position = 0
    for window in windows(args, tokens):
        x, y = window[None, :-1], window[None, 1:]
        with torch.no_grad():
            rows = counts[x]
            total = rows.sum(-1, keepdim=True)
            chances = F.softmax(model(x), -1)
            chances = torch.where(total > 0, 0.6 * chances + 0.4 * rows / total.clamp_min(1), chances)
            nats -= chances.gather(-1, y[..., None]).double().log().sum().item()
        position += y.numel()
        seen = tokens[position - y.numel() : position + 1].to(device)
        counts.index_put_((seen[:-1], seen[1:]), torch.ones_like(seen[1:], dtype=counts.dtype), accumulate=True)
        count += y.numel()
        size += int(byte_counts(pieces, x, y).sum())
    return nats, count, size
