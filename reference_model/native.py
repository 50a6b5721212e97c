"""C++ kernels on torch's own threads: compiled on first use, kept in the user's cache, absent where they cannot be.

Sources include one small header of torch and export plain C functions, so that compiling takes about a second and needs
nothing but g++. Libraries do not link an OpenMP runtime of their own: they find the one that torch has loaded, since a
second pool of waiting threads makes training many times slower.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

COMPILER = "g++"
COMPILE_FLAGS = ("-std=c++20", "-O3", "-march=native", "-fno-math-errno", "-fopenmp", "-fPIC")
COMPILE_LIMIT_S = 300

# W channels side by side: the compiler maps them to whatever vectors the processor has.
NATIVE_HEADER = r"""
#include <ATen/Parallel.h>
#include <algorithm>
#include <cstdint>
#include <vector>

constexpr int W = 16;
typedef float V __attribute__((vector_size(4 * W)));
typedef int32_t I __attribute__((vector_size(4 * W)));
// As it stands in memory. A copy by memcpy would go through the stack in halves, which costs more than the arithmetic.
typedef float U __attribute__((vector_size(4 * W), aligned(4), may_alias));

static inline V all(float x) { return x - V{}; }
static inline V vabs(V x) { return (V)((I)x & 0x7fffffff); }

// exp for arguments at or below 0, relative error about 1e-7 (Cephes' expf); below -87 it gives about 1e-38.
static inline V vexp(V x) {
  const V low = all(-87.0f);
  x = x < low ? low : x;
  const V shift = all(12582912.0f);
  V n = x * 1.44269504088896341f + shift;
  I bits = (I)n;
  n -= shift;
  x -= n * 0.693359375f;
  x -= n * -2.12194440e-4f;
  V p = all(1.9875691500e-4f);
  p = p * x + 1.3981999507e-3f;
  p = p * x + 8.3334519073e-3f;
  p = p * x + 4.1665795894e-2f;
  p = p * x + 1.6666665459e-1f;
  p = p * x + 5.0000001201e-1f;
  p = p * x * x + x + 1.0f;
  return (V)((I)p + (bits << 23));
}

static inline V vsigmoid(V x) {
  const V u = vexp(-vabs(x));
  return (x < 0.0f ? u : all(1.0f)) / (1.0f + u);
}

// All lanes, or the first few: two types, so that the usual case has no branch and stays in registers.
struct Full {};
static inline V load(const float* at, Full) { return *(const U*)at; }
static inline V load(const float* at, int lanes) {
  V v{};
  for (int i = 0; i < lanes; ++i) v[i] = at[i];
  return v;
}
static inline void store(float* at, V v, Full) { *(U*)at = v; }
static inline void store(float* at, V v, int lanes) {
  for (int i = 0; i < lanes; ++i) at[i] = v[i];
}
template <typename F>
static inline void with_lanes(int64_t left, const F& f) {
  if (left >= W) f(Full{});
  else f((int)left);
}
template <typename F>
static inline void each_vector(int64_t size, const F& f) {
  int64_t d = 0;
  for (; d + W <= size; d += W) f(d, Full{});
  if (d < size) f(d, (int)(size - d));
}
static inline float sum(V v) {
  float part[W];
  __builtin_memcpy(part, &v, sizeof v);
  for (int half = W / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) part[i] += part[i + half];
  return part[0];
}
"""


@functools.cache
def native_library(source: str) -> tuple[ctypes.CDLL | None, str]:
    """Compile a source behind the header, or load what was compiled before.

    Returns:
        The library and an empty string, or None and the reason in one line.
    """
    if shutil.which(COMPILER) is None:
        return None, f"{COMPILER} not found"
    text = NATIVE_HEADER + source
    path = cache_folder() / f"{_build_key(text)}.so"
    try:
        if not path.is_file():
            _compile(text, path)
        return ctypes.CDLL(str(path)), ""
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", None) or str(error)
        # Of a command that took too long these are bytes, whatever was asked for.
        output = output.decode(errors="replace") if isinstance(output, bytes) else output
        lines = [line for line in output.splitlines() if "error" in line] or [output.strip() or "no reason given"]
        return None, lines[0].strip()


def native_or_warn(source: str) -> ctypes.CDLL | None:
    """The library; where there is none, a warning that says why and what is used instead (Python shows it once)."""
    library, problem = native_library(source)
    if library is None:
        warnings.warn(f"no compiled kernels: {problem}; using PyTorch's operators", stacklevel=2)
    return library


def cache_folder() -> Path:
    """Where compiled libraries are kept."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "hymba-kernels"


def _compile(text: str, path: Path) -> None:
    """Write the library whole or not at all, readable by this user only."""
    torch_home = Path(torch.__file__).parent
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as temporary:
        source, binary = Path(temporary, "kernels.cpp"), Path(temporary, "kernels.so")
        source.write_text(text, encoding="utf-8")
        include = f"-I{torch_home / 'include'}"
        libraries = (f"-L{torch_home / 'lib'}", "-ltorch_cpu", "-lc10")
        for step in (
            (*COMPILE_FLAGS, include, "-c", str(source), "-o", f"{source}.o"),
            # Without -fopenmp here: the symbols of OpenMP come from the library that torch depends on.
            ("-shared", f"{source}.o", *libraries, "-o", str(binary)),
        ):
            command = [COMPILER, *step]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMPILE_LIMIT_S)
        binary.replace(path)


def _build_key(text: str) -> str:
    """What the compiled code depends on: a shared home directory may serve several kinds of processor."""
    flags = Path("/proc/cpuinfo")
    lines = flags.read_text(encoding="utf-8", errors="replace").splitlines() if flags.is_file() else []
    processor = next((line for line in lines if line.startswith("flags")), platform.processor())
    parts = (text, *COMPILE_FLAGS, torch.__version__, torch.__file__, platform.machine(), processor)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def addresses(tensors: Sequence[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    """Where the tensors' data begins, as a C function takes them; absent ones are null."""
    return (ctypes.c_void_p * len(tensors))(*(None if tensor is None else tensor.data_ptr() for tensor in tensors))


def integers(*values: int) -> ctypes.Array[ctypes.c_int64]:
    """Sizes and strides, as a C function takes them."""
    return (ctypes.c_int64 * len(values))(*values)


def rows(x: Tensor) -> tuple[Tensor, int]:
    """The tensor with its last dimension side by side and its rows evenly spaced, and their distance.

    A slice of the last dimension of a contiguous tensor is such a tensor already and is not copied.
    """
    even = x.stride(-1) == 1 and all(
        x.stride(axis) == x.shape[axis + 1] * x.stride(axis + 1) for axis in range(x.ndim - 2)
    )
    if even and not x.is_contiguous() and x.stride(-2) >= x.shape[-1]:
        return x, x.stride(-2)
    return x.contiguous(), x.shape[-1]
