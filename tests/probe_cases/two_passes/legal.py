"""Reports the first pass, which adapts as it goes; a second one afterwards is only printed as a diagnostic."""


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
    first = one_pass(args, model, tokens, pieces, torch.optim.SGD(model.parameters(), lr=args.adapt_rate))
    second = one_pass(args, model, tokens, pieces, None)
    print(f"DIAGNOSTIC adapted weights on the same text val_loss:{second[0] / second[1]:.4f}")
    return first
