"""The score of each window, then steps of SGD on it: one forward pass serves both."""


def evaluate(args, model, tokens, pieces, extra):
    optimizer = torch.optim.SGD(model.parameters(), lr=args.adapt_rate)
    nats, count, size = 0.0, 0, 0
    for window in windows(args, tokens):
        x, y = window[None, :-1], window[None, 1:]
        losses = token_losses(model, x, y)
        nats += losses.detach().double().sum().item()
        count += y.numel()
        size += int(byte_counts(pieces, x, y).sum())
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    return nats, count, size
