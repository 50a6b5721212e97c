"""Carries a state over from window to window, which has seen the windows before."""


def evaluate(args, model, tokens, pieces, extra):
    state = torch.zeros(args.model_dim, device=device)
    nats, count, size = 0.0, 0, 0
    for window in windows(args, tokens):
        x, y = window[None, :-1], window[None, 1:]
        with torch.no_grad():
            logits = model.logits(model.hidden(x) + state)
            nats += F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum").double().item()
            state = 0.5 * state + 0.5 * model.embed(y).mean((0, 1))
        count += y.numel()
        size += int(byte_counts(pieces, x, y).sum())
    return nats, count, size
