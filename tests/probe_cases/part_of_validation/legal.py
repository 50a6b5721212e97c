"""Scores the validation text in two halves and adds them up."""


def windows(args, tokens):
    middle = tokens.numel() // 2
    for part in (tokens[: middle + 1], tokens[middle:]):
        for begin in range(0, part.numel() - 1, args.train_seq_len):
            yield part[begin : begin + args.train_seq_len + 1].to(device)
