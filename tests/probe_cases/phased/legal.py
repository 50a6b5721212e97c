"""Adapts to a stretch of text and scores the rest: the caller hands over only text that was scored."""


def adapt(args, model, text):
    optimizer = torch.optim.SGD(model.parameters(), lr=args.adapt_rate)
    for window in windows(args, text):
        optimizer.zero_grad()
        token_losses(model, window[None, :-1], window[None, 1:]).mean().backward()
        optimizer.step()


def score(args, model, text, pieces):
    nats, count, size = 0.0, 0, 0
    for window in windows(args, text):
        x, y = window[None, :-1], window[None, 1:]
        with torch.no_grad():
            nats += token_losses(model, x, y).double().sum().item()
        count += y.numel()
        size += int(byte_counts(pieces, x, y).sum())
    return nats, count, size


def evaluate(args, model, tokens, pieces, extra):
    middle = tokens.numel() // 2
    first = score(args, model, tokens[: middle + 1], pieces)
    adapt(args, model, tokens[: middle + 1])
    second = score(args, model, tokens[middle:], pieces)
    return tuple(a + b for a, b in zip(first, second))
