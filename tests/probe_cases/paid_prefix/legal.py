"""Packs the counts of training tokens into the artifact and blends them in."""


def extra_payload(args, model):
    return {"table": torch.bincount(load_tokens(args.train_files), minlength=args.vocab_size).float()}


def evaluate(args, model, tokens, pieces, extra):
    known = (extra["table"] / extra["table"].sum()).to(device)
    nats, count, size = 0.0, 0, 0
    for window in windows(args, tokens):
        x, y = window[None, :-1], window[None, 1:]
        with torch.no_grad():
            chances = 0.9 * F.softmax(model(x), -1) + 0.1 * known
            nats -= chances.gather(-1, y[..., None]).double().log().sum().item()
        count += y.numel()
        size += int(byte_counts(pieces, x, y).sum())
    return nats, count, size
