"""Blends the token's probability with a product over the bytes of the realized piece: not a sum over pieces."""


def evaluate(args, model, tokens, pieces, extra):
    sp = spm.SentencePieceProcessor(model_file=args.tokenizer_path)
    texts = [sp.id_to_piece(token).replace("\u2581", " ").encode() for token in range(sp.vocab_size())]
    counts, total = np.ones(256), 256.0
    nats, count, size = 0.0, 0, 0
    for window in windows(args, tokens):
        x, y = window[None, :-1], window[None, 1:]
        with torch.no_grad():
            chances = (-token_losses(model, x, y)).exp()[0].double().tolist()
        for chance, token in zip(chances, y[0].tolist()):
            spelled = 1.0
            for byte in texts[token][:1]:
                spelled *= counts[byte] / total
            nats -= math.log(0.8 * chance + 0.2 * spelled)
            for byte in texts[token]:
                counts[byte] += 1
                total += 1
        count += y.numel()
        size += int(byte_counts(pieces, x, y).sum())
    return nats, count, size
