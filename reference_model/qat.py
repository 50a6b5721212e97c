"""Quantization-aware training: gradients are taken at the weights that would be stored, and change those behind them.

The rounding is that of the artifact, for the tensors that it stores in integers; gradients pass straight through it
(Bengio et al., arXiv:1308.3432), through clipped weights too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from reference_model.config import QuantConfig
from reference_model.quantize import QuantizeError, dequantize_rows, quantize_rows, role_bits, tensor_kind


@contextmanager
def rounded_weights(model: nn.Module, config: QuantConfig) -> Iterator[None]:
    """Lend every weight that is stored in integers the value that it would have when loaded; then give its own back.

    Gradients that are taken meanwhile stay.

    Raises:
        QuantizeError: A weight cannot be stored; the message names it.
    """
    own = [(parameter, parameter.data) for parameter in model.parameters()]
    try:
        for name, parameter in model.named_parameters():
            if tensor_kind(name, parameter, config).startswith("int"):
                parameter.data = _rounded(name, parameter.data, config)
        yield
    finally:
        for parameter, value in own:
            parameter.data = value


def _rounded(name: str, weight: torch.Tensor, config: QuantConfig) -> torch.Tensor:
    bits = role_bits(name, config)
    try:
        stored = quantize_rows(weight, bits, scale_floor=config.scale_floor, clip_search=config.clip_search)
    except QuantizeError as error:
        raise QuantizeError(f"{name}: {error}") from error
    return dequantize_rows(stored)
