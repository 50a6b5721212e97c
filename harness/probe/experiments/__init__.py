"""Experiments: each runs a script again with one thing changed, and says what must not have changed with it."""
