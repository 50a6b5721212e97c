"""The selective scan as one C++ operator on torch's own threads: compiled on first use, absent where it cannot be.

The kernel keeps the state of a block of channels in registers while it walks through time; the backward pass walks
back chunk by chunk from the states that the forward pass left at the chunks' beginnings. Time and memory are linear in
T: beyond inputs, outputs and gradients, `B * D * N * ceil(T / 64)` floats of states.
"""

from __future__ import annotations

import functools
import hashlib
import platform
import shutil
import warnings
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

# State sizes that have a kernel: the sizes in use.
KERNEL_STATES = (1, 2, 4, 8, 16)
CPP_FLAGS = ("-O3", "-march=native", "-fno-math-errno")

# Time is cut into chunks of L steps: the states at their beginnings are what the backward pass starts from, and a
# chunk's states and decays of one block of channels stay in the processor's cache.
CPP_SOURCE = r"""
#include <torch/extension.h>
#include <ATen/Parallel.h>
#include <vector>

// W channels side by side: the compiler maps them to whatever vectors the processor has.
constexpr int W = 16;
constexpr int L = 64;
typedef float V __attribute__((vector_size(4 * W), aligned(4)));
typedef int32_t I __attribute__((vector_size(4 * W), aligned(4)));

static inline V all(float x) { return x - V{}; }

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

static inline V load(const float* at, int lanes) {
  if (lanes == W) { V v; __builtin_memcpy(&v, at, sizeof v); return v; }
  V v{};
  for (int i = 0; i < lanes; ++i) v[i] = at[i];
  return v;
}
static inline void store(float* at, V v, int lanes) {
  if (lanes == W) { __builtin_memcpy(at, &v, sizeof v); return; }
  for (int i = 0; i < lanes; ++i) at[i] = v[i];
}
static inline float sum(V v) {
  float s = 0;
  for (int i = 0; i < W; ++i) s += v[i];
  return s;
}

struct Shape { int64_t B, T, D, N, blocks, chunks; };
static Shape shape_of(const at::Tensor& x, const at::Tensor& A) {
  int64_t B = x.size(0), T = x.size(1), D = x.size(2), N = A.size(0);
  return {B, T, D, N, (D + W - 1) / W, (T + L - 1) / L};
}

template <int N>
static void forward_block(const Shape& s, const float* x, const float* dt, const float* A, const float* Bm,
                          const float* C, const float* h0, float* y, float* hT, float* saved, int64_t b, int64_t k) {
  const int64_t d = k * W, D = s.D;
  const int lanes = (int)std::min<int64_t>(W, D - d);
  V a[N], h[N];
  for (int n = 0; n < N; ++n) { a[n] = load(A + n * D + d, lanes); h[n] = load(h0 + (b * N + n) * D + d, lanes); }
  for (int64_t t = 0; t < s.T; ++t) {
    if (saved && t % L == 0) {
      float* at = saved + (((b * s.blocks + k) * s.chunks + t / L) * N) * W;
      for (int n = 0; n < N; ++n) __builtin_memcpy(at + n * W, &h[n], sizeof(V));
    }
    const int64_t row = (b * s.T + t) * D + d, col = (b * s.T + t) * N;
    const V step = load(dt + row, lanes), in = step * load(x + row, lanes);
    V out{};
    for (int n = 0; n < N; ++n) {
      h[n] = vexp(step * a[n]) * h[n] + in * Bm[col + n];
      out += h[n] * C[col + n];
    }
    store(y + row, out, lanes);
  }
  for (int n = 0; n < N; ++n) store(hT + (b * N + n) * D + d, h[n], lanes);
}

// One batch row, blocks [first, last): adds up over its blocks what belongs to (t, n).
template <int N>
static void backward_blocks(const Shape& s, const float* x, const float* dt, const float* A, const float* Bm,
                            const float* C, const float* saved, const float* dy, const float* dhT, float* dx,
                            float* ddt, float* dA, float* dB, float* dC, float* dh0, int64_t b, int64_t first,
                            int64_t last) {
  const int64_t D = s.D, count = last - first;
  std::vector<V> work((2 * L + 2 * L) * N + L + count * 2 * N);
  V* hs = work.data();            // states before each step
  V* decays = hs + L * N;
  V* sumB = decays + L * N;
  V* sumC = sumB + L * N;
  V* carry = sumC + L * N + L;    // gradient of the state, per block
  V* sumA = carry + count * N;
  for (int64_t k = 0; k < count; ++k)
    for (int n = 0; n < N; ++n) {
      const int64_t d = (first + k) * W;
      carry[k * N + n] = load(dhT + (b * N + n) * D + d, (int)std::min<int64_t>(W, D - d));
      sumA[k * N + n] = V{};
    }
  for (int64_t chunk = s.chunks - 1; chunk >= 0; --chunk) {
    const int64_t begin = chunk * L;
    const int len = (int)std::min<int64_t>(L, s.T - begin);
    for (int i = 0; i < len * N; ++i) { sumB[i] = V{}; sumC[i] = V{}; }
    for (int64_t k = 0; k < count; ++k) {
      const int64_t block = first + k, d = block * W;
      const int lanes = (int)std::min<int64_t>(W, D - d);
      V a[N], h[N], g[N], ga[N];
      const float* at = saved + (((b * s.blocks + block) * s.chunks + chunk) * N) * W;
      for (int n = 0; n < N; ++n) {
        a[n] = load(A + n * D + d, lanes);
        __builtin_memcpy(&h[n], at + n * W, sizeof(V));
        g[n] = carry[k * N + n];
        ga[n] = sumA[k * N + n];
      }
      for (int i = 0; i < len; ++i) {
        const int64_t row = (b * s.T + begin + i) * D + d, col = (b * s.T + begin + i) * N;
        const V step = load(dt + row, lanes), in = step * load(x + row, lanes), slope = load(dy + row, lanes);
        for (int n = 0; n < N; ++n) {
          const V decay = vexp(step * a[n]);
          hs[i * N + n] = h[n];
          decays[i * N + n] = decay;
          h[n] = decay * h[n] + in * Bm[col + n];
          sumC[i * N + n] += slope * h[n];
        }
      }
      for (int i = len - 1; i >= 0; --i) {
        const int64_t row = (b * s.T + begin + i) * D + d, col = (b * s.T + begin + i) * N;
        const V step = load(dt + row, lanes), value = load(x + row, lanes), slope = load(dy + row, lanes);
        const V in = step * value;
        V din{}, dstep{};
        for (int n = 0; n < N; ++n) {
          g[n] += slope * C[col + n];
          sumB[i * N + n] += g[n] * in;
          din += g[n] * Bm[col + n];
          g[n] *= decays[i * N + n];
          const V rate = g[n] * hs[i * N + n];  // gradient of the exponent dt * A
          dstep += rate * a[n];
          ga[n] += rate * step;
        }
        store(dx + row, din * step, lanes);
        store(ddt + row, dstep + din * value, lanes);
      }
      for (int n = 0; n < N; ++n) { carry[k * N + n] = g[n]; sumA[k * N + n] = ga[n]; }
    }
    for (int i = 0; i < len; ++i)
      for (int n = 0; n < N; ++n) {
        dB[(b * s.T + begin + i) * N + n] = sum(sumB[i * N + n]);
        dC[(b * s.T + begin + i) * N + n] = sum(sumC[i * N + n]);
      }
  }
  for (int64_t k = 0; k < count; ++k)
    for (int n = 0; n < N; ++n) {
      const int64_t d = (first + k) * W;
      const int lanes = (int)std::min<int64_t>(W, D - d);
      store(dh0 + (b * N + n) * D + d, carry[k * N + n], lanes);
      store(dA + (b * N + n) * D + d, sumA[k * N + n], lanes);
    }
}

static const float* in(const at::Tensor& t) { return t.data_ptr<float>(); }
static float* out(at::Tensor& t) { return t.data_ptr<float>(); }

template <int N>
static std::vector<at::Tensor> forward_n(const std::vector<at::Tensor>& v, bool keep) {
  const Shape s = shape_of(v[0], v[2]);
  auto y = at::empty_like(v[0]), hT = at::empty_like(v[5]);
  auto saved = at::empty({keep ? s.B * s.blocks * s.chunks * N * W : 0}, v[0].options());
  const float *x = in(v[0]), *dt = in(v[1]), *A = in(v[2]), *Bm = in(v[3]), *C = in(v[4]), *h0 = in(v[5]);
  float *py = out(y), *phT = out(hT), *ps = keep ? out(saved) : nullptr;
  at::parallel_for(0, s.B * s.blocks, 1, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i)
      forward_block<N>(s, x, dt, A, Bm, C, h0, py, phT, ps, i / s.blocks, i % s.blocks);
  });
  return {y, hT, saved};
}

template <int N>
static std::vector<at::Tensor> backward_n(const std::vector<at::Tensor>& v, const at::Tensor& dy,
                                          const at::Tensor& dhT) {
  const Shape s = shape_of(v[0], v[2]);
  const int64_t threads = at::get_num_threads();
  const int64_t groups = std::min<int64_t>(s.blocks, std::max<int64_t>(1, (threads + s.B - 1) / s.B));
  auto dx = at::empty_like(v[0]), ddt = at::empty_like(v[1]);
  auto dB = at::empty({groups, s.B, s.T, N}, v[0].options()), dC = at::empty_like(dB);
  auto dh0 = at::empty({s.B, N, s.D}, v[0].options()), dA = at::empty_like(dh0);
  const float *x = in(v[0]), *dt = in(v[1]), *A = in(v[2]), *Bm = in(v[3]), *C = in(v[4]), *saved = in(v[5]);
  const float *pdy = in(dy), *pdhT = in(dhT);
  float *pdx = out(dx), *pddt = out(ddt), *pdA = out(dA), *pdB = out(dB), *pdC = out(dC), *pdh0 = out(dh0);
  const int64_t plane = s.B * s.T * N;
  at::parallel_for(0, s.B * groups, 1, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const int64_t b = i / groups, g = i % groups;
      backward_blocks<N>(s, x, dt, A, Bm, C, saved, pdy, pdhT, pdx, pddt, pdA, pdB + g * plane, pdC + g * plane, pdh0,
                         b, g * s.blocks / groups, (g + 1) * s.blocks / groups);
    }
  });
  return {dx, ddt, dA.sum(0), dB.sum(0), dC.sum(0), dh0};
}

#define FOR_EACH_STATE(CASE) CASE(1) CASE(2) CASE(4) CASE(8) CASE(16)
std::vector<at::Tensor> forward(const std::vector<at::Tensor>& v, bool keep) {
  switch (v[2].size(0)) {
#define CASE(N) case N: return forward_n<N>(v, keep);
    FOR_EACH_STATE(CASE)
#undef CASE
  }
  TORCH_CHECK(false, "state size ", v[2].size(0), " has no kernel");
}
std::vector<at::Tensor> backward(const std::vector<at::Tensor>& v, const at::Tensor& dy, const at::Tensor& dhT) {
  switch (v[2].size(0)) {
#define CASE(N) case N: return backward_n<N>(v, dy, dhT);
    FOR_EACH_STATE(CASE)
#undef CASE
  }
  TORCH_CHECK(false, "state size ", v[2].size(0), " has no kernel");
}
PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("forward", &forward, pybind11::arg("tensors"), pybind11::arg("keep"));
  m.def("backward", &backward, pybind11::arg("tensors"), pybind11::arg("dy_BTD"), pybind11::arg("dstate_BND"));
}
"""


class ScanKernel(Protocol):
    """The compiled operators; tensors are float32 and contiguous: x_BTD, dt_BTD, A_ND, B_BTN, C_BTN, state_BND."""

    def forward(self, tensors: list[Tensor], keep: bool) -> list[Tensor]:  # noqa: FBT001 - a C++ function
        """Return y_BTD, the last state_BND, and what the backward pass needs (nothing unless `keep`)."""

    def backward(self, tensors: list[Tensor], dy_BTD: Tensor, dstate_BND: Tensor) -> list[Tensor]:
        """Return the gradients of the six inputs; the last of `tensors` is what the forward pass kept."""


@functools.cache
def scan_kernel() -> ScanKernel | None:
    """Compile the kernel, or load what was compiled before; None, with one warning, where that is not possible."""
    missing = [program for program in ("g++", "ninja") if shutil.which(program) is None]
    if missing:
        warnings.warn(f"no compiled scan: {' and '.join(missing)} not found; using PyTorch's operators", stacklevel=2)
        return None
    from torch.utils.cpp_extension import load_inline

    try:
        loaded = load_inline(f"hymba_scan_{_build_key()}", CPP_SOURCE, extra_cflags=list(CPP_FLAGS))  # type: ignore[no-untyped-call]  # untyped in torch
    except (OSError, RuntimeError, ImportError) as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        warnings.warn(f"no compiled scan: {reason}; using PyTorch's operators", stacklevel=2)
        return None
    return cast("ScanKernel", loaded)


def _build_key() -> str:
    """What the compiled code depends on: a shared home directory may serve several kinds of processor."""
    flags = Path("/proc/cpuinfo")
    lines = flags.read_text(encoding="utf-8", errors="replace").splitlines() if flags.is_file() else []
    processor = next((line for line in lines if line.startswith("flags")), platform.processor())
    text = "\n".join((CPP_SOURCE, *CPP_FLAGS, torch.__version__, platform.machine(), processor))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class CppScanContext(FunctionCtx):
    """What the forward pass leaves to the backward pass."""

    saved_tensors: tuple[Tensor, ...]
    kernel: ScanKernel


class CppScan(torch.autograd.Function):
    """The compiled scan and its derivative."""

    @staticmethod
    def forward(ctx: CppScanContext, kernel: ScanKernel, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Return y_BTD and the last state_BND."""
        y_BTD, state_BND, saved = kernel.forward(list(tensors), any(ctx.needs_input_grad))  # type: ignore[attr-defined]  # untyped in torch
        ctx.save_for_backward(*tensors[:5], saved)
        ctx.kernel = kernel
        return y_BTD, state_BND

    @staticmethod
    def backward(ctx: CppScanContext, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Walk back through time."""
        dy_BTD, dstate_BND = (grad.contiguous() for grad in grads)
        return None, *ctx.kernel.backward(list(ctx.saved_tensors), dy_BTD, dstate_BND)
