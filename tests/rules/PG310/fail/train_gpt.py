"""A stand-in for a training script: it counts the bytes of each token by a table."""

import numpy as np
import sentencepiece as spm


def build_tables(sp, vocab_size):
    base_bytes = np.zeros((vocab_size,), dtype=np.int16)
    leading_space = np.zeros((vocab_size,), dtype=np.bool_)
    boundary = np.ones((vocab_size,), dtype=np.bool_)
    for token in range(vocab_size):
        if sp.is_control(token) or sp.is_unknown(token) or sp.is_unused(token):
            continue
        boundary[token] = False
        if sp.is_byte(token):
            base_bytes[token] = 1
            continue
        piece = sp.id_to_piece(token)
        if piece.startswith("▁"):
            leading_space[token] = True
            piece = piece[1:]
            base_bytes[token] = len(piece.encode("utf-8")) + 1
            continue
        base_bytes[token] = len(piece.encode("utf-8"))
    return base_bytes, leading_space, boundary


def count_bytes(tables, targets, inputs) -> int:
    base, space, edge = tables
    return int((base[targets] + (space[targets] & ~edge[inputs])).sum())


if __name__ == "__main__":
    base, space, edge = build_tables(spm.SentencePieceProcessor(model_file="tokenizer.model"), 1024)
    count_bytes((base, space, edge), np.array([5]), np.array([4]))
