"""`torch.cuda`: one H100 per rank that answers every question and does nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Self

import torch

from ..clock import Clock
from ..events import refuse, replaced
from ..patch import put
from . import devices, programs

NAME = "NVIDIA H100 80GB HBM3"
MEMORY_BYTES = 85_029_158_912
PROCESSORS = 132
STATISTICS = (
    "memory_allocated",
    "max_memory_allocated",
    "memory_reserved",
    "max_memory_reserved",
    "memory_cached",
    "max_memory_cached",
)
NOTHING = tuple(
    """
    init synchronize empty_cache ipc_collect reset_peak_memory_stats reset_max_memory_allocated set_device cudart
    reset_accumulated_memory_stats reset_max_memory_cached set_per_process_memory_fraction _lazy_init
    """.split()  # noqa: SIM905 - one word, one function
)
SWITCHES = ("enable_flash_sdp", "enable_math_sdp", "enable_mem_efficient_sdp", "enable_cudnn_sdp")


class Stream:
    """A stream on which everything has been done already."""

    def __init__(self, *_arguments: Any, **_keywords: Any) -> None:
        self.cuda_stream = 0
        self.device = devices.CPU

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def synchronize(self) -> None:
        """Nothing is pending."""

    def query(self) -> bool:
        """Whether all is done."""
        return True

    def wait_stream(self, _stream: Any) -> None:
        """Nothing to wait for."""

    wait_event = wait_stream

    def record_event(self, event: Any = None) -> Any:
        """An event that has happened."""
        event = event or Event()
        event.record()
        return event


class Event:
    """An event; times between two are those of the virtual clock."""

    clock: Clock

    def __init__(self, *_arguments: Any, **_keywords: Any) -> None:
        self._time = 0.0

    def record(self, _stream: Any = None) -> None:
        """It happens now."""
        self._time = self.clock.advance(0.0)

    def elapsed_time(self, other: Event) -> float:
        """Milliseconds to another event."""
        return 1_000.0 * (other._time - self._time)

    def query(self) -> bool:
        """Whether it has happened."""
        return True

    def synchronize(self) -> None:
        """Nothing to wait for."""

    wait = record


class Graph:
    """A recorded graph; replaying one has no equivalent."""

    def __init__(self, *_arguments: Any, **_keywords: Any) -> None:
        raise refuse("torch.cuda.CUDAGraph", "a recorded graph cannot be replayed on a CPU")


def install(world_size: int, rank: int, clock: Clock, sources: Any) -> None:
    """Make a CUDA machine of the CPU."""
    replaced("torch.cuda", f"answers as {world_size} x {NAME}; all work is done on the CPU, streams at once")
    devices.install(sources)
    Event.clock = clock
    cuda = torch.cuda
    properties = SimpleNamespace(
        name=NAME,
        total_memory=MEMORY_BYTES,
        multi_processor_count=PROCESSORS,
        major=9,
        minor=0,
        shared_memory_per_block_optin=232_448,
        L2_cache_size=52_428_800,
        warp_size=32,
    )
    put(
        cuda,
        is_available=lambda: True,
        is_initialized=lambda: True,
        device_count=lambda: world_size,
        current_device=lambda: rank,
        get_device_name=lambda *_: NAME,
        get_device_capability=lambda *_: (9, 0),
        get_device_properties=lambda *_: properties,
        is_bf16_supported=lambda *_, **__: True,
        get_arch_list=lambda: ["sm_90"],
        mem_get_info=lambda *_: (MEMORY_BYTES, MEMORY_BYTES),
        memory_stats=lambda *_: {},
        memory_summary=lambda *_, **__: "",
        can_device_access_peer=lambda *_: True,
        manual_seed=_seed,
        manual_seed_all=_seed,
        seed=torch.default_generator.seed,
        seed_all=torch.default_generator.seed,
        initial_seed=torch.default_generator.initial_seed,
        get_rng_state=lambda *_: torch.get_rng_state(),
        get_rng_state_all=lambda: [torch.get_rng_state()],
        set_rng_state=lambda state, *_: torch.set_rng_state(state),
        set_rng_state_all=lambda states: torch.set_rng_state(states[0]),
        Stream=Stream,
        Event=Event,
        CUDAGraph=Graph,
        graph=Graph,
        make_graphed_callables=lambda *_, **__: Graph(),
        current_stream=lambda *_: Stream(),
        default_stream=lambda *_: Stream(),
        set_stream=lambda *_: None,
        stream=lambda *_: contextlib.nullcontext(),
        device=lambda *_: contextlib.nullcontext(),
        device_of=lambda *_: contextlib.nullcontext(),
    )
    put(cuda, **{name: lambda *_, **__: 0 for name in STATISTICS}, **{name: lambda *_, **__: None for name in NOTHING})
    for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Byte", "Char", "Bool"):
        setattr(cuda, f"{kind}Tensor", getattr(torch, f"{kind}Tensor"))
    put(cuda.nvtx, range_push=lambda *_: 0, range_pop=lambda: 0, mark=lambda *_: None, range=_nothing)
    _backends()
    programs.install(NAME)


def _seed(seed: int) -> None:
    torch.default_generator.manual_seed(int(seed))


@contextlib.contextmanager
def _nothing(*_arguments: Any, **_keywords: Any) -> Iterator[None]:
    yield


def _backends() -> None:
    """Which attention kernel is used is not ours to choose: the CPU has its own."""
    backends = torch.backends.cuda
    for name in SWITCHES:
        setattr(backends, name, lambda _enabled=True: None)
        setattr(backends, name.replace("enable_", "") + "_enabled", lambda: True)
    backends.sdp_kernel = _nothing
    torch.nn.attention.sdpa_kernel = _nothing
    torch.version.cuda = "12.8"
