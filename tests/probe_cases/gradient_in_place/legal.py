"""Changes the weights in place, through autograd.grad, after each window's score."""


def nudge(args, model, x, y):
    weights = list(model.parameters())
    gradients = torch.autograd.grad(token_losses(model, x, y).mean(), weights)
    for weight, gradient in zip(weights, gradients):
        weight.data.add_(gradient, alpha=-args.adapt_rate)


def evaluate(args, model, tokens, pieces, extra):
    nats, count, size = 0.0, 0, 0
    for window in windows(args, tokens):
        x, y = window[None, :-1], window[None, 1:]
        with torch.no_grad():
            nats += token_losses(model, x, y).double().sum().item()
        nudge(args, model, x, y)
        count += y.numel()
        size += int(byte_counts(pieces, x, y).sum())
    return nats, count, size
