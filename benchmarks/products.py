"""The matrix products of a piece of work, recorded while it runs and repeated alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "addmv", "mv"}
# Operators that take products inside, and the place of the query among their arguments.
ATTENTION = {
    "_scaled_dot_product_flash_attention_for_cpu": 0,
    "_scaled_dot_product_flash_attention_for_cpu_backward": 1,
}


def layout(value: object) -> object:
    """What a product depends on: size, strides and type of a tensor, anything else as it is."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.stride(), value.dtype
    return value


def inside(name: str, args: Sequence[Any]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Shapes of the products that an attention takes inside: a causal one's at half of its square.

    The forward pass has two; the backward pass makes the scores again, and the gradients of both factors of each.
    """
    query, key = args[ATTENTION[name] :][:2]
    causal = next((value for value in args if isinstance(value, bool)), False)
    batch, length, width = query.shape[0] * query.shape[1], query.shape[2], query.shape[3]
    seen = (key.shape[2] + 1) // 2 if causal else key.shape[2]
    scores = (batch, length, width), (batch, width, seen)
    values = (batch, length, seen), (batch, seen, width)
    keys = (batch, seen, length), (batch, length, width)
    return [scores, scores, values, keys, keys] if ATTENTION[name] else [scores, values]


class RecordedProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]  # untyped in torch
    """Records mm, addmm, bmm and baddbmm, those of the backward pass and those inside attention included.

    Attributes:
        calls: Every product by its operator and the layout of its operands, and how often it was taken.
        flops: Their multiplications and additions.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped in torch
        self.calls: Counter[tuple[Any, tuple[Any, ...], tuple[Any, ...]]] = Counter()
        self.flops = 0

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - as torch declares it
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        """Pass everything on; note the products."""
        if func.overloadpacket.__name__ in PRODUCTS:
            named = tuple(sorted((name, layout(value)) for name, value in (kwargs or {}).items() if name != "out"))
            self.calls[func.overloadpacket, tuple(map(layout, args)), named] += 1
            left, right = [value for value in args if isinstance(value, Tensor)][-2:]
            self.flops += 2 * left.numel() * (right.shape[-1] if right.ndim > 1 else 1)
        if func.overloadpacket.__name__ in ATTENTION:
            for shapes in inside(func.overloadpacket.__name__, args):
                factors = [torch.empty(shape, dtype=args[0].dtype, device="meta") for shape in shapes]
                self.calls[torch.ops.aten.bmm, tuple(map(layout, factors)), ()] += 1
                self.flops += 2 * factors[0].numel() * shapes[1][-1]
        return func(*args, **(kwargs or {}))

    def alone(self) -> Callable[[], None]:
        """Repeat them on other numbers of the same layout."""
        made: dict[object, Tensor] = {}

        def operand(told: object) -> object:
            if not (isinstance(told, tuple) and len(told) == 3 and isinstance(told[2], torch.dtype)):
                return told
            if told not in made:
                shape, stride, dtype = told
                made[told] = torch.empty_strided(shape, stride, dtype=dtype).normal_()
            return made[told]

        ready = [
            (operator, [operand(told) for told in args], {name: operand(told) for name, told in named}, count)
            for (operator, args, named), count in self.calls.items()
        ]

        def repeat() -> None:
            with torch.no_grad():
                for operator, args, named, count in ready:
                    for _ in range(count):
                        operator(*args, **named)

        return repeat


def recorded(action: Callable[[], object]) -> RecordedProducts:
    """The products of one call."""
    products = RecordedProducts()
    with products:
        action()
    return products


def peak_flops(
    dtype: torch.dtype, sizes: Sequence[int] = (512, 1024, 2048)
) -> dict[str, tuple[Callable[[], None], int]]:
    """Square products to measure the machine's best rate with: what to call, and its flops."""

    def product(size: int) -> tuple[Callable[[], None], int]:
        left, right, out = (torch.randn(size, size).to(dtype) for _ in range(3))

        def multiply() -> None:
            torch.mm(left, right, out=out)

        return multiply, 2 * size**3

    return {f"square {size}": product(size) for size in sizes}
