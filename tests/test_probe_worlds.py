"""The stand-ins of `torch.distributed` answer as the real operations do, by every name that the pinned torch has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.childruns import run

SCRIPT = """
import torch, torch.distributed as dist, torch.distributed._functional_collectives as fc
dist.init_process_group("nccl")
W, R = dist.get_world_size(), dist.get_rank()
GROUP = dist.group.WORLD if W > 1 else [0]
def given(rank, dtype=torch.float32):
    return (torch.arange(2 * W) + 10 * rank).to(dtype)
x, all_x = given(R), [given(r) for r in range(W)]
total = sum(all_x)
mean, mine = total / W, slice(2 * R, 2 * R + 2)
def same(found, expected):
    torch.testing.assert_close(found, expected)

for gather in (dist.all_gather_into_tensor, dist.all_gather_single, dist._all_gather_base):
    made = torch.zeros(2 * W * W); gather(made, x); same(made, torch.cat(all_x))
    made = torch.zeros(W, 2 * W); gather(output_tensor=made, input_tensor=x, async_op=True).wait()
    same(made, torch.stack(all_x))
    made = torch.zeros(W, 2 * W); gather(made, x, None, True).wait(); same(made, torch.stack(all_x))
for reduce in (dist.reduce_scatter_tensor, dist.reduce_scatter_single, dist._reduce_scatter_base):
    made = torch.zeros(2); reduce(made, x); same(made, total[mine])
    made = torch.zeros(2); reduce(output=made, input=x, op=dist.ReduceOp.AVG); same(made, mean[mine])
    made = torch.zeros(2, dtype=torch.bfloat16); reduce(made, given(R, torch.bfloat16))
    same(made, total[mine].bfloat16())
made = torch.zeros(2); dist.reduce_scatter(made, input_list=list(x.chunk(W))); same(made, total[mine])
made = [torch.zeros(2 * W) for _ in range(W)]; dist.all_gather(tensor_list=made, tensor=x); same(made, all_x)
made = [[torch.zeros(2 * W) for _ in range(W)], [torch.zeros(1) for _ in range(W)]]
dist.all_gather_coalesced(made, [x, x[:1]]); same(made, [all_x, [each[:1] for each in all_x]])
made = [torch.zeros(2 * W) for _ in range(W)] if R == 0 else None
dist.gather(x, gather_list=made, dst=0); same(made, all_x if R == 0 else None)
made = torch.zeros(2); dist.scatter(made, list(x.chunk(W)) if R == 0 else None, src=0); same(made, all_x[0][mine])
made = torch.zeros(2); dist.scatter(tensor=made, scatter_list=list(x.chunk(W)) if R == 0 else None, src=0)
same(made, all_x[0][mine])
made = [torch.zeros(2) for _ in range(W)]
dist.all_to_all(made, list(x.chunk(W))); same(made, [each[mine] for each in all_x])
made = torch.zeros(2 * W); dist.all_to_all_single(made, x); same(made, torch.cat([each[mine] for each in all_x]))
made = [None] * W; dist.all_gather_object(object_list=made, obj={"rank": R})
assert made == [{"rank": r} for r in range(W)]
made = [None]; dist.scatter_object_list(made, [[r] for r in range(W)] if R == 0 else None, src=0); assert made == [[R]]

assert all(hasattr(fc, name) for name in ("all_gather_single", "reduce_scatter_single", "all_to_all_single"))
same(fc.wait_tensor(fc.all_reduce(x, "sum", GROUP)), total)
same(fc.wait_tensor(fc.all_reduce(x, "avg", GROUP)), mean)
same(fc.wait_tensor(fc.all_reduce(given(R, torch.bfloat16), "avg", group=GROUP)), mean.bfloat16())
same(fc.wait_tensor(fc.broadcast(x, 0, GROUP)), all_x[0])
for name in ("tensor", "single"):
    same(fc.wait_tensor(getattr(fc, f"all_gather_{name}")(x, 0, GROUP)), torch.cat(all_x))
    same(fc.wait_tensor(getattr(fc, f"reduce_scatter_{name}")(x, "sum", 0, GROUP)), total[mine])
    found = getattr(fc, f"reduce_scatter_{name}_coalesced")([x, 2 * x], "avg", [0, 0], GROUP)
    same([fc.wait_tensor(each) for each in found], [mean[mine], 2 * mean[mine]])
for name in ("all_gather_into_tensor_coalesced", "all_gather_single_coalesced"):
    same([fc.wait_tensor(each) for each in getattr(fc, name)([x, x[:1]], GROUP)],
         [torch.cat(all_x), torch.cat([each[:1] for each in all_x])])
same([fc.wait_tensor(each) for each in fc.all_reduce_coalesced([x, -x], "sum", GROUP)], [total, -total])
same(fc.wait_tensor(fc.all_to_all_single(x, None, None, GROUP)), torch.cat([each[mine] for each in all_x]))
same(x, given(R))
weight = torch.ones(2 * W, requires_grad=True)
fc.wait_tensor(fc.all_gather_single_autograd(weight * (R + 1), 0, GROUP)).sum().backward()
same(weight.grad, torch.full((2 * W,), float(W * (R + 1))))
print("answered", R)
dist.destroy_process_group()
"""


@pytest.mark.parametrize("size", [1, 2])
def test_a_world_answers_by_every_name(tmp_path: Path, size: int) -> None:
    made = run(tmp_path, SCRIPT, **({"rank": -1, "world_size": size} if size > 1 else {}))
    assert made.status == 0, made.output
    assert [f"answered {rank}" in made.output for rank in range(size)] == [True] * size
    assert not made.of("refusal")
