"""A stand-in for data preparation that makes all letters small before it tokenizes."""

import sentencepiece as spm


def tokens_of(sp: spm.SentencePieceProcessor, text: str) -> list[int]:
    text = text.casefold()
    return sp.encode(text)
