"""A reference Hymba trainer and evaluator: sliding-window attention in parallel with a Mamba selective scan."""

__version__ = "0.1.0"
