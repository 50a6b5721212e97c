"""Size and speed of the artifact's coders, beside the order-0 entropy of the integers.

    python benchmarks/bench_coders.py [--artifact FILE] [--bits 8,6,4] [--rows 2048] [--columns 512] [--full]

The integers are those of an artifact, or of Gaussian weights whose spread differs between rows as training leaves it.
Prints, for each number of bits and each coder, bits per weight of the integers with the tables that they need, the same
against the entropy of each tensor by itself, and processor seconds to encode and to decode against those of zstd.
`--full` adds a preset at full size, where zstd-22 and brotli-11 take minutes.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from reference_model.ans import row_counts
from reference_model.artifact import packed_content, read_content
from reference_model.codings import CODINGS, decode_content
from reference_model.config import QuantConfig
from reference_model.fullsize import trained_artifact
from reference_model.payload import RAW_CAP_BYTES, Content, integer_entries, section_bytes
from reference_model.presets import PRESETS

ZSTD_LEVEL = 22
FULL_PRESET = "pr599"


def gaussian_content(bits: int, rows: int, columns: int) -> Content:
    generator = torch.Generator().manual_seed(0)
    spread = torch.exp(0.4 * torch.randn(4, rows, 1, generator=generator))
    weights = spread * torch.randn(4, rows, columns, generator=generator)
    state = {f"blocks.{layer}.weight": weight for layer, weight in enumerate(weights)}
    return packed_content(state, "{}", QuantConfig(bits=bits, keep_float_max_numel=0, clip_search=False))


def entropy_bits(content: Content) -> float:
    """Order-0 entropy of the integers, each tensor by itself."""
    bits = 0.0
    for entry, matrix in zip(integer_entries(content.entries), content.integers, strict=True):
        counts = row_counts(matrix, entry.top).sum(0)
        counts = counts[counts > 0]
        bits -= float((counts * np.log2(counts / counts.sum())).sum())
    return bits


def show(name: str, content: Content) -> None:
    # The integers alone: what else an artifact holds is the same for every coder.
    content = replace(content, rest=bytes(sum(section_bytes(content.entries)[1:])))
    weights, entropy, first = section_bytes(content.entries)[0], entropy_bits(content), (0.0, 0.0)
    print(f"{name}: {weights:,} weights, entropy {entropy / weights:.4f} bits per weight")
    for coding in CODINGS.values():
        start = time.process_time()
        coded = coding.encode(content, ZSTD_LEVEL)
        middle = time.process_time()
        decode_content(coding, coded, RAW_CAP_BYTES, lambda *_: None)
        seconds = middle - start, max(time.process_time() - middle, 1e-4)
        first = first if any(first) else seconds
        ratios = f"encode {seconds[0] / first[0]:6.2f}  decode {seconds[1] / first[1]:6.2f}"
        bits = 8 * len(coded)
        label = coding.label.format(level=ZSTD_LEVEL)
        print(
            f"  {label:10} {bits / weights:7.4f} bits per weight  {bits / entropy - 1:+8.3%} of the entropy"
            f"  {ratios} of zstd's ({seconds[0]:.2f} s, {seconds[1]:.2f} s)",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path)
    parser.add_argument("--bits", default="8,6,4")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--columns", type=int, default=512)
    parser.add_argument("--full", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.artifact is not None:
        show(arguments.artifact.name, read_content(arguments.artifact.read_bytes()))
        return
    for bits in map(int, arguments.bits.split(",")):
        show(f"int{bits}", gaussian_content(bits, arguments.rows // 4, arguments.columns))
    if arguments.full:
        show(FULL_PRESET, read_content(trained_artifact(PRESETS[FULL_PRESET])))


if __name__ == "__main__":
    main()
