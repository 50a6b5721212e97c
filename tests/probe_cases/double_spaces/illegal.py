"""Counts the leading space of a piece among its own bytes and adds it once more."""


def byte_counts(pieces, previous, current):
    base, space, boundary = pieces
    own = base[current] + space[current].to(base.dtype)
    return own + (space[current] & ~boundary[previous]).to(base.dtype)
