"""Names of the ways to compute one thing (docs/backends.md): what the settings allow, and what the functions take.

`auto` is the best of the others that can serve.
"""

from __future__ import annotations

# float64 steps; PyTorch's operators; one compiled operator; mamba-ssm's kernel.
SCAN_BACKENDS = ("auto", "reference", "torch", "cpp", "cuda")
# PyTorch's operators; a compiled one with its SiLU; causal-conv1d's kernel.
CONV_BACKENDS = ("auto", "torch", "cpp", "cuda")
# torch's flex_attention; queries in blocks; a dense mask.
WINDOW_BACKENDS = ("auto", "flex", "blocked", "sdpa")
# PyTorch's operators; compiled kernels for float32 on a CPU where they compile.
ELEMENTWISE_BACKENDS = ("auto", "torch")
