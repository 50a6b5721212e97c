"""Proof by decompression: a text is compressed with a submission's own predictions, and decoded by them again."""
