"""Whole scripts under the child: what they see of the machine, and what the parent hears of them."""

from __future__ import annotations

import base64
import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from harness.probe.miniature import choose
from harness.probe.world import write_world
from tests.childruns import finish, run, start
from tests.compose import Case, compose

CLOCK = {"start_s": 1e9, "per_call_s": 0.5, "per_step_s": 10.0}
MACHINE = '''
"""A script that asks its machine many things."""
from __future__ import annotations
import json, os, subprocess, sys, time
import torch, torch.distributed as dist, torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP
from flash_attn_interface import flash_attn_func

class Hyperparameters:
    layers = 11
    width, heads = 512, 8
    batch = layers * 2
    steps: int = int(os.environ.get("STEPS", 1000))

SCALE = 4
args = Hyperparameters()
seen = {"layers": args.layers, "width": args.width, "heads": args.heads, "batch": args.batch, "steps": args.steps}
seen["extra"], seen["scale"] = args.extra, SCALE
dist.init_process_group(backend="nccl", device_id=torch.device("cuda", 0))
device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
torch.cuda.set_device(device)
seen["capability"] = torch.cuda.get_device_capability()
seen["smi"] = subprocess.run(["nvidia-smi"], capture_output=True, text=True).stdout
torch.manual_seed(1)
torch.cuda.manual_seed_all(1)
model = nn.Linear(args.width, 4, device="cuda").to(device)
compiled = torch.compile(model, dynamic=False, fullgraph=True)
seen["keys"] = sorted(compiled.state_dict())
seen["same"] = compiled._orig_mod is model
wrapped = DDP(compiled, device_ids=[0])
seen["wrapped"] = sorted(wrapped.state_dict())
x = torch.randn(2, args.width, device=device)
seen["is_cuda"] = [x.is_cuda, x.cpu().is_cuda, x.to("cpu").is_cuda, x.to(device).is_cuda, x.cpu().cuda().is_cuda]
kept = {name: value.detach().cpu() for name, value in model.state_dict().items()}
optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
before, began = time.time(), time.perf_counter()
with torch.autocast(device_type="cuda", dtype=torch.bfloat16):
    out = wrapped(x)
out.float().square().mean().backward()
optimizer.step()
seen["dtype"] = str(out.dtype)
seen["took"] = time.perf_counter() - began
seen["early"] = before
seen["copied"] = not torch.equal(kept["weight"], model.weight)
with torch.inference_mode():
    y = model(x)
(y * torch.ones(4, requires_grad=True)).sum().backward()
total = torch.ones(3, device="cuda")
dist.all_reduce(total, op=dist.ReduceOp.AVG)
gathered = torch.zeros(3, device="cuda")
dist.all_gather_into_tensor(gathered, total)
seen["gathered"] = gathered.tolist()
q = torch.randn(1, 5, 4, 8, device="cuda", dtype=torch.bfloat16)
seen["attention"] = list(flash_attn_func(q, q[:, :, :2], q[:, :, :2], causal=True).shape)
start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
start.record()
time.sleep(60)
end.record()
seen["slept"] = start.elapsed_time(end)
dist.destroy_process_group()
print("SEEN" + json.dumps(seen))
'''


def seen_by(folder: Path, text: str, **plan: Any) -> tuple[dict[str, Any], Any]:
    ran = run(folder, text, **plan)
    assert ran.status == 0, ran.output
    line = next(line for line in ran.output.splitlines() if line.startswith("SEEN"))
    return json.loads(line[4:]), ran


def test_a_script_sees_a_cuda_machine(tmp_path: Path) -> None:
    overrides = {
        "class": {"Hyperparameters": {"layers": 3, "width": 16, "extra": "added"}},
        "module": {"SCALE": 2, "ABSENT": 1},
    }
    seen, ran = seen_by(tmp_path, MACHINE, overrides=overrides, environment={"STEPS": "7"}, clock=CLOCK)
    assert (seen["layers"], seen["width"], seen["heads"], seen["batch"], seen["steps"]) == (3, 16, 8, 6, 7)
    assert (seen["extra"], seen["scale"]) == ("added", 2)
    assert seen["capability"] == [9, 0]
    assert "H100" in seen["smi"]
    assert seen["keys"] == ["_orig_mod.bias", "_orig_mod.weight"]
    assert seen["same"]
    assert seen["wrapped"] == ["module._orig_mod.bias", "module._orig_mod.weight"]
    assert seen["is_cuda"] == [True, False, False, True, True]
    assert seen["dtype"] == "torch.bfloat16"
    # One reading and one step.
    assert seen["took"] == 10.5
    assert 1e9 <= seen["early"] < 1e9 + 100
    assert seen["copied"]
    assert seen["gathered"] == [1.0, 1.0, 1.0]
    assert seen["attention"] == [1, 5, 4, 8]
    assert seen["slept"] == 60_000
    wanted = {"torch.cuda", "torch.compile", "torch.autocast", "flash_attn", "nvidia-smi", "torch.inference_mode"}
    assert wanted <= ran.names("shim")
    assert ran.names("override") == {"layers", "width", "extra", "SCALE", "ABSENT"}
    assert [event["name"] for event in ran.of("override") if not event["applied"]] == ["ABSENT"]
    assert next(event["line"] for event in ran.of("override") if event["name"] == "layers") == 11
    assert ran.events[-1]["kind"] == "end"
    assert [event["i"] for event in ran.events] == list(range(len(ran.events)))


def test_a_packed_script_runs_with_its_flags_and_settings(tmp_path: Path) -> None:
    inner = (
        "from __future__ import annotations\n"
        "import json\n"
        "class Hyperparameters:\n"
        "    steps = 900\n"
        "def f(x: NoSuchName): return x\n"
        "words = {'a': 1}\n"
        "print(f'SEEN{json.dumps({'steps': Hyperparameters.steps, 'words': f'{words['a']}'})}')\n"
        "raise ValueError('on purpose')\n"
    )
    body = base64.b85encode(lzma.compress(inner.encode())).decode()
    text = f"import lzma as L,base64 as B\nexec(L.decompress(B.b85decode({body!r})))\n"
    ran = run(tmp_path, text, overrides={"class": {"Hyperparameters": {"steps": 5}}})
    assert 'SEEN{"steps": 5, "words": "1"}' in ran.output
    (crash,) = ran.of("crash")
    assert (crash["path"], crash["line"], crash["blame"]) == ("<unpacked 1>", 8, "unknown")
    assert ran.status == 1


def test_newer_fstrings_are_refused_without_their_parser(tmp_path: Path) -> None:
    ran = run(tmp_path, "a = {'b': 1}\nprint(f'{a['b']}')\n", newer_parser="")
    if ran.status:
        assert ran.of("crash")[0]["blame"] == "shim"
        assert ran.names("refusal") == {"f-strings of Python 3.12"}


def test_two_ranks_meet_over_gloo(tmp_path: Path) -> None:
    text = (
        "import os, torch, torch.distributed as dist\n"
        "from torch.nn.parallel import DistributedDataParallel as DDP\n"
        "dist.init_process_group('nccl')\n"
        "rank = dist.get_rank()\n"
        "x = torch.full((2,), float(rank + 1), dtype=torch.bfloat16, device='cuda')\n"
        "dist.all_reduce(x, op=dist.ReduceOp.AVG)\n"
        "part = torch.zeros(1)\n"
        "dist.reduce_scatter_tensor(part, torch.tensor([1.0, 10.0]) * (rank + 1))\n"
        "whole = torch.zeros(2)\n"
        "dist.all_gather_into_tensor(whole, part)\n"
        "model = DDP(torch.nn.Linear(2, 1, bias=False).cuda(), device_ids=[rank])\n"
        "model(torch.ones(1, 2) * (rank + 1)).sum().backward()\n"
        "dist.barrier()\n"
        "print(x.tolist(), whole.tolist(), model.module.weight.grad.tolist())\n"
        "dist.destroy_process_group()\n"
    )
    started = [start(tmp_path, text, rank=rank, world_size=2, port=29_617) for rank in range(2)]
    for ran in [finish(*each) for each in started]:
        assert ran.status == 0, ran.output
        assert ran.output.strip().endswith("[1.5, 1.5] [3.0, 30.0] [[1.5, 1.5]]")


@pytest.mark.parametrize(
    ("name", "kind", "blame"),
    [("sgd_before_score", "legal", ""), ("undefined_attribute", "broken", "script"), ("phased", "illegal", "")],
)
def test_records_reach_their_score_in_miniature(tmp_path: Path, name: str, kind: str, blame: str) -> None:
    text = compose(Case(name, kind))
    small = choose(text)
    world = write_world(tmp_path / "data", small.spec, tmp_path.parent / "models")
    places = {"DATA_PATH": str(world.shards), "TOKENIZER_PATH": str(world.tokenizer)}
    ran = run(tmp_path, text, environment=small.environment | places, overrides=small.overrides(), clock=CLOCK)
    assert [event["blame"] for event in ran.of("crash")] == [blame] * bool(blame), ran.output
    assert ("final_int8_zlib_roundtrip_exact" in ran.output) == (not blame)


def test_what_has_no_equivalent_is_refused(tmp_path: Path) -> None:
    ran = run(tmp_path, "import torch\ng = torch.cuda.CUDAGraph()\n")
    (crash,) = ran.of("crash")
    assert crash["blame"] == "shim"
    assert (crash["path"], crash["line"]) == (str(tmp_path / "train_gpt.py"), 2)
    assert ran.names("refusal") == {"torch.cuda.CUDAGraph"}


def test_a_script_leaves_by_its_own_status(tmp_path: Path) -> None:
    ran = run(tmp_path, "import sys, os\nassert 'PROBE_CHANNEL_FD' not in os.environ\nsys.exit(3)\n")
    assert ran.status == 3
    assert not ran.of("crash")
