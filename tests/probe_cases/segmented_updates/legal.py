"""Learns from each window after it has scored it, and blends in counts of what followed the last token in numpy."""


def evaluate(args, model, tokens, pieces, extra):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    counts = np.zeros((args.vocab_size, args.vocab_size))
    nats, count, size = 0.0, 0, 0
    for window in windows(args, tokens):
        x, y = window[None, :-1], window[None, 1:]
        with torch.no_grad():
            losses = token_losses(model, x, y)[0].double().cpu().numpy()
        last, following = x[0].cpu().numpy(), y[0].cpu().numpy()
        totals = counts[last].sum(-1)
        seen = counts[last, following] / np.maximum(totals, 1.0)
        scores = -np.log(np.where(totals > 0, 0.6 * np.exp(-losses) + 0.4 * seen, np.exp(-losses)))
        nats += float(scores.sum())
        optimizer.zero_grad()
        token_losses(model, x, y).mean().backward()
        optimizer.step()
        np.add.at(counts, (last, following), 1)
        count += y.numel()
        size += int(byte_counts(pieces, x, y).sum())
    return nats, count, size
