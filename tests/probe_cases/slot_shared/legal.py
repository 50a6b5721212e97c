"""Fits a shift for each window alone to its first half, which an earlier window has scored."""


def evaluate(args, model, tokens, pieces, extra):
    length, half = args.train_seq_len, args.train_seq_len // 2
    nats, count, size = 0.0, 0, 0
    begins = list(range(0, tokens.numel() - 1 - length, half))
    for begin in begins:
        window = tokens[begin : begin + length + 1].to(device)
        x, y = window[None, :-1], window[None, 1:]
        with torch.no_grad():
            hidden = model.hidden(x)
        delta = torch.zeros(1, 1, hidden.shape[-1], device=device, requires_grad=True)
        if begin:
            optimizer = torch.optim.AdamW([delta], lr=0.01)
            for _ in range(4):
                optimizer.zero_grad()
                F.cross_entropy(model.logits(hidden + delta)[:, :half].flatten(0, 1), y[:, :half].flatten()).backward()
                optimizer.step()
        first = 0 if begin == 0 else half
        with torch.no_grad():
            losses = F.cross_entropy(model.logits(hidden + delta).flatten(0, 1), y.flatten(), reduction="none").view_as(y)
        nats += losses[0, first:].double().sum().item()
        count += length - first
        size += int(byte_counts(pieces, x[0, first:], y[0, first:]).sum())
    begin = begins[-1] + length
    x, y = tokens[None, begin:-1].to(device), tokens[None, begin + 1 :].to(device)
    if y.numel():
        with torch.no_grad():
            nats += token_losses(model, x, y).double().sum().item()
        count += y.numel()
        size += int(byte_counts(pieces, x, y).sum())
    return nats, count, size
