"""Reproduce and audit Parameter Golf submissions."""

__version__ = "0.1.0"
