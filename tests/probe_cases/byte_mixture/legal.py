"""Blends in a product over bytes that is divided by its sum over all pieces."""


def evaluate(args, model, tokens, pieces, extra):
    sp = spm.SentencePieceProcessor(model_file=args.tokenizer_path)
    texts = [sp.id_to_piece(token).replace("\u2581", " ").encode() for token in range(sp.vocab_size())]
    firsts = np.array([text[0] if text else 0 for text in texts])
    counts = np.ones(256)
    nats, count, size = 0.0, 0, 0
    for window in windows(args, tokens):
        x, y = window[None, :-1], window[None, 1:]
        with torch.no_grad():
            chances = (-token_losses(model, x, y)).exp()[0].double().tolist()
        for chance, token in zip(chances, y[0].tolist()):
            spelled = counts[firsts]
            nats -= math.log(0.8 * chance + 0.2 * spelled[token] / spelled.sum())
            for byte in texts[token]:
                counts[byte] += 1
        count += y.numel()
        size += int(byte_counts(pieces, x, y).sum())
    return nats, count, size
