"""The selective scan as one C++ operator, with what stands around it in a Mamba layer: softplus, skip and gate.

The kernel keeps the state of a block of channels in registers while it walks through time; the backward pass walks
back chunk by chunk from the states that the forward pass left at the chunks' beginnings. Time and memory are linear in
T: beyond inputs, outputs and gradients, `B * D * N * ceil(T / 64)` floats of states. Sums have one order, whatever the
number of threads and of batch rows.

Shape letters: B batch, T time, D channels, N state, G groups of channels.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from reference_model.native import addresses, integers, native_library, rows

# State sizes that have a kernel; others are padded with states that stay zero.
KERNEL_STATES = (1, 2, 4, 8, 16)
# Of the source below, and groups of channels that its backward pass takes at once.
SCAN_LANES = 16
SCAN_CHUNK = 64
SCAN_GROUPS = 4

# Time is cut into chunks of L steps: the states at their beginnings are what the backward pass starts from, and a
# chunk's states and decays of one block of channels stay in the processor's cache.
SCAN_SOURCE = r"""
constexpr int L = 64;

// log(1 + u) for u in [0, 1], by the series of 2 artanh(u / (2 + u)).
static inline V vlog1p(V u) {
  const V s = u / (2.0f + u), q = s * s;
  V p = all(1.0f / 15);
  p = p * q + 1.0f / 13;
  p = p * q + 1.0f / 11;
  p = p * q + 1.0f / 9;
  p = p * q + 1.0f / 7;
  p = p * q + 1.0f / 5;
  p = p * q + 1.0f / 3;
  return 2.0f * s * (p * q + 1.0f);
}
static inline V vsoftplus(V x) { return (x > 0.0f ? x : V{}) + vlog1p(vexp(-vabs(x))); }

struct Scan {
  int64_t B, T, D, x_row, dt_row, B_row, C_row, z_row, softplus, G, blocks, chunks;
  const float *x, *dt, *A, *Bm, *C, *h0, *skip, *z;
};
static Scan scan_of(const float* const* in, const int64_t* s) {
  return {s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9], (s[2] + W - 1) / W, (s[1] + L - 1) / L,
          in[0], in[1], in[2], in[3], in[4], in[5], in[6], in[7]};
}

template <int N, typename Lanes>
static void forward_block(const Scan s, float* y, float* hT, float* saved, int64_t b, int64_t k, Lanes lanes) {
  const int64_t d = k * W, D = s.D;
  const V skip = s.skip ? load(s.skip + d, lanes) : V{};
  V a[N], h[N];
  for (int n = 0; n < N; ++n) { a[n] = load(s.A + n * D + d, lanes); h[n] = load(s.h0 + (b * N + n) * D + d, lanes); }
  for (int64_t t = 0; t < s.T; ++t) {
    if (saved && t % L == 0) {
      float* at = saved + (((b * s.blocks + k) * s.chunks + t / L) * N) * W;
      for (int n = 0; n < N; ++n) store(at + n * W, h[n], Full{});
    }
    const int64_t row = b * s.T + t;
    const float *Bt = s.Bm + row * s.B_row, *Ct = s.C + row * s.C_row;
    const V value = load(s.x + row * s.x_row + d, lanes);
    V step = load(s.dt + row * s.dt_row + d, lanes);
    if (s.softplus) step = vsoftplus(step);
    const V in = step * value;
    V out = skip * value;
    for (int n = 0; n < N; ++n) {
      h[n] = vexp(step * a[n]) * h[n] + in * Bt[n];
      out += h[n] * Ct[n];
    }
    if (s.z) { const V z = load(s.z + row * s.z_row + d, lanes); out *= z * vsigmoid(z); }
    store(y + row * D + d, out, lanes);
  }
  for (int n = 0; n < N; ++n) store(hT + (b * N + n) * D + d, h[n], lanes);
}

struct Grads {
  const float *saved, *dy, *dhT;
  float *dx, *ddt, *dA, *dB, *dC, *dh0, *dskip, *dz;
};

// One chunk of one block of channels: its steps again from the state at its beginning, then their gradients.
template <int N, typename Lanes>
static void backward_chunk(const Scan s, const Grads o, V* work, int64_t count, int64_t b, int64_t chunk, int64_t first,
                           int64_t k, Lanes lanes) {
  const int64_t D = s.D, begin = b * s.T + chunk * L;
  const int len = (int)std::min<int64_t>(L, s.T - chunk * L);
  V* hs = work;                   // states before each step
  V* decays = hs + L * N;
  V* sumB = decays + L * N;
  V* sumC = sumB + L * N;
  V* steps = sumC + L * N;
  V* bends = steps + L;           // derivatives of the softplus
  V* slopes = bends + L;          // gradient of the output before its gate
  V* carry = slopes + L;          // gradient of the state, per block
  V* sumA = carry + count * N;
  V* sumD = sumA + count * N;
  const int64_t block = first + k, d = block * W;
  const V skip = s.skip ? load(s.skip + d, lanes) : V{};
  V a[N], h[N], g[N], ga[N], gd = sumD[k];
  const float* at = o.saved + (((b * s.blocks + block) * s.chunks + chunk) * N) * W;
  for (int n = 0; n < N; ++n) {
    a[n] = load(s.A + n * D + d, lanes);
    h[n] = load(at + n * W, Full{});
    g[n] = carry[k * N + n];
    ga[n] = sumA[k * N + n];
  }
  for (int i = 0; i < len; ++i) {
    const int64_t row = begin + i;
    const float *Bt = s.Bm + row * s.B_row, *Ct = s.C + row * s.C_row;
    const V value = load(s.x + row * s.x_row + d, lanes);
    V step = load(s.dt + row * s.dt_row + d, lanes), slope = load(o.dy + row * D + d, lanes), z{}, lit{};
    if (s.softplus) { bends[i] = vsigmoid(step); step = vsoftplus(step); }
    const V in = step * value, wanted = slope;
    if (s.z) { z = load(s.z + row * s.z_row + d, lanes); lit = vsigmoid(z); slope *= z * lit; }
    V out = skip * value;
    for (int n = 0; n < N; ++n) {
      const V decay = vexp(step * a[n]);
      hs[i * N + n] = h[n];
      decays[i * N + n] = decay;
      h[n] = decay * h[n] + in * Bt[n];
      out += h[n] * Ct[n];
      sumC[i * N + n] += slope * h[n];
    }
    if (s.z) store(o.dz + row * D + d, wanted * out * lit * (1.0f + z * (1.0f - lit)), lanes);
    steps[i] = step;
    slopes[i] = slope;
    gd += slope * value;
  }
  for (int i = len - 1; i >= 0; --i) {
    const int64_t row = begin + i;
    const float *Bt = s.Bm + row * s.B_row, *Ct = s.C + row * s.C_row;
    const V value = load(s.x + row * s.x_row + d, lanes), step = steps[i], slope = slopes[i], in = step * value;
    V din{}, dstep{};
    for (int n = 0; n < N; ++n) {
      g[n] += slope * Ct[n];
      sumB[i * N + n] += g[n] * in;
      din += g[n] * Bt[n];
      g[n] *= decays[i * N + n];
      const V rate = g[n] * hs[i * N + n];  // gradient of the exponent dt * A
      dstep += rate * a[n];
      ga[n] += rate * step;
    }
    dstep += din * value;
    store(o.dx + row * D + d, din * step + slope * skip, lanes);
    store(o.ddt + row * D + d, s.softplus ? dstep * bends[i] : dstep, lanes);
  }
  for (int n = 0; n < N; ++n) { carry[k * N + n] = g[n]; sumA[k * N + n] = ga[n]; }
  sumD[k] = gd;
}

// One batch row, blocks [first, last): adds up over its blocks what belongs to (t, n).
template <int N>
static void backward_blocks(const Scan& s, const Grads& o, float* dB, float* dC, int64_t b, int64_t first,
                            int64_t last) {
  const int64_t D = s.D, count = last - first;
  std::vector<V> work(4 * L * N + 3 * L + count * (2 * N + 1));
  V *sumB = work.data() + 2 * L * N, *sumC = sumB + L * N;
  V *carry = sumC + L * N + 3 * L, *sumA = carry + count * N, *sumD = sumA + count * N;
  for (int64_t k = 0; k < count; ++k) {
    const int64_t d = (first + k) * W;
    with_lanes(D - d, [&](auto lanes) {
      for (int n = 0; n < N; ++n) carry[k * N + n] = load(o.dhT + (b * N + n) * D + d, lanes);
    });
    for (int n = 0; n < N; ++n) sumA[k * N + n] = V{};
    sumD[k] = V{};
  }
  for (int64_t chunk = s.chunks - 1; chunk >= 0; --chunk) {
    const int64_t begin = b * s.T + chunk * L;
    const int len = (int)std::min<int64_t>(L, s.T - chunk * L);
    for (int i = 0; i < len * N; ++i) { sumB[i] = V{}; sumC[i] = V{}; }
    for (int64_t k = 0; k < count; ++k)
      with_lanes(D - (first + k) * W, [&](auto lanes) {
        backward_chunk<N>(s, o, work.data(), count, b, chunk, first, k, lanes);
      });
    for (int i = 0; i < len; ++i)
      for (int n = 0; n < N; ++n) {
        dB[(begin + i) * N + n] = sum(sumB[i * N + n]);
        dC[(begin + i) * N + n] = sum(sumC[i * N + n]);
      }
  }
  for (int64_t k = 0; k < count; ++k) {
    const int64_t d = (first + k) * W;
    with_lanes(D - d, [&](auto lanes) {
      for (int n = 0; n < N; ++n) {
        store(o.dh0 + (b * N + n) * D + d, carry[k * N + n], lanes);
        store(o.dA + (b * N + n) * D + d, sumA[k * N + n], lanes);
      }
      if (s.skip) store(o.dskip + b * D + d, sumD[k], lanes);
    });
  }
}

template <int N>
static void forward_n(const Scan& s, float* const* out) {
  at::parallel_for(0, s.B * s.blocks, 1, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i)
      with_lanes(s.D - i % s.blocks * W, [&](auto lanes) {
        forward_block<N>(s, out[0], out[1], out[2], i / s.blocks, i % s.blocks, lanes);
      });
  });
}
template <int N>
static void backward_n(const Scan& s, const Grads& o) {
  const int64_t plane = s.B * s.T * N;
  at::parallel_for(0, s.B * s.G, 1, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const int64_t g = i % s.G;
      backward_blocks<N>(s, o, o.dB + g * plane, o.dC + g * plane, i / s.G, g * s.blocks / s.G,
                         (g + 1) * s.blocks / s.G);
    }
  });
}

#define FOR_EACH_STATE(CASE) CASE(1) CASE(2) CASE(4) CASE(8) CASE(16)
extern "C" void scan_forward(const float* const* in, float* const* out, const int64_t* sizes, int64_t states) {
  const Scan s = scan_of(in, sizes);
  switch (states) {
#define CASE(N) case N: return forward_n<N>(s, out);
    FOR_EACH_STATE(CASE)
#undef CASE
  }
}
extern "C" void scan_backward(const float* const* in, float* const* out, const int64_t* sizes, int64_t states) {
  const Scan s = scan_of(in, sizes);
  const Grads o{in[8], in[9], in[10], out[0], out[1], out[2], out[3], out[4], out[5], out[6], out[7]};
  switch (states) {
#define CASE(N) case N: return backward_n<N>(s, o);
    FOR_EACH_STATE(CASE)
#undef CASE
  }
}
"""


class CppScanInputs(NamedTuple):
    """What the kernel reads: float32, on the CPU.

    Attributes:
        x_BTD: Input.
        dt_BTD: Step sizes, before the softplus where there is one.
        A_ND: Decay rates; N is one of KERNEL_STATES.
        B_BTN: Input projection.
        C_BTN: Output projection.
        state_BND: State before the first step.
        skip_D: Weight of x in the output.
        gate_BTD: Its SiLU multiplies the output.

    """

    x_BTD: Tensor
    dt_BTD: Tensor
    A_ND: Tensor
    B_BTN: Tensor
    C_BTN: Tensor
    state_BND: Tensor
    skip_D: Tensor | None = None
    gate_BTD: Tensor | None = None

    def evenly_spaced(self) -> CppScanInputs:
        """Copies of what the kernel cannot walk through as it is."""
        ready = [None if tensor is None else rows(tensor)[0] for tensor in self]
        for index in (2, 5, 6):
            tensor = self[index]
            ready[index] = None if tensor is None else tensor.contiguous()
        return CppScanInputs(*ready)  # type: ignore[arg-type]  # those without a default are tensors

    def sizes(self, *, softplus: bool) -> ctypes.Array[ctypes.c_int64]:
        """Sizes, then the distance of rows, as the kernel takes them."""
        walked = (self.x_BTD, self.dt_BTD, self.B_BTN, self.C_BTN, self.gate_BTD)
        distances = (0 if tensor is None else rows(tensor)[1] for tensor in walked)
        return integers(*self.x_BTD.shape, *distances, int(softplus), self.groups)

    @property
    def groups(self) -> int:
        """Groups of channels that the backward pass takes at once, each with sums of its own for B and C."""
        return min(SCAN_GROUPS, -(-self.x_BTD.shape[2] // SCAN_LANES))


class CppScanContext(FunctionCtx):
    """What the forward pass leaves to the backward pass."""

    saved_tensors: tuple[Tensor, ...]
    softplus: bool


def cpp_scan_problem() -> str:
    """Why there is no compiled scan, or an empty string."""
    return native_library(SCAN_SOURCE)[1]


def compiled_scan(inputs: CppScanInputs, *, softplus: bool) -> tuple[Tensor, Tensor]:
    """Scan float32 tensors with the kernel, which must be there; returns y_BTD and the last state_BND."""
    states = len(inputs.A_ND)
    missing = next(size for size in KERNEL_STATES if size >= states) - states
    if missing:
        # States that are never written to nor read.
        inputs = inputs._replace(
            A_ND=F.pad(inputs.A_ND, (0, 0, 0, missing)),
            B_BTN=F.pad(inputs.B_BTN, (0, missing)),
            C_BTN=F.pad(inputs.C_BTN, (0, missing)),
            state_BND=F.pad(inputs.state_BND, (0, 0, 0, missing)),
        )
    y_BTD, state_BND = CppScan.apply(softplus, *inputs)  # type: ignore[no-untyped-call]  # untyped in torch
    return y_BTD, state_BND[:, :states]


class CppScan(torch.autograd.Function):
    """The compiled scan and its derivative."""

    @staticmethod
    def forward(ctx: CppScanContext, softplus: bool, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:  # noqa: FBT001 - autograd passes no names
        """Return y_BTD and the last state_BND."""
        inputs = CppScanInputs(*tensors).evenly_spaced()  # type: ignore[arg-type]  # those without a default are tensors
        x_BTD, state_BND = inputs.x_BTD, inputs.state_BND
        y_BTD, last_BND = x_BTD.new_empty(x_BTD.shape), torch.empty_like(state_BND)
        saved = scan_states(inputs) if any(ctx.needs_input_grad) else None  # type: ignore[attr-defined]  # untyped in torch
        call_kernel("scan_forward", inputs, (y_BTD, last_BND, saved), inputs.sizes(softplus=softplus))
        ctx.save_for_backward(*inputs, saved)  # type: ignore[arg-type]  # None is saved too
        ctx.softplus = softplus
        return y_BTD, last_BND

    @staticmethod
    @once_differentiable
    def backward(ctx: CppScanContext, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Walk back through time."""
        *tensors, saved = ctx.saved_tensors
        inputs = CppScanInputs(*tensors)
        batch, length, channels = inputs.x_BTD.shape
        states, groups = len(inputs.A_ND), inputs.groups
        new = inputs.x_BTD.new_empty
        dx_BTD, ddt_BTD = new(inputs.x_BTD.shape), new(inputs.x_BTD.shape)
        dA_BND, dstate_BND = torch.empty_like(inputs.state_BND), torch.empty_like(inputs.state_BND)
        dB_GBTN, dC_GBTN = new(2, groups, batch, length, states)
        dskip_BD = None if inputs.skip_D is None else new(batch, channels)
        dgate_BTD = None if inputs.gate_BTD is None else new(inputs.x_BTD.shape)
        found = (dx_BTD, ddt_BTD, dA_BND, dB_GBTN, dC_GBTN, dstate_BND, dskip_BD, dgate_BTD)
        given = (*inputs, saved, *(grad.contiguous() for grad in grads))
        call_kernel("scan_backward", given, found, inputs.sizes(softplus=ctx.softplus))
        dskip_D = None if dskip_BD is None else dskip_BD.sum(0)
        sums = (dA_BND.sum(0), dB_GBTN.sum(0), dC_GBTN.sum(0), dstate_BND)
        return None, dx_BTD, ddt_BTD, *sums, dskip_D, dgate_BTD


def scan_states(inputs: CppScanInputs) -> Tensor:
    """Room for the states at the chunks' beginnings, which the backward pass starts from."""
    batch, length, channels = inputs.x_BTD.shape
    blocks, chunks = -(-channels // SCAN_LANES), -(-length // SCAN_CHUNK)
    return inputs.x_BTD.new_empty(batch, blocks, chunks, len(inputs.A_ND), SCAN_LANES)


def call_kernel(
    name: str,
    given: tuple[Tensor | None, ...],
    found: tuple[Tensor | None, ...],
    sizes: ctypes.Array[ctypes.c_int64],
) -> None:
    """Run one of the two functions; the third of `given` tells the number of states."""
    library, problem = native_library(SCAN_SOURCE)
    if library is None or given[2] is None:
        raise RuntimeError(f"no compiled scan: {problem}")
    library[name](addresses(given), addresses(found), sizes, ctypes.c_int64(len(given[2])))
