"""Forks the trained process where it reads its artifact back, and lets each copy go on with one thing changed."""

from .forks import install

__all__ = ["install"]
