"""Warms the optimizer up on the validation text before scoring and keeps what it learned."""


def evaluate(args, model, tokens, pieces, extra):
    optimizer = torch.optim.SGD(model.parameters(), lr=args.adapt_rate)
    for window in windows(args, tokens[: 2 * args.train_seq_len]):
        optimizer.zero_grad()
        token_losses(model, window[None, :-1], window[None, 1:]).mean().backward()
        optimizer.step()
    nats, count, size = 0.0, 0, 0
    for window in windows(args, tokens):
        x, y = window[None, :-1], window[None, 1:]
        with torch.no_grad():
            nats += token_losses(model, x, y).double().sum().item()
        count += y.numel()
        size += int(byte_counts(pieces, x, y).sum())
    return nats, count, size
