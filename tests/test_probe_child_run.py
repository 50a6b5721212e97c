"""Whole scripts under the child: what they see of the machine, and what the parent hears of them."""

from __future__ import annotations

import base64
import json
import lzma
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.probe.child import ranks
from harness.probe.miniature import choose
from harness.probe.world import write_world
from tests.childruns import run, run_fresh
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
class Token: type = "word"
def kind(value):
    match value:
        case Token(type="word"): return value.type
        case _: return value.device.type
seen["kinds"] = [device.type, torch.device("cpu").type, x.device.type, x.cpu().device.type, kind(Token()), kind(x)]
with torch.autocast(device_type=device.type, enabled=device.type == "cuda"): seen["lower"] = str((x @ x.t()).dtype)
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
    ran = run_fresh(folder, text, **plan)
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
    assert seen["kinds"] == ["cuda", "cpu", "cuda", "cpu", "word", "cuda"]
    assert seen["dtype"] == seen["lower"] == "torch.bfloat16"
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


MEETING = """
import os, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
dist.init_process_group("nccl", device_id=torch.device("cuda", int(os.environ["LOCAL_RANK"])))
rank, size = dist.get_rank(), dist.get_world_size()
assert (torch.cuda.device_count(), torch.cuda.current_device(), dist.get_backend()) == (2, rank, "nccl")
mean = torch.full((2,), float(rank + 1), dtype=torch.bfloat16, device=f"cuda:{rank}")
dist.all_reduce(mean, op=dist.ReduceOp.AVG)
short = torch.tensor([rank + 1], dtype=torch.int16)
dist.all_reduce(short, async_op=True).wait()
columns = torch.arange(4.0).reshape(2, 2).t() * (rank + 1)
dist.broadcast(columns, src=1)
tokens = torch.tensor([300 * rank + 7, 2], dtype=torch.uint16)
dist.broadcast(tokens, 1)
part, other = torch.zeros(1), torch.zeros(1)
dist.reduce_scatter_tensor(part, torch.tensor([1.0, 10.0]) * (rank + 1))
dist.reduce_scatter(other, [torch.tensor([float(rank)]), torch.tensor([2.0 * rank])])
whole = torch.zeros(2)
dist.all_gather_into_tensor(whole, part)
parts = [torch.zeros(1, dtype=torch.int16) for _ in range(size)]
dist.all_gather(parts, short + rank)
turned = torch.zeros(2)
dist.all_to_all_single(turned, torch.tensor([1.0, 2.0]) + 10 * rank)
names = [None, None]
dist.all_gather_object(names, f"rank {rank}")
group = dist.new_group([0, 1])
dist.monitored_barrier(group)
model = DDP(torch.nn.Linear(2, 1, bias=False).cuda(), device_ids=[rank])
assert isinstance(model, DDP)
model(torch.ones(1, 2) * (rank + 1)).sum().backward()
dist.barrier(device_ids=[rank])
print(mean.tolist(), short.tolist(), columns.tolist(), tokens.tolist(), other.tolist(), whole.tolist())
print([each.item() for each in parts], turned.tolist(), names, model.module.weight.grad.tolist(), "x" * 70_000)
dist.destroy_process_group()
assert not dist.is_initialized()
"""


def test_two_ranks_meet_over_gloo(tmp_path: Path) -> None:
    ran = run_fresh(tmp_path, MEETING, rank=-1, world_size=2)
    assert ran.status == 0, ran.output
    lines = [line for line in ran.output.splitlines() if line.startswith("[")]
    # Lines of the two do not mix, however long they are.
    assert sorted(line.rstrip("x") for line in lines) == sorted(
        [
            "[1.5, 1.5] [3] [[0.0, 4.0], [2.0, 6.0]] [307, 2] [1.0] [3.0, 30.0]",
            "[1.5, 1.5] [3] [[0.0, 4.0], [2.0, 6.0]] [307, 2] [2.0] [3.0, 30.0]",
            "[3, 4] [1.0, 11.0] ['rank 0', 'rank 1'] [[1.5, 1.5]] ",
            "[3, 4] [2.0, 12.0] ['rank 0', 'rank 1'] [[1.5, 1.5]] ",
        ]
    )
    assert {event["rank"] for event in ran.of("end")} == {0, 1}
    assert ran.of("ranks")[0]["statuses"] == [0, 0]
    assert "DistributedDataParallel" in ran.names("shim")


def test_a_process_that_fails_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "GRACE_S", 0.2)
    scripts = ("import time; time.sleep(100)", "raise SystemExit(3)")
    processes = [subprocess.Popen([sys.executable, "-S", "-c", script]) for script in scripts]
    assert ranks._follow(processes, ranks.Relay()) == 3
    assert [process.wait() for process in processes] == [-9, 3]


@pytest.mark.slow
def test_a_rank_that_fails_ends_the_others(tmp_path: Path) -> None:
    text = (
        "import os, time, torch.distributed as dist\n"
        "dist.init_process_group('nccl')\n"
        "if dist.get_rank() == 1:\n    raise ValueError('mine')\n"
        "while True:\n    time.sleep(0.1)\n"
    )
    ran = run_fresh(tmp_path, text, rank=-1, world_size=2)
    assert ran.status == 1
    [crash] = ran.of("crash")
    assert (crash["rank"], crash["message"]) == (1, "mine")
    assert ran.of("ranks")[0]["statuses"] == [-9, 1]


@pytest.mark.parametrize(
    ("name", "kind", "blame"),
    [
        ("undefined_attribute", "broken", "script"),
        pytest.param("sgd_before_score", "legal", "", marks=pytest.mark.slow),
        pytest.param("phased", "illegal", "", marks=pytest.mark.slow),
    ],
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
