"""Imports a module of its own that the folder does not hold."""

import quick_kernels


def token_losses(model, x, y):
    return quick_kernels.cross_entropy(model(x), y)
