"""Raises the token that followed last time, but only where the realized token continues a word."""


def evaluate(args, model, tokens, pieces, extra):
    followed = torch.full((args.vocab_size,), -1)
    text = tokens.tolist()
    nats, count, size = 0.0, 0, 0
    position = 1
    for window in windows(args, tokens):
        x, y = window[None, :-1], window[None, 1:]
        with torch.no_grad():
            logs = F.log_softmax(model(x), -1)[0]
        for row in logs:
            hint, target = int(followed[text[position - 1]]), text[position]
            inside_word = not bool(pieces[1][target])
            if hint >= 0 and inside_word:
                total = 1 + row[hint].exp() * (math.e - 1)
                row = row - total.log()
                row[hint] += 1
            nats -= row[target].double().item()
            followed[text[position - 1]] = target
            position += 1
        count += y.numel()
        size += int(byte_counts(pieces, x, y).sum())
    return nats, count, size
